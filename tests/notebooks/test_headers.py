"""What stands at the top of a notebook: what it needs and gives, its minutes, its five words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from langadapt_utils.workspace import NOTEBOOKS, STAGES

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "data" / "reference"


def cells(stage: str) -> list[Any]:
    content = nbformat.read(ROOT / "notebooks" / NOTEBOOKS[stage], as_version=4)
    return list(content.cells)


def rows(stage: str) -> list[tuple[str, str]]:
    """The rows of the two tables of the first cell."""
    return re.findall(r"^\| (.+?) \| (.+) \|$", cells(stage)[0].source, flags=re.MULTILINE)


@pytest.mark.parametrize("stage", STAGES)
def test_a_header_says_what_is_needed_and_explains_five_words(stage: str) -> None:
    names = [name for name, _ in rows(stage)]
    assert names[:6] == ["needs", "gives", "level", "CPU", "GPU", "word"]
    words = names[6:]
    assert len(words) == 5
    prose = "\n".join(cell.source for cell in cells(stage)[1:] if cell.cell_type == "markdown")
    for word in words:  # each is used after it was explained
        assert word.partition(" (")[0].lower() in prose.lower(), word


@pytest.mark.parametrize("stage", STAGES)
def test_minutes_are_those_of_the_recorded_runs(stage: str) -> None:
    said = dict(rows(stage))
    minutes = json.loads((RECORDS / "hu-cpu.json").read_text())["seconds"][stage] / 60
    expected = f"{minutes:.1f}" if minutes < 1 else f"{minutes:.0f}"
    assert said["CPU"].startswith(f"{expected} minute"), said["CPU"]
    runs = [json.loads(path.read_text()) for path in RECORDS.glob("*.json")]
    versions = [run["hardware"]["torch"] for run in runs if "hardware" in run]
    assert versions
    on_gpu = [version for version in versions if not version.endswith("+cpu")]
    assert (said["GPU"] == "not measured") == (not on_gpu)


@pytest.mark.parametrize("stage", STAGES)
def test_the_path_stands_on_top_with_the_own_stage(stage: str) -> None:
    first = next(cell.source for cell in cells(stage) if cell.cell_type == "code")
    assert f'la.diagram("path", stage={STAGES.index(stage) + 1})' in first
