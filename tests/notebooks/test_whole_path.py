"""All five notebooks through papermill on the real base model, for both worked examples."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import nbformat
import papermill
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.traces import untraceable
from langadapt_utils import runner
from langadapt_utils.book import build_book
from langadapt_utils.errors import WorkspaceError
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.languages import NO_LANGUAGE
from langadapt_utils.recipe import Recipe
from langadapt_utils.runner import run_notebooks
from langadapt_utils.workspace import NOTEBOOKS, STAGES, Workspace

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "langadapt_utils" / "scores.schema.json"
pytestmark = pytest.mark.base


def with_solutions(notebook: Path, path: Path) -> None:
    """Write a notebook whose exercises are answered by its own hidden solutions."""
    content = nbformat.read(notebook, as_version=4)
    hidden = next(
        cell.source for cell in content.cells if "<summary>Solutions</summary>" in cell.source
    )
    solutions = re.findall(r"^\d\. `(.+)`$", hidden, flags=re.MULTILINE)
    cell = next(
        cell
        for cell in content.cells
        if cell.source.startswith("answer_1, answer_2, answer_3 = None")
    )
    for number, solution in enumerate(solutions, start=1):
        call = re.search(rf'^la\.check_exercise\(\s*"{number}"', cell.source, flags=re.MULTILINE)
        assert call, f"{notebook.name}: exercise {number}"
        cell.source = f"{cell.source[: call.start()]}answer_{number} = {solution}\n{cell.source[call.start() :]}"
    nbformat.write(content, path)


@pytest.fixture(scope="module", params=["hu", "th"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A whole run on the smoke profile; in Thai, the exercises are solved."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "th":
            (folder / "notebooks").mkdir()
            for name in NOTEBOOKS.values():
                with_solutions(ROOT / "notebooks" / name, folder / "notebooks" / name)
            patch.setattr(runner, "project_folder", lambda: folder)
        return run_notebooks(
            Recipe.profile("smoke", language=request.param), folder / request.param
        )


def test_the_run_folder_is_as_the_design_says(run: Workspace) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        *STAGES,
        "recipe.yaml",
        "model",
        "scores.json",
        "report.html",
        "notebooks",
        "log.jsonl",
    }
    assert {path.name for path in (run.folder / "notebooks").iterdir()} == set(NOTEBOOKS.values())
    assert all(run.is_complete(stage) for stage in STAGES)
    assert (
        not list(run.folder.rglob("*.bin"))
        + list(run.folder.rglob("*.pt"))
        + list(run.folder.rglob("checkpoint*"))
    )


def test_no_cell_failed_or_warned_and_exercises_wait(run: Workspace) -> None:
    for name in NOTEBOOKS.values():
        notebook = nbformat.read(run.folder / "notebooks" / name, as_version=4)
        outputs = [
            output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
        ]
        assert not [output for output in outputs if output.output_type == "error"]
        assert not [output.text for output in outputs if output.get("name") == "stderr"], name
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        tried, right = printed.count("not tried yet"), len(re.findall(r"✓ \d: right", printed))
        assert (tried, right) == ((0, 3) if run.recipe.language == "th" else (3, 0)), name
        assert "✓" in printed and "✗" not in printed, name


def test_the_adapted_model_is_a_stock_one_that_generates(run: Workspace) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    model = AutoModelForCausalLM.from_pretrained(run.folder / "model")
    assert len(tokenizer) == 49_152 + run.recipe.vocabulary.tokens == model.config.vocab_size
    for prompt in (
        "The weather today",
        {"hu": "Az időjárás ma", "th": "วันนี้อากาศ"}[run.recipe.language],
    ):
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        assert (
            tokenizer.decode(output[0]).startswith(prompt)
            and output.shape[1] > inputs["input_ids"].shape[1]
        )


def test_scores_and_report_hold_the_same_findings(run: Workspace) -> None:
    scores = Scores.load(run.folder / "scores.json")
    assert set(scores.documents.language) == {"en", "hu", "th"}
    # The English of the Thai recipe is less than a batch here, so that there is nothing to
    # train a control on.
    control = [] if run.recipe.language == "th" else ["control"]
    assert scores.models == ["base", *control, "adapted"] and (
        set(scores.documents.model) == set(scores.models)
    )
    assert set(scores.items.language) == {"en", run.recipe.language, NO_LANGUAGE}
    names = {
        "kl_divergence",
        "drift",
        "gains",
        "interpolation",
        "fertility",
        "vocabulary",
        "audit",
        "training",
    }
    assert set(scores.more) == names and all(scores.more.values())
    assert set(scores.documents.source) == {"builtin", "wikipedia"}
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), report)
    assert all(finding.text in text for finding in scores.findings())
    content = json.loads((run.folder / "scores.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    said = re.findall(r'<li data-source="([^"]+)">(.*?) <small>', text)
    said += re.findall(
        r'data-source="([^"]+)"><figure.*?alt="(.*?)\. Shown: ', text, flags=re.DOTALL
    )
    assert len(said) == len(scores.findings()) + 6
    for source, sentence in said:
        assert not untraceable(sentence, content, source), (source, sentence)
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert all(finding.text in card for finding in scores.findings())
    images = re.findall(r"<img [^>]*>", report)
    assert len(images) >= 6 and all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', report), "the report must stand alone"


def test_the_log_has_every_step(run: Workspace) -> None:
    records = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "step" in record]
    assert [record["step"] for record in steps] == list(range(1, steps[0]["steps"] + 1))
    assert {record["stage"] for record in steps} == {"04_training"} and records[-1][
        "stage"
    ] == "05_evaluation"


def test_a_notebook_gives_the_same_twice(run: Workspace, tmp_path: Path) -> None:
    for stage in STAGES[:2]:
        executed = run.folder / "notebooks" / NOTEBOOKS[stage]
        papermill.execute_notebook(executed, tmp_path / "again.ipynb", progress_bar=False)
        first, again = (
            _shown(nbformat.read(path, as_version=4))
            for path in (executed, tmp_path / "again.ipynb")
        )
        assert first == again, stage


def _shown(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells after the header show, but for the names that controls are given anew."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"][3:]
    outputs = [
        output
        for cell in cells
        for output in cell.outputs
        if "widget" not in str(output.get("data", {}).keys())
    ]
    return [str(output.get("text") or output.get("data")) for output in outputs]


def test_the_notebooks_become_a_book(run: Workspace, tmp_path: Path) -> None:
    first = build_book(run.folder, tmp_path / "site")
    pages = {
        path.name: path.read_text(encoding="utf-8")
        for path in (tmp_path / "site" / "notebooks").glob("*.html")
    }
    assert first.is_file() and set(pages) == {
        name.replace(".ipynb", ".html") for name in NOTEBOOKS.values()
    }
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 10_000
    for name, page in pages.items():
        assert 'id="la-twin-' in page, f"{name} has no static twin"
        assert "widget-state+json" not in page, f"{name} holds controls that answer nothing"
        assert "VBox(children=" not in page, f"{name} shows the name of a control beside its twin"
    links = [
        (page, unquote(link))
        for page in (tmp_path / "site").rglob("*.html")
        for link in re.findall(
            r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8")
        )
        if page.name != "404.html"  # whose links begin at the root of a server
    ]
    assert len(links) > 100 and not [
        (page.name, link) for page, link in links if not (page.parent / link).exists()
    ]
    with pytest.raises(WorkspaceError, match="run the notebooks first"):
        build_book(tmp_path, tmp_path / "site")
    with pytest.raises(WorkspaceError, match="holds other files than a book"):
        build_book(run.folder, run.folder)
    assert first.is_file()


def test_running_again_does_nothing(run: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    told: list[str] = []
    run_notebooks(run.recipe, run.folder, tell=told.append)
    assert told == [f"{stage}: complete already" for stage in STAGES]
    after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"langauge": "th"}, "parameter 'langauge' is unknown"),
        ({"language": False}, "language cannot be False"),
    ],
)
def test_papermill_parameters_are_checked(
    parameters: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    notebook = ROOT / "notebooks" / NOTEBOOKS["01_fertility"]
    values = {"profile": "smoke", "run_dir": str(tmp_path / "run"), **parameters}
    with pytest.raises(PapermillExecutionError, match=sentence):
        papermill.execute_notebook(notebook, tmp_path / "out.ipynb", values, progress_bar=False)


def test_stages_before_are_built_on_request(tmp_path: Path) -> None:
    notebook = ROOT / "notebooks" / NOTEBOOKS["02_vocabulary"]
    values = {
        "profile": "smoke",
        "run_dir": str(tmp_path / "run"),
        "overrides": {"corpus.english": "builtin"},
    }
    with pytest.raises(
        PapermillExecutionError, match=r"stage 01_fertility of run .* set build_missing"
    ):
        papermill.execute_notebook(notebook, tmp_path / "out.ipynb", values, progress_bar=False)
    values["build_missing"] = True
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", values, progress_bar=False)
    assert {path.name for path in (tmp_path / "run").glob("0*")} == {
        "01_fertility",
        "02_vocabulary",
    }


def start(folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        "from langadapt_utils.cli import entry; entry()",
        "run",
        "--profile",
        "smoke",
    ]
    more = [
        "-p",
        "training.checkpoint_minutes=0.001",
        "-p",
        "training.budget_tokens=6144",
        "-p",
        "corpus.english=builtin",
    ]
    return subprocess.Popen(
        [*command, *more, "--run", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # As from a terminal: what a shell starts in the background, tests among it, ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_run_that_is_stopped_in_training_goes_on_from_its_checkpoint(
    how: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    checkpoints = folder / ".04_training.partial" / "checkpoints"
    deadline = time.monotonic() + 400
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.2)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        assert "the same command goes on from here" in errors
    assert kernels and not psutil.wait_procs(kernels, timeout=60)[1], (
        "the notebook's kernel outlived the run"
    )
    lines = (folder / "log.jsonl").read_text()
    assert not (folder / "04_training").exists() and not (folder / "model").exists()
    process = start(folder)
    assert process.wait(timeout=400) == 0, process.communicate()[1]
    records = map(json.loads, (folder / "log.jsonl").read_text()[len(lines) :].splitlines())
    assert next(record["step"] for record in records if "step" in record) > 1, (
        "training began from the start"
    )
    assert (folder / "report.html").exists() and not list(folder.glob(".0*"))
