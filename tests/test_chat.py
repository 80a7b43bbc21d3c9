"""Conversations: read from rows, rendered, and which of their tokens the assistant writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from helpers.tiny import CHAT_TEMPLATES, for_chat
from langadapt_utils.chat import answer_tokens, can_chat, chat_tokens, conversation, messages_of
from langadapt_utils.corpus.corpus import Corpus, load_corpus
from langadapt_utils.corpus.items import load_items
from langadapt_utils.errors import CorpusError, ModelError
from langadapt_utils.models import Base
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe, Recipe
from langadapt_utils.vocabulary.sizes import token_numbers

PLAIN, MARKED = CHAT_TEMPLATES["plain"], CHAT_TEMPLATES["marked"]
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
words = texts.map(str.strip).filter(lambda text: text and "<|" not in text)
turns = st.lists(st.tuples(words, words), min_size=1, max_size=3)


def messages(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    each = (zip(roles, pair, strict=True) for pair in pairs)
    return [{"role": role, "content": content} for pair in each for role, content in pair]


@given(pairs=turns)
def test_a_conversation_comes_back_from_its_text(pairs: list[tuple[str, str]]) -> None:
    said = messages(pairs)
    assert messages_of(conversation({"messages": said})) == said
    question, answer = pairs[0]
    assert messages_of(conversation({"prompt": question, "response": answer})) == said[:2]


@given(pairs=turns)
def test_the_assistants_words_and_the_end_of_its_turns_are_learned(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]
) -> None:
    said = messages(pairs)
    answers = [f"{answer}<|im_end|>" for _, answer in pairs]
    for template, after in ((PLAIN, "\n"), (MARKED, "")):
        chat = for_chat(tokenizer, template)
        ids, learned = chat_tokens(chat, said)
        own = [index for index, mark in zip(ids, learned, strict=True) if mark]
        others = [index for index, mark in zip(ids, learned, strict=True) if not mark]
        assert chat.decode(own) == after.join(answers) + after
        assert chat.decode(ids) == chat.apply_chat_template(said, tokenize=False)
        assert chat.decode(others).startswith(f"<|im_start|>user\n{pairs[0][0]}<|im_end|>\n")


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_an_answer_lies_between_its_prompt_and_its_end(
    template: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    chat = for_chat(tokenizer, template)
    before, answer, end = answer_tokens(chat, "Hi", "The old bridge.")
    assert chat.decode(before) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (chat.decode(answer), chat.decode(end)) == ("The old bridge.", "<|im_end|>")
    assert can_chat(chat)


def test_a_template_that_rewrites_what_was_said_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    forgetful = "{{ messages | length }}" + PLAIN
    sentence = "the base's chat template changes the messages before 'b': give conversations with"
    with pytest.raises(ModelError, match=sentence):
        chat_tokens(for_chat(tokenizer, forgetful), messages([("a", "b"), ("c", "d")]))
    refusing = "{{ raise_exception('roles must take turns') }}"
    with pytest.raises(
        ModelError, match=r"template fails \(roles must take turns\): choose a base"
    ):
        chat_tokens(for_chat(tokenizer, refusing), messages([("a", "b")]))


@pytest.mark.parametrize("template", [None, "{{ messages }}", "{{ messages[0]['content'] }}"])
def test_a_base_that_cannot_chat_is_known(
    template: str | None, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert not can_chat(for_chat(tokenizer, template))


@pytest.mark.base
@pytest.mark.slow
def test_the_real_base_ends_its_turn(base: Base) -> None:
    before, answer, end = answer_tokens(base.tokenizer, "Hi", "Szia!")
    assert base.tokenizer.decode(before).endswith("<|im_start|>assistant\n")
    assert base.tokenizer.decode(answer) == "Szia!"
    assert end == [base.tokenizer.eos_token_id]


ROWS = [
    {"prompt": "Mennyi az idő?", "response": "Öt óra."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
]


def chat_file(write: Callable[[str, bytes], Path], *rows: object) -> CorpusRecipe:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return CorpusRecipe(english=[BUILT_IN], chat=[str(write("chat.jsonl", lines.encode()))])


def test_rows_of_both_kinds_are_read_once_and_none_asks_what_the_evaluation_asks(
    write: Callable[[str, bytes], Path],
) -> None:
    asked = load_items("chat", "hu")[0]
    copied = {"prompt": asked["prompt"], "response": "Mézet."}
    chat = load_corpus(chat_file(write, *ROWS, ROWS[0], copied), "hu").chat
    read = [messages_of(text) for text in chat["text"]]
    assert read == [messages([("Mennyi az idő?", "Öt óra.")]), ROWS[1]["messages"]]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Only a question"},
        {"messages": [{"role": "user", "content": "Nobody answers"}]},
        {"messages": [{"role": "assistant", "content": None}]},
        {"messages": "no list"},
        {"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"text": "no conversation"},
    ],
)
def test_a_row_that_is_no_conversation_is_named(
    row: object, write: Callable[[str, bytes], Path]
) -> None:
    recipe = chat_file(write, ROWS[0], row)
    sentence = "line 2 is no conversation with an answer: give messages with role .* and content"
    with pytest.raises(CorpusError, match=sentence):
        load_corpus(recipe, "hu")
    lenient = recipe.model_copy(update={"skip_bad": 0.5})
    assert len(load_corpus(lenient, "hu").chat) == 1


def test_the_built_in_conversations_are_english_and_in_the_target_language() -> None:
    for language, count in (("hu", 80), ("th", 40)):
        chat = load_corpus(CorpusRecipe(english=[BUILT_IN]), language).chat
        assert len(chat) == count
        assert all(name.startswith(("chat-train-en-", "chat-train-hu-")) for name in chat["id"])


HARMONY = (
    "{% for m in messages %}<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>"
    "final{% endif %}<|message|>{{ m['content'] }}{{ '<|return|>' if loop.last and m['role'] == "
    "'assistant' else '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant"
    "{% endif %}"
)
THOUGHT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n<think>\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|start|>{{ m['role'] }}:{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
COMMENTED = THOUGHT.replace("<think>\n", "") + "{# {% generation %} #}"


@pytest.mark.parametrize(
    ("template", "before", "answer", "end"),
    [
        (HARMONY, "<|start|>assistant", "<|channel|>final<|message|>Ten.", "<|return|>"),
        (THOUGHT, "<|start|>assistant\n", "Ten.", "<|end|>"),
        (PHI, "<|assistant|>\n", "Ten.", "<|end|>"),
        (COMMENTED, "<|start|>assistant\n", "Ten.", "<|end|>"),
        ({"default": THOUGHT, "tool_use": CHAT_TEMPLATES["marked"]}, "\n", "Ten.", "<|end|>"),
    ],
    ids=["channels", "a thought", "an end of all", "a comment", "several templates"],
)
def test_templates_of_many_kinds_have_an_answer_with_an_end(
    template: Any, before: str, answer: str, end: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    chat = for_chat(tokenizer, CHAT_TEMPLATES["plain"])
    more = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]
    chat.add_special_tokens({"extra_special_tokens": more})
    chat.chat_template = template
    parts = [chat.decode(ids) for ids in answer_tokens(chat, "How old are you?", "Ten.")]
    assert parts[0].endswith(before) and "How old" in parts[0]
    assert parts[1:] == [answer, end] and can_chat(chat)
    ids, learned = chat_tokens(chat, [{"role": "user", "content": "Hi"}])
    assert not any(learned) and "Hi" in chat.decode(ids)


@pytest.mark.parametrize("template", [PARTS, "{{ 1 / 0 }}", "{{ messages[0]['content'] + 1 }}"])
def test_a_template_that_gives_no_answer_cannot_chat(
    template: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    chat = for_chat(tokenizer, template)
    chat.add_special_tokens({"extra_special_tokens": ["<|start|>", "<|end|>"]})
    assert not can_chat(chat)


@given(pairs=turns)
def test_special_tokens_that_somebody_wrote_are_text(
    tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]
) -> None:
    said = messages([(f"{a} <|im_end|>", f"<|im_start|>{b} <|endoftext|>") for a, b in pairs])
    for template in (PLAIN, MARKED):
        chat = for_chat(tokenizer, template)
        special = {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}
        own, plain = (
            [t for t in chat.convert_ids_to_tokens(chat_tokens(chat, part)[0]) if t in special]
            for part in (said, messages(pairs))
        )
        assert own == plain  # only the template's


def test_an_assistant_may_open_a_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    opening = {"role": "assistant", "content": "Hello!"}
    rest = messages([("Who are you?", "A bridge.")])
    chat = for_chat(tokenizer, PLAIN)
    ids, learned = chat_tokens(chat, [opening, *rest])
    own = [index for index, mark in zip(ids, learned, strict=True) if mark]
    assert chat.decode(own).strip() == "A bridge.<|im_end|>"


@pytest.mark.parametrize("content", ["", "Let me look."])
def test_calls_of_tools_are_no_answers(content: str) -> None:
    call = {"type": "function", "function": {"name": "time", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": content, "tool_calls": [call]},
            {"role": "tool", "content": "12:00"},
            {"role": "assistant", "content": "Noon."},
        ]
    }
    with pytest.raises(ValueError, match="with a call of a tool"):
        conversation(row)
    del row["messages"][1]["tool_calls"]
    if content:
        assert len(messages_of(conversation(row))) == 4
    else:
        with pytest.raises(ValueError, match="no assistant answers"):
            conversation(row)


def test_a_template_that_fails_is_found_before_training(
    corpora: dict[str, Corpus], tokenizer: PreTrainedTokenizerFast
) -> None:
    recipe = Recipe.profile("smoke", overrides={"mixture.chat_share": 0.1})
    for template in (None, "{{ raise_exception('no system turns') }}"):
        with pytest.raises(ModelError, match="the base's chat template fails"):
            token_numbers(for_chat(tokenizer, template), corpora["hu"], recipe, [10])
    plain = recipe.with_options({"mixture.chat_share": 0.0})
    assert len(token_numbers(for_chat(tokenizer, None), corpora["hu"], plain, [10]))
