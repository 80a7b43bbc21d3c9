"""The optimizer: learning rates per embedding, and low-rank adapters.

Axes: V rows of an embedding matrix.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from ..errors import ModelError
from ..models import token_layers
from ..recipe import TrainingRecipe

# Learning rate of the body by number of parameters. 135 million: measured on SmolLM2. 1.5 billion:
# usual in continued pretraining. 7.5 billion: the middle of 1e-5 to 3e-5 in NVIDIA's guidebook on
# extending tokenizers (2026); its rate for new embeddings, 1e-4, is five times that, as here.
RATES = {135e6: 4e-4, 1.5e9: 1e-4, 7.5e9: 2e-5}
# Classes of layers that get adapters; routers have other classes. The kernels of Mamba read the
# weights of some layers directly, so these get none.
LINEAR, FUSED = ("Linear", "Conv1D", "FalconLinear"), ("mixer.out_proj", "mamba.out_proj")
CHUNK = 2**22  # entries of an embedding matrix that are updated at once


def learning_rate(asked: float | str, parameters: int) -> float:
    """Return the learning rate of the body of a model: the given one, or by its parameters.

    Between the sizes in `RATES`, the rate is interpolated linearly in logarithms. Outside, the rate
    of the nearest size is used.

    Args:
        asked: a rate, or `auto`.
        parameters: number of parameters of the model.

    Example:
        >>> [f"{learning_rate('auto', n):.1e}" for n in (10**8, 10**9, 8 * 10**9)]
        ['4.0e-04', '1.3e-04', '2.0e-05']
    """
    if isinstance(asked, float):
        return asked
    sizes, rates = (np.log(list(values)) for values in (RATES, RATES.values()))
    return float(np.exp(np.interp(np.log(parameters), sizes, rates)))


class RowAdamW(torch.optim.AdamW):
    """AdamW with a separate learning rate for each row of the embedding matrices.

    The step of a row is scaled. Scaling its gradient would have no effect, because Adam divides by
    the size of the gradient. Matrices are updated in blocks of rows, without a copy. A row with
    rate 0 does not change.

    Args:
        groups: parameter groups of AdamW. A group with `rows=True` has matrices with V rows and no
            weight decay.
        row_rates_V1: factor of the learning rate of each row in such a group.
        options: of AdamW.
    """

    def __init__(self, groups: list[Any], row_rates_V1: torch.Tensor, **options: Any) -> None:
        super().__init__([{"rows": False, **group} for group in groups], **options)
        self.row_rates_V1 = row_rates_V1

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step of AdamW, each row with its own learning rate."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["rows"]]
        try:
            loss: float | None = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            for matrix in group["params"] if group["rows"] else ():
                if matrix.grad is not None:
                    self._step_rows(matrix, group)
        return loss

    def _step_rows(self, matrix: torch.Tensor, group: dict[str, Any]) -> None:
        if not (state := self.state[matrix]):
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(matrix) for _ in range(2))
        state["step"] += 1
        step, (beta_1, beta_2) = state["step"].item(), group["betas"]
        rate = group["lr"] / (1 - beta_1**step)
        rates_V1 = self.row_rates_V1.to(matrix.device, matrix.dtype) * rate
        assert matrix.grad is not None
        tensors = [matrix, matrix.grad, state["exp_avg"], state["exp_avg_sq"], rates_V1]
        if isinstance(matrix, DTensor):  # it is spread over processes: each updates its own rows
            where = matrix.device_mesh, matrix.placements
            tensors[4] = distribute_tensor(rates_V1, *where, src_data_rank=None)
            tensors = [tensor.to_local() for tensor in tensors]
        rows = max(1, CHUNK // matrix.shape[1])
        for begin in range(0, len(tensors[0]), rows):
            part, grad, mean, square, rates = (tensor[begin : begin + rows] for tensor in tensors)
            mean.lerp_(grad, 1 - beta_1)
            square.mul_(beta_2).addcmul_(grad, grad, value=1 - beta_2)
            size = square.sqrt().div_((1 - beta_2**step) ** 0.5).add_(group["eps"])
            part.sub_(torch.div(mean, size, out=size).mul_(rates))


def embedding_matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the matrices with one row per token: one with tied weights, otherwise two; and tables
    of all layers (Gemma 3n).
    """
    tables = [m for name, m in model.named_modules() if name.endswith("embed_tokens_per_layer")]
    layers = [*token_layers(model), *tables]
    return list({id(layer.weight): layer.weight for layer in layers}.values())


def optimizer_for(
    model: PreTrainedModel, new_ids: list[int], recipe: TrainingRecipe, arguments: Any
) -> RowAdamW:
    """Return AdamW with three groups: matrices, vectors, embeddings (own rates).

    Only matrices have weight decay.

    Args:
        model: to train.
        new_ids: ids of the new tokens.
        recipe: factors of the learning rate for new and old embeddings.
        arguments: `transformers.TrainingArguments`: learning rate, weight decay of matrices, betas.
    """
    matrices = embedding_matrices(model)
    old, rows = recipe.old_embeddings_lr_scale, len(matrices[0])
    rates_V1 = torch.full((rows, 1), old, device=matrices[0].device)
    rates_V1[new_ids] = recipe.new_embeddings_lr_scale
    of_rows = set(map(id, matrices))
    body = [p for p in model.parameters() if id(p) not in of_rows and p.requires_grad]
    decayed = {"params": [p for p in body if p.ndim >= 2], "weight_decay": arguments.weight_decay}
    vectors = {"params": [p for p in body if p.ndim < 2], "weight_decay": 0.0}
    embeddings = {"params": matrices, "weight_decay": 0.0, "rows": True}
    betas, lr = (arguments.adam_beta1, arguments.adam_beta2), arguments.learning_rate
    return RowAdamW([decayed, vectors, embeddings], rates_V1, lr=lr, betas=betas, fused=True)


def add_adapters(model: PreTrainedModel, rank: int) -> Any:
    """Freeze the body of a model and add adapters to its linear layers; embeddings are trained.

    Source: LoRA, Hu et al. 2021, arXiv 2106.09685; it learns less and forgets less (arXiv
    2405.09673).

    Args:
        model: changed in place.
        rank: of the adapters.

    Returns:
        A `peft.LoraModel`. Its `merge_and_unload` adds the adapters to the weights of the model.

    Raises:
        ModelError: peft is not installed.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise ModelError("adapters need peft: run pip install 'langadapt[lora]'") from error
    head = model.get_output_embeddings()
    parts = {n: m for n, m in model.named_modules() if type(m).__name__ in LINEAR and m is not head}
    wanted = [name for name in parts if not name.endswith(FUSED)]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=wanted)
    adapters = LoraModel(model, config, "default")
    for matrix in embedding_matrices(model):
        matrix.requires_grad_(True)
    for weight in model.parameters():
        if weight.requires_grad:  # trained weights are in float32
            weight.data = weight.data.float()
    return adapters
