"""The folder of an adapted model, file by file, for what vLLM, transformers 4.57 and mlx-lm read.

What they read was looked up in their sources: mlx-lm 0.32.2 (`mlx_lm/models/*.py`, `utils.py`) and
transformers 4.57. `tests/conformance/test_older_reader.py` loads folders in the latter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers.architectures import SIZES
from helpers.tiny import saved
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.files import read_json
from langadapt_utils.models import load_base
from langadapt_utils.training.train import save_adapted
from langadapt_utils.vocabulary.change import VocabularyChange

LLAMA3 = {"rope_type": "llama3", "rope_theta": 50_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 20_000.0, "factor": 8.0}
PLAIN = {"rope_type": "default", "rope_theta": 30_000.0}
ROPES: dict[str, dict[str, Any]] = {
    "llama": LLAMA3,
    "mistral": PLAIN,
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "gemma3_text": {"full_attention": LINEAR, "sliding_attention": PLAIN},
}
READ = {  # fields of config.json that mlx-lm has no default for, or a wrong one
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "vocab_size",
    "rope_theta",
    "tie_word_embeddings",
    "architectures",
    "torch_dtype",
    "eos_token_id",
}


@pytest.mark.parametrize("kind", ROPES)
def test_each_program_finds_what_it_reads(
    kind: str, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": len(tokenizer), "rope_parameters": ROPES[kind]}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    base = saved(model, tokenizer, tmp_path / "base")
    (base.folder / "LICENSE").write_text("terms")
    (base.folder / "README.md").write_text("---\nlicense: mit\n---\n")
    grown = initialise_embeddings(load_base(str(base.folder)).model, change)
    save_adapted(grown, [], change, tmp_path, base)
    folder = tmp_path / "publish" / "model"

    config = read_json(folder / "config.json")
    assert set(config) >= READ and config["model_type"] == kind
    assert config["vocab_size"] == grown.get_input_embeddings().weight.shape[0]
    rope = ROPES[kind].get("full_attention", ROPES[kind])
    assert config["rope_theta"] == rope["rope_theta"]
    if rope["rope_type"] != "default":
        wanted = {name: value for name, value in rope.items() if name != "rope_theta"}
        assert config["rope_scaling"] == wanted
    if kind == "gemma3_text":
        assert config["rope_local_base_freq"] == PLAIN["rope_theta"]
        assert {"head_dim", "query_pre_attn_scalar", "sliding_window", "layer_types"} <= set(config)

    words = read_json(folder / "tokenizer_config.json")
    assert words["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert [words[name] for name in ("bos_token", "eos_token")] == ["<|endoftext|>"] * 2
    assert (folder / "chat_template.jinja").read_text() == tokenizer.chat_template
    assert "eos_token_id" in read_json(folder / "generation_config.json")
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert weights.metadata()["format"] == "pt"
        names = set(weights.keys())
    assert "model.embed_tokens.weight" in names
    assert ("lm_head.weight" in names) != config["tie_word_embeddings"]
    assert (folder / "LICENSE").is_file() and (folder / "BASE_MODEL_CARD.md").is_file()
