"""The laboratory: recipes that differ in one thing, trained from one start and measured on the same documents."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .corpus.corpus import Corpus
from .evaluation.scores import Scores
from .files import data_folder
from .intervals import knee, plain, sign
from .languages import language_name
from .paired import MEASURED, compared, document_rows, heldout_texts
from .recipe import EvaluationRecipe, Recipe
from .training.mixture import mix
from .training.train import interpolate, train
from .vocabulary.change import VocabularyChange

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BEFORE = "before"
COLUMNS = ["arm", "seed", *MEASURED]
Start = Callable[[str, Recipe], tuple["PreTrainedModel", VocabularyChange, Corpus]]


@dataclass(frozen=True)
class Sweep:
    """What became of one start under several recipes.

    Attributes:
        target: the target language.
        table: one row a document and measurement: `arm`, `seed`, `language`, `document`, `bits`, `bytes`. The arm
            `before` is what all are compared with.
    """

    target: str
    table: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Bits per byte by arm and language, and the change against before.

        Intervals are over documents; a document's bits are averaged over seeds first.
        """
        rows = []
        for language, group in self.table.groupby("language", sort=False):
            rows += [[arm, language, score, change] for arm, score, change in compared(group, "arm", BEFORE)]
        return pd.DataFrame(rows, columns=["arm", "language", "bits_per_byte", "change"])

    def findings(self) -> list[str]:
        """What can be said, from the outcome of the tests."""
        table = self.summary()
        arms = table[table.arm != BEFORE]
        best = min(arms[arms.language == self.target].itertuples(), key=lambda row: row.bits_per_byte.value)
        english = arms[arms.language == "en"]
        said = {which: [row.arm for row in english.itertuples() if sign(row.change) == which] for which in (1, 0, -1)}
        words = {1: "worse than before", 0: "not beyond doubt other than before", -1: "better than before"}
        return [
            f"{language_name(self.target)} is lowest with {best.arm}: {best.bits_per_byte.value:.3f} bits per byte.",
            *(f"English is {words[which]} with {', '.join(names)}." for which, names in said.items() if names),
        ]

    def front(self) -> list[str]:
        """Arms that no other beats in both languages at once (the Pareto front), the best in the target first."""
        values = self._values()
        best = [
            arm
            for arm, row in values.iterrows()
            if not ((values <= row).all(axis=1) & (values < row).any(axis=1)).any()
        ]
        return sorted(best, key=lambda arm: float(values.loc[arm, self.target]))

    def knee(self) -> str | None:
        """The arm of the front from which on more of one language begins to cost most of the other, if there is one."""
        front = self.front()
        if len(front) < 3:
            return None
        values = self._values().loc[front]
        return front[knee(values[self.target], values["en"])]

    def with_arms(self, other: Sweep) -> Sweep:
        """This sweep and the arms of another that was measured on the same documents, or this one alone."""
        arms = other.table[other.table.arm != BEFORE]
        size, document = self.table.groupby(["language", "document"])["bytes"].first(), ["language", "document"]
        if not size.equals(arms.groupby(document)["bytes"].first()):
            return self
        return replace(self, table=pd.concat([self.table, arms], ignore_index=True))

    def _values(self) -> pd.DataFrame:
        """Bits per byte, of shape (arms, languages)."""
        sums = self.table.groupby(["arm", "language"], sort=False)[["bits", "bytes"]].sum()
        return (sums.bits / sums.bytes).unstack()

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write summary, findings and what they came from (recipes, data, hardware, commit, seconds) as JSON."""
        content = {"target": self.target, **about, "findings": self.findings(), "summary": plain(self.summary())}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded_sweeps(language: str) -> dict[str, dict[str, Any]]:
    """Sweeps in a language that were recorded with the project, by name: recipes, hardware, commit, summary."""
    folder = data_folder() / "reference"
    return {
        path.stem.removeprefix(f"sweep-{language}-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob(f"sweep-{language}-*.json"))
    }


def english_share_arms(recipe: Recipe) -> dict[str, Recipe]:
    """Short runs of a recipe with other shares of English, by name; a share of 1 is the control without the target."""
    training = recipe.training.model_copy(update={"budget_tokens": recipe.mixture.sweep_tokens})
    return {
        f"{share:.0%} English": recipe.model_copy(
            update={"training": training, "mixture": recipe.mixture.model_copy(update={"english_share": share})}
        )
        for share in recipe.mixture.sweep
    }


def dial(
    start: PreTrainedModel,
    end: PreTrainedModel,
    change: VocabularyChange,
    before: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    scores: Scores | None = None,
) -> Sweep:
    """The target language against English on the way from the start to the adapted model, without training.

    At the start, rows of new tokens are what initialisation made of them; all others are the base's.

    Args:
        start: the base model with new rows, before training.
        end: the adapted model.
        change: of the vocabulary.
        before: the base model and its tokenizer, which all points are compared with.
        corpus: whose `heldout` is measured on.
        recipe: points of the way, documents, windows.
        scores: of the base and the adapted model on documents of this corpus, which are not measured again.

    Source: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903.
    """
    texts, window = heldout_texts(corpus, recipe.dial_documents), recipe.window_tokens
    known = [_rows_known(scores, place, corpus, recipe) for place in (0, -1)] if scores else [None, None]
    rows = _labelled(BEFORE, known[0]) or document_rows(*before, texts, window, BEFORE, 0)
    for share in recipe.dial:
        arm = f"{share:.0%} of the way"
        if share == 1 and known[1]:
            rows += _labelled(arm, known[1])
        else:
            model = interpolate(start, end, share)
            rows += document_rows(model, change.tokenizer, texts, window, arm, 0)
    return Sweep(corpus.language, pd.DataFrame(rows, columns=COLUMNS))


def _rows_known(scores: Scores, place: int, corpus: Corpus, recipe: EvaluationRecipe) -> list[list[Any]] | None:
    """The rows of the dial's documents under the first (0) or last (-1) model of scores, if all of them are there."""
    mine = scores.documents[scores.documents.model == scores.models[place]].set_index(["language", "id"])
    rows = []
    for code in (corpus.language, "en"):
        ids = corpus.heldout[code].shuffle(seed=0)["id"][: recipe.dial_documents]
        if not all((code, name) in mine.index for name in ids) or mine.index.has_duplicates:
            return None
        found = mine.loc[[(code, name) for name in ids]]
        rows += [[code, index, *pair] for index, pair in enumerate(zip(found.bits, found.bytes, strict=True))]
    return rows


