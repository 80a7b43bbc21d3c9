"""The likelihood of texts and continuations in bits, for any tokenizer.

Texts become pieces, and a forward pass reads several pieces. They are padded to one length. Pieces
that share a beginning are read as a tree, which contains the beginning once.

Axes: B sequences, T tokens of a sequence, N tokens whose logits are used, V vocabulary.
"""

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
import transformers
import xxhash
from filelock import FileLock
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel as Model
from transformers import PreTrainedTokenizerFast as Tokenizer

from .. import hardware
from ..errors import CorpusError, ModelError
from ..files import cache_folder, read_json, write_atomically, write_json
from ..intervals import Interval, Numbers, ratio
from ..models import Base, longest_context
from ..tokens import Ids, byte_lengths, document_start, encode_texts, is_byte_level, token_spans
from ..trials import LEAKED, keeps_apart, read, weights_digest

# Tokens and logits per forward pass, unless a single piece has more.
BATCH_TOKENS, TREE_TOKENS, LOGITS = 2_048, 512, 100_000_000
DEEPEST = 448  # tokens of the longest piece in a tree
# Tokens of a sequence up to which eager attention is faster than SDPA on a CPU
# (`benchmarks/evaluation.py`).
EAGER_TOKENS = 512
AT_ONCE = 512  # tokens whose logits are converted to float32 together
Pairs = Sequence[tuple[list[int], list[int]]]  # ids before the scored ids, and the scored ids
Pass = tuple[torch.Tensor, dict[str, Any], list[Any]]  # ids, other inputs, logits of each piece


@dataclass(frozen=True)
class _Piece:
    """Tokens of one sequence, and the index of the first one that is scored."""

    unit: int = field(repr=False)  # `repr` is hashed to find kept bits
    ids: list[int]
    first: int


@dataclass(frozen=True)
class _Read:
    """A tokenized text: ids, the first byte of each, and the number of bytes without a token."""

    ids: list[int]
    starts: Ids
    lost: int


