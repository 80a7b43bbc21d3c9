"""The likelihood of texts and of continuations, in bits, for any tokenizer.

Axes: B sequences, E ends of them, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .. import hardware
from ..errors import CorpusError
from ..intervals import Interval, Numbers, ratio
from ..models import longest_context
from ..tokens import byte_lengths, document_start

BATCH_TOKENS = 2_048  # of one forward pass


@dataclass(frozen=True)
class _Piece:
    """Tokens fed to the model at once, and where among them scoring begins."""

    unit: int
    ids: list[int]
    first: int


def document_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    window_tokens: int = 1_024,
    context_bytes: int = 512,
) -> Numbers:
    """Return the negative log-likelihood of each text in bits, every byte of it scored once.

    The start of a document stands before each text and is not scored. A text longer than the window
    is read in windows that overlap, so that what is scored always has context: from the beginning
    of the text, or `context_bytes` bytes, which are the same for every tokenizer, or half a window
    where that is less.
    """
    start, sizes = document_start(tokenizer), byte_lengths(tokenizer)
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    window = min(window_tokens, longest_context(model))
    pieces: list[_Piece] = []
    for unit, ids in enumerate(encoded):
        pieces += _windows(unit, [start, *ids], sizes, window, context_bytes)
    return _bits(model, pieces, len(texts))


def continuation_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Sequence[str],
    continuations: Sequence[str],
) -> Numbers:
    """Return the negative log-likelihood in bits of each continuation after its context.

    The two are encoded together, as running text, and the tokens of the continuation are scored.
    Where a token lies across the border, as where there are no spaces, the score is the bits of
    both together minus those of the context alone.
    """
    start = document_start(tokenizer)
    whole = [context + more for context, more in zip(contexts, continuations, strict=True)]
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    columns = zip(encoded["input_ids"], encoded["offset_mapping"], contexts, strict=True)
    pieces, across = [], []
    for unit, (ids, offsets, context) in enumerate(columns):
        border = len(context.rstrip())
        first = next(index for index, (_, end) in enumerate(offsets) if end > border)
        if offsets[first][0] < border:
            first = 0
            across.append(unit)
        pieces.append(_Piece(unit, [start, *ids], first + 1))
    bits = _bits(model, pieces, len(pieces))
    if across:
        alone = sorted({contexts[unit] for unit in across})
        encoded = tokenizer(alone, add_special_tokens=False)["input_ids"]
        pieces = [_Piece(unit, [start, *ids], 1) for unit, ids in enumerate(encoded)]
        spent = dict(zip(alone, _bits(model, pieces, len(alone)), strict=True))
        bits[across] -= [spent[contexts[unit]] for unit in across]
    return bits


def _windows(
    unit: int, ids: list[int], sizes: npt.NDArray[np.int64], window: int, context_bytes: int
) -> Iterator[_Piece]:
    """Yield windows of a document that score each of its tokens once."""
    yield _Piece(unit, ids[:window], 1)
    before = np.concatenate([[0], np.cumsum(sizes[ids])])  # bytes before each token
    scored = window
    while scored < len(ids):
        enough = int(np.searchsorted(before, before[scored] - context_bytes, side="right")) - 1
        begin = max(min(enough, scored - 1), scored - window // 2, 0)
        yield _Piece(unit, ids[begin : begin + window], scored - begin)
        scored = begin + window


def _bits(model: PreTrainedModel, pieces: Sequence[_Piece], units: int) -> Numbers:
    """Return the bits of the scored tokens of pieces, summed by unit."""
    hardware.keep_freed_memory()
    precision = hardware.native_precision()
    can_skip = "logits_to_keep" in inspect.signature(model.forward).parameters
    totals = np.zeros(units)
    for batch in _batches_by_length(pieces):
        width = max(len(piece.ids) for piece in batch)
        # Padding on the right is invisible to a causal model, so that no mask is needed.
        padded = [piece.ids + [0] * (width - len(piece.ids)) for piece in batch]
        ids_BT = torch.tensor(padded, device=model.device)
        # Where only the ends are scored, as in evaluation items, the logits of the beginnings are
        # not made.
        begin = min(piece.first for piece in batch) - 1 if can_skip else 0
        options = {"logits_to_keep": width - begin} if can_skip else {}
        with torch.no_grad(), hardware.autocast(precision, model.device.type):
            logits_BTV = model(input_ids=ids_BT, use_cache=False, **options).logits
        for row, piece in enumerate(batch):
            targets = ids_BT[row, piece.first : len(piece.ids)]
            scored = slice(piece.first - 1 - begin, len(piece.ids) - 1 - begin)
            loss = cross_entropy(logits_BTV[row, scored].float(), targets, reduction="sum")
            totals[piece.unit] += loss.item() / math.log(2)
    return totals


def _batches_by_length(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: len(piece.ids)):
        if batch and (len(batch) + 1) * len(piece.ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def bits_per_byte(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    window_tokens: int = 1_024,
    resamples: int = 2_000,
) -> Interval:
    """Return the bits per byte of texts, with a 95 % confidence interval over texts.

    Bits are the negative log-likelihood of the texts, bytes those of their UTF-8.
    They are the same for every tokenizer, so that models with different vocabularies can be
    compared; never compare it across languages.

    Raises:
        CorpusError: there is no text.
    """
    if not texts or not any(texts):
        raise CorpusError("bits per byte need at least one text that is not empty: give some")
    bits = document_bits(model, tokenizer, texts, window_tokens=window_tokens)
    sizes = np.array([len(text.encode()) for text in texts])
    return ratio(bits, sizes, resamples=resamples)
