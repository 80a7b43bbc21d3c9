"""What survives of chat: the built-in instructions, and how answers to them are judged."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tiny import CHAT_TEMPLATES, for_chat, llama, saved
from langadapt_utils.chat import answer_tokens
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.corpus.items import CHAT_NAMES, load_items
from langadapt_utils.evaluation import evaluate
from langadapt_utils.evaluation.evaluate import score_chat
from langadapt_utils.evaluation.generation import Reply
from langadapt_utils.evaluation.likelihood import token_bits
from langadapt_utils.evaluation.scores import CONTROL, Scores
from langadapt_utils.languages import script_counts
from langadapt_utils.recipe import EvaluationRecipe

LANGUAGES = ("en", "hu", "th")


@pytest.fixture
def chat(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return for_chat(tokenizer, CHAT_TEMPLATES["plain"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_instructions_are_whole_and_all_texts_differ(language: str) -> None:
    items = load_items("chat", language)
    assert len(items) == 60 and len({item["prompt"] for item in items}) == 60
    assert len({item["id"] for item in items}) == 60
    own = {"en": "Latn", "hu": "Latn", "th": "Thai"}[language]
    others = [code for code in LANGUAGES if code != language]
    answers = {code: load_items("chat", code) for code in others}
    for place, item in enumerate(items):
        texts = [item["prompt"], item["response"], item["wrong"], *item["other"].values()]
        assert len(set(texts)) == 5 and all(text == text.strip() for text in texts)
        assert all(6 <= len(text) <= 80 for text in texts)
        assert all(own in script_counts(text) for text in texts[:3])
        assert item["other"] == {code: answers[code][place]["response"] for code in others}


def test_no_instruction_is_in_the_conversations_that_are_learned(
    corpora: dict[str, Corpus],
) -> None:
    learned = " ".join(corpora["hu"].chat["text"])
    for language in LANGUAGES:
        for item in load_items("chat", language):
            assert item["prompt"] not in learned and item["response"] not in learned


ITEM: dict[str, Any] = {
    "id": "x",
    "prompt": "p",
    "response": "four",
    "wrong": "eightier",
    "other": {"en": "other"},
}


@pytest.mark.parametrize(
    ("bits", "right"),
    [
        ((10.0, 30.0, 11.0, 3.3), (True, True, True)),
        ((10.0, 19.0, 9.0, 3.4), (False, False, False)),  # 2.5 and 2.4 bits per byte
        ((10.0, 21.0, 9.0, 0.2), (True, False, True)),
    ],
)
@pytest.mark.parametrize(
    ("text", "ended", "kept"),
    [("Four.", True, True), ("Four.", False, False), ("Four.\nuser\nHi", True, False)],
)
def test_answers_are_judged_by_likelihood_and_turns_by_what_is_written(
    bits: tuple[float, ...],
    right: tuple[bool, ...],
    text: str,
    ended: bool,
    kept: bool,
    chat: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right_bits, wrong_bits, other_bits, end = bits
    tokens = [[right_bits - 1, 1.0, end], [wrong_bits, 7.0], [other_bits, 7.0]]
    monkeypatch.setattr(evaluate, "token_bits", lambda model, pairs: tokens)
    monkeypatch.setattr(evaluate, "replies", lambda *_, **__: [Reply(text, 3, 1.0, ended)])
    rows = score_chat(llama(len(chat)), chat, [ITEM], "en")
    assert {row["kind"]: row["correct"] for row in rows} == dict(
        zip(CHAT_NAMES, (*right, kept), strict=True)
    )
    assert [row["chance"] for row in rows] == [0.5, 0.5, 0.0, 0.0]


def test_an_answer_is_written_to_every_tenth_item(
    chat: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def written(model: object, tokenizer: object, prompts: Any, *_: Any, **__: Any) -> list[Reply]:
        asked.extend(prompts)
        return [Reply("", 1, 1.0, True)] * len(prompts)

    monkeypatch.setattr(evaluate, "replies", written)
    items = load_items("chat", "hu")[:21]
    rows = score_chat(llama(len(chat)), chat, items, "en")
    assert asked == [items[place]["prompt"] for place in (0, 10, 20)] and len(rows) == 3 * 21 + 3


def test_bits_of_an_answer_are_those_of_its_tokens_after_the_prompt(
    chat: PreTrainedTokenizerFast,
) -> None:
    model = llama(len(chat))
    before, answer, end = answer_tokens(chat, "Hi", "The old bridge.")
    whole, alone, last = token_bits(
        model, [(before, answer + end), (before, answer), (before + answer, end)]
    )
    assert len(whole) == len(answer) + 1 and min(whole) > 0
    assert whole == pytest.approx(alone + last, rel=1e-2)
    assert sum(whole) == pytest.approx(sum(alone) + sum(last), rel=1e-3)
    assert sum(alone) > sum(last) > 0


def test_chat_is_scored_where_the_base_can_chat(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    chat: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
    scores: Scores,
) -> None:
    assert not set(CHAT_NAMES) & set(scores.items.kind)  # its template is none
    names = ("base", CONTROL, "adapted")
    models = {name: saved(llama(len(chat)), chat, tmp_path / name) for name in names}
    recipe = EvaluationRecipe(documents=2, other_documents=1, items=2)
    found = evaluate.evaluate(models, corpora["hu"], recipe, resamples=100, new_tokens=2)
    kinds = found.items[found.items.kind.isin(CHAT_NAMES)]
    counts = kinds.groupby(["model", "language"]).size().to_dict()
    everywhere = {(name, code): 7 for name in ("base", "adapted") for code in ("en", "hu")}
    assert counts == everywhere  # the control reads documents only
    table = found.accuracy()
    assert set(CHAT_NAMES) <= set(table[table.language == "hu"].kind)
    assert any("Hungarian, chat: end of turn:" in str(finding) for finding in found.findings())
    without = found.items[~found.items.kind.isin(CHAT_NAMES)]
    plain = Scores(found.models, "hu", found.documents, without, [], 100)
    assert found.backward_transfer() == plain.backward_transfer()
