"""Tasks of the Language Model Evaluation Harness (lm-eval), beside the built-in items and in the
same tables.

`data/tasks` holds tasks that lm-eval finds with `--include_path`: the built-in items, HuLU and the
Thai exams. Their data come from the functions below, as rows with `context`, `choices` and `label`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .. import hardware
from ..corpus.items import PATTERNS, item_options, load_items, pattern_items
from ..errors import ModelError, RecipeError
from ..files import data_folder
from ..languages import ANY_LANGUAGE
from ..models import Base
from ..recipe import EvaluationRecipe
from ..tokens import document_start
from .scores import CONTROL, Scores

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

ACCURACY = ("acc_bytes", "acc_norm", "acc")  # the first of them that a task has
BATCH = 16  # requests of one forward pass
PATTERN_ITEMS = 99  # of each kind
TEXT_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def task_folder() -> Path:
    """Where the tasks of this project lie, for `lm_eval --include_path`."""
    return data_folder() / "tasks"


def with_tasks(scores: Scores, models: Mapping[str, Base], recipe: EvaluationRecipe) -> Scores:
    """Scores that hold the answers of models in tasks of lm-eval too, item by item.

    Args:
        scores: of the same models.
        models: by name; the control is left out.
        recipe: its `tasks`, `task_folder` and `items`, at most, of each task.

    Raises:
        ModelError: lm-eval is not installed.
        RecipeError: a task is unknown, or does not say of each item whether it was right.
    """
    manager = _task_manager(recipe)
    rows = [
        row
        for name, bundle in models.items()
        if name != CONTROL
        for row in _answers(name, bundle, recipe, manager)
    ]
    items = pd.concat([scores.items, pd.DataFrame(rows)], ignore_index=True)
    return dataclasses.replace(scores, items=items)


def _task_manager(recipe: EvaluationRecipe) -> TaskManager:
    """What knows the tasks of lm-eval and of this project, those of the recipe among them."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ModelError(
            "evaluation.tasks needs lm-eval: pip install 'langadapt[harness]'"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # not how each task was read
    manager = TaskManager(include_path=str(task_folder()), metadata={"folder": recipe.task_folder})
    for task in recipe.tasks:
        if not manager.match_tasks([task]):
            raise RecipeError(
                f"evaluation.tasks cannot hold '{task}': lm-eval has no such task (see `lm_eval ls tasks`)"
            )
    return manager


def _answers(
    name: str, bundle: Base, recipe: EvaluationRecipe, manager: TaskManager
) -> list[dict[str, Any]]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    precision = hardware.native_precision()
    model = HFLM(
        pretrained=bundle.model.to(hardware.device()),
        tokenizer=bundle.tokenizer,
        prefix_token_id=document_start(bundle.tokenizer),
        batch_size=BATCH,
        mixed_precision_dtype=precision if precision == "bfloat16" else None,
    )
    found = simple_evaluate(
        model,
        tasks=list(recipe.tasks),
        task_manager=manager,
        limit=recipe.items,
        bootstrap_iters=0,
        log_samples=True,
    )
    bundle.model.to("cpu")
    rows = []
    for task, samples in found["samples"].items():
        metric = next((metric for metric in ACCURACY if metric in samples[0]), None)
        if metric is None or any(sample[metric] not in (0, 1) for sample in samples):
            raise RecipeError(
                f"evaluation.tasks cannot hold '{task}': it does not say of each item if it is right"
            )
        rows += [
            {"model": name, "language": ANY_LANGUAGE, "kind": task, "id": str(sample["doc_id"])}
            | {"correct": bool(sample[metric]), "chance": _chance(len(sample["filtered_resps"]))}
            for sample in samples
        ]
    return rows


def _chance(options: int) -> float:
    """Of an item with so many options; where the answer is not one of several, nothing is right by
    chance.
    """
    return 1 / options if options > 1 else 0.0


def built_in(kind: str, language: str, **metadata: Any) -> dict[str, Dataset]:
    """The built-in items of a kind for lm-eval: `choice_cause`, `choice_next`, `cloze`, `pairs` or
    a pattern.
    """
    kind, _, part = kind.partition("_")
    items = pattern_items(kind, PATTERN_ITEMS) if kind in PATTERNS else load_items(kind, language)
    rows: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        if part and (part == "cause") != (item["kind"] == "cause"):
            continue
        options, label = item_options(kind, items, place, language), item.get("label", 0)
        contexts, continuations = zip(*options, strict=True)
        if part == "cause":
            row: dict[str, Any] = {
                "contexts": [one.rstrip() for one in contexts],
                "continuation": continuations[0],
            }
        else:
            row = {
                "context": contexts[0].rstrip(),
                "choices": [one.lstrip() for one in continuations],
            }
        rows.append({**row, "label": label})
    return _test(rows)