def _labelled(arm: str, rows: Sequence[list[Any]] | None) -> list[list[Any]]:
    return [[arm, 0, *row] for row in rows or ()]


def sweep(
    arms: Mapping[str, Recipe],
    corpus: Corpus,
    start: Start,
    before: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    *,
    texts: Mapping[str, Sequence[str]] | None = None,
    documents: int = 12,
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Train every arm from its start and measure all on the same documents.

    Args:
        arms: recipes by name.
        corpus: whose `heldout` is measured on.
        start: gives what an arm starts from, by its name and recipe: the model with rows for new tokens, the change of
            the vocabulary, and the corpus whose `train` is trained on.
        before: the model and tokenizer that all are compared with.
        texts: to measure on, by language; held-out documents where not given.
        documents: how many of those.
        seeds: of the order of the training text.
        report: called with a line on progress.
    """
    texts = texts or heldout_texts(corpus, documents)
    window = next(iter(arms.values())).evaluation.window_tokens
    rows = document_rows(*before, texts, window, BEFORE, 0)
    for seed in seeds:
        for name, recipe in arms.items():
            report(f"{name}, seed {seed}")
            model, change, trained_on = start(name, recipe)
            mixture = mix(
                trained_on,
                change.tokenizer,
                recipe.mixture.model_copy(update={"seed": seed}),
                budget_tokens=recipe.training.budget_tokens,
            )
            with tempfile.TemporaryDirectory() as folder:
                settings = recipe.training.model_copy(update={"seed": seed, "report_to": []})  # a tracker has one run
                trained = train(model, change, mixture, settings, folder)
            rows += document_rows(trained.model, change.tokenizer, texts, window, name, seed)
    return Sweep(corpus.language, pd.DataFrame(rows, columns=COLUMNS))
