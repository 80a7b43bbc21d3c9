"""Compare variants on the same documents: embedding methods, recipes, interpolated models.

The loss before training can rank methods wrongly (arXiv 2608.03494). So each variant is trained on
the same data in the same order, with several seeds if there is time, and differences are tested on
the same documents.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any, Self

import pandas as pd
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..corpus.corpus import Corpus
from ..display.html import render
from ..embeddings.initialise import initialise_embeddings
from ..evaluation.likelihood import document_bits, kept_bits, shared_window
from ..evaluation.scores import Scores
from ..files import data_folder, read_json, write_json
from ..hardware import device
from ..intervals import plain, ratio, relative_change
from ..languages import Texts
from ..models import Base, Models
from ..recipe import EvaluationRecipe, Recipe
from ..training.mixture import mix
from ..training.train import interpolate, train
from ..vocabulary.change import VocabularyChange

Loaded = tuple[PreTrainedModel, Tokenizer]  # a model and its tokenizer

BASE, BEFORE, SUBWORD_MEAN = "base model", "before", "subword_mean"
COLUMNS = ["variant", "steps", "seed", "language", "document", "bits", "bytes"]


@dataclass(frozen=True)
class Comparison:
    """Results of variants on the same documents, after one or more numbers of training steps.

    Attributes:
        target: code of the target language.
        table: one row per document and measurement: `variant`, `steps`, `seed`, `language`,
            `document`, `bits`, `bytes`.
        reference: variant that the others are compared with, at the same number of steps.
    """

    target: str
    table: pd.DataFrame
    reference: str = BEFORE

    def summary(self) -> pd.DataFrame:
        """Return bits per byte by variant, steps and language, and the change from the reference.

        Intervals are over documents, after the bits of each document are averaged over seeds.
        """
        rows = []
        for (language, steps), group in self.table.groupby(["language", "steps"], sort=False):
            # Averaged over seeds, of shape (variants, documents).
            bits = group.pivot_table("bits", index="variant", columns="document", sort=False)
            sizes = group.groupby("document")["bytes"].first().loc[bits.columns].to_numpy(float)
            for variant, values in zip(bits.index, bits.to_numpy(), strict=True):
                score, change = ratio(values, sizes), None
                if variant not in (self.reference, BASE) and self.reference in bits.index:
                    change = relative_change(bits.loc[self.reference].to_numpy(), values)
                rows.append([variant, steps, language, score, change])
        columns = ["variant", "steps", "language", "bits_per_byte", "change"]
        return pd.DataFrame(rows, columns=columns)

    def findings(self) -> list[str]:
        """Return the results of the tests as sentences."""
        table = self.summary().query("variant not in (@BASE, @BEFORE)")
        target, english = (table[table.language == code] for code in (self.target, "en"))
        stages = [(steps, list(rows.itertuples())) for steps, rows in target.groupby("steps")]
        last, seeds = stages[-1][0], self.table[self.table.variant != BASE].seed.nunique()
        about = {"target": self.target, "stages": stages, "reference": self.reference, "when": when}
        about |= {"english": list(english.itertuples()), "one_seed": last and seeds == 1}
        return render("experiments/findings.txt.j2", **about).split("\n")

    def front(self) -> list[str]:
        """Return the Pareto front: variants that no other beats in both languages.

        The best variant in the target language comes first.
        """
        sums = self.table.groupby(["variant", "language"], sort=False)[["bits", "bytes"]].sum()
        values = (sums.bits / sums.bytes).unstack().sort_values(self.target, kind="stable")
        one, other = values.to_numpy()[:, None], values.to_numpy()
        beats = (one <= other).all(axis=-1) & (one < other).any(axis=-1)
        return list(values.index[~beats.any(axis=0)])

    def with_variants(self, other: Self) -> Self:
        """Add the variants of another comparison, if both used the same documents."""
        added = other.table[other.table.variant != BEFORE]
        tables = (t.groupby(["language", "document"])["bytes"].first() for t in (self.table, added))
        if not next(tables).equals(next(tables)):
            return self
        return replace(self, table=pd.concat([self.table, added], ignore_index=True))

    def save(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        """Write findings, summary, documents and the entries of `about` as JSON."""
        content = {"target": self.target, **(about or {}), "findings": self.findings()}
        write_json(path, plain(content | {"summary": self.summary(), "documents": self.table}))


def when(steps: int) -> str:
    """Return a number of training steps as a phrase.

    Example:
        >>> when(0), when(1), when(50)
        ('before training', 'after 1 step', 'after 50 steps')
    """
    return f"after {steps} step{'' if steps == 1 else 's'}" if steps else "before training"


def compare_methods(
    base: Base,
    change: VocabularyChange,
    corpus: Corpus,
    recipe: Recipe,
    *,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    steps: Sequence[int] = (0, 20),
    seeds: Sequence[int] = (0,),
    documents: int = 12,
    batch_tokens: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Compare methods for new embeddings, before and after training steps.

    Args:
        base: the model and its tokenizer.
        change: of the vocabulary.
        corpus: `train` is used for training, `heldout` for evaluation.
        recipe: mixture, learning rates and window.
        methods: names in `METHODS`, or keyword arguments of `initialise_embeddings` by any name;
            by default the methods of the recipe.
        steps: numbers of training steps. Each is a run with its own schedule; 0: before training.
        seeds: of random embeddings and of the order of the text, the same for all methods.
        documents: held-out documents per language.
        batch_tokens: tokens per training step; `Recipe.probe_batch_tokens` by default.
        report: called with a line of progress.

    Raises:
        ModelError: a method is unknown, or a training or likelihood is not finite.
    """
    methods = methods or recipe.embeddings.compare
    ways = methods if isinstance(methods, Mapping) else {name: {"method": name} for name in methods}
    batch = batch_tokens or recipe.probe_batch_tokens
    most = min(batch, recipe.training.micro_batch_tokens)
    sizes = {"batch_tokens": batch, "micro_batch_tokens": most, "interpolation": 1.0}
    probe = recipe.with_options({f"training.{name}": value for name, value in sizes.items()})
    texts, untrained = heldout_texts(corpus, documents), (base.model, base.tokenizer)
    both = untrained, (base.model, change.tokenizer)
    window = shared_window(both, [*chain(*texts.values())], recipe.evaluation.window_bytes)
    report(BASE)
    untouched = document_rows(untrained, texts, window)

    rows = []
    for seed, (name, options) in product(seeds, ways.items()):
        report(f"{name}, seed {seed}")
        start = initialise_embeddings(base.model, change, **{"seed": seed, **options})
        for number in steps:
            model, made = start, 0
            if number:
                asked = probe.with_options({"training.budget_tokens": number * batch})
                model, made = _trained(start, change, corpus, asked, seed)
            rows += document_rows((model, change.tokenizer), texts, window, name, made, seed)
    stages = dict.fromkeys(row[1] for row in rows)
    rows = [[BASE, made, 0, *row] for made in stages for row in untouched] + rows
    return Comparison(corpus.language, pd.DataFrame(rows, columns=COLUMNS), SUBWORD_MEAN)


