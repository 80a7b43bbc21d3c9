"""Speed of evaluation: eager attention against SDPA, by length of the texts.

    python benchmarks/evaluation.py [--rounds 5]

The base model reads random tokens in batches, as evaluation does, each length with both ways in
turn. The table has the median seconds per batch.

Measured on 2 cores of AMD EPYC, bfloat16:

| tokens | SDPA, s | eager, s | times SDPA |
|---|---|---|---|
| 64 | 0.99 | 0.95 | 0.96 |
| 128 | 1.04 | 0.98 | 0.94 |
| 256 | 1.19 | 1.08 | 0.90 |
| 512 | 1.33 | 1.21 | 0.91 |
| 1,024 | 1.54 | 1.50 | 0.97 |
| 2,048 | 1.96 | 2.11 | 1.08 |
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import torch

from langadapt_utils import hardware
from langadapt_utils.evaluation import likelihood
from langadapt_utils.models import load_base
from langadapt_utils.recipe import BASE_MODEL

LENGTHS = 64, 128, 256, 512, 1_024, 2_048
WAYS = {"SDPA": 0, "eager": max(LENGTHS)}  # tokens up to which attention is eager


def main() -> None:
    """Print a table: one row per length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = load_base(BASE_MODEL).model
    generator = torch.Generator().manual_seed(0)
    print(f"{hardware.describe()['device']}, {hardware.native_precision()}\n")
    print("| tokens | SDPA, s | eager, s | times SDPA |\n|---|---|---|---|")
    for length in LENGTHS:
        count = likelihood.BATCH_TOKENS // length
        size = (count, length)
        rows = torch.randint(0, model.config.vocab_size, size, generator=generator).tolist()
        pieces = [likelihood._Piece(unit, ids, 1) for unit, ids in enumerate(rows)]
        seconds: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds + 1):
            for way, likelihood.EAGER_TOKENS in WAYS.items():
                began = time.perf_counter()
                likelihood._bits(model, pieces, ["random tokens"] * count)
                seconds[way].append(time.perf_counter() - began)
        sdpa, eager = (statistics.median(seconds[way][1:]) for way in WAYS)  # without the first
        print(f"| {length:,} | {sdpa:.2f} | {eager:.2f} | {eager / sdpa:.2f} |", flush=True)


if __name__ == "__main__":
    main()
