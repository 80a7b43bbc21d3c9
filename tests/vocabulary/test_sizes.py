"""What every number of new tokens saves and costs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from helpers.tiny import llama, sentencepiece_bpe, train_tokenizer, unigram
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.models import Base
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.vocabulary.sizes import measure_sizes, text_tokens
from langadapt_utils.vocabulary.tokenizer_json import Spec

NUMBERS = (10, 30)


@pytest.mark.parametrize("mode", ["extend", "replace"])
@pytest.mark.parametrize(
    "build", [train_tokenizer, sentencepiece_bpe, unigram], ids=["bytes", "pieces", "unigram"]
)
def test_one_run_tells_what_smaller_ones_would_give(
    build: Callable[[list[str]], PreTrainedTokenizerFast], mode: str, corpora: dict[str, Corpus]
) -> None:
    english, texts = (list(corpora["hu"].train[code]["text"]) for code in ("en", "hu"))
    heldout = list(corpora["hu"].heldout["hu"]["text"])
    base = build(english)
    options = {"mode": mode, "others": {"en": english}}

    def count(tokenizer: PreTrainedTokenizerFast) -> int:
        return sum(map(len, tokenizer(heldout, add_special_tokens=False)["input_ids"]))

    change = extend_vocabulary(base, texts, tokens=40, **options)  # type: ignore[arg-type]
    specs = (Spec.of(base), Spec.of(change.tokenizer))
    told = text_tokens(*specs, change, *heldout)
    if mode == "extend":
        assert told[0] == count(base)
    assert told[40] == count(change.tokenizer)
    assert list(told) == sorted(told) and list(told.values()) == sorted(told.values(), reverse=True)
    if build is train_tokenizer and mode == "extend":
        for number in set(NUMBERS) & told.keys():
            fewer = extend_vocabulary(base, texts, tokens=number)
            assert told[number] == count(fewer.tokenizer)


def test_costs_are_those_of_the_model(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    sentences = {code: corpora["hu"].parallel[code].tolist() for code in ("en", "hu")}
    change = extend_vocabulary(tokenizer, corpora["hu"].train["hu"]["text"], tokens=100)
    tables = {}
    for tied in (True, False):
        model = llama(len(tokenizer), tied=tied)
        model.save_pretrained(tmp_path / str(tied))
        tokenizer.save_pretrained(tmp_path / str(tied))
        sizes = measure_sizes(Base(tmp_path / str(tied)), change, sentences, language="hu")
        tables[tied] = sizes.table.set_index("new_tokens")
        matrix = model.get_input_embeddings().weight.numel()
        body = sum(p.numel() for p in model.parameters()) - matrix * (1 if tied else 2)
        assert tables[tied].compute_per_token[100] == pytest.approx(1 + 100 * 16 / (body + matrix))
    assert tables[True].megabytes[100] == pytest.approx(100 * 16 * 2 / 1e6)
    assert tables[False].megabytes[100] == pytest.approx(2 * tables[True].megabytes[100])
    table = tables[True]
    assert table.parity[0] == pytest.approx(
        table.tokens[0] / sum(len(tokenizer(s)["input_ids"]) for s in sentences["en"])
    )
    assert table.speed[100] == pytest.approx(
        table.tokens[0] / table.tokens[100] / table.compute_per_token[100]
    )
    assert 0 < sizes.knee < 100 and sizes.at(sizes.knee).saved > 0.5 * table.saved.max()

    title = la.plot_sizes(sizes).get_title(loc="left").replace("\n", " ")
    assert (
        title.startswith(f"100 new tokens save {table.saved.max():.0%}")
        and f"{sizes.knee:,}" in title
    )
