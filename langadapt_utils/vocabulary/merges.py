"""Continued byte-pair encoding: count the words of a text, then learn merges on top of a base
vocabulary.

Source of the method: Purason et al., arXiv 2512.03989. Both the counting and the learning run in
the parallel Rust code of `tokenizers`; what is added here is a renaming. Every base token becomes
one character, so that a trainer which starts from characters starts from base tokens.
"""

import json
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ..tokens import chunks

Numbers = npt.NDArray[np.int64]

CHUNK = 32_000_000  # characters of text counted at a time
MOST = 40_000_000  # characters of distinct words that are kept in memory
LONGEST = 96  # base tokens: a longer word is learned in pieces
BATCH, JOBS = 2_000, 32  # words handed to Rust as one text, and texts at a time
SEPARATOR, BOUNDARY = "\x00", "\n"  # between words, and where no merge may cross
# A rival that saves more tokens, and more of all, is not ranked but comes first.
SURE, SURE_SHARE = 10_000, 1 / 200
FIRST_SYMBOL = 0x21  # base tokens are renamed to single characters from here on
SURROGATES = range(0xD800, 0xE000)  # which are no characters


@dataclass(frozen=True)
class NewToken:
    """A token to add: its surface, the two tokens whose merge makes it, and how often that happened
    in a text.

    A character or byte that the base has no token for has no parts. The count is 0 where nothing
    depends on it.
    """

    surface: str
    parts: tuple[str, str] | None
    count: int


