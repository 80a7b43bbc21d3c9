"""The docs site, built as `make docs` builds it, and the links of its pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cached_property
from html import unescape
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[2]


def build(run_dir: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site with the executed notebooks of a run."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={site}"]
    inside = {**os.environ, "DOCS_RUN": str(run_dir), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=inside, capture_output=True, text=True)


class Site:
    """The pages of a built site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pages(self) -> dict[str, str]:
        """HTML by name; not of the page for errors, whose links begin at the root of a server."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_text(encoding="utf-8")
            for path in self.folder.rglob("*.html")
            if path.name != "404.html"
        }

    @cached_property
    def anchors(self) -> dict[str, set[str]]:
        """What a link can lead to in each page."""
        return {
            name: {unescape(found) for found in re.findall(r'\bid="([^"]+)"', page)}
            for name, page in self.pages.items()
        }

    def broken_links(self) -> list[tuple[str, str]]:
        """Return the page and the link of each that leads nowhere in the site."""
        links = {
            (name, unquote(unescape(link)))
            for name, page in self.pages.items()
            for link in re.findall(r'(?:href|src)="(?!\w+:|//)([^"]+)"', page)
        }
        assert len(links) > 100
        return sorted((name, link) for name, link in links if not self._leads_on(name, link))

    def _leads_on(self, name: str, link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = (self.folder / name).parent / path if path else self.folder / name
        if not target.exists() or not anchor or target.suffix != ".html":
            return target.exists()
        page = target.resolve().relative_to(self.folder.resolve()).as_posix()
        return anchor in self.anchors[page] or anchor.startswith("__")
