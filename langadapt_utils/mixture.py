"""What the model sees: documents packed into sequences, the target language and English interleaved."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import Corpus
from .errors import CorpusError
from .recipe import MixtureRecipe
from .tokens import byte_lengths, document_start

if TYPE_CHECKING:
    import numpy.typing as npt
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast


ENCODED_AT_ONCE = 100  # documents; no more are encoded than the run needs


@dataclass(frozen=True)
class Mixture:
    """Sequences in the order of training; a map-style data set for `transformers.Trainer`.

    Attributes:
        blocks: per language, its sequences in order, as token ids of shape (sequences, sequence_length).
        order: language of each sequence of the run.
        passes: per language, how often its documents are gone through.
    """

    blocks: dict[str, npt.NDArray[np.int32]]
    order: list[str]
    passes: dict[str, float]
    byte_lengths: npt.NDArray[np.int64]  # bytes of each token id

    @cached_property
    def _rows(self) -> list[int]:
        """Which of its language's blocks each sequence is."""
        used: Counter[str] = Counter()
        rows = []
        for language in self.order:
            rows.append(used[language])
            used[language] += 1
        return rows

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.blocks[self.order[index]][self._rows[index]].astype(np.int64)
        return {
            "input_ids": ids,
            "bytes": int(self.byte_lengths[ids[1:]].sum()),
            "is_english": self.order[index] == "en",
        }

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return int(next(iter(self.blocks.values())).shape[1])

    def share(self, language: str) -> float:
        """The share of the sequences that are in a language."""
        return self.order.count(language) / len(self.order)


def mix(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: MixtureRecipe, *, budget_tokens: int) -> Mixture:
    """Pack and interleave the training text.

    English sequences are spread evenly, so that every stretch of the run has the same share of them. Small
    corpora are gone through several times, in another order each time.

    Args:
        corpus: its `train` part is used.
        tokenizer: the adapted tokenizer.
        recipe: English share, sequence length, seed.
        budget_tokens: tokens of the whole run, rounded down to whole sequences.
    """
    sequences = budget_tokens // recipe.sequence_length
    if sequences == 0:
        raise CorpusError(
            f"a budget of {budget_tokens} tokens is less than one sequence of {recipe.sequence_length}: "
            "raise training.budget_tokens"
        )
    order = interleave(sequences, recipe.english_share, corpus.language)
    blocks, passes = {}, {}
    for language in sorted(set(order)):
        blocks[language], passes[language] = pack(
            corpus.train[language], tokenizer, order.count(language), recipe.sequence_length, recipe.seed
        )
    return Mixture(blocks, order, passes, byte_lengths(tokenizer))


def interleave(sequences: int, english_share: float, target: str) -> list[str]:
    """The language of each sequence, English spread evenly.

    Example:
        >>> interleave(8, 0.25, "hu")
        ['hu', 'hu', 'hu', 'en', 'hu', 'hu', 'hu', 'en']
    """
    english_so_far = [int(index * english_share + 1e-9) for index in range(sequences + 1)]
    return ["en" if after > before else target for before, after in pairwise(english_so_far)]


def pack(
    documents: Dataset, tokenizer: PreTrainedTokenizerFast, sequences: int, length: int, seed: int
) -> tuple[npt.NDArray[np.int32], float]:
    """Fill sequences with documents end to end, without padding.

    Args:
        documents: a data set with a column `text`.
        tokenizer: what encodes it; a document begins with `document_start`.
        sequences: how many to fill.
        length: tokens of each.
        seed: of the order of the documents.

    Returns:
        Token ids of shape (sequences, length), and how many passes over the documents they took.
    """
    start, texts = document_start(tokenizer), list(documents["text"])
    wanted, stream, size, used = sequences * length, [], 0, 0
    while size < wanted:
        if used % len(texts) == 0:
            order = random.Random(f"{seed} {used // len(texts)}").sample(range(len(texts)), len(texts))
        batch = order[used % len(texts) :][:ENCODED_AT_ONCE]
        for ids in tokenizer([texts[index] for index in batch], add_special_tokens=False)["input_ids"]:
            stream.append(np.asarray([start, *ids], dtype=np.int32))
        used += len(batch)
        size += sum(map(len, stream[-len(batch) :]))
    tokens = np.concatenate(stream)[:wanted]
    return tokens.reshape(sequences, length), used / len(texts) * wanted / size
