"""Which weights learn, and how fast: rates by row, adapters of low rank, an average of the weights.

Axes: V rows of an embedding matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from ..errors import ModelError
from ..recipe import TrainingRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 2**22  # numbers of an embedding matrix that are updated at once
BETAS = (0.9, 0.95)


class RowAdamW(torch.optim.AdamW):
    """AdamW in which every row of the embedding matrices has a rate of its own.

    Scaling a row's gradient would do nothing, as Adam divides by the gradient's size; so its step
    is scaled. Nothing
    is copied: matrices are updated a few rows at a time. A row of rate 0 stays exactly.

    Args:
        groups: parameter groups as for AdamW; in a group with `rows=True` are matrices of V rows,
            without weight decay.
        row_rates_V1: what the rate of such a group is multiplied by in each row; may be replaced
            between steps.
        options: for AdamW.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], row_rates_V1: torch.Tensor, **options: Any
    ) -> None:
        super().__init__([{"rows": False, **group} for group in groups], **options)
        self.row_rates_V1 = row_rates_V1

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of AdamW with every row at its rate."""
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
        state = self.state[matrix]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = (
                torch.zeros_like(matrix),
                torch.zeros_like(matrix),
            )
        state["step"] += 1
        step, (beta_1, beta_2) = state["step"].item(), group["betas"]
        rates_V1 = self.row_rates_V1.to(matrix.device, matrix.dtype) * (
            group["lr"] / (1 - beta_1**step)
        )
        assert matrix.grad is not None
        tensors = [
            _local(one) for one in (matrix, matrix.grad, state["exp_avg"], state["exp_avg_sq"])
        ]
        if len(tensors[0]) < len(matrix):
            rates_V1 = rates_V1[_first_row(matrix) :][: len(tensors[0])]
        rows = max(1, CHUNK // matrix.shape[1])
        for begin in range(0, len(tensors[0]), rows):
            part, grad, mean, square = (tensor[begin : begin + rows] for tensor in tensors)
            mean.lerp_(grad, 1 - beta_1)
            square.mul_(beta_2).addcmul_(grad, grad, value=1 - beta_2)
            size = square.sqrt().div_((1 - beta_2**step) ** 0.5).add_(group["eps"])
            part.sub_(torch.div(mean, size, out=size).mul_(rates_V1[begin : begin + rows]))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor that may be spread over several."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _first_row(matrix: Any) -> int:
    """The first row that this process holds of a matrix that is spread over several."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    offset: int = compute_local_shape_and_global_offset(
        matrix.shape, matrix.device_mesh, matrix.placements
    )[1][0]
    return offset


def embedding_matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The matrices with a row a token: one where input and output are tied, else two."""
    heads = [model.get_input_embeddings(), model.get_output_embeddings()]
    return list({id(head.weight): head.weight for head in heads if head is not None}.values())


def row_rates(
    matrix: torch.Tensor, new_rows: Sequence[int], recipe: TrainingRecipe, *, rows_first: bool
) -> torch.Tensor:
    """The rate of each row as a multiple of the body's, of shape (V, 1).

    Args:
        matrix: of V rows; the rates lie on its device.
        new_rows: indices of the rows that count as new.
        recipe: their rate and that of the others.
        rows_first: whether this is the part of the run in which the others rest.
    """
    rates_V1 = torch.full(
        (len(matrix), 1),
        0.0 if rows_first else recipe.old_embeddings_lr_scale,
        device=matrix.device,
    )
    rates_V1[list(new_rows)] = recipe.new_embeddings_lr_scale
    return rates_V1


def optimizer_for(
    model: PreTrainedModel, new_rows: Sequence[int], recipe: TrainingRecipe
) -> RowAdamW:
    """AdamW in three groups: matrices, vectors (no decay), embedding rows (no decay, their own
    rates).
    """
    matrices = embedding_matrices(model)
    of_rows = set(map(id, matrices))
    body = [p for p in model.parameters() if id(p) not in of_rows and p.requires_grad]
    groups = [
        {"params": [p for p in body if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in body if p.ndim < 2], "weight_decay": 0.0},
        {"params": matrices, "weight_decay": 0.0, "rows": True},
    ]
    rates_V1 = row_rates(matrices[0], new_rows, recipe, rows_first=False)
    return RowAdamW(groups, rates_V1, lr=recipe.learning_rate, betas=BETAS, fused=True)


class Average:
    """The exponential moving average of the weights that learn.

    It stands in for replayed English to a degree: Elhady et al., arXiv 2506.00288.

    Args:
        model: whose weights are averaged.
        kept: what a step keeps of the average.
    """

    FILE = "average.safetensors"

    def __init__(self, model: PreTrainedModel, kept: float) -> None:
        self._kept = kept
        self._weights = {
            name: weight for name, weight in model.named_parameters() if weight.requires_grad
        }
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        torch._foreach_lerp_(
            list(self._average.values()), list(self._weights.values()), 1 - self._kept
        )

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights to their average."""
        for name, weight in self._weights.items():
            weight.copy_(self._average[name])

    def save(self, folder: Path) -> None:
        """Write the average beside a checkpoint."""
        save_file(self._average, folder / self.FILE)

    def load(self, folder: Path) -> None:
        """Read the average of a checkpoint."""
        for name, value in load_file(folder / self.FILE).items():
            self._average[name].copy_(value)


def add_adapters(model: PreTrainedModel, rank: int) -> None:
    """Freeze the body of a model and give its linear layers adapters of low rank; embedding rows
    still learn.

    Source: LoRA, Hu et al. 2021, arXiv 2106.09685; it learns less and forgets less (arXiv
    2405.09673).

    Args:
        model: changed in place.
        rank: of the adapters.

    Raises:
        ModelError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError(
            "training.lora_rank needs the package peft: pip install 'langadapt[lora]'"
        ) from error
    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, *_transposed_linear())
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module is not head
    ]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), model)
    for matrix in embedding_matrices(model):
        matrix.requires_grad_(True)


def merge_adapters(model: PreTrainedModel) -> None:
    """Add adapters to the weights they sit on, and remove them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _transposed_linear() -> tuple[type, ...]:
    """The linear layer of GPT-2, which keeps its weight the other way round."""
    from transformers.pytorch_utils import Conv1D

    return (Conv1D,)
