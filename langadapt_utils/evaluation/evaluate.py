"""Evaluate models on held-out documents, evaluation items and prompts."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from .. import hardware
from ..chat import answer_tokens, can_chat
from ..corpus.corpus import Corpus
from ..corpus.documents import at_most_of_each_source
from ..corpus.items import ITEM_KINDS, OPTIONS, PATTERNS, Table, item_options, load_items
from ..intervals import RESAMPLES
from ..languages import NO_LANGUAGE, language_name, script_counts
from ..models import Base, Models, load_base
from ..processes import across_processes
from ..recipe import EvaluationRecipe
from ..workspace import Workspace
from .generation import replies, sampled
from .likelihood import continuation_bits, document_bits, kept_bits, shared_window, token_bits
from .scores import CONTROL, Scores

BEGINNING = 400  # characters per document in languages other than English and the target
SAMPLES = 2  # prompts per language
STAGE = "05_evaluation"
MEASURED = "measured.json"  # scores from `python -m langadapt_utils.evaluation`
ROUNDING = 1e-9  # relative difference in bits below which options are tied
CHANCE = {"chat_answer": 0.5, "chat_language": 0.5}
ENDS = math.log2(10)  # bits of the token that ends a turn: at most this many count as right
WRITTEN, ANSWER = 10, 40  # one item in ten is also answered; tokens of the answer at most
ROLE = re.compile(r"^\W*(system|user|assistant)\W*$", re.MULTILINE | re.IGNORECASE)


def score_items(
    model: PreTrainedModel, tokenizer: Tokenizer, kind: str, items: Table, language: str
) -> list[bool]:
    """Return which evaluation items a model answers correctly: the most likely option counts.

    Args:
        model: to evaluate.
        tokenizer: of the model.
        kind: `choice`: the more likely of two stories (bits per byte of the second part; a cause is
            read before its premise). `cloze`: the last word against those of three other items
            (bits per byte of the word). `pairs`: the grammatical against the ungrammatical sentence
            (bits). `copying`, `mapping`, `counting`: the number that follows from the context
            (bits).
        items: from `load_items`. Ties are split over items, so that guessing scores chance.
        language: in Thai, no space separates the parts.
    """
    options = [item_options(kind, items, place, language) for place in range(len(items))]
    answers = [item.get("label", 0) for item in items]
    flat = [option for group in options for option in group]
    bits = continuation_bits(model, tokenizer, flat)
    if kind in ("choice", "cloze"):
        bits = bits / np.array([len(continuation.encode()) for _, continuation in flat])
    bits = bits.reshape(-1, len(options[0]))
    tied = np.isclose(bits, bits.min(axis=1, keepdims=True), rtol=ROUNDING, atol=0)
    # Of items in which k options are tied, every k-th counts as right if one of them is.
    turn = np.arange(len(bits)) % tied.sum(axis=1) == 0
    return [bool(right) for right in tied[np.arange(len(bits)), answers] & turn]


def run_models(run: Workspace) -> dict[str, Base]:
    """Return the models of a trained run: `base`, `control` (if the run has one) and `adapted`.

    Raises:
        WorkspaceError: the training is not complete.
    """
    folders = {CONTROL: run.stage("04_training") / CONTROL, "adapted": run.folder / "model"}
    saved = {name: load_base(str(path)) for name, path in folders.items() if path.exists()}
    return {"base": load_base(run.recipe.base, accept_terms=run.recipe.accept_terms), **saved}


def measured(run: Workspace) -> Scores | None:
    """Return the scores that several processes measured for notebook 5, or None."""
    path = run.begun(STAGE) / MEASURED
    return Scores.load(path) if path.exists() else None


def score_chat(model: PreTrainedModel, tokenizer: Tokenizer, items: Table, target: str) -> Table:
    """Evaluate a model on prompts under its chat template.

    Args:
        model: to evaluate.
        tokenizer: of the model, for which `can_chat` is true.
        items: from `load_items`, of the kind `chat`.
        target: the target language. An English answer is compared with the same answer in this
            language, an answer in another language with the English one.

    Returns:
        One row per item and `kind`, with `id`, `correct` and `chance`. `chat_answer`: the right
        answer has fewer bits per byte than the wrong one. `chat_language`: it has fewer bits than
        the same answer in another language. `chat_end`: after it, the end of the turn has a
        probability of at least 10 %. `chat_turn`, for every tenth item: the generated answer ends
        within 40 tokens and opens no turn for another role.
    """
    pairs, rows = [], []
    for item in items:
        foreign = item["other"].get(target) or next(iter(item["other"].values()))
        for answer in (item["response"], item["wrong"], foreign):
            before, ids, ending = answer_tokens(tokenizer, item["prompt"], answer)
            pairs.append((before, ids + ending))
    bits = [(sum(ids), end) for *ids, end in token_bits(model, pairs)]
    asked = [item["prompt"] for item in items[::WRITTEN]]
    written = replies(model, tokenizer, asked, ANSWER, chat=True, do_sample=False)
    for place, item in enumerate(items):
        (right, end), (wrong, _), (other, _) = bits[3 * place : 3 * place + 3]
        sizes = [len(item[part].encode()) for part in ("response", "wrong")]
        done = {"chat_answer": right / sizes[0] < wrong / sizes[1]}
        done |= {"chat_language": right < other, "chat_end": end <= ENDS}
        if place % WRITTEN == 0:
            text, *_, ended = written[place // WRITTEN]
            done["chat_turn"] = ended and not ROLE.search(text)
        about = [(kind, {"kind": kind, "id": item["id"]}) for kind in done]
        rows += [row | {"correct": done[k], "chance": CHANCE.get(k, 0.0)} for k, row in about]
    return rows


def evaluate(
    models: Models,
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    resamples: int = RESAMPLES,
    new_tokens: int = 24,
    report: Callable[[str], None] = lambda step: None,
) -> Scores:
    """Evaluate models on the same held-out documents, evaluation items and prompts.

    Several processes (`python -m langadapt_utils.evaluation`) divide the documents and tests; all
    return the same scores.

    Args:
        models: by name, the base first and the adapted model last. A model named `control` reads
            English documents only.
        corpus: its `heldout` part is used, and the beginnings of some documents of `others`.
        recipe: numbers of documents and items.
        resamples: of the bootstrap.
        new_tokens: per sample text.
        report: called with each step of the evaluation.

    Raises:
        ModelError: the likelihood of a document or item is not finite.
    """
    read = documents_to_read(corpus, recipe)
    texts = [row["text"] for rows in read.values() for row in rows]
    window = shared_window([(b, b.tokenizer) for b in models.values()], texts, recipe.window_bytes)
    spoken, asked = corpus.heldout, _items(list(corpus.heldout), recipe.items)
    tables: list[Table] = [[], [], []]
    for name, base in models.items():
        for other in (one for one in models.values() if one is not base):  # one at a time
            other.release()
        model = base.model.to(hardware.device())
        measure = _Measure(name, model, base.tokenizer, kept_bits(model), report)
        whole = name != CONTROL
        for code in read if whole else ["en"]:
            tables[0] += across_processes(partial(measure.documents, code, window), read[code])
        tests = [partial(measure.items, *test) for test in asked]
        tests += [partial(measure.chat, corpus.language, recipe.items, code) for code in spoken]
        written = [partial(measure.samples, c, read[c][:SAMPLES], new_tokens) for c in spoken]
        for table, works in ((tables[1], tests), (tables[2], written)) if whole else ():
            table += chain(*across_processes(lambda part: [work() for work in part], works))
        model.to("cpu")
    documents, answers = pd.DataFrame(tables[0]), pd.DataFrame(tables[1])
    return Scores(list(models), corpus.language, documents, answers, tables[2], resamples, window)


def documents_to_read(corpus: Corpus, recipe: EvaluationRecipe) -> dict[str, Table]:
    """Return the documents that models are evaluated on, by language. Equal ids get a number."""
    read = {c: at_most_of_each_source(p, recipe.documents) for c, p in corpus.heldout.items()}
    for code, part in corpus.others.items():
        rows = at_most_of_each_source(part, recipe.other_documents)
        read[code] = [row | {"text": row["text"][:BEGINNING]} for row in rows]
    for rows in read.values():
        for row, times in zip(rows, pd.DataFrame(rows).groupby("id").cumcount(), strict=True):
            row["id"] += f" (repeat {times})" if times else ""
    return read


def _items(languages: Sequence[str], most: int) -> list[tuple[str, str, Table]]:
    """Return language, kind and items of each test.

    A test has at least four items, because a cloze item takes its wrong options from three others.
    """
    each, at_least = math.ceil(most / len(PATTERNS)), max(most, OPTIONS)
    asked = [(code, k, load_items(k, code)[:at_least]) for code in languages for k in ITEM_KINDS]
    asked += [(NO_LANGUAGE, k, load_items(k, NO_LANGUAGE)[:each]) for k in PATTERNS]
    return [(code, kind, items) for code, kind, items in asked if items]


@dataclass(frozen=True)
class _Measure:
    """A model with its name in the tables, its kept bits and a function that reports progress."""

    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer
    kept: Path
    report: Callable[[str], None]

    def documents(self, language: str, window: int, rows: Table) -> Table:
        self.report(f"{self.name}: {language_name(language)} documents")
        asked = self.model, self.tokenizer, [row["text"] for row in rows]
        names = [f"document {row['id']} ({self.name})" for row in rows]
        bits = document_bits(*asked, window_bytes=window, names=names, keep=self.kept)
        return [
            {"model": self.name, "language": language}
            | {column: row[column] for column in ("source", "domain", "id")}
            | {"bits": float(value), "bytes": len(row["text"].encode())}
            for row, value in zip(rows, bits, strict=True)
        ]

    def items(self, language: str, kind: str, items: Table) -> Table:
        self.report(f"{self.name}: {language_name(language)} {kind} items")
        right = score_items(self.model, self.tokenizer, kind, items, language)
        chance = 1 / len(item_options(kind, items, 0, language))
        about = {"model": self.name, "language": language, "kind": kind, "chance": chance}
        ids = (item["id"] for item in items)
        return [about | {"id": i, "correct": c} for i, c in zip(ids, right, strict=True)]

    def chat(self, target: str, most: int, language: str) -> Table:
        items = load_items("chat", language)[:most] if can_chat(self.tokenizer) else []
        self.report(f"{self.name}: {language_name(language)} chat")
        rows = score_chat(self.model, self.tokenizer, items, target) if items else []
        return [{"model": self.name, "language": language} | row for row in rows]

    def samples(self, language: str, rows: Table, new_tokens: int) -> Table:
        self.report(f"{self.name}: {language_name(language)} samples")
        samples, prompts = [], [opening(row["text"]) for row in rows]
        found = replies(self.model, self.tokenizer, prompts, new_tokens, **sampled(0))
        for row, prompt, (text, *_) in zip(rows, prompts, found, strict=True):
            about = {"model": self.name, "language": language, "prompt": prompt, "text": text}
            samples.append(about | text_quality(text, like=row["text"]))
        return samples


def text_quality(text: str, *, like: str) -> dict[str, float]:
    """Return measures of a generated text, as fractions from 0 to 1.

    Args:
        text: from a model.
        like: text in the expected language.

    Returns:
        `right_script`: letters in a script of `like`; `repeated`: 8-character runs that occurred
        before; `undecodable`: characters that stand for invalid bytes.
    """
    scripts = script_counts(text)
    right = sum(scripts[name] for name in script_counts(like))
    runs = [text[begin : begin + 8] for begin in range(len(text) - 7)]
    return {
        "right_script": right / scripts.total() if scripts else 0.0,
        "repeated": 1 - len(set(runs)) / len(runs) if runs else 0.0,
        "undecodable": text.count("\ufffd") / len(text) if text else 0.0,
    }


def opening(text: str, characters: int = 40) -> str:
    """Return the first words of a text, about `characters` long."""
    cut = text.find(" ", characters)
    return text[:characters] if cut < 0 or cut > 2 * characters else text[:cut]
