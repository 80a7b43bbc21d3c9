"""What a user gets for bad input: one sentence, a non-zero exit, and nothing overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

from helpers.tiny import llama
from langadapt_utils.cli import app
from langadapt_utils.errors import LangadaptError, StageFailed
from langadapt_utils.files import trim_cache
from langadapt_utils.recipe import Recipe
from langadapt_utils.runner import expected_time, lock_path, run_notebooks
from langadapt_utils.workspace import STAGES, Workspace


def langadapt(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--language", "fi"], "language 'fi' has no built-in text (only en, hu, th)"),
        (["run", "--language", "Hungarian"], "language cannot be 'Hungarian'"),
        (["run", "--profile", "cpuu"], "profile 'cpuu' is unknown: did you mean cpu?"),
        (["run", "-p", "mixture.english_shar=0.1"], "did you mean mixture.english_share?"),
        (["run", "-p", "mixture.english_share=1.5"], "mixture.english_share cannot be '1.5'"),
        (["run", "-p", "embeddings.method=magic"], "embeddings.method cannot be 'magic'"),
        (["run", "-p", "mixture.english_share"], "lacks '=': write name=value"),
        (["run", "-p", "corpus.target=a.txt", "-p", "corpus.target=b.txt"], "is given twice"),
        (["run", "07"], "stage '07' is unknown"),
        (["run", "--recipe", "/no/such/plan.yaml"], "/no/such/plan.yaml is not a recipe in YAML"),
        (["run", "--recipe", "plan.yaml", "--language", "th"], "has its own language and profile"),
        (["run", "--profile", "smoke", "-p", "base=/no/such/model"], "is not a model folder"),
        (["run", "--profile", "smoke", "-p", "corpus.target=/no/such/text.txt"], "does not exist"),
        (["report", "--run", "/no/such/run"], "is not a run folder"),
        (["compare", "/no/such/run"], "is not a run folder"),
        (["plan", "--write", "/"], "--write / is a folder: name a file"),
        (["plan", "-p", "language=fi"], "did you mean --language?"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    extra = ["--run", str(folder)] if arguments[0] == "run" else []
    done = langadapt(*arguments, *extra)
    assert done.exit_code == 1 and isinstance(done.exception, LangadaptError)
    message = str(done.exception)
    assert sentence in message and len(message.strip().splitlines()) == 1
    assert not [path for path in folder.rglob("*") if path.name != "recipe.yaml"]


def test_a_run_goes_on_with_its_own_recipe_and_other_options_of_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Recipe] = []

    def fake(recipe: Recipe, folder: Path, **options: Any) -> Workspace:
        asked.append(recipe)
        return Workspace(folder, recipe)

    monkeypatch.setattr("langadapt_utils.runner.run_notebooks", fake)
    first = Recipe.profile("smoke", language="th")
    Workspace(tmp_path / "run", first).begun(STAGES[0])
    run = ["run", "--run", str(tmp_path / "run")]
    assert langadapt(*run, "-p", "training.micro_batch_tokens=256").exit_code == 0
    assert asked == [first.with_options({"training.micro_batch_tokens": 256})]
    refused = langadapt(*run, "-p", "vocabulary.tokens=7")
    assert "vocabulary.tokens is 120 there, not 7" in str(refused.exception)


def test_paths_in_a_recipe_file_are_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text("language: hu\nprofile_name: smoke\n")
    arguments = ["run", "--recipe", "plan.yaml", "-p", "corpus.target=no.txt", "--run", "run"]
    assert f"{tmp_path / 'no.txt'}" in str(langadapt(*arguments).exception)


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-c", "from langadapt_utils.cli import entry; entry()", "run"]
    command += ["--profile", "smoke", "--run", str(tmp_path / "file" / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and str(tmp_path / "file") in done.stderr


def test_the_help_shows_defaults() -> None:
    shown = langadapt("run", "--help").stdout  # where `[default: all]` would be read as markup
    for default in ("Default: all.", "Default: hu.", "Default: cpu.", "Default: runs/NAME"):
        assert default in shown


def test_a_process_that_cannot_go_on_prints_one_sentence_and_fails(tmp_path: Path) -> None:
    Workspace(tmp_path / "run", Recipe.profile("smoke"))
    (tmp_path / "run" / "01_fertility").mkdir()
    command = [sys.executable, "-c", "from langadapt_utils.cli import entry; entry()", "run"]
    options = ["--run", str(tmp_path / "run"), "--profile", "smoke"]
    command += [*options, "-p", "mixture.english_share=0.5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert "has a run with another recipe" in done.stderr


def test_the_cache_is_shown_and_cleared_of_texts_and_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    for place, kind in enumerate(("models", "texts", "tokens", "tokens")):
        file = tmp_path / kind / f"{place}.bin"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(10**6))
        os.utime(file, (place, place))
    assert f"{tmp_path / 'tokens'}: 2 MB" in langadapt("cache").stdout
    assert trim_cache("tokens", 10**6) == 10**6  # the older one
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == ["3.bin"]
    assert "texts: 1 MB deleted" in langadapt("cache", "--clear").stdout
    assert [path.name for path in tmp_path.rglob("*.bin")] == ["0.bin"]


def test_a_wrong_option_is_a_usage_error() -> None:
    assert langadapt("run", "--langauge", "th").exit_code == 2
    assert langadapt("--help").exit_code == 0


@pytest.fixture
def tiny(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Recipe:
    """A recipe whose notebooks run in seconds: a tiny model, the built-in text alone."""
    folder = tmp_path / "base"
    llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Recipe.profile("smoke", overrides={"base": str(folder), "corpus.english": "builtin"})


def test_a_later_stage_alone_says_what_is_missing(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        StageFailed,
        match=r"04_mixture_training\.ipynb stopped in cell .*03_embeddings/manifest\.json",
    ):
        run_notebooks(tiny, tmp_path / "run", stages=["04_training"])
    assert (tmp_path / "run" / "notebooks" / "04_mixture_training.failed.ipynb").exists()
    assert not (tmp_path / "run" / "04_training").exists()


def test_more_tokens_than_the_corpus_supports_stops_the_run(tiny: Recipe, tmp_path: Path) -> None:
    values = {"base": tiny.base, "corpus.english": "builtin", "vocabulary.tokens": 100_000}
    recipe = Recipe.profile("smoke", overrides=values)
    told: list[str] = []
    with pytest.raises(StageFailed, match=r"the text supports only \d+ new tokens, not 100000"):
        run_notebooks(recipe, tmp_path / "run", stages=STAGES[:2], report=told.append)
    assert Workspace(tmp_path / "run", recipe).is_complete("01_fertility")
    assert any(line.startswith("01_fertility: done") for line in told)
    again: list[str] = []
    with pytest.raises(StageFailed):
        run_notebooks(recipe, tmp_path / "run", stages=STAGES[:2], report=again.append)
    assert "01_fertility: complete already" in again


def test_a_relative_path_is_found_from_the_notebook(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "finnish.txt").write_text(
        "\n\n".join(f"Tämä on asiakirja numero {i}." for i in range(30))
    )
    monkeypatch.chdir(tmp_path)
    options = ["--language", "fi", "--profile", "smoke", "--run", "run"]
    changed = ("corpus.english=builtin", "corpus.target=finnish.txt", "base=base")
    done = langadapt("run", "01", *options, *(f"--parameter={option}" for option in changed))
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "run" / "01_fertility" / "fertility.json").exists()


def test_too_little_disk_stops_before_anything_is_done(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt_utils.files.free_bytes", lambda path: 1_000)
    with pytest.raises(LangadaptError, match="GB of disk"):
        run_notebooks(tiny, tmp_path / "run")
    assert not (tmp_path / "run" / "notebooks").exists()


def test_a_run_folder_serves_one_process_at_a_time(tiny: Recipe, tmp_path: Path) -> None:
    from filelock import FileLock

    run = Workspace(tmp_path / "run", tiny)
    with (
        FileLock(lock_path(run.folder)),
        pytest.raises(LangadaptError, match="another process uses"),
    ):
        run_notebooks(tiny, run.folder)


def test_the_time_is_said_before_starting() -> None:
    sentence = expected_time(Recipe.profile("cpu"), STAGES)
    assert sentence.startswith("about ") and " minutes on " in sentence


@pytest.mark.parametrize("stages", [["01"], ["fertility"], ["01_fertility", "2"]])
def test_stages_may_be_named_briefly(stages: list[str], tiny: Recipe, tmp_path: Path) -> None:
    Workspace(tmp_path / "run", tiny)
    done = langadapt("run", *stages, "--run", str(tmp_path / "run"))
    assert done.exit_code == 0, done.exception
    records = [path.name for path in (tmp_path / "run").iterdir() if path.name in STAGES]
    assert len(records) == len(stages)
    manifest = json.loads((tmp_path / "run" / "01_fertility" / "manifest.json").read_text())
    assert manifest["stage"] == "01_fertility"
