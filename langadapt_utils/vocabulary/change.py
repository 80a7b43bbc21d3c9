"""VocabularyChange: what an adapted tokenizer has that its base had not, and the other way
round.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Self

import pandas as pd
import regex
from pydantic import ConfigDict, TypeAdapter
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ..files import read_json
from ..models import load_tokenizer, save_tokenizer
from ..tokens import encode_texts, readable
from .merges import batches

Mode = Literal["extend", "replace"]
BATCH = 1_000  # sentences that are encoded at once
# A sentence begins with the space before it, and ends with its line ends, as tokens hold them.
SENTENCE = regex.compile(
    r"""(?<=[.!?…]["'»”’)\]]*)(?=\ +\S)|(?<=\n)(?![\r\n])"""
    r"""|(?<=[\p{Sentence_Break=STerm}།--[!?]])(?![\ \r]*\n)""",  # of other scripts
    regex.V1,
)


@dataclass(frozen=True)
class Check:
    """One line of an audit: a claim, whether it holds, and what was counted."""

    claim: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Effect:
    """What a change does to text of a language that it was not made for."""

    sentences: int
    changed: int  # sentences whose ids are others now
    tokens_before: int
    tokens_after: int
    protected: float | None = None  # the share of sentences that was to keep its ids

    @property
    def kept(self) -> float:
        """The share of sentences that keep their exact ids."""
        return 1 - self.changed / self.sentences if self.sentences else 1.0


@dataclass(frozen=True)
class ProtectionCost:
    """What protecting other languages costs the target: tokens of its training text."""

    dropped: int  # tokens learned and dropped for the sake of others
    tokens: int
    tokens_unprotected: int


@dataclass(frozen=True)
class VocabularyChange:
    """A changed tokenizer and how it relates to its base.

    New ids are rows of the adapted model, old ids are rows of the base model; a token that stays
    keeps its id.

    Attributes:
        tokenizer: the changed tokenizer.
        mode: `extend` or `replace`.
        new_to_old: new id to old id.
        added: new id to surface, in order of learning.
        removed: old id to surface, in order of giving up.
        base_pieces: new id to the old ids that spell it, never empty. A byte that the base lacks is
            spelled by the bytes of its kind that the base has; a character unknown to the base by
            its unknown token.
        added_counts: how often each added token stands in the target training text.
        lost: how often each removed token stood in the reference text.
        unreachable: added ids that no text can produce; an audit with any fails.
        pattern_repair: what the repaired word pattern lets ride with letters or stay between two;
            empty where it was not repaired.
        curve: number of new tokens to tokens of the target training text.
        effects: by language, what text of other languages feels.
        protection_cost: what their protection costs; None without protection.
        audit: what was checked.
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
    curve: dict[int, int] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    protection_cost: ProtectionCost | None = None
    audit: tuple[Check, ...] = ()

    @property
    def size(self) -> int:
        """Ids of the adapted tokenizer, the highest plus one."""
        return max(*self.new_to_old, *self.added) + 1

    @property
    def repaired(self) -> bool:
        """Whether the word pattern was changed."""
        return bool(self.pattern_repair)

    def removed_table(self) -> pd.DataFrame:
        """The removed tokens: old id, text, uses in the reference text, what spells them now."""
        text, model = partial(readable, self.tokenizer), self.tokenizer.backend_tokenizer.model
        rows = []
        for old, surface in self.removed.items():
            pieces = " ".join(text(token.value) for token in model.tokenize(surface))
            rows.append([old, text(surface), self.lost.get(old, 0), pieces])
        return pd.DataFrame(rows, columns=["id", "token", "uses", "spelled_by"])

    def savings(self) -> dict[str, float]:
        """Return the fraction of tokens that new tokens save, and the first half's part of it."""
        numbers, tokens = list(self.curve), list(self.curve.values())
        saved = [1 - count / tokens[0] for count in tokens]
        half = min(range(len(numbers)), key=lambda i: abs(numbers[i] - numbers[-1] // 2))
        by_half = saved[half] / (saved[-1] or 1.0)
        return {"new_tokens": numbers[-1], "saved": saved[-1], "by_first_half": by_half}

    def audit_table(self) -> pd.DataFrame:
        """Return the audit as a table."""
        return pd.DataFrame([dataclasses.asdict(check) for check in self.audit])

    def effects_table(self) -> pd.DataFrame:
        """Return what the change does to other languages as a table."""
        return pd.DataFrame(
            {"language": code, **dataclasses.asdict(effect), "kept": effect.kept}
            for code, effect in self.effects.items()
        )

    def text(self, new: int) -> str:
        """An added token as readable text."""
        return readable(self.tokenizer, self.added[new])

    def base_text(self, old: int) -> str:
        """A token of the base, by its old id, as readable text."""
        return readable(self.tokenizer, self.removed.get(old, old))

    def save(self, folder: Path) -> None:
        """Write the tokenizer in Hugging Face layout and the change as `change.json`."""
        save_tokenizer(self.tokenizer, Path(folder))
        plain = TypeAdapter(VocabularyChange).dump_json(self, exclude={"tokenizer"})
        Path(folder, "change.json").write_bytes(plain)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        plain = read_json(Path(folder, "change.json"))
        plain["tokenizer"] = load_tokenizer(Path(folder))
        return TypeAdapter(cls).validate_python(plain)


def split_sentences(texts: Iterable[str], most: int) -> list[str]:
    """Return the sentences of texts, evenly spaced ones where there are more than `most`; texts are
    read twice.

    Example:
        >>> split_sentences(["One. Two\\n\\nThree।"], 9)
        ['One.', ' Two\\n\\n', 'Three।']
    """

    def sentences() -> Iterator[str]:
        return (part for text in texts for part in SENTENCE.split(text) if part.strip())

    total = sum(1 for _ in sentences())
    wanted = {int(index * max(1, total / most)) for index in range(min(total, most))}
    return [sentence for place, sentence in enumerate(sentences()) if place in wanted]


def changed_sentences(
    before: Tokenizer, after: Tokenizer, sentences: Sequence[str], protected: float | None = None
) -> tuple[list[str], Effect]:
    """Return the sentences that have other ids after a change, and its effect on all of them."""
    changed, tokens_before, tokens_after = [], 0, 0
    for batch in batches(sentences, BATCH):
        old, new = ([found.ids for found in encode_texts(t, batch)] for t in (before, after))
        tokens_before += sum(map(len, old))
        tokens_after += sum(map(len, new))
        changed += [line for line, a, b in zip(batch, old, new, strict=True) if a != b]
    return changed, Effect(len(sentences), len(changed), tokens_before, tokens_after, protected)
