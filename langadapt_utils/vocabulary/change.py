"""VocabularyChange: the tokens that an adapted tokenizer gained and lost."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Self

import pandas as pd
import regex
from more_itertools import chunked
from pydantic import ConfigDict, TypeAdapter
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ..files import package_yaml, read_json
from ..models import load_tokenizer, save_tokenizer
from ..tokens import encode_texts, readable

Mode = Literal["extend", "replace"]
BATCH = 1_000  # sentences that are encoded at once
SENTENCE = regex.compile(package_yaml("vocabulary/regex.yaml")["sentence"], regex.V1)


@dataclass(frozen=True)
class Check:
    """One check of an audit: a claim, whether it is true, and counts."""

    claim: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Effect:
    """The effect of a change on text in another language."""

    sentences: int
    changed: int  # sentences with other ids
    tokens_before: int
    tokens_after: int
    protected: float | None = None  # fraction of sentences that had to keep their ids

    @property
    def kept(self) -> float:
        """The fraction of sentences that keep their exact ids."""
        return 1 - self.changed / self.sentences if self.sentences else 1.0


@dataclass(frozen=True)
class ProtectionCost:
    """The effect of protection on the target language, in tokens of its training text."""

    dropped: int  # learned tokens that were dropped
    tokens: int
    tokens_unprotected: int


@dataclass(frozen=True)
class VocabularyChange:
    """A changed tokenizer and its relation to the base.

    New ids belong to the adapted model, old ids to the base. A kept token keeps its id.

    Attributes:
        tokenizer: the changed tokenizer.
        mode: `extend` or `replace`.
        new_to_old: new id to old id.
        added: new id to spelling in the vocabulary, in order of learning.
        removed: old id to spelling in the vocabulary, in order of removal.
        base_pieces: new id to the old ids that spell it, never empty. A byte without a base token
            is spelled by the base's bytes of its kind; an unknown character by the unknown token.
        added_counts: uses of each added token in the target training text.
        lost: uses of each removed token in the reference text.
        unreachable: added ids that no text produces; the audit fails if there are any.
        pattern_repair: pattern of the characters that the repaired word pattern keeps with letters
            or between two letters; empty without repair.
        effects: on other languages, by code.
        protection_cost: effect of protection on the target; None without protection.
        audit: the checks.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # the tokenizer

    tokenizer: PreTrainedTokenizerFast
    mode: Mode
    new_to_old: dict[int, int]
    added: dict[int, str] = field(default_factory=dict)
    removed: dict[int, str] = field(default_factory=dict)
    base_pieces: dict[int, tuple[int, ...]] = field(default_factory=dict)
    added_counts: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    unreachable: tuple[int, ...] = ()
    pattern_repair: str = ""
    effects: dict[str, Effect] = field(default_factory=dict)
    protection_cost: ProtectionCost | None = None
    audit: tuple[Check, ...] = ()

    @property
    def size(self) -> int:
        """Highest id of the adapted tokenizer plus one."""
        return max(*self.new_to_old, *self.added) + 1

    def removed_table(self) -> pd.DataFrame:
        """Return the removed tokens: old id, text, uses in the reference text, new spelling."""
        text, model = partial(readable, self.tokenizer), self.tokenizer.backend_tokenizer.model
        rows = []
        for old, surface in self.removed.items():
            pieces = " ".join(text(token.value) for token in model.tokenize(surface))
            rows.append([old, text(surface), self.lost.get(old, 0), pieces])
        return pd.DataFrame(rows, columns=["id", "token", "uses", "spelled_by"])

    def audit_table(self) -> pd.DataFrame:
        """Return the audit as a table."""
        return pd.DataFrame([asdict(check) for check in self.audit])

    def text(self, new: int) -> str:
        """Return an added token as readable text."""
        return readable(self.tokenizer, self.added[new])

    def base_text(self, old: int) -> str:
        """Return a base token, given by its old id, as readable text."""
        return readable(self.tokenizer, self.removed.get(old, old))

    def save(self, folder: Path) -> None:
        """Write the tokenizer in Hugging Face layout and the change as `change.json`."""
        save_tokenizer(self.tokenizer, Path(folder))
        plain = TypeAdapter(VocabularyChange).dump_json(self, exclude={"tokenizer"})
        Path(folder, "change.json").write_bytes(plain)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        plain = read_json(Path(folder, "change.json")) | {"tokenizer": load_tokenizer(Path(folder))}
        return TypeAdapter(cls).validate_python(plain)


def split_sentences(
    texts: Iterable[str], most: int, *, before: str = "", apart: str = "(?!)"
) -> list[str]:
    """Return the sentences of texts, or `most` evenly spaced ones. The texts are read twice.

    Args:
        texts: to split.
        most: maximum number of sentences.
        before: put before each text.
        apart: pattern at which texts are split. Each part after the first is returned twice: with
            `before` and without.

    Example:
        >>> split_sentences(["One. Two\\n\\nThree।"], 9)
        ['One.', ' Two\\n\\n', 'Three।']
    """

    def sentences() -> Iterator[str]:
        for text in texts:
            first, *rest = regex.split(apart, text)
            pieces = [before + first, *rest, *(before + piece for piece in rest if before)]
            yield from (part for piece in pieces for part in SENTENCE.split(piece) if part.strip())

    total = sum(1 for _ in sentences())
    wanted = {int(index * max(1, total / most)) for index in range(min(total, most))}
    return [sentence for place, sentence in enumerate(sentences()) if place in wanted]


def changed_sentences(
    before: Tokenizer, after: Tokenizer, sentences: Sequence[str], protected: float | None = None
) -> tuple[list[str], Effect]:
    """Return the sentences whose ids a change alters, and its effect on all sentences."""
    changed, tokens_before, tokens_after = [], 0, 0
    for batch in chunked(sentences, BATCH):
        old, new = ([found.ids for found in encode_texts(t, batch)] for t in (before, after))
        tokens_before += sum(map(len, old))
        tokens_after += sum(map(len, new))
        changed += [line for line, a, b in zip(batch, old, new, strict=True) if a != b]
    return changed, Effect(len(sentences), len(changed), tokens_before, tokens_after, protected)
