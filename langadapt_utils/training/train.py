"""Train a model on a mixture, train its control, and save what came out."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, set_seed

from .. import hardware
from ..corpus.contamination import check_contamination
from ..corpus.corpus import load_corpus
from ..errors import ModelError
from ..models import load_base, name_portable_class, quiet_transformers
from ..recipe import Recipe, TrainingRecipe
from ..vocabulary.change import VocabularyChange
from ..workspace import PUBLISHED, Workspace
from .losses import compile_layers, fuse_loss
from .mixture import Mixture, mix, synthesize_english
from .optimizer import add_adapters
from .trainer import (
    MixtureTrainer,
    TrainingLog,
    claim,
    collate,
    last_checkpoint,
    run_digest,
    training_arguments,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .trainer import Record, Report

CHECKPOINTS, CONTROL_CHECKPOINTS = "checkpoints", "checkpoints-control"


@dataclass(frozen=True)
class Training:
    """A trained model and how it got there.

    Attributes:
        model: at the point of the way from start to trained weights that the recipe names.
        steps: one record an optimiser step: `step`, `steps`, `tokens`, `bits_per_byte` of each
            language seen in the step, `learning_rate`, `tokens_per_second`, `seconds_left`.
        seconds: spent on the steps of this process (a resumed run counts only its own).
        levers: what decided its speed: precision, attention, compiled layers and so on.
    """

    model: PreTrainedModel
    steps: list[Record]
    seconds: float
    levers: dict[str, Any]


def train(
    model: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    recipe: TrainingRecipe,
    folder: Path | str,
    *,
    seed: int = 0,
    report: Report = lambda record: None,
) -> Training:
    """Train a copy of a model on a mixture.

    Args:
        model: with rows for the new tokens; stays as it is.
        change: says which rows are new.
        mixture: the sequences, in the order of training.
        recipe: rates, schedule, batch, precision.
        folder: for checkpoints; a run that was stopped goes on from the last one.
        report: called with each record of `Training.steps` as it is made, and with `doing` where
            there is more to say.

    Raises:
        ModelError: the loss is not finite or has diverged (the last checkpoint is kept), memory is
            not enough, or a package that the recipe needs is missing.
    """
    folder = Path(folder)
    if (
        "tensorboard" in recipe.report_to
    ):  # whose default is beside the checkpoints, which are deleted
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.parent / "tensorboard"))
    arguments, batches = training_arguments(mixture, recipe, folder, seed)
    if (
        recipe.attention == "flash_attention_2"
        and mixture.separate_documents
        and batches.sequences > 1
    ):
        raise ModelError(
            "training.attention=flash_attention_2 keeps documents apart in micro-batches of one sequence alone: set "
            "mixture.separate_documents=false, or training.attention=sdpa"
        )
    claim(folder, arguments, run_digest(mixture, recipe, model, change, seed))
    hardware.keep_freed_memory()
    hardware.use_all_cores()
    learner = copy.deepcopy(model)
    set_seed(seed)
    if recipe.lora_rank:
        add_adapters(learner, recipe.lora_rank)
    try:
        learner.set_attn_implementation(recipe.attention)
    except (ImportError, ValueError) as error:
        raise ModelError(
            f"training.attention={recipe.attention} cannot be used here: set it to sdpa"
        ) from error
    if recipe.gradient_checkpointing:
        learner.gradient_checkpointing_enable()
    on_gpu = hardware.device().type == "cuda"
    levers = {
        "precision": "bfloat16" if arguments.bf16 else "float32",
        "attention": recipe.attention,
        "documents separate": mixture.separate_documents,
        "gradient checkpointing": recipe.gradient_checkpointing,
        "fused loss": on_gpu and recipe.fused_loss and fuse_loss(learner),
        "compiled layers": on_gpu and recipe.compile_layers and compile_layers(learner),
        "processes": arguments.world_size,
    }
    tokens = mixture.length * batches.sequences * batches.accumulated * arguments.world_size
    log = TrainingLog(report, tokens, recipe.checkpoint_minutes)
    trainer = MixtureTrainer(
        model=learner,
        args=arguments,
        train_dataset=mixture,
        data_collator=collate,
        callbacks=[log],
        new_rows=list(change.added),
        recipe=recipe,
        log=log,
    )
    trainer.remove_callback(PrinterCallback)
    log.say("training: " + ", ".join(f"{lever} {value}" for lever, value in levers.items()))
    with quiet_transformers():
        try:
            trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
                raise ModelError(
                    f"memory is not enough for {batches.sequences * mixture.length} tokens at once: halve "
                    "training.micro_batch_tokens (the batch stays the same), or mixture.sequence_length"
                ) from error
            raise
    trained = trainer.trained_model(model)
    trained.set_attn_implementation(model.config._attn_implementation)
    _blend(model, trained, recipe.interpolation)
    return Training(trained.eval(), log.records, log.seconds, levers)


def train_control(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    recipe: Recipe,
    folder: Path,
    *,
    report: Report = lambda record: None,
) -> PreTrainedModel | None:
    """What forgetting is measured against: a copy of the start that learns from the English of a
    mixture alone.

    It sees the same English sequences in the same order as the adapted model, in batches of its own
    (what fills none is left out) and through a whole schedule of rates. None where the recipe wants
    no control, where there is less than a batch of English, or nothing but English.

    Args:
        start: the model with rows for the new tokens; stays as it is.
        change: says which rows are new.
        mixture: that the adapted model learns from.
        recipe: of the run.
        folder: of the training stage; checkpoints lie in it until `save_adapted` deletes them.
        report: called with `doing` as steps are made.
    """
    english = mixture.only("en")
    too_little = len(english) * english.length < recipe.training.batch_tokens
    if not recipe.mixture.control or too_little or len(english) == len(mixture):
        return None
    untracked = recipe.training.model_copy(update={"report_to": []})  # a tracker has one run

    def told(record: Record) -> None:
        report(
            {"doing": f"control: step {record['step']} of {record['steps']}"}
            if "step" in record
            else record
        )

    return train(start, change, english, untracked, folder / CONTROL_CHECKPOINTS, report=told).model


def interpolate(start: PreTrainedModel, end: PreTrainedModel, share: float) -> PreTrainedModel:
    """A model whose weights lie between those of two models of one shape.

    Args:
        start: returned (as a copy) at share 0.
        end: returned (as a copy) at share 1.
        share: how far to go.

    Source: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903.
    """
    result = copy.deepcopy(end)
    _blend(start, result, share)
    return result


@torch.no_grad()
def _blend(start: PreTrainedModel, end: PreTrainedModel, share: float) -> None:
    begin = dict(start.named_parameters())
    for name, parameter in end.named_parameters():
        parameter.copy_(torch.lerp(begin[name].to(parameter), parameter, share))


def mixture_of(
    recipe: Recipe, change: VocabularyChange, *, report: Callable[[str], None] = lambda line: None
) -> Mixture:
    """What a recipe trains on.

    Raises:
        CorpusError: text is missing, or some that is measured on would be trained on.
    """
    corpus = load_corpus(recipe.corpus, recipe.language)
    if recipe.mixture.english_from == "model":
        corpus = synthesize_english(corpus, load_base(recipe.base), recipe, report=report)
    check_contamination(corpus, documents=recipe.evaluation.documents)
    return mix(
        corpus, change.tokenizer, recipe.mixture, budget_tokens=recipe.training.budget_tokens
    )


def save_adapted(
    model: PreTrainedModel,
    steps: list[dict[str, Any]],
    change: VocabularyChange,
    run: Workspace,
    folder: Path,
    *,
    control: PreTrainedModel | None = None,
) -> None:
    """Write the adapted model as a stock Hugging Face folder with a model card, and the log of its
    training.

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
    (folder / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    for checkpoints in (CHECKPOINTS, CONTROL_CHECKPOINTS):
        shutil.rmtree(folder / checkpoints, ignore_errors=True)
