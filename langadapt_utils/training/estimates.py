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
        """On each GPU."""
        return self.weights_gb + self.activations_gb

    def __str__(self) -> str:
        return (
            f"{self.memory_gb:.0f} GB on each GPU ({self.weights_gb:.0f} for weights and optimiser, "
            f"{self.activations_gb:.0f} for activations), {self.host_gb:.0f} GB of the machine's own memory, "
            f"{self.disk_gb:.0f} GB of disk, {self.hours:.1f} hours"
        )


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
    """Memory, disk and time of stage 4 on GPUs.

    A weight takes 16 bytes (float32 weight, gradient and two moments), shared out where `sharded`
    (FSDP), and 4 more for the average of `training.ema`. A token keeps about 34 bytes a layer and
    dimension in bfloat16, without the attention matrix (Korthikanti et al. 2022, arXiv 2205.05198),
    and 2 with gradient checkpointing; its logits take 10 bytes an entry (copies in bfloat16 and
    float32, and the gradient), and none with the fused loss. Time is 6 operations a parameter and
    token, 8 with gradient checkpointing; the control on English alone adds its share.

    Args:
        recipe: budget, micro-batch, levers.
        parameters: of the model.
        layers: of the model.
        width: dimensions of a hidden state.
        vocabulary: rows of the adapted embedding matrix.
        gpus: processes in all.
        sharded: whether weights are spread over the GPUs.
        teraflops: peak of one GPU in bfloat16; 989 is that of an H100 SXM by its data sheet.
        utilisation: share of the peak that is reached; smaller over slow networks.
    """
    training = recipe.training
    bytes_each = 16
    weights = parameters * bytes_each / (gpus if sharded else 1)
    tokens = min(
        training.micro_batch_tokens,
        max(training.batch_tokens // gpus, recipe.mixture.sequence_length),
    )
    kept = 2 if training.gradient_checkpointing else 34
    one_layer = 34 * width if training.gradient_checkpointing else 0  # recomputed, one at a time
    logits = 0 if training.fused_loss else 10 * vocabulary
    activations = tokens * (kept * width * layers + one_layer + logits)
    operations = (8 if training.gradient_checkpointing else 6) * parameters * recipe.trained_tokens
    return ResourceEstimate(
        weights_gb=weights / 1e9,
        activations_gb=activations / 1e9,
        disk_gb=(3 * (bytes_each - 4) + 4) * parameters / 1e9,
        host_gb=2 * 4 * parameters * min(gpus, GPUS_OF_A_MACHINE) / 1e9,
        hours=operations / (gpus * teraflops * 1e12 * utilisation) / 3600,
    )
