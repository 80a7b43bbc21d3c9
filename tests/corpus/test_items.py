import runpy
from pathlib import Path

import pytest

from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.corpus.items import (
    ITEM_KINDS,
    PATTERNS,
    item_options,
    item_texts,
    load_items,
)
from langadapt_utils.languages import NO_LANGUAGE


@pytest.mark.parametrize("language", ["en", "hu", "th"])
def test_the_evaluation_items_are_whole_and_balanced(language: str) -> None:
    choice, cloze, pairs = (load_items(kind, language) for kind in ("choice", "cloze", "pairs"))
    assert (len(choice), len(cloze), len(pairs)) == (180, 100, 120)
    for kind in ("cause", "effect", "completion"):
        labels = [item["label"] for item in choice if item["kind"] == kind]
        assert labels.count(0) == labels.count(1) == 30
    assert all(item["target"] for item in cloze) and all(
        item["good"] != item["bad"] for item in pairs
    )
    assert load_items("choice", "fi") == []


def test_no_evaluation_item_is_in_the_training_text(corpora: dict[str, Corpus]) -> None:
    for language, corpus in corpora.items():
        text = " ".join(corpus.train[language]["text"])
        assert not [item["id"] for item in load_items("cloze", language) if item["context"] in text]
        assert not [item["id"] for item in load_items("pairs", language) if item["good"] in text]


def test_a_cloze_is_chosen_among_the_words_of_the_next_items() -> None:
    items = load_items("cloze", "th")
    options = item_options("cloze", items, len(items) - 1, "th")
    words = [items[place]["target"] for place in (-1, 0, 1, 2)]
    assert options == [(items[-1]["context"], word) for word in words]
    assert item_options("cloze", items, 0, "hu")[0][0] == items[0]["context"] + " "


@pytest.mark.parametrize("language", ["en", "hu", "th"])
def test_the_text_of_an_item_is_all_that_is_shown_and_scored(language: str) -> None:
    for kind in ITEM_KINDS:
        texts, items = item_texts(kind, language), load_items(kind, language)
        assert list(texts) == [item["id"] for item in items]
        for place, item in enumerate(items):
            options = item_options(kind, items, place, language)
            right = options[item.get("label", 0)]
            assert all(part.strip() in texts[item["id"]] for part in right)


@pytest.mark.parametrize("kind", PATTERNS)
def test_the_patterns_are_those_of_their_script(kind: str) -> None:
    """Where this fails, run `python benchmarks/record_patterns.py`."""
    path = Path(__file__).parents[2] / "benchmarks" / "record_patterns.py"
    assert runpy.run_path(str(path))["items"](kind) == load_items(kind, NO_LANGUAGE)
