"""How far the adapted model is from the base: in its next tokens, and in its weights.

Axes: T tokens, V rows that both models have.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from . import hardware
from .tokens import document_start
from .vocabulary.change import VocabularyChange

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LAYER = re.compile(r"\.(\d+)\.")


def divergence(
    base: PreTrainedModel,
    adapted: PreTrainedModel,
    change: VocabularyChange,
    base_tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    tokens: int = 256,
) -> pd.DataFrame:
    """How far the next-token distributions of the adapted model are from those of the base, over shared tokens.

    The Kullback-Leibler divergence from the base's distribution to the adapted model's, after both are cut to the
    tokens that both have. Texts that the two tokenizers cut differently are left out.

    Args:
        base: the base model.
        adapted: the adapted model, on the same device.
        change: says which rows are shared.
        base_tokenizer: of the base.
        texts: usually English.
        tokens: of each text, at most.

    Returns:
        A row a text that both cut alike: `text`, its place; `bits`, summed over its places; `tokens`, how many.
    """
    new = torch.tensor(sorted(change.kept), device=base.device)
    old = torch.tensor([change.kept[index] for index in sorted(change.kept)], device=base.device)
    renamed = {before: after for after, before in change.kept.items()}
    precision, rows = hardware.native_precision(), []
    for place, text in enumerate(texts):
        ids = [document_start(base_tokenizer), *base_tokenizer(text, add_special_tokens=False)["input_ids"]][:tokens]
        other = change.tokenizer(text, add_special_tokens=False)["input_ids"]
        other = [document_start(change.tokenizer), *other][:tokens]
        if other != [renamed.get(index) for index in ids] or len(ids) < 2:
            continue
        with torch.no_grad(), hardware.autocast(precision, base.device.type):
            before_TV = base(torch.tensor([ids], device=base.device)).logits[0, :, old].float().log_softmax(dim=-1)
            after_TV = adapted(torch.tensor([other], device=base.device)).logits[0, :, new].float().log_softmax(dim=-1)
        nats = (before_TV.exp() * (before_TV - after_TV)).sum(dim=-1)[1:].sum().item()
        rows.append([place, nats / np.log(2), len(ids) - 1])
    return pd.DataFrame(rows, columns=["text", "bits", "tokens"])


def weight_drift(start: PreTrainedModel, end: PreTrainedModel, change: VocabularyChange) -> pd.DataFrame:
    """How far weights moved, as a share of their length, by layer and part.

    Args:
        start: the base model.
        end: the adapted model.
        change: says which embedding rows the base has too; new rows do not count.

    Returns:
        A row a part of a layer: `layer` (-1 outside of the layers), `part`, `drift` (norm of the difference over the
        norm before).
    """
    new, old = sorted(change.kept), [change.kept[index] for index in sorted(change.kept)]
    before = dict(start.named_parameters())
    squares: dict[tuple[int, str], list[float]] = {}
    for name, value in end.named_parameters():
        if name not in before:  # a head of its own, which the base shared
            continue
        a, b = before[name].detach().float().cpu(), value.detach().float().cpu()
        if len(a) != len(b) or len(b) == change.size:
            a, b = a[old], b[new]
        found = LAYER.search(name)
        part = name.split(found.group())[1].split(".")[0] if found else name.rsplit(".", 2)[-2]
        sums = squares.setdefault((int(found.group(1)) if found else -1, part), [0.0, 0.0])
        sums[0] += (b - a).square().sum().item()
        sums[1] += a.square().sum().item()
    rows = [[layer, part, (moved / size) ** 0.5 if size else 0.0] for (layer, part), (moved, size) in squares.items()]
    return pd.DataFrame(rows, columns=["layer", "part", "drift"]).sort_values(["layer", "part"], ignore_index=True)
