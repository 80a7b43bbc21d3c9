"""The project as a whole: layers, packaging, notebooks as they lie in git."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import langadapt_utils as la
from langadapt_utils.workspace import NOTEBOOKS

ROOT = Path(__file__).parents[1]
# Bottom up: a module may import only from lines above its own.
LAYERS = [
    "",
    "errors",
    "checks",
    "recipe",
    "hardware",
    "sources leaks estimates",
    "incontext",
    "corpus",
    "workspace intervals",
    "tokens",
    "fertility",
    "patterns merges",
    "specs",
    "changes scores",
    "cards",
    "audit sizing learning",
    "contract pruning",
    "vocabulary",
    "rows",
    "reading donors",
    "distillation gating",
    "embeddings",
    "mixture losses",
    "replay optimisation",
    "saving",
    "training",
    "evaluation forgetting gains",
    "harness paired",
    "probing sweeping",
    "render",
    "plots",
    "explorer",
    "widgets",
    "report book",
    "runner",
    "cli",
    "",
][1:-1]
LINE = {module: number for number, line in enumerate(LAYERS) for module in line.split()}


def imports(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1
    } - {""}


def test_every_module_has_its_place_and_imports_only_downwards() -> None:
    modules = {path.stem for path in (ROOT / "langadapt_utils").glob("*.py")} - {"__init__"}
    assert modules == set(LINE)
    for module in modules:
        for imported in imports(ROOT / "langadapt_utils" / f"{module}.py"):
            assert LINE[imported] < LINE[module], f"{module} imports {imported}"


def test_the_import_is_light_and_every_name_is_there() -> None:
    code = "import sys, langadapt_utils; print(sorted({'torch', 'transformers', 'pandas', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in la.__all__:
        assert getattr(la, name).__doc__, name
    with pytest.raises(AttributeError):
        la.nothing_of_the_sort  # noqa: B018


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {Requirement(line).name.lower(): Requirement(line) for line in project["dependencies"]}


def test_conda_users_get_the_same_packages() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    named = {
        Requirement(line).name.lower(): Requirement(line)
        for line in pip
        if not line.startswith("--")
    }
    assert named == requirements()
    assert "--constraint constraints.txt" in pip and "--editable ." in pip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = next(
        entry for entry in environment["dependencies"] if str(entry).startswith("python ")
    )
    assert python.removeprefix("python ") == project["requires-python"]


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
    pins = {Requirement(line).name.lower(): line.partition("==")[2] for line in lines}
    assert all(pins.values()) and pins["torch"] == "2.13.0"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    wanted = [
        *requirements().values(),
        *(Requirement(line) for lines in extras.values() for line in lines),
    ]
    for requirement in wanted:
        if requirement.name != "langadapt":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_the_packages_of_the_design_are_there() -> None:
    wanted = {
        "jupyterlab",
        "torch",
        "transformers",
        "tokenizers",
        "datasets",
        "matplotlib",
        "ipywidgets",
        "papermill",
    }
    assert wanted <= set(requirements())


@pytest.mark.parametrize("name", NOTEBOOKS.values())
def test_a_notebook_in_git_is_clean(name: str) -> None:
    notebook = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert "widgets" not in notebook["metadata"]
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert all(len("".join(cell["source"]).splitlines()) <= 25 for cell in code)


@pytest.mark.parametrize("name", NOTEBOOKS.values())
def test_a_notebook_tells_its_story(name: str) -> None:
    notebook = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
    prose = "\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )
    assert re.match(r"# .*\?", prose)
    for section in (
        "## The idea in a few lines",
        "> **Predict.**",
        "> **Explain.**",
        "## Check yourself",
        "## Exercises",
        "Solutions",
        "## In short",
        "does not show",
    ):
        assert section in prose or (
            section == "## The idea in a few lines" and "The idea" in prose
        ), section
    links = re.findall(r"\]\((\d\d_[a-z_]+\.ipynb)\)", prose)
    assert links and all((ROOT / "notebooks" / link).exists() for link in links)


def test_the_folders_are_those_of_the_design() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: clone the repository to check what lies in it")
    tops = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert tops == {
        *("notebooks", "langadapt_utils", "data", "tests", "benchmarks", ".ci", ".gitignore"),
        *("environment.yml", "pyproject.toml", "constraints.txt", "Makefile", "mkdocs.yml"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    }
