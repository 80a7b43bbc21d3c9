"""The loss of each language in a micro-batch, and what makes a model faster on a GPU without
changing it.

Axes: B sequences, T tokens of a sequence, D dimensions of a hidden state.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED = -100  # a target that does not count
SAME = 0.01  # of the largest logit: by how much two ways to the same logits may differ


def language_losses(
    model: PreTrainedModel,
    ids_BT: torch.Tensor,
    positions_BT: torch.Tensor | None,
    target_sequences: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed cross-entropy, in nats, of the sequences in the target language and of those in
    English.

    Args:
        model: a causal language model, perhaps wrapped for several processes, perhaps with
            `fuse_loss`.
        ids_BT: token ids; sequences in the target language come first.
        positions_BT: of tokens in their documents, which then do not see each other; None where
            they do.
        target_sequences: how many sequences are in the target language.
    """
    targets_BT = shifted_targets(ids_BT, positions_BT)
    given = {"input_ids": ids_BT, "use_cache": False}
    if positions_BT is not None:
        given["position_ids"] = positions_BT
    parts = (slice(0, target_sequences), slice(target_sequences, None))
    if getattr(_unwrapped(model), "langadapt_fused", False):
        target_loss, english_loss = model(**given, targets_BT=targets_BT, parts=parts)
        return target_loss, english_loss
    logits = model(**given).logits
    losses = [
        cross_entropy(
            logits[part].flatten(0, 1).float(),
            targets_BT[part].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        for part in parts
    ]
    return losses[0], losses[1]


def shifted_targets(ids_BT: torch.Tensor, positions_BT: torch.Tensor | None) -> torch.Tensor:
    """What each token should predict: the next one, and nothing across the end of a document."""
    # Shifting the targets, not the logits, saves a copy of the largest tensor there is.
    targets_BT = torch.nn.functional.pad(ids_BT[:, 1:], (0, 1), value=IGNORED)
    if positions_BT is not None:
        ends_BT = torch.nn.functional.pad(positions_BT[:, 1:] == 0, (0, 1), value=True)
        targets_BT = targets_BT.masked_fill(ends_BT, IGNORED)
    return targets_BT


def compile_layers(model: PreTrainedModel) -> bool:
    """Compile the layers of a model one by one, in place: fast to compile, as all are alike.

    Returns:
        Whether the model has a list of layers.
    """
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    if not lists:
        return False
    for layer in max(lists, key=len):
        layer.compile()
    return True


def fuse_loss(model: PreTrainedModel) -> bool:
    """Let a model compute loss from hidden states, a few rows of logits at a time (liger-kernel).

    The forward pass of this object is replaced. Left as it is where liger-kernel is not installed,
    and where the head does more than multiply (bias, scaling, softcapping).

    Source: Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989.

    Returns:
        Whether it was done.
    """
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return False
    if not _head_only_multiplies(model):
        return False
    fused = LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED, reduction="sum")

    def forward(
        self: Any, targets_BT: torch.Tensor, parts: tuple[slice, slice], **inputs: Any
    ) -> list[torch.Tensor]:
        hidden_BTD = self.get_decoder()(**inputs).last_hidden_state
        weight = self.get_output_embeddings().weight
        return [
            fused(
                weight.to(hidden_BTD.dtype),
                hidden_BTD[part].flatten(0, 1),
                targets_BT[part].flatten(),
            )
            if len(hidden_BTD[part])
            else hidden_BTD.sum() * 0
            for part in parts
        ]

    model.forward = MethodType(forward, model)
    model.langadapt_fused = True
    return True


def undo_speedups(model: PreTrainedModel) -> None:
    """Give a model its own forward pass and its own layers again, after `fuse_loss` and
    `compile_layers`.
    """
    model.__dict__.pop("forward", None)
    model.langadapt_fused = False
    for module in model.modules():
        module._compiled_call_impl = None


@torch.no_grad()
def _head_only_multiplies(model: PreTrainedModel) -> bool:
    """Whether logits are hidden states times the rows of the head: no bias, scaling or
    softcapping.
    """
    weight_VD = model.get_output_embeddings().weight
    ids_BT = torch.arange(16, device=weight_VD.device)[None] % len(weight_VD)
    logits = model(input_ids=ids_BT, use_cache=False).logits.float()
    product = (
        model.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state @ weight_VD.T
    ).float()
    return bool((logits - product).abs().max() <= SAME * logits.abs().max())


def _unwrapped(model: Any) -> Any:
    while hasattr(model, "module"):
        model = model.module
    return model
