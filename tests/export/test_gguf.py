"""GGUF files of every family, in llama.cpp itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers.tiny import gpt2, saved, sentencepiece_bpe, train_tokenizer, unigram
from helpers.vocabularies import PATTERNS, TEXT, english
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError, VocabularyError
from langadapt_utils.export.export import find_pattern, prove, trial_texts
from langadapt_utils.export.gguf_file import Pattern, write_gguf
from langadapt_utils.export.llama import loaded
from langadapt_utils.models import Base, save_model, save_tokenizer
from langadapt_utils.tokens import document_start, token_ids
from langadapt_utils.vocabulary.extend import extend_vocabulary

pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install 'langadapt[export]'")

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
WIDE = {"head_dim": 32}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 50_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 20_000.0}
LOCAL = {"rope_type": "default", "rope_theta": 5_000.0}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "llama untied, scaled": WIDE
    | {"tie_word_embeddings": False, "rope_parameters": LLAMA3}
    | {"attention_bias": True, "mlp_bias": True},
    "llama linear": {"rope_parameters": LINEAR},
    "mistral": WIDE,
    "qwen2": {},
    "qwen3": WIDE | {"tie_word_embeddings": True},
    "gemma3_text": WIDE
    | {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2}
    | {"num_hidden_layers": 6, "sliding_window": 16, "query_pre_attn_scalar": 20}
    | {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL}},
}


def random_model(name: str, rows: int, **more: Any) -> Any:
    """A model with weights so large that what stands before a token matters."""
    torch.manual_seed(0)
    options = SIZES | {"vocab_size": rows} | MODELS.get(name, {}) | more
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name.split()[0], **options))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4) if weight.ndim > 1 else weight.add_(torch.randn_like(weight) * 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def documents(corpora: dict[str, Corpus]) -> dict[str, list[str]]:
    return {code: list(part["text"]) for code, part in corpora["hu"].heldout.items()}


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_says_what_pytorch_says(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    documents: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    folder = saved(random_model(name, len(tokenizer) + 5), tokenizer, tmp_path / "model").folder
    pattern, file = Pattern("gpt-2"), tmp_path / "model.gguf"
    for kind in ("f16", "q8_0"):
        write_gguf(folder, file, kind, pattern)
        said = list(prove(file, folder, kind, ["egy", " két\n"], documents))
        assert [sentence.split(":")[0] for sentence in said[:2]] == [
            f"Bits per byte, {language}" for language in ("Hungarian", "English")
        ]
        assert "of 10 greedy continuations" in said[2]
    # The same weights with other rotary positions are another model.
    config = json.loads((folder / "config.json").read_text())
    parts = config["rope_parameters"]
    for part in (parts, *(one for one in parts.values() if isinstance(one, dict))):
        part.update({key: 3.0 for key in part if key == "rope_theta"})
    (folder / "config.json").write_text(json.dumps(config))
    write_gguf(folder, file, "f16", pattern)
    (folder / "config.json").write_text(json.dumps(config).replace("3.0", "10000.0"))
    with pytest.raises(ModelError, match=r"too far apart|below PyTorch"):
        list(prove(file, folder, "f16", ["egy"], documents))


def kinds(file: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}


def test_a_quantised_file_keeps_vectors_and_what_no_block_fits(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 72, "tie_word_embeddings": False}
    model = random_model("llama", len(tokenizer), **sizes)
    folder = saved(model, tokenizer, tmp_path / "model").folder
    found = {}
    for kind in ("q4_0", "q8_0", "bf16"):
        write_gguf(folder, tmp_path / kind, kind, Pattern("gpt-2"))
        found[kind] = kinds(tmp_path / kind)
    assert {name: found["q4_0"][name] for name in ("token_embd.weight", "output.weight")} == {
        "token_embd.weight": "Q8_0",
        "output.weight": "Q8_0",
    }
    assert found["q4_0"]["blk.0.attn_q.weight"] == "Q4_0"
    assert found["q4_0"]["blk.0.ffn_down.weight"] == "F16"  # its rows have 72 numbers
    assert found["q8_0"]["blk.0.ffn_up.weight"] == "Q8_0"
    assert found["bf16"]["blk.0.ffn_down.weight"] == "BF16"
    assert {kind["blk.0.attn_norm.weight"] for kind in found.values()} == {"F32"}


def test_a_weight_that_float16_cannot_hold_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = random_model("llama", len(tokenizer))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e6
    folder = saved(model, tokenizer, tmp_path / "model").folder
    with pytest.raises(ModelError, match=r"blk.1.ffn_up.weight is too large .* --type bf16"):
        write_gguf(folder, tmp_path / "file", "f16", Pattern("gpt-2"))
    write_gguf(folder, tmp_path / "file", "bf16", Pattern("gpt-2"))


def test_what_cannot_be_written_is_refused_by_name(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0}
    refused = {
        "'gpt2' models cannot be written as GGUF, only llama": saved(
            gpt2(len(tokenizer)), tokenizer, tmp_path / "gpt2"
        ),
        "RoPE of type 'yarn'": saved(
            random_model("llama", len(tokenizer), rope_parameters=yarn), tokenizer, tmp_path / "y"
        ),
    }
    pieces = unigram(english(corpora)["en"])
    unknown = saved(random_model("llama", len(pieces)), pieces, tmp_path / "unigram")
    refused["a Unigram tokenizer"] = unknown
    for problem, base in refused.items():
        with pytest.raises((ModelError, VocabularyError), match=problem):
            write_gguf(base.folder, tmp_path / "file", "f16", Pattern("gpt-2"))


def thai(tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]) -> Any:
    """A tokenizer with Thai tokens, its word pattern repaired."""
    train = corpora["th"].train
    changed = extend_vocabulary(
        tokenizer, train["th"]["text"], tokens=300, others={"en": train["en"]["text"]}
    )
    return changed.tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("base", ["llama3", "qwen2"])
def test_a_repaired_tokenizer_finds_the_pattern_that_keeps_marks(
    base: str, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    trained = train_tokenizer(english(corpora)["en"], 2_000, PATTERNS[base])
    heldout = {code: list(part["text"]) for code, part in corpora["th"].heldout.items()}
    texts = trial_texts(heldout)
    assert len(set(texts)) >= 5_000
    names = {}
    for name, tokenizer in {"base": trained, "repaired": thai(trained, corpora)}.items():
        save_tokenizer(tokenizer, tmp_path / name)
        names[name] = find_pattern(tmp_path / name, texts).name
    assert names["repaired"] in {"qwen35", "k2-horizon", "deepseek-v3"} - {names["base"]}


@pytest.mark.slow
def test_a_pattern_that_llama_cpp_lacks_is_refused_with_a_text(
    corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(english(corpora)["en"], 1_000, r"\p{Lu}?[^\p{Lu}]{1,5}|\p{Lu}+")
    save_tokenizer(tokenizer, tmp_path)
    texts = trial_texts({"en": english(corpora)["en"]})
    with pytest.raises(VocabularyError, match=r"the nearest, '.*', reads '(.*)' as \[") as caught:
        find_pattern(tmp_path, texts)
    assert "transformers, vLLM or mlx-lm" in str(caught.value)


@pytest.mark.parametrize("prefix", [True, False])
def test_new_tokens_of_sentencepiece_are_merged_by_their_rank(
    prefix: bool, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    tokenizer = sentencepiece_bpe(english(corpora)["en"])
    if not prefix:  # as Gemma
        data = json.loads(tokenizer.backend_tokenizer.to_str())
        data["normalizer"] = data["normalizer"]["normalizers"][1]
        tokenizer._tokenizer = tokenizer._tokenizer.from_str(json.dumps(data))
    train = corpora["hu"].train
    change = extend_vocabulary(tokenizer, train["hu"]["text"], tokens=200)
    save_tokenizer(change.tokenizer, tmp_path)
    heldout = {code: list(part["text"]) for code, part in corpora["hu"].heldout.items()}
    assert find_pattern(tmp_path, trial_texts(heldout)) == Pattern("default", "llama", prefix)


def test_special_tokens_are_text_in_text_and_the_flags_are_those_of_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = random_model("llama", len(tokenizer) + 3)
    folder = saved(model, tokenizer, tmp_path / "model").folder
    write_gguf(folder, tmp_path / "file", "f16", Pattern("llama-bpe"))
    fields = gguf.GGUFReader(tmp_path / "file").fields
    said = {name.removeprefix("tokenizer."): field.contents() for name, field in fields.items()}
    assert said["ggml.add_bos_token"] is False  # `llama-bpe` alone would add it
    assert said["ggml.bos_token_id"] == tokenizer.bos_token_id
    assert said["chat_template"] == tokenizer.chat_template
    assert said["ggml.token_type"][-3:] == [gguf.TokenType.UNUSED] * 3
    assert said["ggml.token_type"][tokenizer.bos_token_id] == gguf.TokenType.CONTROL
    with loaded(tmp_path / "file") as llama:
        text = "egy <|endoftext|> és <|im_start|>"
        start = document_start(tokenizer)
        assert llama.ids([text, ""], start) == [*token_ids(tokenizer, [text]), []]
        meant = llama._ask("tokenize", content=text, parse_special=True, add_special=True)
    assert meant["tokens"] == tokenizer(text)["input_ids"]


def test_a_failure_of_llama_cpp_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file.gguf").write_bytes(b"GGUF nothing")
    with (
        pytest.raises(ModelError, match=r"cannot load file\.gguf"),
        loaded(tmp_path / "file.gguf"),
    ):
        pass


@pytest.mark.base
@pytest.mark.slow
def test_the_real_base_with_hungarian_tokens_is_proved(
    base: Base, documents: dict[str, list[str]], corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    train, folder = corpora["hu"].train, tmp_path / "model"
    change = extend_vocabulary(base.tokenizer, train["hu"]["text"], tokens=300)
    save_model(initialise_embeddings(base.model, change), change.tokenizer, folder, base.folder)
    texts = trial_texts(documents)
    pattern = find_pattern(folder, texts)
    assert pattern.name == "smollm" and len(texts) >= 5_000
    for kind, limit in {"f16": 0.005, "q8_0": 0.02}.items():
        write_gguf(folder, tmp_path / "file", kind, pattern)
        said = " ".join(prove(tmp_path / "file", folder, kind, texts, documents))
        changes = [float(found) / 100 for found in re.findall(r"\(([+-][\d.]+)%\)", said)]
        assert len(changes) == 2 and max(map(abs, changes)) <= limit


def test_any_text_has_the_ids_of_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = saved(random_model("llama", len(tokenizer)), tokenizer, tmp_path / "model").folder
    write_gguf(folder, tmp_path / "file", "f16", Pattern("gpt-2"))
    start = document_start(tokenizer)
    with loaded(tmp_path / "file") as llama:

        @given(st.lists(TEXT, min_size=1, max_size=20))
        def same(texts: list[str]) -> None:
            assert llama.ids(texts, start) == token_ids(tokenizer, texts)

        same()
