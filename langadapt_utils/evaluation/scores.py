"""Scores: what models did on the same documents, items and prompts, and what can be said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..corpus.items import kind_name
from ..intervals import (
    CONFIDENCE,
    FEWEST,
    Interval,
    plain,
    plain_cell,
    ratio,
    relative_change,
    sign,
    wilson,
)
from ..languages import language_name
from ..sources import source_name

SCHEMA = 3  # of scores.json, described in scores.schema.json
CONTROL = "control"  # the model that learned from the English of the mixture alone
ENOUGH = 30  # items, below which a share of what was above chance says nothing
LOWER_IS_BETTER = {-1: "better", 0: "no difference that this test can tell", 1: "worse"}
HIGHER_IS_BETTER = {-verdict: words for verdict, words in LOWER_IS_BETTER.items()}


@dataclass(frozen=True)
class Finding:
    """A sentence made from the outcome of a test.

    Attributes:
        text: the sentence.
        source: where in `scores.json` its numbers stand, as a JSON pointer (RFC 6901).
    """

    text: str
    source: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Scores:
    """What models did on the same documents, items and prompts.

    Attributes:
        models: names, the base first and the adapted model last.
        target: code of the target language.
        documents: a row for each model and held-out document, with `language`, `source`, `domain`,
            `id`, `bits`, `bytes`. A model named `control` is measured on English alone.
        items: a row for each model and evaluation item, with `language`, `kind`, `id`, `correct`,
            `chance`.
        samples: `model`, `language`, `prompt`, `text`, and what `text_quality` counts.
        resamples: of every bootstrap.
        more: other tables by name, as records, such as `kl_divergence`, `drift`, `gains`,
            `interpolation`.
    """

    models: list[str]
    target: str
    documents: pd.DataFrame
    items: pd.DataFrame
    samples: list[dict[str, Any]]
    resamples: int
    more: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def bits_per_byte(self, by: Sequence[str] = ("language", "source")) -> pd.DataFrame:
        """Bits per byte of the first and the last model, and the change between them, each as an
        `Interval`.

        `against_control` is the change from the control to the last model, where the control was
        measured.
        """
        rows = []
        for key, group in self.documents.groupby(list(by), sort=False):
            wide = group.pivot(index=["source", "id"], columns="model", values=["bits", "bytes"])
            before, after = (
                wide["bits"][name].to_numpy() for name in (self.models[0], self.models[-1])
            )
            sizes = wide["bytes"][self.models[0]].to_numpy()
            control = wide["bits"][CONTROL].to_numpy() if CONTROL in wide["bits"] else None
            rows.append(
                dict(zip(by, key, strict=True))
                | {"before": ratio(before, sizes, resamples=self.resamples)}
                | {"after": ratio(after, sizes, resamples=self.resamples)}
                | {"change": relative_change(before, after, resamples=self.resamples)}
                | {"against_control": self._change(control, after)}
            )
        return pd.DataFrame(rows)

    def accuracy(self) -> pd.DataFrame:
        """Accuracy of the first and the last model, the difference, and what was retained, each as
        an `Interval`.

        `retained` is the share of what the first model could do beyond chance; None where it could
        do nothing beyond doubt, or items are few.
        """
        rows = []
        for (language, kind), group in (
            self.items.groupby(["language", "kind"], sort=False) if len(self.items) else []
        ):
            wide = group.pivot(index="id", columns="model", values="correct").astype(float)
            chance = float(group.chance.mean())
            before, after = wide[self.models[0]].to_numpy(), wide[self.models[-1]].to_numpy()
            rows.append(
                {"language": language, "kind": kind, "chance": chance}
                | {
                    "before": wilson(int(before.sum()), len(before)),
                    "after": wilson(int(after.sum()), len(after)),
                }
                | {"change": ratio(after - before, np.ones(len(before)), resamples=self.resamples)}
            )
            able = rows[-1]["before"].low > chance and len(before) >= ENOUGH
            above = [numbers - chance for numbers in (after, before)]
            rows[-1]["retained"] = (
                ratio(above[0], above[1], resamples=self.resamples) if able else None
            )
        return pd.DataFrame(
            rows, columns=["language", "kind", "chance", "before", "after", "change", "retained"]
        )

    def backward_transfer(self) -> Interval | None:
        """How much accuracy in English changed on average over kinds of items, each counting the
        same.

        None where there are no English items. Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840.
        """
        english = self.items[self.items.language == "en"] if len(self.items) else self.items
        if not len(english):
            return None
        wide = english.pivot(index=["kind", "id"], columns="model", values="correct").astype(float)
        weights = 1 / wide.groupby("kind")[self.models[0]].transform("size").to_numpy(dtype=float)
        change = (wide[self.models[-1]] - wide[self.models[0]]).to_numpy()
        return ratio(weights * change, weights, resamples=self.resamples)

    def comparisons(self) -> dict[str, float]:
        """How many before/after comparisons are made, how many are beyond doubt, and how many would
        be by chance.
        """
        return _comparisons(self.bits_per_byte(), self.accuracy())

    def findings(self) -> list[Finding]:
        """What the tests say, in words: gain on the target language, loss on English."""
        return _findings(self.bits_per_byte(), self.accuracy(), self.backward_transfer())

    def save(self, path: Path) -> None:
        """Write the scores as JSON: every document and item, and the tables made from them
        (`scores.schema.json`).
        """
        bits, accuracy, transfer = self.bits_per_byte(), self.accuracy(), self.backward_transfer()
        content = {
            "schema": SCHEMA,
            "models": self.models,
            "target": self.target,
            "resamples": self.resamples,
            "findings": [vars(finding) for finding in _findings(bits, accuracy, transfer)],
            "bits_per_byte": plain(bits),
            "domains": plain(self.bits_per_byte(by=("language", "domain"))),
            "accuracy": plain(accuracy),
            "backward_transfer": plain_cell(transfer),
            "comparisons": _comparisons(bits, accuracy),
            "documents": self.documents.to_dict("records"),
            "items": self.items.to_dict("records"),
            "samples": self.samples,
            "more": self.more,
        }
        path.write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        documents, items = pd.DataFrame(content["documents"]), pd.DataFrame(content["items"])
        rest = (content[name] for name in ("samples", "resamples", "more"))
        return cls(content["models"], content["target"], documents, items, *rest)

    def _change(self, before: Any, after: Any) -> Interval | None:
        if before is None or np.isnan(before).any():
            return None
        return relative_change(before, after, resamples=self.resamples)


def _comparisons(bits: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, float]:
    changes = [
        *bits.change,
        *accuracy.change,
        *(change for change in bits.against_control if change),
    ]
    return {
        "count": len(changes),
        "beyond_doubt": sum(sign(change) != 0 for change in changes),
        "by_chance": len(changes) * (1 - CONFIDENCE),
    }


def _findings(
    bits: pd.DataFrame, accuracy: pd.DataFrame, transfer: Interval | None
) -> list[Finding]:
    found = []
    for place, row in enumerate(bits.itertuples()):
        where = f"/bits_per_byte/{place}"
        text = f"{language_name(row.language)} ({source_name(row.source)})"
        said = f"{text}: bits per byte {_percent(row.change, f', {row.change.units} held-out documents')}, "
        said += f"from {row.before.value:.3f} to {row.after.value:.3f}: {LOWER_IS_BETTER[sign(row.change)]}."
        found.append(Finding(said, where))
        if control := row.against_control:
            said = f"{text}, against a control that learned from English alone: bits per byte {_percent(control)}"
            found.append(Finding(f"{said}: {LOWER_IS_BETTER[sign(control)]}.", where))
    for place, row in enumerate(accuracy.itertuples()):
        said = (
            f"{language_name(row.language)}, {kind_name(row.kind)}: {row.before.value:.0%} right "
            f"before, {row.after.value:.0%} after ({_points(row.change)}, chance {row.chance:.0%}, "
            f"{row.before.units} items): {HIGHER_IS_BETTER[sign(row.change)]}."
        )
        found.append(Finding(said, f"/accuracy/{place}"))
    if transfer:
        said = f"All kinds of English items together: {_points(transfer)}: {HIGHER_IS_BETTER[sign(transfer)]}."
        found.append(Finding(said, "/backward_transfer"))
    many = _comparisons(bits, accuracy)
    said = f"{many['count']} comparisons with the base or the control, {many['beyond_doubt']} of them beyond doubt; "
    said += f"if nothing had changed, about {many['by_chance']:.1f} would be by chance."
    return [*found, Finding(said, "/comparisons")]


def _percent(change: Interval, note: str = "") -> str:
    """A relative change in words."""
    moved = "fell" if change.value < 0 else "rose"
    return f"{moved} by {abs(change.value):.1%} ({_interval(change, '{:+.1%}')}{note})"


def _points(change: Interval) -> str:
    """A difference of two shares in words."""
    return f"{100 * change.value:+.1f} points, {_interval(change, '{:+.1f}', scale=100)}"


def _interval(change: Interval, form: str, scale: float = 1.0) -> str:
    if change.units < FEWEST:
        return "too few for an interval"
    return f"95 % interval {form.format(scale * change.low)} to {form.format(scale * change.high)}"
