import json
from pathlib import Path

import pytest

from langadapt_utils import runner, workspace
from langadapt_utils.errors import (
    CorpusError,
    LangadaptError,
    RecipeError,
    SourceError,
    WorkspaceError,
)
from langadapt_utils.files import require_space
from langadapt_utils.processes import printer
from langadapt_utils.recipe import Recipe
from langadapt_utils.runner import open_run, run_notebooks
from langadapt_utils.workspace import STAGES, Workspace, anchored, progress_note

RECIPE = Recipe.profile("smoke", overrides={"corpus.english": "builtin"})


@pytest.fixture
def run(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "run", RECIPE)


def finish(run: Workspace, stage: str, text: str = "result") -> None:
    with run.writing(stage) as folder:
        (folder / "result.txt").write_text(text)
        (folder / "publish" / "model").mkdir(parents=True, exist_ok=True)
        (folder / "publish" / "model" / "weights.txt").write_text(text)


def test_a_finished_stage_is_complete_and_publishes(run: Workspace) -> None:
    assert not run.is_complete(STAGES[0])
    finish(run, STAGES[0])
    assert run.is_complete(STAGES[0])
    assert (run.stage(STAGES[0]) / "result.txt").read_text() == "result"
    assert (run.folder / "model" / "weights.txt").read_text() == "result"
    assert {path.name for path in run.folder.iterdir()} == {"recipe.yaml", STAGES[0], "model"}
    manifest = run.manifest(STAGES[0])
    assert (
        manifest["files"] == {f"{STAGES[0]}/result.txt": 6} and manifest["hardware"]["cores"] >= 1
    )


def test_a_stage_that_fails_leaves_the_old_result_alone(run: Workspace) -> None:
    finish(run, STAGES[0], "old")
    with pytest.raises(RuntimeError), run.writing(STAGES[0]) as folder:
        (folder / "result.txt").write_text("new")
        raise RuntimeError
    assert (run.stage(STAGES[0]) / "result.txt").read_text() == "old"


def test_a_stage_done_again_replaces_the_old_result(run: Workspace) -> None:
    finish(run, STAGES[0], "old")
    finish(run, STAGES[0], "newer")
    assert (run.stage(STAGES[0]) / "result.txt").read_text() == "newer"
    assert (run.folder / "model" / "weights.txt").read_text() == "newer"


def test_an_interrupted_stage_gets_its_folder_back(run: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt), run.writing(STAGES[3]) as folder:
        (folder / "checkpoint").write_text("half-way")
        raise KeyboardInterrupt
    with run.writing(STAGES[3]) as folder:
        assert (folder / "checkpoint").read_text() == "half-way"


def test_what_other_inputs_left_behind_is_not_gone_on_with(
    run: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt), run.writing(STAGES[3]) as folder:
        (folder / "checkpoint").write_text("half-way")
        raise KeyboardInterrupt
    monkeypatch.setattr(workspace, "fingerprint", lambda recipe: "other text")
    with Workspace(run.folder, run.recipe).writing(STAGES[3]) as folder:
        assert not (folder / "checkpoint").exists()


