"""How the model learns: `transformers.Trainer`, with rates of their own for new rows and for old rows."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from . import hardware
from .changes import VocabularyChange
from .errors import ModelError
from .mixture import Mixture
from .recipe import TrainingRecipe
from .sources import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED = -100  # a target that does not count
EFFICIENCY = {("cpu", "bfloat16"): 0.45, ("cpu", "float32"): 0.7, ("cuda", "bfloat16"): 0.15, ("cuda", "float32"): 0.4}
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Training:
    """A trained model and how it got there.

    Attributes:
        model: at the point of the way from start to trained weights that the recipe names.
        steps: one record an optimiser step: `step`, `tokens`, `bits_per_byte` of each language seen in the
            step, `learning_rate`, `tokens_per_second`.
        seconds: spent on the steps of this process (a resumed run counts only its own).
    """

    model: PreTrainedModel
    steps: list[dict[str, Any]]
    seconds: float


def train(
    model: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    recipe: TrainingRecipe,
    folder: Path | str,
    *,
    report: Report = lambda record: None,
) -> Training:
    """Train a copy of a model on a mixture.

    Args:
        model: with rows for the new tokens; stays as it is.
        change: says which rows are new.
        mixture: the sequences, in the order of training.
        recipe: rates, batch, precision.
        folder: for checkpoints; a run that was stopped goes on from the last whole one.
        report: called with each record of `Training.steps` as it is made.

    Raises:
        ModelError: the loss is not finite.
    """
    folder = Path(folder)
    micro_batch = max(1, min(recipe.micro_batch_tokens, recipe.batch_tokens) // mixture.length)
    accumulate = max(1, recipe.batch_tokens // (micro_batch * mixture.length))
    steps = max(1, len(mixture) // (micro_batch * accumulate))
    precision = hardware.native_precision(recipe.precision)
    on_gpu = hardware.device().type == "cuda"
    hardware.keep_freed_memory()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulate,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(recipe.warmup_share * steps),
        weight_decay=recipe.weight_decay,
        bf16=precision == "bfloat16",
        use_cpu=not on_gpu,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=on_gpu,
        logging_strategy="no",
        save_strategy="no",
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=recipe.seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs are for `accelerate launch`; DataParallel would change the batch
    log = _Log(report, arguments, mixture.length, recipe.checkpoint_minutes)
    trainer = _RowRateTrainer(
        model=copy.deepcopy(model),
        args=arguments,
        train_dataset=mixture,
        data_collator=_collate,
        callbacks=[log],
        new_rows=list(change.added),
        recipe=recipe,
        log=log,
    )
    trainer.remove_callback(PrinterCallback)
    with quiet_transformers():
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(folder))
    trained = interpolate(model, trainer.model.to("cpu"), recipe.interpolation)
    return Training(trained.eval(), log.records, log.seconds)


def interpolate(start: PreTrainedModel, end: PreTrainedModel, share: float) -> PreTrainedModel:
    """A model whose weights lie between those of two models of one shape.

    Args:
        start: returned (as a copy) at share 0.
        end: returned (as a copy) at share 1.
        share: how far to go.

    Source: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903.
    """
    result = copy.deepcopy(end)
    begin = dict(start.named_parameters())
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.copy_(torch.lerp(begin[name].to(parameter.dtype), parameter, share))
    return result


def estimate_seconds(parameters: int, tokens: int, precision: hardware.Precision) -> float:
    """How long training on a number of tokens takes here, from the speed of a matrix product.

    Training costs about 6 floating-point operations a parameter and token (Kaplan et al. 2020, arXiv
    2001.08361); `EFFICIENCY` is the share of a large matrix product's speed that training reaches.

    Args:
        parameters: of the model.
        tokens: of the run.
        precision: of the matrix products.
    """
    efficiency = EFFICIENCY[hardware.device().type, precision]
    return 6 * parameters * tokens / (efficiency * hardware.measured_flops(precision))


class _RowRateTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose embedding rows learn at two rates, and that reports bits per byte per language."""

    def __init__(self, *args: Any, new_rows: list[int], recipe: TrainingRecipe, log: _Log, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_is_scaled_for_ga = False  # `compute_loss` returns the mean of a micro-batch
        self._new_rows, self._recipe, self._log = new_rows, recipe, log

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW in three groups: matrices, vectors (no decay), embedding rows (no decay, their own rates)."""
        recipe = self._recipe
        heads = [self.model.get_input_embeddings(), self.model.get_output_embeddings()]
        rows = {id(head.weight): head.weight for head in heads if head is not None}
        body = [p for p in self.model.parameters() if id(p) not in rows and p.requires_grad]
        fastest = max(recipe.new_rows_rate, recipe.old_rows_rate)
        groups = [
            {"params": [p for p in body if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in body if p.ndim < 2], "weight_decay": 0.0},
            {"params": list(rows.values()), "weight_decay": 0.0, "lr": recipe.learning_rate * fastest},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)
        if fastest > 0:
            new, old = recipe.new_rows_rate / fastest, recipe.old_rows_rate / fastest
            scale_row_updates(optimizer, list(rows.values()), self._new_rows, new, old)
        self.optimizer: torch.optim.Optimizer = optimizer
        return optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean cross-entropy a token; each sequence's share goes to the log."""
        ids_BT = inputs["input_ids"]
        outputs = model(input_ids=ids_BT, use_cache=False)
        # Shifting the targets, not the logits, saves a copy of the largest tensor there is.
        targets_BT = torch.nn.functional.pad(ids_BT[:, 1:], (0, 1), value=IGNORED)
        losses_BT = torch.nn.functional.cross_entropy(
            outputs.logits.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
        ).view_as(ids_BT)
        nats_B = losses_BT.detach().sum(dim=1)
        self._log.add(nats_B.tolist(), inputs["bytes"].tolist(), inputs["is_english"].tolist())
        loss = losses_BT[:, :-1].mean()
        return (loss, outputs) if return_outputs else loss


def scale_row_updates(
    optimizer: torch.optim.Optimizer, matrices: list[torch.nn.Parameter], new_rows: list[int], new: float, old: float
) -> None:
    """Scale what each optimiser step does to the rows of embedding matrices.

    An AdamW step without weight decay is proportional to its rate, so scaling a row's step is exactly the
    same as giving the row that much of the rate. (Scaling its gradient would do nothing: Adam divides by the
    gradient's size.)

    Args:
        optimizer: steps of which are scaled from now on.
        matrices: embedding matrices, of shape (rows, dimensions).
        new_rows: indices of the rows that count as new.
        new: what the steps of new rows are multiplied by.
        old: what the steps of all other rows are multiplied by.
    """
    if new == old == 1:
        return
    before: list[torch.Tensor] = []

    def remember(*_: Any) -> None:
        before[:] = [matrix.detach().clone() for matrix in matrices]

    def scale(*_: Any) -> None:
        for matrix, old_matrix in zip(matrices, before, strict=True):
            scale_V1 = torch.full((len(matrix), 1), old, device=matrix.device, dtype=matrix.dtype)
            scale_V1[new_rows] = new
            with torch.no_grad():
                matrix.copy_(torch.lerp(old_matrix, matrix, scale_V1))
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(scale)


class _Log(TrainerCallback):  # type: ignore[misc]
    """Collects a record a step, and asks for a checkpoint every few minutes."""

    def __init__(self, report: Report, arguments: TrainingArguments, length: int, checkpoint_minutes: float) -> None:
        self.records: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._report, self._minutes = report, checkpoint_minutes
        self._tokens = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * length
        self._sums: dict[str, list[float]] = {}

    def add(self, nats: list[float], sizes: list[int], english: list[bool]) -> None:
        for nat, size, is_english in zip(nats, sizes, english, strict=True):
            if not math.isfinite(nat):
                raise ModelError(
                    "the training loss is not finite: lower training.learning_rate, or set training.precision=float32"
                )
            sums = self._sums.setdefault("en" if is_english else "target", [0.0, 0.0])
            sums[0] += nat / math.log(2)
            sums[1] += size

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            self.records = [record for record in state.log_history if "tokens" in record]
        self._first = state.global_step
        self._began = self._saved = self._stepped = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        record = {
            "step": state.global_step,
            "steps": state.max_steps,
            "tokens": state.global_step * self._tokens,
            "bits_per_byte": {language: bits / size for language, (bits, size) in self._sums.items()},
            "learning_rate": kwargs["lr_scheduler"].get_last_lr()[0],
            "tokens_per_second": self._tokens / (now - self._stepped),
            "seconds_left": (now - self._began)
            / (state.global_step - self._first)
            * (state.max_steps - state.global_step),
        }
        self._sums, self._stepped, self.seconds = {}, now, now - self._began
        self.records.append(record)
        state.log_history.append(record)
        self._report(record)
        if now - self._saved > 60 * self._minutes and state.global_step < state.max_steps:
            control.should_save, self._saved = True, now


def _collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(np.asarray([example[name] for example in examples])) for name in examples[0]}


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; half-written ones are removed.

    The Trainer writes `trainer_state.json` last, and deletes the checkpoint before only after that.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for checkpoint in reversed(checkpoints):
        if (checkpoint / "trainer_state.json").exists():
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    return None
