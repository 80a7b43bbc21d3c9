"""The project as a whole: its layout and sizes, and the notebooks as they lie in git."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

from langadapt_utils.workspace import NOTEBOOKS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "langadapt_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_CODE, LONGEST_FILE, LONGEST_FUNCTION = 7_000, 450, 60  # lines
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lines_of_code(path: Path) -> int:
    """Lines without blank ones, comments and docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    source = io.StringIO(path.read_text(encoding="utf-8"))
    numbers = {
        number
        for token in tokenize.generate_tokens(source.readline)
        if token.type not in layout | {tokenize.ENDMARKER}
        for number in range(token.start[0], token.end[0] + 1)
    }
    return len(numbers - docstrings)


def test_the_package_stays_small() -> None:
    counts = {name_of(path): lines_of_code(path) for path in MODULES}
    assert sum(counts.values()) <= MOST_CODE, counts


def test_no_file_is_long() -> None:
    files = [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    counts = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: count for name, count in counts.items() if count > LONGEST_FILE} == {}


def test_no_function_is_long() -> None:
    lengths = {
        f"{name_of(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_a_folder_begins_with_one_docstring() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            tree = parsed(path)
            assert ast.get_docstring(tree) and len(tree.body) == 1, name_of(path)


def test_contributing_names_every_module_in_its_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (`[^|]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) <= 10
    named: set[str] = set()
    for where, modules in rows:
        folder = re.fullmatch(r"`(\w+/)`", where)
        named |= {
            f"{folder[1] if folder else ''}{name}" for name in re.findall(r"`(\w+)`", modules)
        }
    relative = [path.relative_to(PACKAGE).with_suffix("") for path in MODULES]
    assert named == {path.as_posix() for path in relative if path.name != "__init__"}


def notebook(name: str) -> dict[str, list[dict[str, list[str]]]]:
    content: dict[str, list[dict[str, list[str]]]]
    content = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", NOTEBOOKS.values())
def test_a_notebook_in_git_is_clean(name: str) -> None:
    content = notebook(name)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert "widgets" not in content["metadata"]
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1  # type: ignore[attr-defined]
    assert all(len("".join(cell["source"]).splitlines()) <= 25 for cell in code)


@pytest.mark.parametrize("name", NOTEBOOKS.values())
def test_links_of_a_notebook_lead_somewhere(name: str) -> None:
    cells = notebook(name)["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", prose)
    assert set(links) & set(NOTEBOOKS.values()), "no link to the notebook before or after"
    for link in links:
        assert (ROOT / "notebooks" / link).exists(), link


def test_the_folders_are_those_of_the_design() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: clone the repository to check what lies in it")
    tops = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert tops == {
        *("notebooks", "langadapt_utils", "data", "docs", "tests", "benchmarks", "configs"),
        *(".ci", ".github", ".gitignore", "Dockerfile"),
        *("environment.yml", "pyproject.toml", "constraints.txt", "Makefile", "mkdocs.yml"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    }
