import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import gpt2, llama, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from langadapt_utils import evaluation, hardware
from langadapt_utils.corpus import Corpus
from langadapt_utils.errors import CorpusError
from langadapt_utils.evaluation import (
    Estimate,
    Scores,
    bits_per_byte,
    continuation_bits,
    document_bits,
    evaluate,
    generate,
    opening,
    ratio,
    relative_change,
    score_items,
    sign,
    text_quality,
    wilson,
)
from langadapt_utils.recipe import EvaluationRecipe
from langadapt_utils.sources import Base
from langadapt_utils.tokens import byte_lengths, document_start


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "float32")


def direct_bits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """The plain reference: one pass over the whole text, one token after the other."""
    ids = [document_start(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        probabilities = model(torch.tensor([ids])).logits[0].softmax(dim=-1)
    return -sum(math.log2(probabilities[i, token]) for i, token in enumerate(ids[1:]))


def test_bits_are_those_computed_directly(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["A short text.", "", "Egy másik, árvíztűrő szöveg, hosszabb is.", "x"]
    expected = [direct_bits(model, tokenizer, text) for text in texts]
    assert document_bits(model, tokenizer, texts) == pytest.approx(expected, rel=1e-4)


def test_bits_do_not_depend_on_the_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text number {i} " * (i % 5 + 1) for i in range(20)]
    together = document_bits(model, tokenizer, texts)
    monkeypatch.setattr(evaluation, "BATCH_TOKENS", 1)
    assert document_bits(model, tokenizer, texts) == pytest.approx(together, rel=1e-4)


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=90),
    window=st.integers(2, 20).map(lambda half: 2 * half),
    context=st.integers(0, 40),
)
def test_windows_score_every_token_once_with_context(sizes: list[int], window: int, context: int) -> None:
    ids = list(range(len(sizes)))
    pieces = list(evaluation._windows(0, ids, np.array(sizes), window, context))
    scored = [token for piece in pieces for token in piece.ids[piece.first :]]
    assert scored == ids[1:]
    assert all(len(piece.ids) <= window for piece in pieces)
    for piece in pieces[1:]:
        seen = sum(sizes[token] for token in piece.ids[: piece.first])
        assert seen >= context or piece.first == window // 2


def test_more_context_makes_text_cheaper_for_a_model_that_uses_it(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tokenizers that cut a text differently score it after the same bytes."""
    seen: list[int] = []

    def bits(model: object, pieces: list[Any], units: int) -> np.ndarray:
        sizes = byte_lengths(tokenizer)
        seen.extend(int(sizes[piece.ids[: piece.first]].sum()) for piece in pieces[1:])
        return np.zeros(units)

    monkeypatch.setattr(evaluation, "_bits", bits)
    document_bits(llama(len(tokenizer)), tokenizer, ["word and another " * 60], window_tokens=64, context_bytes=50)
    longest = max(len(token) for token in tokenizer.get_vocab())
    assert len(seen) > 3 and all(50 <= one < 50 + longest for one in seen)


def test_long_texts_are_read_in_windows(tokenizer: PreTrainedTokenizerFast) -> None:
    model, text = gpt2(len(tokenizer)), "a long text that goes on and on, " * 20
    bits = document_bits(model, tokenizer, [text])[0]
    assert len(tokenizer(text)["input_ids"]) > 128
    assert bits / len(text) == pytest.approx(
        math.log2(len(tokenizer)) * len(tokenizer(text)["input_ids"]) / len(text), rel=0.1
    )
    uniform_enough = document_bits(model, tokenizer, [text], window_tokens=32)[0]
    assert uniform_enough == pytest.approx(bits, rel=0.1)


def test_a_continuation_costs_what_it_adds(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    context, continuation = "The cat sat", " on the mat."
    cost = continuation_bits(model, tokenizer, [context, ""], [continuation, context])
    assert cost.sum() == pytest.approx(direct_bits(model, tokenizer, context + continuation), rel=1e-4)


def test_bits_per_byte_needs_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    score = bits_per_byte(model, tokenizer, ["one", "kettő", "สาม"])
    total = sum(direct_bits(model, tokenizer, text) for text in ("one", "kettő", "สาม"))
    assert score.value == pytest.approx(total / (3 + 6 + 9), rel=1e-4) and score.units == 3
    for texts in ([], ["", ""]):
        with pytest.raises(CorpusError, match="at least one text"):
            bits_per_byte(model, tokenizer, texts)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    model = llama(len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.zero_()
    text = "any text at all"
    expected = len(tokenizer(text)["input_ids"]) * math.log2(len(tokenizer)) / len(text)
    assert bits_per_byte(model, tokenizer, [text]).value == pytest.approx(expected, rel=1e-5)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator, truth = np.random.default_rng(0), 2.0
    covered = 0
    for _ in range(200):
        sizes = generator.integers(50, 150, size=60).astype(float)
        bits = truth * sizes + generator.normal(0, 40, size=60)
        estimate = ratio(bits, sizes, resamples=400)
        covered += estimate.low <= truth <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_paired_change_is_sharper_than_its_parts() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(100, 1_000, size=40)
    after = before * generator.normal(0.8, 0.01, size=40)
    change = relative_change(before, after, resamples=500)
    assert change.value == pytest.approx(-0.2, abs=0.01) and change.high - change.low < 0.02
    assert (sign(change), sign(relative_change(before, before, resamples=100))) == (-1, 0)
    assert sign(relative_change(after, before, resamples=100)) == 1


def test_wilson_intervals_are_the_published_ones() -> None:
    """The interval of 15 successes in 20 trials, from the formula of Wilson 1927 by hand: 0.531 to 0.888."""
    estimate = wilson(15, 20)
    assert (estimate.low, estimate.high) == (pytest.approx(0.531, abs=1e-3), pytest.approx(0.888, abs=1e-3))
    assert wilson(0, 10).low == pytest.approx(0) and wilson(10, 10).high == pytest.approx(1)


def test_items_are_judged_by_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the model finds every text with `good` in it likelier."""
    judged: list[tuple[str, str]] = []

    def bits(model: object, tokenizer: object, contexts: list[str], continuations: list[str]) -> np.ndarray:
        judged.extend(zip(contexts, continuations, strict=True))
        return np.array([1.0 if "good" in c + t else 50.0 for c, t in zip(contexts, continuations, strict=True)])

    monkeypatch.setattr(evaluation, "continuation_bits", bits)
    choice = [
        {"kind": "cause", "premise": "p", "choices": ["bad", "good"], "label": 1},
        {"kind": "effect", "premise": "p", "choices": ["bad", "good"], "label": 0},
    ]
    assert score_items(model, tokenizer, "choice", choice, "en") == [True, False]
    assert ("good ", "p") in judged and ("p ", "good") in judged
    cloze = [{"context": "c", "target": word} for word in ("good", "b", "c", "d")]
    assert score_items(model, tokenizer, "cloze", cloze, "th") == [True, False, False, False]
    pairs = [{"good": "a good one", "bad": "a worse one"}, {"good": "a fine one", "bad": "a good one"}]
    assert score_items(model, tokenizer, "pairs", pairs, "en") == [True, False]


@pytest.fixture(scope="module")
def scores(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> Scores:
    """Two tiny models: one of random weights, one that finds everything equally likely."""
    models = {}
    for name, flat in (("base", False), ("adapted", True)):
        model = llama(len(tokenizer))
        with torch.no_grad():
            model.model.norm.weight.fill_(0.0 if flat else 30.0)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        models[name] = Base(folder, name)
    recipe = EvaluationRecipe(documents=10, items=8, resamples=200, new_tokens=4)
    return evaluate(models, corpora["hu"], recipe)


def test_models_are_measured_on_the_same_things(scores: Scores) -> None:
    for table in (scores.documents, scores.items):
        counts = table.groupby(["model", "language"]).size().unstack()
        assert (counts.loc["base"] == counts.loc["adapted"]).all() and set(counts.columns) >= {"en", "hu"}
    assert len(scores.documents) == 40 and len(scores.samples) == 8


def test_findings_follow_from_the_tests(scores: Scores) -> None:
    table = scores.bits_per_byte()
    assert all(sign(change) == -1 for change in table.change)
    findings = scores.findings()
    assert len(findings) == 2 + 2 * 3 + 3 + 1
    assert all("fell by" in sentence and sentence.endswith(": better.") for sentence in findings[:2])
    unchanged = Scores(["base", "base"], "hu", scores.documents, scores.items, [], 200)
    assert all("no difference that this test can tell" in sentence for sentence in unchanged.findings()[:-1])


def test_what_was_retained_is_measured_above_chance() -> None:
    rows = [
        {"model": model, "language": "en", "kind": kind, "id": f"{kind}{i}", "correct": i < right}
        for kind, before, after in (("choice", 90, 70), ("pairs", 55, 50))
        for model, right in (("base", before), ("adapted", after))
        for i in range(100)
    ]
    scores = Scores(["base", "adapted"], "hu", pd.DataFrame(), pd.DataFrame(rows), [], 500)
    table = scores.accuracy().set_index("kind")
    assert table.retained["choice"].value == pytest.approx(0.5) and table.retained["pairs"] is None
    transfer = scores.backward_transfer()
    assert transfer.value == pytest.approx(-0.125) and transfer.low < -0.125 < transfer.high < 0


@pytest.mark.parametrize(
    ("text", "like", "quality"),
    [
        ("magyar szöveg", "Ez magyar.", (1.0, 0.0, 0.0)),
        ("ข้อความ abc", "ภาษาไทย", (2 / 3, 0.0, 0.0)),
        ("12345678" * 4, "x", (0.0, 1 - 8 / 25, 0.0)),
        ("ab\ufffd\ufffd", "x", (1.0, 0.0, 0.5)),
        ("", "x", (0.0, 0.0, 0.0)),
    ],
)
def test_generated_text_is_counted(text: str, like: str, quality: tuple[float, ...]) -> None:
    assert tuple(text_quality(text, like=like).values()) == pytest.approx(quality, abs=1e-3)


def test_a_model_compared_with_itself_is_never_told_apart(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    same = saved(model, tokenizer, tmp_path / "same")
    recipe = EvaluationRecipe(documents=6, items=8, resamples=200, new_tokens=4)
    findings = evaluate({"base": same, "adapted": same}, corpora["hu"], recipe).findings()
    assert all(line.endswith("no difference that this test can tell.") for line in findings[:-1])
    assert " 0 of them beyond doubt" in findings[-1]


def test_scores_are_read_back_the_same(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.json")
    again = Scores.load(tmp_path / "scores.json")
    assert again.findings() == scores.findings() and again.samples == scores.samples
    pd.testing.assert_frame_equal(again.documents, scores.documents)


def test_domains_add_up_to_the_whole(scores: Scores) -> None:
    by_domain = scores.bits_per_byte(by=("language", "domain"))
    assert sum(estimate.units for estimate in by_domain.before) == 20
    assert isinstance(by_domain.change.iloc[0], Estimate)


@given(text=st.text(max_size=200))
def test_an_opening_is_the_beginning(text: str) -> None:
    assert text.startswith(opening(text)) and len(opening(text)) <= 80


def test_generation_continues_a_prompt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    assert generate(model, tokenizer, "The cat", 5) == generate(model, tokenizer, "The cat", 5) != ""


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30))
@settings(deadline=None, max_examples=25)
def test_an_interval_holds_its_value(numbers: list[float]) -> None:
    values = np.array(numbers)
    estimate = ratio(values, np.ones(len(values)), resamples=200)
    assert estimate.value == pytest.approx(values.mean())
    assert values.min() - 1e-9 <= estimate.low <= estimate.high <= values.max() + 1e-9
