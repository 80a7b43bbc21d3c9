"""Continued byte-pair encoding: count the words of a text, then learn merges after the base merges.

Source: Purason et al., arXiv 2512.03989. The parallel Rust code of `tokenizers` counts and learns.
This module renames each base token to one character, so that the trainer, which starts from
characters, starts from base tokens.
"""

import json
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from more_itertools import chunked, constrained_batches, sliced
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ..tokens import Ids

CHUNK = 32_000_000  # characters of text that are counted together
MOST = 40_000_000  # characters of distinct words in memory
LONGEST = 96  # base tokens per word; a longer word is split
BATCH, JOBS = 2_000, 32  # words per text, and texts per call of the Rust code
SEPARATOR, BOUNDARY = "\x00", "\n"  # between words; between tokens that must not merge
# A rival that saves more tokens than both limits comes first, without being ranked.
SURE, SURE_SHARE = 10_000, 1 / 200
FIRST_SYMBOL = 0x21  # first character that a base token is renamed to
SURROGATES = range(0xD800, 0xE000)  # code points that are not characters


Counts = Mapping[str, int]  # of words, tokens or sentences


@dataclass(frozen=True)
class NewToken:
    """A token to add: its spelling in the vocabulary, the two parts of its merge, and its count.

    A character or byte without a base token has no parts. The count is 0 if it is not needed.
    """

    surface: str
    parts: tuple[str, str] | None
    count: int


NewTokens = list[NewToken]


