"""The likelihood of texts and of continuations, in bits, for any tokenizer.

Axes: B sequences, E ends of them, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import hardware
from ..errors import CorpusError
from ..intervals import Interval, ratio
from ..models import longest_context
from ..tokens import byte_lengths, document_start

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..intervals import Numbers

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
    """Negative log-likelihood of each text in bits, every byte of it scored once.

    The start of a document stands before each text and is not scored. A text longer than the window
    is read in windows
    that overlap, so that what is scored always has context: from the beginning of the text, or
    `context_bytes` bytes, which are the same for every tokenizer, or half a window where that is
    less.
    """
    start, sizes = document_start(tokenizer), byte_lengths(tokenizer)
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    window = min(window_tokens, longest_context(model))
    pieces = [
        piece
        for unit, ids in enumerate(encoded)
        for piece in _windows(unit, [start, *ids], sizes, window, context_bytes)
    ]
    return _bits(model, pieces, len(texts))


def continuation_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Sequence[str],
    continuations: Sequence[str],
) -> Numbers:
    """Negative log-likelihood in bits of each continuation after its context.

    The two are encoded together, as running text, and the tokens of the continuation are scored.
    Where a token lies across the border, as where there are no spaces, it is the bits of both
    together less those of the context alone.
    """
    start = document_start(tokenizer)
    whole = [
        context + continuation
        for context, continuation in zip(contexts, continuations, strict=True)
    ]
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    pieces, across = [], []
    for unit, (ids, offsets, context) in enumerate(
        zip(encoded["input_ids"], encoded["offset_mapping"], contexts, strict=True)
    ):
        end_of_context = len(context.rstrip())
        first = next(index for index, (_, end) in enumerate(offsets) if end > end_of_context)
        if offsets[first][0] < end_of_context:
            first = 0
            across.append(unit)
        pieces.append(_Piece(unit, [start, *ids], first + 1))
    bits = _bits_after_contexts(model, pieces)
    if across:
        alone = sorted({contexts[unit] for unit in across})
        encoded = tokenizer(alone, add_special_tokens=False)["input_ids"]
        spent = _bits(
            model, [_Piece(unit, [start, *ids], 1) for unit, ids in enumerate(encoded)], len(alone)
        )
        bits[across] -= [spent[alone.index(contexts[unit])] for unit in across]
    return bits


def _windows(
    unit: int, ids: list[int], sizes: npt.NDArray[np.int64], window: int, context_bytes: int
) -> Iterator[_Piece]:
    yield _Piece(unit, ids[:window], 1)
    before = np.concatenate([[0], np.cumsum(sizes[ids])])  # bytes before each token
    scored = window
    while scored < len(ids):
        enough = int(np.searchsorted(before, before[scored] - context_bytes, side="right")) - 1
        begin = max(enough, scored - window // 2, 0)
        yield _Piece(unit, ids[begin : begin + window], scored - begin)
        scored = begin + window


def _bits(model: PreTrainedModel, pieces: Sequence[_Piece], units: int) -> Numbers:
    hardware.keep_freed_memory()
    precision = hardware.native_precision()
    can_skip = "logits_to_keep" in inspect.signature(model.forward).parameters
    totals = np.zeros(units)
    for batch in _batches_by_length(pieces):
        width = max(len(piece.ids) for piece in batch)
        # Padding on the right is invisible to a causal model, so that no mask is needed.
        ids_BT = torch.tensor(
            [piece.ids + [0] * (width - len(piece.ids)) for piece in batch], device=model.device
        )
        # Where only the ends are scored, as in evaluation items, logits of the beginnings
        # are not made.
        begin = min(piece.first for piece in batch) - 1 if can_skip else 0
        options = {"logits_to_keep": width - begin} if can_skip else {}
        with torch.no_grad(), hardware.autocast(precision, model.device.type):
            logits_BTV = model(input_ids=ids_BT, use_cache=False, **options).logits
        for row, piece in enumerate(batch):
            targets = ids_BT[row, piece.first : len(piece.ids)]
            logits_TV = logits_BTV[
                row, piece.first - 1 - begin : len(piece.ids) - 1 - begin
            ].float()
            loss = torch.nn.functional.cross_entropy(logits_TV, targets, reduction="sum")
            totals[piece.unit] += loss.item() / math.log(2)
    return totals


def _bits_after_contexts(model: PreTrainedModel, pieces: Sequence[_Piece]) -> Numbers:
    """Bits of the scored ends of pieces; a beginning that equally many of them share is read
    once.
    """
    groups: dict[tuple[int, ...], list[_Piece]] = defaultdict(list)
    for piece in pieces:
        groups[tuple(piece.ids[: piece.first])].append(piece)
    sizes = {len(group) for group in groups.values()}
    needed = {"position_ids", "past_key_values", "logits_to_keep"}
    shared = (
        sizes != {1} and len(sizes) == 1 and min(map(len, groups)) > 1
    )  # more than the start of a document
    if not (shared and needed <= inspect.signature(model.forward).parameters.keys()):
        return _bits(model, pieces, len(pieces))
    members, totals = list(groups.values()), np.zeros(len(pieces))
    for batch in _batches_by_length(
        [_Piece(place, list(ids), 1) for place, ids in enumerate(groups)]
    ):
        ends = [piece for context in batch for piece in members[context.unit]]
        totals[[piece.unit for piece in ends]] = _bits_of_ends(
            model, [context.ids for context in batch], ends
        )
    return totals


def _bits_of_ends(
    model: PreTrainedModel, contexts: Sequence[list[int]], ends: Sequence[_Piece]
) -> Numbers:
    """Bits of the ends of pieces, as many after each context, from keys and values of the
    contexts.
    """
    device, each = model.device, len(ends) // len(contexts)
    sizes_B = torch.tensor([len(ids) for ids in contexts])
    width, begin = int(sizes_B.max()), int(sizes_B.min()) - 1
    ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids in contexts], device=device)
    mask_BT = (torch.arange(width) < sizes_B[:, None]).long()
    scored = [piece.ids[piece.first :] for piece in ends]
    longest = max(map(len, scored))
    targets_ET = torch.tensor([ids + [0] * (longest - len(ids)) for ids in scored], device=device)
    with torch.no_grad(), hardware.autocast(hardware.native_precision(), device.type):
        read = model(
            ids_BT, attention_mask=mask_BT.to(device), use_cache=True, logits_to_keep=width - begin
        )
        last_BV = read.logits[torch.arange(len(contexts)), sizes_B - 1 - begin]
        logits_ETV = last_BV.repeat_interleave(each, dim=0)[:, None]
        if longest > 1:
            read.past_key_values.batch_repeat_interleave(each)
            sizes_E = sizes_B.repeat_interleave(each)
            seen_ET = torch.cat(
                [mask_BT.repeat_interleave(each, dim=0), torch.ones(len(ends), longest - 1).long()],
                1,
            )
            rest = model(
                targets_ET[:, :-1],
                attention_mask=seen_ET.to(device),
                position_ids=(sizes_E[:, None] + torch.arange(longest - 1)).to(device),
                past_key_values=read.past_key_values,
            )
            logits_ETV = torch.cat([logits_ETV, rest.logits], dim=1)
    losses_ET = torch.nn.functional.cross_entropy(
        logits_ETV.float().transpose(1, 2), targets_ET, reduction="none"
    )
    counted_ET = torch.arange(longest) < torch.tensor([len(ids) for ids in scored])[:, None]
    bits: Numbers = (losses_ET.cpu().double() * counted_ET).sum(dim=1).numpy() / math.log(2)
    return bits


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
    """Total negative log-likelihood of texts in bits over their UTF-8 bytes, with a 95 % interval
    over texts.

    The bytes are the same for every tokenizer, so that models with different vocabularies can be
    compared; never compare it across languages.

    Raises:
        CorpusError: there is no text.
    """
    if not texts or not any(texts):
        raise CorpusError("bits per byte need at least one text that is not empty: give some")
    bits = document_bits(model, tokenizer, texts, window_tokens=window_tokens)
    sizes = np.array([len(text.encode()) for text in texts])
    return ratio(bits, sizes, resamples=resamples)
