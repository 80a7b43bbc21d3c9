"""Tiny random models of every architecture that `transformers` maps to a causal language model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

MOST = 5_000_000  # parameters of a tiny model
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "head_dim": 8,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
GPT = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
MAMBA = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
# What some architectures call otherwise, or need beside the sizes above.
OWN: dict[str, dict[str, Any]] = {
    "gpt2": GPT,
    "gptj": GPT | {"rotary_dim": 4},
    "codegen": GPT | {"rotary_dim": 4},
    "gpt_bigcode": GPT,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
    | {"window_size": 64},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
    "rwkv": {"attention_hidden_size": 32},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1}
    | {"expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False},
    "bamba": MAMBA | {"attn_layer_indices": [1], "mamba_chunk_size": 16},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64, "mamba_chunk_size": 16},
    "granitemoehybrid": MAMBA
    | {"layer_types": ["mamba", "attention"], "mamba_chunk_size": 16}
    | {"shared_intermediate_size": 64},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
    "qwen3_next": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR,
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    "nemotron_h": {"hybrid_override_pattern": "M*", "mamba_num_heads": 4, "mamba_head_dim": 16}
    | {"ssm_state_size": 8, "n_groups": 1, "chunk_size": 16},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 64, "num_hidden_layers": 3},
    "llama4_text": {"intermediate_size_mlp": 64, "moe_layers": [1], "attention_chunk_size": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "laurel_rank": 8}
    | {"layer_types": ["sliding_attention", "full_attention"]}
    | {"activation_sparsity_pattern": [0.0, 0.0]},
    "gemma4_text": {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
    | {"layer_types": ["sliding_attention", "full_attention"]},
    "kimi_linear": LATENT
    | {"layer_types": ["linear_attention", "full_attention"]}
    | {"linear_attn_config": {"head_dim": 8, "num_heads": 4}},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "qwen4_exp_text": LINEAR,
    "exaone4": {"layer_types": ["full_attention", "full_attention"]},
    "gpt_oss": {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
    "whisper": {"d_model": 32, "decoder_layers": 2, "encoder_layers": 2}
    | {"decoder_attention_heads": 4, "encoder_attention_heads": 4},
    "plbart": {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4}
    | {"encoder_layers": 2, "encoder_attention_heads": 4},
}
# The part that looks at pictures, of architectures that hold one beside their language model.
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "depth": 2,
    "num_heads": 4,
    "embed_dim": 32,
    "out_hidden_size": 32,
    "image_size": 28,
    "patch_size": 14,
}
EXPLODING = {"gemma3n_text"}  # with larger weights than it begins with
ARCHITECTURES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_model(kind: str, rows: int) -> PreTrainedModel | None:
    """A random model of an architecture; None where no tiny configuration of it builds.

    Random weights are made four times as large, so that context matters.
    """
    parts = getattr(CONFIG_MAPPING[kind], "sub_configs", {})
    with_pictures = "text_config" in parts and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    model_class = AutoModelForImageTextToText if with_pictures else AutoModelForCausalLM
    own = OWN.get(f"{kind}_text" if "text_config" in parts else kind, {})
    without_head = {name: value for name, value in SIZES.items() if name != "head_dim"}
    for sizes in (SIZES | own, without_head | own, SIZES | EXPERTS | own, SIZES | LATENT | EXPERTS):
        torch.manual_seed(0)
        try:
            own = {"vocab_size": rows, "vocab_size_per_layer_input": rows}
            options: dict[str, Any] = {**sizes, **own}
            if "text_config" in parts:
                pictures = {"vision_config": VISION} if "vision_config" in parts else {}
                options = {"text_config": options, **pictures}
            config = AutoConfig.for_model(kind, **options)
            with torch.device("meta"):
                size = model_class.from_config(config).num_parameters()
            if size > MOST:
                continue
            model = model_class.from_config(config).eval()
            with torch.no_grad():
                model(input_ids=torch.tensor([[3, 4, 5, 6]]), use_cache=False)
        except Exception:  # an architecture that needs other options
            continue
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1 and kind not in EXPLODING:
                    weight.mul_(4)
        return model
    return None
