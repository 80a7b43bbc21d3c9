"""What the model sees: documents packed into sequences, target language and English interleaved.

Axes: T tokens of a sequence.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import hardware
from ..corpus.corpus import Corpus
from ..errors import CorpusError, ModelError
from ..files import cache_folder, write_atomically
from ..models import Base
from ..recipe import MixtureRecipe, Recipe
from ..sources import base_fingerprint
from ..tokens import byte_lengths, document_start

if TYPE_CHECKING:
    import numpy.typing as npt
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    Ids = npt.NDArray[np.int64]

SHARD_CHARACTERS = 8_000_000  # of documents that are encoded into one file
ENCODED_AT_ONCE = 500  # documents


@dataclass(frozen=True, eq=False)
class Stream:
    """Documents end to end, again and again, each time in another order, cut into sequences of one
    length.

    Attributes:
        language: of the documents.
        shards: token ids of the documents in their first order, mapped from files.
        begins: where each document begins in the shards put end to end; the last entry is their
            end.
        order: which document of the data set each one is.
        length: T.
        seed: of the orders.
        documents: of the data set; no more of them are encoded than the run needs.
    """

    language: str
    shards: Sequence[npt.NDArray[np.int32]]
    begins: Ids
    order: Ids
    length: int
    seed: int
    documents: int
    _passes: dict[int, tuple[Ids, Ids]] = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        """Of the documents that were encoded."""
        return int(self.begins[-1])

    def passes(self, sequences: int) -> float:
        """How often the documents are seen in a number of sequences."""
        return sequences * self.length / self.tokens * len(self.order) / self.documents

    def sequence(self, index: int) -> tuple[Ids, Ids]:
        """A sequence and the position of each of its tokens in its document, both of shape (T,).

        A document that began in the sequence before counts from zero, as it sees nothing of itself
        there.
        """
        parts, missing = [], self.length
        while missing:
            turn, at = divmod((index + 1) * self.length - missing, self.tokens)
            documents, ends = self._pass(turn)
            place = int(np.searchsorted(ends, at, side="right"))
            left = int(ends[place]) - at  # of this document
            parts.append(
                self._read(int(self.begins[documents[place] + 1]) - left, min(left, missing))
            )
            missing -= len(parts[-1])
        return np.concatenate(parts).astype(np.int64), np.concatenate(
            [np.arange(len(part)) for part in parts]
        )

    def _pass(self, turn: int) -> tuple[Ids, Ids]:
        """The documents of a pass in order, and where each ends; the last two passes are
        remembered.
        """
        if turn not in self._passes:
            documents = np.arange(len(self.order))
            if turn:
                place = np.argsort(self.order)
                documents = place[_shuffled(len(self.order), self.seed, turn)]
            while len(self._passes) > 1:
                del self._passes[next(iter(self._passes))]
            self._passes[turn] = documents, np.cumsum(np.diff(self.begins)[documents])
        return self._passes[turn]

    def _read(self, begin: int, tokens: int) -> npt.NDArray[np.int32]:
        shard = int(np.searchsorted(self._shard_ends, begin, side="right"))
        inside = begin - (int(self._shard_ends[shard]) - len(self.shards[shard]))
        return self.shards[shard][inside : inside + tokens]

    @cached_property
    def _shard_ends(self) -> Ids:
        return np.cumsum([len(shard) for shard in self.shards])


@dataclass(frozen=True)
class Mixture:
    """Sequences in the order of training; a map-style data set for `transformers.Trainer`.

    Attributes:
        streams: by name: `en`, and the target language's code, or `CODE: SOURCE` where sources are
            drawn apart.
        order: name of the stream of each sequence of the run.
        length: tokens of a sequence, T.
        byte_lengths: bytes of each token id.
        separate_documents: whether sequences come with positions that begin anew in every document.
    """

    streams: dict[str, Stream]
    order: list[str]
    length: int
    byte_lengths: Ids
    separate_documents: bool = True

    @cached_property
    def _places(self) -> list[int]:
        """Which of its stream's sequences each sequence is."""
        used = dict.fromkeys(self.streams, -1)
        places = []
        for name in self.order:
            used[name] += 1
            places.append(used[name])
        return places

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sequence: `input_ids` and `position_ids` of shape (T,), its `bytes`, and whether it
        `is_english`.
        """
        stream = self.streams[self.order[index]]
        ids_T, positions_T = stream.sequence(self._places[index])
        scored_T = positions_T > 0 if self.separate_documents else np.arange(self.length) > 0
        item = {
            "input_ids": ids_T,
            "bytes": int(self.byte_lengths[ids_T[scored_T]].sum()),
            "is_english": stream.language == "en",
        }
        return item | ({"position_ids": positions_T} if self.separate_documents else {})

    @property
    def passes(self) -> dict[str, float]:
        """By stream, how often its documents are seen in the run."""
        return {
            name: stream.passes(self.order.count(name)) for name, stream in self.streams.items()
        }

    def only(self, language: str) -> Mixture:
        """The sequences in one language alone: the very same, in the same order."""
        return replace(
            self, order=[name for name in self.order if self.streams[name].language == language]
        )

    def share(self, language: str) -> float:
        """The share of the sequences that are in a language."""
        return sum(self.streams[name].language == language for name in self.order) / len(self.order)


def mix(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    recipe: MixtureRecipe,
    *,
    budget_tokens: int,
    seed: int = 0,
    temperature: float = 1.0,
    early_part: float = 0.1,
) -> Mixture:
    """Pack and interleave the training text.

    Every stretch of the run has the share of English that the schedule gives it, to within one
    sequence. Text is encoded as far as the run needs it, into files of the cache that are found
    again by their content, and read from there; documents that are too few are gone through again
    in another order.

    Args:
        corpus: its `train` part is used.
        tokenizer: the adapted tokenizer.
        recipe: English share and its schedule, sequence length, seed.
        budget_tokens: tokens of the whole run, rounded down to whole sequences.

    Raises:
        CorpusError: the budget is less than one sequence, or a language of the mixture has no text.
    """
    sequences = budget_tokens // recipe.sequence_length
    if sequences == 0:
        raise CorpusError(
            f"a budget of {budget_tokens} tokens is less than one sequence of {recipe.sequence_length}: "
            "raise training.budget_tokens"
        )
    english = english_shares(sequences, recipe, early_part=early_part)
    texts = {"en": corpus.train["en"]}
    shares = {"en": english}
    for name, (documents, share) in _target_sources(corpus, temperature).items():
        texts[name], shares[name] = documents, (1 - english) * share
    order = interleave(shares)
    streams = {
        name: pack(
            texts[name],
            tokenizer,
            tokens=order.count(name) * recipe.sequence_length,
            length=recipe.sequence_length,
            seed=seed,
            language="en" if name == "en" else corpus.language,
        )
        for name in shares
        if name in order
    }
    return Mixture(
        streams, order, recipe.sequence_length, byte_lengths(tokenizer), recipe.separate_documents
    )


def english_shares(
    sequences: int, recipe: MixtureRecipe, *, early_part: float = 0.1
) -> npt.NDArray[np.float64]:
    """The share of English at each sequence of a run.

    Sources: `constant`, Csaki et al., arXiv 2311.05741; `early`, Elhady et al., arXiv 2506.00288;
    `annealed` falls in a straight line, with the share of the recipe as its average.

    Example:
        >>> english_shares(4, MixtureRecipe(english_share=0.25, schedule="annealed")).tolist()
        [0.4375, 0.3125, 0.1875, 0.0625]
    """
    share, progress = recipe.english_share, (np.arange(sequences) + 0.5) / sequences
    if recipe.schedule == "early":
        return np.where(progress < early_part, share, 0.0)
    if recipe.schedule == "annealed":
        first, last = min(1.0, 2 * share), max(0.0, 2 * share - 1)
        return first + (last - first) * progress
    return np.full(sequences, share)


def interleave(shares: Mapping[str, npt.NDArray[np.float64]]) -> list[str]:
    """Which stream each sequence comes from: always the one that is furthest behind its share.

    Args:
        shares: by stream, its share at each sequence; together 1 at every sequence.

    Example:
        >>> interleave({"en": np.full(8, 0.25), "hu": np.full(8, 0.75)})
        ['hu', 'en', 'hu', 'hu', 'hu', 'en', 'hu', 'hu']
    """
    names = list(shares)
    behind_S = np.zeros(len(names))
    order = []
    for share_S in np.stack([shares[name] for name in names], axis=1):
        behind_S += share_S
        chosen = int(np.argmax(np.where(share_S > 0, behind_S, -np.inf)))
        behind_S[chosen] -= 1
        order.append(names[chosen])
    return order


def pack(
    documents: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    *,
    tokens: int,
    length: int,
    seed: int,
    language: str,
) -> Stream:
    """Encode documents until there are enough tokens, or no more documents.

    Args:
        documents: a data set with a column `text`.
        tokenizer: what encodes it; a document begins with `document_start`.
        tokens: how many are needed.
        length: of a sequence.
        seed: of the order of the documents.
        language: of the documents.

    Raises:
        CorpusError: there is no document.
    """
    if len(documents) == 0:
        raise CorpusError(
            f"there is no text in '{language}' to train on: name some, or set its share to 0"
        )
    order = _shuffled(len(documents), seed, 0)
    start, key = document_start(tokenizer), tokenizer.backend_tokenizer.to_str().encode()
    shards, lengths, used, size = [], [], 0, 0
    while size < tokens and used < len(order):
        texts, characters = [], 0
        while used < len(order) and characters < SHARD_CHARACTERS:
            some = documents[order[used : used + ENCODED_AT_ONCE].tolist()]["text"]
            texts += some
            used += len(some)
            characters += sum(map(len, some))
        shard, shard_lengths = _encoded(texts, tokenizer, start, key)
        shards.append(shard)
        lengths.append(shard_lengths)
        size += len(shard)
    begins = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Stream(language, shards, begins, order[: len(begins) - 1], length, seed, len(order))


def _encoded(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, start: int, key: bytes
) -> tuple[npt.NDArray[np.int32], Ids]:
    """Token ids of texts end to end, mapped from a file of the cache, and how many each text
    has.
    """
    digest = hashlib.sha256(key + start.to_bytes(4, "little"))
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    folder = cache_folder() / "tokens"
    ids_path, lengths_path = (
        folder / f"{digest.hexdigest()[:32]}.{kind}.npy" for kind in ("ids", "lengths")
    )
    if not (ids_path.exists() and lengths_path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for begin in range(0, len(texts), ENCODED_AT_ONCE):
            batch = list(texts[begin : begin + ENCODED_AT_ONCE])
            encodings = tokenizer.backend_tokenizer.encode_batch_fast(
                batch, add_special_tokens=False
            )
            parts += [np.asarray([start, *encoding.ids], dtype=np.int32) for encoding in encodings]
        _save(lengths_path, np.asarray([len(part) for part in parts]))
        _save(ids_path, np.concatenate(parts))
    return np.load(ids_path, mmap_mode="r"), np.load(lengths_path)


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    beside = path.with_name(f".{path.name}.{random.getrandbits(32):08x}.npy")
    np.save(beside, array)
    beside.replace(path)


def _target_sources(corpus: Corpus, temperature: float) -> dict[str, tuple[Dataset, float]]:
    """The documents of the target language and their share: together, or by source with shares
    levelled.

    Source: temperature sampling as in multilingual BERT: a source of n bytes is drawn in proportion
    to n^(1/temperature).
    """
    documents = corpus.train[corpus.language]
    sources = list(documents["source"]) if temperature > 1 else []
    if len(set(sources)) < 2:
        return {corpus.language: (documents, 1.0)}
    rows: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for index, (source, text) in enumerate(zip(sources, documents["text"], strict=True)):
        rows.setdefault(source, []).append(index)
        sizes[source] = sizes.get(source, 0) + len(text.encode())
    weights = {source: size ** (1 / temperature) for source, size in sizes.items()}
    total = sum(weights.values())
    return {
        f"{corpus.language}: {source}": (documents.select(rows[source]), weight / total)
        for source, weight in weights.items()
    }


def _shuffled(documents: int, seed: int, turn: int) -> Ids:
    """The order of documents in a pass."""
    return np.asarray(random.Random(f"{seed} {turn}").sample(range(documents), documents))


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
    """A corpus whose English training text is made by the base model; held-out English stays what
    it is.

    Samples are kept in the cache, and made once for a base, a length and a seed.

    Args:
        corpus: whose English training text is replaced.
        base: what writes.
        recipe: says how much English the run needs; a sample is at most as long as a sequence of
            it.
        report: called with a line on progress.

    Raises:
        ModelError: the model writes nothing.

    Source: self-synthesised rehearsal, Huang et al. 2024, arXiv 2403.01244.
    """
    length = recipe.mixture.sequence_length
    shares = english_shares(recipe.training.budget_tokens // length, recipe.mixture)
    swept = max(recipe.mixture.sweep, default=0.0) * recipe.mixture.sweep_tokens
    tokens = int(max(shares.sum() * length, swept))
    if tokens == 0:
        return corpus
    name = hashlib.sha256(
        f"{base_fingerprint(base.source)} {length} {seed} {NUCLEUS}".encode()
    ).hexdigest()[:24]
    path = cache_folder() / "samples" / f"{name}.json"
    samples: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    have = _tokens(base, samples)
    if have < tokens:
        model = base.model.to(hardware.device())
        while have < tokens:
            report(f"writing English: {have:,} of {tokens:,} tokens")
            new = _sample(base, length, seed=seed + len(samples))
            if not new:
                raise ModelError(
                    f"{base.source} writes no text by itself: set mixture.english_from=text"
                )
            samples += new
            have += _tokens(base, new)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps(samples)
            write_atomically(
                path, lambda beside, content=content: beside.write_text(content, encoding="utf-8")
            )
        model.to("cpu")
    return dataclasses.replace(
        corpus, train=corpus.train | {"en": _documents(samples, base.source)}
    )


def _tokens(base: Base, texts: list[str]) -> int:
    return (
        sum(map(len, base.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
    )


def _sample(base: Base, length: int, seed: int) -> list[str]:
    """Texts that the model writes when it is given nothing but the start of a document."""
    start = document_start(base.tokenizer)
    begin = torch.full((AT_ONCE, 1), start, device=base.model.device)
    devices = [base.model.device] if base.model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        precision = hardware.native_precision()
        with hardware.autocast(precision, base.model.device.type):
            written = base.model.generate(
                begin,
                attention_mask=torch.ones_like(begin),
                do_sample=True,
                temperature=1.0,
                top_p=NUCLEUS,
                top_k=0,
                max_new_tokens=length,
                pad_token_id=start,
            )
    texts = base.tokenizer.batch_decode(written[:, 1:], skip_special_tokens=True)
    return [text for text in texts if text.strip()]


def _documents(samples: list[str], source: str) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "id": f"sample-{index}",
                "source": f"samples of {source}",
                "domain": "text",
                "text": text,
            }
            for index, text in enumerate(samples)
        ]
    )
