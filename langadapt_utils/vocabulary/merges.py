"""Continued byte-pair encoding: count the words of a text, then learn merges on top of a base
vocabulary.

Source of the method: Purason et al., arXiv 2512.03989. Both the counting and the learning run in
the parallel Rust code of `tokenizers`; what is added here is a renaming. Every base token becomes
one character, so that a trainer which starts from characters starts from base tokens.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Numbers = npt.NDArray[np.int64]

CHUNK = 32_000_000  # characters of text counted at a time
MOST = 40_000_000  # characters of distinct words that are kept in memory
LONGEST = 96  # base tokens: a longer word is learned in pieces
BATCH, JOBS = 2_000, 32  # words handed to Rust as one text, and texts at a time
SEPARATOR, BOUNDARY = "\x00", "\n"  # between words, and where no merge may cross
SURE, SURE_SHARE = (
    10_000,
    1 / 200,
)  # a rival that saves more tokens, and more of all, is not ranked but comes first
FIRST_SYMBOL = (
    0x21  # base tokens are renamed to single characters from here on, past the separators
)
SURROGATES = range(0xD800, 0xE000)  # which are no characters


class Merge(NamedTuple):
    """A learned merge: its two sides as they are spelled, and how often it was applied to the
    text.
    """

    left: str
    right: str
    applied: int


def count_words(tokenizer: Tokenizer, texts: Iterable[str], *, most: int = MOST) -> dict[str, int]:
    """Count the distinct pre-tokens of a text, in the alphabet of the tokenizer's model.

    The text is read once, as a stream. Where the distinct words outgrow `most`, they are thinned as
    in `thin`, so that memory has a bound that does not depend on the length of the text.

    Args:
        tokenizer: gives the normaliser and the pre-tokenizer.
        texts: any number of texts.
        most: characters of distinct words to keep in memory.
    """
    counts: dict[str, int] = {}
    for chunk in _chunks(texts, CHUNK):
        more = _count_chunk(tokenizer, chunk)
        for word, count in more.items() if counts else ():
            counts[word] = counts.get(word, 0) + count
        counts = counts or more
        if sum(map(len, counts)) > most:
            counts = thin(counts, most // 2)
    return counts


def thin(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Keep a sample of the words that is unbiased for every sum over them, frequent words for
    certain.

    A word counted c times is kept with probability min(1, c / t) and then counts max(c, t), for the
    smallest power of two t that leaves at most `most` characters. The choice depends on the word
    alone.
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
    longest: int = LONGEST,
    boundaries: Iterable[int] = (),
    rivals: Sequence[int] = (),
    counted: bool = True,
) -> list[Merge | None]:
    """Learn merges that continue those of a base vocabulary.

    Tokens that are made otherwise, such as characters, can be ranked among the merges: a rival
    takes part in the training as a pair of two symbols that occurs as often as the rival saves a
    token.

    Args:
        base: a tokenizer with the base model, `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and how often each occurs.
        merges: how many to learn at most, rivals included.
        min_frequency: pairs seen less often are not merged.
        longest: base tokens that a new token is made of at most.
        boundaries: ids that never become part of a merge, such as those of single bytes of a
            SentencePiece model.
        rivals: how many tokens each of the tokens made otherwise saves, in falling order.
        counted: count how often each merge was applied; else the counts are 0, which saves a
            reading.

    Returns:
        Merges in order of learning, none of which makes a token that exists already; None where the
        next rival stands.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pieces, surfaces = _renamed(base, words, set(boundaries))
    limit = max(SURE, SURE_SHARE * sum(len(piece) * count for piece, count in pieces.items()))
    sure = sum(saved > limit for saved in rivals)
    marks = _symbols(len(surfaces) + np.arange(2 * (len(rivals) - sure)))
    # More than any merge that a rival is part of, so that it comes before them.
    duels = {marks[2 * at : 2 * at + 2]: saved + 1 for at, saved in enumerate(rivals[sure:])}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=len(surfaces) + len(marks) + max(0, merges - sure),
        min_frequency=min_frequency,
        max_token_length=longest + 1,  # the trainer stays below it
        show_progress=False,
        special_tokens=[],
    )
    learner.train_from_iterator(chain(_repeated(pieces), _repeated(duels)), trainer)
    learned = json.loads(learner.to_str())["model"]["merges"][: max(0, merges - sure)]
    applied = _applied(Tokenizer(learner.model), pieces, learned) if counted else Counter()

    table = str.maketrans(surfaces)
    taken = set(base.get_vocab())
    usable = set(surfaces)
    kept: list[Merge | None] = [None] * min(sure, merges)
    for left, right in learned:
        if left + right in duels:
            kept.append(None)
            continue
        merge = Merge(left.translate(table), right.translate(table), applied[left + right])
        # A surface that exists already is not learned again, nor is what would build on it.
        if left in usable and right in usable and merge.left + merge.right not in taken:
            taken.add(merge.left + merge.right)
            usable.add(left + right)
            kept.append(merge)
    return kept


def token_counts(model: Tokenizer, words: Mapping[str, int]) -> Counter[str]:
    """How often each token stands in a text that is given as words and their counts.

    Args:
        model: a tokenizer with `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and how often each occurs.
    """
    surfaces = {index: token for token, index in model.get_vocab(with_added_tokens=False).items()}
    separator = model.token_to_id(SEPARATOR)
    totals = np.zeros(max(surfaces, default=0) + 1, dtype=np.int64)
    for batch, ids in _encoded(model, words):
        weights = np.fromiter(map(words.__getitem__, batch), dtype=np.int64, count=len(batch))
        ends = ids == separator
        np.add.at(totals, ids[~ends], weights[np.cumsum(ends)[~ends]])
    return Counter(
        {surfaces[index]: int(totals[index]) for index in np.flatnonzero(totals).tolist()}
    )


def _applied(
    model: Tokenizer, pieces: Mapping[str, int], merges: Iterable[tuple[str, str]]
) -> Counter[str]:
    """How often each merge is applied, also as a step on the way to a later one."""
    model.add_special_tokens([SEPARATOR])
    applied = token_counts(model, pieces)
    for left, right in reversed(list(merges)):
        applied[left] += applied[left + right]
        applied[right] += applied[left + right]
    return applied


def _encoded(model: Tokenizer, words: Iterable[str]) -> Iterator[tuple[list[str], Numbers]]:
    """Batches of words and all their ids in a row, with the id of the separator between words.

    Words are handed over as one long string, which spares an object for each of them.
    """
    separator = model.token_to_id(SEPARATOR)
    for many in batches(words, BATCH * JOBS):
        jobs = [many[start : start + BATCH] for start in range(0, len(many), BATCH)]
        joined = [SEPARATOR.join(job) for job in jobs]
        encodings = model.encode_batch_fast(joined, add_special_tokens=False)
        for job, text, encoding in zip(jobs, joined, encodings, strict=True):
            if text.count(SEPARATOR) == len(job) - 1:
                yield job, np.asarray(encoding.ids, dtype=np.int64)
            else:  # a word holds the separator itself
                single = (e.ids for e in model.encode_batch_fast(job, add_special_tokens=False))
                ids = chain.from_iterable(
                    [*(i for i in one if i != separator), separator] for one in single
                )
                yield job, np.fromiter(ids, dtype=np.int64)[:-1]


def _renamed(
    base: Tokenizer, words: Mapping[str, int], boundaries: set[int]
) -> tuple[dict[str, int], dict[str, str]]:
    """Words as strings with one character for each base token, and the base token of each
    character.

    Frequent ids get characters that are short in UTF-8, which is what the trainer reads.
    """
    encoded = [(batch, ids.astype(np.uint32)) for batch, ids in _encoded(base, words)]
    surfaces = {index: token for token, index in base.get_vocab().items()}
    uses = np.zeros(max(surfaces) + 1, dtype=np.int64)
    for _, ids in encoded:
        uses += np.bincount(ids, minlength=len(uses))
    separator = base.get_vocab()[SEPARATOR]
    uses[[separator, *boundaries]] = 0
    ranked = np.argsort(-uses, kind="stable")[: np.count_nonzero(uses)]
    alphabet = _symbols(np.arange(len(ranked)))
    symbols = np.zeros(len(uses), dtype="<u4")
    symbols[list(boundaries)] = ord(BOUNDARY)
    symbols[separator] = ord(" ")
    symbols[ranked] = [ord(symbol) for symbol in alphabet]

    pieces: dict[str, int] = {}
    for batch, ids in encoded:
        for word, renamed in zip(
            batch, symbols[ids].tobytes().decode("utf-32-le").split(" "), strict=True
        ):
            if len(renamed) <= LONGEST and BOUNDARY not in renamed:
                pieces[renamed] = pieces.get(renamed, 0) + words[word]
                continue
            for run in renamed.split(BOUNDARY):
                for at in range(0, len(run), LONGEST):
                    piece = run[at : at + LONGEST]
                    pieces[piece] = pieces.get(piece, 0) + words[word]
    return pieces, dict(zip(alphabet, map(surfaces.__getitem__, ranked.tolist()), strict=True))


def _symbols(places: Numbers) -> str:
    """The characters that stand for the most, the second most … frequent thing, for some places in
    that order.
    """
    points = FIRST_SYMBOL + places
    return (
        (points + (points >= SURROGATES.start) * len(SURROGATES))
        .astype("<u4")
        .tobytes()
        .decode("utf-32-le")
    )


def _repeated(pieces: Mapping[str, int]) -> Iterator[str]:
    """Every piece with a pair in it, as often as it was counted, which is how a trainer is told of
    counts.
    """
    line: list[str] = []
    held = 0
    for piece, count in pieces.items():
        while count and len(piece) > 1:
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
