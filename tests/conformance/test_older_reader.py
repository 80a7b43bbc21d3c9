"""The saved folder in transformers 4.57, in an environment beside this one."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers.architectures import SIZES
from helpers.tiny import CHAT_TEMPLATES, for_chat, saved
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.models import load_base, save_model
from langadapt_utils.training.train import save_adapted
from langadapt_utils.vocabulary.change import VocabularyChange

OLDER = ("transformers==4.57.1", "huggingface_hub==0.36.0", "tokenizers==0.22.1")
LLAMA3 = {"rope_type": "llama3", "rope_theta": 50_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
PARTS = SIZES["hidden_size"] // SIZES["num_attention_heads"] // 2  # of the positions of a head
FACTORS = {"short_factor": [1.5] * PARTS, "long_factor": [4.0] * PARTS}
ROPES = {
    "llama": {"rope_type": "default", "rope_theta": 100_000.0},
    "mistral": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "qwen3": {"rope_type": "default", "rope_theta": 5_000.0},
    "gpt_neox": {"rope_type": "default", "rope_theta": 20_000.0, "partial_rotary_factor": 1.0},
    "phi3-long": {"rope_type": "longrope", "rope_theta": 20_000.0, **FACTORS},
    "llama-scaled": LLAMA3,
    "gemma3_text": {
        "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    },
    "gemma3_text-scaled": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
    },
}
TEXT = "Egy régi híd előtt álltunk, <|im_start|> és néztük a folyót."
SCRIPT = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
found = {}
for folder in sys.argv[2:]:
    ids = AutoTokenizer.from_pretrained(folder)(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids["input_ids"]])).logits[0, -1].tolist()
    found[folder] = [sorted(ids), ids["input_ids"], logits]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    options = ["install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *options, *OLDER], check=True)
    return folder


@pytest.mark.slow
def test_transformers_4_57_reads_the_same_ids_and_logits(
    older: Path, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, tmp_path: Path
) -> None:
    chat = replace(change, tokenizer=for_chat(change.tokenizer, CHAT_TEMPLATES["plain"]))
    places = {}
    for name, rope in ROPES.items():
        torch.manual_seed(0)
        sizes = SIZES | {"vocab_size": len(tokenizer), "rope_parameters": rope}
        if name == "phi3-long":
            sizes |= {"original_max_position_embeddings": 64, "pad_token_id": 0}
        config = AutoConfig.for_model(name.partition("-")[0], **sizes)
        base = saved(AutoModelForCausalLM.from_config(config), tokenizer, tmp_path / name)
        grown = initialise_embeddings(load_base(str(base.folder)).model, change)
        (stage := tmp_path / f"{name}-stage").mkdir()
        save_adapted(grown, [], chat, stage, base)
        places[str(stage / "publish" / "model")] = grown
    spaced = copy.deepcopy(change.tokenizer)  # whose setting is only in tokenizer.json
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    save_model(grown, spaced, tmp_path / "spaced", base.folder)
    places[str(tmp_path / "spaced")] = grown
    command = [sys.executable, "-c", SCRIPT, TEXT, *places]
    environment = {**os.environ, "PYTHONPATH": str(older)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    for folder, (names, ids, logits) in json.loads(done.stdout.splitlines()[-1]).items():
        assert names == ["attention_mask", "input_ids"]
        assert ids == (spaced if "spaced" in folder else change.tokenizer)(TEXT)["input_ids"]
        with torch.no_grad():
            expected = places[folder](torch.tensor([ids])).logits[0, -1]
        assert torch.allclose(torch.tensor(logits), expected, atol=1e-4), folder