def count_words(tokenizer: Tokenizer, texts: Iterable[str], *, most: int = MOST) -> dict[str, int]:
    """Count the distinct pre-tokens of a text, in the alphabet of the tokenizer's model.

    The text is read once, as a stream. Where the distinct words outgrow `most`, they are thinned as
    in `thin`, so that memory has a bound that does not depend on the length of the text.

    Args:
        tokenizer: gives the normaliser and the pre-tokenizer.
        texts: any number of texts.
        most: characters of distinct words to keep in memory.
    """
    counts: Counter[str] = Counter()
    for chunk in chunks(texts, CHUNK):
        counts.update(_count_chunk(tokenizer, chunk))
        if sum(map(len, counts)) > most:
            counts = Counter(thin(counts, most // 2))
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
) -> list[NewToken | None]:
    """Learn merges that continue those of a base vocabulary.

    Tokens that are made otherwise, such as characters, can be ranked among the merges: each is a
    rival that takes part in the training as an invented pair (`_invented_pairs`).

    Args:
        base: a tokenizer with the base model, `SEPARATOR` as a special token and no pre-tokenizer.
        words: pre-tokens and how often each occurs.
        merges: how many to learn at most, rivals included.
        min_frequency: pairs that occur less often are not merged.
        longest: base tokens that a new token is made of at most.
        boundaries: ids that are never part of a merge, such as single bytes of SentencePiece.
        rivals: how many tokens each of the tokens made otherwise saves, in falling order.
        counted: count how often each merge was applied; else the counts are 0, which is faster.

    Returns:
        Merges in order of learning, none of which makes a token that exists already; None where the
        next rival stands.
    """
    pieces, surfaces = _renamed(base, words, set(boundaries))
    limit = max(SURE, SURE_SHARE * sum(len(piece) * count for piece, count in pieces.items()))
    sure = sum(saved > limit for saved in rivals)
    pairs = _invented_pairs(rivals[sure:], len(surfaces))
    wanted = max(0, merges - sure)
    size = len(surfaces) + 2 * len(pairs) + wanted
    model = _trained({**pieces, **pairs}, size, min_frequency, longest)
    learned = json.loads(model.to_str())["model"]["merges"][:wanted]
    applied = Counter[str]()
    if counted:
        learner = Tokenizer(model.model)
        learner.add_special_tokens([SEPARATOR])
        applied = times_applied(token_counts(learner, pieces), learned)
    more = _in_base_tokens(learned, surfaces, set(base.get_vocab()), pairs, applied)
    return [*repeat(None, min(sure, merges)), *more]


def _invented_pairs(savings: Sequence[int], first: int) -> dict[str, int]:
    """Return a pair of symbols for each rival, and how often the trainer is to see it.

    One more than the rival saves: so it comes before every merge that saves as much.

    Example:
        >>> _invented_pairs([40, 7], first=0)
        {'!"': 41, '#$': 8}
    """
    symbols = _symbols(first + np.arange(2 * len(savings)))
    return {symbols[2 * i : 2 * i + 2]: saved + 1 for i, saved in enumerate(savings)}


def _trained(pieces: Mapping[str, int], size: int, min_frequency: int, longest: int) -> Tokenizer:
    """Train BPE on pieces that occur some number of times each."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        max_token_length=longest + 1,  # the trainer stays below it
        show_progress=False,
    )
    learner.train_from_iterator(_repeated(pieces), trainer)
    return learner


def _in_base_tokens(
    learned: Iterable[tuple[str, str]],
    surfaces: Mapping[str, str],
    taken: set[str],
    pairs: Container[str],
    applied: Mapping[str, int],
) -> list[NewToken | None]:
    """Return merges of symbols as merges of base tokens, None for an invented pair.

    A surface that exists already is not learned again, nor is a token that would build on it.

    Example:
        >>> _in_base_tokens([("!", '"')], {"!": "th", '"': "e"}, {"th", "e"}, {}, {'!"': 9})
        [NewToken(surface='the', parts=('th', 'e'), count=9)]
    """
    table, usable = str.maketrans(dict(surfaces)), set(surfaces)
    kept: list[NewToken | None] = []
    for left, right in learned:
        if left + right in pairs:
            kept.append(None)
            continue
        parts = left.translate(table), right.translate(table)
        surface = "".join(parts)
        if left in usable and right in usable and surface not in taken:
            taken.add(surface)
            usable.add(left + right)
            kept.append(NewToken(surface, parts, applied[left + right]))
    return kept


def token_counts(model: Tokenizer, words: Mapping[str, int]) -> Counter[str]:
    """Return how often each token stands in a text that is given as words and their counts.

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
    used = np.flatnonzero(totals).tolist()
    return Counter({surfaces[index]: int(totals[index]) for index in used})


def times_applied(counts: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> Counter[str]:
    """Return how often each merge is applied, also as a step on the way to a later one.

    Args:
        counts: how often each token stands in a text.
        merges: in order of learning.
    """
    applied = Counter(counts)
    for left, right in reversed(list(merges)):
        applied[left] += applied[left + right]
        applied[right] += applied[left + right]
    return applied


def _encoded(model: Tokenizer, words: Iterable[str]) -> Iterator[tuple[list[str], Numbers]]:
    """Yield batches of words and all their ids in a row, the separator's id between words.

    Words are handed over as one long string, which spares an object for each: `["ab", "c"]` becomes
    `"ab\\x00c"` and, with a separator of id 9, `[4, 9, 2]`. Words that hold the separator itself, a
    null character, are left out.
    """
    for words_of_jobs in batches((word for word in words if SEPARATOR not in word), BATCH * JOBS):
        jobs = list(batches(words_of_jobs, BATCH))
        joined = [SEPARATOR.join(job) for job in jobs]
        encodings = model.encode_batch_fast(joined, add_special_tokens=False)
        for job, encoding in zip(jobs, encodings, strict=True):
            yield job, np.asarray(encoding.ids, np.int64)


def _renamed(
    base: Tokenizer, words: Mapping[str, int], boundaries: set[int]
) -> tuple[dict[str, int], dict[str, str]]:
    """Write words with one symbol per base token; return them counted, and each symbol's token.

    A base that spells "the" as `th` and `e` gives `{'!"': 9}` and `{'!': 'th', '"': 'e'}`.
    """
    encoded = [(batch, ids.astype(np.uint32)) for batch, ids in _encoded(base, words)]
    tokens = {index: token for token, index in base.get_vocab().items()}
    separator = base.get_vocab()[SEPARATOR]
    uses = np.zeros(max(tokens) + 1, dtype=np.int64)
    for _, ids in encoded:
        uses += np.bincount(ids, minlength=len(uses))
    uses[[separator, *boundaries]] = 0
    # The most frequent token gets the shortest symbol in UTF-8.
    ranked = np.argsort(-uses, kind="stable")[: np.count_nonzero(uses)]
    alphabet = _symbols(np.arange(len(ranked)))
    symbols = np.zeros(max(tokens) + 1, dtype="<u4")
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
    """Cut a word where no merge may cross, and into pieces that are not too long.

    Example:
        >>> _learnable(f"ab{BOUNDARY}c"), len(_learnable("a" * (LONGEST + 1)))
        (['ab', 'c'], 2)
    """
    if len(text) <= LONGEST and BOUNDARY not in text:
        return [text]
    runs = text.split(BOUNDARY)
    return [run[i : i + LONGEST] for run in runs for i in range(0, len(run), LONGEST)]


def _symbols(ranks: Numbers) -> str:
    """Return the characters that stand for the most, the second most, … frequent token.

    Example:
        >>> _symbols(np.arange(3))
        '!"#'
    """
    points = FIRST_SYMBOL + ranks
    points = points + (points >= SURROGATES.start) * len(SURROGATES)
    return points.astype("<u4").tobytes().decode("utf-32-le")


def _repeated(pieces: Mapping[str, int]) -> Iterator[str]:
    """Return every piece that holds a pair as often as it was counted, in long lines.

    Example:
        >>> list(_repeated({"ab": 2, "c": 5, "de": 1}))
        ['ab ab de']
    """
    pairs = (repeat(piece, count) for piece, count in pieces.items() if len(piece) > 1)
    return map(" ".join, batches(chain.from_iterable(pairs), BATCH))


def _count_chunk(tokenizer: Tokenizer, texts: list[str]) -> dict[str, int]:
    """Let the Rust trainer of whole words count, and read the counts from its state."""
    counter = Tokenizer(models.WordLevel())
    counter.normalizer, counter.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trainer = trainers.WordLevelTrainer(show_progress=False)
    counter.train_from_iterator(texts, trainer)
    return dict(json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"])


def batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Items in lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
