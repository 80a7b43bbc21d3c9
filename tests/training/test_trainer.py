import copy
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from helpers.training import RECIPE
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.errors import ModelError
from langadapt_utils.recipe import MixtureRecipe
from langadapt_utils.training import trainer
from langadapt_utils.training.mixture import Mixture, mix
from langadapt_utils.training.train import train
from langadapt_utils.training.trainer import divide_batch
from langadapt_utils.vocabulary.change import VocabularyChange


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


def test_the_minutes_between_checkpoints_begin_when_one_is_written(
    start: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a disk that takes longer than that would have one after every step."""
    now, free = [0.0], trainer.free_bytes

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    def slow(folder: Path) -> int:
        now[0] += 1_000
        return free(folder)

    def step(record: dict[str, Any]) -> None:
        now[0] += 6
        if record.get("step") == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "free_bytes", slow)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=clock))
    recipe = RECIPE.model_copy(update={"checkpoint_minutes": 10 / 60})
    with pytest.raises(KeyboardInterrupt):
        train(start, change, mixture, recipe, tmp_path, report=step)
    found = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert found == ["checkpoint-3", "checkpoint-6"]


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
    recipe = RECIPE.model_copy(update={"learning_rate": 3.0, "checkpoint_minutes": 1e-6})
    slowly = {"warmup_steps": 100}
    for _ in range(2):  # going on does not make it well
        with pytest.raises(
            ModelError, match=r"diverges: .* by step \d+: start another run with a lower training"
        ):
            train(start, change, mixture, recipe, tmp_path, trainer_arguments=slowly)
    states = [
        json.loads((path / "trainer_state.json").read_text())
        for path in tmp_path.glob("checkpoint-*")
    ]
    bits = [
        [record["bits_per_byte"]["target"] for record in state["log_history"]] for state in states
    ]
    assert bits and all(values[-1] < 1.6 * min(values) for values in bits)


def test_arguments_of_the_trainer_replace_the_defaults(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    given = {"warmup_steps": 5, "lr_scheduler_type": "warmup_stable_decay"}
    given |= {"lr_scheduler_kwargs": {"num_decay_steps": 1}}
    steps = train(start, change, mixture, RECIPE, tmp_path, trainer_arguments=given).steps
    assert [step["learning_rate"] / RECIPE.learning_rate for step in steps] == pytest.approx(
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    )


@pytest.mark.parametrize(
    ("micro", "processes"), [(32, 1), (96, 1), (256, 1), (9_999, 1), (64, 2), (256, 4), (160, 1)]
)
def test_a_batch_has_the_same_tokens_however_it_is_shared_out(
    mixture: Mixture, micro: int, processes: int
) -> None:
    recipe = RECIPE.model_copy(update={"micro_batch_tokens": micro})
    sequences, accumulated, steps = divide_batch(mixture, recipe, processes)
    assert sequences * accumulated * processes * 32 == RECIPE.batch_tokens
    assert steps == 10 and sequences * 32 <= max(micro, 32)
    with pytest.raises(ModelError, match="8 sequences cannot be divided among 3 processes"):
        divide_batch(mixture, RECIPE, 3)


@pytest.mark.parametrize("micro", [32, 64, 256])
def test_a_run_of_less_than_a_batch_is_one_step(mixture: Mixture, micro: int) -> None:
    few = dataclasses.replace(mixture, order=mixture.order[:3])
    recipe = RECIPE.model_copy(update={"micro_batch_tokens": micro})
    for processes, used in ((1, 3), (2, 2), (4, 4)):
        sequences, accumulated, steps = divide_batch(few, recipe, processes)
        assert sequences * accumulated * processes == used and steps == 1


def test_checkpoints_of_another_run_are_not_taken_for_ones_own(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, tmp_path: Path
) -> None:
    train(start, change, mixture, RECIPE.model_copy(update={"checkpoint_minutes": 1e-6}), tmp_path)
    with pytest.raises(ModelError, match="has checkpoints of a run with another recipe: choose"):
        train(start, change, mixture, RECIPE.model_copy(update={"learning_rate": 1e-3}), tmp_path)
    same = train(
        start, change, mixture, RECIPE.model_copy(update={"micro_batch_tokens": 64}), tmp_path
    )
    assert len(same.steps) == 10


def test_other_weights_are_another_run(start: PreTrainedModel, mixture: Mixture) -> None:
    """Also two entries that changed places, whose sum is the same."""
    other = copy.deepcopy(start)
    with torch.no_grad():
        row = other.get_input_embeddings().weight[7]
        row[:2] = row[:2].flip(0)
    digests = [
        trainer.run_digest(model, mixture, RECIPE, ())
        for model in (start, copy.deepcopy(start), other)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_text_that_differs_after_the_first_sequence_is_another_run(
    start: PreTrainedModel, mixture: Mixture
) -> None:
    def digest(mixture: Mixture) -> str:
        return trainer.run_digest(start, mixture, RECIPE, ())

    stream = mixture.streams["hu"]
    shard = np.array(stream.shards[0])
    assert digest(mixture) == digest(dataclasses.replace(mixture))
    shard[-1] += 1
    other = dataclasses.replace(stream, shards=[shard, *stream.shards[1:]])
    for changed in (other, dataclasses.replace(stream, visits=stream.visits[::-1])):
        streams = mixture.streams | {"hu": changed}
        assert digest(dataclasses.replace(mixture, streams=streams)) != digest(mixture)


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

    def poisoned(*given: Any) -> list[torch.Tensor]:
        calls[0] += 1
        target, *others = losses(*given)
        if calls[0] == 11:  # the first micro-batch of the sixth step
            target.register_hook(lambda gradient: gradient * float("inf"))
        return [target, *others]

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


@pytest.mark.parametrize("sequences", [1, 3, 8, 24])
def test_every_step_trains_and_tokens_are_those_that_were_read(
    sequences: int,
    start: PreTrainedModel,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    """Also in a run of one step, which a warm-up would leave at a rate of 0."""
    recipe = MixtureRecipe(sequence_length=32)
    mixture = mix(corpora["hu"], change.tokenizer, recipe, budget_tokens=32 * sequences)
    result = train(start, change, mixture, RECIPE, tmp_path)
    assert result.steps[-1]["tokens"] == 32 * sequences
    assert all(step["learning_rate"] > 0 for step in result.steps)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(start.parameters(), result.model.parameters(), strict=True)
    )
