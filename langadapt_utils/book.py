"""The book: the executed notebooks of a run as a static site, with the texts they link to.

python -m langadapt_utils.book runs/hu-cpu --site build/site
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import LangadaptError, WorkspaceError
from .files import project_folder
from .workspace import NOTEBOOKS

LINKED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "data/README.md",
    "langadapt_utils/scores.schema.json",
)


def build_book(run_dir: Path, site: Path) -> Path:
    """Render the executed notebooks of a finished run.

    Args:
        run_dir: of the run.
        site: where the site is written; it takes the place of an older one.

    Returns:
        The first page.

    Raises:
        WorkspaceError: a notebook was not run, mkdocs is not installed, or a page links to what is
            not there.
    """
    root = project_folder()
    if not (root / "mkdocs.yml").is_file():
        raise WorkspaceError(
            f"{root} is no checkout of langadapt, which the book is built from: clone the repository"
        )
    if (
        site.exists()
        and any(site.iterdir())
        and not (site / "search" / "search_index.json").is_file()
    ):
        raise WorkspaceError(
            f"{site} holds other files than a book: choose another folder with --site"
        )
    executed = [run_dir / "notebooks" / name for name in NOTEBOOKS.values()]
    if missing := [path for path in executed if not path.is_file()]:
        raise WorkspaceError(
            f"{missing[0]} does not exist: run the notebooks first, with `langadapt run`"
        )
    with tempfile.TemporaryDirectory() as folder:
        pages, built = Path(folder) / "pages", Path(folder) / "site"
        figures = (path.relative_to(root) for path in (root / "data" / "reference").glob("*.svg"))
        for name in (*map(Path, LINKED), *figures):
            _copy(root / name, pages / name)
        _copy(root / "README.md", pages / "index.md")
        for path in executed:
            _copy_notebook(path, pages / "notebooks" / path.name)
        settings = (root / "mkdocs.yml").read_text(encoding="utf-8")
        (Path(folder) / "mkdocs.yml").write_text(f"docs_dir: pages\n{settings}", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(built),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise WorkspaceError(
                f"the book was not built: {done.stderr.strip()}; is `pip install 'langadapt[book]'` done?"
            )
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(built, site)
    return site / "index.html"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_notebook(source: Path, target: Path) -> None:
    """A notebook whose links to the others lead to their pages, which mkdocs does for Markdown
    files alone.
    """
    text = source.read_text(encoding="utf-8")
    for name in NOTEBOOKS.values():
        text = text.replace(f"({name})", f"({Path(name).stem}.html)")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def main() -> None:
    """Build the book of a run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--site", type=Path, default=Path("build/site"))
    chosen = parser.parse_args()
    try:
        print(f"book: {build_book(chosen.run, chosen.site)}")
    except LangadaptError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
