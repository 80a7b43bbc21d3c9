"""Several ways on the same documents: methods of embeddings, recipes, points between two models.

The loss before training can rank methods wrongly (arXiv 2608.03494), so each way is trained on the
same data in the same order, with several seeds where there is time, and differences are tested on
the same documents.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..corpus.corpus import Corpus
from ..embeddings.initialise import initialise_embeddings
from ..evaluation.likelihood import document_bits
from ..evaluation.scores import Scores
from ..files import data_folder
from ..hardware import device
from ..intervals import Interval, knee, plain, ratio, relative_change, sign
from ..languages import language_name
from ..recipe import EvaluationRecipe, Recipe
from ..training.mixture import mix
from ..training.train import interpolate, train
from ..vocabulary.change import VocabularyChange

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ..models import Base

RESAMPLES = 2_000
MEASURED = [
    "language",
    "document",
    "bits",
    "bytes",
]  # what stands in a row of `document_rows` after its labels


def heldout_texts(corpus: Corpus, documents: int) -> dict[str, Sequence[str]]:
    """Some held-out documents of the target language and of English."""
    return {
        code: corpus.heldout[code].shuffle(seed=0)["text"][:documents]
        for code in (corpus.language, "en")
    }


def document_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Mapping[str, Sequence[str]],
    window_tokens: int,
    *labels: Any,
) -> list[list[Any]]:
    """A row a text: the labels, and what `MEASURED` names."""
    model.to(device())
    rows = [
        [*labels, code, index, float(value), len(text.encode())]
        for code, lines in texts.items()
        for index, (value, text) in enumerate(
            zip(
                document_bits(model, tokenizer, lines, window_tokens=window_tokens),
                lines,
                strict=True,
            )
        )
    ]
    model.to("cpu")
    return rows


def bits_by(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Bits of each document of one language, averaged over seeds: a row for each value of a column
    of labels.
    """
    return table.pivot_table(index=name, columns="document", values="bits", sort=False)


def compared(
    table: pd.DataFrame, name: str, reference: str
) -> Iterator[tuple[str, Interval, Interval | None]]:
    """Bits per byte for each value of a column of labels, and the change against the one that is
    the reference.

    Intervals are over documents. The table holds one language; where it has no reference, there are
    no changes.
    """
    bits = bits_by(table, name)
    sizes = table.groupby("document")["bytes"].first().loc[bits.columns].to_numpy(dtype=float)
    for label, values in zip(bits.index, bits.to_numpy(), strict=True):
        change = None
        if label != reference and reference in bits.index:
            change = relative_change(bits.loc[reference].to_numpy(), values, resamples=RESAMPLES)
        yield label, ratio(values, sizes, resamples=RESAMPLES), change


BASE = "base model"
REFERENCE = "subword_mean"


