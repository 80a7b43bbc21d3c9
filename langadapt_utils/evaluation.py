"""Measuring language models: bits per byte and evaluation items, for any tokenizer.

Axes: B sequences, E ends of them, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from . import hardware
from .corpus.corpus import Corpus
from .corpus.documents import at_most_of_each_source
from .corpus.items import CLOZE_OPTIONS, ITEM_KINDS, OPTIONS, PATTERNS, item_options, load_items, pattern_items
from .errors import CorpusError
from .intervals import Estimate, ratio
from .languages import NO_LANGUAGE, language_name, scripts_of
from .models import Base, longest_context
from .recipe import EvaluationRecipe
from .scores import CONTROL, Scores
from .tokens import byte_lengths, document_start

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .intervals import Numbers

BATCH_TOKENS = 2_048  # of one forward pass
CHANCE = {"choice": 1 / 2, "cloze": 1 / CLOZE_OPTIONS, "pairs": 1 / 2, **dict.fromkeys(PATTERNS, 1 / OPTIONS)}
BEGINNING = 400  # characters of documents in other languages than English and the target
SAMPLES = 2  # prompts of each language


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

    The start of a document stands before each text and is not scored. A text longer than the window is read in windows
    that overlap, so that what is scored always has context: from the beginning of the text, or `context_bytes`
    bytes, which are the same for every tokenizer, or half a window where that is less.
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
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, contexts: Sequence[str], continuations: Sequence[str]
) -> Numbers:
    """Negative log-likelihood in bits of each continuation after its context.

    The two are encoded together, as running text, and the tokens of the continuation are scored. Where a token lies
    across the border, as where there are no spaces, it is the bits of both together less those of the context alone.
    """
    start = document_start(tokenizer)
    whole = [context + continuation for context, continuation in zip(contexts, continuations, strict=True)]
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
        spent = _bits(model, [_Piece(unit, [start, *ids], 1) for unit, ids in enumerate(encoded)], len(alone))
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
        ids_BT = torch.tensor([piece.ids + [0] * (width - len(piece.ids)) for piece in batch], device=model.device)
        # Where only the ends are scored, as in evaluation items, logits of the beginnings are not made.
        begin = min(piece.first for piece in batch) - 1 if can_skip else 0
        options = {"logits_to_keep": width - begin} if can_skip else {}
        with torch.no_grad(), hardware.autocast(precision, model.device.type):
            logits_BTV = model(input_ids=ids_BT, use_cache=False, **options).logits
        for row, piece in enumerate(batch):
            targets = ids_BT[row, piece.first : len(piece.ids)]
            logits_TV = logits_BTV[row, piece.first - 1 - begin : len(piece.ids) - 1 - begin].float()
            loss = torch.nn.functional.cross_entropy(logits_TV, targets, reduction="sum")
            totals[piece.unit] += loss.item() / math.log(2)
    return totals


def _bits_after_contexts(model: PreTrainedModel, pieces: Sequence[_Piece]) -> Numbers:
    """Bits of the scored ends of pieces; a beginning that equally many of them share is read once."""
    groups: dict[tuple[int, ...], list[_Piece]] = defaultdict(list)
    for piece in pieces:
        groups[tuple(piece.ids[: piece.first])].append(piece)
    sizes = {len(group) for group in groups.values()}
    needed = {"position_ids", "past_key_values", "logits_to_keep"}
    shared = sizes != {1} and len(sizes) == 1 and min(map(len, groups)) > 1  # more than the start of a document
    if not (shared and needed <= inspect.signature(model.forward).parameters.keys()):
        return _bits(model, pieces, len(pieces))
    members, totals = list(groups.values()), np.zeros(len(pieces))
    for batch in _batches_by_length([_Piece(place, list(ids), 1) for place, ids in enumerate(groups)]):
        ends = [piece for context in batch for piece in members[context.unit]]
        totals[[piece.unit for piece in ends]] = _bits_of_ends(model, [context.ids for context in batch], ends)
    return totals


def _bits_of_ends(model: PreTrainedModel, contexts: Sequence[list[int]], ends: Sequence[_Piece]) -> Numbers:
    """Bits of the ends of pieces, as many after each context, from keys and values of the contexts."""
    device, each = model.device, len(ends) // len(contexts)
    sizes_B = torch.tensor([len(ids) for ids in contexts])
    width, begin = int(sizes_B.max()), int(sizes_B.min()) - 1
    ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids in contexts], device=device)
    mask_BT = (torch.arange(width) < sizes_B[:, None]).long()
    scored = [piece.ids[piece.first :] for piece in ends]
    longest = max(map(len, scored))
    targets_ET = torch.tensor([ids + [0] * (longest - len(ids)) for ids in scored], device=device)
    with torch.no_grad(), hardware.autocast(hardware.native_precision(), device.type):
        read = model(ids_BT, attention_mask=mask_BT.to(device), use_cache=True, logits_to_keep=width - begin)
        last_BV = read.logits[torch.arange(len(contexts)), sizes_B - 1 - begin]
        logits_ETV = last_BV.repeat_interleave(each, dim=0)[:, None]
        if longest > 1:
            read.past_key_values.batch_repeat_interleave(each)
            sizes_E = sizes_B.repeat_interleave(each)
            seen_ET = torch.cat([mask_BT.repeat_interleave(each, dim=0), torch.ones(len(ends), longest - 1).long()], 1)
            rest = model(
                targets_ET[:, :-1],
                attention_mask=seen_ET.to(device),
                position_ids=(sizes_E[:, None] + torch.arange(longest - 1)).to(device),
                past_key_values=read.past_key_values,
            )
            logits_ETV = torch.cat([logits_ETV, rest.logits], dim=1)
    losses_ET = torch.nn.functional.cross_entropy(logits_ETV.float().transpose(1, 2), targets_ET, reduction="none")
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
) -> Estimate:
    """Total negative log-likelihood of texts in bits over their UTF-8 bytes, with a 95 % interval over texts.

    The bytes are the same for every tokenizer, so that models with different vocabularies can be compared;
    never compare it across languages.

    Raises:
        CorpusError: there is no text.
    """
    if not texts or not any(texts):
        raise CorpusError("bits per byte need at least one text that is not empty: give some")
    bits = document_bits(model, tokenizer, texts, window_tokens=window_tokens)
    sizes = np.array([len(text.encode()) for text in texts])
    return ratio(bits, sizes, resamples=resamples)


def score_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: str,
    items: Sequence[dict[str, Any]],
    language: str,
) -> list[bool]:
    """Which evaluation items a model gets right, by likelihood.

    Args:
        model: to be asked.
        tokenizer: the model's.
        kind: `choice`: the likelier of two stories, the choice read before its premise where it is the
            cause (bits per byte of what comes second); `cloze`: the last word against those of three other
            items (bits per byte of the word); `pairs`: the grammatical sentence against the other (bits);
            `copying`, `mapping` and `counting`: the number that the context asks for (bits).
        items: as `load_items` gives them.
        language: Thai writes no space between the parts.
    """
    options = [item_options(kind, items, place, language) for place in range(len(items))]
    answers = [item.get("label", 0) for item in items]
    flat = [option for group in options for option in group]
    bits = continuation_bits(model, tokenizer, [context for context, _ in flat], [text for _, text in flat])
    if kind in ("choice", "cloze"):
        bits = bits / np.array([len(text.encode()) for _, text in flat])
    width = len(options[0])
    return [bool(right) for right in bits.reshape(-1, width).argmin(axis=1) == np.array(answers)]


def evaluate(
    models: Mapping[str, Base],
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    report: Callable[[str], None] = lambda step: None,
) -> Scores:
    """Measure models on the same held-out documents, evaluation items and prompts.

    Args:
        models: by name, the base first and the adapted model last. One between them named `control` is measured on
            English documents alone.
        corpus: its `heldout` part is used, and the beginnings of some documents of `others`.
        recipe: how much of it.
        report: called with what is being measured.
    """
    documents, items, samples = [], [], []
    read = {code: at_most_of_each_source(part, recipe.documents) for code, part in corpus.heldout.items()}
    for code, part in corpus.others.items():
        rows = at_most_of_each_source(part, recipe.other_documents)
        read[code] = [row | {"text": row["text"][:BEGINNING]} for row in rows]
    asked = [(code, kind, load_items(kind, code)[: recipe.items]) for code in corpus.heldout for kind in ITEM_KINDS]
    asked += [(NO_LANGUAGE, kind, pattern_items(kind, math.ceil(recipe.items / len(PATTERNS)))) for kind in PATTERNS]
    asked = [(code, kind, chosen) for code, kind, chosen in asked if chosen]
    for name, bundle in models.items():
        model, tokenizer = bundle.model.to(hardware.device()), bundle.tokenizer
        for language in ["en"] if name == CONTROL else read:
            report(f"{name}: {language_name(language)} documents")
            documents += _document_rows(name, model, tokenizer, read[language], language, recipe.window_tokens)
        for language, kind, chosen in [] if name == CONTROL else asked:
            report(f"{name}: {language_name(language)} {kind} items")
            items += _answers(name, model, tokenizer, kind, chosen, language)
        for language in [] if name == CONTROL else corpus.heldout:
            report(f"{name}: {language_name(language)} samples")
            for row in read[language][:SAMPLES]:
                prompt = opening(row["text"])
                text = generate(model, tokenizer, prompt, recipe.new_tokens)
                sample = {"model": name, "language": language, "prompt": prompt, "text": text}
                samples.append(sample | text_quality(text, like=row["text"]))
        model.to("cpu")
    return Scores(
        list(models), corpus.language, pd.DataFrame(documents), pd.DataFrame(items), samples, recipe.resamples
    )


def _document_rows(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Mapping[str, Any]],
    language: str,
    window_tokens: int,
) -> list[dict[str, Any]]:
    bits = document_bits(model, tokenizer, [row["text"] for row in rows], window_tokens=window_tokens)
    return [
        {"model": name, "language": language, "source": row["source"], "domain": row["domain"], "id": row["id"]}
        | {"bits": float(b), "bytes": len(row["text"].encode())}
        for row, b in zip(rows, bits, strict=True)
    ]


def _answers(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: str,
    items: Sequence[dict[str, Any]],
    language: str,
) -> list[dict[str, Any]]:
    right = score_items(model, tokenizer, kind, items, language)
    return [
        {"model": name, "language": language, "kind": kind, "id": item["id"], "correct": bool(ok)}
        | {"chance": CHANCE[kind]}
        for item, ok in zip(items, right, strict=True)
    ]


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, new_tokens: int) -> str:
    """Continue a prompt greedily, without repeating three tokens in a row."""
    ids = [document_start(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    inputs = torch.tensor([ids], device=model.device)
    with torch.no_grad(), hardware.autocast(hardware.native_precision(), model.device.type):
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=new_tokens,
            do_sample=False,
            no_repeat_ngram_size=3,
            pad_token_id=ids[0],
        )
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))


def text_quality(text: str, *, like: str) -> dict[str, float]:
    """What can be counted of a generated text: shares from 0 to 1.

    Args:
        text: that a model wrote.
        like: text in the language it should be in.

    Returns:
        `right_script`: of its letters, those in a script that `like` has; `repeated`: of its runs of 8 characters,
        those that were there before; `undecodable`: of its characters, those that stand for bytes that are no text.
    """
    scripts, letters = scripts_of(like), [letter for letter in text if letter.isalpha()]
    runs = [text[begin : begin + 8] for begin in range(len(text) - 7)]
    return {
        "right_script": sum(scripts_of(letter) <= scripts for letter in letters) / len(letters) if letters else 0.0,
        "repeated": 1 - len(set(runs)) / len(runs) if runs else 0.0,
        "undecodable": text.count("\ufffd") / len(text) if text else 0.0,
    }


def opening(text: str, characters: int = 40) -> str:
    """The first words of a text, about as many characters as asked; for prompts."""
    cut = text.find(" ", characters)
    return text[:characters] if cut < 0 or cut > 2 * characters else text[:cut]
