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
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.likelihood import bits_per_byte, continuation_bits, document_bits
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


def windows_by_hand(
    ids: list[int], sizes: list[int], window: int, context_bytes: int
) -> list[tuple[int, int]]:
    """The first token of the window in which each token is scored, beside the token's index."""
    begins, begin, end = [], 0, window
    for index in range(1, len(ids)):
        if index == end:  # a new window: go back until the context is long enough
            begin = index
            enough = max(context_bytes, 1)  # a token is scored after another one
            while sum(sizes[begin:index]) < enough and index - begin < window // 2:
                begin -= 1
            end = begin + window
        begins.append((begin, index))
    return begins


@pytest.mark.parametrize(
    ("window", "context_bytes"), [(32, 20), (32, 512), (64, 0), (64, 1), (128, 100)]
)
def test_long_texts_are_read_in_windows(
    window: int, context_bytes: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each token is as likely as a pass over its own context alone says."""
    model = gpt2(len(tokenizer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # so that every token of the context counts
    text = "".join(f"a long text, part {number}, goes on and on; " for number in range(12))
    ids = [document_start(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert len(ids) > 128
    sizes = byte_lengths(tokenizer)[ids].tolist()
    expected = 0.0
    for begin, index in windows_by_hand(ids, sizes, window, context_bytes):
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:index]])).logits[0, -1]
        expected -= logits.log_softmax(dim=-1)[ids[index]].item() / math.log(2)
    options = {"window_tokens": window, "context_bytes": context_bytes}
    assert document_bits(model, tokenizer, [text], **options)[0] == pytest.approx(
        expected, rel=1e-5
    )


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
