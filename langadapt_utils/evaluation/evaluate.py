"""Measure models on held-out documents, evaluation items and prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .. import hardware
from ..corpus.corpus import Corpus
from ..corpus.documents import at_most_of_each_source
from ..corpus.items import (
    CLOZE_OPTIONS,
    ITEM_KINDS,
    OPTIONS,
    PATTERNS,
    item_options,
    load_items,
    pattern_items,
)
from ..languages import NO_LANGUAGE, language_name, scripts_of
from ..models import Base
from ..recipe import EvaluationRecipe
from ..tokens import document_start
from .likelihood import continuation_bits, document_bits
from .scores import CONTROL, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CHANCE = {
    "choice": 1 / 2,
    "cloze": 1 / CLOZE_OPTIONS,
    "pairs": 1 / 2,
    **dict.fromkeys(PATTERNS, 1 / OPTIONS),
}
BEGINNING = 400  # characters of documents in other languages than English and the target
SAMPLES = 2  # prompts of each language


def score_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: str,
    items: Sequence[dict[str, Any]],
    language: str,
) -> list[bool]:
    """Which evaluation items a model gets right, by likelihood.

    Args:
        model: to be asked.
        tokenizer: the model's.
        kind: `choice`: the likelier of two stories, the choice read before its premise where it is
            the cause (bits per byte of what comes second); `cloze`: the last word against those of
            three other items (bits per byte of the word); `pairs`: the grammatical sentence against
            the other (bits); `copying`, `mapping` and `counting`: the number that the context asks
            for (bits).
        items: as `load_items` gives them.
        language: Thai writes no space between the parts.
    """
    options = [item_options(kind, items, place, language) for place in range(len(items))]
    answers = [item.get("label", 0) for item in items]
    flat = [option for group in options for option in group]
    bits = continuation_bits(
        model, tokenizer, [context for context, _ in flat], [text for _, text in flat]
    )
    if kind in ("choice", "cloze"):
        bits = bits / np.array([len(text.encode()) for _, text in flat])
    width = len(options[0])
    return [bool(right) for right in bits.reshape(-1, width).argmin(axis=1) == np.array(answers)]


def evaluate(
    models: Mapping[str, Base],
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    resamples: int = 2_000,
    new_tokens: int = 24,
    report: Callable[[str], None] = lambda step: None,
) -> Scores:
    """Measure models on the same held-out documents, evaluation items and prompts.

    Args:
        models: by name, the base first and the adapted model last. One between them named `control`
            is measured on English documents alone.
        corpus: its `heldout` part is used, and the beginnings of some documents of `others`.
        recipe: how much of it.
        resamples: of the bootstrap.
        new_tokens: of each sample text.
        report: called with what is being measured.
    """
    documents, items, samples = [], [], []
    read = {
        code: at_most_of_each_source(part, recipe.documents)
        for code, part in corpus.heldout.items()
    }
    for code, part in corpus.others.items():
        rows = at_most_of_each_source(part, recipe.other_documents)
        read[code] = [row | {"text": row["text"][:BEGINNING]} for row in rows]
    asked = [
        (code, kind, load_items(kind, code)[: recipe.items])
        for code in corpus.heldout
        for kind in ITEM_KINDS
    ]
    asked += [
        (NO_LANGUAGE, kind, pattern_items(kind, math.ceil(recipe.items / len(PATTERNS))))
        for kind in PATTERNS
    ]
    asked = [(code, kind, chosen) for code, kind, chosen in asked if chosen]
    for name, bundle in models.items():
        model, tokenizer = bundle.model.to(hardware.device()), bundle.tokenizer
        for language in ["en"] if name == CONTROL else read:
            report(f"{name}: {language_name(language)} documents")
            documents += _document_rows(
                name, model, tokenizer, read[language], language, recipe.window_tokens
            )
        for language, kind, chosen in [] if name == CONTROL else asked:
            report(f"{name}: {language_name(language)} {kind} items")
            items += _answers(name, model, tokenizer, kind, chosen, language)
        for language in [] if name == CONTROL else corpus.heldout:
            report(f"{name}: {language_name(language)} samples")
            for row in read[language][:SAMPLES]:
                prompt = opening(row["text"])
                text = generate(model, tokenizer, prompt, new_tokens)
                sample = {"model": name, "language": language, "prompt": prompt, "text": text}
                samples.append(sample | text_quality(text, like=row["text"]))
        model.to("cpu")
    return Scores(
        list(models),
        corpus.language,
        pd.DataFrame(documents),
        pd.DataFrame(items),
        samples,
        resamples,
    )


def _document_rows(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Mapping[str, Any]],
    language: str,
    window_tokens: int,
) -> list[dict[str, Any]]:
    bits = document_bits(
        model, tokenizer, [row["text"] for row in rows], window_tokens=window_tokens
    )
    return [
        {
            "model": name,
            "language": language,
            "source": row["source"],
            "domain": row["domain"],
            "id": row["id"],
        }
        | {"bits": float(b), "bytes": len(row["text"].encode())}
        for row, b in zip(rows, bits, strict=True)
    ]


def _answers(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: str,
    items: Sequence[dict[str, Any]],
    language: str,
) -> list[dict[str, Any]]:
    right = score_items(model, tokenizer, kind, items, language)
    return [
        {"model": name, "language": language, "kind": kind, "id": item["id"], "correct": bool(ok)}
        | {"chance": CHANCE[kind]}
        for item, ok in zip(items, right, strict=True)
    ]


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, new_tokens: int
) -> str:
    """Continue a prompt greedily, without repeating three tokens in a row."""
    ids = [document_start(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    inputs = torch.tensor([ids], device=model.device)
    with torch.no_grad(), hardware.autocast(hardware.native_precision(), model.device.type):
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=new_tokens,
            do_sample=False,
            no_repeat_ngram_size=3,
            pad_token_id=ids[0],
        )
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))


def text_quality(text: str, *, like: str) -> dict[str, float]:
    """What can be counted of a generated text: shares from 0 to 1.

    Args:
        text: that a model wrote.
        like: text in the language it should be in.

    Returns:
        `right_script`: of its letters, those in a script that `like` has; `repeated`: of its runs
        of 8 characters, those that were there before; `undecodable`: of its characters, those that
        stand for bytes that are no text.
    """
    scripts, letters = scripts_of(like), [letter for letter in text if letter.isalpha()]
    runs = [text[begin : begin + 8] for begin in range(len(text) - 7)]
    return {
        "right_script": sum(scripts_of(letter) <= scripts for letter in letters) / len(letters)
        if letters
        else 0.0,
        "repeated": 1 - len(set(runs)) / len(runs) if runs else 0.0,
        "undecodable": text.count("\ufffd") / len(text) if text else 0.0,
    }


def opening(text: str, characters: int = 40) -> str:
    """The first words of a text, about as many characters as asked; for prompts."""
    cut = text.find(" ", characters)
    return text[:characters] if cut < 0 or cut > 2 * characters else text[:cut]
