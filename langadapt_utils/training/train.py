"""Train a model on a mixture, train its control, and save the results."""

import copy
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed

from .. import hardware
from ..corpus.corpus import load_corpus
from ..errors import ModelError
from ..files import write_json
from ..models import Base, load_model, longest_context, quiet_transformers, save_model
from ..recipe import Recipe, TrainingRecipe
from ..vocabulary.change import VocabularyChange
from ..workspace import PUBLISHED
from .losses import can_fuse_loss, compile_layers, fuse_loss, keeps_documents_apart
from .mixture import Mixture, mix
from .optimizer import add_adapters, learning_rate
from .trainer import MixtureTrainer, Record, Report, claim, collate, run_digest, training_arguments

NO_BORDER = "; documents attend to earlier ones, because this model cannot separate them"
SHORT = 256  # tokens of a sequence
LONG = 50  # training steps from which compiling pays on a CPU, where it takes half a minute
CHECKPOINTS, CONTROL_CHECKPOINTS = "checkpoints", "checkpoints-control"


@dataclass(frozen=True)
class Training:
    """A trained model with the log of its training.

    Attributes:
        model: interpolated between start and trained weights by the fraction of the recipe.
        steps: one record per training step: `step`, `steps`, `tokens`, `bits_per_byte` per language
            in the step, `learning_rate`, `tokens_per_second`, `seconds_left`.
        seconds: training time of this process; a resumed run does not count earlier ones.
        settings: that affect speed: precision, attention, compiled layers and others.
    """

    model: PreTrainedModel
    steps: list[Record]
    seconds: float
    settings: dict[str, Any]


def train(
    start: PreTrainedModel | Path,
    change: VocabularyChange,
    mixture: Mixture,
    recipe: TrainingRecipe,
    folder: Path | str,
    *,
    seed: int = 0,
    trainer_arguments: Mapping[str, Any] | None = None,
    report: Report = lambda record: None,
) -> Training:
    """Train a copy of a model on a mixture.

    Args:
        start: the model with embeddings for the new tokens, which does not change; or its folder,
            so that it takes no memory during training.
        change: gives the ids of the new embeddings.
        mixture: sequences in the order of training.
        recipe: learning rates, batch, precision.
        folder: for checkpoints; a stopped run resumes from the last one.
        seed: of the Trainer and the adapters.
        trainer_arguments: override defaults, by the names of `transformers.TrainingArguments`.
        report: called with each record of `Training.steps` and with `doing` in between.

    Raises:
        ModelError: loss diverges (the last checkpoint is kept), or memory or a package is missing.
    """
    folder, given = Path(folder), {"seed": seed, **(trainer_arguments or {})}
    learner = _loaded(start) if isinstance(start, Path) else copy.deepcopy(start)
    recipe = settled(recipe, learner, mixture)
    arguments = training_arguments(mixture, recipe, folder, given)
    attention_of_start = learner.config._attn_implementation
    if not (recipe.lora_rank and arguments.bf16):  # with adapters, the body can stay as it is
        learner.float()
    attention = _set_attention(learner, recipe.attention)
    if across := mixture.separate_documents and not keeps_documents_apart(learner):
        mixture = replace(mixture, separate_documents=False)
    others = sorted(change.added.items()), sorted(given.items())
    last = claim(folder, run_digest(learner, mixture, recipe, others), write=arguments.should_save)
    set_seed(seed)
    adapters = add_adapters(learner, recipe.lora_rank) if recipe.lora_rank else None
    settings = {"attention": attention, "documents separate": mixture.separate_documents}
    settings |= _made_faster(learner, recipe, arguments)
    rates = recipe, list(change.added), report
    with _enough_memory(arguments, mixture), quiet_transformers():
        trainer = MixtureTrainer(*rates, model=learner, args=arguments, train_dataset=mixture)
        settings["compiled layers"] = recipe.compile_layers and _compiled(trainer)
        about = (f"{name} {value}" for name, value in settings.items())
        trainer.steps.say(f"training: {', '.join(about)}" + NO_BORDER * across)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    trained, log = trainer.trained_model(partial(_loaded, start)), trainer.steps
    trainer.accelerator.free_memory()  # before adapters are merged and the start is loaded again
    del trainer
    hardware.return_freed_memory(always=True)
    if adapters:
        adapters.merge_and_unload()
    trained.set_attn_implementation(attention_of_start)
    if recipe.interpolation < 1:
        _blend(_loaded(start), trained, recipe.interpolation)
    return Training(trained.eval().requires_grad_(True), log.records, log.seconds, settings)


