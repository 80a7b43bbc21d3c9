"""The loss of each part of a micro-batch, and faster computation of the same loss on a GPU.

Axes: B sequences, T tokens of a sequence, D dimensions of a hidden state.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from .. import hardware
from ..errors import brief
from ..trials import LEAKED, keeps_apart

IGNORED = -100  # target without a loss, torch's default
# Influence between documents that is only rounding, as a fraction of the unmasked one.
EXACT = 1e-4
SAME = 0.01  # largest difference of equal logits, as a fraction of the largest logit


def language_losses(model: PreTrainedModel, batch: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return the summed cross-entropy, in nats, of each part of a micro-batch.

    Args:
        model: a causal language model; may be wrapped for several processes or use `fuse_loss`.
        batch: the micro-batch: `input_ids`, part after part; `position_ids` in their documents,
            which separate the documents, or none if documents attend to each other; `sizes`,
            numbers of sequences per part; `learned`, whether each token is a target, or none if
            all are.
    """
    sizes, targets_BT = batch["sizes"], shifted_targets(batch["input_ids"], batch.get("learned"))
    inputs = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
    # `module`: without what wraps it for several processes.
    if getattr(getattr(model, "module", model), "langadapt_fused", False):
        return list(model(**inputs, use_cache=False, targets_BT=targets_BT, sizes=sizes))
    logits = model(**inputs, use_cache=False).logits.flatten(0, 1).float()
    # All parts at once: to split the logits would copy their gradients.
    losses_BT = cross_entropy(logits, targets_BT.flatten(), reduction="none").view_as(targets_BT)
    return [part.sum() for part in torch.split(losses_BT, sizes)]


def shifted_targets(ids_BT: torch.Tensor, learned_BT: torch.Tensor | None = None) -> torch.Tensor:
    """Return the next token of each token as its target; tokens that are not learned are ignored.

    Example:
        Documents 1 11 2 and 1 21 2 in one sequence, with start token 1 and end token 2:

        >>> ids_BT = torch.tensor([[1, 11, 2, 1, 21, 2]])
        >>> shifted_targets(ids_BT, ids_BT != 1).tolist()
        [[11, 2, -100, 21, 2, -100]]
    """
    # Shifting the targets, not the logits, saves a copy of the largest tensor there is.
    targets_BT = ids_BT if learned_BT is None else ids_BT.masked_fill(~learned_BT, IGNORED)
    return pad(targets_BT[:, 1:], (0, 1), value=IGNORED)


@torch.no_grad()
def keeps_documents_apart(model: PreTrainedModel) -> bool:
    """Return whether a document in a sequence is read the same after any other document.

    Positions that restart separate documents, but not every model supports them.
    """
    flash = "flash" in model.config._attn_implementation
    leak = LEAKED if flash or model.dtype != torch.float32 else EXACT
    ids_BT = 3 + torch.arange(12, device=model.device)[None] % 7
    other_BT = torch.cat([ids_BT[:, 5:10], ids_BT[:, 5:]], dim=1)
    positions_BT = torch.tensor([[*range(5), *range(7)]], device=model.device)
    with hardware.autocast("bfloat16" if flash else "float32", ids_BT.device.type):
        return keeps_apart(model, other_BT, ids_BT, leak, last=7, position_ids=positions_BT)


def compile_layers(model: PreTrainedModel, batch: dict[str, Any], bf16: bool) -> bool | str:
    """Compile the layers of a model in place, one by one, which is fast because they are alike.

    Args:
        model: to change.
        batch: a micro-batch of the training, as other shapes would be compiled again.
        bf16: whether matrices are multiplied in bfloat16 in the training.

    Returns:
        True; False if the model has no layers; or a text that says why the first layer does not
        compile. Then no layer is compiled.
    """
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    if not (layers := max(lists, key=len, default=None)):
        return False
    precision = hardware.autocast("bfloat16" if bf16 else "float32", model.device.type)
    try:
        layers[0].compile()
        with torch.random.fork_rng(), precision:  # dropout stays as without the trial
            losses = language_losses(model.train(), send_to_device(batch, model.device))
        torch.autograd.backward(losses)
    except Exception as error:  # compilers raise many kinds
        layers[0]._compiled_call_impl = None
        return f"no, {brief(error)}"
    finally:
        model.zero_grad()
    for layer in layers[1:]:
        layer.compile()
    return True


@torch.no_grad()
def can_fuse_loss(model: PreTrainedModel) -> bool:
    """Return whether liger-kernel is installed and the LM head is a plain matrix product."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # noqa: F401
    except ImportError:
        return False
    weight_VD = model.get_output_embeddings().weight
    ids_BT = torch.arange(16, device=weight_VD.device)[None] % len(weight_VD)
    logits = model(input_ids=ids_BT, use_cache=False).logits.float()
    try:
        hidden_BTD = model.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
    except (AttributeError, TypeError):  # a decoder of another kind
        return False
    product = (hidden_BTD @ weight_VD.T).float()  # without bias, scaling, softcapping
    return bool((logits - product).abs().max() <= SAME * logits.abs().max())


def fuse_loss(model: PreTrainedModel) -> None:
    """Replace the forward pass of a model: compute the loss from hidden states, block by block.

    The full matrix of logits is never in memory. Check `can_fuse_loss` first.

    Source: Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989.
    """
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    fused = LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED, reduction="sum")

    def forward(self: Any, targets_BT: Any, sizes: Any, **inputs: Any) -> list[Any]:
        hidden_BTD = self.get_decoder()(**inputs).last_hidden_state
        head = self.get_output_embeddings().weight.to(hidden_BTD.dtype)
        nothing = hidden_BTD.sum() * 0  # the loss of no sequences
        parts = zip(torch.split(hidden_BTD, sizes), torch.split(targets_BT, sizes), strict=True)
        return [fused(head, x.flatten(0, 1), y.flatten()) if len(x) else nothing for x, y in parts]

    model.forward, model.langadapt_fused = MethodType(forward, model), True


def undo_speedups(model: PreTrainedModel) -> None:
    """Undo `fuse_loss` and `compile_layers`."""
    model.__dict__.pop("forward", None)
    model.langadapt_fused = False
    for module in model.modules():
        module._compiled_call_impl = None
