"""The docs site: its links, and what its pages must name."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest

import langadapt_utils as la
from helpers.site import ROOT, Site, build
from langadapt_utils import errors
from langadapt_utils.recipe import Recipe


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site with the notebooks as they lie in git, which takes seconds in place of a run."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "notebooks", folder / "run" / "notebooks")
    done = build(folder / "run", folder / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    return Site(folder / "site")


def test_no_link_of_the_site_is_broken(site: Site) -> None:
    assert site.broken_links() == []


def test_links_of_the_repository_lead_to_files_and_headings(site: Site) -> None:
    texts = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")]
    texts += [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    for text in texts:
        for path, anchor in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)#?([^)\s]*)\)", prose_of(text)):
            target = (text.parent / path).resolve()
            assert target.exists(), f"{text.name}: {path}"
            if anchor:
                name = target.relative_to(ROOT.resolve()).with_suffix(".html").as_posix()
                assert anchor in site.anchors[name.removeprefix("docs/")], f"{text.name}: {anchor}"


def prose_of(path: Path) -> str:
    """A text, or the Markdown cells of a notebook."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return content
    cells = json.loads(content)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_every_option_has_its_words_and_its_default(site: Site) -> None:
    page, recipe = site.pages["options.html"], Recipe.profile("cpu").model_dump()
    options = {name for name in recipe if not isinstance(recipe[name], dict)} - {"profile_name"}
    for section in recipe:
        if isinstance(recipe[section], dict):
            options |= {f"{section}.{option}" for option in recipe[section]}
    assert options <= site.anchors["options.html"]
    for option in options:
        about = page.split(f'id="{option}"')[1].split("<h3")[0]
        words, default = re.findall(r"<p>(.*?)</p>", about, flags=re.DOTALL)[:2]
        assert len(words.split()) >= 2 and "Default: " in default, option
    tokens = Recipe.profile("gpu").vocabulary.tokens
    assert f"in the profile <code>gpu</code>: {tokens:,}" in page


def test_every_public_name_has_its_documentation(site: Site) -> None:
    shown = site.anchors["reference.html"]
    for name in la.__all__:
        assert any(anchor.endswith(f".{name}") for anchor in shown), name
    example = site.pages["reference.html"].split('id="langadapt_utils.recipe.Recipe"')[1]
    assert "&gt;&gt;&gt;" in example.split("<h3")[0] and "<blockquote>" not in example


def test_every_error_has_its_cause_and_its_sentences(site: Site) -> None:
    page = site.pages["troubleshooting.html"]
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        about = page.split(f'id="{name.lower()}"')[1].split("<h3")[0]
        cause, *sentences = re.findall(r"<(?:p|li)>(.*?)</(?:p|li)>", about, flags=re.DOTALL)
        assert words_of(cause) == str(inspect.getdoc(cls)).replace("`", "").split(), name
        assert any(len(sentence.split()) > 5 for sentence in sentences), name
    assert "is unknown: use one of" in page and "‹folder›" in page


def words_of(html: str) -> list[str]:
    return unescape(re.sub(r"<[^>]+>", "", html)).split()


def test_a_site_needs_a_finished_run_and_a_folder_of_its_own(tmp_path: Path) -> None:
    done = build(tmp_path / "run", tmp_path / "site")
    assert done.returncode != 0 and "run the notebooks first" in done.stdout + done.stderr
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("kept")
    done = build(tmp_path / "run", tmp_path / "letters")
    assert done.returncode != 0 and "holds other files than a site" in done.stdout + done.stderr
    assert (tmp_path / "letters" / "letter.txt").read_text() == "kept"