def sweep(
    variants: Mapping[str, Recipe],
    corpus: Corpus,
    start: Callable[[str, Recipe], tuple[PreTrainedModel, VocabularyChange, Corpus]],
    before: Loaded,
    *,
    texts: Texts | None = None,
    documents: int = 12,
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Train several recipes and evaluate all models on the same documents.

    Args:
        variants: recipes by name.
        corpus: its `heldout` part is used for evaluation.
        start: called with name and recipe of a variant. It returns the model with new embeddings,
            the change of the vocabulary, and the corpus whose `train` part is used.
        before: the model and tokenizer that all variants are compared with.
        texts: for evaluation, by language; held-out documents by default.
        documents: number of held-out documents per language.
        seeds: of the order of the training text.
        report: called with a line of progress.

    Raises:
        ModelError: a training diverges, or a likelihood is not finite.
    """
    texts = texts or heldout_texts(corpus, documents)
    asked = next(iter(variants.values())).evaluation.window_bytes
    window = shared_window([before], [*chain(*texts.values())], asked)
    rows = document_rows(before, texts, window, BEFORE, 0, 0)
    for seed, (name, recipe) in product(seeds, variants.items()):
        report(f"{name}, seed {seed}")
        model, change, own = start(name, recipe)
        trained, _ = _trained(model, change, own, recipe, seed)
        rows += document_rows((trained, change.tokenizer), texts, window, name, 0, seed)
    return Comparison(corpus.language, pd.DataFrame(rows, columns=COLUMNS))


def interpolation_sweep(
    start: PreTrainedModel, models: Models, scores: Scores, corpus: Corpus, recipe: EvaluationRecipe
) -> Comparison:
    """Evaluate models interpolated between the start and the adapted model.

    All points are compared with the base. The bits that it and the adapted model gave to the same
    documents for `scores` come from the cache, if they are still there.

    Args:
        start: the base model with new embeddings, before training.
        models: the evaluated ones by name, as for `evaluate`.
        scores: of these models.
        corpus: its `heldout` part is used.
        recipe: points of the interpolation, documents.

    Source: WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903.
    """
    texts, window = heldout_texts(corpus, recipe.compared), scores.window_bytes
    base, end = (models[scores.models[place]] for place in (0, -1))
    rows = document_rows((base.model, base.tokenizer), texts, window, BEFORE, 0, 0)
    base.release()
    for share in recipe.interpolation_points:
        point = end.model if share == 1 else interpolate(start, end.model, share)
        label = f"{100 * share:g}% of the way"
        rows += document_rows((point, end.tokenizer), texts, window, label, 0, 0)
    return Comparison(corpus.language, pd.DataFrame(rows, columns=COLUMNS))


def heldout_texts(corpus: Corpus, documents: int) -> dict[str, Sequence[str]]:
    """Return held-out documents of the target language and English."""
    parts = {code: corpus.heldout[code].shuffle(seed=0) for code in (corpus.language, "en")}
    return {code: part["text"][:documents] for code, part in parts.items()}


def document_rows(loaded: Loaded, texts: Texts, window_bytes: int, *labels: Any) -> list[list[Any]]:
    """Return one row per text: the labels, language, document, bits, bytes."""
    (model, tokenizer), rows = loaded, []
    kept = kept_bits(model.to(device()))
    for code, lines in texts.items():
        bits = document_bits(model, tokenizer, lines, window_bytes=window_bytes, keep=kept)
        sizes = [len(text.encode()) for text in lines]
        rows += [[*labels, code, *row] for row in zip(range(len(bits)), bits, sizes, strict=True)]
    model.to("cpu")
    return rows


def _trained(
    start: PreTrainedModel, change: VocabularyChange, corpus: Corpus, recipe: Recipe, seed: int
) -> tuple[PreTrainedModel, int]:
    """Train without checkpoints and trackers; return the model and the number of steps."""
    options = {"training.report_to": [], "training.checkpoint_minutes": 1e9}
    recipe, budget = recipe.with_options(options), recipe.training.budget_tokens
    mixture = mix(corpus, change.tokenizer, recipe.mixture, budget_tokens=budget, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        result = train(start, change, mixture, recipe.training, folder, seed=seed)
    return result.model, len(result.steps)


def recorded(name: str) -> dict[str, Any]:
    """Read a comparison that the project recorded: commit, recipe, hardware, findings.

    Args:
        name: of a file in `data/reference`, such as `embeddings-hu`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return dict(read_json(data_folder() / "reference" / f"{name}.json"))


def recorded_sweeps(language: str) -> dict[str, dict[str, Any]]:
    """Read the recorded sweeps in a language, by name; empty if there are none.

    Args:
        language: code of the target language.
    """
    paths = sorted((data_folder() / "reference").glob(f"sweep-{language}-*.json"))
    return {path.stem.removeprefix(f"sweep-{language}-"): recorded(path.stem) for path in paths}
