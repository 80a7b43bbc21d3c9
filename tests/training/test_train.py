import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, Trainer, TrainerCallback

from helpers.tiny import gpt2, llama
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.recipe import MixtureRecipe, Recipe, TrainingRecipe
from langadapt_utils.training import trainer
from langadapt_utils.training.mixture import Mixture, mix
from langadapt_utils.training.optimizer import embedding_matrices
from langadapt_utils.training.train import interpolate, train, train_control
from langadapt_utils.training.trainer import Batches, TrainingLog
from langadapt_utils.vocabulary.change import VocabularyChange

RECIPE = TrainingRecipe(
    budget_tokens=2_560,
    batch_tokens=256,
    micro_batch_tokens=128,
    learning_rate=3e-3,
    precision="float32",
)


@pytest.fixture
def mixture(corpora: dict[str, Corpus], change: VocabularyChange) -> Mixture:
    return mix(
        corpora["hu"],
        change.tokenizer,
        MixtureRecipe(sequence_length=32),
        budget_tokens=RECIPE.budget_tokens,
    )


@pytest.fixture
def start(model: PreTrainedModel, change: VocabularyChange) -> PreTrainedModel:
    return initialise_embeddings(model, change)


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_training_lowers_the_loss_and_leaves_the_given_model_alone(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    before, records = weights(start), []
    result = train(start, change, mixture, RECIPE, tmp_path, report=records.append)
    assert all(torch.equal(before[name], value) for name, value in weights(start).items())
    assert records[0]["doing"].startswith("training: precision float32, attention sdpa, ")
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


def test_the_reported_loss_is_the_models_own(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    result = train(start, change, mixture, RECIPE, tmp_path)
    bits = {True: 0.0, False: 0.0}
    sizes = {True: 0, False: 0}
    for i in range(8):  # the first step: two micro-batches of four sequences
        item = mixture[i]
        begins = np.flatnonzero(item["position_ids"] == 0)
        for document in np.split(item["input_ids"], begins[1:]):  # each by itself
            ids = torch.tensor(document)[None]
            with torch.no_grad():
                logits = start(ids).logits[0, :-1]
            bits[item["is_english"]] += cross_entropy(
                logits, ids[0, 1:], reduction="sum"
            ).item() / math.log(2)
        sizes[item["is_english"]] += item["bytes"]
    first = result.steps[0]["bits_per_byte"]
    assert first["target"] == pytest.approx(bits[False] / sizes[False], rel=1e-4)
    assert first["en"] == pytest.approx(bits[True] / sizes[True], rel=1e-4)


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

    def stop(record: dict[str, Any]) -> None:
        if record.get("step") == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path / "stopped", report=stop)
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


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_ones(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = RECIPE.model_copy(update={"checkpoint_minutes": 1e-6})
    free = iter([10**12] * 3 + [1_000] * 20)
    monkeypatch.setattr(trainer, "free_bytes", lambda folder: next(free))
    said: list[dict[str, Any]] = []

    def stop(record: dict[str, Any]) -> None:
        said.append(record)
        if record.get("step") == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path, report=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-3", "run.txt"}
    assert [record["doing"] for record in said if "doing" in record][1].startswith(
        "no checkpoint: "
    )
    monkeypatch.setattr(
        Trainer, "_save_optimizer_and_scheduler", lambda *_: (_ for _ in ()).throw(OSError("disk"))
    )
    monkeypatch.setattr(trainer, "free_bytes", lambda folder: 10**12)
    with pytest.raises(OSError, match="disk"):
        train(start, change, mixture, recipe, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-3", "run.txt"}


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
    with pytest.raises(
        ModelError,
        match=r"is not finite at step 1: start another run with a lower training\.learning_rate",
    ):
        train(start, change, mixture, RECIPE, tmp_path)


def test_a_loss_that_diverges_stops_the_run_and_keeps_the_last_checkpoint(
    start: PreTrainedModel, change: VocabularyChange, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    mixture = mix(
        corpora["hu"], change.tokenizer, MixtureRecipe(sequence_length=32), budget_tokens=25_600
    )
    recipe = RECIPE.model_copy(
        update={"learning_rate": 3.0, "warmup_share": 1.0, "checkpoint_minutes": 1e-6}
    )
    for _ in range(2):  # going on does not make it well
        with pytest.raises(
            ModelError, match=r"diverges: .* by step \d+: start another run with a lower training"
        ):
            train(start, change, mixture, recipe, tmp_path)
    states = [
        json.loads((path / "trainer_state.json").read_text())
        for path in tmp_path.glob("checkpoint-*")
    ]
    bits = [
        [record["bits_per_byte"]["target"] for record in state["log_history"]] for state in states
    ]
    assert bits and all(values[-1] < 1.6 * min(values) for values in bits)


def test_too_little_memory_names_the_setting(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "language_losses", full)
    with pytest.raises(ModelError, match=r"128 tokens at once: halve training\.micro_batch_tokens"):
        train(start, change, mixture, RECIPE, tmp_path)


def test_rows_go_first_and_nothing_else_moves_meanwhile(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    options = {"rows_first_share": 1.0, "interpolation": 1.0}
    before = weights(start)
    after = weights(
        train(start, change, mixture, RECIPE.model_copy(update=options), tmp_path / "all").model
    )
    rows = "model.embed_tokens.weight"
    assert [name for name in before if not torch.equal(before[name], after[name])] == [rows]
    old, new = sorted(change.new_to_old), list(change.added)
    assert torch.equal(before[rows][old], after[rows][old]) and not torch.equal(
        before[rows][new], after[rows][new]
    )
    options["rows_first_share"] = 0.5
    after = weights(
        train(start, change, mixture, RECIPE.model_copy(update=options), tmp_path / "half").model
    )
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_the_average_of_the_weights_is_what_it_says_and_resumes(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    kept = 0.9
    recipe = RECIPE.model_copy(
        update={"ema": kept, "interpolation": 1.0, "checkpoint_minutes": 1e-6}
    )
    every = {0: weights(start)}

    class Snapshots(TrainingLog):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_step_end(args, state, control, **kwargs)
            every[state.global_step] = weights(kwargs["model"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "TrainingLog", Snapshots)
        whole = train(start, change, mixture, recipe, tmp_path / "whole")
    expected = every[0]
    for step in range(1, len(every)):
        expected = {
            name: kept * value + (1 - kept) * every[step][name] for name, value in expected.items()
        }
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(value, expected[name])

    def stop(record: dict[str, Any]) -> None:
        if record.get("step") == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path / "stopped", report=stop)
    resumed = train(start, change, mixture, recipe, tmp_path / "stopped")
    assert all(
        torch.equal(weights(resumed.model)[name], value)
        for name, value in weights(whole.model).items()
    )


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
        assert result.levers["attention"] == attention
        assert result.model.config._attn_implementation == start.config._attn_implementation
        losses.append([record["bits_per_byte"]["target"] for record in result.steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_kernel_that_is_missing_is_one_sentence(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"attention": "flash_attention_2"})
    with pytest.raises(
        ModelError, match="keeps documents apart in micro-batches of one sequence alone"
    ):
        train(start, change, mixture, recipe, tmp_path)
    with pytest.raises(ModelError, match="flash_attention_2 cannot be used here: set it to sdpa"):
        train(
            start, change, mixture, recipe.model_copy(update={"micro_batch_tokens": 32}), tmp_path
        )


def test_adapters_resume(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"lora_rank": 2, "checkpoint_minutes": 1e-6})
    whole = weights(train(start, change, mixture, recipe, tmp_path / "whole").model)

    def stop(record: dict[str, Any]) -> None:
        if record.get("step") == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path / "stopped", report=stop)
    resumed = weights(train(start, change, mixture, recipe, tmp_path / "stopped").model)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_stable_rates_stay_and_then_decay(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"schedule": "wsd", "warmup_share": 0.2, "decay_share": 0.3})
    rates = [
        record["learning_rate"] for record in train(start, change, mixture, recipe, tmp_path).steps
    ]
    assert (
        rates[1:7] == [recipe.learning_rate] * 6
        and rates[0] < rates[1]
        and rates[-1] < rates[-2] < rates[6]
    )


@pytest.mark.parametrize(
    ("micro", "processes"), [(32, 1), (96, 1), (256, 1), (9_999, 1), (64, 2), (256, 4), (160, 1)]
)
def test_a_batch_has_the_same_tokens_however_it_is_shared_out(
    mixture: Mixture, micro: int, processes: int
) -> None:
    batches = Batches.of(
        mixture, RECIPE.model_copy(update={"micro_batch_tokens": micro}), processes
    )
    assert batches.sequences * batches.accumulated * processes * 32 == RECIPE.batch_tokens
    assert batches.steps == 10 and batches.sequences * 32 <= max(micro, 32)
    with pytest.raises(
        ModelError, match="8 sequences cannot be shared out evenly among 3 processes"
    ):
        Batches.of(mixture, RECIPE, 3)


def test_checkpoints_of_another_run_are_not_taken_for_ones_own(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    train(start, change, mixture, RECIPE.model_copy(update={"checkpoint_minutes": 1e-6}), tmp_path)
    with pytest.raises(
        ModelError, match="holds checkpoints of a run with another recipe: delete it"
    ):
        train(start, change, mixture, RECIPE.model_copy(update={"learning_rate": 1e-3}), tmp_path)
    same = train(
        start, change, mixture, RECIPE.model_copy(update={"micro_batch_tokens": 64}), tmp_path
    )
    assert len(same.steps) == 10


def test_a_gradient_that_is_not_finite_stops_the_run_before_weights_are_spoilt(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, losses, calls = (
        RECIPE.model_copy(update={"checkpoint_minutes": 1e-6}),
        trainer.language_losses,
        [0],
    )

    def poisoned(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls[0] += 1
        target, english = losses(*given)
        if calls[0] == 11:  # the first micro-batch of the sixth step
            target.register_hook(lambda gradient: gradient * float("inf"))
        return target, english

    monkeypatch.setattr(trainer, "language_losses", poisoned)
    with pytest.raises(ModelError, match="a gradient is not finite at step 6: start another run"):
        train(start, change, mixture, recipe, tmp_path)
    monkeypatch.undo()
    assert len(train(start, change, mixture, recipe, tmp_path).steps) == 10


def test_trackers_get_the_loss_of_each_language(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[dict[str, float]] = []

    class Tracker(TrainerCallback):  # type: ignore[misc]
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            logged.append(dict(logs))

    monkeypatch.setattr(
        "transformers.trainer.get_reporting_integration_callbacks", lambda names: [Tracker]
    )
    steps = train(
        start, change, mixture, RECIPE.model_copy(update={"report_to": ["tensorboard"]}), tmp_path
    ).steps
    assert [one["bits_per_byte_en"] for one in logged[:10]] == [
        step["bits_per_byte"]["en"] for step in steps
    ]
    assert "loss" in logged[0] and "grad_norm" in logged[0]


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
