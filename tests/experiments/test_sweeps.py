import copy
import json
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.evaluate import evaluate
from langadapt_utils.evaluation.likelihood import document_bits
from langadapt_utils.experiments.comparison import (
    BEFORE,
    COLUMNS,
    Comparison,
    interpolation_sweep,
    recorded_sweeps,
    sweep,
)
from langadapt_utils.experiments.views import plot_sweep
from langadapt_utils.recipe import EvaluationRecipe, Recipe
from langadapt_utils.training.train import interpolate
from langadapt_utils.vocabulary.change import VocabularyChange

RECIPE = Recipe.profile(
    "smoke",
    overrides={
        "mixture.sequence_length": 32,
        "training.batch_tokens": 256,
        "training.micro_batch_tokens": 256,
        "training.learning_rate": 3e-3,
        "training.interpolation": 1.0,
        "training.precision": "float32",
    },
)


VARIANTS = {
    f"{share:.0%} English": RECIPE.with_options(
        {"mixture.english_share": share, "training.budget_tokens": 12_288}
    )
    for share in (0.0, 0.5, 1.0)
}


@pytest.fixture(scope="module")
def found(
    corpora: dict[str, Corpus], change: VocabularyChange, tokenizer: PreTrainedTokenizerFast
) -> Comparison:
    base = llama(len(tokenizer))
    start = initialise_embeddings(base, change)
    corpus = corpora["hu"]
    return sweep(
        VARIANTS,
        corpus,
        lambda name, recipe: (start, change, corpus),
        (base, tokenizer),
        documents=4,
        seeds=(0, 1),
    )


def test_each_language_learns_most_where_there_is_most_of_it(found: Comparison) -> None:
    bits = (
        found.summary()
        .set_index(["variant", "language"])
        .bits_per_byte.map(lambda estimate: estimate.value)
    )
    assert bits["0% English", "hu"] < bits["50% English", "hu"] < bits["100% English", "hu"]
    assert bits["100% English", "en"] < bits["50% English", "en"] < bits["0% English", "en"]


def test_seeds_and_documents_are_all_there(found: Comparison) -> None:
    sizes = (
        found.table[found.table.variant != BEFORE].groupby(["variant", "seed", "language"]).size()
    )
    assert len(sizes) == 3 * 2 * 2 and set(sizes) == {4}
    assert (
        found.table[found.table.variant != BEFORE]
        .groupby(["variant", "document", "language"])
        .bits.nunique()
        .max()
        == 2
    )


def table(rows: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            [variant, 0, 0, code, i, value, 100]
            for (variant, code), values in rows.items()
            for i, value in enumerate(values)
        ],
        columns=COLUMNS,
    )


def test_findings_follow_the_tests() -> None:
    rows = {
        (BEFORE, "hu"): [300.0, 310.0, 305.0, 295.0, 302.5],
        ("a", "hu"): [200.0, 205.0, 201.0, 199.0, 201.25],
        ("b", "hu"): [220.0, 225.0, 221.0, 219.0, 221.25],
        (BEFORE, "en"): [100.0, 101.0, 102.0, 103.0, 101.5],
        ("a", "en"): [110.0, 111.0, 112.0, 113.0, 111.5],
        ("b", "en"): [101.0, 100.0, 103.0, 102.0, 101.5],
    }
    assert Comparison("hu", table(rows)).findings() == [
        "Hungarian is lowest with a: 2.013 bits per byte.",
        "English is worse than before with a.",
        "English is not significantly different from before with b.",
    ]


def test_the_front_has_what_nothing_beats_in_both() -> None:
    bits = {"a": (1.0, 5.0), "b": (2.0, 2.0), "c": (3.0, 1.0), "d": (2.5, 3.0), BEFORE: (6.0, 1.0)}
    rows = {
        (variant, code): [100 * value] * 3
        for variant, pair in bits.items()
        for code, value in zip(("hu", "en"), pair, strict=True)
    }
    assert Comparison("hu", table(rows)).front() == ["a", "b", "c"]


