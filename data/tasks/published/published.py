"""HuLU (Ligeti-Nagy et al. 2024) and the Thai exams of scb10x/thai_exam for lm-eval.

HuLU is put as likelihoods of short Hungarian answers; of an exam, the letter is to be named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt_utils.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset

TEXT_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


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
    premise, hypothesis = (field_of(row, name, name.title()) for name in ("premise", "hypothesis"))
    context = f"{premise}\n{hypothesis}\nIgaz ez?"
    return _one_of(context, answers, row)


def _one_of(context: str, answers: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item whose label is a word: what the model says for each, by word."""
    label = list(answers).index(str(field_of(row, "Label", "label")).lower())
    return {"context": context, "choices": list(answers.values()), "label": label}


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


def test_part(rows: Sequence[Mapping[str, Any]]) -> dict[str, Dataset]:
    """Return rows as the test part of a data set, as lm-eval wants it."""
    from datasets import Dataset

    return {"test": Dataset.from_list([dict(row) for row in rows])}


def task_rows(
    name: str, folder: str, repository: str, config: str | None, parts: Sequence[str]
) -> list[dict[str, Any]]:
    """Read one part of the data set of a task.

    Args:
        name: of the task, part of the names of its files.
        folder: of downloaded files; empty: from the hub.
        repository: on the hub.
        config: of the repository.
        parts: names of the part, the first that is there counts.

    Raises:
        RecipeError: the folder holds no such file.
    """
    from datasets import load_dataset

    if not folder:
        loaded = load_dataset(repository, config)
        return list(loaded[next(part for part in parts if part in loaded)])
    place, names = Path(folder).expanduser(), " or ".join(parts)
    named = re.compile(rf"(?<![a-z0-9]){re.escape(name.lower())}(?![a-z0-9])")
    files = [
        path
        for path in sorted(place.rglob("*"))
        if path.suffix in TEXT_FILES
        and named.search(str(path.relative_to(place)).lower())
        and any(part in path.stem.lower() for part in parts)
    ]
    if not files:
        raise RecipeError(f"folder {folder} has no file of {name} whose name says {names}")
    kind = {".jsonl": "json", ".tsv": "csv"}.get(files[0].suffix, files[0].suffix.lstrip("."))
    options = {"sep": "\t"} if files[0].suffix == ".tsv" else {}
    return list(load_dataset(kind, data_files=list(map(str, files)), split="train", **options))


def field_of(row: Mapping[str, Any], *names: str) -> Any:
    """Return a field under any of its names: files and hub differ in them.

    Example:
        >>> field_of({"Label": 1}, "label", "Label")
        1
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise RecipeError(
        f"a row of the task has no field {' or '.join(names)}, only {', '.join(row)}: check that "
        "it is the right file"
    )


TASKS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "HuCOLA": _acceptable,
    "HuCoPA": _plausible,
    "HuRTE": _entailed,
    "HuSST": _sentiment,
    "HuWNLI": _entailed,
    "HuCB": _committed,
}
