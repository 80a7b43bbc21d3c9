"""The executed notebooks of a run as a site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from langadapt_utils.workspace import NOTEBOOKS, Workspace

ROOT = Path(__file__).parents[2]


def build(run_dir: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={site}"]
    inside = {**os.environ, "BOOK_RUN": str(run_dir)}
    return subprocess.run(command, cwd=ROOT, env=inside, capture_output=True, text=True)


@pytest.mark.base
def test_the_notebooks_become_a_book(run: Workspace, tmp_path: Path) -> None:
    done = build(run.folder, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    first = tmp_path / "site" / "index.html"
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


def test_a_book_needs_a_finished_run_and_a_folder_of_its_own(tmp_path: Path) -> None:
    done = build(tmp_path / "run", tmp_path / "site")
    assert done.returncode != 0 and "run the notebooks first" in done.stdout + done.stderr
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("kept")
    done = build(tmp_path / "run", tmp_path / "letters")
    assert done.returncode != 0 and "holds other files than a book" in done.stdout + done.stderr
    assert (tmp_path / "letters" / "letter.txt").read_text() == "kept"
