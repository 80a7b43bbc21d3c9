"""Write a saved model as one GGUF file, the format of llama.cpp and Ollama.

Writer, names and quantisers come from the `gguf` package. This module adds what llama.cpp expects
of each architecture.
"""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors import safe_open
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import ModelError, VocabularyError
from ..files import package_yaml
from ..models import Base, load_tokenizer, weight_files
from ..vocabulary.tokenizer_json import Spec

KNOWN = package_yaml("export/llama_cpp.yaml")
ARCHITECTURES = {name: gguf.MODEL_ARCH[own] for name, own in KNOWN["architectures"].items()}
KINDS = {kind.name.lower(): kind for kind in (Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0)}
ELSEWHERE = "use the folder of the model in transformers, vLLM or mlx-lm"
NO_SCORE = -1e9  # of a token without a merge
logging.getLogger("gguf").setLevel(logging.ERROR)  # it warns about values that are corrected here


class Pattern(NamedTuple):
    """How llama.cpp splits text into words and merges them.

    Attributes:
        name: `tokenizer.ggml.pre`.
        model: `tokenizer.ggml.model`: `gpt2` merges by a list of pairs, `llama` by scores.
        space: whether a space is added before a text, if merging is by scores.
    """

    name: str
    model: str = "gpt2"
    space: bool = False


