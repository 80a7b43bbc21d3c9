"""Items that ask whether a model still follows the patterns in its context, whatever the language."""

from __future__ import annotations

import random
from typing import Any

PATTERNS = ("copying", "mapping", "counting")
OPTIONS = 4  # of each item


def pattern_items(kind: str, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Items that need no language, only what stands before: numbers to be copied, looked up or counted on.

    Learning from context can collapse while perplexity looks healthy: Elhady et al. 2025, arXiv 2506.00288.

    Args:
        kind: `copying` (a list of numbers that comes a third time), `mapping` (pairs, shown twice, one of which is
            asked) or `counting` (equal steps).
        count: how many.
        seed: of the numbers; the same items for every model.

    Returns:
        Items with `id`, `context`, `options` and `label`, the place of the right option.
    """
    draw = random.Random(f"{kind} {seed}")
    return [{"id": f"{kind}-{number:03}", **_pattern(kind, draw)} for number in range(count)]


def _pattern(kind: str, draw: random.Random) -> dict[str, Any]:
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
        wrong = draw.sample([n for n in range(right - 9, right + 10) if 10 <= n < 100 and n != right], OPTIONS - 1)
    options = [right, *wrong]
    draw.shuffle(options)
    return {"context": context, "options": [f" {number}" for number in options], "label": options.index(right)}
