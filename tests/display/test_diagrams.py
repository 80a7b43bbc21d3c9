"""The diagrams of the course: files that `docs/diagrams.py` writes and `la.diagram` shows."""

from __future__ import annotations

import importlib.util
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.display.html import diagram
from langadapt_utils.errors import LangadaptError
from langadapt_utils.models import Base
from langadapt_utils.tokens import surface_bytes
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.workspace import STAGES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "langadapt_utils" / "display" / "diagrams"
NAMES = sorted(path.stem for path in FOLDER.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "docs" / "diagrams.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_script_writes(script: ModuleType) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert written == script.diagrams(), "run: python docs/diagrams.py"


@pytest.mark.parametrize("name", NAMES)
def test_a_diagram_has_alternative_text_and_follows_the_page(name: str) -> None:
    content = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    root = ET.fromstring(content)
    title, about = root[0], root[1]
    assert (title.tag, about.tag) == (f"{SVG}title", f"{SVG}desc")
    assert len(title.text or "") > 10 and len(about.text or "") > 60
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {about.get('id')}"
    texts = list(root.iter(f"{SVG}text"))
    assert texts and {text.get("fill") for text in texts} <= {"currentColor", "#ffffff"}
    # Styles of an SVG inside of a page hold for all of the page: these hold in a file alone.
    rules = re.findall(r"([^{}]+)\{color:", root.findtext(f"{SVG}style") or "")
    assert len(rules) == 2 and all(
        rule.endswith("svg:root") or rule == "svg:root" for rule in rules
    )


def test_ids_of_diagrams_differ_so_that_a_page_can_show_them_all() -> None:
    ids = [
        element.get("id")
        for name in NAMES
        for element in ET.parse(FOLDER / f"{name}.svg").iter()
        if element.get("id")
    ]
    assert len(set(ids)) == len(ids) == 2 * len(NAMES)


@pytest.mark.parametrize("stage", range(1, len(STAGES) + 1))
def test_the_path_colours_the_stage_that_is_asked(stage: int) -> None:
    shown = diagram("path", stage=stage)
    name = STAGES[stage - 1].partition("_")[2]
    bold = [
        text.text
        for text in ET.fromstring(shown).iter(f"{SVG}text")
        if text.get("font-weight") == "600"
    ]
    assert bold == [str(stage), name]
    assert shown._repr_html_() == shown


@pytest.mark.parametrize(("name", "stage"), [("paths", None), ("path", 6), ("../html", None)])
def test_another_diagram_is_refused_with_the_names_that_there_are(
    name: str, stage: int | None
) -> None:
    with pytest.raises(LangadaptError, match="use one of embeddings, merges, packed, path"):
        diagram(name, stage)


def boxes(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The tokens of the word, as the diagram writes them."""
    tokens = tokenizer.tokenize(" szépség")
    return [surface_bytes(token).decode().replace(" ", "␣") for token in tokens]


@pytest.mark.base
def test_the_merge_tree_is_that_of_the_real_base(script: ModuleType, base: Base) -> None:
    assert [node[0] for node in script.spelled(new=False)] == boxes(base.tokenizer)
    merges = json.loads(base.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    pairs = [
        tuple(surface_bytes(part).decode("utf-8", "surrogateescape") for part in pair)
        for pair in merges
    ]
    raw = {"␣": " ", "C3": "\udcc3", "A9": "\udca9"}
    drawn = [tuple(raw.get(part, part) for part in pair) for pair in script.BASE_MERGES]
    ranks = list(map(pairs.index, drawn))
    assert ranks == sorted(ranks)  # in the order in which the base has them


@pytest.mark.base
@pytest.mark.slow
def test_the_new_merges_of_the_tree_are_those_of_the_hungarian_text(
    script: ModuleType, base: Base, corpora: dict[str, Corpus]
) -> None:
    text = corpora["hu"].train["hu"]["text"]
    change = extend_vocabulary(base.tokenizer, text, tokens=1_000)
    assert [node[0] for node in script.spelled(new=True)] == boxes(change.tokenizer)
    learned = [change.text(new).replace(" ", "␣") for new in change.added]
    joined = {left + right: number for (left, right), number in script.NEW_MERGES.items()}
    assert {name: learned.index(name) + 1 for name in joined} == joined
