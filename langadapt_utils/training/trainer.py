"""A `transformers.Trainer` with rates by row, the loss of each language, and safe checkpoints; and
its log.

Axes: B sequences of a micro-batch, T tokens of a sequence.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from .. import hardware
from ..errors import ModelError
from ..files import free_bytes, write_atomically
from ..recipe import FREE_OPTIONS, TrainingRecipe
from ..vocabulary.change import VocabularyChange
from .losses import language_losses, undo_speedups
from .mixture import Mixture
from .optimizer import embedding_matrices, merge_adapters, optimizer_for, row_rates

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT = 2  # checkpoints
SMOOTHED = 20  # steps whose mean loss says where a run stands
DIVERGED = 1.5  # times the lowest such mean: the run is lost, and a single step as high leaves no checkpoint
ADVICE = "start another run with a lower training.learning_rate, or with training.precision=float32"
Record = dict[str, Any]
Report = Callable[[Record], None]


@dataclass(frozen=True)
class Batches:
    """How a batch is shared out: sequences of a micro-batch, micro-batches a step on each process,
    and steps.
    """

    sequences: int
    accumulated: int
    steps: int

    @classmethod
    def of(cls, mixture: Mixture, recipe: TrainingRecipe, processes: int = 1) -> Batches:
        """Micro-batches no larger than the recipe's, so that all processes together take one batch
        a step.

        Raises:
            ModelError: the sequences of a batch cannot be shared out evenly.
        """
        batch = max(1, recipe.batch_tokens // mixture.length)
        if batch % processes:
            raise ModelError(
                f"a batch of {batch} sequences cannot be shared out evenly among {processes} processes: start another "
                "number of them, or change training.batch_tokens"
            )
        most = max(1, recipe.micro_batch_tokens // mixture.length)
        sequences = max(size for size in range(1, most + 1) if batch // processes % size == 0)
        return cls(sequences, batch // processes // sequences, max(1, len(mixture) // batch))


def training_arguments(
    mixture: Mixture, recipe: TrainingRecipe, folder: Path, seed: int
) -> tuple[TrainingArguments, Batches]:
    """Return the arguments of the Trainer, and how a batch is shared out."""
    on_gpu = hardware.device().type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine" if recipe.schedule == "cosine" else "warmup_stable_decay",
        max_grad_norm=1.0,
        bf16=hardware.native_precision(recipe.precision) == "bfloat16",
        use_cpu=not on_gpu,
        ddp_backend=None if on_gpu or "WORLD_SIZE" not in os.environ else "gloo",
        ddp_find_unused_parameters=False,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=2 if on_gpu else 0,
        accelerator_config={"non_blocking": on_gpu},
        logging_strategy="steps" if recipe.report_to else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would wait for the GPU; what is not finite is found below
        save_strategy="no",
        report_to=recipe.report_to or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = (
            1  # several GPUs are for `accelerate launch`; DataParallel would change the batch
        )
    batches = Batches.of(mixture, recipe, arguments.world_size)
    arguments.per_device_train_batch_size = batches.sequences
    arguments.gradient_accumulation_steps = batches.accumulated
    arguments.max_steps = batches.steps
    arguments.warmup_steps = math.ceil(0.05 * batches.steps)
    if recipe.schedule == "wsd":
        arguments.lr_scheduler_kwargs = {"num_decay_steps": math.ceil(0.2 * batches.steps)}
    return arguments, batches


class MixtureTrainer(Trainer):  # type: ignore[misc]
    """A Trainer with rates by row, the loss of each language, and checkpoints that are whole or not
    there.
    """

    def __init__(
        self,
        *args: Any,
        new_rows: list[int],
        recipe: TrainingRecipe,
        log: TrainingLog,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.loss_is_scaled_for_ga = False  # `compute_loss` returns the mean of a micro-batch
        self._new_rows, self._recipe, self._log = new_rows, recipe, log
        self._rows_first = math.ceil(0.0 * self.args.max_steps)
        if self.is_fsdp_enabled and recipe.lora_rank:
            raise ModelError(
                "training.ema and training.lora_rank do not work with FSDP: set them to 0, or start without FSDP"
            )
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise ModelError(
                "FSDP of version 1 hides the rows of a matrix: start with --fsdp_version 2"
            )
        self._average = None
        self._beside: Path | None = None
        log.trainer = self

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with rates by row."""
        self._rates = optimizer_for(self.model, self._new_rows, self._recipe)
        self._rates_at_first = row_rates(
            embedding_matrices(self.model)[0], self._new_rows, self._recipe, rows_first=True
        )
        self._rates_later = self._rates.row_rates_V1
        self.optimizer: torch.optim.Optimizer = self._rates
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy over the tokens of a micro-batch; each language's share goes to the log."""
        target_loss, english_loss = language_losses(
            model, inputs["input_ids"], inputs.get("position_ids"), inputs["target_sequences"]
        )
        self._log.add(
            target_loss.detach(), english_loss.detach(), inputs["bytes"], inputs["target_sequences"]
        )
        # Divided by a number that is the same everywhere, so that several processes learn
        # what one does.
        loss = (target_loss + english_loss) / inputs["input_ids"].numel()
        return (loss, None) if return_outputs else loss

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """A forward and backward pass; while rows go first, nothing else learns."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        rows_first = self.state.global_step < self._rows_first
        self._rates.row_rates_V1 = self._rates_at_first if rows_first else self._rates_later
        if rows_first:
            learning = set(map(id, embedding_matrices(self.model)))
            for parameter in self.model.parameters():
                if id(parameter) not in learning:
                    parameter.grad = None
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        norm = float(super()._get_grad_norm(model, grad_norm))
        if not math.isfinite(norm):
            raise ModelError(
                f"a gradient is not finite at step {self.state.global_step + 1}: {ADVICE}"
            )
        return norm

    def step_ended(self) -> None:
        """What belongs to every optimiser step beside the step."""
        if self._average:
            self._average.update()

    def trained_model(self, start: PreTrainedModel) -> PreTrainedModel:
        """The model on the CPU, without what was added for training."""
        if self._average:
            self._average.apply()
        if self.is_fsdp_enabled:  # each process holds a part
            model = copy.deepcopy(start)
            if weights := self.accelerator.get_state_dict(
                self.model_wrapped
            ):  # the first process alone has them
                model.load_state_dict(weights)
            return model
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).to("cpu")
        if self._recipe.lora_rank:
            merge_adapters(model)
        undo_speedups(model)
        return model

    def agreed(self, due: bool) -> bool:
        """What the first process thinks is due, so that all do the same."""
        if self.args.world_size == 1:
            return due
        votes: torch.Tensor = self.accelerator.gather(torch.tensor([due], device=self.args.device))
        return bool(votes[0])

    def log(self, logs: Record, start_time: float | None = None) -> None:
        """Give trackers the loss of each language."""
        bits = self._log.records[-1]["bits_per_byte"] if self._log.records else {}
        super().log(
            logs | {f"bits_per_byte_{name}": value for name, value in bits.items()}, start_time
        )

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._beside or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint beside, then give it its name; two are kept, older ones moved away
        before they go.
        """
        folder = Path(self.args.output_dir)
        beside = folder / ".writing"
        if self.args.should_save:
            shutil.rmtree(beside, ignore_errors=True)  # what a killed process left
        copies = 4 if self._average else 3  # weights, two moments, the average
        needed = copies * sum(p.numel() * p.element_size() for p in self.model.parameters())
        free = free_bytes(folder)
        if not self.agreed(free >= needed):
            self._log.say(
                f"no checkpoint: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB of disk are free"
            )
            return
        self._beside = beside
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes a part
            written = beside / f"checkpoint-{self.state.global_step}"
            if self.args.should_save:
                if self._average:
                    self._average.save(written)
                written.replace(folder / written.name)
                for old in _checkpoints(folder)[:-KEPT]:
                    old.replace(beside / old.name)
        finally:
            if self.args.should_save:
                shutil.rmtree(beside, ignore_errors=True)
            self._beside = None
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average:
            self._average.load(Path(resume_from_checkpoint))


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Collects a record a step, stops a run that is lost, and asks for a checkpoint every few
    minutes.
    """

    trainer: MixtureTrainer

    def __init__(self, report: Report, tokens: int, checkpoint_minutes: float) -> None:
        self.records: list[Record] = []
        self.seconds = 0.0
        self._report, self._tokens, self._checkpoint_minutes = report, tokens, checkpoint_minutes
        self._sums: torch.Tensor | float = 0.0
        self._recent: dict[str, deque[float]] = {}
        self._lowest: dict[str, float] = {}
        self._rising = False

    def add(
        self,
        target_loss: torch.Tensor,
        english_loss: torch.Tensor,
        bytes_B: torch.Tensor,
        target_sequences: int,
    ) -> None:
        """Count a micro-batch, without waiting for the GPU."""
        sizes = [bytes_B[:target_sequences].sum(), bytes_B[target_sequences:].sum()]
        sums = [target_loss.float(), english_loss.float(), *sizes]
        self._sums = self._sums + torch.stack([one.float().to(target_loss.device) for one in sums])

    def say(self, doing: str) -> None:
        """Report something that is not a step."""
        if self.trainer.is_world_process_zero():
            self._report({"doing": doing})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the records of the steps before, where a run is resumed."""
        if state.global_step:
            self.records = [record for record in state.log_history if "tokens" in record]
            for record in self.records:
                self._watch(record["bits_per_byte"], record["step"])
        self._first = state.global_step
        self._began = self._saved = self._stepped = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop before weights are spoilt."""
        sums = self.trainer.accelerator.reduce(self._sums, reduction="sum").tolist()
        self._sums = 0.0
        bits, sizes = [nats / math.log(2) for nats in sums[:2]], sums[2:]
        self._bits = {
            name: bit / size
            for name, bit, size in zip(("target", "en"), bits, sizes, strict=True)
            if size
        }
        if not all(map(math.isfinite, bits)):
            raise ModelError(
                f"the training loss is not finite at step {state.global_step + 1}: {ADVICE}"
            )
        self._watch(self._bits, state.global_step + 1)

    def _watch(self, bits: dict[str, float], step: int) -> None:
        """Stop a run whose loss, averaged over some steps, has risen far above where it was."""
        self._rising = False
        for name, value in bits.items():
            recent = self._recent.setdefault(name, deque(maxlen=SMOOTHED))
            recent.append(value)
            mean = sum(recent) / len(recent)
            if len(recent) == SMOOTHED:
                lowest = self._lowest[name] = min(mean, self._lowest.get(name, mean))
                self._rising |= value > DIVERGED * lowest
                if mean > DIVERGED * lowest:
                    raise ModelError(
                        f"the training loss diverges: {name} was at {lowest:.2f} bits per byte and is at {mean:.2f} "
                        f"by step {step}: {ADVICE}"
                    )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the step, and ask for a checkpoint where one is due."""
        self.trainer.step_ended()
        now = time.perf_counter()
        record = {
            "step": state.global_step,
            "steps": state.max_steps,
            "tokens": state.global_step * self._tokens,
            "bits_per_byte": self._bits,
            "learning_rate": kwargs["lr_scheduler"].get_last_lr()[0],
            "tokens_per_second": self._tokens / (now - self._stepped),
            "seconds_left": (now - self._began)
            / (state.global_step - self._first)
            * (state.max_steps - state.global_step),
        }
        self._stepped, self.seconds = now, now - self._began
        self.records.append(record)
        state.log_history.append(record)
        if state.is_world_process_zero:
            self._report(record)
        due = (
            now - self._saved > 60 * self._checkpoint_minutes
            and state.global_step < state.max_steps
        )
        due = due and not self._rising  # the last checkpoints stay good ones
        if self.trainer.agreed(due):
            control.should_save, self._saved = True, now


