"""The built-in evaluation items; some are patterns of numbers that need no language."""

from typing import Any

from ..files import data_folder, package_yaml, read_jsonl

Table = list[dict[str, Any]]  # rows of items or of results
ITEM_KINDS = ("choice", "cloze", "pairs")  # of the built-in evaluation items

PATTERNS = ("copying", "mapping", "counting")
OPTIONS = 4  # of each pattern and of each cloze item
NAMES: dict[str, str] = package_yaml("corpus/items.yaml")
CHAT_NAMES = {kind: name for kind, name in NAMES.items() if kind.startswith("chat_")}


def load_items(kind: str, language: str) -> Table:
    """Return the built-in evaluation items of a kind in a language; empty if there are none.

    Args:
        kind: `choice` (premise, choices, label), `cloze` (context, target), `pairs` (good, bad),
            `chat` (prompt, response, wrong, and the response in other languages), or one of
            `PATTERNS` (context, options, label).
        language: code of the language; `NO_LANGUAGE` for patterns.
    """
    rows = list(read_jsonl(data_folder() / f"eval_{kind}.jsonl"))
    if "lang" in rows[0]:
        return [row for row in rows if row["lang"] == language]
    rows = [row for row in rows if isinstance(row.get(language), dict)]
    shared = ({k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows)
    return [common | row[language] for common, row in zip(shared, rows, strict=True)]


def item_options(kind: str, items: Table, place: int, language: str) -> list[tuple[str, str]]:
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
    return NAMES.get(kind, kind)


def item_texts(kind: str, language: str) -> dict[str, str]:
    """Return the text of each built-in item by its id: context and options."""
    texts = {}
    for item in load_items(kind, language):
        parts = [item[name] for name in ("premise", "context", "target", "good") if name in item]
        texts[item["id"]] = " ".join([*parts, *item.get("choices", ())])
    return texts