def hulu(name: str, folder: str = "", **metadata: Any) -> dict[str, Dataset]:
    """A task of HuLU (Ligeti-Nagy et al. 2024) as likelihoods of short Hungarian answers, on its
    validation part.

    Args:
        name: HuCOLA, HuCoPA, HuRTE, HuSST, HuWNLI or HuCB.
        folder: that holds `NAME/*validation*` or `*dev*` files; empty: NYTK/NAME of the hub.
        metadata: what else lm-eval hands over.
    """
    return _test(
        [
            HULU[name](row)
            for row in _rows(name, folder, f"NYTK/{name}", None, ("validation", "dev"))
        ]
    )


def thai_exam(name: str, folder: str = "", **metadata: Any) -> dict[str, Dataset]:
    """One of the Thai exams of scb10x/thai_exam: onet, ic, tgat, tpat1 or a_level; the letter is to
    be named.
    """
    rows = _rows(name, folder, "scb10x/thai_exam", name, ("test",))
    return _test([_exam_question(row) for row in rows])


def _test(rows: Sequence[Mapping[str, Any]]) -> dict[str, Dataset]:
    from datasets import Dataset

    return {"test": Dataset.from_list([dict(row) for row in rows])}


def _rows(
    name: str, folder: str, repository: str, config: str | None, parts: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of one part of a data set, from files below a folder or from the hub."""
    from datasets import load_dataset

    if not folder:
        loaded = load_dataset(repository, config)
        return list(loaded[next(part for part in parts if part in loaded)])
    place = Path(folder).expanduser()
    named = re.compile(rf"(?<![a-z0-9]){re.escape(name.lower())}(?![a-z0-9])")
    files = [
        path
        for path in sorted(place.rglob("*"))
        if path.suffix in TEXT_FILES
        and named.search(str(path.relative_to(place)).lower())
        and any(part in path.stem.lower() for part in parts)
    ]
    if not files:
        raise RecipeError(
            f"evaluation.task_folder {folder} has no file of {name} whose name says {' or '.join(parts)}"
        )
    kind = {".jsonl": "json", ".tsv": "csv"}.get(files[0].suffix, files[0].suffix.lstrip("."))
    options = {"sep": "\t"} if files[0].suffix == ".tsv" else {}
    return list(
        load_dataset(kind, data_files=[str(path) for path in files], split="train", **options)
    )


def _field(row: Mapping[str, Any], *names: str) -> Any:
    """A field under any of its names: files and hub differ in them."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise RecipeError(
        f"a row of the task has no field {' or '.join(names)}, only {', '.join(row)}: is it another file?"
    )


def _acceptable(row: Mapping[str, Any]) -> dict[str, Any]:
    context = f"{_field(row, 'Sent', 'sentence')}\nHelyes ez a mondat?"
    return {
        "context": context,
        "choices": ["nem", "igen"],
        "label": int(_field(row, "Label", "label")),
    }


def _plausible(row: Mapping[str, Any]) -> dict[str, Any]:
    because = "mert" if row["question"] == "cause" else "ezért"
    choices = [choice[0].lower() + choice[1:] for choice in (row["choice1"], row["choice2"])]
    context = f"{row['premise'].strip().rstrip('.')}, {because}"
    return {"context": context, "choices": choices, "label": int(_field(row, "label", "Label")) - 1}


def _sentiment(row: Mapping[str, Any]) -> dict[str, Any]:
    answers = {"negative": "negatív.", "neutral": "semleges.", "positive": "pozitív."}
    return _one_of(f"{_field(row, 'Sent', 'sentence')}\nEz a vélemény", answers, row)


def _entailed(row: Mapping[str, Any]) -> dict[str, Any]:
    premise, hypothesis = (
        _field(row, "premise", "sentence1"),
        _field(row, "hypothesis", "sentence2"),
    )
    context = f"{premise}\nKövetkezik ebből, hogy: {hypothesis}\nVálasz:"
    return {
        "context": context,
        "choices": ["nem", "igen"],
        "label": int(_field(row, "label", "Label")),
    }


def _committed(row: Mapping[str, Any]) -> dict[str, Any]:
    answers = {"contradiction": "hamis", "neutral": "bizonytalan", "entailment": "igaz"}
    context = (
        f"{_field(row, 'premise', 'Premise')}\n{_field(row, 'hypothesis', 'Hypothesis')}\nIgaz ez?"
    )
    return _one_of(context, answers, row)


def _one_of(context: str, answers: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Any]:
    """An item whose label is a word: what the model says for each, by word."""
    label = list(answers).index(str(_field(row, "Label", "label")).lower())
    return {"context": context, "choices": list(answers.values()), "label": label}


def _exam_question(row: Mapping[str, Any]) -> dict[str, Any]:
    letters = [letter for letter in "abcde" if str(row.get(letter) or "").strip()]
    lines = [_field(row, "question"), *(f"{letter}. {row[letter]}" for letter in letters), "คำตอบ:"]
    label = letters.index(str(_field(row, "answer")).strip().lower())
    return {"context": "\n".join(lines), "choices": letters, "label": label}


HULU: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "HuCOLA": _acceptable,
    "HuCoPA": _plausible,
    "HuRTE": _entailed,
    "HuSST": _sentiment,
    "HuWNLI": _entailed,
    "HuCB": _committed,
}
