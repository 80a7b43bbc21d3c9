"""Tiny tokenizers and models, built on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from langadapt_utils.evaluation.generation import Reply, replies
from langadapt_utils.models import Base
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe

BUILT_IN_ONLY = CorpusRecipe(english=[BUILT_IN])
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 1, "max_position_embeddings": 128}


# ChatML, as SmolLM2 and Qwen have it, with and without a block that marks the assistant's words.
TURN = "{{ message['content'] + '<|im_end|>' }}"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "TURN{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = (
    "{% if message['role'] == 'assistant' %}{% generation %}TURN{% endgeneration %}"
    "{% else %}TURN{% endif %}"
)
CHAT_TEMPLATES = {
    "plain": CHATML.replace("TURN", TURN),
    "marked": CHATML.replace("TURN", MARKED).replace("TURN", TURN),
}


def for_chat(tokenizer: PreTrainedTokenizerFast, template: str | None) -> PreTrainedTokenizerFast:
    """The same tokens with one that ends turns, and a chat template."""
    names = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    chat = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **names)
    chat.add_special_tokens({"extra_special_tokens": ["<|im_end|>"]})
    return chat


def train_tokenizer(
    texts: list[str], size: int = 600, pattern: str | None = None
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    if pattern is None:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        chat_template="{{ messages }}",
    )


def sentencepiece_bpe(
    texts: list[str], size: int = 700, *, metaspace: bool = False
) -> PreTrainedTokenizerFast:
    """BPE with byte fallback: spaces as `▁` by a normaliser, as Gemma, or by a pre-tokenizer, as
    Mistral.
    """
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    special = ["<unk>", "<s>", "</s>"]
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁+"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in special]
    spec["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(spec))
    if metaspace:
        backend.normalizer = normalizers.Sequence([])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def unigram(texts: list[str], size: int = 400) -> PreTrainedTokenizerFast:
    """Unigram pieces with a metaspace, as T5 and XLM-R."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    backend.add_special_tokens(["<extra_0>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=["<extra_0>"],
    )


def llama(rows: int, *, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=rows, tie_word_embeddings=tied, **GROUPED)
    ).eval()


def gpt2(rows: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=rows, n_embd=16, n_layer=2, n_head=2, n_positions=128)
    ).eval()


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Base:
    """A model and its tokenizer, saved as users save theirs."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Base(folder)


def reply(model: Any, tokenizer: Any, prompt: str, new_tokens: int, **options: Any) -> Reply:
    """What a model writes after one prompt."""
    (written,) = replies(model, tokenizer, [prompt], new_tokens, **options)
    return written
