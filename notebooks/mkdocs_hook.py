"""Pages of the book: the executed notebooks of a run, the README, and what they link to."""

import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort

ROOT = Path(__file__).parents[1]
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")
PAGES = tempfile.TemporaryDirectory()  # removed when mkdocs ends


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Collect the pages in a folder that mkdocs reads in place of `docs_dir`."""
    pages, site = Path(PAGES.name), Path(config.site_dir)
    if (
        site.is_dir()
        and any(site.iterdir())
        and not (site / "search/search_index.json").is_file()
    ):
        raise Abort(f"{site} holds other files than a book: choose another with --site-dir")
    for text in TEXTS:
        copy(text, pages)
    (pages / "README.md").rename(pages / "index.md")
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = ROOT / config.extra["run"] / "notebooks" / source.name
        if not executed.is_file():
            raise Abort(
                f"{executed} does not exist: run the notebooks first, with `langadapt run`"
            )
        target = pages / "notebooks" / source.name
        target.parent.mkdir(exist_ok=True)
        # mkdocs makes links between Markdown files lead to pages, but not those here.
        content = executed.read_text(encoding="utf-8")
        content = re.sub(r"\((\d\d_\w+)\.ipynb\)", r"(\1.html)", content)
        target.write_text(content, encoding="utf-8")
    config.docs_dir = str(pages)
    return config


def copy(name: str, pages: Path) -> None:
    """Copy a text and the files that it links to; notebooks come from the run."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    for path in (ROOT / name, *((ROOT / name).parent / link for link in links)):
        target = pages / path.resolve().relative_to(ROOT.resolve())
        if path.is_file() and path.suffix != ".ipynb":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
