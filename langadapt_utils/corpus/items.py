"""Evaluation items: the built-in ones, and patterns that need no language."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..files import data_folder, read_jsonl

ITEM_KINDS = ("choice", "cloze", "pairs")  # of the built-in evaluation items

PATTERNS = ("copying", "mapping", "counting")
OPTIONS = 4  # of each item
CLOZE_OPTIONS = 4
KIND_NAMES = {"choice": "two-choice stories", "cloze": "last words", "pairs": "minimal pairs"}
KIND_NAMES |= {kind: f"{kind} from context" for kind in PATTERNS}


def load_items(kind: str, language: str) -> list[dict[str, Any]]:
    """The built-in evaluation items of a kind in a language; empty where there are none.

    Args:
        kind: `choice` (premise, choices, label), `cloze` (context, target) or `pairs` (good, bad).
        language: its code.
    """
    items = []
    for row in read_jsonl(data_folder() / f"eval_{kind}.jsonl"):
        if kind == "pairs" and row["lang"] == language:
            items.append(row)
        elif isinstance(row.get(language), dict):
            items.append(
                {**{k: v for k, v in row.items() if not isinstance(v, dict)}, **row[language]}
            )
    return items


def item_options(
    kind: str, items: Sequence[dict[str, Any]], place: int, language: str
) -> list[tuple[str, str]]:
    """What a model chooses from in an evaluation item: pairs of context and continuation.

    Args:
        kind: as `score_items` takes it.
        items: of that kind, all of them.
        place: of the item among them.
        language: Thai writes no space between the parts.
    """
    space, item = "" if language == "th" else " ", items[place]
    if kind == "choice" and item["kind"] == "cause":
        return [(choice + space, item["premise"]) for choice in item["choices"]]
    if kind == "choice":
        return [(item["premise"] + space, choice) for choice in item["choices"]]
    if kind == "cloze":
        others = [items[(place + step) % len(items)]["target"] for step in range(1, CLOZE_OPTIONS)]
        return [(item["context"] + space, word) for word in [item["target"], *others]]
    if kind in PATTERNS:
        return [(item["context"], option) for option in item["options"]]
    return [("", item["good"]), ("", item["bad"])]


def kind_name(kind: str) -> str:
    """What a kind of items is called in figures and sentences; a task of lm-eval has a name of its
    own.
    """
    return KIND_NAMES.get(kind, kind)


def pattern_items(kind: str, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Items that need no language, only what stands before: numbers to be copied, looked up or
    counted on.

    Learning from context can collapse while perplexity looks healthy: Elhady et al. 2025, arXiv
    2506.00288.

    Args:
        kind: `copying` (a list of numbers that comes a third time), `mapping` (pairs, shown twice,
            one of which is asked) or `counting` (equal steps).
        count: how many.
        seed: of the numbers; the same items for every model.

    Returns:
        Items with `id`, `context`, `options` and `label`, the place of the right option.
    """
    draw = random.Random(f"{kind} {seed}")
    return [{"id": f"{kind}-{number:03}", **_pattern(kind, draw)} for number in range(count)]


def item_texts(kind: str, language: str) -> dict[str, str]:
    """The text of each built-in item: what is shown and what is scored."""
    parts = ("premise", "context", "target", "good")
    return {
        item["id"]: " ".join(
            [*(item[part] for part in parts if part in item), *item.get("choices", ())]
        )
        for item in load_items(kind, language)
    }


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
        wrong = draw.sample(
            [n for n in range(right - 9, right + 10) if 10 <= n < 100 and n != right], OPTIONS - 1
        )
    options = [right, *wrong]
    draw.shuffle(options)
    return {
        "context": context,
        "options": [f" {number}" for number in options],
        "label": options.index(right),
    }