def document_bits(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window_bytes: int = 4_096,
    context_bytes: int = 512,
    names: Sequence[str] = (),
    keep: Path | None = None,
) -> Numbers:
    """Return the negative log-likelihood of each text in bits. Every byte is scored once.

    Each text begins with the start token of a document, which is not scored. A long text is read in
    windows of `window_bytes`. Each window begins `context_bytes` before its first scored byte, so
    every tokenizer has the same context. If a window has more tokens than the context of the model,
    all windows are made smaller (`shared_window`). A byte without a token costs 8 bits.

    Args:
        model: to evaluate.
        tokenizer: of the model.
        texts: of any length.
        window_bytes: UTF-8 bytes per window.
        context_bytes: UTF-8 bytes of context, at most half a window.
        names: of the texts, for error messages.
        keep: file of the model's bits (`kept_bits`). Texts with bits there are not read again; the
            bits of other texts are added.

    Raises:
        ModelError: the likelihood of a text is not finite.
    """
    start, read = document_start(tokenizer), _read(tokenizer, texts)
    window = _fitting(read, longest_context(model), window_bytes)
    context = min(context_bytes, window // 2)
    parts = [list(_windows(unit, start, text, window, context)) for unit, text in enumerate(read)]
    keys = [xxhash.xxh3_128_hexdigest(repr(part).encode()) for part in parts]
    known: dict[str, float] = read_json(keep) if keep and keep.exists() else {}
    new = [unit for unit, key in enumerate(keys) if key not in known]
    names = names or [f"text {unit}" for unit in range(len(texts))]
    bits = _bits(model, [piece for unit in new for piece in parts[unit]], names, shared=False)
    known |= {keys[unit]: float(bits[unit].sum()) for unit in new}
    if keep and new:
        # Other processes measure other documents. Without write access, the bits are not saved.
        with suppress(OSError), FileLock(keep.with_suffix(".lock")):
            known |= read_json(keep) if keep.exists() else {}
            write_atomically(keep, lambda beside: write_json(beside, known))
    return [known[key] for key in keys] + np.array([8.0 * text.lost for text in read])


def shared_window(
    models: Iterable[tuple[Model | Base, Tokenizer]],
    texts: Sequence[str],
    window_bytes: int,
) -> int:
    """Return the largest window, in bytes, that fits the context of all models for these texts."""
    for model, tokenizer in models:
        window_bytes = _fitting(_read(tokenizer, texts), longest_context(model), window_bytes)
    return window_bytes


def _read(tokenizer: Tokenizer, texts: Sequence[str]) -> list[_Read]:
    unknown, model = tokenizer.unk_token_id, tokenizer.backend_tokenizer.model
    dropping = is_byte_level(tokenizer) or getattr(model, "unk_token", "") is None
    sizes, read = byte_lengths(tokenizer), []
    for text in texts:
        spans = token_spans(tokenizer, text)
        ids, starts = [span.id for span in spans], [span.start for span in spans]
        lost = sum(span.end - span.start for span in spans if span.id == unknown)
        if dropping and unknown not in ids:  # bytes that have no token leave no trace
            # Some tokenizers compose accents, which mostly takes fewer bytes.
            whole = min(len(form.encode()) for form in (text, normalize("NFC", text)))
            lost = max(0, whole - int(sizes[ids].sum()))
        read.append(_Read(ids, np.array(starts, dtype=np.int64), lost))
    return read


def _fitting(read: Sequence[_Read], longest: int, window_bytes: int) -> int:
    """Halve a window until every window of the texts fits the context."""
    while window_bytes > 1 and any(_densest(text.starts, window_bytes) >= longest for text in read):
        window_bytes //= 2
    return window_bytes


def _densest(starts: Ids, window_bytes: int) -> int:
    """Return the maximum number of tokens that begin within a window.

    Example:
        >>> _densest(np.array([0, 4, 5, 6, 12]), 3)
        3
    """
    ends = np.searchsorted(starts, starts + window_bytes)
    return int((ends - np.arange(len(starts))).max(initial=0))


def continuation_bits(
    model: Model, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> Numbers:
    """Return the negative log-likelihood in bits of each continuation after its context.

    Context and continuation are encoded together, as running text, and the tokens of the
    continuation are scored. If a token crosses the border, as in languages without spaces, the
    score is the bits of both together minus those of the context alone.
    """
    start, contexts = document_start(tokenizer), [context for context, _ in pairs]
    whole = [context + continuation for context, continuation in pairs]
    encodings = encode_texts(tokenizer.backend_tokenizer, whole, offsets=True)
    pieces, across = list[_Piece](), list[int]()
    for unit, (encoding, context) in enumerate(zip(encodings, contexts, strict=True)):
        ids, offsets = encoding.ids, encoding.offsets
        border = len(context.rstrip())
        beyond = (index for index, (_, end) in enumerate(offsets) if end > border)
        first = next(beyond, len(ids))  # none where the bytes have no tokens
        if first < len(ids) and offsets[first][0] < border:
            first = 0
            across.append(unit)
        pieces.append(_Piece(unit, [start, *ids], first + 1))
    alone = sorted({contexts[unit] for unit in across})
    encodings = encode_texts(tokenizer.backend_tokenizer, alone)
    pieces += [_Piece(n, [start, *one.ids], 1) for n, one in enumerate(encodings, len(whole))]
    each = _bits(model, pieces, [repr(text) for text in whole + alone], shared=True)
    bits = np.array([of_tokens.sum() for of_tokens in each])
    bits, spent = bits[: len(whole)], dict(zip(alone, bits[len(whole) :], strict=True))
    bits[across] -= [spent[contexts[unit]] for unit in across]
    read = zip(_read(tokenizer, whole), _read(tokenizer, contexts), strict=True)
    return bits + [8.0 * (text.lost - context.lost) for text, context in read]


def token_bits(model: Model, pairs: Pairs) -> list[list[float]]:
    """Return the bits of each token of the second list of ids after the first, for each pair."""
    pieces = [_Piece(n, [*before, *ids], len(before)) for n, (before, ids) in enumerate(pairs)]
    names = [f"answer {unit}" for unit in range(len(pairs))]
    return [bits.tolist() for bits in _bits(model, pieces, names, shared=True)]


def _windows(unit: int, start: int, text: _Read, window: int, context: int) -> Iterator[_Piece]:
    """Yield windows of a document that score each of its tokens once.

    Example:
        Tokens of two bytes, windows of six bytes with two bytes of context:

        >>> text = _Read([1, 2, 3, 4, 5], np.array([0, 2, 4, 6, 8]), 0)
        >>> [(piece.ids, piece.first) for piece in _windows(0, 9, text, 6, 2)]
        [([9, 1, 2, 3], 1), ([3, 4, 5], 1)]
    """
    end = int(np.searchsorted(text.starts, window))
    yield _Piece(unit, [start, *text.ids[:end]], 1)
    scored = window
    while (first := end) < len(text.ids):
        begin = int(np.searchsorted(text.starts, scored - context))
        begin = min(begin, first - 1)  # a token is scored after another one
        scored += window - context
        end = int(np.searchsorted(text.starts, scored))
        if end > first:
            yield _Piece(unit, text.ids[begin:end], first - begin)


def kept_bits(model: Model) -> Path:
    """Return the path of a model's bits in the cache.

    Its name is a hash of weights, configuration, this module, library versions, precision, device,
    and logits of a trial. Make it again after a change of the model.
    """
    code = Path(__file__).read_text("utf-8"), torch.__version__, transformers.__version__
    used = weights_digest(model), model.config, model.device.type, hardware.native_precision()
    with torch.no_grad():  # a trial shows what else changes a model, such as a hook
        trial = read(model, torch.arange(8)[None])[0, -1].float().tolist()
    about = str((code, used, trial)).encode()
    return cache_folder() / "bits" / f"{xxhash.xxh3_128_hexdigest(about)}.json"


def _bits(model: Model, pieces: list[_Piece], names: Sequence[str], shared: bool) -> list[Numbers]:
    """Return the bits of the scored tokens of each unit; units have names. If a unit has several
    pieces, their order is not that of the text.

    Pieces that share beginnings (`shared`) are read as trees, if the model can read them.
    """
    hardware.keep_freed_memory()
    most = LOGITS // model.get_output_embeddings().weight.shape[0]
    args = set(inspect.signature(model.forward).parameters)
    scored, usual = [[np.zeros(0)] for _ in names], model.config._attn_implementation
    switching = usual == "sdpa" and model.device.type == "cpu"
    # Within one context, float32 weights are cast to bfloat16 once, not once per pass.
    with torch.no_grad(), hardware.autocast(hardware.native_precision(), model.device.type):
        fit = shared and all(len(piece.ids) <= DEEPEST for piece in pieces)
        in_trees = fit and _reads_trees(model, args)
        together = _tree if in_trees else partial(_padded, skips="logits_to_keep" in args)
        for group in _groups(pieces, in_trees, most):
            ids_BT, inputs, places = together(group)
            if switching:
                model.set_attn_implementation(usual if ids_BT.shape[1] > EAGER_TOKENS else "eager")
            logits_NV = read(model, ids_BT, **inputs).flatten(0, 1)
            for piece, place in zip(group, places, strict=True):
                targets = torch.tensor(piece.ids[piece.first :], dtype=torch.long)
                scored[piece.unit].append(_spent(logits_NV[place], targets.to(model.device)))
            del logits_NV  # frees memory for the next logits
    if switching:
        model.set_attn_implementation(usual)
    units = list(map(np.concatenate, scored))
    for name, bits in zip(names, units, strict=True):
        if not np.isfinite(bits).all():
            problem = f"{model.name_or_path} gives {name} a likelihood that is not finite"
            raise ModelError(f"{problem}: train with a lower training.learning_rate, or in float32")
    return units


def _groups(pieces: Sequence[_Piece], in_trees: bool, most: int) -> Iterator[list[_Piece]]:
    """Divide pieces into groups that are read together, of at most `most` tokens."""
    most = min(TREE_TOKENS if in_trees else BATCH_TOKENS, most)
    group: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.ids if in_trees else [len(piece.ids)]):
        size = len(_nodes([*group, piece])[0]) if in_trees else (len(group) + 1) * len(piece.ids)
        if group and size > most:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _padded(pieces: list[_Piece], skips: bool) -> Pass:
    """Return a pass in which each piece is one sequence.

    With `skips`, the logits of tokens that no piece scores are left out.
    """
    width = len(pieces[-1].ids)
    # Padding on the right is invisible to a causal model, so that no mask is needed.
    ids_BT = torch.tensor([piece.ids + [0] * (width - len(piece.ids)) for piece in pieces])
    # Where only the ends are scored, the logits of the beginnings are not made.
    begin, places = (min(piece.first for piece in pieces) - 1 if skips else 0), []
    for row, piece in enumerate(pieces):
        before = row * (width - begin) - begin - 1
        places.append(slice(before + piece.first, before + len(piece.ids)))
    return ids_BT, {"logits_to_keep": width - begin} if skips else {}, places


def _tree(pieces: list[_Piece]) -> Pass:
    """Return a pass in which all pieces are one sequence. A token attends only to the tokens before
    it in its own piece.

    Source: tree attention of Miao et al. 2023, "SpecInfer", arXiv 2305.09781.
    """
    nodes, paths = _nodes(pieces)
    seen_TT = torch.eye(len(nodes), dtype=torch.bool)
    for place, (before, _) in enumerate(nodes):
        if before >= 0:
            seen_TT[place] |= seen_TT[before]
    wanted = [path[piece.first - 1 : -1] for piece, path in zip(pieces, paths, strict=True)]
    kept_N = torch.tensor(sorted({place for part in wanted for place in part}), dtype=torch.long)
    places = [np.searchsorted(kept_N, part) for part in wanted]
    inputs = {"position_ids": seen_TT.sum(1)[None] - 1, "logits_to_keep": kept_N}
    inputs["attention_mask"] = ~seen_TT[None, None] * torch.finfo(torch.bfloat16).min
    return torch.tensor([[token for _, token in nodes]]), inputs, places


def _nodes(pieces: list[_Piece]) -> tuple[dict[tuple[int, int], int], list[list[int]]]:
    """Return the nodes of a tree and the path of each piece through it.

    A node is a token after another node: the index of that node (-1: none) and an id, to its index.

    Example:
        >>> _nodes([_Piece(0, [7, 8], 1), _Piece(1, [7, 9], 1)])
        ({(-1, 7): 0, (0, 8): 1, (0, 9): 2}, [[0, 1], [0, 2]])
    """
    nodes, paths = dict[tuple[int, int], int](), list[list[int]]()
    for piece in pieces:
        path = [-1]
        for token in piece.ids:
            path.append(nodes.setdefault((path[-1], token), len(nodes)))
        paths.append(path[1:])
    return nodes, paths


def _reads_trees(model: Model, args: set[str]) -> bool:
    """Return whether a model reads a piece in a tree as it reads it alone; tested once.

    Args:
        model: to test.
        args: names of the arguments of its forward pass.
    """
    if not {"position_ids", "logits_to_keep"} <= args or longest_context(model) < TREE_TOKENS:
        return False
    if not hasattr(model, "langadapt_trees"):
        rows = model.get_input_embeddings().weight.shape[0]
        ids = torch.linspace(0, rows - 1, TREE_TOKENS).long().tolist()
        side, trials = TREE_TOKENS - DEEPEST, []
        # First, the last piece is as long as any in a tree; then, its beginning is as far away.
        for fork in (DEEPEST - side, side):
            last = ids[:fork] + ids[-side:]
            ids_BT, inputs, _ = _tree([_Piece(0, ids[:-side], 1), _Piece(1, last, 1)])
            inputs["logits_to_keep"] = side
            trials.append(keeps_apart(model, torch.tensor([last]), ids_BT, LEAKED, **inputs))
        model.langadapt_trees = all(trials)
    return bool(model.langadapt_trees)


def _spent(logits_TV: torch.Tensor, ids_T: torch.Tensor) -> Numbers:
    """Return the bits of each token; few logits at once are converted to float32."""
    parts = zip(torch.split(logits_TV, AT_ONCE), torch.split(ids_T, AT_ONCE), strict=True)
    nats = [cross_entropy(logits.float(), ids, reduction="none") for logits, ids in parts]
    return torch.cat(nats).cpu().double().numpy() / math.log(2)


def bits_per_byte(
    model: Model, tokenizer: Tokenizer, texts: Sequence[str], *, window_bytes: int = 4_096
) -> Interval:
    """Return the bits per byte of texts, with a 95 % confidence interval over texts.

    Bits per byte are the negative log2-likelihood of the texts divided by their UTF-8 bytes. They
    can be compared across vocabularies, but not across languages.

    Args:
        model: to evaluate.
        tokenizer: of the model.
        texts: of any length; empty ones do not count.
        window_bytes: UTF-8 bytes per window of a long text.

    Raises:
        CorpusError: there is no text.
        ModelError: the likelihood of a text is not finite.
    """
    if not (texts := [text for text in texts if text]):
        raise CorpusError("bits per byte need text, but all texts are empty: give at least one")
    bits = document_bits(model, tokenizer, texts, window_bytes=window_bytes)
    return ratio(bits, np.array([len(text.encode()) for text in texts]))
