import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import llama
from transformers import PreTrainedModel

from langadapt_utils.changes import VocabularyChange
from langadapt_utils.corpus import Corpus
from langadapt_utils.embeddings import initialise_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.mixture import Mixture, mix
from langadapt_utils.recipe import MixtureRecipe, TrainingRecipe
from langadapt_utils.training import estimate_seconds, interpolate, scale_row_updates, train

RECIPE = TrainingRecipe(
    budget_tokens=2_560, batch_tokens=256, micro_batch_tokens=128, learning_rate=3e-3, precision="float32"
)


@pytest.fixture
def mixture(corpora: dict[str, Corpus], change: VocabularyChange) -> Mixture:
    return mix(corpora["hu"], change.tokenizer, MixtureRecipe(sequence_length=32), budget_tokens=RECIPE.budget_tokens)


@pytest.fixture
def start(model: PreTrainedModel, change: VocabularyChange) -> PreTrainedModel:
    return initialise_embeddings(model, change)


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_rows_step_at_their_own_rates_like_separate_parameters() -> None:
    """The plain reference: old rows and new rows as two parameters in two groups."""
    torch.manual_seed(0)
    new_rows, old_rows = [1, 4], [0, 2, 3, 5]
    together = torch.nn.Parameter(torch.randn(6, 3))
    new, old = (torch.nn.Parameter(together.detach()[rows].clone()) for rows in (new_rows, old_rows))
    fast, slow = 0.05, 0.004
    one = torch.optim.AdamW([together], lr=fast, weight_decay=0.0)
    scale_row_updates(one, [together], new_rows, 1.0, slow / fast)
    two = torch.optim.AdamW([{"params": [new], "lr": fast}, {"params": [old], "lr": slow}], weight_decay=0.0)
    for _ in range(20):
        gradient = torch.randn(6, 3)
        together.grad, new.grad, old.grad = gradient, gradient[new_rows], gradient[old_rows]
        one.step()
        two.step()
    torch.testing.assert_close(together.detach()[new_rows], new.detach())
    torch.testing.assert_close(together.detach()[old_rows], old.detach())


def test_training_lowers_the_loss_and_leaves_the_given_model_alone(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    before, records = weights(start), []
    result = train(start, change, mixture, RECIPE, tmp_path, report=records.append)
    assert all(torch.equal(before[name], value) for name, value in weights(start).items())
    assert len(records) == len(result.steps) == 10
    ids = torch.tensor([mixture[i]["input_ids"] for i in range(len(mixture))])
    with torch.no_grad():
        losses = [model(ids, labels=ids).loss.item() for model in (start, result.model)]
    assert losses[1] < losses[0] - 0.05
    assert records[-1]["tokens"] == RECIPE.budget_tokens and {"target", "en"} == set(records[-1]["bits_per_byte"])
    rates = [record["learning_rate"] for record in records]
    assert max(rates) == pytest.approx(RECIPE.learning_rate, rel=0.05) and rates[-1] < rates[5] < rates[1]
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_reported_loss_is_the_models_own(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    result = train(start, change, mixture, RECIPE, tmp_path)
    bits = {True: 0.0, False: 0.0}
    sizes = {True: 0, False: 0}
    for i in range(8):  # the first step: two micro-batches of four sequences
        item = mixture[i]
        ids = torch.tensor(item["input_ids"])[None]
        with torch.no_grad():
            loss = start(ids, labels=ids).loss.item() * 31
        bits[item["is_english"]] += loss / math.log(2)
        sizes[item["is_english"]] += item["bytes"]
    first = result.steps[0]["bits_per_byte"]
    assert first["target"] == pytest.approx(bits[False] / sizes[False], rel=1e-4)
    assert first["en"] == pytest.approx(bits[True] / sizes[True], rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_at_rate_zero_do_not_move(tied: bool, change: VocabularyChange, mixture: Mixture, tmp_path: Path) -> None:
    start = initialise_embeddings(llama(len(change.kept), tied=tied), change)
    recipe = RECIPE.model_copy(update={"old_rows_rate": 0.0})
    trained = train(start, change, mixture, recipe, tmp_path).model
    new, old = list(change.added), sorted(change.kept)
    for embedding in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(model, embedding)().weight.detach() for model in (start, trained))
        assert torch.equal(before[old], after[old])
        assert not torch.equal(before[new], after[new])


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"checkpoint_minutes": 1e-6})
    whole = train(start, change, mixture, recipe, tmp_path / "whole")

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path / "stopped", report=stop)
    assert [path.name for path in (tmp_path / "stopped").glob("checkpoint-*")] == ["checkpoint-5"]
    resumed = train(start, change, mixture, recipe, tmp_path / "stopped")
    assert [record["step"] for record in resumed.steps] == list(range(1, 11))
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(weights(resumed.model)[name], value)


def test_a_half_written_checkpoint_is_passed_over(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"checkpoint_minutes": 1e-6})

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path, report=stop)
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "model.safetensors").write_bytes(b"half")
    records: list[dict[str, Any]] = []
    train(start, change, mixture, RECIPE, tmp_path, report=records.append)
    assert [record["step"] for record in records] == [6, 7, 8, 9, 10]


def test_interpolation_goes_from_one_end_to_the_other(start: PreTrainedModel) -> None:
    end = llama(start.config.vocab_size)
    with torch.no_grad():
        for parameter in end.parameters():
            parameter.add_(1.0)
    for share, expected in ((0.0, start), (1.0, end)):
        for name, value in weights(interpolate(start, end, share)).items():
            torch.testing.assert_close(value, weights(expected)[name])
    half = weights(interpolate(start, end, 0.5))
    for name, value in half.items():
        torch.testing.assert_close(value, (weights(start)[name] + weights(end)[name]) / 2)


def test_the_recipe_says_how_far_to_go(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"interpolation": 0.0})
    unmoved = weights(train(start, change, mixture, recipe, tmp_path).model)
    assert all(torch.equal(unmoved[name], value) for name, value in weights(start).items())


def test_a_loss_that_is_not_finite_stops_the_run(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    with torch.no_grad():
        start.model.norm.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match=r"loss is not finite: lower training\.learning_rate"):
        train(start, change, mixture, RECIPE, tmp_path)


def test_the_estimate_grows_with_parameters_and_tokens() -> None:
    once = estimate_seconds(10**6, 10**4, "float32")
    assert estimate_seconds(10**6, 2 * 10**4, "float32") == pytest.approx(2 * once)
    assert estimate_seconds(3 * 10**6, 10**4, "float32") == pytest.approx(3 * once)
