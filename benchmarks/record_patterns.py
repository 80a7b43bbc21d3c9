"""Write the evaluation items `data/eval_{copying,mapping,counting}.jsonl`, which need no language.

    python benchmarks/record_patterns.py

They test learning from the context, which can collapse while perplexity still looks good: Elhady et
al. 2025, arXiv 2506.00288. `copying` repeats a list of numbers a third time, `mapping` looks up a
pair that was shown twice, `counting` continues equal steps.
"""

from __future__ import annotations

import json
import random
from typing import Any

from langadapt_utils.corpus.items import OPTIONS, PATTERNS
from langadapt_utils.files import data_folder
from langadapt_utils.languages import NO_LANGUAGE

ITEMS = 99  # of each kind


def main() -> None:
    """Write one file per kind."""
    for kind in PATTERNS:
        lines = [json.dumps(item) + "\n" for item in items(kind)]
        (data_folder() / f"eval_{kind}.jsonl").write_text("".join(lines), encoding="utf-8")


def items(kind: str) -> list[dict[str, Any]]:
    """Return the items of a kind, which are the same in every run."""
    draw = random.Random(f"{kind} 0")
    names = ({"id": f"{kind}-{place:03}", "lang": NO_LANGUAGE} for place in range(ITEMS))
    return [name | pattern(kind, draw) for name in names]


def pattern(kind: str, draw: random.Random) -> dict[str, Any]:
    """Return context and options of an item, and the index of the right option."""
    if kind == "copying":
        numbers = draw.sample(range(10, 100), 6)
        line = " ".join(map(str, numbers))
        context, right = f"{line}\n{line}\n{' '.join(map(str, numbers[:-1]))}", numbers[-1]
        wrong = draw.sample(numbers[:-1], OPTIONS - 1)
    elif kind == "mapping":
        keys, values = draw.sample(range(10, 100), OPTIONS), draw.sample(range(10, 100), OPTIONS)
        asked = draw.randrange(OPTIONS)
        lines = [f"{key} = {value}" for key, value in zip(keys, values, strict=True)]
        context, right = "\n".join([*lines, *lines, f"{keys[asked]} ="]), values[asked]
        wrong = draw.sample(values[:asked] + values[asked + 1 :], OPTIONS - 1)
    else:
        step, first = draw.randint(1, 9), draw.randint(10, 45)
        context = " ".join(str(first + step * place) for place in range(6))
        right = first + step * 6
        near = [n for n in range(right - 9, right + 10) if 10 <= n < 100 and n != right]
        wrong = draw.sample(near, OPTIONS - 1)
    options = [right, *wrong]
    draw.shuffle(options)
    written, label = [f" {number}" for number in options], options.index(right)
    return {"context": context, "options": written, "label": label}


if __name__ == "__main__":
    main()
