"""The built-in evaluation items and patterns of langadapt for lm-eval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langadapt_utils.corpus.items import item_options, load_items

if TYPE_CHECKING:
    from datasets import Dataset


def built_in(kind: str, language: str, **metadata: Any) -> dict[str, Dataset]:
    """Return the built-in items of a kind for lm-eval.

    Args:
        kind: `choice_cause`, `choice_next`, `cloze`, `pairs` or a pattern.
        language: of the items.
        metadata: what else lm-eval hands over.
    """
    kind, _, part = kind.partition("_")
    rows: list[dict[str, Any]] = []
    items = load_items(kind, language)
    for place, item in enumerate(items):
        if part and (part == "cause") != (item["kind"] == "cause"):
            continue
        contexts, texts = zip(*item_options(kind, items, place, language), strict=True)
        stripped = [context.rstrip() for context in contexts]
        row: dict[str, Any] = {"context": stripped[0], "choices": [text.lstrip() for text in texts]}
        if part == "cause":
            row = {"contexts": stripped, "continuation": texts[0]}
        rows.append({**row, "label": item.get("label", 0)})
    from datasets import Dataset

    return {"test": Dataset.from_list(rows)}
