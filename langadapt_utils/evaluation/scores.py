"""Scores: results of models on the same documents, items and prompts, with tests and findings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ..corpus.items import CHAT_NAMES, kind_name
from ..display.html import render
from ..files import read_json, write_json
from ..intervals import CONFIDENCE, FEWEST, Interval, plain, ratio, relative_change, sign, wilson

SCHEMA = 4  # version of scores.json, described in scores.schema.json
CONTROL = "control"  # the model of the control run
ENOUGH = 30  # items that the fraction of retained accuracy needs
MOST, OTHERS = 20, "other domains"  # domains per language in a table; name of the rest


@dataclass(frozen=True)
class Finding:
    """The result of a test, as a row of a table and as a sentence.

    Attributes:
        source: place of its numbers in `scores.json`, as a JSON pointer (RFC 6901).
        what: text or items that were compared; empty in a sentence about all tests.
        change: from one model to the other, with its 95 % interval.
        direction: `↑` or `↓`, or `–` if the interval holds zero.
        verdict: `better`, `worse` or `cannot tell`.
        text: the sentence.
    """

    source: str
    what: str
    change: str
    direction: str = ""
    verdict: str = ""
    text: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Scores:
    """Results of models on the same documents, items and prompts.

    Attributes:
        models: names, the base first and the adapted model last.
        target: code of the target language.
        documents: one row per model and held-out document, with `language`, `source`, `domain`,
            `id`, `bits`, `bytes`. The model `control` has only English rows.
        items: one row per model and evaluation item, with `language`, `kind`, `id`, `correct`,
            `chance`.
        samples: `model`, `language`, `prompt`, `text`, and the measures of `text_quality`.
        resamples: of every bootstrap.
        window_bytes: UTF-8 bytes of the windows in which documents were read.
        more: other tables by name, as records, such as `drift`, `gains`, `interpolation`.
    """

    models: list[str]
    target: str
    documents: pd.DataFrame
    items: pd.DataFrame
    samples: list[dict[str, Any]]
    resamples: int
    window_bytes: int = 4_096
    more: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def bits_per_byte(self, by: Sequence[str] = ("language", "source")) -> pd.DataFrame:
        """Return bits per byte of the base and the adapted model, and the change, as `Interval`s.

        `against_control` is the change from the control run to the adapted model, if it was
        measured. By domain, each language has its 20 largest domains and one row for the rest.
        """
        change, rows = partial(relative_change, resamples=self.resamples), []
        documents = _pooled(self.documents) if "domain" in by else self.documents
        for key, group in documents.groupby(list(by), sort=False):
            wide = group.pivot(index=["source", "id"], columns="model", values=["bits", "bytes"])
            before, after = (wide["bits"][m].to_numpy() for m in (self.models[0], self.models[-1]))
            sizes = wide["bytes"][self.models[0]].to_numpy()
            control = wide["bits"].get(CONTROL, pd.Series([math.nan])).to_numpy()
            against_control = None if np.isnan(control).any() else change(control, after)
            intervals = [ratio(bits, sizes, resamples=self.resamples) for bits in (before, after)]
            rows.append([*key, *intervals, change(before, after), against_control])
        return pd.DataFrame(rows, columns=[*by, "before", "after", "change", "against_control"])

    def accuracy(self) -> pd.DataFrame:
        """Return accuracy of the base and the adapted model, and the difference, as `Interval`s.

        `retained` is the fraction of the base's accuracy above chance that is left. It is None if
        the base is not significantly above chance, or with fewer than 30 items.
        """
        rows, draws = [], self.resamples
        items = self.items.groupby(["language", "kind"], sort=False) if len(self.items) else ()
        for (language, kind), group in items:
            wide = group.pivot(index="id", columns="model", values="correct").astype(float)
            before, after = wide[self.models[0]].to_numpy(), wide[self.models[-1]].to_numpy()
            count, chance = len(before), float(group.chance.mean())
            intervals = [wilson(int(right.sum()), count) for right in (before, after)]
            change = ratio(after - before, np.ones(count), resamples=draws)
            if np.count_nonzero(after - before) < 6:  # no sign test is significant at 5 %
                change = replace(change, low=min(change.low, 0.0), high=max(change.high, 0.0))
            known = count >= ENOUGH and intervals[0].low > chance
            retained = ratio(after - chance, before - chance, resamples=draws) if known else None
            rows.append([language, kind, chance, *intervals, change, retained])
        columns = ["language", "kind", "chance", "before", "after", "change", "retained"]
        return pd.DataFrame(rows, columns=columns)

    def backward_transfer(self) -> Interval | None:
        """Return the mean change of English accuracy; each kind of items has the same weight.

        Chat does not count. Returns None if there are no English items. Source: Lopez-Paz & Ranzato
        2017, arXiv 1706.08840.
        """
        english = self.items[self.items.language == "en"] if len(self.items) else self.items
        english = english[~english.kind.isin(CHAT_NAMES)] if len(english) else english
        if not len(english):
            return None
        wide = english.pivot(index=["kind", "id"], columns="model", values="correct").astype(float)
        weights = 1 / wide.groupby("kind")[self.models[0]].transform("size").to_numpy(dtype=float)
        change = (wide[self.models[-1]] - wide[self.models[0]]).to_numpy()
        return ratio(weights * change, weights, resamples=self.resamples)

    def comparisons(self) -> dict[str, float]:
        """Return the number of comparisons, of significant ones, and of those expected by chance.

        A comparison is significant (`beyond_doubt`) if its 95 % interval excludes zero.
        """
        bits = self.bits_per_byte()
        changes = [*bits.change, *self.accuracy().change, *filter(None, bits.against_control)]
        changes = [change for change in changes if not math.isnan(change.low)]
        significant = sum(sign(change) != 0 for change in changes)
        expected = len(changes) * (1 - CONFIDENCE)
        return {"count": len(changes), "beyond_doubt": significant, "by_chance": expected}

    def findings(self) -> list[Finding]:
        """Return the results of the tests: gain on the target language, loss on English."""
        text = render("evaluation/findings.txt.j2", scores=self, kind_name=kind_name, fewest=FEWEST)
        return [Finding(*line.split("\t")) for line in text.splitlines() if line]

    def save(self, path: Path) -> None:
        """Write documents, items and all tables as JSON, in the form of `scores.schema.json`."""
        findings = [vars(finding) for finding in self.findings()]
        content = {"schema": SCHEMA, "findings": findings, "bits_per_byte": self.bits_per_byte()}
        content |= {"domains": self.bits_per_byte(by=("language", "domain"))}
        content |= {"accuracy": self.accuracy(), "comparisons": self.comparisons()}
        content |= {"backward_transfer": self.backward_transfer()}
        write_json(path, plain(content | vars(self)), allow_nan=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        content = read_json(path)
        tables = {name: pd.DataFrame(content[name]) for name in ("documents", "items")}
        return cls(**{f.name: content[f.name] for f in fields(cls) if f.name in content} | tables)


def _pooled(documents: pd.DataFrame) -> pd.DataFrame:
    """Return documents with one name for all domains beyond the largest of their language."""
    domains = documents.groupby("language")["domain"]
    large = domains.transform(lambda own: own.isin(own.value_counts().index[:MOST]))
    return documents.assign(domain=documents["domain"].where(large, OTHERS))
