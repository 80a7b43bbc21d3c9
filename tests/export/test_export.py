"""`langadapt export` on a run: what is written, what is said, and what is left when it fails."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from typer.testing import CliRunner, Result

from langadapt_utils.cli import app
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError, RecipeError
from langadapt_utils.export import export
from langadapt_utils.export.export import export_gguf
from langadapt_utils.files import read_json
from langadapt_utils.models import load_base
from langadapt_utils.recipe import Recipe
from langadapt_utils.training.train import save_adapted
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.workspace import Workspace

pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install 'langadapt[export]'")


@pytest.fixture
def run(tiny_folder: Path, change: VocabularyChange, tmp_path: Path) -> Workspace:
    """A run of a tiny model, trained and not yet measured."""
    overrides = {"base": str(tiny_folder), "corpus.english": "builtin"}
    run = Workspace(tmp_path / "hu-tiny", Recipe.profile("smoke", overrides=overrides))
    base = load_base(str(tiny_folder))
    with run.writing("02_vocabulary") as folder:
        change.save(folder)
    with run.writing("04_training") as folder:
        save_adapted(initialise_embeddings(base.model, change), [], change, folder, base)
    return run


def exported(run: Workspace, *options: str) -> Result:
    return CliRunner().invoke(app, ["export", str(run.folder), *options], catch_exceptions=False)


def test_the_file_the_card_and_the_modelfile_tell_the_same(run: Workspace) -> None:
    folder = run.folder / "model"
    first = exported(run, "--format", "gguf")
    second = exported(run, "--type", "q8_0")
    assert first.exit_code == second.exit_code == 0
    names = ["hu-tiny-f16.gguf", "hu-tiny-q8_0.gguf"]
    assert sorted(path.name for path in folder.glob("*.gguf")) == names
    proofs, card = read_json(folder / "proofs.json"), (folder / "README.md").read_text("utf-8")
    assert list(proofs) == names
    for name, done in zip(names, (first, second), strict=True):
        assert f"llama-completion -m model/{name}" in card
        for sentence in proofs[name]:
            assert sentence in card and sentence in done.output
    assert "tokens are PyTorch's" in card and "Bits per byte, Hungarian" in card
    assert (folder / "Modelfile").read_text() == "FROM ./hu-tiny-q8_0.gguf\n"  # it has a template
    assert run.is_complete("04_training")
    fields = gguf.GGUFReader(folder / names[0]).fields
    assert fields["general.languages"].contents() == ["hu", "en"]
    assert fields["langadapt.recipe"].contents() == (run.folder / "recipe.yaml").read_text("utf-8")


def test_a_file_that_is_not_proved_is_not_left(
    run: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(run.folder.rglob("*"))
    monkeypatch.setattr(export, "_read", lambda *_: (1.0, 0.0))
    with pytest.raises(ModelError, match="too far apart: choose a --type with more bits"):
        export_gguf(run)
    left = set(run.folder.rglob("*")) - set(before)
    assert {path.name for path in left} <= {"README.md"}


def test_an_id_that_pytorch_finds_less_likely_stops_f16_alone(
    run: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export._read
    monkeypatch.setattr(export, "_read", lambda *told: (real(*told)[0], 0.02))
    with pytest.raises(ModelError, match=r"llama.cpp writes an id 0\.02 nats below"):
        export_gguf(run)
    assert "0 of 10 greedy continuations" in export_gguf(run, kind="bf16")[-1]


def test_what_is_missing_is_said_before_anything_is_read(
    run: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="type 'q2' is unknown: use one of f16, bf16, q8_0, q4_0"):
        export_gguf(run, kind="q2")
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'langadapt\[export\]'"):
        export_gguf(run)
