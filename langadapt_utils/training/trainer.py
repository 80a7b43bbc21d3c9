"""A `transformers.Trainer` with learning rates per embedding, atomic checkpoints and a log.

Axes: B sequences of a micro-batch, T tokens of a sequence.
"""

import copy
import hashlib
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_model
from torch.utils.data import default_collate
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_utils import PreTrainedModel as Model
from transformers.utils import SAFE_WEIGHTS_NAME

from .. import hardware
from ..errors import ModelError
from ..files import free_bytes, package_yaml, write_atomically
from ..recipe import FREE_OPTIONS, TrainingRecipe
from ..trials import weights_digest
from .losses import language_losses, undo_speedups
from .mixture import PARTS, Mixture
from .optimizer import RowAdamW, optimizer_for

KEPT = 2  # checkpoints
GAP = 32  # learned parameters between two returns of memory in a backward pass
SMOOTHED = 20  # training steps in the running mean of the loss
DIVERGED = 1.5  # times the lowest running mean: stop; a step this high writes no checkpoint
ADVICE = "start another run with a lower training.learning_rate, or with training.precision=float32"
Record = dict[str, Any]
Report = Callable[[Record], None]


def divide_batch(mixture: Mixture, recipe: TrainingRecipe, processes: int) -> tuple[int, ...]:
    """Return sequences per micro-batch, micro-batches per step and process, and steps of a run.

    Micro-batches are at most as large as in the recipe. All processes together use one batch per
    training step.

    Raises:
        ModelError: the sequences of a batch cannot be divided evenly.
    """
    if (batch := max(1, recipe.batch_tokens // mixture.length)) % processes:
        problem = f"a batch of {batch} sequences cannot be divided among {processes} processes"
        raise ModelError(f"{problem}: change the number of processes or training.batch_tokens")
    # A run of one step may have fewer sequences than a batch: it has what processes can share.
    batch = min(batch, max(processes, len(mixture) // processes * processes))
    most = max(1, recipe.micro_batch_tokens // mixture.length)
    sequences = max(size for size in range(1, most + 1) if batch // processes % size == 0)
    return sequences, batch // processes // sequences, max(1, len(mixture) // batch)


def training_arguments(
    mixture: Mixture, recipe: TrainingRecipe, folder: Path, options: Mapping[str, Any]
) -> TrainingArguments:
    """Return the arguments of the Trainer.

    Args:
        mixture: the sequences of the run.
        recipe: learning rates, batch, precision.
        folder: for checkpoints.
        options: override the arguments, by name.

    Raises:
        ModelError: batches cannot be divided, or the attention cannot separate documents.
    """
    on_gpu, on_cpu = (hardware.device().type == kind for kind in ("cuda", "cpu"))
    bf16, tracked = hardware.native_precision(recipe.precision) == "bfloat16", recipe.report_to
    backend = "gloo" if "WORLD_SIZE" in os.environ and on_cpu else None
    chosen: dict[str, Any] = package_yaml("training/trainer.yaml")
    chosen |= {"output_dir": str(folder), "learning_rate": recipe.learning_rate}
    chosen |= {"use_cpu": on_cpu, "bf16": bf16, "ddp_backend": backend}
    chosen |= {"dataloader_pin_memory": on_gpu, "dataloader_num_workers": 2 if on_gpu else 0}
    chosen |= {"accelerator_config": {"non_blocking": on_gpu}, "report_to": tracked or "none"}
    chosen |= {"logging_strategy": "steps" if tracked else "no"}
    arguments = TrainingArguments(**{**chosen, **options})
    # DataParallel would change the batch; `accelerate launch` does not.
    arguments._n_gpu = min(1, arguments.n_gpu)
    sequences, accumulated, steps = divide_batch(mixture, recipe, arguments.world_size)
    if mixture.separate_documents and sequences > 1 and recipe.attention == "flash_attention_2":
        problem = "flash_attention_2 separates documents only in micro-batches of one sequence"
        remedy = "set training.attention=sdpa or mixture.separate_documents=false"
        raise ModelError(f"{problem}: {remedy}")
    arguments.per_device_train_batch_size = sequences
    arguments.gradient_accumulation_steps, arguments.max_steps = accumulated, steps
    if steps * arguments.warmup_steps < 1:  # a fraction of the steps, of which the first has rate 0
        arguments.warmup_steps = 0
    return arguments


class MixtureTrainer(Trainer):  # type: ignore[misc]
    """A Trainer with learning rates per embedding, losses per language, and atomic checkpoints.

    Args:
        recipe: learning rates of the embeddings, minutes between checkpoints.
        new_ids: ids of the new tokens.
        report: called with each record of the log.
        parts: arguments of `Trainer`: `model`, `args`, and a mixture as `train_dataset`.
    """

    def __init__(
        self, recipe: TrainingRecipe, new_ids: list[int], report: Report, **parts: Any
    ) -> None:
        if "tensorboard" in recipe.report_to:  # beside the checkpoints, which are deleted
            folder = Path(parts["args"].output_dir).parent / "tensorboard"
            os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder))
        super().__init__(data_collator=collate, **parts)
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = False  # `compute_loss` returns the mean of a micro-batch
        if self.is_fsdp_enabled and recipe.lora_rank:
            raise ModelError("adapters do not work with FSDP: set training.lora_rank to 0")
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise ModelError("FSDP 1 has no learning rate per embedding: set fsdp_version to 2")
        self._new_ids, self._recipe = new_ids, recipe
        tokens = self.train_dataset.length * self.get_total_train_batch_size(self.args)
        self.steps = TrainingLog(report, tokens, recipe.checkpoint_minutes, self.accelerator)
        self.add_callback(self.steps)
        # Freed gradients and activations leave gaps that the next ones do not fit, and returning
        # gaps takes time: only where memory is scarce (`benchmarks/memory.py`).
        for one in [one for one in self.model.parameters() if one.requires_grad][::GAP]:
            one.register_post_accumulate_grad_hook(hardware.return_freed_memory)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW with learning rates per embedding."""
        self.optimizer: RowAdamW = optimizer_for(self.model, self._new_ids, self._recipe, self.args)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Any, **options: Any) -> torch.Tensor:
        """Return the cross-entropy per token of a micro-batch, and log it for each part."""
        hardware.return_freed_memory()
        losses = language_losses(model, inputs)
        hardware.return_freed_memory()
        self.steps.add([loss.detach() for loss in losses], inputs["bytes"], inputs["sizes"])
        # All processes divide by the same number, so that they train as one process does.
        return torch.div(torch.stack(losses).sum(), inputs["input_ids"].numel())

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        norm, step = float(super()._get_grad_norm(model, grad_norm)), self.state.global_step + 1
        if not math.isfinite(norm):
            raise ModelError(f"a gradient is not finite at step {step}: {ADVICE}")
        return norm

    def trained_model(self, start: Callable[[], Model]) -> Model:
        """Return the model on the CPU, without speedups; `start` returns a model of its shape."""
        if self.is_fsdp_enabled:  # each process holds a part
            model = copy.deepcopy(start()).float()
            if weights := self.accelerator.get_state_dict(self.model_wrapped):  # the first process
                model.load_state_dict(weights)
            return model
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).to("cpu")
        undo_speedups(model)
        return model

    def log(self, logs: Record, start_time: float | None = None) -> None:
        """Log the loss of each language to the trackers."""
        bits = self.steps.records[-1]["bits_per_byte"] if self.steps.records else {}
        losses = {f"bits_per_byte_{name}": value for name, value in bits.items()}
        super().log(logs | losses, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint to a temporary folder, then rename it; keep the last two."""
        folder, saves = Path(self.args.output_dir), self.args.should_save
        beside = folder / ".writing"
        # A trained weight has two moments; the model and its control are still to be written.
        needed = sum(p.nbytes * (5 if p.requires_grad else 3) for p in self.model.parameters())
        if saves:
            shutil.rmtree(beside, ignore_errors=True)  # left by a killed process
        if not agreed(self.accelerator, (free := free_bytes(folder)) >= needed):
            sizes = f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB of disk are free"
            return self.steps.say(f"no checkpoint: {sizes}")
        self.args.output_dir = str(beside)
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes a part
            if saves:
                name = f"checkpoint-{self.state.global_step}"
                (beside / name).replace(folder / name)
                for old in checkpoints_of(folder)[:-KEPT]:  # moved away whole, then deleted
                    old.replace(beside / old.name)
        finally:
            self.args.output_dir = str(folder)
            if saves:
                shutil.rmtree(beside, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights unchanged, where the Trainer looks for them on resume.

        `save_pretrained` may rename and split them.
        """
        if self.is_fsdp_enabled:
            super()._save(output_dir, state_dict)
        else:
            (folder := Path(output_dir or self.args.output_dir)).mkdir(parents=True, exist_ok=True)
            save_model(self.accelerator.unwrap_model(self.model), str(folder / SAFE_WEIGHTS_NAME))


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Records each training step, stops a diverged run, and requests checkpoints.

    Args:
        report: called with each record.
        tokens: per training step.
        minutes: between checkpoints.
        group: the processes that train together.
    """

    def __init__(self, report: Report, tokens: int, minutes: float, group: Accelerator) -> None:
        self.records: list[Record] = []
        self.seconds = 0.0
        self._report, self._tokens, self._group = report, tokens, group
        self._checkpoint_seconds = 60 * minutes
        self._sums: torch.Tensor | float = 0.0
        self._recent: dict[str, deque[float]] = {}
        self._lowest: dict[str, float] = {}

    def add(self, losses: list[torch.Tensor], bytes_B: torch.Tensor, sizes: list[int]) -> None:
        """Count a micro-batch, without waiting for the GPU."""
        sums = [*losses, *(part.sum() for part in torch.split(bytes_B, sizes))]
        self._sums = self._sums + torch.stack([x.float().to(losses[0].device) for x in sums])

    def say(self, doing: str) -> None:
        """Report an activity that is not a training step."""
        if self._group.is_main_process:
            self._report({"doing": doing})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the records of earlier steps if a run is resumed."""
        self.records = [record for record in state.log_history if "tokens" in record]
        for record in self.records:
            self._watch(record["bits_per_byte"], record["step"])
        self._first = state.global_step
        self._began = self._saved = self._stepped = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop before a loss that is not finite changes the weights."""
        sums = self._group.reduce(self._sums, reduction="sum").tolist()
        self._sums, step = 0.0, state.global_step + 1
        bits = [nats / math.log(2) for nats in sums[: len(PARTS)]]
        parts = zip(PARTS, bits, sums[len(PARTS) :], strict=True)
        self._bits = {name: bit / size for name, bit, size in parts if size}
        if not all(map(math.isfinite, bits)):
            raise ModelError(f"the training loss is not finite at step {step}: {ADVICE}")
        self._watch(self._bits, step)
        self._rate = kwargs["lr_scheduler"].get_last_lr()[0]

    def _watch(self, bits: dict[str, float], step: int) -> None:
        """Stop a run if the running mean of its loss has risen far above its minimum."""
        self._rising = False
        for name, value in bits.items():
            recent = self._recent.setdefault(name, deque(maxlen=SMOOTHED))
            recent.append(value)
            if len(recent) < SMOOTHED:
                continue
            mean = sum(recent) / SMOOTHED
            lowest = self._lowest[name] = min(mean, self._lowest.get(name, mean))
            self._rising |= value > DIVERGED * lowest
            if mean > DIVERGED * lowest:
                risen = f"{name} was at {lowest:.2f} bits per byte and is at {mean:.2f}"
                raise ModelError(f"the training loss diverges: {risen} by step {step}: {ADVICE}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the step, and request a checkpoint if one is due."""
        step, steps, now = state.global_step, state.max_steps, time.perf_counter()
        tokens, speed = step * self._tokens, self._tokens / (now - self._stepped)
        self._stepped, self.seconds = now, now - self._began
        left = self.seconds / (step - self._first) * (steps - step)
        record = {"step": step, "steps": steps, "tokens": tokens, "bits_per_byte": self._bits}
        record |= {"learning_rate": self._rate, "tokens_per_second": speed, "seconds_left": left}
        self.records.append(record)
        state.log_history.append(record)
        if self._group.is_main_process:
            self._report(record)
        due = now - self._saved > self._checkpoint_seconds and step < steps
        # While the loss is high, the last checkpoints stay good ones.
        if agreed(self._group, due and not self._rising):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the minutes to the next checkpoint from the end of this one."""
        self._saved = time.perf_counter()


def agreed(accelerator: Accelerator, due: bool) -> bool:
    """Return the decision of the first process, so that all processes do the same."""
    return bool(accelerator.gather(torch.tensor([due], device=accelerator.device))[0])


def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack sequences in the order of `PARTS`, and count the sequences per part."""
    batch = default_collate(sorted(examples, key=lambda example: example["part"]))
    return {**batch, "sizes": batch.pop("part").bincount(minlength=len(PARTS)).tolist()}


def run_digest(model: Model, mixture: Mixture, recipe: TrainingRecipe, others: object) -> str:
    """Return a hash of a run's inputs, so that another run does not resume its checkpoints.

    Args:
        model: at the start.
        mixture: the sequences.
        recipe: of the run.
        others: everything else that affects the result.
    """
    parts = recipe.model_dump_json(exclude=FREE_OPTIONS), weights_digest(model), others
    digest = hashlib.sha256(repr((*parts, mixture.order, mixture.separate_documents)).encode())
    for name, stream in mixture.streams.items():
        digest.update(repr((name, stream.length)).encode())
        for array in (stream.begins, stream.visits, *stream.shards):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def claim(folder: Path, digest: str, *, write: bool) -> Path | None:
    """Write the digest of a run into its folder; return its last checkpoint, or None.

    Raises:
        ModelError: the folder has checkpoints of another run.
    """
    mark, found = folder / "run.txt", checkpoints_of(folder)
    if mark.exists() and found and mark.read_text() != digest:
        problem = f"{folder} has checkpoints of a run with another recipe"
        raise ModelError(f"{problem}: choose another folder, or delete this one")
    if write:
        write_atomically(mark, lambda beside: beside.write_text(digest))
    return found[-1] if found else None


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest last."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
