"""Stages 4 and 5 as processes of their own: several at once, and processes that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils.corpus.corpus import load_corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.evaluation.evaluate import evaluate, measured, run_models
from langadapt_utils.files import project_folder
from langadapt_utils.recipe import Recipe
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.workspace import Workspace

MODULE = ["-m", "langadapt_utils.training"]
SMALL = {
    "mixture.sequence_length": 32,
    "mixture.english_share": 0.25,
    "training.batch_tokens": 256,
    "training.micro_batch_tokens": 128,
    "training.budget_tokens": 5_120,
    "training.learning_rate": 3e-3,
    "training.precision": "float32",
    "corpus.english": ["builtin"],
}
Prepare = Callable[..., Path]


@pytest.fixture
def prepare(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> Prepare:
    """Make a run folder whose first three stages are complete."""
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")

    def prepare_run(name: str, **options: Any) -> Path:
        overrides = {
            **SMALL,
            "base": str(base.folder),
            **{key.replace("__", "."): v for key, v in options.items()},
        }
        run = Workspace(tmp_path / name, Recipe.profile("smoke", overrides=overrides))
        with run.writing("02_vocabulary") as folder:
            change.save(folder)
        with run.writing("03_embeddings") as folder:
            initialise_embeddings(base.model, change).save_pretrained(folder / "model")
        return run.folder

    return prepare_run


def start(
    folder: Path,
    launcher: Sequence[str] = (),
    *,
    module: Sequence[str] = MODULE,
    **variables: str,
) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, *module, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | variables
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def losses(folder: Path) -> list[dict[str, float]]:
    return [
        step["bits_per_byte"]
        for step in json.loads((folder / "04_training" / "steps.json").read_text())
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder / "model").named_parameters())


def same(one: Path, two: Path) -> None:
    assert len(losses(one)) == len(losses(two)) == 20
    for alone, together in zip(losses(one), losses(two), strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, rtol=1e-3, atol=1e-4)


LAUNCH = ["-m", "accelerate.commands.launch", "--num_processes=2", "--main_process_port=0"]
ACCELERATE = [*LAUNCH, "--cpu"]
CONFIGS = project_folder() / "configs"
DDP, FSDP = ([*LAUNCH, "--config_file", str(CONFIGS / f"{name}.yaml")] for name in ("ddp", "fsdp"))
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.parametrize("launcher", [ACCELERATE, DDP, TORCHRUN])
def test_two_processes_learn_what_one_does(launcher: list[str], prepare: Prepare) -> None:
    one, two = prepare("one"), prepare("two", training__checkpoint_minutes=1e-6)
    finish(start(one))
    out = finish(start(two, launcher))
    assert "complete already" in finish(start(one))
    assert out.count("step 20 of 20") == 1  # one of them speaks
    same(one, two)


def test_two_processes_that_share_out_the_weights_learn_what_one_does(prepare: Prepare) -> None:
    one, two = prepare("one"), prepare("two")
    finish(start(one))
    module = ["-m", "helpers.fsdp_on_cpus"]
    found = {"ACCELERATE_TORCH_DEVICE": "cpu", "PYTHONPATH": str(Path(__file__).parents[1])}
    out = finish(start(two, FSDP, module=module, **found))
    assert out.count("step 20 of 20") == 1 and out.count("shared out: FSDP") == 2
    same(one, two)


def test_two_processes_measure_what_one_does(prepare: Prepare) -> None:
    folder = prepare("one", corpus__others=[], evaluation__documents=3, evaluation__items=4)
    finish(start(folder))
    run = Workspace.existing(folder)
    assert measured(run) is None
    out = finish(start(folder, DDP, module=["-m", "langadapt_utils.evaluation"]))
    assert out.count("adapted: Hungarian documents") == 1  # one of them speaks
    together, corpus = measured(run), load_corpus(run.recipe.corpus, "hu")
    alone = evaluate(run_models(run), corpus, run.recipe.evaluation)
    assert together is not None and together.models == alone.models
    for ours, theirs in ((alone.documents, together.documents), (alone.items, together.items)):
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)
    assert [row["text"] for row in together.samples] == [row["text"] for row in alone.samples]
    assert len(alone.documents) and len(alone.items) and len(alone.samples)


def test_a_process_that_is_killed_again_and_again_loses_nothing(prepare: Prepare) -> None:
    options = {"training__budget_tokens": 25_600, "training__checkpoint_minutes": 1e-6}
    whole, killed = prepare("whole", **options), prepare("killed", **options)
    finish(start(whole))
    chance, partial = random.Random(0), killed / ".04_training.partial"
    log, seen = killed / "log.jsonl", 0
    for _ in range(3):
        process = start(killed)
        wanted = seen + chance.randint(5, 25)
        while (seen := log.read_text().count("\n") if log.exists() else 0) < wanted:
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)  # perhaps while a checkpoint is being written
        process.send_signal(signal.SIGKILL)
        process.communicate()
        checkpoints = list((partial / "checkpoints").glob("checkpoint-*"))
        assert 1 <= len(checkpoints) <= 3 and all(
            (path / "trainer_state.json").exists() for path in checkpoints
        )
    finish(start(killed))
    assert losses(killed) == losses(whole) and len(losses(whole)) == 100
    assert all(torch.equal(weights(killed)[name], value) for name, value in weights(whole).items())
    assert not partial.exists()


def test_what_is_missing_is_one_sentence(prepare: Prepare, tmp_path: Path) -> None:
    process = start(tmp_path / "nowhere")
    _, err = process.communicate()
    assert process.returncode == 1 and err.splitlines()[-1].startswith("error in process 0: ")
    assert "is not a run folder" in err and "Traceback" not in err
