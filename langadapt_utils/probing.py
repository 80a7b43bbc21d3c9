"""Comparing ways to start new rows: right after, after a short probe of training, or at the end of a run.

The loss before training can rank methods wrongly (arXiv 2608.03494), so each is trained on the same data in the same
order, with several seeds where there is time, and differences are tested on the same documents.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .corpus.corpus import Corpus
from .embeddings.initialise import initialise_embeddings
from .files import data_folder
from .intervals import plain, relative_change, sign
from .languages import language_name
from .paired import MEASURED, RESAMPLES, bits_by, compared, document_rows, heldout_texts
from .recipe import Recipe
from .training.mixture import mix
from .training.train import train
from .vocabulary.change import VocabularyChange

if TYPE_CHECKING:
    from .models import Base

BASE = "base model"
REFERENCE = "subword_mean"


@dataclass(frozen=True)
class Comparison:
    """How methods stand, before and after training.

    Attributes:
        target: the target language.
        table: one row a document and measurement: `method`, `seed`, `steps`, `language`, `document`, `bits`, `bytes`.
            The method `base model` is the model before any change.
    """

    target: str
    table: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Bits per byte by method, steps and language, and the change against the sub-word mean at the same steps.

        Intervals are over documents; a document's bits are averaged over seeds first.
        """
        rows = []
        for (language, steps), group in self.table.groupby(["language", "steps"], sort=False):
            for method, score, change in compared(group, "method", REFERENCE):
                rows.append([method, steps, language, score, None if method == BASE else change])
        return pd.DataFrame(rows, columns=["method", "steps", "language", "bits_per_byte", "change"])

    def findings(self) -> list[str]:
        """What can be said of the target language, from the outcome of the tests."""
        table = self.summary()
        name, last = language_name(self.target), int(table.steps.max())
        here = table[(table.language == self.target) & (table.method != BASE)]
        sentences = []
        for steps in sorted(here.steps.unique()):
            ranked = sorted(here[here.steps == steps].itertuples(), key=lambda row: row.bits_per_byte.value)
            when = f"after {steps} steps" if steps else "before training"
            better = [row.method for row in ranked if row.change is not None and sign(row.change) < 0]
            sentences.append(
                f"{name} {when}: {ranked[0].method} is lowest ({ranked[0].bits_per_byte.value:.3f} bits per byte); "
                f"beyond doubt better than {REFERENCE}: {', '.join(better) or 'none'}."
            )
        for early in sorted(set(here.steps) - {last}):
            for one, other in self.reversals(int(early), last):
                sentences.append(
                    f"{name}: {one} beats {other} {f'after {early} steps' if early else 'before training'}, "
                    f"but loses to it after {last}, both beyond doubt."
                )
        seeds = self.table[self.table.method != BASE].seed.nunique()
        if last and seeds == 1:
            sentences.append("One seed: the intervals leave out what another order of the training text would change.")
        return sentences

    def reversals(self, early: int, late: int) -> list[tuple[str, str]]:
        """Pairs of methods of which the first is better early and worse late, both beyond doubt."""
        found = []
        bits = {
            steps: bits_by(self.table[(self.table.language == self.target) & (self.table.steps == steps)], "method")
            for steps in (early, late)
        }
        methods = [m for m in bits[early].index if m != BASE and m in bits[late].index]
        for one, other in combinations(methods, 2):
            signs = {
                steps: sign(relative_change(rows.loc[one].to_numpy(), rows.loc[other].to_numpy(), resamples=RESAMPLES))
                for steps, rows in bits.items()
            }
            if signs[early] * signs[late] < 0:
                found.append((one, other) if signs[early] > 0 else (other, one))
        return found

    def save(self, path: Path) -> None:
        """Write findings, summary and the bits of every document as JSON."""
        content = {"target": self.target, "findings": self.findings(), "summary": plain(self.summary())}
        content["documents"] = plain(self.table)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(name: str) -> dict[str, Any]:
    """A comparison that was recorded with the project: commit, recipe, hardware, findings, summary.

    Args:
        name: of a file in `data/reference`, such as `embeddings-hu`.
    """
    content: dict[str, Any] = json.loads((data_folder() / "reference" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def compare_methods(
    base: Base,
    change: VocabularyChange,
    corpus: Corpus,
    recipe: Recipe,
    *,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    steps: Sequence[int] = (0, 50),
    seeds: Sequence[int] = (0,),
    documents: int = 12,
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Start new rows by several methods, and measure each before training and after some steps of it.

    A seed decides what is drawn and the order of the training text, which is the same for all methods.

    Args:
        base: the model and its tokenizer.
        change: the change of the vocabulary.
        corpus: `train` is trained on, `heldout` measured on.
        recipe: mixture, rates and window; a step has `embeddings.probe_batch_tokens` tokens.
        methods: names in `METHODS`, or keyword arguments for `initialise_embeddings` by any name; without, those of the
            recipe.
        steps: how many optimiser steps; 0 is right after. Each number is a run of its own, with its own schedule.
        seeds: of the runs.
        documents: held-out documents of each language.
        report: called with a line on progress.
    """
    target = corpus.language
    settings = recipe.embeddings
    methods = methods or settings.compare
    ways = methods if isinstance(methods, Mapping) else {name: {"method": name} for name in methods}
    texts, window = heldout_texts(corpus, documents), recipe.evaluation.window_tokens
    report(BASE)
    untouched = document_rows(base.model, base.tokenizer, texts, window)
    rows = [[BASE, 0, number, *row] for number in steps for row in untouched]
    for seed in seeds:
        mixtures = {}
        for number in filter(None, steps):
            budget = number * settings.probe_batch_tokens
            mixtures[number] = mix(
                corpus, change.tokenizer, recipe.mixture.model_copy(update={"seed": seed}), budget_tokens=budget
            )
        for name, way in ways.items():
            report(f"{name}, seed {seed}")
            given = {"texts": corpus.train[target]["text"], "english": corpus.train["en"]["text"], "seed": seed}
            start = initialise_embeddings(base.model, change, **given | dict(way))
            for number in steps:
                model = start
                if number:
                    knobs = {
                        "batch_tokens": settings.probe_batch_tokens,
                        "micro_batch_tokens": settings.probe_batch_tokens,
                        "interpolation": 1.0,
                        "seed": seed,
                    }
                    with tempfile.TemporaryDirectory() as folder:
                        training = recipe.training.model_copy(update=knobs)
                        model = train(start, change, mixtures[number], training, folder).model
                rows += document_rows(model, change.tokenizer, texts, window, name, seed, number)
    return Comparison(target, pd.DataFrame(rows, columns=["method", "seed", "steps", *MEASURED]))
