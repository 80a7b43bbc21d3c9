"""The Thai exams of scb10x/thai_exam for lm-eval: the letter of the answer is to be named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langadapt_utils.evaluation.harness import field_of, task_rows, test_part

if TYPE_CHECKING:
    from datasets import Dataset


def thai_exam(name: str, folder: str = "", **metadata: Any) -> dict[str, Dataset]:
    """Return one of the exams.

    Args:
        name: onet, ic, tgat, tpat1 or a_level.
        folder: that holds files of the test part, named by the exam; empty: from the hub.
        metadata: what else lm-eval hands over.
    """
    rows = task_rows(name, folder, "scb10x/thai_exam", name, ("test",))
    return test_part([_question(row) for row in rows])


def _question(row: Mapping[str, Any]) -> dict[str, Any]:
    letters = [letter for letter in "abcde" if str(row.get(letter) or "").strip()]
    lines = [
        field_of(row, "question"),
        *(f"{letter}. {row[letter]}" for letter in letters),
        "คำตอบ:",
    ]
    label = letters.index(str(field_of(row, "answer")).strip().lower())
    return {"context": "\n".join(lines), "choices": letters, "label": label}
