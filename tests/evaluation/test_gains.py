from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.evaluation.forgetting import measure_gains
from langadapt_utils.models import Base
from langadapt_utils.vocabulary.change import VocabularyChange


def test_gains_are_counted_in_characters(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    adapted = saved(
        initialise_embeddings(base.model, change), change.tokenizer, tmp_path / "adapted"
    )
    texts = list(corpora["hu"].heldout["hu"]["text"][:4])
    table = measure_gains({"base": base, "adapted": adapted}, texts, new_tokens=4).set_index(
        "model"
    )
    characters = sum(map(len, texts))
    for name, bundle in (("base", base), ("adapted", adapted)):
        each = characters / sum(len(ids) for ids in bundle.tokenizer(texts)["input_ids"])
        row = table.loc[name]
        assert row.characters_per_token == pytest.approx(each)
        assert row.context_in_characters == round(128 * each) and row.tokens_of_a_request == round(
            400 / each
        )
        assert row.characters_per_second == pytest.approx(row.tokens_per_second * each)
        assert row.seconds_per_million_characters == pytest.approx(1e6 / row.characters_per_second)
        assert row.megabytes == pytest.approx(2 * bundle.model.num_parameters() / 1e6)
    assert table.characters_per_token["adapted"] > 1.1 * table.characters_per_token["base"]
    assert isinstance(base, Base)