def _loaded(start: PreTrainedModel | Path) -> PreTrainedModel:
    return load_model(start) if isinstance(start, Path) else start


def check_length(model: PreTrainedModel | Base, length: int) -> None:
    """Raise a ModelError if sequences of `length` tokens exceed the context of a model."""
    if length > (longest := longest_context(model, silent=length)):
        problem = f"sequences of {length} tokens exceed the context of the model, {longest}"
        raise ModelError(f"{problem}: lower mixture.sequence_length")


def settled(recipe: TrainingRecipe, model: PreTrainedModel, mixture: Mixture) -> TrainingRecipe:
    """Return the recipe with values in place of `auto`; check the length of the sequences.

    Eager attention is faster than SDPA for short sequences on a CPU (`benchmarks/training.py`).
    """
    check_length(model, mixture.length)
    on_cpu, attention = hardware.device().type == "cpu", recipe.attention
    if attention == "auto":
        attention = "eager" if on_cpu and mixture.length <= SHORT else "sdpa"
    rate = learning_rate(recipe.learning_rate, model.num_parameters())
    return recipe.model_copy(update={"attention": attention, "learning_rate": rate})


def _set_attention(model: PreTrainedModel, asked: str) -> str:
    """Set the attention of a model, and return it. A model without SDPA gets eager attention."""
    try:
        if asked == "flex_attention" and hardware.device().type == "cpu":
            raise ValueError("it has no gradients on a CPU")
        model.set_attn_implementation(asked)
    except (ImportError, ValueError) as error:
        if asked == "sdpa":
            return _set_attention(model, "eager")
        raise ModelError(f"training.attention={asked} is not available: set it to sdpa") from error
    return asked


def _made_faster(model: PreTrainedModel, recipe: TrainingRecipe, arguments: Any) -> dict[str, Any]:
    """Apply all speedups but compiled layers to a model and to torch; return the settings."""
    fused = hardware.device().type == "cuda" and recipe.fused_loss and can_fuse_loss(model)
    hardware.keep_freed_memory()
    hardware.use_all_cores()
    if saving := recipe.gradient_checkpointing and model.supports_gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if fused:
        fuse_loss(model)
    settings: dict[str, Any] = {"precision": "bfloat16" if arguments.bf16 else "float32"}
    settings |= {"learning rate": f"{arguments.learning_rate:.1e}", "fused loss": fused}
    return settings | {"processes": arguments.world_size, "gradient checkpointing": saving}


def _compiled(trainer: MixtureTrainer) -> bool | str:
    """Compile the layers of a model where it pays; return whether, or why not."""
    model, arguments, kind = trainer.model, trainer.args, hardware.device().type
    pays = kind == "cuda" or (kind == "cpu" and arguments.max_steps >= LONG)
    if not pays or model.device.type != kind:  # FSDP places the model after the trial
        return False
    some = map(trainer.train_dataset.__getitem__, range(arguments.per_device_train_batch_size))
    return compile_layers(model, collate(list(some)), arguments.bf16)