def write_gguf(folder: Path, path: Path, kind: str, pattern: Pattern, recipe: str = "") -> None:
    """Write a saved model as a GGUF file.

    Vectors stay in float32. A matrix is in float16 if its rows are no multiple of the quantisation
    block. With `q4_0`, embeddings and LM head are in `q8_0`.

    Args:
        folder: of the model; its model card becomes metadata.
        path: of the file.
        kind: one of `KINDS`.
        pattern: word pattern that gives the ids of the tokenizer.
        recipe: of the run, stored in the file as `langadapt.recipe`.

    Raises:
        ModelError: the model cannot be exported (`exportable`), or a weight is too large for
            float16.
        VocabularyError: the tokenizer is of the Unigram family.
    """
    config = exportable(folder)
    name = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]]
    writer = gguf.GGUFWriter(path, name, use_temp_file=True)
    gguf.Metadata.load(model_path=folder).set_gguf_meta_model(writer)
    writer.add_string("langadapt.recipe", recipe)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{KINDS[kind].name}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_vocabulary(writer, folder, config.vocab_size, pattern)
    for name, weight in _tensors(folder, config):
        own = Kind.F32 if weight.ndim == 1 else KINDS[kind]
        if own == Kind.Q4_0 and name in ("token_embd.weight", "output.weight"):
            own = Kind.Q8_0
        if weight.shape[-1] % gguf.GGML_QUANT_SIZES[own][0]:
            own = Kind.F16
        data = gguf.quantize(weight, own)
        if own == Kind.F16 and not np.isfinite(data).all():
            raise ModelError(f"a weight of {name} is too large for float16: choose --type bf16")
        writer.add_tensor(name, data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def exportable(folder: Path) -> Any:
    """Return the configuration of a saved model that can be written as GGUF.

    Raises:
        ModelError: the architecture or the rotary positions are not supported.
    """
    config: Any = Base(folder).config
    if (kind := config.model_type) not in ARCHITECTURES:
        problem = f"'{kind}' models cannot be written as GGUF, only {', '.join(ARCHITECTURES)}"
        raise ModelError(f"{problem}: {ELSEWHERE}")
    if (rope := _rope(config)["rope_type"]) not in ("default", "linear", "llama3"):
        raise ModelError(f"RoPE of type '{rope}' cannot be written as GGUF: {ELSEWHERE}")
    return config


def _rope(config: Any, layers: str = "full_attention") -> dict[str, Any]:
    """Return the settings of rotary positions; Gemma has separate ones per kind of layer."""
    return dict(config.rope_parameters.get(layers, config.rope_parameters))


def _add_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    """Add the shape of a model to a GGUF file."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    window, rope = getattr(config, "sliding_window", None), _rope(config)
    shape = {key: getattr(config, own) for key, own in KNOWN["shape"].items()}
    shape |= dict.fromkeys(("key_length", "value_length", "rope_dimension_count"), width)
    shape["rope_freq_base"] = rope["rope_theta"]
    if config.model_type == "gemma3_text":
        shape["sliding_window"] = window
        shape["sliding_window_pattern"] = config.layer_types.index("full_attention") + 1
        shape["rope_freq_base_swa"] = _rope(config, "sliding_attention")["rope_theta"]
    elif window:  # llama.cpp has none here: the context ends where it would begin
        shape["context_length"] = min(shape["context_length"], window)
    if rope["rope_type"] == "linear":
        shape["rope_scaling_type"] = gguf.RopeScalingType.LINEAR
        shape["rope_scaling_factor"] = rope["factor"]
    for key, value in shape.items():
        getattr(writer, f"add_{key}")(value)


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path, rows: int, pattern: Pattern) -> None:
    """Add the tokenizer of a folder, with one token per embedding."""
    tokenizer = load_tokenizer(folder)
    if (spec := Spec.of(tokenizer)).family == "Unigram":
        raise VocabularyError(f"a Unigram tokenizer cannot be written as GGUF: {ELSEWHERE}")
    surfaces = {index: surface for surface, index in spec.vocab.items()}
    types = dict.fromkeys(surfaces, gguf.TokenType.NORMAL)
    if not spec.byte_level:
        types |= {spec.vocab[n]: gguf.TokenType.BYTE for n in spec.byte_names if n in spec.vocab}
    added = {False: gguf.TokenType.USER_DEFINED, True: gguf.TokenType.CONTROL}
    types |= {token["id"]: added[token["special"]] for token in spec.data["added_tokens"]}
    if spec.unknown_id is not None:
        types[spec.unknown_id] = gguf.TokenType.UNKNOWN
    tokens = [surfaces.get(index, f"[PAD{index}]") for index in range(rows)]
    writer.add_tokenizer_model(pattern.model)
    writer.add_tokenizer_pre(pattern.name)
    writer.add_token_list(tokens)
    writer.add_token_types([types.get(index, gguf.TokenType.UNUSED) for index in range(rows)])
    if pattern.model == "llama":
        merged = ["".join(pair) for pair in spec.merges()]
        scores = {token: -float(rank) for rank, token in reversed(list(enumerate(merged)))}
        writer.add_token_scores([scores.get(token, NO_SCORE) for token in tokens])
        writer.add_add_space_prefix(pattern.space)
    rest = gguf.SpecialVocab(folder, load_merges=pattern.model == "gpt2", n_vocab=rows)
    # Its settings from the files can differ from what the tokenizer does.
    ids = tokenizer("a")["input_ids"]
    ends = {"bos": (ids[0], tokenizer.bos_token_id), "eos": (ids[-1], tokenizer.eos_token_id)}
    rest.add_special_token = {role: found == own for role, (found, own) in ends.items()}
    rest.add_to_gguf(writer)


def _tensors(folder: Path, config: Any) -> Iterator[tuple[str, Any]]:
    """Yield tensors with their names in GGUF, in float32 and in the layout of llama.cpp."""
    architecture, rope = ARCHITECTURES[config.model_type], _rope(config)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    if rope["rope_type"] == "llama3":
        slowed = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
        places = np.arange(len(slowed)) / len(slowed)
        yield "rope_freqs.weight", (rope["rope_theta"] ** -places / slowed).astype(np.float32)
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  no mapping
                weight, part = weights.get_tensor(name).float().numpy(), name.split(".")[-2]
                if architecture == gguf.MODEL_ARCH.LLAMA and part in heads:
                    # Its rotary positions turn neighbours, not the halves of a head.
                    halves = weight.reshape(heads[part], 2, -1, *weight.shape[1:])
                    weight = halves.swapaxes(1, 2).reshape(weight.shape)
                if architecture == gguf.MODEL_ARCH.GEMMA3 and part.endswith("norm"):
                    weight = weight + 1
                    if part == "q_norm":  # llama.cpp scales by the width of a head
                        weight *= math.sqrt(config.head_dim / config.query_pre_attn_scalar)
                yield names.get_name(name, (".weight", ".bias")), weight
