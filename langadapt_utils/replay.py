"""English that the user does not have: the base model's own samples stand in for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from . import hardware
from .corpus.corpus import Corpus
from .errors import ModelError
from .files import cache_folder, write_atomically
from .mixture import english_shares
from .models import Base
from .recipe import Recipe
from .sources import base_fingerprint
from .tokens import document_start

if TYPE_CHECKING:
    from datasets import Dataset

AT_ONCE = 32  # samples
NUCLEUS = 0.95  # of the probability, from which tokens are drawn


def with_samples(
    corpus: Corpus, base: Base, recipe: Recipe, *, report: Callable[[str], None] = lambda line: None
) -> Corpus:
    """A corpus whose English training text is made by the base model; held-out English stays what it is.

    Samples are kept in the cache, and made once for a base, a length and a seed.

    Args:
        corpus: whose English training text is replaced.
        base: what writes.
        recipe: says how much English the run needs; a sample is at most as long as a sequence of it.
        report: called with a line on progress.

    Raises:
        ModelError: the model writes nothing.

    Source: self-synthesised rehearsal, Huang et al. 2024, arXiv 2403.01244.
    """
    length, seed = recipe.mixture.sequence_length, recipe.mixture.seed
    shares = english_shares(recipe.training.budget_tokens // length, recipe.mixture)
    swept = max(recipe.mixture.sweep, default=0.0) * recipe.mixture.sweep_tokens
    tokens = int(max(shares.sum() * length, swept))
    if tokens == 0:
        return corpus
    name = hashlib.sha256(f"{base_fingerprint(base.source)} {length} {seed} {NUCLEUS}".encode()).hexdigest()[:24]
    path = cache_folder() / "samples" / f"{name}.json"
    samples: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    have = _tokens(base, samples)
    if have < tokens:
        model = base.model.to(hardware.device())
        while have < tokens:
            report(f"writing English: {have:,} of {tokens:,} tokens")
            new = _sample(base, length, seed=seed + len(samples))
            if not new:
                raise ModelError(f"{base.source} writes no text by itself: set mixture.english_from=text")
            samples += new
            have += _tokens(base, new)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(samples)
            write_atomically(path, lambda beside, content=content: beside.write_text(content, encoding="utf-8"))
        model.to("cpu")
    return dataclasses.replace(corpus, train=corpus.train | {"en": _documents(samples, base.source)})


def _tokens(base: Base, texts: list[str]) -> int:
    return sum(map(len, base.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0


def _sample(base: Base, length: int, seed: int) -> list[str]:
    """Texts that the model writes when it is given nothing but the start of a document."""
    start = document_start(base.tokenizer)
    begin = torch.full((AT_ONCE, 1), start, device=base.model.device)
    devices = [base.model.device] if base.model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        precision = hardware.native_precision()
        with hardware.autocast(precision, base.model.device.type):
            written = base.model.generate(
                begin,
                attention_mask=torch.ones_like(begin),
                do_sample=True,
                temperature=1.0,
                top_p=NUCLEUS,
                top_k=0,
                max_new_tokens=length,
                pad_token_id=start,
            )
    texts = base.tokenizer.batch_decode(written[:, 1:], skip_special_tokens=True)
    return [text for text in texts if text.strip()]


def _documents(samples: list[str], source: str) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {"id": f"sample-{index}", "source": f"samples of {source}", "domain": "text", "text": text}
            for index, text in enumerate(samples)
        ]
    )
