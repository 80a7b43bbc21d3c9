"""Continued byte-pair encoding: count the words of a text, then learn merges on top of a base vocabulary.

Source of the method: Purason et al., arXiv 2512.03989. Both the counting and the learning run in the parallel
Rust code of `tokenizers`; what is added here is a renaming. Every base token becomes one character, so that a
trainer which starts from characters starts from base tokens.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Numbers = npt.NDArray[np.int64]

CHUNK = 4_000_000  # characters of text counted at a time
MOST = 40_000_000  # characters of distinct words that are kept in memory
LONGEST = 96  # base tokens: a longer word is learned in pieces
BATCH, JOBS = 2_000, 32  # words handed to Rust as one text, and texts at a time
SEPARATOR, BOUNDARY = "\x00", "\n"  # between words, and where no merge may cross
FIRST_SYMBOL = 0x10000  # base tokens are renamed to single characters from here on

Ids = tuple[int, ...]


class Merge(NamedTuple):
    """A learned merge: each side as the base ids it consists of, and how often it was applied to the text."""

    left: Ids
    right: Ids
    applied: int


def count_words(tokenizer: Tokenizer, texts: Iterable[str], *, most: int = MOST) -> dict[str, int]:
    """Count the distinct pre-tokens of a text, in the alphabet of the tokenizer's model.

    The text is read once, as a stream. Where the distinct words outgrow `most`, they are thinned as in
    `thin`, so that memory has a bound that does not depend on the length of the text.

    Args:
        tokenizer: gives the normaliser and the pre-tokenizer.
        texts: any number of texts.
        most: characters of distinct words to keep in memory.
    """
    counts: dict[str, int] = {}
    for chunk in _chunks(texts, CHUNK):
        for word, count in _count_chunk(tokenizer, chunk).items():
            counts[word] = counts.get(word, 0) + count
        if sum(map(len, counts)) > most:
            counts = thin(counts, most // 2)
    return dict(sorted(counts.items()))


def thin(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Keep a sample of the words that is unbiased for every sum over them, frequent words for certain.

    A word counted c times is kept with probability min(1, c / t) and then counts max(c, t), for the
    smallest threshold t that leaves at most `most` characters. The choice depends on the word alone.
    Source: threshold sampling, Duffield, Lund, Thorup 2005, "Learn more, sample less".

    Args:
        counts: words and how often each occurs.
        most: characters to keep.
    """
    threshold = 1
    kept = dict(counts)
    while sum(map(len, kept)) > most:
        threshold *= 2
        kept = {
            word: max(count, threshold)
            for word, count in counts.items()
            if count >= threshold or zlib.crc32(word.encode()) % threshold < count
        }
    return kept


