"""Tasks of the Language Model Evaluation Harness (lm-eval), beside the built-in items and in the
same tables.

`data/tasks` holds tasks that lm-eval finds with `--include_path`: the built-in items, HuLU and the
Thai exams. Their data come from the functions below, as rows with `context`, `choices` and `label`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
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
    """Return where the tasks of this project lie, for `lm_eval --include_path`."""
    return data_folder() / "tasks"


def with_tasks(scores: Scores, models: Mapping[str, Base], recipe: EvaluationRecipe) -> Scores:
    """Add the answers of models in tasks of lm-eval, item by item, to their scores.

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
    """Return what knows the tasks of lm-eval and of this project."""
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
                f"evaluation.tasks cannot hold '{task}': lm-eval has no such task; see "
                "`lm_eval ls tasks`"
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
                f"evaluation.tasks cannot hold '{task}': it does not say which items are right"
            )
        rows += [
            {"model": name, "language": ANY_LANGUAGE, "kind": task, "id": str(sample["doc_id"])}
            | {"correct": bool(sample[metric]), "chance": _chance(len(sample["filtered_resps"]))}
            for sample in samples
        ]
    return rows


def _chance(options: int) -> float:
    """Return the chance of a right guess: none where the answer is not one of several."""
    return 1 / options if options > 1 else 0.0


def built_in(kind: str, language: str, **metadata: Any) -> dict[str, Dataset]:
    """Return the built-in items of a kind for lm-eval.

    Args:
        kind: `choice_cause`, `choice_next`, `cloze`, `pairs` or a pattern.
        language: of the items.
        metadata: what else lm-eval hands over.
    """
    kind, _, part = kind.partition("_")
    items = pattern_items(kind, PATTERN_ITEMS) if kind in PATTERNS else load_items(kind, language)
    rows: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        if part and (part == "cause") != (item["kind"] == "cause"):
            continue
        contexts, texts = zip(*item_options(kind, items, place, language), strict=True)
        stripped = [context.rstrip() for context in contexts]
        row: dict[str, Any] = {"context": stripped[0], "choices": [text.lstrip() for text in texts]}
        if part == "cause":
            row = {"contexts": stripped, "continuation": texts[0]}
        rows.append({**row, "label": item.get("label", 0)})
    return test_part(rows)


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
        raise RecipeError(
            f"evaluation.task_folder {folder} has no file of {name} whose name says {names}"
        )
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
