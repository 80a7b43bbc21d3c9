"""What a user of the adapted model gains beside quality: speed, room and cost, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from . import hardware
from .models import Base, longest_context
from .tokens import document_start

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT = 400  # characters of a request
ROUNDS = 3  # of each measurement; the median counts


def measure_gains(models: Mapping[str, Base], texts: Sequence[str], *, new_tokens: int = 32) -> pd.DataFrame:
    """Characters per second and per token, before and after.

    Speed is that of greedy generation with a cache after a request of 400 characters; models take turns, and the median
    of three rounds counts.

    Args:
        models: by name, the base first.
        texts: of the target language; the first is the request.
        new_tokens: to generate.

    Returns:
        A row a model: `characters_per_token`; `tokens_of_a_request`, of 400 characters; `context_in_characters`;
        `tokens_per_second` and `characters_per_second` of generation; `seconds_per_million_characters`;
        `megabytes`, of weights in bfloat16; `cache_megabytes_per_million_characters`, of keys and values in bfloat16.
    """
    characters = sum(map(len, texts))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, bundle in models.items():
            seconds[name].append(_generation_seconds(bundle, texts[0][:PROMPT], new_tokens))
    rows = []
    for name, bundle in models.items():
        each = characters / sum(map(len, bundle.tokenizer(list(texts), add_special_tokens=False)["input_ids"]))
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
    return int(2 * 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * width)


def _generation_seconds(bundle: Base, prompt: str, new_tokens: int) -> float:
    """How long it takes to write a number of tokens after a prompt that has been read."""
    model = bundle.model.to(hardware.device())
    ids = [document_start(bundle.tokenizer), *bundle.tokenizer(prompt, add_special_tokens=False)["input_ids"]]
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
