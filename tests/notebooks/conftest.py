"""One whole run per language on the real base model, which all tests that read it share."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from langadapt_utils import runner
from langadapt_utils.recipe import Recipe
from langadapt_utils.runner import run_notebooks
from langadapt_utils.workspace import NOTEBOOKS, Workspace

ROOT = Path(__file__).parents[2]


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
        before, after = cell.source[: call.start()], cell.source[call.start() :]
        cell.source = f"{before}answer_{number} = {solution}\n{after}"
    nbformat.write(content, path)


@pytest.fixture(scope="session", params=["hu", "th"])
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
