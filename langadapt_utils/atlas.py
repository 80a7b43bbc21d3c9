"""The atlas: how many tokens the same names take in the languages of the world.

Babel contains the names of the Unicode CLDR: some 1,000 countries, languages, currencies, months
and days in over 200 languages. They are a parallel text of the world that needs no network. Names
are short, and many are foreign words. So the atlas ranks languages; parity measures sentences.
"""

from collections.abc import Mapping
from functools import cache

import ipywidgets as widgets
import pandas as pd
from babel import Locale
from babel.localedata import locale_identifiers
from fontTools.unicodedata import script_name
from matplotlib.axes import Axes
from transformers import PreTrainedTokenizerFast as Tokenizer

from .display.figures import GREY, TARGET, beside, finish, new_axes
from .display.html import table_html
from .display.widgets import Interactive
from .languages import script_counts
from .models import fetch_model, load_tokenizer
from .tokens import token_ids

FEWEST = 200  # names that differ from English; a language with fewer is not shown
COST = "tokens_over_english"


def language_atlas(tokenizer: Tokenizer) -> pd.DataFrame:
    """Count the tokens of names in every language for which Babel has at least 200 names.

    Args:
        tokenizer: to measure.

    Returns:
        One row per language, the fewest tokens first: `code`, `language`, `script`, `names` (those
        that differ from English), `tokens_over_english` (their tokens divided by those of the
        English names). `benchmarks/languages.py` compares this order with parity on FLORES-200.
    """
    languages = atlas_languages()
    pairs = {code: _beside_english(code) for code in languages}
    texts = list({name for each in pairs.values() for pair in each for name in pair})
    cost, rows = dict(zip(texts, map(len, token_ids(tokenizer, texts)), strict=True)), []
    for code, each in pairs.items():
        own, english = (sum(cost[name] for name in names) for names in zip(*each, strict=True))
        rows.append([code, languages[code], main_script(code), len(each), own / english])
    columns = ["code", "language", "script", "names", COST]
    return pd.DataFrame(rows, columns=columns).sort_values(COST, ignore_index=True)


@cache
def world_names(code: str) -> dict[str, str]:
    """Return the names of the CLDR in a language, by what they name.

    Example:
        >>> world_names("hu")["territory DE"], world_names("en")["month 5"]
        ('Németország', 'May')
    """
    locale = Locale.parse(code)
    months, days = (times["format"]["wide"] for times in (locale.months, locale.days))
    parts = {"territory": locale.territories, "language": locale.languages}
    parts |= {"currency": locale.currencies, "month": months, "day": days}
    return {f"{kind} {key}": str(name) for kind in parts for key, name in parts[kind].items()}


@cache
def atlas_languages() -> dict[str, str]:
    """Return the languages with at least 200 names of their own: code to English name.

    A language with two scripts has two entries, such as `sr` and `sr_Latn`.
    """
    found: dict[str, str] = {}
    for code in sorted(locale_identifiers(), key=lambda code: (len(code), code)):
        locale = Locale.parse(code)
        if locale.language == "en" or locale.territory or locale.variant:
            continue
        own = _beside_english(code)
        if len(own) >= FEWEST and not (locale.script and own == _beside_english(locale.language)):
            found[code] = str(locale.get_display_name("en"))
    return found


@cache
def _beside_english(code: str) -> list[tuple[str, str]]:
    """Return pairs of names, in a language and in English, that differ."""
    english, own = world_names("en"), world_names(code)
    return [(own[key], english[key]) for key in own if english.get(key, own[key]) != own[key]]


@cache
def main_script(code: str) -> str:
    """Return the script of most names of a language.

    Example:
        >>> main_script("hu"), main_script("th")
        ('Latin', 'Thai')
    """
    ((most, _),) = script_counts("".join(world_names(code).values())).most_common(1)
    return str(script_name(most)).replace("_", " ")


def plot_atlas(atlas: pd.DataFrame, language: str = "", *, ax: Axes | None = None) -> Axes:
    """Plot an atlas by script, with one dot per language.

    Args:
        atlas: from `language_atlas`.
        language: code of the language to highlight.
        ax: axes to draw into; new ones by default.
    """
    order = atlas.groupby("script")[COST].median().sort_values(ascending=False)
    places = {name: place for place, name in enumerate(order.index)}
    ax = ax or new_axes(rows=round(0.6 * len(places)))
    ax.plot(atlas[COST], atlas.script.map(places), "o", color=GREY, alpha=0.5, markersize=4)
    own, examples = atlas[atlas.code == language], []
    for row in pd.concat([atlas.iloc[[0, -1]], own]).drop_duplicates().itertuples():
        colour = TARGET if row.code == language else "black"
        x, y = row.tokens_over_english, places[row.script]
        ax.plot(x, y, "D", color=colour, markersize=5)
        beside(ax, row.language, x, y, (6, 4), color=colour, fontsize=8)
        examples.append(f"{x:.1f} in {row.language}")
    ax.set_yticks(range(len(places)), list(places), fontsize=8)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    unit = "tokens for the same names, as a multiple of English"
    ax.set(xlim=(None, 1.6 * atlas[COST].max()), xlabel=unit)
    title = f"What takes one token in English takes {', '.join(examples)}"
    return finish(ax, title, note=f"{len(atlas)} languages, names from the Unicode CLDR")


def atlas_widget(tokenizers: Mapping[str, Tokenizer], language: str) -> Interactive:
    """Return controls to find a language and see how many tokens its names take.

    Args:
        tokenizers: by name. The reader can add others, by the names of base models.
        language: code of the language that is shown first.
    """
    atlases = {name: language_atlas(tokenizer) for name, tokenizer in tokenizers.items()}
    codes = {name: code for code, name in sorted(atlas_languages().items(), key=lambda p: p[1])}
    first = {"value": atlas_languages().get(language, ""), "options": list(codes)}
    texts = {"continuous_update": False, "layout": {"width": "90%"}}
    finder = widgets.Combobox(description="language", placeholder="type a name", **first, **texts)
    where = "hub:ORG/NAME or a folder, then Enter"
    other = widgets.Text(description="tokenizer", placeholder=where, **texts)

    def answer() -> str:
        if (source := other.value.strip()) and source not in atlases:
            atlases[source] = language_atlas(load_tokenizer(fetch_model(source, weights=False)))
        return cost_html(atlases, codes.get(finder.value, finder.value))

    return Interactive([finder, other], answer, cost_html(atlases, language))


def cost_html(atlases: Mapping[str, pd.DataFrame], language: str) -> str:
    """Return a table of a language: tokens and rank among all languages, per tokenizer."""
    rows = []
    for name, atlas in atlases.items():
        for row in atlas[atlas.code == language].itertuples():
            place = f"{row.Index + 1} of {len(atlas)}"
            rows.append([name, row.language, row.script, row.tokens_over_english, place])
    if not rows:
        return "The Unicode CLDR has too few names in this language: choose one from the list."
    columns = ["tokenizer", "language", "script", "tokens for one of English", "rank (1: fewest)"]
    return str(table_html(pd.DataFrame(rows, columns=columns)))
