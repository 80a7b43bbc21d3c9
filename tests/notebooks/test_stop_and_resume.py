"""A whole run that is stopped in training, on a tiny model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils.recipe import Recipe
from langadapt_utils.runner import run_notebooks
from langadapt_utils.workspace import STAGES

OPTIONS = {
    "corpus.english": "builtin",
    "training.checkpoint_minutes": 0.001,
    "training.budget_tokens": 40_960,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A run folder whose first three stages are complete."""
    folder = tmp_path_factory.mktemp("prepared")
    base = saved(llama(len(tokenizer)), tokenizer, folder / "base")
    recipe = Recipe.profile("smoke", overrides={**OPTIONS, "base": str(base.folder)})
    return run_notebooks(recipe, folder / "run", stages=STAGES[:3]).folder


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from langadapt_utils.cli import entry; entry()", "run"]
    return subprocess.Popen(
        [*command, "--run", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As from a terminal: what a shell starts in the background, tests among it, ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_run_that_is_stopped_in_training_goes_on_from_its_checkpoint(
    how: signal.Signals, prepared: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "run")
    process = start(folder)
    checkpoints = folder / ".04_training.partial" / "checkpoints"
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    _, errors = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        assert "the same command resumes from here" in errors
    assert kernels
    psutil.wait_procs(kernels)  # none outlives the run
    lines = (folder / "log.jsonl").read_text()
    assert not (folder / "04_training").exists() and not (folder / "model").exists()
    process = start(folder)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    records = map(json.loads, (folder / "log.jsonl").read_text()[len(lines) :].splitlines())
    first = next(record["step"] for record in records if "step" in record)
    assert first > 1, "training began from the start"
    assert (folder / "report.html").exists() and not list(folder.glob(".0*"))
