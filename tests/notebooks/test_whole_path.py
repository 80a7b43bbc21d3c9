"""All five notebooks through papermill on the real base model, for both worked examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import nbformat
import papermill
import pytest
from nbformat.sign import NotebookNotary
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from helpers.site import Site, build
from helpers.traces import sourced, untraceable
from langadapt_utils.cli import app
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.languages import NO_LANGUAGE
from langadapt_utils.runner import run_notebooks
from langadapt_utils.workspace import NOTEBOOKS, STAGES, Workspace

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "langadapt_utils" / "scores.schema.json"
pytestmark = pytest.mark.base


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
        assert NotebookNotary().check_signature(notebook), "JupyterLab would hide diagrams"
        outputs = [
            output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
        ]
        assert not [output for output in outputs if output.output_type == "error"]
        assert "widget-view" not in str(outputs), "without a kernel, a control is an error"
        assert not [output.text for output in outputs if output.get("name") == "stderr"], name
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        tried, right = printed.count("not tried yet"), len(re.findall(r"✓ \d\.\d: right", printed))
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


def test_the_command_prints_the_significant_findings(run: Workspace) -> None:
    printed = CliRunner().invoke(app, ["run", "--run", str(run.folder)]).output.splitlines()
    for finding in Scores.load(run.folder / "scores.json").findings():
        assert (f"  {finding}" in printed) == (finding.verdict != "cannot tell"), finding
    assert printed[-2:] == [
        f"model:  {run.folder / 'model'}",
        f"report: {run.folder / 'report.html'}",
    ]


def test_scores_and_report_hold_the_same_findings(run: Workspace) -> None:
    scores = Scores.load(run.folder / "scores.json")
    assert set(scores.documents.language) == {"en", "hu", "th"}
    assert scores.models == ["base", "control", "adapted"]
    assert set(scores.documents.model) == set(scores.models)
    assert set(scores.items.language) == {"en", run.recipe.language, NO_LANGUAGE}
    names = {
        "drift",
        "gains",
        "interpolation",
        "fertility",
        "audit",
        "training",
    }
    assert set(scores.more) == names and all(scores.more.values())
    assert set(scores.documents.source) == {"builtin", "wikipedia"}
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    spent = report.split('<table class="spent">')[1].split("</table>")[0]
    assert all(
        f"<td>{part}</td>" in spent for part in ("0% English", "training", "base", "adapted")
    )
    content = json.loads((run.folder / "scores.json").read_text(encoding="utf-8"))
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    said = sourced(report)
    assert len(said) == 4 + 3 + len(scores.findings())  # cards, figures, findings
    for finding in scores.findings():
        parts = finding.what, re.split(r" [\[(]", finding.change)[0], finding.verdict
        texts = [text for source, text in said if source == finding.source]
        assert any(all(part in text for part in parts) for text in texts) or finding.text in texts
    assert "not measured" not in report and "no interval recorded" not in report
    for source, sentence in said:
        assert not untraceable(sentence, content, source), (source, sentence)
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert all(finding.text in card for finding in scores.findings())
    images = re.findall(r"<img [^>]*>", report)
    assert len(images) >= 3 and all(re.search(r'alt="[^"]{20,}"', image) for image in images)
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
    """What the cells after the header show, but for the names that controls are given anew.

    What a cell prints is one text: the kernel sends it in parts as it has time.
    """
    shown = []
    for cell in [cell for cell in notebook.cells if cell.cell_type == "code"][4:]:
        shown.append("".join(output.get("text", "") for output in cell.outputs))
        data = [output.data for output in cell.outputs if "data" in output]
        shown += [str(part) for part in data if "widget" not in str(part.keys())]
    return shown


def test_running_again_does_nothing(run: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    lines: list[str] = []
    run_notebooks(run.recipe, run.folder, report=lines.append)
    assert lines == [f"{stage}: complete already" for stage in STAGES]
    after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    assert after == before


def test_the_executed_notebooks_become_pages(run: Workspace, tmp_path: Path) -> None:
    done = build(run.folder, tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    site = Site(tmp_path / "site")
    for name in NOTEBOOKS.values():
        page = site.pages[f"notebooks/{name.replace('.ipynb', '.html')}"]
        assert 'id="la-static-' in page, f"{name} has no static copy"
        assert "widget-state+json" not in page, f"{name} holds controls that answer nothing"
        assert "VBox(children=" not in page, (
            f"{name} shows the name of a control beside its static copy"
        )
    index = tmp_path / "site" / "search" / "search_index.json"
    assert index.stat().st_size > 10_000 and site.broken_links() == []
