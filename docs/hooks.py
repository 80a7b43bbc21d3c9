"""Pages of the site: `docs/`, the executed notebooks of a run, and the texts beside the code.

mkdocs reads `docs/` alone. What else becomes a page or is linked to is added here, and the links,
which fit the repository, are made to fit the site.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import generated
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")
TABLES = {
    "results": generated.results,
    "options": generated.options,
    "names": generated.names,
    "errors": generated.errors,
}
MARKDOWN_LINK = r"(?<=\]\()(?!\w+:|#)[^)\s]+"
HTML_LINK = r'(?<= href=")(?!\w+:|#)[^"]+'


def on_config(config: MkDocsConfig) -> None:
    """Stop before anything is written where it would be lost or incomplete."""
    site = Path(config.site_dir)
    holds_others = site.is_dir() and any(site.iterdir())
    if holds_others and not (site / "search/search_index.json").is_file():
        raise Abort(f"{site} holds other files than a site: choose another with --site-dir")
    for path in _executed(config):
        if not path.is_file():
            raise Abort(f"{path} does not exist: run the notebooks first, with `langadapt run`")


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the texts and notebooks outside of `docs/`, and each file that a page links to."""
    for name in TEXTS:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for path in _executed(config):
        name, folder = f"notebooks/{path.name}", str(path.parents[1])
        files.append(File(name, folder, config.site_dir, config.use_directory_urls))
    texts = {_name(page): str(page.abs_src_path) for page in files if _is_page(page)}
    texts["README.md"] = str(ROOT / "README.md")  # the start page shows its results
    for text, place in texts.items():
        for link in re.findall(MARKDOWN_LINK, Path(place).read_text(encoding="utf-8")):
            name = _target(link.split("#")[0], text)
            if (ROOT / name).is_file() and _uri(name) not in files.src_uris:
                source = str(ROOT / name)
                files.append(File.generated(config, _uri(name), abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the tables that are made from the code, and make the links fit the site."""
    for name, table in TABLES.items():
        mark = f"<!-- {name} -->"
        markdown = markdown.replace(mark, table()) if mark in markdown else markdown
    return re.sub(MARKDOWN_LINK, lambda link: _on_site(link[0], page.file), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a notebook lead to pages, as mkdocs does for those of Markdown files."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def to_page(link: re.Match[str]) -> str:
        path, *anchor = _on_site(link[0], page.file).split("#")
        uri = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), path))
        found = files.get_file_from_path(uri)
        return "#".join([found.url_relative_to(page.file) if found else path, *anchor])

    return re.sub(HTML_LINK, to_page, html)


def _executed(config: MkDocsConfig) -> Iterator[Path]:
    """Yield where the executed notebooks of the run lie that the site shows."""
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        yield ROOT / config.extra["run"] / "notebooks" / source.name


def _is_page(file: File) -> bool:
    return file.src_uri.endswith((".md", ".ipynb"))


def _name(page: File) -> str:
    """Return the name in the repository of a page."""
    outside = page.src_uri in TEXTS or page.src_uri.endswith(".ipynb")
    return page.src_uri if outside else f"docs/{page.src_uri}"


def _target(link: str, text: str) -> str:
    """Return the name in the repository of what a link of a text leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(text), link))


def _uri(name: str) -> str:
    """Return where the site has a file of the repository; its README is the start page."""
    return "index.md" if name == "README.md" else name.removeprefix("docs/")


def _on_site(link: str, page: File) -> str:
    """Return a link of a page, which fits the repository, as it fits the site."""
    path, *anchor = link.split("#")
    name = _target(path, _name(page))
    if (ROOT / name).is_file():
        path = posixpath.relpath(_uri(name), posixpath.dirname(page.src_uri) or ".")
    return "#".join([path, *anchor])