@pytest.mark.parametrize("documents", [2, 7])
def test_interpolation_goes_from_the_start_to_the_adapted_model(
    documents: int,
    corpora: dict[str, Corpus],
    change: VocabularyChange,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The base and the adapted model have the bits that evaluation measured: they read nothing."""
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    start = initialise_embeddings(base.model, change)
    end = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.mul_(1.5)
    adapted = saved(end, change.tokenizer, tmp_path / "adapted")
    models, corpus = {"base": base, "control": adapted, "adapted": adapted}, corpora["hu"]
    sizes = {"documents": documents, "other_documents": 1, "items": 1, "comparison_documents": 3}
    recipe = EvaluationRecipe(interpolation_points=[0.0, 0.5, 1.0], **sizes)
    scores = evaluate(models, corpus, recipe, resamples=100, new_tokens=1)
    readers: list[torch.Tensor] = []
    plain = likelihood.read

    def watched(model: PreTrainedModel, *inputs: torch.Tensor, **options: torch.Tensor) -> object:
        if inputs[0].shape != (1, 8):  # the trial that finds kept bits
            readers.append(model.lm_head.weight)
        return plain(model, *inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(likelihood, "read", watched)
        turned = interpolation_sweep(start, models, scores, corpus, recipe)
    assert len(set(map(id, readers))) == 2  # the start and the model between
    middle = interpolate(start, adapted.model, 0.5)
    expected = {BEFORE: (base.model, tokenizer), "0% of the way": (start, change.tokenizer)}
    expected |= {"50% of the way": (middle, change.tokenizer)}
    expected |= {"100% of the way": (adapted.model, change.tokenizer)}
    assert list(turned.table.variant.unique()) == list(expected)
    for code in ("hu", "en"):
        texts = corpus.heldout[code].shuffle(seed=0)["text"][: min(3, documents)]
        for variant, loaded in expected.items():
            own = turned.table[turned.table.variant == variant]
            found = own[own.language == code]
            bits = document_bits(*loaded, texts)
            assert found.bits.tolist() == pytest.approx(bits.tolist(), rel=1e-3)
            assert found.bytes.tolist() == [len(text.encode()) for text in texts]


def test_a_sweep_is_drawn_and_recorded(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").mkdir()
    found.save(tmp_path / "reference" / "sweep-hu-mine.json", {"commit": "abc", "seconds": 3})
    monkeypatch.setattr("langadapt_utils.experiments.comparison.data_folder", lambda: tmp_path)
    recorded = recorded_sweeps("hu")
    assert (
        list(recorded) == ["mine"]
        and recorded["mine"]["commit"] == "abc"
        and not recorded_sweeps("th")
    )
    assert len(recorded["mine"]["summary"]) == len(found.summary())
    ax = plot_sweep(found, recorded)
    texts = [text.get_text().partition(",")[0] for text in ax.texts]
    assert (
        all(texts.count(variant) == 2 for variant in set(found.table.variant))
        and "mine" in ax.get_xlabel()
    )
    twice = plot_sweep(found, recorded | {"other": recorded["mine"]})
    assert {f"{variant} (recorded, other)" for variant in set(found.table.variant)} <= {
        text.get_text() for text in twice.texts
    }
    assert ax.get_title(loc="left").replace("\n", " ") == " ".join(found.findings()[:2])


def test_variants_from_elsewhere() -> None:
    pairs = {BEFORE: (4.0, 4.0), "a": (1.0, 3.0), "b": (1.2, 1.2), "c": (3.0, 1.0)}
    rows = {
        (variant, code): [value * 8 for _ in range(6)]
        for variant, pair in pairs.items()
        for code, value in zip(("hu", "en"), pair, strict=True)
    }
    sweep = Comparison("hu", table(rows))
    renamed = Comparison("hu", sweep.table[sweep.table.variant == "a"].assign(variant="d"))
    both = sweep.with_variants(renamed)
    assert set(both.table.variant) == {BEFORE, "a", "b", "c", "d"}
    others = Comparison("hu", renamed.table.assign(bytes=99))
    assert sweep.with_variants(others) is sweep
    assert {"c, chosen"} <= {text.get_text() for text in plot_sweep(sweep, chosen="c").texts}


def test_no_label_of_the_recorded_sweep_covers_another() -> None:
    content = recorded_sweeps("hu")["cpu-40k"]
    values = {
        (row["variant"], row["language"]): row["bits_per_byte"]["value"]
        for row in content["summary"]
    }
    rows = [
        [variant, 0, 0, code, i, 8 * value, 8]
        for (variant, code), value in values.items()
        for i in range(6)
    ]
    ax = plot_sweep(Comparison("hu", pd.DataFrame(rows, columns=COLUMNS)))
    ax.figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts if text.get_text()}
    assert len(boxes) == len(values) / 2
    assert not [pair for pair in combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])]


def test_recorded_sweeps_say_where_they_come_from() -> None:
    for language in ("hu", "th"):
        for content in recorded_sweeps(language).values():
            assert {"commit", "recipes", "data", "hardware", "seconds", "summary"} <= set(content)
            json.dumps(content)


def test_points_that_differ_by_little_have_names_of_their_own(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    model: PreTrainedModel,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    base = saved(model, tokenizer, tmp_path / "base")
    start = initialise_embeddings(base.model, change)
    adapted = saved(start, change.tokenizer, tmp_path / "adapted")
    recipe = EvaluationRecipe(
        interpolation_points=[0.5, 0.504, 0.996, 1.0], documents=2, other_documents=1, items=1
    )
    models = {"base": base, "adapted": adapted}
    scores = evaluate(models, corpora["hu"], recipe, resamples=100, new_tokens=1)
    found = interpolation_sweep(start, models, scores, corpora["hu"], recipe).table
    names = ["50% of the way", "50.4% of the way", "99.6% of the way", "100% of the way"]
    assert list(found.variant.unique()) == [BEFORE, *names]
