import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import gpt2, llama, train_tokenizer
from langadapt_utils import hardware
from langadapt_utils.errors import CorpusError
from langadapt_utils.evaluation import evaluate, likelihood
from langadapt_utils.evaluation.evaluate import generate, opening, score_items, text_quality
from langadapt_utils.evaluation.likelihood import bits_per_byte, continuation_bits, document_bits
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.recipe import EvaluationRecipe
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


def test_bits_are_those_computed_directly(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["A short text.", "", "Egy másik, árvíztűrő szöveg, hosszabb is.", "x"]
    expected = [direct_bits(model, tokenizer, text) for text in texts]
    assert document_bits(model, tokenizer, texts) == pytest.approx(expected, rel=1e-4)


def test_bits_do_not_depend_on_the_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text number {i} " * (i % 5 + 1) for i in range(20)]
    together = document_bits(model, tokenizer, texts)
    monkeypatch.setattr(likelihood, "BATCH_TOKENS", 1)
    assert document_bits(model, tokenizer, texts) == pytest.approx(together, rel=1e-4)


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=90),
    window=st.integers(2, 20).map(lambda half: 2 * half),
    context=st.integers(0, 40),
)
def test_windows_score_every_token_once_with_context(
    sizes: list[int], window: int, context: int
) -> None:
    ids = list(range(len(sizes)))
    pieces = list(likelihood._windows(0, ids, np.array(sizes), window, context))
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

    monkeypatch.setattr(likelihood, "_bits", bits)
    document_bits(
        llama(len(tokenizer)),
        tokenizer,
        ["word and another " * 60],
        window_tokens=64,
        context_bytes=50,
    )
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


def test_a_continuation_costs_what_it_adds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    context, continuation = "The cat sat", " on the mat."
    cost = continuation_bits(model, tokenizer, [context, ""], [continuation, context])
    assert cost.sum() == pytest.approx(
        direct_bits(model, tokenizer, context + continuation), rel=1e-4
    )


@pytest.mark.parametrize("make", [llama, gpt2])
def test_contexts_that_are_shared_change_nothing(
    make: Callable[[int], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make(len(tokenizer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    contexts = ["The cat sat", "A much longer context, and more of it, before", "One"]
    words = [" on the mat.", " x", " somewhere else entirely", " y z"]
    pairs = [(context, word) for context in contexts for word in words]
    together = continuation_bits(model, tokenizer, *zip(*pairs, strict=True))
    alone = [continuation_bits(model, tokenizer, [context], [word])[0] for context, word in pairs]
    assert together == pytest.approx(alone, rel=1e-4)


def test_a_token_across_the_border_is_scored_with_its_context() -> None:
    """A tokenizer that joins letters: the cost is that of both less that of the context."""
    joining = train_tokenizer(["abcd"] * 99, size=265)
    model = llama(len(joining))
    assert len(joining("abcd")["input_ids"]) == 1
    expected = direct_bits(model, joining, "abcd") - direct_bits(model, joining, "ab")
    assert continuation_bits(model, joining, ["ab"], ["cd"])[0] == pytest.approx(expected, rel=1e-4)


def test_bits_per_byte_needs_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    score = bits_per_byte(model, tokenizer, ["one", "kettő", "สาม"])
    total = sum(direct_bits(model, tokenizer, text) for text in ("one", "kettő", "สาม"))
    assert score.value == pytest.approx(total / (3 + 6 + 9), rel=1e-4) and score.units == 3
    for texts in ([], ["", ""]):
        with pytest.raises(CorpusError, match="at least one text"):
            bits_per_byte(model, tokenizer, texts)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = llama(len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.zero_()
    text = "any text at all"
    expected = len(tokenizer(text)["input_ids"]) * math.log2(len(tokenizer)) / len(text)
    assert bits_per_byte(model, tokenizer, [text]).value == pytest.approx(expected, rel=1e-5)


def test_items_are_judged_by_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the model finds every text with `good` in it likelier."""
    judged: list[tuple[str, str]] = []

    def bits(
        model: object, tokenizer: object, contexts: list[str], continuations: list[str]
    ) -> np.ndarray:
        judged.extend(zip(contexts, continuations, strict=True))
        return np.array(
            [1.0 if "good" in c + t else 50.0 for c, t in zip(contexts, continuations, strict=True)]
        )

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


def test_generation_continues_a_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert (
        generate(model, tokenizer, "The cat", 5) == generate(model, tokenizer, "The cat", 5) != ""
    )
