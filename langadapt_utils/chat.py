"""Conversations: as rows of data, and as the chat template of a base renders them."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from os.path import commonprefix
from typing import Any

from transformers import PreTrainedTokenizerFast as Tokenizer

from .errors import ModelError, brief
from .tokens import special_starts

CHAT = "chat"  # the stream of conversations in a mixture
ROLES = {"system", "developer", "user", "assistant", "tool"}
TURN, ROLE = "\x1e", "\x1f"  # separators in one text: between turns, between role and content
CONTROLS, JOINED = str.maketrans("", "", TURN + ROLE), "\\g<0>\u2060"  # removed; with a joiner
MARKED = re.compile(r"\{%[-+]?\s*generation\b")  # the template marks the assistant's turns
ONE_ANSWER = "give conversations with one answer each, or choose another base"
OTHER_BASE = "choose a base that was tuned for chat, or leave chat out"
Messages = Sequence[Mapping[str, str]]
Ids = list[int]


def conversation(row: Mapping[str, Any]) -> str:
    """Return a row of chat data as one text; `messages_of` turns it back into messages.

    Args:
        row: has `messages` (each with `role` and `content`), or `prompt` and `response`.

    Raises:
        ValueError, TypeError, KeyError: the row has neither, no answer of an assistant, or a role
            that is not in `ROLES`.
    """
    messages = row.get("messages") or exchange(row["prompt"], row["response"])
    turns = [(message["role"], message["content"].translate(CONTROLS)) for message in messages]
    said = [text.strip() for role, text in turns if role == "assistant"]
    if not all(said or [""]) or any(message.get("tool_calls") for message in messages):
        raise ValueError("no assistant answers, or with a call of a tool")
    if other := {role for role, _ in turns} - ROLES:
        raise ValueError(f"the role {min(other)} is unknown")
    return TURN.join(map(ROLE.join, turns))


def messages_of(text: str) -> Messages:
    """Return the messages of a conversation that is stored as one text.

    Example:
        >>> messages_of(conversation({"prompt": "2 + 2?", "response": "4"}))[1]
        {'role': 'assistant', 'content': '4'}
    """
    turns = (turn.split(ROLE) for turn in text.split(TURN))
    return [{"role": role, "content": content} for role, content in turns]


def exchange(prompt: str, answer: str) -> Messages:
    """Return the messages of a prompt and its answer."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def chat_tokens(tokenizer: Tokenizer, messages: Messages) -> tuple[Ids, list[bool]]:
    """Return the ids of a conversation, and for each whether the assistant writes it.

    A template with `{% generation %}` marks the assistant's turns. With another template, an answer
    is the text after its rendered prompt.

    The name of a special token in a message gets an invisible joiner, so that it is read as text.

    Raises:
        ModelError: there is no chat template, it refuses the messages, or it renders earlier
            messages differently once an answer follows.
    """
    messages = [{**m, "content": _starts(tokenizer).sub(JOINED, m["content"])} for m in messages]
    template = tokenizer.chat_template
    if MARKED.search(str(template.get("default") if isinstance(template, dict) else template)):
        done = _rendered(tokenizer, messages, return_dict=True, return_assistant_tokens_mask=True)
        if any(done["assistant_masks"]):  # the mark was no comment
            return list(done["input_ids"]), [bool(mark) for mark in done["assistant_masks"]]
    text, spans = {"tokenize": False}, []
    whole = _rendered(tokenizer, messages, **text)
    for place, message in enumerate(messages, start=1):
        if message["role"] == "assistant" and place > 1:  # not where it opens the conversation
            earlier = messages[: place - 1]
            before = _rendered(tokenizer, earlier, add_generation_prompt=True, **text)
            after = _rendered(tokenizer, messages[:place], **text)
            if not after.startswith(before):  # it may open a thought, which an answer drops
                shared = commonprefix([before, after])  # noqa: RUF071  of characters
                same = shared.startswith(_rendered(tokenizer, earlier, **text))
                before = shared if same else before
            if not (after.startswith(before) and whole.startswith(after)):
                problem = "the base's chat template changes the messages before"
                raise ModelError(f"{problem} {message['content'][:60]!r}: {ONE_ANSWER}")
            spans.append(range(len(before), len(after)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    learned = [any(begin in span for span in spans) for begin, _ in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), learned


@lru_cache(maxsize=8)
def _starts(tokenizer: Tokenizer) -> re.Pattern[str]:
    return re.compile(special_starts(tokenizer.backend_tokenizer))


def answer_tokens(tokenizer: Tokenizer, prompt: str, answer: str = "x") -> tuple[Ids, Ids, Ids]:
    """Return three lists of ids: before an answer, the answer, and the token that ends its turn
    (empty if the template has none).
    """
    ids, learned = chat_tokens(tokenizer, exchange(prompt, answer))
    first, special = learned.index(True), tokenizer.added_tokens_decoder
    ends = [n for n in range(first, len(ids)) if ids[n] in special and special[ids[n]].special]
    # An answer may begin with special tokens, as in gpt-oss: its end comes after its text.
    raw = {"clean_up_tokenization_spaces": False}
    said = {n: tokenizer.decode(ids[first:n], **raw).rstrip() for n in ends}
    last = [*(n for n, text in said.items() if text.endswith(answer.strip())), *ends, len(ids)][0]
    return ids[:first], ids[first:last], ids[last : last + 1]


def can_chat(tokenizer: Tokenizer) -> bool:
    """Return whether the chat template renders a question and an answer with an end."""
    try:
        _, answer, end = answer_tokens(tokenizer, "Hi")
        return bool(end and tokenizer.decode(answer).strip())
    except (ModelError, ValueError):
        return False


def _rendered(tokenizer: Tokenizer, messages: Messages, **options: Any) -> Any:
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except Exception as error:  # a template is a program
        problem = brief(error) if tokenizer.chat_template else "it has none"
        raise ModelError(f"the base's chat template fails ({problem}): {OTHER_BASE}") from error
