"""One whole run per language on the real base model, which all tests that read it share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.exercises import with_solutions
from langadapt_utils import runner
from langadapt_utils.recipe import Recipe
from langadapt_utils.runner import run_notebooks
from langadapt_utils.workspace import NOTEBOOKS, Workspace

ROOT = Path(__file__).parents[2]


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
