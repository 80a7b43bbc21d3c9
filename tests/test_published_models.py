"""Folders of models as they are published: precisions, configurations, what a download brings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from helpers.architectures import tiny_model
from helpers.published import mistral
from helpers.tiny import CHAT_TEMPLATES, for_chat, llama, saved
from langadapt_utils import hardware
from langadapt_utils.chat import can_chat
from langadapt_utils.errors import ModelError
from langadapt_utils.evaluation.likelihood import bits_per_byte
from langadapt_utils.files import read_json, write_json
from langadapt_utils.models import fetch_model, load_base, load_model, load_tokenizer, save_model
from langadapt_utils.tokens import token_ids


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_hub_model_is_checked_before_its_weights_are_downloaded(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["config.json", "model-00001-of-00002.safetensors", "consolidated.safetensors"]
    files += ["original/model.safetensors", "onnx/decoder.safetensors", "LICENSE"]
    asked: list[str] = []

    def download(name: str, **options: Any) -> str:
        del options["revision"]
        asked.extend(filter_repo_objects(files, **options))
        return str(tiny_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch_model("hub:org/model")
    assert set(asked) == {"config.json", "LICENSE", "model-00001-of-00002.safetensors"}
    asked.clear()
    edit(tiny_folder, quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(ModelError, match="quantised"):
        fetch_model("hub:org/model")
    assert set(asked) == {"config.json", "LICENSE"}


@pytest.mark.parametrize(
    "kind", ["gpt2", "gpt_neox", "bloom", "phi", "mpt", "gemma3n_text", "rwkv"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_of_half_precision_are_read_on_a_cpu(
    kind: str,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under autocast, residuals are float32 where norms would have weights in half of it."""
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "bfloat16")
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    base = saved(model.to(dtype), tokenizer, tmp_path / "half")
    value = bits_per_byte(base.model, tokenizer, ["Egy régi híd áll a folyó felett."]).value
    exact = bits_per_byte(model.float(), tokenizer, ["Egy régi híd áll a folyó felett."]).value
    assert value == pytest.approx(exact, rel=0.02)
    save_model(base.model, tokenizer, tmp_path / "again", base.folder)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "again"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_configuration_may_have_an_empty_part_for_text(tiny_folder: Path) -> None:
    edit(tiny_folder, text_config=None)
    base = load_base(str(tiny_folder))
    save_model(base.model, base.tokenizer, tiny_folder / "out", tiny_folder)
    assert load_model(tiny_folder / "out").num_parameters() == base.model.num_parameters()


def test_a_token_that_the_configuration_names_as_special_is_special(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    chat = for_chat(tokenizer, CHAT_TEMPLATES["plain"])
    folder = saved(llama(len(chat)), chat, tmp_path / "chat").folder
    data = json.loads((folder / "tokenizer.json").read_text())
    for token in data["added_tokens"]:
        token["special"] &= token["content"] != "<|im_end|>"
    write_json(folder / "tokenizer.json", data)
    named = json.loads((folder / "tokenizer_config.json").read_text())
    named.pop("extra_special_tokens", None)
    write_json(folder / "tokenizer_config.json", named | {"eos_token": "<|im_end|>"})
    ours, stock = load_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    end = stock.eos_token_id
    assert ours.added_tokens_decoder[end].special and ours.get_vocab() == stock.get_vocab()
    assert can_chat(ours) and end not in token_ids(ours, ["a <|im_end|> b"])[0]


@pytest.mark.parametrize("kind", ["llama", "mistral", "phi3"])
def test_a_model_of_sentencepiece_is_read_as_it_is_or_refused(kind: str, tmp_path: Path) -> None:
    """Transformers builds the tokenizer from the code of the class, not from the file alone."""
    mistral(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": kind})
    if kind == "llama":
        assert load_tokenizer(tmp_path).tokenize("In the") == ["▁In", "▁the"]
        return
    with pytest.raises(
        ModelError, match=r"tokenizer\.model gives .*: give a folder with a tokenizer"
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "LlamaTokenizer", "Qwen2Tokenizer"])
def test_a_tokenizer_that_has_no_file_is_not_made_up(kind: str, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": kind, "eos_token": "</s>"})
    with pytest.raises(ModelError, match=r"give a folder with a tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_code_that_is_not_copied_is_not_named(tiny_folder: Path, tmp_path: Path) -> None:
    for name in "config.json", "tokenizer_config.json":
        own = read_json(tiny_folder / name) | {"auto_map": {"AutoModel": "modeling_own.Model"}}
        write_json(tiny_folder / name, own)
    base = load_base(str(tiny_folder))
    save_model(base.model, base.tokenizer, tmp_path, base.folder)
    for name in "config.json", "tokenizer_config.json":
        assert "auto_map" not in read_json(tmp_path / name)
