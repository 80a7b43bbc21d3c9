"""Tasks of the Language Model Evaluation Harness (lm-eval), in the same tables as built-in items.

`data/tasks` holds tasks that lm-eval finds with `--include_path`: the built-in items, HuLU and the
Thai exams. A Python file beside the YAML makes rows with `context`, `choices` and `label`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .. import hardware
from ..errors import ModelError, RecipeError
from ..files import data_folder
from ..languages import ANY_LANGUAGE
from ..models import Base
from ..recipe import EvaluationRecipe
from ..tokens import document_start
from .scores import CONTROL, Scores

ACCURACY = ("acc_bytes", "acc_norm", "acc")  # the first of them that a task has
BATCH = 16  # requests of one forward pass


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
    rows: list[dict[str, Any]] = []
    for name, bundle in models.items():
        if name != CONTROL:
            rows += [{"model": name} | row for row in _answers(bundle, recipe, manager)]
    items = pd.concat([scores.items, pd.DataFrame(rows)], ignore_index=True)
    return dataclasses.replace(scores, items=items)


def _task_manager(recipe: EvaluationRecipe) -> Any:
    """Return what knows the tasks of lm-eval and of this project."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        missing = "evaluation.tasks needs lm-eval: pip install 'langadapt[harness]'"
        raise ModelError(missing) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # not how each task was read
    manager = TaskManager(include_path=str(task_folder()), metadata={"folder": recipe.task_folder})
    for task in recipe.tasks:
        if not manager.match_tasks([task]):
            unknown = "lm-eval has no such task; see `lm_eval ls tasks`"
            raise RecipeError(f"evaluation.tasks cannot hold '{task}': {unknown}")
    return manager


def _answers(bundle: Base, recipe: EvaluationRecipe, manager: Any) -> list[dict[str, Any]]:
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
    options = {"limit": recipe.items, "bootstrap_iters": 0, "log_samples": True}
    found = simple_evaluate(model, tasks=list(recipe.tasks), task_manager=manager, **options)
    bundle.model.to("cpu")
    rows = []
    for task, samples in found["samples"].items():
        metric = next((metric for metric in ACCURACY if metric in samples[0]), None)
        if metric is None or any(sample[metric] not in (0, 1) for sample in samples):
            problem = "it does not say which items are right"
            raise RecipeError(f"evaluation.tasks cannot hold '{task}': {problem}")
        rows += [
            {"language": ANY_LANGUAGE, "kind": task, "id": str(sample["doc_id"])}
            | {"correct": bool(sample[metric]), "chance": _chance(len(sample["filtered_resps"]))}
            for sample in samples
        ]
    return rows


def _chance(options: int) -> float:
    """Return the chance of a right guess: none where the answer is not one of several."""
    return 1 / options if options > 1 else 0.0