@contextmanager
def _enough_memory(arguments: Any, mixture: Mixture) -> Iterator[None]:
    """Turn a lack of memory inside the block into one sentence."""
    try:
        yield
    except RuntimeError as error:
        if re.search("out of memory|not enough memory|can't allocate", str(error)):
            tokens = arguments.per_device_train_batch_size * mixture.length
            remedy = "halve training.micro_batch_tokens (same batch), or set training.lora_rank=16"
            raise ModelError(f"out of memory with {tokens} tokens at once: {remedy}") from error
        raise


def train_control(
    start: PreTrainedModel | Path,
    change: VocabularyChange,
    mixture: Mixture,
    recipe: Recipe,
    folder: Path,
    *,
    report: Report = lambda record: None,
    **options: Any,
) -> PreTrainedModel | None:
    """Train a control run: a copy of the start, on the English of a mixture only.

    It sees the same English sequences in the same order as the adapted model, with its own batches
    (an incomplete last batch is dropped) and its own learning-rate schedule. Returns None if the
    recipe has no control run, or if the mixture has less than a batch of English or only English.

    Args:
        start: the model with embeddings for the new tokens, or its folder, as for `train`.
        change: gives the ids of the new embeddings.
        mixture: of the adapted model.
        recipe: of the run.
        folder: of the training stage; `save_adapted` deletes its checkpoints.
        report: called with `doing` at each training step.
        options: of `train`, as for the adapted model.

    Raises:
        ModelError: in the cases of `train`.
    """
    english = mixture.only("en")
    too_little = len(english) * english.length < recipe.training.batch_tokens
    if not recipe.mixture.control or too_little or len(english) == len(mixture):
        return None
    settings = recipe.training.model_copy(update={"report_to": []})  # a tracker has one run

    def report_control(record: Record) -> None:
        if "step" in record:
            record = {"doing": f"control: step {record['step']} of {record['steps']}"}
        report(record)

    options |= {"report": report_control}
    return train(start, change, english, settings, folder / CONTROL_CHECKPOINTS, **options).model


def interpolate(start: PreTrainedModel, end: PreTrainedModel, share: float) -> PreTrainedModel:
    """Return a model with weights interpolated between two models of the same shape.

    Args:
        start: the result (as a copy) at share 0.
        end: the result (as a copy) at share 1.
        share: fraction of the way from start to end.

    Source: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903.
    """
    result = copy.deepcopy(end)
    _blend(start, result, share)
    return result


@torch.no_grad()
def _blend(start: PreTrainedModel, end: PreTrainedModel, share: float) -> None:
    for name, parameter in end.named_parameters():
        parameter.copy_(torch.lerp(start.get_parameter(name).to(parameter), parameter, share))


def mixture_of(recipe: Recipe, change: VocabularyChange) -> Mixture:
    """Return the training mixture of a recipe.

    Raises:
        CorpusError: text is missing.
    """
    corpus, budget = load_corpus(recipe.corpus, recipe.language), recipe.training.budget_tokens
    return mix(corpus, change.tokenizer, recipe.mixture, budget_tokens=budget)


def save_adapted(
    model: PreTrainedModel,
    steps: list[Record],
    change: VocabularyChange,
    folder: Path,
    base: Base,
    *,
    control: PreTrainedModel | None = None,
) -> None:
    """Save the adapted model as a Hugging Face folder, with the log of its training.

    Args:
        model: after training.
        steps: records of the training.
        change: of the vocabulary; its tokenizer is saved with the model.
        folder: of the training stage, from `Workspace.writing`; its checkpoints are deleted.
        base: the base model; the result is saved in its precision.
        control: the model of the control run; it is saved in the folder of the stage.
    """
    save_model(model, change.tokenizer, folder / PUBLISHED / "model", base.folder)
    if control is not None:
        save_model(control, change.tokenizer, folder / "control", base.folder)
    write_json(folder / "steps.json", steps)
    for checkpoints in (CHECKPOINTS, CONTROL_CHECKPOINTS):
        shutil.rmtree(folder / checkpoints, ignore_errors=True)
