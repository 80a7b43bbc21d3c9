"""The training mixture: documents packed into sequences, target language and English interleaved.

Axes: T tokens of a sequence, N tokens in general, S streams.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from more_itertools import chunked, constrained_batches
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..chat import CHAT, chat_tokens, messages_of
from ..corpus.corpus import Corpus
from ..errors import CorpusError
from ..files import cache_folder, made_once, trim_cache
from ..intervals import Numbers
from ..recipe import EARLY, MixtureRecipe
from ..tokens import Ids, byte_lengths, document_end, document_start, token_ids

Shard = npt.NDArray[np.int32]  # token ids of some documents
Encode = Callable[[Tokenizer, Sequence[str]], list[list[int]]]

SHARD_CHARACTERS = 8_000_000  # of documents that are encoded into one file
ENCODED_AT_ONCE = 500  # documents
PARTS = ("target", "en", CHAT)  # of a mixture, in their order in a batch


@dataclass(frozen=True, eq=False)
class Stream:
    """Concatenated documents, cut into sequences of one length. Each pass has another order.

    Attributes:
        shards: token ids of the documents, mapped from files; `~id` marks a token without a loss.
        begins: start of each document in the concatenated shards; the last entry is their end.
        visits: indices of the documents in all passes, in order; after the last pass comes the
            first one again.
        length: T.
        documents: number of documents in the data set; only those that the run needs are encoded.
    """

    shards: Sequence[Shard]
    begins: Ids
    visits: Ids
    length: int
    documents: int

    def passes(self, sequences: int) -> float:
        """Return the number of passes over the documents in a number of sequences."""
        documents = len(self.begins) - 1
        return sequences * self.length / int(self.begins[-1]) * documents / self.documents

    @cached_property
    def _starts(self) -> Ids:
        """Start of each visit in the stream; the last entry is the end of the last pass."""
        return np.concatenate([[0], np.cumsum(np.diff(self.begins)[self.visits])])

    def sequence(self, index: int) -> tuple[Ids, Ids]:
        """Return a sequence and the positions of its tokens in their documents, both (T,).

        Positions of a document that began in the previous sequence restart at zero.

        Example:
            Documents [7, 1, 2] and [7, 5] in sequences of four; the second pass begins with [7, 5]:

            >>> ids, begins, visits = np.array([7, 1, 2, 7, 5]), np.array([0, 3, 5]), [0, 1, 1, 0]
            >>> stream = Stream([ids], begins, np.array(visits), length=4, documents=2)
            >>> [stream.sequence(index)[0].tolist() for index in range(2)]
            [[7, 1, 2, 7], [5, 7, 5, 7]]
            >>> stream.sequence(1)[1].tolist()
            [0, 0, 1, 0]
        """
        steps_T = np.arange(self.length)
        places_T = (index * self.length + steps_T) % self._starts[-1]
        nth_T = np.searchsorted(self._starts, places_T, side="right") - 1
        positions_T = places_T - self._starts[nth_T]
        ids_T = self._read(self.begins[self.visits[nth_T]] + positions_T)
        return ids_T, np.minimum(positions_T, steps_T)

    def _read(self, places_N: Ids) -> Ids:
        """Return the token ids at places in the concatenated shards."""
        ends = np.cumsum([len(shard) for shard in self.shards])
        shards_N, ids_N = np.searchsorted(ends, places_N, side="right"), np.empty_like(places_N)
        for index in np.unique(shards_N):
            inside, shard = shards_N == index, self.shards[index]
            ids_N[inside] = shard[places_N[inside] - (ends[index] - len(shard))]
        return ids_N


@dataclass(frozen=True)
class Mixture:
    """Sequences in the order of training; a map-style data set for `transformers.Trainer`.

    Attributes:
        streams: by language: `en` and the code of the target language; `chat` for conversations.
        order: name of the stream of each sequence of the run.
        length: tokens per sequence, T.
        byte_lengths: bytes per token id.
        separate_documents: whether sequences have positions that restart in every document.
    """

    streams: dict[str, Stream]
    order: list[str]
    length: int
    byte_lengths: Ids
    separate_documents: bool = True

    @cached_property
    def _indices(self) -> list[int]:
        """Index of each sequence of the run in its stream."""
        counters = {name: count() for name in self.streams}
        return [next(counters[name]) for name in self.order]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sequence: `input_ids`, `position_ids` and `learned` (whether a token is a
        target), all (T,); the `bytes` of its targets; `part`, its index in `PARTS`.
        """
        name = self.order[index]
        marked_T, positions_T = self.streams[name].sequence(self._indices[index])
        learned_T = marked_T >= 0
        ids_T = np.where(learned_T, marked_T, ~marked_T)
        size = int(self.byte_lengths[ids_T[1:][learned_T[1:]]].sum())
        part = PARTS.index(name) if name in PARTS else 0
        item = {"input_ids": ids_T, "learned": learned_T, "bytes": size, "part": part}
        return item | ({"position_ids": positions_T} if self.separate_documents else {})

    @property
    def passes(self) -> dict[str, float]:
        """Number of passes over the documents of each stream in the run."""
        return {name: s.passes(self.order.count(name)) for name, s in self.streams.items()}

    def only(self, language: str) -> Self:
        """Return the mixture with only the sequences in one language, in the same order."""
        return replace(self, order=[name for name in self.order if name == language])

    def share(self, language: str) -> float:
        """Return the fraction of sequences in a language."""
        return self.order.count(language) / len(self.order)


