"""Pieces that share a beginning are read as a tree. Each piece has the same bits as alone."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from helpers.architectures import tiny_model
from helpers.tiny import llama
from langadapt_utils import hardware
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.likelihood import Pairs, token_bits

IDS = 300  # rows of the models


@pytest.fixture(autouse=True)
def small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees that fit the tiny models, in full precision."""
    monkeypatch.setattr(hardware, "native_precision", lambda: "float32")
    monkeypatch.setattr(likelihood, "TREE_TOKENS", 112)
    monkeypatch.setattr(likelihood, "DEEPEST", 98)


def louder(model: PreTrainedModel) -> PreTrainedModel:
    """Return a random model with larger matrices, so that every token before counts."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0 if weight.ndim > 1 else 1.0)
    return model.eval()


def tokens_read(model: PreTrainedModel, pairs: Pairs) -> tuple[list[list[float]], int]:
    """Return the bits, and the number of tokens that the model read for them."""
    sizes: list[int] = []
    body = model.get_input_embeddings()
    hook = body.register_forward_hook(lambda layer, given, out: sizes.append(given[0].numel()))
    bits = token_bits(model, pairs)
    hook.remove()
    return bits, sum(sizes)


def questions(lengths: tuple[int, ...], answers: int = 4) -> Pairs:
    """Return contexts of some lengths, each with several continuations."""
    draw = Random(0)
    contexts = [draw.choices(range(3, 200), k=length) for length in lengths]
    sizes = range(1, 3 * answers, 3)
    return [(context, draw.choices(range(3, 200), k=n)) for context in contexts for n in sizes]


def assert_as_alone(model: PreTrainedModel, pairs: Pairs) -> None:
    together = token_bits(model, pairs)
    for bits, one in zip(together, pairs, strict=True):
        (alone,) = token_bits(model, [one])
        assert bits == pytest.approx(alone, rel=1e-3, abs=1e-3)


few = st.integers(0, 3)  # so that beginnings are shared
pair = st.tuples(st.lists(few, min_size=1, max_size=9), st.lists(few, min_size=1, max_size=5))


@given(pairs=st.lists(pair, min_size=1, max_size=12))
def test_any_pieces_cost_what_they_cost_alone(pairs: Pairs) -> None:
    model = louder(llama(IDS))
    likelihood_of_one = [token_bits(model, [one])[0] for one in pairs]
    for bits, alone in zip(token_bits(model, pairs), likelihood_of_one, strict=True):
        assert bits == pytest.approx(alone, rel=1e-3, abs=1e-4)


def test_a_shared_beginning_is_read_once() -> None:
    model, pairs = louder(llama(IDS)), questions((60, 30, 80))
    token_bits(model, pairs)  # which tests the model
    bits, read = tokens_read(model, pairs)
    assert read == 60 + 30 + 80 + 3 * (1 + 4 + 7 + 10)
    model.langadapt_trees = False
    apart, more = tokens_read(model, pairs)
    assert more > 3 * read
    for one, other in zip(bits, apart, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_nothing_to_score_and_a_scored_beginning() -> None:
    """Logits of a beginning that several pieces score are made once."""
    model, made = louder(llama(IDS)), list[int]()
    assert token_bits(model, [([1, 2], []), ([1, 2], [3])])[0] == []
    hook = model.register_forward_hook(lambda *given: made.append(given[-1].logits.shape[1]))
    shared = [([1], [*range(2, 40), answer]) for answer in (50, 60, 70)]
    bits = token_bits(model, shared)
    hook.remove()
    assert made == [39]  # tokens 1 to 39, each of which is followed by a scored one
    for one, pair in zip(bits, shared, strict=True):
        assert one == pytest.approx(token_bits(model, [pair])[0], rel=1e-3, abs=1e-3)


def test_a_context_shorter_than_trees_is_not_exceeded() -> None:
    model = louder(tiny_model("gpt2", IDS))
    model.config.n_positions = 64
    assert_as_alone(model, questions((20, 30)))
    assert not hasattr(model, "langadapt_trees")


def test_a_piece_deeper_than_trees_is_read_in_a_batch() -> None:
    model = louder(llama(IDS))
    assert_as_alone(model, questions((20, 110)))


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "mixtral", "phi3", "olmo2"])
def test_architectures_that_read_trees(kind: str) -> None:
    model = louder(tiny_model(kind, IDS))
    assert_as_alone(model, questions((60, 20, 5, 80)))
    assert model.langadapt_trees


@pytest.mark.parametrize(
    "kind", ["mamba", "rwkv", "falcon_h1", "bloom", "mpt", "gpt_neo", "gpt_oss", "bart"]
)
def test_architectures_that_cannot_read_trees_read_each_piece(kind: str) -> None:
    """Recurrent ones, positions by place alone, attention in a window shorter than the tree."""
    model = louder(tiny_model(kind, IDS))
    assert_as_alone(model, questions((60, 20, 5, 80)))
    assert not getattr(model, "langadapt_trees", False)
