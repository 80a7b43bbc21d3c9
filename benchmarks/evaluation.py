"""Speed of evaluation: eager attention against SDPA by length, and trees against batches.

    python benchmarks/evaluation.py [--rounds 5]

The base model reads random tokens in batches, as evaluation does, each length with both ways in
turn. The first table has the median seconds per batch. Then it reads 50 test items per kind, whose
options share a beginning: in padded batches, where each option has it again, and as trees, where it
is read once. The second table has the median seconds for all items.

Measured on 2 cores of AMD EPYC, bfloat16:

| tokens | SDPA, s | eager, s | times SDPA |
|---|---|---|---|
| 64 | 0.99 | 0.95 | 0.96 |
| 128 | 1.04 | 0.98 | 0.94 |
| 256 | 1.19 | 1.08 | 0.90 |
| 512 | 1.33 | 1.21 | 0.91 |
| 1,024 | 1.54 | 1.50 | 0.97 |
| 2,048 | 1.96 | 2.11 | 1.08 |

On a slower machine of the same kind (0.38 in place of 0.90 TFLOP/s), three rounds:

| items | batches, s | trees, s | times batches |
|---|---|---|---|
| th choice | 10.50 | 9.45 | 0.90 |
| th cloze | 34.67 | 13.34 | 0.38 |
| th pairs | 6.28 | 5.73 | 0.91 |
| hu choice | 3.66 | 3.23 | 0.88 |
| hu cloze | 11.77 | 5.11 | 0.43 |
| hu pairs | 2.72 | 2.35 | 0.86 |
| en choice | 2.06 | 1.66 | 0.81 |
| en cloze | 5.36 | 2.13 | 0.40 |
| en pairs | 1.52 | 1.17 | 0.77 |
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import product

import torch

from langadapt_utils import hardware
from langadapt_utils.corpus.items import ITEM_KINDS, load_items
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.evaluate import score_items
from langadapt_utils.models import Base, load_base
from langadapt_utils.recipe import BASE_MODEL

LENGTHS = 64, 128, 256, 512, 1_024, 2_048
WAYS = {"SDPA": 0, "eager": max(LENGTHS)}  # tokens up to which attention is eager
LANGUAGES, ITEMS = ("th", "hu", "en"), 50


def main() -> None:
    """Print two tables: one row per length, and one per language and kind of items."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds, base = parser.parse_args().rounds, load_base(BASE_MODEL)
    print(f"{hardware.describe()['device']}, {hardware.native_precision()}\n")
    print("| tokens | SDPA, s | eager, s | times SDPA |\n|---|---|---|---|")
    usual = likelihood.EAGER_TOKENS
    for length in LENGTHS:
        work = partial(read_tokens, base, length)
        print(f"| {length:,} {compared(work, list(WAYS), rounds)}", flush=True)
    likelihood.EAGER_TOKENS = usual
    print("\n| items | batches, s | trees, s | times batches |\n|---|---|---|---|")
    for language, kind in product(LANGUAGES, ITEM_KINDS):
        work = partial(read_items, base, kind, language)
        cells = compared(work, ["batches", "trees"], rounds)
        print(f"| {language} {kind} {cells}", flush=True)


def read_tokens(base: Base, length: int, way: str) -> None:
    """Read a batch of random tokens."""
    generator = torch.Generator().manual_seed(0)
    size = likelihood.BATCH_TOKENS // length, length
    rows = torch.randint(0, base.config.vocab_size, size, generator=generator).tolist()
    pieces = [likelihood._Piece(unit, ids, 1) for unit, ids in enumerate(rows)]
    likelihood.EAGER_TOKENS = WAYS[way]
    likelihood._bits(base.model, pieces, ["random tokens"] * len(pieces))


def read_items(base: Base, kind: str, language: str, way: str) -> None:
    """Answer test items."""
    base.model.langadapt_trees = way == "trees"
    items = load_items(kind, language)[:ITEMS]
    score_items(base.model, base.tokenizer, kind, items, language)


def compared(work: Callable[[str], None], ways: list[str], rounds: int) -> str:
    """Return the median seconds of both ways, which take turns, and their ratio, as cells."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for way in ways:
            began = time.perf_counter()
            work(way)
            seconds[way].append(time.perf_counter() - began)
    first, second = (statistics.median(seconds[way][1:]) for way in ways)  # without the first
    return f"| {first:.2f} | {second:.2f} | {second / first:.2f} |"


if __name__ == "__main__":
    main()