def test_a_result_belongs_to_the_text_that_the_stage_began_with(
    run: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as meanwhile, run.writing(STAGES[0]) as folder:
        meanwhile.setattr(workspace, "fingerprint", lambda recipe: "other text")
        with run.writing(STAGES[1]):  # another stage, which begins after the change
            pass
        (folder / "result.txt").write_text("of the old text")
        assert not run.is_complete(STAGES[1])
    assert run.is_complete(STAGES[0]) and run.is_complete(STAGES[1])


@pytest.mark.parametrize(
    "damage", ["delete", "shorten", "other text", "broken manifest", "empty manifest"]
)
def test_a_damaged_or_outdated_stage_is_not_complete(
    run: Workspace, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(run, STAGES[0])
    if damage == "delete":
        (run.folder / "model" / "weights.txt").unlink()
    elif damage == "shorten":
        (run.folder / STAGES[0] / "result.txt").write_text("r")
    elif damage == "broken manifest":
        (run.folder / STAGES[0] / "manifest.json").write_text("{")
    elif damage == "empty manifest":
        (run.folder / STAGES[0] / "manifest.json").write_text("{}")
    else:
        monkeypatch.setattr(workspace, "fingerprint", lambda recipe: "other text")
    assert not run.is_complete(STAGES[0])


def test_local_paths_mean_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.profile(
        "cpu", overrides={"corpus.target": "builtin,hub:a/b,own.txt", "base": "model"}
    )
    fixed = anchored(recipe, tmp_path)
    assert fixed.corpus.target == ["builtin", "hub:a/b", str(tmp_path / "own.txt")]
    assert fixed.base == str(tmp_path / "model") and fixed.corpus.english == recipe.corpus.english
    assert anchored(fixed, Path("/elsewhere")) == fixed


def test_another_base_model_under_the_same_path_is_another_input(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    recipe = Recipe.profile("smoke", overrides={"corpus.english": "builtin", "base": str(base)})
    run = Workspace(tmp_path / "run", recipe)
    finish(run, STAGES[0])
    assert run.is_complete(STAGES[0])
    (base / "config.json").write_text('{"changed": 1}')
    assert not run.is_complete(STAGES[0])


def test_a_lost_report_does_not_undo_a_stage(run: Workspace) -> None:
    with run.writing(STAGES[4]) as folder:
        (folder / "publish").mkdir()
        (folder / "publish" / "report.html").write_text("<html>")
    (run.folder / "report.html").unlink()
    assert run.is_complete(STAGES[4])


def test_a_missing_stage_is_named_with_the_command_that_makes_it(run: Workspace) -> None:
    with pytest.raises(
        WorkspaceError, match=r"02_vocabulary_extension\.ipynb, or `langadapt run --run"
    ):
        run.stage("02_vocabulary")


def test_a_folder_of_another_recipe_is_refused_and_untouched(run: Workspace) -> None:
    before = (run.folder / "recipe.yaml").read_bytes()
    other = Recipe.profile(
        "smoke", overrides={"corpus.english": "builtin", "mixture.english_share": 0.5}
    )
    (run.folder / "01_fertility").mkdir()
    with pytest.raises(WorkspaceError, match=r"mixture\.english_share is 0\.25 there, not 0\.5"):
        Workspace(run.folder, other)
    assert (run.folder / "recipe.yaml").read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("my life's work")
    with pytest.raises(WorkspaceError, match="not empty"):
        Workspace(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_language_without_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"'fi' has no built-in text \(only en, hu, th\)"):
        Workspace(tmp_path / "run", Recipe.profile("smoke", language="fi"))
    assert not (tmp_path / "run").exists()


def test_too_little_disk_is_said(tmp_path: Path) -> None:
    require_space(tmp_path / "new", 1, "for a run", "choose another")
    with pytest.raises(LangadaptError, match=r"GB of disk for a run, .* or choose another"):
        require_space(tmp_path / "new", 10**18, "for a run", "choose another")


def parameters(tmp_path: Path, **changed: object) -> dict[str, object]:
    values = {
        "profile": "smoke",
        "language": "hu",
        "run_dir": str(tmp_path / "run"),
        "overrides": {},
    }
    return {**values, "build_missing": False, **changed}


def test_a_notebook_opens_the_run_of_its_parameters(tmp_path: Path) -> None:
    run = open_run("01_fertility", parameters(tmp_path, overrides={"vocabulary.tokens": 9}))
    assert run.recipe.vocabulary.tokens == 9 and run.folder == tmp_path / "run"
    assert str(run.folder) in run._repr_markdown_()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"language": False}, "parameter language cannot be False: it should be a str"),
        ({"overrides": "mixture.english_share=0"}, "it should be a dict"),
        ({"build_missing": "true"}, "build_missing cannot be 'true': it should be a bool"),
        ({"In": ["", "# Parameters\nlangauge = 'th'\n"]}, "parameter 'langauge' is unknown"),
    ],
)
def test_a_notebook_refuses_wrong_parameters(
    changed: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        open_run("01_fertility", parameters(tmp_path, **changed))


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        (
            "report_to",
            ["no_such_tracker"],
            "report_to names no_such_tracker, .* remove it from the list",
        ),
        ("lora_rank", 8, r"lora_rank needs peft: run pip install 'langadapt\[lora\]'"),
    ],
)
def test_a_package_that_training_lacks_is_said_by_the_first_notebook(
    option: str, value: object, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    asked = parameters(tmp_path, overrides={f"training.{option}": value})
    with pytest.raises(RecipeError, match=sentence):
        open_run("01_fertility", asked)
    with pytest.raises(WorkspaceError, match=r"stage 04_training .* is needed first"):
        open_run("05_evaluation", asked)  # which does not train


def test_a_notebook_needs_the_stage_before(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"stage 01_fertility .* is needed first"):
        open_run("02_vocabulary", parameters(tmp_path))


def test_the_log_has_a_record_a_line(run: Workspace) -> None:
    done = {"step": 1, "steps": 2, "seconds_left": 60, "tokens_per_second": 9}
    said = run.log("04_training", done | {"bits_per_byte": {"en": 1.5}})
    assert said.endswith("step 1 of 2, 9 tokens/s, 1:00 left; bits per byte: en 1.50")
    assert run.log("05_evaluation", "Thai") == "Thai"
    records = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in records] == ["04_training", "05_evaluation"]