@dataclass(frozen=True)
class Comparison:
    """How methods stand, before and after training.

    Attributes:
        target: the target language.
        table: one row a document and measurement: `method`, `seed`, `steps`, `language`,
            `document`, `bits`, `bytes`. The method `base model` is the model before any change.
    """

    target: str
    table: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Bits per byte by method, steps and language, and the change against the sub-word mean at
        the same steps.

        Intervals are over documents; a document's bits are averaged over seeds first.
        """
        rows = []
        for (language, steps), group in self.table.groupby(["language", "steps"], sort=False):
            for method, score, change in compared(group, "method", REFERENCE):
                rows.append([method, steps, language, score, None if method == BASE else change])
        return pd.DataFrame(
            rows, columns=["method", "steps", "language", "bits_per_byte", "change"]
        )

    def findings(self) -> list[str]:
        """What can be said of the target language, from the outcome of the tests."""
        table = self.summary()
        name, last = language_name(self.target), int(table.steps.max())
        here = table[(table.language == self.target) & (table.method != BASE)]
        sentences = []
        for steps in sorted(here.steps.unique()):
            ranked = sorted(
                here[here.steps == steps].itertuples(), key=lambda row: row.bits_per_byte.value
            )
            when = f"after {steps} steps" if steps else "before training"
            better = [
                row.method for row in ranked if row.change is not None and sign(row.change) < 0
            ]
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
            sentences.append(
                "One seed: the intervals leave out what another order of the training text would change."
            )
        return sentences

    def reversals(self, early: int, late: int) -> list[tuple[str, str]]:
        """Pairs of methods of which the first is better early and worse late, both beyond doubt."""
        found = []
        bits = {
            steps: bits_by(
                self.table[(self.table.language == self.target) & (self.table.steps == steps)],
                "method",
            )
            for steps in (early, late)
        }
        methods = [m for m in bits[early].index if m != BASE and m in bits[late].index]
        for one, other in combinations(methods, 2):
            signs = {
                steps: sign(
                    relative_change(
                        rows.loc[one].to_numpy(), rows.loc[other].to_numpy(), resamples=RESAMPLES
                    )
                )
                for steps, rows in bits.items()
            }
            if signs[early] * signs[late] < 0:
                found.append((one, other) if signs[early] > 0 else (other, one))
        return found

    def save(self, path: Path) -> None:
        """Write findings, summary and the bits of every document as JSON."""
        content = {
            "target": self.target,
            "findings": self.findings(),
            "summary": plain(self.summary()),
        }
        content["documents"] = plain(self.table)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(name: str) -> dict[str, Any]:
    """A comparison that was recorded with the project: commit, recipe, hardware, findings, summary.

    Args:
        name: of a file in `data/reference`, such as `embeddings-hu`.
    """
    content: dict[str, Any] = json.loads(
        (data_folder() / "reference" / f"{name}.json").read_text(encoding="utf-8")
    )
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
    """Start new rows by several methods, and measure each before training and after some steps of
    it.

    A seed decides what is drawn and the order of the training text, which is the same for all
    methods.

    Args:
        base: the model and its tokenizer.
        change: the change of the vocabulary.
        corpus: `train` is trained on, `heldout` measured on.
        recipe: mixture, rates and window; a step has `embeddings.probe_batch_tokens` tokens.
        methods: names in `METHODS`, or keyword arguments for `initialise_embeddings` by any name;
            without, those of the recipe.
        steps: how many optimiser steps; 0 is right after. Each number is a run of its own, with its
            own schedule.
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
            budget = number * (recipe.training.batch_tokens // 4)
            mixtures[number] = mix(
                corpus,
                change.tokenizer,
                recipe.mixture,
                budget_tokens=budget,
                seed=seed,
            )
        for name, way in ways.items():
            report(f"{name}, seed {seed}")
            given = {
                "texts": corpus.train[target]["text"],
                "english": corpus.train["en"]["text"],
                "seed": seed,
            }
            start = initialise_embeddings(base.model, change, **given | dict(way))
            for number in steps:
                model = start
                if number:
                    options = {
                        "batch_tokens": (recipe.training.batch_tokens // 4),
                        "micro_batch_tokens": (recipe.training.batch_tokens // 4),
                        "interpolation": 1.0,
                    }
                    with tempfile.TemporaryDirectory() as folder:
                        training = recipe.training.model_copy(update=options)
                        model = train(
                            start, change, mixtures[number], training, folder, seed=seed
                        ).model
                rows += document_rows(model, change.tokenizer, texts, window, name, seed, number)
    return Comparison(target, pd.DataFrame(rows, columns=["method", "seed", "steps", *MEASURED]))


BEFORE = "before"
COLUMNS = ["variant", "seed", *MEASURED]
Start = Callable[[str, Recipe], tuple["PreTrainedModel", VocabularyChange, Corpus]]


@dataclass(frozen=True)
class Sweep:
    """What became of one start under several recipes.

    Attributes:
        target: the target language.
        table: one row a document and measurement: `variant`, `seed`, `language`, `document`,
            `bits`, `bytes`. The variant `before` is what all are compared with.
    """

    target: str
    table: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Bits per byte by variant and language, and the change against before.

        Intervals are over documents; a document's bits are averaged over seeds first.
        """
        rows = []
        for language, group in self.table.groupby("language", sort=False):
            rows += [
                [variant, language, score, change]
                for variant, score, change in compared(group, "variant", BEFORE)
            ]
        return pd.DataFrame(rows, columns=["variant", "language", "bits_per_byte", "change"])

    def findings(self) -> list[str]:
        """What can be said, from the outcome of the tests."""
        table = self.summary()
        variants = table[table.variant != BEFORE]
        best = min(
            variants[variants.language == self.target].itertuples(),
            key=lambda row: row.bits_per_byte.value,
        )
        english = variants[variants.language == "en"]
        said = {
            which: [row.variant for row in english.itertuples() if sign(row.change) == which]
            for which in (1, 0, -1)
        }
        words = {
            1: "worse than before",
            0: "not beyond doubt other than before",
            -1: "better than before",
        }
        return [
            f"{language_name(self.target)} is lowest with {best.variant}: {best.bits_per_byte.value:.3f} bits per byte.",
            *(
                f"English is {words[which]} with {', '.join(names)}."
                for which, names in said.items()
                if names
            ),
        ]

    def front(self) -> list[str]:
        """Arms that no other beats in both languages at once (the Pareto front), the best in the
        target first.
        """
        values = self._values()
        best = [
            variant
            for variant, row in values.iterrows()
            if not ((values <= row).all(axis=1) & (values < row).any(axis=1)).any()
        ]
        return sorted(best, key=lambda variant: float(values.loc[variant, self.target]))

    def knee(self) -> str | None:
        """The variant of the front from which on more of one language begins to cost most of the
        other, if there is one.
        """
        front = self.front()
        if len(front) < 3:
            return None
        values = self._values().loc[front]
        return front[knee(values[self.target], values["en"])]

    def with_variants(self, other: Sweep) -> Sweep:
        """This sweep and the variants of another that was measured on the same documents, or this
        one alone.
        """
        variants = other.table[other.table.variant != BEFORE]
        size, document = (
            self.table.groupby(["language", "document"])["bytes"].first(),
            ["language", "document"],
        )
        if not size.equals(variants.groupby(document)["bytes"].first()):
            return self
        return replace(self, table=pd.concat([self.table, variants], ignore_index=True))

    def _values(self) -> pd.DataFrame:
        """Bits per byte, of shape (variants, languages)."""
        sums = self.table.groupby(["variant", "language"], sort=False)[["bits", "bytes"]].sum()
        return (sums.bits / sums.bytes).unstack()

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write summary, findings and what they came from (recipes, data, hardware, commit,
        seconds) as JSON.
        """
        content = {
            "target": self.target,
            **about,
            "findings": self.findings(),
            "summary": plain(self.summary()),
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded_sweeps(language: str) -> dict[str, dict[str, Any]]:
    """Sweeps in a language that were recorded with the project, by name: recipes, hardware, commit,
    summary.
    """
    folder = data_folder() / "reference"
    return {
        path.stem.removeprefix(f"sweep-{language}-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob(f"sweep-{language}-*.json"))
    }


def english_share_variants(recipe: Recipe) -> dict[str, Recipe]:
    """Short runs of a recipe with other shares of English, by name; a share of 1 is the control
    without the target.
    """
    training = recipe.training.model_copy(update={"budget_tokens": recipe.mixture.sweep_tokens})
    return {
        f"{share:.0%} English": recipe.model_copy(
            update={
                "training": training,
                "mixture": recipe.mixture.model_copy(update={"english_share": share}),
            }
        )
        for share in recipe.mixture.sweep
    }


def interpolation_sweep(
    start: PreTrainedModel,
    end: PreTrainedModel,
    change: VocabularyChange,
    before: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    scores: Scores | None = None,
) -> Sweep:
    """The target language against English on the way from the start to the adapted model, without
    training.

    At the start, rows of new tokens are what initialisation made of them; all others are the
    base's.

    Args:
        start: the base model with new rows, before training.
        end: the adapted model.
        change: of the vocabulary.
        before: the base model and its tokenizer, which all points are compared with.
        corpus: whose `heldout` is measured on.
        recipe: points of the way, documents, windows.
        scores: of the base and the adapted model on documents of this corpus, which are not
            measured again.

    Source: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903.
    """
    texts, window = heldout_texts(corpus, recipe.comparison_documents), recipe.window_tokens
    known = (
        [_rows_known(scores, place, corpus, recipe) for place in (0, -1)]
        if scores
        else [None, None]
    )
    rows = _labelled(BEFORE, known[0]) or document_rows(*before, texts, window, BEFORE, 0)
    for share in recipe.interpolation_points:
        variant = f"{share:.0%} of the way"
        if share == 1 and known[1]:
            rows += _labelled(variant, known[1])
        else:
            model = interpolate(start, end, share)
            rows += document_rows(model, change.tokenizer, texts, window, variant, 0)
    return Sweep(corpus.language, pd.DataFrame(rows, columns=COLUMNS))


def _rows_known(
    scores: Scores, place: int, corpus: Corpus, recipe: EvaluationRecipe
) -> list[list[Any]] | None:
    """The rows of the dial's documents under the first (0) or last (-1) model of scores, if all of
    them are there.
    """
    mine = scores.documents[scores.documents.model == scores.models[place]].set_index(
        ["language", "id"]
    )
    rows = []
    for code in (corpus.language, "en"):
        ids = corpus.heldout[code].shuffle(seed=0)["id"][: recipe.comparison_documents]
        if not all((code, name) in mine.index for name in ids) or mine.index.has_duplicates:
            return None
        found = mine.loc[[(code, name) for name in ids]]
        rows += [
            [code, index, *pair]
            for index, pair in enumerate(zip(found.bits, found.bytes, strict=True))
        ]
    return rows


def _labelled(variant: str, rows: Sequence[list[Any]] | None) -> list[list[Any]]:
    return [[variant, 0, *row] for row in rows or ()]


def sweep(
    variants: Mapping[str, Recipe],
    corpus: Corpus,
    start: Start,
    before: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    *,
    texts: Mapping[str, Sequence[str]] | None = None,
    documents: int = 12,
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Train every variant from its start and measure all on the same documents.

    Args:
        variants: recipes by name.
        corpus: whose `heldout` is measured on.
        start: gives what a variant starts from, by its name and recipe: the model with rows for new
            tokens, the change of the vocabulary, and the corpus whose `train` is trained on.
        before: the model and tokenizer that all are compared with.
        texts: to measure on, by language; held-out documents where not given.
        documents: how many of those.
        seeds: of the order of the training text.
        report: called with a line on progress.
    """
    texts = texts or heldout_texts(corpus, documents)
    window = next(iter(variants.values())).evaluation.window_tokens
    rows = document_rows(*before, texts, window, BEFORE, 0)
    for seed in seeds:
        for name, recipe in variants.items():
            report(f"{name}, seed {seed}")
            model, change, trained_on = start(name, recipe)
            mixture = mix(
                trained_on,
                change.tokenizer,
                recipe.mixture,
                budget_tokens=recipe.training.budget_tokens,
                seed=seed,
            )
            with tempfile.TemporaryDirectory() as folder:
                settings = recipe.training.model_copy(
                    update={"report_to": []}
                )  # a tracker has one run
                trained = train(model, change, mixture, settings, folder, seed=seed)
            rows += document_rows(trained.model, change.tokenizer, texts, window, name, seed)
    return Sweep(corpus.language, pd.DataFrame(rows, columns=COLUMNS))
