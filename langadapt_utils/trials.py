"""What a model is, by a hash of its weights, and how it uses its inputs, by trials.

Axes: B sequences, T tokens of a sequence, V vocabulary.
"""

from typing import Any

import torch
import xxhash
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import PreTrainedModel as Model

LEAKED = 0.1  # influence of what inputs hide that is only rounding in bfloat16


def read(model: Model, ids_BT: Tensor, **inputs: Any) -> Tensor:
    """Return the logits (B, T, V) of a model that reads sequences without a cache."""
    sent = send_to_device({**inputs, "input_ids": ids_BT, "use_cache": False}, model.device)
    return torch.as_tensor(model(**sent).logits)


@torch.no_grad()
def keeps_apart(
    model: Model, end_BT: Tensor, ids_BT: Tensor, leak: float, last: int = 0, **inputs: Any
) -> bool:
    """Return whether inputs such as positions hide the rest of a sequence from its last tokens.

    Args:
        model: to test.
        end_BT: tokens to compare with. Without `last`, these are the last tokens of `ids_BT` and
            the tokens that they may attend to; the model reads them without `inputs`. With `last`,
            this is a sequence of the same length that differs before its last tokens; the model
            reads it with `inputs`.
        ids_BT: the whole sequence.
        leak: largest influence of the rest that rounding explains, as a fraction of its influence
            without the inputs.
        last: number of last tokens that are compared; by default all of `end_BT`.
        inputs: of the model, such as `position_ids`; `logits_to_keep` is used in all readings.
    """
    kept = {name: inputs[name] for name in inputs if name == "logits_to_keep"}
    try:
        asked = (end_BT, inputs if last else kept), (ids_BT, inputs), (ids_BT, kept)
        alone, apart, mixed = (read(model, ids, **given) for ids, given in asked)
    except Exception:  # models that take no such inputs raise many kinds
        return False
    places = slice(-(last or alone.shape[1]), None)
    leaked, whole = ((x[:, places] - alone[:, places]).abs().max() for x in (apart, mixed))
    return bool(leaked <= leak * whole)


def weights_digest(model: Model) -> str:
    """Return a hash of the saved weights and buffers of a model, with names, shapes and dtypes."""
    digest = xxhash.xxh3_128()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
