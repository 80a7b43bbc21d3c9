"""Scores: what models did on the same documents, items and prompts, and what can be said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..corpus.items import CHAT_NAMES, kind_name
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
        """Return bits per byte of the first and the last model, and the change, as `Interval`s.

        `against_control` is the change from the control run to the last model, if it was measured.
        """
        return (self._by_source if tuple(by) == ("language", "source") else self._bits(by)).copy()

    @cached_property
    def _by_source(self) -> pd.DataFrame:
        return self._bits(("language", "source"))

    def _bits(self, by: Sequence[str]) -> pd.DataFrame:
        rows = []
        for key, group in self.documents.groupby(list(by), sort=False):
            wide = group.pivot(index=["source", "id"], columns="model", values=["bits", "bytes"])
            before, after = (wide["bits"][m].to_numpy() for m in (self.models[0], self.models[-1]))
            sizes = wide["bytes"][self.models[0]].to_numpy()
            control = wide["bits"][CONTROL].to_numpy() if CONTROL in wide["bits"] else None
            measured = control is not None and not np.isnan(control).any()
            intervals = [ratio(bits, sizes, resamples=self.resamples) for bits in (before, after)]
            against_control = self._change(control, after) if measured else None
            rows.append([*key, *intervals, self._change(before, after), against_control])
        return pd.DataFrame(rows, columns=[*by, "before", "after", "change", "against_control"])

    def _change(self, before: Any, after: Any) -> Interval:
        return relative_change(before, after, resamples=self.resamples)

    def accuracy(self) -> pd.DataFrame:
        """Return accuracy of the first and the last model, and the difference, as `Interval`s.

        `retained` is the fraction kept of what the first model could do beyond chance; None where
        it could do nothing beyond doubt, or items are few.
        """
        return self._accuracy.copy()

    @cached_property
    def _accuracy(self) -> pd.DataFrame:
        rows = []
        items = self.items.groupby(["language", "kind"], sort=False) if len(self.items) else ()
        for (language, kind), group in items:
            wide = group.pivot(index="id", columns="model", values="correct").astype(float)
            before, after = wide[self.models[0]].to_numpy(), wide[self.models[-1]].to_numpy()
            count, chance = len(before), float(group.chance.mean())
            intervals = [wilson(int(right.sum()), count) for right in (before, after)]
            change = ratio(after - before, np.ones(count), resamples=self.resamples)
            retained = None
            if intervals[0].low > chance and count >= ENOUGH:
                retained = ratio(after - chance, before - chance, resamples=self.resamples)
            rows.append([language, kind, chance, *intervals, change, retained])
        columns = ["language", "kind", "chance", "before", "after", "change", "retained"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def _transfer(self) -> Interval | None:
        english = self.items[self.items.language == "en"] if len(self.items) else self.items
        english = english[~english.kind.isin(CHAT_NAMES)] if len(english) else english
        if not len(english):
            return None
        wide = english.pivot(index=["kind", "id"], columns="model", values="correct").astype(float)
        weights = 1 / wide.groupby("kind")[self.models[0]].transform("size").to_numpy(dtype=float)
        change = (wide[self.models[-1]] - wide[self.models[0]]).to_numpy()
        return ratio(weights * change, weights, resamples=self.resamples)

    def backward_transfer(self) -> Interval | None:
        """Return the mean change of accuracy in English over kinds of items, each counted once.

        Chat does not count. None where there are no English items. Source: Lopez-Paz & Ranzato
        2017, arXiv 1706.08840.
        """
        return self._transfer

    def comparisons(self) -> dict[str, float]:
        """Return how many comparisons are made, are beyond doubt, and would be so by chance."""
        against = [change for change in self._by_source.against_control if change]
        changes = [*self._by_source.change, *self._accuracy.change, *against]
        return {
            "count": len(changes),
            "beyond_doubt": sum(sign(change) != 0 for change in changes),
            "by_chance": len(changes) * (1 - CONFIDENCE),
        }

    def findings(self) -> list[Finding]:
        """Return what the tests say, in words: gain on the target language, loss on English."""
        found = []
        for index, row in enumerate(self._by_source.itertuples()):
            found += _about_text(row, f"/bits_per_byte/{index}")
        for index, row in enumerate(self._accuracy.itertuples()):
            found.append(_about_items(row, f"/accuracy/{index}"))
        if change := self._transfer:
            verdict = HIGHER_IS_BETTER[sign(change)]
            text = f"All kinds of English items together: {_points(change)}: {verdict}."
            found.append(Finding(text, "/backward_transfer"))
        counts = self.comparisons()
        text = f"{counts['count']} comparisons with the base or the control, "
        text += f"{counts['beyond_doubt']} of them beyond doubt; if nothing had changed, about "
        text += f"{counts['by_chance']:.1f} would be by chance."
        return [*found, Finding(text, "/comparisons")]

    def save(self, path: Path) -> None:
        """Write documents, items and the tables made from them as JSON (`scores.schema.json`)."""
        content = {
            "schema": SCHEMA,
            "models": self.models,
            "target": self.target,
            "resamples": self.resamples,
            "findings": [vars(finding) for finding in self.findings()],
            "bits_per_byte": plain(self._by_source),
            "domains": plain(self.bits_per_byte(by=("language", "domain"))),
            "accuracy": plain(self._accuracy),
            "backward_transfer": plain_cell(self._transfer),
            "comparisons": self.comparisons(),
            "documents": self.documents.to_dict("records"),
            "items": self.items.to_dict("records"),
            "samples": self.samples,
            "more": self.more,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        documents, items = pd.DataFrame(content["documents"]), pd.DataFrame(content["items"])
        rest = (content[name] for name in ("samples", "resamples", "more"))
        return cls(content["models"], content["target"], documents, items, *rest)


def _about_text(row: Any, source: str) -> list[Finding]:
    """Return what a row of the table of bits per byte says."""
    text, units = f"{language_name(row.language)} ({source_name(row.source)})", row.change.units
    moved = f"bits per byte {_percent(row.change, f', {units} held-out documents')}"
    scores = f"from {row.before.value:.3f} to {row.after.value:.3f}"
    verdict = LOWER_IS_BETTER[sign(row.change)]
    found = [Finding(f"{text}: {moved}, {scores}: {verdict}.", source)]
    if control := row.against_control:
        against = f"{text}, against a control that learned from English alone: bits per byte"
        verdict = LOWER_IS_BETTER[sign(control)]
        found.append(Finding(f"{against} {_percent(control)}: {verdict}.", source))
    return found


def _about_items(row: Any, source: str) -> Finding:
    """Return what a row of the table of accuracies says."""
    about = f"{_points(row.change)}, chance {row.chance:.0%}, {row.before.units} items"
    right = f"{row.before.value:.0%} right before, {row.after.value:.0%} after"
    verdict = HIGHER_IS_BETTER[sign(row.change)]
    items = f"{language_name(row.language)}, {kind_name(row.kind)}"
    return Finding(f"{items}: {right} ({about}): {verdict}.", source)


def _percent(change: Interval, note: str = "") -> str:
    """Return a relative change in words."""
    moved = "fell" if change.value < 0 else "rose"
    return f"{moved} by {abs(change.value):.1%} ({_interval(change, '{:+.1%}')}{note})"


def _points(change: Interval) -> str:
    """Return a difference of two fractions in words."""
    return f"{100 * change.value:+.1f} points, {_interval(change, '{:+.1f}', scale=100)}"


def _interval(change: Interval, form: str, scale: float = 1.0) -> str:
    if change.units < FEWEST:
        return "too few for an interval"
    return f"95 % interval {form.format(scale * change.low)} to {form.format(scale * change.high)}"