def learn_merges(
    base: Tokenizer,
    words: Mapping[str, int],
    merges: int,
    *,
    min_frequency: int = 2,
    boundaries: Iterable[int] = (),
) -> list[Merge]:
    """Learn merges that continue those of a base vocabulary.

    Args:
        base: a tokenizer with the base model, `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and how often each occurs.
        merges: how many to learn at most.
        min_frequency: pairs seen less often are not merged.
        boundaries: ids that never become part of a merge, such as those of single bytes of a SentencePiece model.

    Returns:
        Merges in order of learning.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pieces, ids = _renamed(base, words, set(boundaries))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=len(ids) + merges, min_frequency=min_frequency, show_progress=False, special_tokens=[]
    )
    learner.train_from_iterator(_repeated(pieces), trainer)
    learned = json.loads(learner.to_str())["model"]["merges"]

    model = Tokenizer(learner.model)
    model.add_special_tokens([SEPARATOR])
    applied = token_counts(model, pieces)
    for left, right in reversed(learned):
        applied[left] += applied[left + right]
        applied[right] += applied[left + right]

    def restored(symbols: str) -> Ids:
        return tuple(ids[ord(symbol) - FIRST_SYMBOL] for symbol in symbols)

    return [Merge(restored(left), restored(right), applied[left + right]) for left, right in learned]


def token_counts(model: Tokenizer, words: Mapping[str, int]) -> Counter[str]:
    """How often each token stands in a text that is given as words and their counts.

    Args:
        model: a tokenizer with `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and how often each occurs.
    """
    surfaces = {index: token for token, index in model.get_vocab(with_added_tokens=False).items()}
    totals = np.zeros(max(surfaces, default=0) + 1, dtype=np.int64)
    for batch, flat, word_of in _encoded(model, words):
        weights = np.fromiter(map(words.__getitem__, batch), dtype=np.int64, count=len(batch))[word_of]
        np.add.at(totals, flat, weights)
    return Counter({surfaces[index]: int(totals[index]) for index in np.flatnonzero(totals).tolist()})


def _encoded(model: Tokenizer, words: Iterable[str]) -> Iterator[tuple[list[str], Numbers, Numbers]]:
    """Batches of words, all their ids in a row, and for each id the place of its word in the batch.

    Words are handed over as one long string, which spares an object for each of them.
    """
    separator = model.token_to_id(SEPARATOR)
    for many in batches(words, BATCH * JOBS):
        jobs = [many[start : start + BATCH] for start in range(0, len(many), BATCH)]
        joined = [SEPARATOR.join(job) for job in jobs]
        for job, text, encoding in zip(
            jobs, joined, model.encode_batch_fast(joined, add_special_tokens=False), strict=True
        ):
            if text.count(SEPARATOR) == len(job) - 1:
                ids = np.asarray(encoding.ids, dtype=np.int64)
                ends = ids == separator
                yield job, ids[~ends], np.cumsum(ends)[~ends]
            else:  # a word holds the separator itself
                single = [e.ids for e in model.encode_batch_fast(job, add_special_tokens=False)]
                lengths = [len(one) for one in single]
                ids = np.fromiter(chain.from_iterable(single), dtype=np.int64, count=sum(lengths))
                yield job, ids, np.repeat(np.arange(len(job)), lengths)


def _renamed(base: Tokenizer, words: Mapping[str, int], boundaries: set[int]) -> tuple[dict[str, int], list[int]]:
    """Words as strings with one character for each base id, and the ids in order of their characters."""
    place = np.zeros(max(base.get_vocab().values()) + 1, dtype=np.uint32)
    ids: list[int] = []
    pieces: dict[str, int] = {}
    for batch, flat, word_of in _encoded(base, words):
        fresh = [int(i) for i in np.unique(flat[place[flat] == 0])]
        for index in fresh:
            place[index] = ord(BOUNDARY) if index in boundaries else FIRST_SYMBOL + len(ids)
            if index not in boundaries:
                ids.append(index)
        text = place[flat].astype("<u4").tobytes().decode("utf-32-le")
        ends = np.searchsorted(word_of, np.arange(len(batch)), side="right").tolist()
        start = 0
        for word, end in zip(batch, ends, strict=True):
            for run in text[start:end].split(BOUNDARY):
                for at in range(0, len(run), LONGEST):
                    piece = run[at : at + LONGEST]
                    pieces[piece] = pieces.get(piece, 0) + words[word]
            start = end
    return pieces, ids


def _repeated(pieces: Mapping[str, int]) -> Iterator[str]:
    """Every piece as often as it was counted, which is how a trainer is told of counts."""
    line: list[str] = []
    held = 0
    for piece, count in pieces.items():
        while count:
            now = min(count, BATCH - held)
            line.append(" ".join([piece] * now))
            count, held = count - now, held + now
            if held == BATCH:
                yield " ".join(line)
                line, held = [], 0
    yield " ".join(line)


def _count_chunk(tokenizer: Tokenizer, texts: list[str]) -> dict[str, int]:
    """Let the Rust trainer of whole words count, and read the counts from its state."""
    from tokenizers import Tokenizer, models, trainers

    counter = Tokenizer(models.WordLevel())
    if tokenizer.pre_tokenizer is not None:
        counter.pre_tokenizer = tokenizer.pre_tokenizer
    if tokenizer.normalizer is not None:
        counter.normalizer = tokenizer.normalizer
    trainer = trainers.WordLevelTrainer(show_progress=False)
    counter.train_from_iterator(texts, trainer)
    counts: dict[str, int] = json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"]
    return counts


def _chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    held = 0
    for text in texts:
        chunk.append(text)
        held += len(text)
        if held >= size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Items in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