def mix(
    corpus: Corpus,
    tokenizer: Tokenizer,
    recipe: MixtureRecipe,
    *,
    budget_tokens: int,
    seed: int = 0,
) -> Mixture:
    """Pack the training text into sequences and interleave the languages.

    Every part of the run has the scheduled fraction of English, to within one sequence. Only the
    text that the run needs is encoded; the cache finds encoded text by its content. Documents are
    repeated in another order if there are too few.

    Args:
        corpus: its `train` part is used.
        tokenizer: the adapted tokenizer.
        recipe: fraction of English, its schedule, sequence length.
        budget_tokens: tokens of the run, rounded down to full sequences.
        seed: of the order of the documents.

    Raises:
        RecipeError: the mixture has only English and conversations.
        CorpusError: the budget is less than one sequence, or a part of the mixture has no text.
        ModelError: the mixture has conversations, but the base has no chat template.
    """
    recipe.require_target()
    if budget_tokens < (length := recipe.sequence_length):
        problem = f"a budget of {budget_tokens} tokens is less than one sequence ({length} tokens)"
        raise CorpusError(f"{problem}: raise training.budget_tokens")
    chat = np.full(budget_tokens // length, recipe.chat_share)
    english = np.minimum(english_shares(len(chat), recipe), 1 - chat)
    shares = {"en": english, corpus.language: 1 - english - chat, CHAT: chat}
    order, streams = interleave(shares), {}
    for code in shares:
        if tokens := order.count(code) * length:
            documents = corpus.train[code] if code != CHAT else corpus.chat
            streams[code] = pack(documents, tokenizer, tokens, length, seed, code)
    return Mixture(streams, order, length, byte_lengths(tokenizer), recipe.separate_documents)


def english_shares(sequences: int, recipe: MixtureRecipe) -> Numbers:
    """Return the fraction of English at each sequence of a run.

    Sources: `constant`, Csaki et al., arXiv 2311.05741; `early`, Elhady et al., arXiv 2506.00288.
    `annealed` falls linearly, with the fraction of the recipe as its mean.

    Args:
        sequences: number of sequences of the run.
        recipe: fraction of English and its schedule.

    Example:
        >>> english_shares(4, MixtureRecipe(english_share=0.25, schedule="annealed")).tolist()
        [0.4375, 0.3125, 0.1875, 0.0625]
    """
    share, progress = recipe.english_share, (np.arange(sequences) + 0.5) / sequences
    if recipe.schedule == "early":
        return np.where(progress < EARLY, share, 0.0)
    if recipe.schedule == "annealed":
        first, last = min(1.0, 2 * share), max(0.0, 2 * share - 1)
        return first + (last - first) * progress
    return np.full(sequences, share)


def interleave(shares: Mapping[str, Numbers]) -> list[str]:
    """Return the stream of each sequence: always the stream furthest below its target fraction.

    Args:
        shares: target fractions at each sequence, by stream; they add up to 1.

    Example:
        >>> interleave({"en": np.full(8, 0.25), "hu": np.full(8, 0.75)})
        ['hu', 'en', 'hu', 'hu', 'hu', 'en', 'hu', 'hu']
    """
    names = list(shares)
    behind_S, order = np.zeros(len(names)), []
    for share_S in np.stack([shares[name] for name in names], axis=1):
        behind_S += share_S
        chosen = int(np.argmax(np.where(share_S > 0, behind_S, -np.inf)))
        behind_S[chosen] -= 1
        order.append(names[chosen])
    return order


def pack(
    documents: Dataset, tokenizer: Tokenizer, tokens: int, length: int, seed: int, language: str
) -> Stream:
    """Encode documents until there are enough tokens or no more documents.

    Args:
        documents: a data set with a column `text`.
        tokenizer: a document begins with its `document_start` and ends with its `document_end`, if
            that is another token. Its chat template renders conversations.
        tokens: number of tokens that the run needs.
        length: tokens per sequence.
        seed: of the order of the documents.
        language: of the documents.

    Raises:
        CorpusError: there are no documents.
    """
    if len(documents) == 0:
        problem = f"there is no text in '{language}' to train on"
        raise CorpusError(f"{problem}: add some, or set its fraction of the mixture to 0")
    order = _shuffled(len(documents), seed, 0)
    encode, parts = (_ids_of_chats if language == CHAT else _ids_of_documents), []
    batches = documents.select(order).iter(ENCODED_AT_ONCE)
    texts = (text for batch in batches for text in batch["text"])
    for some in constrained_batches(texts, SHARD_CHARACTERS, strict=False):
        parts.append(_encoded(some, tokenizer, encode))
        if sum(len(ids) for ids, _ in parts) >= tokens:
            break
    shards, lengths = zip(*parts, strict=True)
    begins = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    ranks = np.argsort(order[: len(begins) - 1])  # of the encoded documents, in the data set
    later = [_shuffled(len(ranks), seed, turn) for turn in range(1, -(-tokens // begins[-1]))]
    visits = np.concatenate([np.arange(len(ranks)), *(ranks[turn] for turn in later)])
    return Stream(shards, begins, visits, length, len(order))


def _ids_of_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of documents. The start token is a target if it also ends documents."""
    start, end = document_start(tokenizer), document_end(tokenizer)
    first, last = ([start], []) if end in (start, None) else ([~start], [end])
    return [[*first, *ids, *last] for ids in token_ids(tokenizer, texts)]


def _ids_of_chats(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of conversations; only the assistant's turns are targets."""
    pairs = (chat_tokens(tokenizer, messages_of(text)) for text in texts)
    return [[i if own else ~i for i, own in zip(*pair, strict=True)] for pair in pairs]


def _encoded(texts: Sequence[str], tokenizer: Tokenizer, encode: Encode) -> tuple[Shard, ...]:
    """Return concatenated token ids of texts, mapped from a cache file, and their lengths."""
    about = encode.__name__, tokenizer.chat_template, tokenizer.special_tokens_map
    digest = hashlib.sha256(f"{tokenizer.backend_tokenizer.to_str()} {about}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

    def write(scratch: Path) -> Path:
        trim_cache("tokens")
        batches = (encode(tokenizer, some) for some in chunked(texts, ENCODED_AT_ONCE))
        parts = [np.asarray(ids, dtype=np.int32) for batch in batches for ids in batch]
        whole = np.concatenate([list(map(len, parts)), *parts], dtype=np.int32)
        np.save(scratch / "whole.npy", whole)
        return scratch / "whole.npy"

    path = cache_folder() / "tokens" / f"{digest.hexdigest()[:32]}.npy"
    whole = np.load(made_once(path, write), mmap_mode="r")
    return whole[len(texts) :], whole[: len(texts)]


def _shuffled(documents: int, seed: int, turn: int) -> Ids:
    """Return the order of documents in a pass."""
    return np.asarray(random.Random(f"{seed} {turn}").sample(range(documents), documents))
