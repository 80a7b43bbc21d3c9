from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from langadapt_utils import cli
from langadapt_utils.errors import WorkspaceError
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.report.report import compare_runs


def test_runs_are_compared_on_the_same_documents(tmp_path: Path) -> None:
    def finished(name: str, after: float, documents: int = 20) -> Path:
        rows = [
            {"model": model, "language": code, "source": "builtin", "domain": "d", "id": str(i)}
            | {"bits": bits + i, "bytes": 100}
            for code in ("hu", "en")
            for model, bits in (("base", 300.0), ("adapted", after))
            for i in range(documents)
        ]
        folder = tmp_path / name
        folder.mkdir()
        Scores(["base", "adapted"], "hu", pd.DataFrame(rows), pd.DataFrame(), [], 200).save(
            folder / "scores.json"
        )
        return folder

    first, second, other = (
        finished("first", 250.0),
        finished("second", 200.0),
        finished("other", 200.0, documents=9),
    )
    table = compare_runs([first, second, other])
    assert [one is None for one in table.against_first] == [True, True, False, False, True, True]
    expected = sum(200.0 + i for i in range(20)) / sum(250.0 + i for i in range(20)) - 1
    assert table.against_first[2].value == pytest.approx(expected)
    done = CliRunner().invoke(cli.app, ["compare", str(first), str(second)], terminal_width=200)
    assert done.exit_code == 0 and "second" in done.output and f"{expected:+.1%}" in done.output
    with pytest.raises(WorkspaceError, match="holds no finished run"):
        compare_runs([tmp_path])