def test_a_process_logs_every_record_and_prints_the_first_and_the_last_step(
    run: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    report = printer(run, "04_training")
    for step in (1, 2, 3):
        done = {"step": step, "steps": 3, "seconds_left": 60, "tokens_per_second": 9}
        report(done | {"bits_per_byte": {"en": 1.5}})
    report("the last step")
    shown = capsys.readouterr().out
    assert "step 1 of 3" in shown.splitlines()[0] and "step 3 of 3" in shown
    assert len((run.folder / "log.jsonl").read_text().splitlines()) == 4


def test_options_of_speed_may_change_on_the_way(tmp_path: Path) -> None:
    first = Recipe.profile("smoke")
    Workspace(tmp_path / "run", first)
    other = Recipe.profile(
        "smoke", overrides={"training.micro_batch_tokens": 64, "training.fused_loss": False}
    )
    assert other.digest == first.digest
    Workspace(tmp_path / "run", other)
    assert Recipe.read(tmp_path / "run" / "recipe.yaml") == other
    slower = Recipe.profile("smoke", overrides={"training.learning_rate": 1e-5})
    (tmp_path / "run" / ".01_fertility.partial").mkdir()
    with pytest.raises(WorkspaceError, match=r"another recipe \(training\.learning_rate"):
        Workspace(tmp_path / "run", slower)


def test_a_folder_in_which_nothing_was_begun_takes_another_recipe(tmp_path: Path) -> None:
    """As after a base that could not be fetched."""
    wrong = Recipe.profile("smoke", overrides={"base": str(tmp_path / "nothing-there")})
    with pytest.raises(SourceError, match="is not a model folder"):
        run_notebooks(wrong, tmp_path / "run")
    right = Recipe.profile("smoke")
    Workspace(tmp_path / "run", right)
    assert Recipe.read(tmp_path / "run" / "recipe.yaml") == right


def test_progress_is_said_in_words() -> None:
    bits = {"target": 2.5, "en": 0.875}
    record = {
        "step": 5,
        "steps": 10,
        "tokens_per_second": 4702.0,
        "seconds_left": 61,
        "bits_per_byte": bits,
    }
    note = progress_note(record)
    assert "step 5 of 10, 4,702 tokens/s, 1:01 left; bits per byte: target 2.50, en 0.88" in note
    assert note.count("█") == note.count("░")
    assert progress_note({"doing": "something"}) == "something"
