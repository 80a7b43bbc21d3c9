"""Parameters that papermill gives a notebook."""

from __future__ import annotations

from pathlib import Path

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from langadapt_utils.workspace import NOTEBOOKS

ROOT = Path(__file__).parents[2]


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


@pytest.mark.slow
def test_stages_before_are_built_on_request(tiny_folder: Path, tmp_path: Path) -> None:
    notebook = ROOT / "notebooks" / NOTEBOOKS["02_vocabulary"]
    values = {
        "profile": "smoke",
        "run_dir": str(tmp_path / "run"),
        "overrides": {"corpus.english": "builtin", "base": str(tiny_folder)},
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
