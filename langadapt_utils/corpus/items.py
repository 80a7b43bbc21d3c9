"""Evaluation items: the built-in ones, and patterns that need no language."""

import random
from collections.abc import Sequence
from typing import Any

from ..files import data_folder, read_jsonl

ITEM_KINDS = ("choice", "cloze", "pairs")  # of the built-in evaluation items

PATTERNS = ("copying", "mapping", "counting")
OPTIONS = 4  # of each pattern and of each cloze item
KIND_NAMES = {"choice": "two-choice stories", "cloze": "last words", "pairs": "minimal pairs"}
KIND_NAMES |= {kind: f"{kind} from context" for kind in PATTERNS}
CHAT_NAMES = {"chat_answer": "chat: the right answer", "chat_language": "chat: its language"}
CHAT_NAMES |= {"chat_end": "chat: end of turn", "chat_turn": "chat: turns as written"}


def load_items(kind: str, language: str) -> list[dict[str, Any]]:
    """Return the built-in evaluation items of a kind in a language; empty if there are none.

    Args:
        kind: `choice` (premise, choices, label), `cloze` (context, target), `pairs` (good, bad) or
            `chat` (prompt, response, wrong, and the response in other languages).
        language: code of the language.
    """
    rows = list(read_jsonl(data_folder() / f"eval_{kind}.jsonl"))
    if kind in ("pairs", "chat"):
        return [row for row in rows if row["lang"] == language]
    return [
        {name: value for name, value in row.items() if not isinstance(value, dict)} | row[language]
        for row in rows
        if isinstance(row.get(language), dict)
    ]


def item_options(
    kind: str, items: Sequence[dict[str, Any]], place: int, language: str
) -> list[tuple[str, str]]:
    """Return the options of an evaluation item: pairs of context and continuation.

    Args:
        kind: of the items, as in `score_items`.
        items: all items of that kind.
        place: index of the item.
        language: in Thai, no space separates the parts.
    """
    space, item = "" if language == "th" else " ", items[place]
    if kind == "choice" and item["kind"] == "cause":
        return [(choice + space, item["premise"]) for choice in item["choices"]]
    if kind == "choice":
        return [(item["premise"] + space, choice) for choice in item["choices"]]
    if kind == "cloze":
        others = [items[(place + step) % len(items)]["target"] for step in range(1, OPTIONS)]
        return [(item["context"] + space, word) for word in [item["target"], *others]]
    if kind in PATTERNS:
        return [(item["context"], option) for option in item["options"]]
    return [("", item["good"]), ("", item["bad"])]


def kind_name(kind: str) -> str:
    """Return the name of a kind of items in figures."""
    return (KIND_NAMES | CHAT_NAMES).get(kind, kind)


def pattern_items(kind: str, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return items that test learning from the context, without any language.

    In-context learning can collapse while perplexity still looks good: Elhady et al. 2025, arXiv
    2506.00288.

    Args:
        kind: `copying` (repeat a list of numbers a third time), `mapping` (look up a pair that was
            shown twice) or `counting` (continue equal steps).
        count: number of items.
        seed: of the numbers; every model gets the same items.

    Returns:
        Items with `id`, `context`, `options` and `label`, the index of the right option.
    """
    draw = random.Random(f"{kind} {seed}")
    return [{"id": f"{kind}-{number:03}", **_pattern(kind, draw)} for number in range(count)]


def item_texts(kind: str, language: str) -> dict[str, str]:
    """Return the text of each built-in item by its id: context and options."""
    texts = {}
    for item in load_items(kind, language):
        parts = [item[name] for name in ("premise", "context", "target", "good") if name in item]
        texts[item["id"]] = " ".join([*parts, *item.get("choices", ())])
    return texts


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
        near = [n for n in range(right - 9, right + 10) if 10 <= n < 100 and n != right]
        wrong = draw.sample(near, OPTIONS - 1)
    options = [right, *wrong]
    draw.shuffle(options)
    written, label = [f" {number}" for number in options], options.index(right)
    return {"context": context, "options": written, "label": label}
