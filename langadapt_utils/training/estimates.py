"""What a training run will need: memory of each GPU, disk and time, before anything is started."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe import Recipe

GPUS_OF_A_MACHINE = 8


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run needs.

    Attributes:
        weights_gb: of memory on each GPU for weights, gradients and both moments of AdamW.
        activations_gb: of memory on each GPU for what the backward pass remembers.
        disk_gb: for checkpoints, of which there are three while the oldest gives way, and the
            model.
        host_gb: of memory on each machine while the model is loaded: every process holds it twice,
            in float32.
        hours: of training.
    """

    weights_gb: float
    activations_gb: float
    disk_gb: float
    host_gb: float
    hours: float

    @property
    def memory_gb(self) -> float:
        """Memory on each GPU."""
        return self.weights_gb + self.activations_gb

    def __str__(self) -> str:
        parts = f"{self.weights_gb:.0f} for weights and optimiser, {self.activations_gb:.0f} for"
        gpu = f"{self.memory_gb:.0f} GB on each GPU ({parts} activations)"
        host, disk = f"{self.host_gb:.0f} GB of the machine's own memory", f"{self.disk_gb:.0f} GB"
        return f"{gpu}, {host}, {disk} of disk, {self.hours:.1f} hours"


def estimate_resources(
    recipe: Recipe,
    *,
    parameters: float,
    layers: int,
    width: int,
    vocabulary: int,
    gpus: int = 1,
    sharded: bool = False,
    teraflops: float = 989.0,
    utilisation: float = 0.35,
) -> ResourceEstimate:
    """Return the memory, disk and time that training needs on GPUs.

    A weight takes 16 bytes (float32 weight, gradient and two moments), shared out if `sharded`
    (FSDP). A token keeps about 34 bytes per layer and dimension in bfloat16, without the attention
    matrix (Korthikanti et al. 2022, arXiv 2205.05198), and 2 with gradient checkpointing; its
    logits take 10 bytes per entry (copies in bfloat16 and float32, and the gradient), and none with
    the fused loss. Time is 6 operations per parameter and token, 8 with gradient checkpointing; the
    control on English alone adds its share.

    Args:
        recipe: budget, micro-batch, speed settings.
        parameters: of the model.
        layers: of the model.
        width: dimensions of a hidden state.
        vocabulary: rows of the adapted embedding matrix.
        gpus: processes in all.
        sharded: whether weights are spread over the GPUs.
        teraflops: peak of one GPU in bfloat16; 989 is that of an H100 SXM by its data sheet.
        utilisation: fraction of the peak that is reached; smaller over slow networks.
    """
    training, saving = recipe.training, recipe.training.gradient_checkpointing
    weights = parameters * 16 / (gpus if sharded else 1)
    share = max(training.batch_tokens // gpus, recipe.mixture.sequence_length)
    tokens = min(training.micro_batch_tokens, share)
    kept = 2 if saving else 34
    one_layer = 34 * width if saving else 0  # recomputed, one at a time
    logits = 0 if training.fused_loss else 10 * vocabulary
    activations = tokens * (kept * width * layers + one_layer + logits)
    disk = (3 * 12 + 4) * parameters
    host = 2 * 4 * parameters * min(gpus, GPUS_OF_A_MACHINE)
    operations = (8 if saving else 6) * parameters * recipe.trained_tokens
    hours = operations / (gpus * teraflops * 1e12 * utilisation) / 3600
    return ResourceEstimate(weights / 1e9, activations / 1e9, disk / 1e9, host / 1e9, hours)