def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack sequences, those in the target language first."""
    examples = sorted(examples, key=lambda example: example["is_english"])
    names = [name for name in examples[0] if name != "is_english"]
    batch: dict[str, Any] = {
        name: torch.as_tensor(np.asarray([one[name] for one in examples])) for name in names
    }
    return batch | {"target_sequences": sum(not one["is_english"] for one in examples)}


def run_digest(
    mixture: Mixture,
    recipe: TrainingRecipe,
    model: PreTrainedModel,
    change: VocabularyChange,
    seed: int,
) -> str:
    """A hash of what a run learns from, so that it does not go on from the checkpoints of
    another.
    """
    first = mixture[0]["input_ids"].tobytes()
    parts = [
        recipe.model_dump_json(exclude=set(FREE_OPTIONS)),
        model.config.model_type,
        model.num_parameters(),
        change.size,
        len(change.added),
        seed,
    ]
    parts += [mixture.order, mixture.length, mixture.separate_documents]
    return hashlib.sha256(first + repr(parts).encode()).hexdigest()


def claim(folder: Path, arguments: TrainingArguments, digest: str) -> None:
    """Write whose checkpoints a folder holds, or find that they are another run's."""
    mark = folder / "run.txt"
    if mark.exists() and _checkpoints(folder) and mark.read_text() != digest:
        raise ModelError(
            f"{folder} holds checkpoints of a run with another recipe: delete it, or name another folder"
        )
    if arguments.should_save:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(mark, lambda beside: beside.write_text(digest))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in a folder, if there is one."""
    checkpoints = _checkpoints(folder)
    return str(checkpoints[-1]) if checkpoints else None
