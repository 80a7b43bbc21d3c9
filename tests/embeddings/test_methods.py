"""Every method against rows computed by hand, and where rows came from."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import llama
from langadapt_utils.embeddings.initialise import METHODS, new_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.vocabulary.change import VocabularyChange


def matrix(model: PreTrainedModel) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()


def whole_mean(old: torch.Tensor, change: VocabularyChange, new: int) -> torch.Tensor:
    return sum(old) / len(old)  # type: ignore[return-value]


def pieces_mean(old: torch.Tensor, change: VocabularyChange, new: int) -> torch.Tensor:
    pieces = change.base_pieces[new]
    return sum(old[i] for i in pieces) / len(pieces)  # type: ignore[return-value]


BY_HAND: dict[str, Callable[[torch.Tensor, VocabularyChange, int], torch.Tensor]] = {
    "mean": whole_mean,
    "subword_mean": pieces_mean,
}


def test_there_is_a_row_by_hand_for_every_method_that_needs_no_more_than_the_model() -> None:
    assert {*BY_HAND, "random"} == set(METHODS)


@pytest.mark.parametrize("method", BY_HAND)
def test_rows_are_those_computed_by_hand(
    method: str, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    model = llama(len(tokenizer), tied=False)
    made = new_embeddings(model, change, method=method)
    assert made.output is not None
    for side, hand, old in (
        (made.input, BY_HAND[method], matrix(model)),
        (made.output, BY_HAND[method], model.lm_head.weight.detach()),
    ):
        assert side.vectors_ND.dtype == torch.float32
        for place, new in enumerate(list(change.added)[:60]):
            expected = hand(old, change, new)
            # a hundredth is what tells rows apart that would be the same
            assert (side.vectors_ND[place] - expected).norm() <= 0.0101 * expected.norm()


def test_most_rows_are_exact(model: PreTrainedModel, change: VocabularyChange) -> None:
    made = new_embeddings(model, change, method="subword_mean").input.vectors_ND
    expected = torch.stack([pieces_mean(matrix(model), change, new) for new in change.added])
    assert ((made - expected).abs().amax(dim=1) < 1e-6).float().mean() > 0.9


def test_random_rows_have_the_spread_of_old_ones_and_follow_the_seed(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    one, two, other = (
        new_embeddings(model, change, method="random", seed=s).input.vectors_ND for s in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert one.std().item() == pytest.approx(matrix(model).std().item(), rel=0.05)
    assert one.mean().item() == pytest.approx(matrix(model).mean().item(), abs=0.01)


def test_the_origin_of_a_row_rebuilds_it(model: PreTrainedModel, change: VocabularyChange) -> None:
    made = new_embeddings(model, change, method="subword_mean")
    exact = 0
    for place, new in enumerate(change.added):
        origin = made.provenance(new)
        assert set(origin.side) == {"input"} and origin.token.str.len().min() > 0
        rebuilt = sum(
            matrix(model)[old] * weight
            for old, weight in zip(origin.id, origin.weight, strict=True)
        )
        error = (made.input.vectors_ND[place] - rebuilt).norm() / rebuilt.norm()
        assert error <= (0.0101 if "noise" in origin.note[0] else 1e-5)
        exact += int(error < 1e-5)
    assert exact > 100


def test_origins_of_drawn_rows_are_told_in_words(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    new = next(iter(change.added))
    origin = new_embeddings(model, change, method="random").provenance(new)
    assert len(origin) == 1 and origin.note[0].startswith("drawn") and origin.id[0] is None
    with pytest.raises(ModelError, match="0 is not the id of a new token"):
        new_embeddings(model, change).provenance(0)


@pytest.mark.parametrize(("fault", "value"), [("not finite", float("nan")), ("zero", 0.0)])
def test_broken_rows_are_errors_that_name_the_token(
    fault: str, value: float, model: PreTrainedModel, change: VocabularyChange
) -> None:
    new, old = next(
        (new, old) for new, old in change.base_pieces.items() if len(set(old)) == len(old)
    )
    with torch.no_grad():
        matrix(model)[list(old)] = value
    with pytest.raises(ModelError, match=f"is {fault}") as raised:
        new_embeddings(model, change)
    spoilt = [n for n, ids in change.base_pieces.items() if set(ids) & set(old)]
    assert any(repr(change.text(n)) in str(raised.value) for n in spoilt) and new in spoilt


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_two_rows_are_the_same(
    method: str,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
) -> None:
    model = llama(len(tokenizer)).to(dtype)
    made = new_embeddings(model, change, method=method)
    rows = torch.cat([matrix(model), made.input.vectors_ND.to(dtype)])
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_rows_that_cannot_be_told_apart_are_an_error(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    tiny = llama(len(matrix(model))).to(torch.bfloat16)
    with torch.no_grad():
        matrix(tiny)[:] = 2.0**-126 * torch.randint(1, 3, (len(matrix(tiny)), 1))
    with pytest.raises(ModelError, match="has the same embedding as another token"):
        new_embeddings(tiny, change)
