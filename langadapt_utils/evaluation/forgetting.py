"""Distance of the adapted model from the base, and the gain in speed.

Axes: T tokens, V rows that both models have.
"""

import re
import time
from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
from transformers import PreTrainedModel as Model

from .. import hardware
from ..intervals import ratio
from ..models import Base, Models, longest_context, token_layers
from ..tokens import token_ids
from ..vocabulary.change import VocabularyChange
from .generation import replies


def weight_drift(start: Model, end: Model, change: VocabularyChange) -> pd.DataFrame:
    """Measure how far the weights moved, by layer and part.

    Args:
        start: the base model.
        end: the adapted model.
        change: of the vocabulary; new embeddings do not count.

    Returns:
        One row per part of a layer: `layer` (-1 outside the layers), `part`, `drift` (norm of the
        difference divided by the norm before; 0 where that is 0).
    """
    kept, before = sorted(change.new_to_old), dict(start.named_parameters())
    tables, rows = {id(weight) for layer in token_layers(end) for weight in layer.parameters()}, []
    for name, value in end.named_parameters():
        if name not in before:  # an LM head of its own, which the base shared
            continue
        a, b = before[name].detach().float().cpu(), value.detach().float().cpu()
        if id(value) in tables or len(a) != len(b):
            old = [index for index in kept if index < len(a)]
            a, b = a[old], b[old]
        rows.append([*_place(name), (b - a).square().sum().item(), a.square().sum().item()])
    table = pd.DataFrame(rows, columns=["layer", "part", "moved", "before"])
    table = table.groupby(["layer", "part"], as_index=False).sum()
    # Weights that were all zero have no fraction.
    drift = (table.moved / table.before).pow(0.5).where(table.before > 0, 0.0)
    return table[["layer", "part"]].assign(drift=drift)


def _place(name: str) -> tuple[int, str]:
    """Return layer and part of a parameter; the layer is -1 outside the layers.

    Example:
        >>> _place("model.layers.3.mlp.up_proj.weight"), _place("model.norm.weight")
        ((3, 'mlp'), (-1, 'norm'))
    """
    if not (found := re.search(r"\.(\d+)\.", name)):
        return -1, name.rsplit(".", 2)[-2]
    return int(found[1]), name.split(found[0])[1].split(".")[0]


REQUESTS, PROMPT = 5, 100  # texts that models continue, and characters of each


def measure_gains(models: Models, texts: Sequence[str], *, new_tokens: int = 8) -> pd.DataFrame:
    """Measure characters per token and per second of models, with intervals over texts.

    The speed is that of greedy generation with a cache after the first 100 characters of each of
    five texts: the median of the times from one token to the next. Models take turns.

    Args:
        models: by name, the base first.
        texts: in the target language.
        new_tokens: to generate after each of the five.

    Returns:
        One row per model: `characters_per_token`, an `Interval`; `context_in_characters`;
        `tokens_per_second` and `characters_per_second` of generation, the latter an `Interval`.
    """
    characters = np.array([len(text) for text in texts], dtype=float)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for text, (name, bundle) in product(texts[:REQUESTS], models.items()):
        seconds[name].append(_seconds_per_token(bundle, text[:PROMPT], new_tokens))
    rows = []
    for name, bundle in models.items():
        tokens = np.array([len(ids) for ids in token_ids(bundle.tokenizer, texts)], dtype=float)
        each, per_token = ratio(characters, tokens), np.array(seconds[name])
        # Characters of each text over the seconds that generating all of its tokens would take.
        speed = ratio(characters[:REQUESTS], tokens[:REQUESTS] * per_token)
        context = round(longest_context(bundle.model) * each.value)
        rows.append([name, each, context, 1 / per_token.mean(), speed])
    columns = ["model", "characters_per_token", "context_in_characters", "tokens_per_second"]
    return pd.DataFrame(rows, columns=[*columns, "characters_per_second"])


def _seconds_per_token(bundle: Base, prompt: str, new_tokens: int) -> float:
    """Return the median time from one generated token to the next, without reading the prompt."""
    came: list[float] = []
    clock = SimpleNamespace(put=lambda ids: came.append(time.perf_counter()), end=lambda: None)
    asked = bundle.model.to(hardware.device()), bundle.tokenizer, [prompt], 1 + new_tokens
    replies(*asked, min_new_tokens=1 + new_tokens, do_sample=False, streamer=clock)
    bundle.model.to("cpu")
    return float(np.median(np.diff(came[1:])))  # the first is the prompt
