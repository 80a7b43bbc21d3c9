"""Hashes of models."""

import torch
import xxhash
from transformers import PreTrainedModel


def weights_digest(model: PreTrainedModel) -> str:
    """Return a hash of the saved weights and buffers of a model, with names, shapes and dtypes."""
    digest = xxhash.xxh3_128()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
