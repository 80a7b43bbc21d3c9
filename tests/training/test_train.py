import math
import platform
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from helpers.tiny import gpt2, llama
from helpers.training import RECIPE, stop_at, weights
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.recipe import Recipe
from langadapt_utils.training import train as train_module
from langadapt_utils.training.mixture import Mixture
from langadapt_utils.training.optimizer import embedding_matrices
from langadapt_utils.training.train import interpolate, train, train_control
from langadapt_utils.vocabulary.change import VocabularyChange


def test_training_lowers_the_loss_and_leaves_the_given_model_alone(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    before, records = weights(start), []
    result = train(start, change, mixture, RECIPE, tmp_path, report=records.append)
    assert all(torch.equal(before[name], value) for name, value in weights(start).items())
    assert records[0]["doing"].startswith("training: attention eager, documents separate True, ")
    assert len(records[1:]) == len(result.steps) == 10
    ids = torch.tensor(np.stack([mixture[i]["input_ids"] for i in range(len(mixture))]))
    with torch.no_grad():
        losses = [model(ids, labels=ids).loss.item() for model in (start, result.model)]
    assert losses[1] < losses[0] - 0.05
    assert records[-1]["tokens"] == RECIPE.budget_tokens and {"target", "en"} == set(
        records[-1]["bits_per_byte"]
    )
    rates = [record["learning_rate"] for record in result.steps]
    assert (
        max(rates) == pytest.approx(RECIPE.learning_rate, rel=0.05)
        and rates[-1] < rates[5] < rates[1]
    )
    assert not list(tmp_path.glob("checkpoint-*"))


def test_only_a_long_run_on_a_cpu_compiles_its_layers(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    for least, compiled in ((11, False), (10, True)):  # the run has ten steps
        monkeypatch.setattr("langadapt_utils.training.train.LONG", least)
        result = train(start, change, mixture, RECIPE, tmp_path / str(least))
        assert result.settings["compiled layers"] == compiled


def test_a_model_that_is_placed_later_is_not_compiled(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FSDP on a GPU: the model is on the CPU before training, and a trial there would take long."""
    monkeypatch.setattr(train_module.hardware, "device", lambda: torch.device("cuda"))
    arguments = types.SimpleNamespace(max_steps=1_000, per_device_train_batch_size=2, bf16=True)
    waiting = types.SimpleNamespace(model=start, train_dataset=mixture, args=arguments)
    assert train_module._compiled(waiting) is False


def test_the_reported_loss_is_the_models_own(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    result = train(start, change, mixture, RECIPE, tmp_path)
    bits, sizes = [0.0, 0.0], [0, 0]
    for i in range(8):  # the first step: two micro-batches of four sequences
        item = mixture[i]
        begins = np.flatnonzero(item["position_ids"] == 0)
        for document in np.split(item["input_ids"], begins[1:]):  # each by itself
            ids = torch.tensor(document)[None]
            with torch.no_grad():
                logits = start(ids).logits[0, :-1]
            bits[item["part"]] += cross_entropy(
                logits, ids[0, 1:], reduction="sum"
            ).item() / math.log(2)
        sizes[item["part"]] += item["bytes"]
    first = result.steps[0]["bits_per_byte"]
    assert first["target"] == pytest.approx(bits[0] / sizes[0], rel=1e-4)
    assert first["en"] == pytest.approx(bits[1] / sizes[1], rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_at_rate_zero_do_not_move(
    tied: bool, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    start = initialise_embeddings(llama(len(change.new_to_old), tied=tied), change)
    recipe = RECIPE.model_copy(update={"old_embeddings_lr_scale": 0.0})
    trained = train(start, change, mixture, recipe, tmp_path).model
    new, old = list(change.added), sorted(change.new_to_old)
    for embedding in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(model, embedding)().weight.detach() for model in (start, trained))
        assert torch.equal(before[old], after[old])
        assert not torch.equal(before[new], after[new])


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"checkpoint_minutes": 1e-6})
    whole = train(start, change, mixture, recipe, tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path / "stopped", report=stop_at(6))
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {
        "checkpoint-4",
        "checkpoint-5",
        "run.txt",
    }
    resumed = train(start, change, mixture, recipe, tmp_path / "stopped")
    assert [record["step"] for record in resumed.steps] == list(range(1, 11))
    assert all(
        torch.equal(weights(resumed.model)[name], value)
        for name, value in weights(whole.model).items()
    )
    assert [record["bits_per_byte"] for record in resumed.steps] == [
        record["bits_per_byte"] for record in whole.steps
    ]


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory")
def test_scarce_memory_is_returned_around_reading_and_between_gradients(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plenty = weights(train(start, change, mixture, RECIPE, tmp_path / "plenty").model)
    asked = []

    def almost_none() -> int:
        asked.append(1)
        return 1

    monkeypatch.setattr(train_module.hardware, "machine_memory", almost_none)
    result = train(start, change, mixture, RECIPE, tmp_path / "scarce")
    micro_batches = RECIPE.budget_tokens // RECIPE.micro_batch_tokens
    assert len(asked) >= 3 * micro_batches  # before and after the forward pass, and in the backward
    assert all(torch.equal(plenty[name], value) for name, value in weights(result.model).items())


@pytest.mark.parametrize("where", ["language_losses", "MixtureTrainer.__init__"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")],
)
def test_too_little_memory_names_the_setting(
    where: str,
    error: RuntimeError,
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a step, or before, where the model is moved to the device."""

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(f"langadapt_utils.training.trainer.{where}", full)
    wanted = r"128 tokens at once: halve training\.micro_batch_tokens.*training\.lora_rank=16"
    with pytest.raises(ModelError, match=wanted):
        train(start, change, mixture, RECIPE, tmp_path)


def test_adapters_change_the_body_by_little_and_are_gone_afterwards(
    change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    for make in (llama, gpt2):
        start = initialise_embeddings(make(len(change.new_to_old)), change)
        recipe = RECIPE.model_copy(update={"lora_rank": 2, "interpolation": 1.0})
        before, result = (
            weights(start),
            train(start, change, mixture, recipe, tmp_path / make.__name__),
        )
        after = weights(result.model)
        assert list(after) == list(before) and all(
            p.requires_grad for p in result.model.parameters()
        )
        moved = {
            name: after[name] - before[name]
            for name in before
            if not torch.equal(after[name], before[name])
        }
        rows = {id(matrix) for matrix in embedding_matrices(result.model)}
        named = {name for name, weight in result.model.named_parameters() if id(weight) in rows}
        body = set(moved) - named
        assert named <= set(moved) and len(body) >= 8
        assert all(torch.linalg.matrix_rank(moved[name], rtol=1e-4) <= 2 for name in body)


def test_another_attention_computes_the_same(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    losses = []
    for attention in ("sdpa", "eager"):
        recipe = RECIPE.model_copy(update={"attention": attention})
        result = train(start, change, mixture, recipe, tmp_path / attention)
        assert result.settings["attention"] == attention
        assert result.model.config._attn_implementation == start.config._attn_implementation
        losses.append([record["bits_per_byte"]["target"] for record in result.steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_kernel_that_is_missing_is_one_sentence(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"attention": "flash_attention_2"})
    with pytest.raises(
        ModelError, match="separates documents only in micro-batches of one sequence"
    ):
        train(start, change, mixture, recipe, tmp_path)
    for attention in ("flash_attention_2", "flex_attention"):  # flex only runs forward on a CPU
        few = recipe.model_copy(update={"micro_batch_tokens": 32, "attention": attention})
        with pytest.raises(ModelError, match=f"{attention} is not available: set it to sdpa"):
            train(start, change, mixture, few, tmp_path)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_start_on_disk_trains_as_one_in_memory(
    rank: int, start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    start.save_pretrained(tmp_path / "start")
    recipe = RECIPE.model_copy(update={"lora_rank": rank, "interpolation": 0.5})
    results = [
        weights(train(given, change, mixture, recipe, tmp_path / str(place)).model)
        for place, given in enumerate((start, tmp_path / "start"))
    ]
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[1][name], value) for name, value in results[0].items())


def test_what_does_not_learn_keeps_its_precision(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    """In bfloat16 only adapters and embeddings are in float32, and without adapters everything."""
    half, recipe = start.to(torch.bfloat16), RECIPE.model_copy(update={"precision": "bfloat16"})
    kinds = {}
    for rank in (0, 2):
        given = recipe.model_copy(update={"lora_rank": rank, "interpolation": 1.0})
        model = train(half, change, mixture, given, tmp_path / str(rank)).model
        kinds[rank] = {name: weight.dtype for name, weight in model.named_parameters()}
    assert set(kinds[0].values()) == {torch.float32}
    assert kinds[2].pop("model.embed_tokens.weight") == torch.float32
    assert set(kinds[2].values()) == {torch.bfloat16}
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}


def test_adapters_resume(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"lora_rank": 2, "checkpoint_minutes": 1e-6})
    whole = weights(train(start, change, mixture, recipe, tmp_path / "whole").model)

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path / "stopped", report=stop_at(6))
    resumed = weights(train(start, change, mixture, recipe, tmp_path / "stopped").model)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_the_control_learns_from_the_very_same_english_alone(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    english = mixture.only("en")
    in_mixture = [mixture[i]["input_ids"] for i, name in enumerate(mixture.order) if name == "en"]
    assert len(english) == len(in_mixture) > 8
    assert all((english[i]["input_ids"] == ids).all() for i, ids in enumerate(in_mixture))
    recipe = Recipe.profile("smoke").model_copy(update={"training": RECIPE})
    told: list[dict[str, Any]] = []
    control = train_control(start, change, mixture, recipe, tmp_path, report=told.append)
    assert (
        control is not None
        and told[-1]["doing"] == f"control: step {len(english) // 8} of {len(english) // 8}"
    )
    ids = torch.tensor(np.stack(in_mixture))
    with torch.no_grad():
        losses = [model(ids, labels=ids).loss.item() for model in (start, control)]
    assert losses[1] < losses[0]
    without = recipe.model_copy(
        update={"mixture": recipe.mixture.model_copy(update={"control": False})}
    )
    assert train_control(start, change, mixture, without, tmp_path) is None
    assert train_control(start, change, mixture.only("hu"), recipe, tmp_path) is None
