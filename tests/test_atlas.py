"""The atlas: the same names in the languages of the world, and what they cost."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tiny import train_tokenizer
from langadapt_utils import atlas as module
from langadapt_utils.atlas import (
    atlas_languages,
    atlas_widget,
    language_atlas,
    plot_atlas,
    world_names,
)


@pytest.fixture(scope="module")
def english() -> PreTrainedTokenizerFast:
    return train_tokenizer(sorted(world_names("en").values()) * 2, size=2_000)


def test_more_than_two_hundred_languages_are_there_once_each() -> None:
    languages = atlas_languages()
    assert len(languages) > 200 and len(set(languages.values())) == len(languages)
    assert {"hu", "th", "ko", "zh", "sr", "sr_Latn", "bo"} <= languages.keys()
    assert not {"en", "sr_Cyrl", "zh_Hans", "en_GB"} & languages.keys()


def test_a_tokenizer_of_english_orders_languages_as_one_would_expect(
    english: PreTrainedTokenizerFast,
) -> None:
    found = language_atlas(english).set_index("code")
    cost = found.tokens_over_english
    assert cost.is_monotonic_increasing and (found.names >= 200).all() and cost.min() > 1
    assert cost.es < cost.hu < cost.ru < cost.th < cost.my
    assert found.script[["es", "ru", "th"]].tolist() == ["Latin", "Cyrillic", "Thai"]


def test_bytes_for_tokens_give_the_bytes_of_the_names() -> None:
    bytes_only = train_tokenizer(["a"], size=257)
    found = language_atlas(bytes_only).set_index("code").loc["hi"]
    names = [
        (name, world_names("en")[key])
        for key, name in world_names("hi").items()
        if world_names("en").get(key, name) != name
    ]
    own, other = (sum(len(pair[side].encode()) for pair in names) for side in (0, 1))
    assert found.names == len(names) and found.tokens_over_english == pytest.approx(own / other)


def test_the_figure_names_the_ends_and_ones_own(english: PreTrainedTokenizerFast) -> None:
    found = language_atlas(english)
    ax = plot_atlas(found, "hu")
    title = ax.get_title(loc="left").replace("\n", " ")
    for name in (*found.language.iloc[[0, -1]], "Hungarian"):
        assert name in title and name in [text.get_text() for text in ax.texts]
    assert len(ax.get_yticks()) == found.script.nunique()


def test_the_control_finds_languages_and_compares_tokenizers(
    english: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = atlas_widget({"base": english, "adapted": english}, "th")
    finder, other, answer = shown.controls.children
    assert "Thai" in str(shown.static) and str(shown.static).count("<tr") == 3
    finder.value = "Hungarian"
    assert answer.value.count("Hungarian") == 2
    monkeypatch.setattr(module, "fetch_model", lambda source, weights: Path(source))
    monkeypatch.setattr(module, "load_tokenizer", lambda folder: english)
    other.value = "hub:org/other"
    assert answer.value.count("Hungarian") == 3 and "hub:org/other" in answer.value
    finder.value = ""
    assert "choose one from the list" in answer.value


def test_a_tokenizer_that_cannot_be_found_is_said(english: PreTrainedTokenizerFast) -> None:
    _, other, answer = (shown := atlas_widget({"base": english}, "hu")).controls.children
    other.value = "/no/such/folder"
    assert "no config.json" in answer.value and shown
