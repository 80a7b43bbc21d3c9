"""The adapted model as others load it: a stock Hugging Face folder with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cards import model_card
from .models import name_portable_class
from .vocabulary.change import VocabularyChange
from .workspace import PUBLISHED, Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINTS, CONTROL_CHECKPOINTS = "checkpoints", "checkpoints-control"


def save_adapted(
    model: PreTrainedModel,
    steps: list[dict[str, Any]],
    change: VocabularyChange,
    run: Workspace,
    folder: Path,
    *,
    control: PreTrainedModel | None = None,
) -> None:
    """Write the adapted model as a stock Hugging Face folder with a model card, and the log of its training.

    Args:
        model: after training.
        steps: the records of its training.
        change: of the vocabulary; its tokenizer goes with the model.
        run: whose recipe the card names.
        folder: of the training stage, as `Workspace.writing` gives it; its checkpoints are deleted.
        control: the model that learned from English alone; it stays in the folder of the stage.
    """
    published = folder / PUBLISHED / "model"
    for trained, place in ((model, published), (control, folder / "control")):
        if trained is not None:
            trained.save_pretrained(place)
            change.tokenizer.save_pretrained(place)
            name_portable_class(place)
    (published / "README.md").write_text(model_card(run.recipe, change), encoding="utf-8")
    (folder / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    for checkpoints in (CHECKPOINTS, CONTROL_CHECKPOINTS):
        shutil.rmtree(folder / checkpoints, ignore_errors=True)
