"""HuLU (Ligeti-Nagy et al. 2024) as likelihoods of short Hungarian answers, for lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langadapt_utils.evaluation.harness import field_of, task_rows, test_part

if TYPE_CHECKING:
    from datasets import Dataset


def hulu(name: str, folder: str = "", **metadata: Any) -> dict[str, Dataset]:
    """Return a task of HuLU, on its validation part.

    Args:
        name: HuCOLA, HuCoPA, HuRTE, HuSST, HuWNLI or HuCB.
        folder: that holds `NAME/*validation*` or `*dev*` files; empty: NYTK/NAME of the hub.
        metadata: what else lm-eval hands over.
    """
    rows = task_rows(name, folder, f"NYTK/{name}", None, ("validation", "dev"))
    return test_part([TASKS[name](row) for row in rows])


def _acceptable(row: Mapping[str, Any]) -> dict[str, Any]:
    context = f"{field_of(row, 'Sent', 'sentence')}\nHelyes ez a mondat?"
    return {
        "context": context,
        "choices": ["nem", "igen"],
        "label": int(field_of(row, "Label", "label")),
    }


def _plausible(row: Mapping[str, Any]) -> dict[str, Any]:
    because = "mert" if row["question"] == "cause" else "ezért"
    choices = [choice[0].lower() + choice[1:] for choice in (row["choice1"], row["choice2"])]
    context = f"{row['premise'].strip().rstrip('.')}, {because}"
    return {
        "context": context,
        "choices": choices,
        "label": int(field_of(row, "label", "Label")) - 1,
    }


def _sentiment(row: Mapping[str, Any]) -> dict[str, Any]:
    answers = {"negative": "negatív.", "neutral": "semleges.", "positive": "pozitív."}
    return _one_of(f"{field_of(row, 'Sent', 'sentence')}\nEz a vélemény", answers, row)


def _entailed(row: Mapping[str, Any]) -> dict[str, Any]:
    premise, hypothesis = (
        field_of(row, "premise", "sentence1"),
        field_of(row, "hypothesis", "sentence2"),
    )
    context = f"{premise}\nKövetkezik ebből, hogy: {hypothesis}\nVálasz:"
    return {
        "context": context,
        "choices": ["nem", "igen"],
        "label": int(field_of(row, "label", "Label")),
    }


def _committed(row: Mapping[str, Any]) -> dict[str, Any]:
    answers = {"contradiction": "hamis", "neutral": "bizonytalan", "entailment": "igaz"}
    context = f"{field_of(row, 'premise', 'Premise')}\n{field_of(row, 'hypothesis', 'Hypothesis')}\nIgaz ez?"
    return _one_of(context, answers, row)


def _one_of(context: str, answers: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item whose label is a word: what the model says for each, by word."""
    label = list(answers).index(str(field_of(row, "Label", "label")).lower())
    return {"context": context, "choices": list(answers.values()), "label": label}


TASKS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "HuCOLA": _acceptable,
    "HuCoPA": _plausible,
    "HuRTE": _entailed,
    "HuSST": _sentiment,
    "HuWNLI": _entailed,
    "HuCB": _committed,
}
