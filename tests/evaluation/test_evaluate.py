import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import llama, reply, saved
from langadapt_utils import hardware
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.evaluation import evaluate
from langadapt_utils.evaluation.evaluate import opening, score_items, text_quality
from langadapt_utils.evaluation.generation import sampled
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.recipe import EvaluationRecipe
from langadapt_utils.tokens import document_start, token_ids


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "float32")


def test_items_are_judged_by_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the model finds every text with `good` in it likelier."""
    judged: list[tuple[str, str]] = []

    def bits(model: object, tokenizer: object, pairs: list[tuple[str, str]]) -> np.ndarray:
        judged.extend(pairs)
        return np.array([1.0 if "good" in context + text else 50.0 for context, text in pairs])

    monkeypatch.setattr(evaluate, "continuation_bits", bits)
    choice = [
        {"kind": "cause", "premise": "p", "choices": ["bad", "good"], "label": 1},
        {"kind": "effect", "premise": "p", "choices": ["bad", "good"], "label": 0},
    ]
    assert score_items(model, tokenizer, "choice", choice, "en") == [True, False]
    assert ("good ", "p") in judged and ("p ", "good") in judged
    cloze = [{"context": "c", "target": word} for word in ("good", "b", "c", "d")]
    assert score_items(model, tokenizer, "cloze", cloze, "th") == [True, False, False, False]
    pairs = [
        {"good": "a good one", "bad": "a worse one"},
        {"good": "a fine one", "bad": "a good one"},
    ]
    assert score_items(model, tokenizer, "pairs", pairs, "en") == [True, False]


def test_a_model_that_finds_all_options_alike_is_right_as_often_as_chance(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with torch.no_grad():
        model.model.norm.weight.zero_()
    options = [" 11", " 22", " 33", " 44"]
    items = [{"context": "1", "options": options, "label": 0} for _ in range(40)]
    assert sum(score_items(model, tokenizer, "copying", items, "en")) == 10


def test_the_likeliest_option_counts_also_where_its_bits_are_negative(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a continuation whose first token also ends its context."""
    bits = np.array([-3.0, 2.0, 5.0, -4.0, -4.0 - 1e-12, 1.0])
    monkeypatch.setattr(evaluate, "continuation_bits", lambda *_: bits)
    items = [{"context": "", "options": ["a", "b", "c"], "label": 0}] * 2
    assert score_items(model, tokenizer, "copying", items, "en") == [True, False]  # the second ties


def test_documents_with_one_id_are_told_apart(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    """Such as the parts of a page, or files that are each numbered from 1."""
    corpus = corpora["hu"]
    same = {
        code: part.map(lambda row, place: {"id": f"page {place % 2}"}, with_indices=True)
        for code, part in corpus.heldout.items()
    }
    corpus = dataclasses.replace(corpus, heldout=same)
    models = {
        name: saved(llama(len(tokenizer)), tokenizer, tmp_path / name) for name in ("base", "new")
    }
    recipe = EvaluationRecipe(documents=5, other_documents=1, items=1)
    scores = evaluate.evaluate(models, corpus, recipe, new_tokens=2)
    ids = scores.documents[scores.documents.language == "hu"].groupby("model")["id"]
    assert ids.nunique().tolist() == [5, 5]
    table = scores.bits_per_byte()
    assert [change.units for change in table.change[:2]] == [5, 5]


def test_both_models_read_the_same_windows(
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The adapted one reads so little at once that the windows of both are smaller than asked."""
    long, short = llama(len(tokenizer)), llama(len(tokenizer))
    short.config.max_position_embeddings = 32
    windows: list[int] = []

    def bits(model: object, tokenizer: object, texts: list[str], **options: int) -> np.ndarray:
        windows.append(options["window_bytes"])
        return np.ones(len(texts))

    monkeypatch.setattr(evaluate, "document_bits", bits)
    models = {
        "base": saved(long, tokenizer, tmp_path / "base"),
        "adapted": saved(short, tokenizer, tmp_path / "adapted"),
    }
    recipe = EvaluationRecipe(documents=3, other_documents=1, items=1)
    evaluate.evaluate(models, corpora["hu"], recipe, new_tokens=2)
    assert len(windows) == 6 and len(set(windows)) == 1 and windows[0] <= 32 * 8
    assert "model" not in vars(models["base"])  # only one is in memory at a time


def test_models_are_measured_on_the_same_things(scores: Scores) -> None:
    for table in (scores.documents, scores.items):
        counts = table.groupby(["model", "language"]).size().unstack()
        assert (counts.loc["base"] == counts.loc["adapted"]).all() and set(counts.columns) >= {
            "en",
            "hu",
        }
    assert (
        len(scores.documents) == 2 * (10 + 10 + EvaluationRecipe().other_documents)
        and set(scores.documents.language) == {"en", "hu", "th"}
        and len(scores.samples) == 8
    )


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


@given(text=st.text(max_size=200))
def test_an_opening_is_the_beginning(text: str) -> None:
    assert text.startswith(opening(text)) and len(opening(text)) <= 80


def test_generation_takes_the_likeliest_token_and_repeats_no_three(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = llama(len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.fill_(30.0)
    (ids,) = token_ids(tokenizer, ["The cat sat on the mat, the cat sat"])
    start = [document_start(tokenizer), *ids]
    ids, banned_once = list(start), False
    for _ in range(24):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        triples = zip(ids, ids[1:], ids[2:], strict=False)
        banned = [third for first, second, third in triples if [first, second] == ids[-2:]]
        banned_once |= logits.argmax().item() in banned
        logits[banned] = -math.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    prompt = "The cat sat on the mat, the cat sat"
    written = reply(model, tokenizer, prompt, 24, **sampled(0)).text
    assert written == tokenizer.decode(ids[len(start) :], skip_special_tokens=True) != ""
    assert banned_once, "the model must want to repeat itself, or the test shows nothing"
