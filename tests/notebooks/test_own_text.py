"""A language of one's own, from a compressed text file, on a tiny base: the whole path."""

from __future__ import annotations

import lzma
import random
from pathlib import Path

import nbformat
import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils.atlas import world_names
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.recipe import BUILT_IN, Recipe
from langadapt_utils.runner import run_notebooks
from langadapt_utils.workspace import NOTEBOOKS, STAGES


@pytest.mark.slow
def test_hebrew_goes_the_whole_path_from_a_text_file(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    names, draw = sorted(world_names("he").values()), random.Random(0)
    lines = "\n".join(", ".join(draw.choices(names, k=30)) + "." for _ in range(120))
    (tmp_path / "own.txt.xz").write_bytes(lzma.compress(lines.encode()))
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base").folder
    overrides = {
        "base": str(base),
        "corpus.target": str(tmp_path / "own.txt.xz"),
        "corpus.english": BUILT_IN,
        "vocabulary.tokens": 60,
        "mixture.control": False,
    }
    recipe = Recipe.profile("smoke", language="he", overrides=overrides)
    run = run_notebooks(recipe, tmp_path / "run")
    assert all(run.is_complete(stage) for stage in STAGES)
    first, *others = (
        nbformat.read(run.folder / "notebooks" / name, as_version=4) for name in NOTEBOOKS.values()
    )
    shown = str([cell.get("outputs") for cell in first.cells])
    assert "a document per line" in shown and "Hebrew" in shown and 'dir="rtl"' in shown
    for notebook in (first, *others):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert not [output.text for output in outputs if output.get("name") == "stderr"]
    scores = Scores.load(run.folder / "scores.json")
    assert {"en", "he"} <= set(scores.documents.language)
    assert scores.models == ["base", "adapted"]  # no control was asked for
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Hebrew" in report and 'dir="rtl"' in report
