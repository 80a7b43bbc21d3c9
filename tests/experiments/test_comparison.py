"""Comparing methods: what is measured, and what may be said of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from helpers.tiny import llama, saved
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.experiments.comparison import (
    BEFORE,
    COLUMNS,
    Comparison,
    compare_methods,
    recorded,
)
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary.change import VocabularyChange


def comparison(levels: dict[tuple[str, int], float], documents: int = 30) -> Comparison:
    """Documents whose bits scatter by a tenth around a level for each method and steps."""
    scatter = np.random.default_rng(0).normal(1, 0.1, documents)
    rows = [
        [variant, steps, 0, language, index, level * scatter[index] * 1000, 1000]
        for (variant, steps), level in levels.items()
        for language in ("hu", "en")
        for index in range(documents)
    ]
    return Comparison("hu", pd.DataFrame(rows, columns=COLUMNS), "subword_mean")


REVERSED = {
    ("base model", 0): 3.0,
    ("subword_mean", 0): 2.9,
    ("calibrated", 0): 3.1,
    ("focus", 0): 2.9,
    ("base model", 50): 3.0,
    ("subword_mean", 50): 2.5,
    ("calibrated", 50): 2.4,
    ("focus", 50): 2.5,
}


def test_the_findings_rank_each_stage() -> None:
    said = comparison(REVERSED)
    text = " ".join(said.findings())
    assert "Hungarian after 50 steps: calibrated is lowest (2.3" in text
    assert "significantly better than subword_mean: none" in said.findings()[0]
    assert "significantly better than subword_mean: calibrated." in said.findings()[1]


def test_what_is_equal_is_not_ranked() -> None:
    equal = comparison(
        {(method, steps): 2.0 for method in ("subword_mean", "mean") for steps in (0, 50)}
    )
    *ranked, caution = equal.findings()
    assert all("none" in sentence for sentence in ranked)
    assert caution.startswith("One seed")


def test_without_the_reference_nothing_is_said_of_it() -> None:
    alone = comparison({("focus", 0): 2.9, ("focus", 1): 2.5})
    before, after, _ = alone.findings()
    assert before.startswith("Hungarian before training: focus is lowest (2.")
    assert after.startswith("Hungarian after 1 step: focus is lowest (2.")
    assert "subword_mean" not in before + after
    of_recipes = replace(alone, table=alone.table[alone.table.steps == 0], reference=BEFORE)
    assert len(of_recipes.findings()) == 1


def test_the_summary_pairs_documents() -> None:
    summary = comparison(REVERSED).summary().set_index(["variant", "steps", "language"])
    row = summary.loc[("calibrated", 50, "hu")]
    assert row.bits_per_byte.value == pytest.approx(2.4, rel=0.05) and row.bits_per_byte.units == 30
    assert (
        row.change.value == pytest.approx(2.4 / 2.5 - 1) and row.change.high - row.change.low < 1e-9
    )


def test_methods_are_trained_on_the_same_data_and_measured_on_held_out_text(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    overrides = {
        "mixture.sequence_length": 64,
        "training.precision": "float32",
        "training.learning_rate": 0.01,
    }
    recipe = Recipe.profile("smoke", overrides=overrides)
    ways = {
        "subword_mean": {},
        "again": {},
        "untied": {"untie": True},
        "random": {"method": "random"},
    }
    said = compare_methods(
        base,
        change,
        corpora["hu"],
        recipe,
        methods=ways,
        steps=(0, 8),
        seeds=(0, 1),
        documents=3,
        batch_tokens=128,
    )
    bits = said.table.pivot_table(
        index=["variant", "steps", "seed", "language"], columns="document", values="bits"
    )
    assert len(said.table) == (1 + 4 * 2) * 2 * 2 * 3
    pd.testing.assert_frame_equal(bits.loc["subword_mean"], bits.loc["again"])
    before, after = (bits.loc[("subword_mean", steps)].sum(axis=1) for steps in (0, 8))
    assert (after < before).xs("hu", level="language").all()
    assert not np.allclose(bits.loc[("random", 0, 0)], bits.loc[("random", 0, 1)])
    assert not np.allclose(bits.loc[("subword_mean", 8, 0)], bits.loc[("subword_mean", 8, 1)])
    assert np.allclose(bits.loc[("subword_mean", 0, 0)], bits.loc[("subword_mean", 0, 1)])
    said.save(tmp_path / "comparison.json")
    stored = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert stored["findings"] == said.findings() and len(stored["documents"]) == len(said.table)


def test_the_steps_that_were_made_are_told_where_a_step_is_shorter_than_a_sequence(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    """Eight steps of 32 tokens are two sequences of 128, and so two steps."""
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    recipe = Recipe.profile("smoke", overrides={"mixture.sequence_length": 128})
    said = compare_methods(
        base,
        change,
        corpora["hu"],
        recipe,
        methods=["subword_mean"],
        steps=(0, 8),
        documents=2,
        batch_tokens=32,
    )
    assert set(said.table.steps) == {0, 2}
    assert any("after 2 steps" in sentence for sentence in said.findings())


def test_the_figure_states_what_was_found_after_training() -> None:
    axes = la.plot_sweep(comparison(REVERSED))
    title = axes.get_title(loc="left").replace("\n", " ")
    assert title == " ".join(comparison(REVERSED).findings()[1:3])
    names = [text.get_text() for text in axes.texts]
    assert names.count("calibrated") == 2 and names.count("base model") == 1  # not trained
    assert axes.get_xlabel().endswith("hollow: before training")
    stages = {(name, steps): 2.5 - steps / 100 for name in ("mean", "focus") for steps in (1, 5, 9)}
    axes = la.plot_sweep(comparison(stages))
    assert axes.get_xlabel().endswith("hollow: after 1 step, after 5 steps")
    assert "mean (after 5 steps)" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("language", ["hu", "th"])
def test_recorded_comparisons_say_how_they_were_made(language: str) -> None:
    content = recorded(f"embeddings-{language}")
    assert content["recipe"]["language"] == language and "dirty" not in content["commit"]
    assert {row["steps"] for row in content["summary"]} == {0, 50} and content["hardware"]["cores"]
