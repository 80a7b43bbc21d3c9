"""English text that the base model writes itself, for users who have none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import torch
from datasets import Dataset

from .. import hardware
from ..corpus.corpus import Corpus
from ..errors import ModelError
from ..files import cache_folder, write_atomically
from ..models import Base, written
from ..recipe import Recipe
from ..sources import base_fingerprint
from ..tokens import document_start, token_ids
from .mixture import english_shares

AT_ONCE = 32  # samples
NUCLEUS = 0.95  # of the probability, from which tokens are drawn


def synthesize_english(
    corpus: Corpus,
    base: Base,
    recipe: Recipe,
    *,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Corpus:
    """Return a corpus whose English training text is written by the base model.

    Held-out English stays as it is. Samples are kept in the cache, and written once per base,
    length and seed.

    Args:
        corpus: its English training text is replaced.
        base: the model that writes.
        recipe: says how much English the run needs; a sample is at most as long as a sequence of
            it.
        seed: of the samples.
        report: called with a line on progress.

    Raises:
        ModelError: the model writes nothing.

    Source: self-synthesised rehearsal, Huang et al. 2024, arXiv 2403.01244.
    """
    length = recipe.mixture.sequence_length
    shares = english_shares(recipe.training.budget_tokens // length, recipe.mixture)
    swept = max(recipe.mixture.sweep, default=0.0) * recipe.mixture.sweep_tokens
    if not (tokens := int(max(shares.sum() * length, swept))):
        return corpus
    key = f"{base_fingerprint(base.source)} {length} {seed} {NUCLEUS}"
    path = cache_folder() / "samples" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    samples: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    while (have := sum(map(len, token_ids(base.tokenizer, samples)))) < tokens:
        report(f"writing English: {have:,} of {tokens:,} tokens")
        if not (texts := _sample(base, length, seed=seed + len(samples))):
            problem = f"{base.source} writes no text by itself"
            raise ModelError(f"{problem}: set mixture.english_from=text")
        samples += texts
        content = json.dumps(samples).encode()
        write_atomically(path, lambda beside, content=content: beside.write_bytes(content))
    about = {"source": f"samples of {base.source}", "domain": "text"}
    documents = [{"id": f"sample-{i}", **about, "text": text} for i, text in enumerate(samples)]
    return replace(corpus, train=corpus.train | {"en": Dataset.from_list(documents)})


def _sample(base: Base, length: int, seed: int) -> list[str]:
    """Return texts that the model writes after nothing but the start of a document."""
    model, start = base.model.to(hardware.device()), document_start(base.tokenizer)
    begin = torch.full((AT_ONCE, 1), start, device=model.device)
    options = {"do_sample": True, "temperature": 1.0, "top_p": NUCLEUS, "top_k": 0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        with hardware.autocast(hardware.native_precision(), model.device.type):
            ids = written(model, begin, max_new_tokens=length, pad_token_id=start, **options)
    model.to("cpu")
    texts = base.tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True)
    return [text for text in texts if text.strip()]
