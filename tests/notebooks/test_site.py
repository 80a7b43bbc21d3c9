"""The executed notebooks of a run in the docs site."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.site import Site, build
from langadapt_utils.workspace import NOTEBOOKS, Workspace


@pytest.mark.base
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
