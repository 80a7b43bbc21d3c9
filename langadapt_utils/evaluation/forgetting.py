"""Distance of the adapted model from the base, and the gain in speed.

Axes: T tokens, V rows that both models have.
"""

import re
from collections.abc import Mapping, Sequence

import pandas as pd
from transformers import PreTrainedModel

from .. import hardware
from ..models import Base, longest_context, token_layers
from ..tokens import token_ids
from ..vocabulary.change import VocabularyChange
from .generation import reply

LAYER = re.compile(r"\.(\d+)\.")


def weight_drift(
    start: PreTrainedModel, end: PreTrainedModel, change: VocabularyChange
) -> pd.DataFrame:
    """Measure how far the weights moved, by layer and part.

    Args:
        start: the base model.
        end: the adapted model.
        change: of the vocabulary; new embeddings do not count.

    Returns:
        One row per part of a layer: `layer` (-1 outside the layers), `part`, `drift` (norm of the
        difference divided by the norm before).
    """
    kept = sorted(change.new_to_old)
    before = dict(start.named_parameters())
    tables = {id(weight) for layer in token_layers(end) for weight in layer.parameters()}
    squares: dict[tuple[int, str], list[float]] = {}
    for name, value in end.named_parameters():
        if name not in before:  # an LM head of its own, which the base shared
            continue
        a, b = before[name].detach().float().cpu(), value.detach().float().cpu()
        if id(value) in tables or len(a) != len(b):
            old = [index for index in kept if index < len(a)]
            a, b = a[old], b[old]
        sums = squares.setdefault(_place(name), [0.0, 0.0])
        sums[0] += (b - a).square().sum().item()
        sums[1] += a.square().sum().item()
    drifts = [(moved / size) ** 0.5 if size else 0.0 for moved, size in squares.values()]
    table = pd.DataFrame(squares.keys(), columns=["layer", "part"]).assign(drift=drifts)
    return table.sort_values(["layer", "part"], ignore_index=True)


def _place(name: str) -> tuple[int, str]:
    """Return layer and part of a parameter; the layer is -1 outside the layers.

    Example:
        >>> _place("model.layers.3.mlp.up_proj.weight"), _place("model.norm.weight")
        ((3, 'mlp'), (-1, 'norm'))
    """
    found = LAYER.search(name)
    if not found:
        return -1, name.rsplit(".", 2)[-2]
    return int(found[1]), name.split(found[0])[1].split(".")[0]


PROMPT = 400  # characters of a request
ROUNDS = 3  # per measurement; the median is used


def measure_gains(
    models: Mapping[str, Base], texts: Sequence[str], *, new_tokens: int = 32
) -> pd.DataFrame:
    """Measure characters per token and per second of models.

    The speed is that of greedy generation with a cache after a request of 400 characters. Models
    take turns; the median of three rounds is used.

    Args:
        models: by name, the base first.
        texts: in the target language; the first one is the request.
        new_tokens: to generate.

    Returns:
        One row per model: `characters_per_token`; `tokens_of_a_request` (400 characters);
        `context_in_characters`; `tokens_per_second` and `characters_per_second` of generation;
        `seconds_per_million_characters`; `megabytes` of weights in bfloat16.
    """
    characters = sum(map(len, texts))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for name, bundle in list(models.items()) * ROUNDS:
        seconds[name].append(_generation_seconds(bundle, texts[0][:PROMPT], new_tokens))
    rows = []
    for name, bundle in models.items():
        each = characters / sum(map(len, token_ids(bundle.tokenizer, texts)))
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
            }
        )
    return pd.DataFrame(rows)


def _generation_seconds(bundle: Base, prompt: str, new_tokens: int) -> float:
    """Return the seconds to generate tokens, without the time to read the prompt."""
    asked = bundle.model.to(hardware.device()), bundle.tokenizer, prompt
    first = reply(*asked, 1, min_new_tokens=1, do_sample=False).seconds
    size = 1 + new_tokens
    whole = reply(*asked, size, min_new_tokens=size, do_sample=False).seconds
    bundle.model.to("cpu")
    return max(whole - first, 1e-9)
