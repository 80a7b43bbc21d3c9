"""The exercises of a notebook, and their solutions as the notebook itself gives them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

CHECK = "\nla.check_exercise("


def cell_with_exercises(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The cell in which the reader answers."""
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and CHECK in cell.source)
    return cell


def solution(notebook: nbformat.NotebookNode) -> str:
    """The code of the folded solutions."""
    (hidden,) = (
        cell.source for cell in notebook.cells if "<summary>Solutions</summary>" in cell.source
    )
    (code,) = re.findall(r"^```python\n(.+?)^```$", hidden, flags=re.MULTILINE | re.DOTALL)
    return str(code)


def answered(notebook: nbformat.NotebookNode, answers: str) -> str:
    """The cell of the exercises, with answers between the reader's `None` and the checks."""
    before, after = cell_with_exercises(notebook).source.split(CHECK, maxsplit=1)
    return f"{before}\n{answers}{CHECK}{after}"


def with_solutions(notebook: Path, path: Path) -> None:
    """Write a notebook whose exercises are answered by its own folded solutions."""
    content = nbformat.read(notebook, as_version=4)
    cell_with_exercises(content).source = answered(content, solution(content))
    nbformat.write(content, path)
