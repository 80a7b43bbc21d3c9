"""How many tokens a language takes: fertility, parity, words split into several tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from transformers import PreTrainedTokenizerFast as Tokenizer

from .display.figures import colour_of, finish, new_axes
from .errors import CorpusError
from .files import package_yaml, read_json, write_json
from .intervals import plain, ratio, restored
from .languages import SEGMENTER, Spans, Texts, has_words, language_name, word_spans
from .tokens import encode_texts

HEAD = 50  # texts in which the script of a language is looked up


@dataclass(frozen=True)
class FertilityReport:
    """Fertility of tokenizers in several languages.

    Attributes:
        table: one row per tokenizer and language, with the columns `tokens`, `words`,
            `characters`, `bytes`, `segmenter`, `interval` (an `Interval` over texts: of tokens per
            word, or of tokens per character without words), `tokens_per_word` (fertility; Ács
            2019), `tokens_per_character`, `tokens_per_byte`, `continued_words` (fraction of words
            in two or more tokens; Rust et al. 2021), `single_token_words` (fraction of words that
            are one token; arXiv 2510.09947), `parity` (tokens divided by those of the English
            translation; Petrov et al., arXiv 2305.15425; NaN without translations). Columns about
            words are NaN if no segmenter finds them, as in Tibetan.
        sentences: number of texts per language.
    """

    table: pd.DataFrame
    sentences: int

    def value(self, tokenizer: str, language: str, column: str) -> float:
        """Return one cell of the table."""
        rows = self.table.set_index(["tokenizer", "language"])
        return float(rows.loc[(tokenizer, language), column])

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        write_json(path, {"sentences": self.sentences, "rows": plain(self.table)})

    @classmethod
    def load(cls, path: Path) -> "FertilityReport":
        """Read what `save` wrote."""
        content = read_json(path)
        return cls(restored(content["rows"]), content["sentences"])


def measure_fertility(
    tokenizers: Mapping[str, Tokenizer], texts: Texts, *, parallel: bool = True
) -> FertilityReport:
    """Count the tokens, words, characters and bytes of texts under tokenizers.

    Args:
        tokenizers: by name.
        texts: by language; line by line translations of each other if `parallel`.
        parallel: whether to compute parity with English.

    Raises:
        CorpusError: a language has no text, or the numbers of parallel texts differ.
    """
    counts = {language: len(lines) for language, lines in texts.items()}
    if not all(counts.values()) or (parallel and len(set(counts.values())) > 1):
        remedy = "give text in every language, with equally many lines if they are parallel"
        raise CorpusError(f"fertility cannot be measured on {counts} lines: {remedy}")
    table = pd.DataFrame(
        {"tokenizer": name, "language": language, **_count(tokenizer, lines, language)}
        for name, tokenizer in tokenizers.items()
        for language, lines in texts.items()
    )
    for unit in ("word", "character", "byte"):
        table[f"tokens_per_{unit}"] = table.tokens / table[f"{unit}s"]
    table["continued_words"] = table.continued / table.words
    table["single_token_words"] = 1 - table.continued_words
    english = table[table.language == "en"].set_index("tokenizer").tokens
    table["parity"] = table.tokens / table.tokenizer.map(english) if parallel else float("nan")
    return FertilityReport(table.drop(columns="continued"), min(counts.values()))


def _count(tokenizer: Tokenizer, texts: Sequence[str], language: str) -> dict[str, Any]:
    """Count tokens, words, characters and bytes of texts, and words in several tokens."""
    encodings, rows = encode_texts(tokenizer.backend_tokenizer, texts, offsets=True), []
    for text, encoding in zip(texts, encodings, strict=True):
        words = word_spans(text, language)
        continued = sum(n > 1 for n in tokens_touching(words, encoding.offsets))
        rows.append([len(encoding.ids), len(words), len(text), len(text.encode()), continued])
    counts = pd.DataFrame(rows, columns=["tokens", "words", "characters", "bytes", "continued"])
    known = counts.words.any() and has_words("".join(texts[:HEAD]))
    per = counts.words if known else counts.characters
    interval = ratio(counts.tokens.to_numpy(float), per.to_numpy(float))
    unknown = {} if known else {"words": np.nan, "continued": np.nan, "segmenter": "none"}
    return {**counts.sum(), "segmenter": SEGMENTER, "interval": interval} | unknown


def tokens_touching(words: Spans, tokens: Spans) -> list[int]:
    """Count the tokens that touch each word; words and tokens are in order of the text.

    Example:
        >>> tokens_touching([(0, 4), (5, 9)], [(0, 2), (2, 4), (4, 9)])
        [2, 1]
    """
    columns = [np.array(spans, dtype=np.int64).reshape(-1, 2).T for spans in (words, tokens)]
    (starts, ends), (token_starts, token_ends) = columns
    before = np.searchsorted(token_ends, starts, side="right")
    return list((np.searchsorted(token_starts, ends) - before).tolist())


MEASURES: dict[str, dict[str, str]] = package_yaml("fertility.yaml")


def plot_fertility(report: FertilityReport, column: str, *, ax: Axes | None = None) -> Axes:
    """Plot one column of a fertility report, with one bar per language and tokenizer.

    Args:
        report: from `measure_fertility`.
        column: of its table, such as `tokens_per_word`.
        ax: axes to draw into; new ones by default.
    """
    ax = ax or new_axes(rows=len(report.table))
    rows = report.table.dropna(subset=[column]).iloc[::-1]
    names = [f"{language_name(row.language)}, {row.tokenizer}" for row in rows.itertuples()]
    colours = [colour_of(code) for code in rows.language]
    ax.bar_label(ax.barh(names, rows[column], color=colours, height=0.65), fmt="{:.2f}", padding=3)
    ax.set(xlabel=MEASURES[column]["unit"], xlim=(0, max(rows[column]) * 1.15))
    return finish(ax, _finding(report, column), note=f"{report.sentences} texts per language")


def _finding(report: FertilityReport, column: str) -> str:
    """Return a sentence about the target language under the last tokenizer."""
    codes, last = list(report.table.language), report.table.tokenizer.iloc[-1]
    target = next((code for code in codes if code != "en"), "en")
    name, value = language_name(target), report.value(last, target, column)
    if value != value and column != "parity":
        return f"No segmenter finds the words of {name}, so there are no figures per word"
    english = report.value(last, "en", column) if "en" in codes and target != "en" else np.nan
    found = MEASURES[column]["finding"].format(name=name, value=value, english=english)
    return str(found if english == english else found.partition(", ")[0])
