"""How far the adapted model is from the base, and what speed a user gains.

Axes: T tokens, V rows that both models have.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .. import hardware
from ..models import Base, longest_context
from ..tokens import document_start
from ..vocabulary.change import VocabularyChange

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LAYER = re.compile(r"\.(\d+)\.")


def kl_divergence(
    base: PreTrainedModel,
    adapted: PreTrainedModel,
    change: VocabularyChange,
    base_tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    tokens: int = 256,
) -> pd.DataFrame:
    """How far the next-token distributions of the adapted model are from those of the base, over
    shared tokens.

    The Kullback-Leibler divergence from the base's distribution to the adapted model's, after both
    are cut to the tokens that both have. Texts that the two tokenizers cut differently are left
    out.

    Args:
        base: the base model.
        adapted: the adapted model, on the same device.
        change: says which rows are shared.
        base_tokenizer: of the base.
        texts: usually English.
        tokens: of each text, at most.

    Returns:
        A row a text that both cut alike: `text`, its place; `bits`, summed over its places;
            `tokens`, how many.
    """
    new = torch.tensor(sorted(change.new_to_old), device=base.device)
    old = torch.tensor(
        [change.new_to_old[index] for index in sorted(change.new_to_old)], device=base.device
    )
    renamed = {before: after for after, before in change.new_to_old.items()}
    precision, rows = hardware.native_precision(), []
    for place, text in enumerate(texts):
        ids = [
            document_start(base_tokenizer),
            *base_tokenizer(text, add_special_tokens=False)["input_ids"],
        ][:tokens]
        other = change.tokenizer(text, add_special_tokens=False)["input_ids"]
        other = [document_start(change.tokenizer), *other][:tokens]
        if other != [renamed.get(index) for index in ids] or len(ids) < 2:
            continue
        with torch.no_grad(), hardware.autocast(precision, base.device.type):
            before_TV = (
                base(torch.tensor([ids], device=base.device))
                .logits[0, :, old]
                .float()
                .log_softmax(dim=-1)
            )
            after_TV = (
                adapted(torch.tensor([other], device=base.device))
                .logits[0, :, new]
                .float()
                .log_softmax(dim=-1)
            )
        nats = (before_TV.exp() * (before_TV - after_TV)).sum(dim=-1)[1:].sum().item()
        rows.append([place, nats / np.log(2), len(ids) - 1])
    return pd.DataFrame(rows, columns=["text", "bits", "tokens"])


def weight_drift(
    start: PreTrainedModel, end: PreTrainedModel, change: VocabularyChange
) -> pd.DataFrame:
    """How far weights moved, as a share of their length, by layer and part.

    Args:
        start: the base model.
        end: the adapted model.
        change: says which embedding rows the base has too; new rows do not count.

    Returns:
        A row a part of a layer: `layer` (-1 outside of the layers), `part`, `drift` (norm of the
        difference over the norm before).
    """
    new, old = (
        sorted(change.new_to_old),
        [change.new_to_old[index] for index in sorted(change.new_to_old)],
    )
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
    rows = [
        [layer, part, (moved / size) ** 0.5 if size else 0.0]
        for (layer, part), (moved, size) in squares.items()
    ]
    return pd.DataFrame(rows, columns=["layer", "part", "drift"]).sort_values(
        ["layer", "part"], ignore_index=True
    )


PROMPT = 400  # characters of a request
ROUNDS = 3  # of each measurement; the median counts


def measure_gains(
    models: Mapping[str, Base], texts: Sequence[str], *, new_tokens: int = 32
) -> pd.DataFrame:
    """Characters per second and per token, before and after.

    Speed is that of greedy generation with a cache after a request of 400 characters; models take
    turns, and the median of three rounds counts.

    Args:
        models: by name, the base first.
        texts: of the target language; the first is the request.
        new_tokens: to generate.

    Returns:
        A row a model: `characters_per_token`; `tokens_of_a_request`, of 400 characters;
        `context_in_characters`; `tokens_per_second` and `characters_per_second` of generation;
        `seconds_per_million_characters`; `megabytes`, of weights in bfloat16;
        `cache_megabytes_per_million_characters`, of keys and values in bfloat16.
    """
    characters = sum(map(len, texts))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, bundle in models.items():
            seconds[name].append(_generation_seconds(bundle, texts[0][:PROMPT], new_tokens))
    rows = []
    for name, bundle in models.items():
        each = characters / sum(
            map(len, bundle.tokenizer(list(texts), add_special_tokens=False)["input_ids"])
        )
        speed = new_tokens / sorted(seconds[name])[ROUNDS // 2]
        rows.append(
            {
                "model": name,
                "characters_per_token": each,
                "tokens_of_a_request": round(PROMPT / each),
                "context_in_characters": round(longest_context(bundle.model) * each),
                "tokens_per_second": speed,
                "characters_per_second": speed * each,
                "seconds_per_million_characters": 1e6 / (speed * each),
                "megabytes": 2 * bundle.model.num_parameters() / 1e6,
                "cache_megabytes_per_million_characters": _cache_bytes(bundle.model) / each,
            }
        )
    return pd.DataFrame(rows)


def _cache_bytes(model: PreTrainedModel) -> int:
    """Of the keys and values of a token, in bfloat16."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(
        2
        * 2
        * config.num_hidden_layers
        * (getattr(config, "num_key_value_heads", None) or heads)
        * width
    )


def _generation_seconds(bundle: Base, prompt: str, new_tokens: int) -> float:
    """How long it takes to write a number of tokens after a prompt that has been read."""
    model = bundle.model.to(hardware.device())
    ids = [
        document_start(bundle.tokenizer),
        *bundle.tokenizer(prompt, add_special_tokens=False)["input_ids"],
    ]
    ids_BT = torch.tensor([ids[-longest_context(model) + new_tokens + 1 :]], device=model.device)
    with torch.no_grad(), hardware.autocast(hardware.native_precision(), model.device.type):
        output = model(ids_BT, use_cache=True)
        begin = time.perf_counter()
        for _ in range(new_tokens):
            token = output.logits[:, -1:].argmax(dim=-1)
            output = model(token, past_key_values=output.past_key_values, use_cache=True)
        output.logits.sum().item()  # waits for the GPU
        seconds = time.perf_counter() - begin
    model.to("cpu")
    return seconds
