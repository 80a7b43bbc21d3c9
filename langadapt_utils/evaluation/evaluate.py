"""Measure models on held-out documents, evaluation items and prompts."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from .. import hardware
from ..chat import answer_tokens, can_chat
from ..corpus.corpus import Corpus
from ..corpus.documents import at_most_of_each_source
from ..corpus.items import ITEM_KINDS, PATTERNS, item_options, load_items, pattern_items
from ..intervals import RESAMPLES
from ..languages import NO_LANGUAGE, language_name, scripts_of
from ..models import Base, load_base
from ..processes import across_processes
from ..recipe import EvaluationRecipe
from ..workspace import Workspace
from .generation import reply, sampled
from .likelihood import continuation_bits, document_bits, shared_window, token_bits
from .scores import CONTROL, Scores

Table = list[dict[str, Any]]

BEGINNING = 400  # characters of documents in other languages than English and the target
SAMPLES = 2  # prompts of each language
STAGE = "05_evaluation"
MEASURED = "measured.json"  # scores that `python -m langadapt_utils.evaluation` left
ROUNDING = 1e-9  # of bits: options as near to each other are tied
CHANCE = {"chat_answer": 0.5, "chat_language": 0.5}
ENDS = math.log2(10)  # bits of the token that ends a turn, up to which a model knows to end it
WRITTEN, ANSWER = 10, 40  # one item of ten is also answered, in at most so many tokens
ROLE = re.compile(r"^\W*(system|user|assistant)\W*$", re.MULTILINE | re.IGNORECASE)


def score_items(
    model: PreTrainedModel, tokenizer: Tokenizer, kind: str, items: Table, language: str
) -> list[bool]:
    """Return which evaluation items a model gets right, by likelihood.

    Args:
        model: to be asked.
        tokenizer: the model's.
        kind: `choice`: the likelier of two stories, the choice read before its premise where it is
            the cause (bits per byte of what comes second); `cloze`: the last word against those of
            three other items (bits per byte of the word); `pairs`: the grammatical sentence against
            the other (bits); `copying`, `mapping` and `counting`: the number that the context asks
            for (bits).
        items: as `load_items` gives them; a tie is split over items, so that guessing has chance.
        language: Thai writes no space between the parts.
    """
    options = [item_options(kind, items, place, language) for place in range(len(items))]
    answers = [item.get("label", 0) for item in items]
    flat = [option for group in options for option in group]
    contexts, continuations = [context for context, _ in flat], [text for _, text in flat]
    bits = continuation_bits(model, tokenizer, contexts, continuations)
    if kind in ("choice", "cloze"):
        bits = bits / np.array([len(text.encode()) for text in continuations])
    bits = bits.reshape(-1, len(options[0]))
    tied = bits <= bits.min(axis=1, keepdims=True) * (1 + ROUNDING)
    # Of items in which k options are tied, every k-th counts as right if one of them is.
    turn = np.arange(len(bits)) % tied.sum(axis=1) == 0
    return [bool(right) for right in tied[np.arange(len(bits)), answers] & turn]


def run_models(run: Workspace) -> dict[str, Base]:
    """Return the models of a run whose training is complete: `base`, `control` where it has one,
    and `adapted`.
    """
    control = run.stage("04_training") / CONTROL
    folders = {CONTROL: control, "adapted": run.folder / "model"}
    saved = {name: load_base(str(path)) for name, path in folders.items() if path.exists()}
    return {"base": load_base(run.recipe.base, accept_terms=run.recipe.accept_terms), **saved}


def measured(run: Workspace) -> Scores | None:
    """Return what several processes measured for notebook 5 of a run, if they did."""
    path = run.begun(STAGE) / MEASURED
    return Scores.load(path) if path.exists() else None


def score_chat(model: PreTrainedModel, tokenizer: Tokenizer, items: Table, target: str) -> Table:
    """Return what a model gets right of prompts under its chat template.

    Args:
        model: to be asked.
        tokenizer: the model's, which `can_chat`.
        items: as `load_items` gives them for `chat`.
        target: language whose answers those to English prompts should beat; those to others should
            beat English ones.

    Returns:
        A row per item and `kind`, with `id`, `correct` and `chance`. `chat_answer`: the right
        answer has fewer bits per byte than the wrong one. `chat_language`: it has fewer bits than
        the same answer in another language. `chat_end`: after it, the end of the turn has a
        probability of at least 10 %. `chat_turn`, of every tenth item: the answer that the model
        writes ends within 40 tokens and opens no turn for another role.
    """
    pairs = []
    for item in items:
        foreign = item["other"].get(target) or next(iter(item["other"].values()))
        answers = item["response"], item["wrong"], foreign
        parts = [answer_tokens(tokenizer, item["prompt"], answer) for answer in answers]
        before, right, end = parts[0]
        pairs += [(part[0], part[1]) for part in parts] + [([*before, *right], end)]
    bits_I4, rows = token_bits(model, pairs).reshape(-1, 4).tolist(), []
    for place, (item, bits) in enumerate(zip(items, bits_I4, strict=True)):
        sizes = [len(item[part].encode()) for part in ("response", "wrong")]
        done = {"chat_answer": bits[0] / sizes[0] < bits[1] / sizes[1]}
        done |= {"chat_language": bits[0] < bits[2], "chat_end": bits[3] <= ENDS}
        if place % WRITTEN == 0:
            answer = reply(model, tokenizer, item["prompt"], ANSWER, chat=True, do_sample=False)
            done["chat_turn"] = answer.ended and not ROLE.search(answer.text)
        about = [(kind, {"kind": kind, "id": item["id"]}) for kind in done]
        rows += [row | {"correct": done[k], "chance": CHANCE.get(k, 0.0)} for k, row in about]
    return rows


def evaluate(
    models: Mapping[str, Base],
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    resamples: int = RESAMPLES,
    new_tokens: int = 24,
    report: Callable[[str], None] = lambda step: None,
) -> Scores:
    """Measure models on the same held-out documents, evaluation items and prompts.

    Of several processes (`python -m langadapt_utils.evaluation`), each does its share of the
    documents and tests; all return the same.

    Args:
        models: by name, the base first and the adapted model last. One between them named `control`
            is measured on English documents alone.
        corpus: its `heldout` part is used, and the beginnings of some documents of `others`.
        recipe: how much of it.
        resamples: of the bootstrap.
        new_tokens: of each sample text.
        report: called with what is being measured.
    """
    heldout, most = corpus.heldout.items(), recipe.documents
    read = {code: at_most_of_each_source(part, most) for code, part in heldout}
    for code, part in corpus.others.items():
        rows = at_most_of_each_source(part, recipe.other_documents)
        read[code] = [row | {"text": row["text"][:BEGINNING]} for row in rows]
    asked = _items(list(corpus.heldout), recipe.items)
    texts = [row["text"] for rows in read.values() for row in rows]
    pairs = ((base, base.tokenizer) for base in models.values())
    window = shared_window(pairs, texts, recipe.window_bytes)
    tables: list[Table] = [[], [], []]
    for name, base in models.items():
        for other in models.values():  # one at a time
            if other is not base:
                other.release()
        only_english = name == CONTROL
        model = base.model.to(hardware.device())
        measure = _Measure(name, model, base.tokenizer, report)
        for code in ["en"] if only_english else read:
            work = partial(measure.documents, code, window)
            tables[0] += across_processes(work, read[code])
        spoken = ["en"] if only_english else list(corpus.heldout)
        chat = partial(measure.chat, corpus.language, recipe.items)
        tests = [partial(measure.items, *test) for test in ([] if only_english else asked)]
        tests += [partial(chat, code) for code in spoken]
        samples = [] if only_english else spoken
        written = [partial(measure.samples, c, read[c][:SAMPLES], new_tokens) for c in samples]
        for table, works in ((tables[1], tests), (tables[2], written)):
            table += chain(*across_processes(lambda part: [work() for work in part], works))
        model.to("cpu")
    documents, answers = pd.DataFrame(tables[0]), pd.DataFrame(tables[1])
    return Scores(list(models), corpus.language, documents, answers, tables[2], resamples)


def _items(languages: Sequence[str], most: int) -> list[tuple[str, str, Table]]:
    """Return language, kind and items of each test that has items."""
    asked = [(code, k, load_items(k, code)[:most]) for code in languages for k in ITEM_KINDS]
    each = math.ceil(most / len(PATTERNS))
    asked += [(NO_LANGUAGE, kind, pattern_items(kind, each)) for kind in PATTERNS]
    return [(code, kind, items) for code, kind, items in asked if items]


@dataclass(frozen=True)
class _Measure:
    """A model that is measured, its name in the tables, and a function that reports progress."""

    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer
    report: Callable[[str], None]

    def documents(self, language: str, window: int, rows: Table) -> Table:
        self.report(f"{self.name}: {language_name(language)} documents")
        texts = [row["text"] for row in rows]
        names = [f"document {row['id']} ({self.name})" for row in rows]
        bits = document_bits(self.model, self.tokenizer, texts, window_bytes=window, names=names)
        return [
            {"model": self.name, "language": language}
            | {column: row[column] for column in ("source", "domain", "id")}
            | {"bits": float(value), "bytes": len(row["text"].encode())}
            for row, value in zip(rows, bits, strict=True)
        ]

    def items(self, language: str, kind: str, items: Table) -> Table:
        self.report(f"{self.name}: {language_name(language)} {kind} items")
        right = score_items(self.model, self.tokenizer, kind, items, language)
        about = {"model": self.name, "language": language, "kind": kind}
        chance = 1 / len(item_options(kind, items, 0, language))
        return [
            about | {"id": item["id"], "correct": correct, "chance": chance}
            for item, correct in zip(items, right, strict=True)
        ]

    def chat(self, target: str, most: int, language: str) -> Table:
        items = load_items("chat", language)[:most] if can_chat(self.tokenizer) else []
        self.report(f"{self.name}: {language_name(language)} chat")
        rows = score_chat(self.model, self.tokenizer, items, target) if items else []
        return [{"model": self.name, "language": language} | row for row in rows]

    def samples(self, language: str, rows: Table, new_tokens: int) -> Table:
        self.report(f"{self.name}: {language_name(language)} samples")
        samples = []
        for row in rows:
            prompt = opening(row["text"])
            text = reply(self.model, self.tokenizer, prompt, new_tokens, **sampled(0)).text
            about = {"model": self.name, "language": language, "prompt": prompt, "text": text}
            samples.append(about | text_quality(text, like=row["text"]))
        return samples


def text_quality(text: str, *, like: str) -> dict[str, float]:
    """Return what can be counted of a generated text, as fractions from 0 to 1.

    Args:
        text: that a model wrote.
        like: text in the language it should be in.

    Returns:
        `right_script`: of its letters, those in a script that `like` has; `repeated`: of its runs
        of 8 characters, those that were there before; `undecodable`: of its characters, those that
        stand for bytes that are no text.
    """
    scripts, letters = scripts_of(like), [letter for letter in text if letter.isalpha()]
    right = sum(scripts_of(letter) <= scripts for letter in letters)
    runs = [text[begin : begin + 8] for begin in range(len(text) - 7)]
    return {
        "right_script": right / len(letters) if letters else 0.0,
        "repeated": 1 - len(set(runs)) / len(runs) if runs else 0.0,
        "undecodable": text.count("\ufffd") / len(text) if text else 0.0,
    }


def opening(text: str, characters: int = 40) -> str:
    """Return the first words of a text, about as many characters as asked."""
    cut = text.find(" ", characters)
    return text[:characters] if cut < 0 or cut > 2 * characters else text[:cut]