def count_words(tokenizer: Tokenizer, texts: Iterable[str], *, most: int = MOST) -> dict[str, int]:
    """Count the distinct pre-tokens of texts, in the alphabet of the tokenizer's model.

    The texts are streamed. If the distinct words exceed `most` characters, `thin` keeps a sample,
    so that the memory does not depend on the length of the text.

    Args:
        tokenizer: its normaliser and pre-tokenizer are used.
        texts: any number of texts.
        most: characters of distinct words in memory.
    """
    counts: Counter[str] = Counter()
    for chunk in constrained_batches(texts, CHUNK, strict=False):
        counts.update(_count_chunk(tokenizer, chunk))
        if sum(map(len, counts)) > most:
            counts = Counter(thin(counts, most // 2))
    return counts


def thin(counts: Counts, most: int) -> dict[str, int]:
    """Return a sample of counted words that is unbiased for every sum over them.

    A word with count c is kept with probability min(1, c / t), with the count max(c, t). So
    frequent words are always kept. The threshold t is the smallest power of two that leaves at most
    `most` characters. The choice depends only on the word.

    Source: threshold sampling, Duffield, Lund, Thorup 2005, "Learn more, sample less".

    Args:
        counts: words and their counts.
        most: characters to keep.
    """
    threshold, kept = 1, dict(counts)
    while sum(map(len, kept)) > most:
        threshold *= 2
        chosen = ((w, n) for w, n in counts.items() if zlib.crc32(w.encode()) % threshold < n)
        kept = {word: max(count, threshold) for word, count in chosen}
    return kept


def learn_merges(
    base: Tokenizer,
    words: Counts,
    merges: int,
    boundaries: Iterable[int] = (),
    rivals: Sequence[int] = (),
    min_frequency: int = 2,
    longest: int = LONGEST,
    *,
    counted: bool = True,
) -> list[NewToken | None]:
    """Learn merges that continue those of a base vocabulary.

    Other new tokens, such as characters, can be ranked among the merges. Each is a rival, and takes
    part in the training as an invented pair (`_invented_pairs`).

    Args:
        base: a tokenizer with the base model, `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and their counts.
        merges: maximum number, including rivals.
        boundaries: ids that are never part of a merge, such as single bytes of SentencePiece.
        rivals: tokens that each rival saves, in falling order.
        min_frequency: pairs that occur less often are not merged.
        longest: maximum number of base tokens in a new token.
        counted: whether to count the uses of each merge; without, the counts are 0.

    Returns:
        Merges in order of learning. None makes an existing token. None marks the place of the next
        rival.
    """
    pieces, surfaces = _renamed(base, words, set(boundaries))
    limit = max(SURE, SURE_SHARE * sum(len(piece) * count for piece, count in pieces.items()))
    sure = sum(saved > limit for saved in rivals)
    pairs, wanted = _invented_pairs(rivals[sure:], len(surfaces)), max(0, merges - sure)
    size = len(surfaces) + 2 * len(pairs) + wanted
    model = _trained({**pieces, **pairs}, size, min_frequency, longest)
    learned, applied = json.loads(model.to_str())["model"]["merges"][:wanted], Counter[str]()
    if counted:
        learner = Tokenizer(model.model)
        learner.add_special_tokens([SEPARATOR])
        applied = times_applied(token_counts(learner, pieces), learned)
    more = _in_base_tokens(learned, surfaces, set(base.get_vocab()), pairs, applied)
    return [*repeat(None, min(sure, merges)), *more]


def _invented_pairs(savings: Sequence[int], first: int) -> dict[str, int]:
    """Return a pair of symbols for each rival, and the count of the pair for the trainer.

    The count is one more than the rival saves, so that it comes before merges that save as much.

    Example:
        >>> _invented_pairs([40, 7], first=0)
        {'!"': 41, '#$': 8}
    """
    symbols = _symbols(first + np.arange(2 * len(savings)))
    return {symbols[2 * i : 2 * i + 2]: saved + 1 for i, saved in enumerate(savings)}


def _trained(pieces: Counts, size: int, fewest: int, longest: int) -> Tokenizer:
    """Train BPE on pieces with counts."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=fewest, show_progress=False)
    trainer.max_token_length = longest + 1  # it stays below
    learner.train_from_iterator(_repeated(pieces), trainer)
    return learner


def _in_base_tokens(
    learned: Iterable[tuple[str, str]],
    surfaces: Mapping[str, str],
    taken: set[str],
    pairs: Container[str],
    applied: Counts,
) -> Iterator[NewToken | None]:
    """Yield merges of symbols as merges of base tokens, and None for an invented pair.

    A token that already exists is skipped, and so are tokens that build on it.

    Example:
        >>> list(_in_base_tokens([("!", '"')], {"!": "th", '"': "e"}, {"th", "e"}, {}, {'!"': 9}))
        [NewToken(surface='the', parts=('th', 'e'), count=9)]
    """
    table, usable = str.maketrans(dict(surfaces)), set(surfaces)
    for left, right in learned:
        parts = left.translate(table), right.translate(table)
        surface = "".join(parts)
        if left + right in pairs:
            yield None
        elif left in usable and right in usable and surface not in taken:
            taken.add(surface)
            usable.add(left + right)
            yield NewToken(surface, parts, applied[left + right])


def token_counts(model: Tokenizer, words: Counts) -> Counter[str]:
    """Return the count of each token in a text, given as words and their counts.

    Args:
        model: a tokenizer with `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and their counts.
    """
    surfaces = {index: token for token, index in model.get_vocab(with_added_tokens=False).items()}
    separator = model.token_to_id(SEPARATOR)
    totals = np.zeros(max(surfaces, default=0) + 1, dtype=np.int64)
    for batch, ids in _encoded(model, words):
        weights = np.fromiter(map(words.__getitem__, batch), dtype=np.int64, count=len(batch))
        ends = ids == separator
        np.add.at(totals, ids[~ends], weights[np.cumsum(ends)[~ends]])
    return Counter({surfaces[i]: int(totals[i]) for i in np.flatnonzero(totals).tolist()})


def times_applied(counts: Counts, merges: Iterable[tuple[str, str]]) -> Counter[str]:
    """Return the number of uses of each merge, including uses as a part of later merges.

    Args:
        counts: count of each token in a text.
        merges: in order of learning.
    """
    applied = Counter(counts)
    for left, right in reversed(list(merges)):
        applied[left] += applied[left + right]
        applied[right] += applied[left + right]
    return applied


def _encoded(model: Tokenizer, words: Iterable[str]) -> Iterator[tuple[list[str], Ids]]:
    """Yield batches of words with their concatenated ids, separated by the separator's id.

    Words are passed as one long string, which needs no object per word: `["ab", "c"]` becomes
    `"ab\\x00c"` and, with a separator of id 9, `[4, 9, 2]`. Words that contain the separator, a
    null character, are skipped.
    """
    for words_of_jobs in chunked((word for word in words if SEPARATOR not in word), BATCH * JOBS):
        jobs = list(chunked(words_of_jobs, BATCH))
        joined = [SEPARATOR.join(job) for job in jobs]
        encodings = model.encode_batch_fast(joined, add_special_tokens=False)
        for job, encoding in zip(jobs, encodings, strict=True):
            yield job, np.asarray(encoding.ids, np.int64)


def _renamed(base: Tokenizer, words: Counts, boundaries: set[int]) -> tuple[Counts, dict[str, str]]:
    """Return the words with one symbol per base token and their counts, and each symbol's token.

    A base that spells "the" as `th` and `e` gives `{'!"': 9}` and `{'!': 'th', '"': 'e'}`.
    """
    encoded = [(batch, ids.astype(np.uint32)) for batch, ids in _encoded(base, words)]
    vocab = base.get_vocab()
    tokens, separator = {index: token for token, index in vocab.items()}, vocab[SEPARATOR]
    uses = np.zeros(max(tokens) + 1, dtype=np.int64)
    for _, ids in encoded:
        uses += np.bincount(ids, minlength=len(uses))
    uses[[separator, *boundaries]] = 0
    # The most frequent token gets the shortest symbol in UTF-8.
    ranked = np.argsort(-uses, kind="stable")[: np.count_nonzero(uses)]
    alphabet, symbols = _symbols(np.arange(len(ranked))), np.zeros(max(tokens) + 1, dtype="<u4")
    symbols[list(boundaries)] = ord(BOUNDARY)
    symbols[separator] = ord(" ")
    symbols[ranked] = [ord(symbol) for symbol in alphabet]

    pieces: dict[str, int] = {}
    for batch, ids in encoded:
        renamed = symbols[ids].tobytes().decode("utf-32-le").split(" ")
        for word, text in zip(batch, renamed, strict=True):
            for piece in _learnable(text):
                pieces[piece] = pieces.get(piece, 0) + words[word]
    return pieces, {symbol: tokens[i] for symbol, i in zip(alphabet, ranked.tolist(), strict=True)}


def _learnable(text: str) -> list[str]:
    """Split a word at boundaries, and into pieces of at most `LONGEST` symbols.

    Example:
        >>> _learnable(f"ab{BOUNDARY}c"), len(_learnable("a" * (LONGEST + 1)))
        (['ab', 'c'], 2)
    """
    if len(text) <= LONGEST and BOUNDARY not in text:
        return [text]
    return [piece for run in text.split(BOUNDARY) for piece in sliced(run, LONGEST)]


def _symbols(ranks: Ids) -> str:
    """Return the characters for the most frequent token, the second, and so on.

    Example:
        >>> _symbols(np.arange(3))
        '!"#'
    """
    points = FIRST_SYMBOL + ranks
    points = points + (points >= SURROGATES.start) * len(SURROGATES)
    return points.astype("<u4").tobytes().decode("utf-32-le")


def _repeated(pieces: Counts) -> Iterator[str]:
    """Return every piece of two or more symbols as often as its count, in long lines.

    Example:
        >>> list(_repeated({"ab": 2, "c": 5, "de": 1}))
        ['ab ab de']
    """
    pairs = (repeat(piece, count) for piece, count in pieces.items() if len(piece) > 1)
    return map(" ".join, chunked(chain.from_iterable(pairs), BATCH))


def _count_chunk(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, int]:
    """Count words with the Rust trainer of whole words; read the counts from its state."""
    counter = Tokenizer(models.WordLevel())
    counter.normalizer, counter.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trainer = trainers.WordLevelTrainer(show_progress=False)
    counter.train_from_iterator(texts, trainer)
    return dict(json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"])
