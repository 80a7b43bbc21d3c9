"""Measuring language models: bits per byte and evaluation items, with intervals, for any tokenizer.

Axes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from . import hardware
from .corpus import ITEM_KINDS, Corpus, at_most_of_each_source, language_name, load_items, source_name
from .errors import CorpusError
from .incontext import OPTIONS, PATTERNS, pattern_items
from .learning import scripts_of
from .recipe import EvaluationRecipe
from .sources import Base, longest_context
from .tokens import byte_lengths, document_start

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    Numbers = npt.NDArray[np.float64]

BATCH_TOKENS = 2_048  # of one forward pass
CONFIDENCE = 0.95
CLOZE_OPTIONS = 4
CHANCE = {"choice": 1 / 2, "cloze": 1 / CLOZE_OPTIONS, "pairs": 1 / 2, **dict.fromkeys(PATTERNS, 1 / OPTIONS)}
KIND_NAMES = {"choice": "two-choice stories", "cloze": "last words", "pairs": "minimal pairs"}
KIND_NAMES |= {kind: f"{kind} from context" for kind in PATTERNS}
NO_LANGUAGE = "zxx"  # in ISO 639-2
ENOUGH = 30  # items, below which a share of what was above chance says nothing
SAMPLES = 2  # prompts of each language


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval.

    Attributes:
        value: computed on all units.
        low, high: ends of the 95 % interval.
        units: how many documents or items it rests on.
    """

    value: float
    low: float
    high: float
    units: int


@dataclass(frozen=True)
class _Piece:
    """Tokens fed to the model at once, and where among them scoring begins."""

    unit: int
    ids: list[int]
    first: int


def document_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    window_tokens: int = 1_024,
    context_bytes: int = 512,
) -> Numbers:
    """Negative log-likelihood of each text in bits, every byte of it scored once.

    The start of a document stands before each text and is not scored. A text longer than the window is read in windows
    that overlap, so that what is scored always has context: from the beginning of the text, or `context_bytes`
    bytes, which are the same for every tokenizer, or half a window where that is less.
    """
    start, sizes = document_start(tokenizer), byte_lengths(tokenizer)
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    window = min(window_tokens, longest_context(model))
    pieces = [
        piece
        for unit, ids in enumerate(encoded)
        for piece in _windows(unit, [start, *ids], sizes, window, context_bytes)
    ]
    return _bits(model, pieces, len(texts))


def continuation_bits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, contexts: Sequence[str], continuations: Sequence[str]
) -> Numbers:
    """Negative log-likelihood in bits of each continuation after its context.

    The two are encoded together, as running text; a token across the border counts to the continuation.
    """
    start = document_start(tokenizer)
    whole = [context + continuation for context, continuation in zip(contexts, continuations, strict=True)]
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    pieces = []
    for unit, (ids, offsets, context) in enumerate(
        zip(encoded["input_ids"], encoded["offset_mapping"], contexts, strict=True)
    ):
        first = next(index for index, (_, end) in enumerate(offsets) if end > len(context))
        pieces.append(_Piece(unit, [start, *ids], first + 1))
    return _bits(model, pieces, len(whole))


def _windows(
    unit: int, ids: list[int], sizes: npt.NDArray[np.int64], window: int, context_bytes: int
) -> Iterator[_Piece]:
    yield _Piece(unit, ids[:window], 1)
    before = np.concatenate([[0], np.cumsum(sizes[ids])])  # bytes before each token
    scored = window
    while scored < len(ids):
        enough = int(np.searchsorted(before, before[scored] - context_bytes, side="right")) - 1
        begin = max(enough, scored - window // 2, 0)
        yield _Piece(unit, ids[begin : begin + window], scored - begin)
        scored = begin + window


def _bits(model: PreTrainedModel, pieces: Sequence[_Piece], units: int) -> Numbers:
    hardware.keep_freed_memory()
    precision = hardware.native_precision()
    totals = np.zeros(units)
    for batch in _batches_by_length(pieces):
        width = max(len(piece.ids) for piece in batch)
        # Padding on the right is invisible to a causal model, so that no mask is needed.
        ids_BT = torch.tensor([piece.ids + [0] * (width - len(piece.ids)) for piece in batch], device=model.device)
        with torch.no_grad(), hardware.autocast(precision, model.device.type):
            logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        for row, piece in enumerate(batch):
            targets = ids_BT[row, piece.first : len(piece.ids)]
            logits_TV = logits_BTV[row, piece.first - 1 : len(piece.ids) - 1].float()
            loss = torch.nn.functional.cross_entropy(logits_TV, targets, reduction="sum")
            totals[piece.unit] += loss.item() / math.log(2)
    return totals


def _batches_by_length(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: len(piece.ids)):
        if batch and (len(batch) + 1) * len(piece.ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def bits_per_byte(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    window_tokens: int = 1_024,
    resamples: int = 2_000,
) -> Estimate:
    """Total negative log-likelihood of texts in bits over their UTF-8 bytes, with a 95 % interval over texts.

    The bytes are the same for every tokenizer, so that models with different vocabularies can be compared;
    never compare it across languages.

    Raises:
        CorpusError: there is no text.
    """
    if not texts or not any(texts):
        raise CorpusError("bits per byte need at least one text that is not empty: give some")
    bits = document_bits(model, tokenizer, texts, window_tokens=window_tokens)
    sizes = np.array([len(text.encode()) for text in texts])
    return ratio(bits, sizes, resamples=resamples)


def ratio(over: Numbers, under: Numbers, *, resamples: int, seed: int = 0) -> Estimate:
    """Sum over sum, with a percentile bootstrap interval over the units (Efron & Tibshirani 1993)."""
    weights = _bootstrap_weights(len(over), resamples, seed)
    return _estimate(over.sum() / under.sum(), (weights @ over) / (weights @ under), len(over))


def relative_change(before: Numbers, after: Numbers, *, resamples: int, seed: int = 0) -> Estimate:
    """How much a sum over the same units changed, as a share of what it was; a paired bootstrap over units."""
    weights = _bootstrap_weights(len(before), resamples, seed)
    return _estimate(after.sum() / before.sum() - 1, (weights @ after) / (weights @ before) - 1, len(before))


def wilson(correct: int, items: int) -> Estimate:
    """A share of correct answers with Wilson's 95 % interval (Wilson 1927)."""
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), correct / items
    middle = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = z / (1 + z * z / items) * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    return Estimate(share, middle - half, middle + half, items)


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
        kind: `choice`: the likelier of two stories, the choice read before its premise where it is the
            cause (bits per byte of what comes second); `cloze`: the last word against those of three other
            items (bits per byte of the word); `pairs`: the grammatical sentence against the other (bits);
            `copying`, `mapping` and `counting`: the number that the context asks for (bits).
        items: as `load_items` gives them.
        language: Thai writes no space between the parts.
    """
    space = "" if language == "th" else " "
    options, answers = [], []
    for index, item in enumerate(items):
        if kind == "choice" and item["kind"] == "cause":
            options.append([(choice + space, item["premise"]) for choice in item["choices"]])
        elif kind == "choice":
            options.append([(item["premise"] + space, choice) for choice in item["choices"]])
        elif kind == "cloze":
            others = [items[(index + step) % len(items)]["target"] for step in range(1, CLOZE_OPTIONS)]
            options.append([(item["context"] + space, word) for word in [item["target"], *others]])
        elif kind in PATTERNS:
            options.append([(item["context"], option) for option in item["options"]])
        else:
            options.append([("", item["good"]), ("", item["bad"])])
        answers.append(item.get("label", 0))
    flat = [option for group in options for option in group]
    bits = continuation_bits(model, tokenizer, [context for context, _ in flat], [text for _, text in flat])
    if kind in ("choice", "cloze"):
        bits = bits / np.array([len(text.encode()) for _, text in flat])
    width = len(options[0])
    return [bool(right) for right in bits.reshape(-1, width).argmin(axis=1) == np.array(answers)]


def evaluate(
    models: Mapping[str, Base],
    corpus: Corpus,
    recipe: EvaluationRecipe,
    *,
    report: Callable[[str], None] = lambda step: None,
) -> Scores:
    """Measure models on the same held-out documents, evaluation items and prompts.

    Args:
        models: by name, the base first.
        corpus: its `heldout` part is used.
        recipe: how much of it.
        report: called with what is being measured.
    """
    documents, items, samples = [], [], []
    for name, bundle in models.items():
        model, tokenizer = bundle.model.to(hardware.device()), bundle.tokenizer
        for language, heldout in corpus.heldout.items():
            report(f"{name}: {language_name(language)} documents")
            rows = at_most_of_each_source(heldout, recipe.documents)
            bits = document_bits(model, tokenizer, [row["text"] for row in rows], window_tokens=recipe.window_tokens)
            documents += [
                {"model": name, "language": language, "source": row["source"], "domain": row["domain"], "id": row["id"]}
                | {"bits": float(b), "bytes": len(row["text"].encode())}
                for row, b in zip(rows, bits, strict=True)
            ]
            for kind in ITEM_KINDS:
                chosen = load_items(kind, language)[: recipe.items]
                if chosen:
                    report(f"{name}: {language_name(language)} {kind} items")
                    items += _answers(name, model, tokenizer, kind, chosen, language)
            report(f"{name}: {language_name(language)} samples")
            for row in rows[:SAMPLES]:
                prompt = opening(row["text"])
                text = generate(model, tokenizer, prompt, recipe.new_tokens)
                sample = {"model": name, "language": language, "prompt": prompt, "text": text}
                samples.append(sample | text_quality(text, like=row["text"]))
        for kind in PATTERNS:
            report(f"{name}: {kind} from context")
            chosen = pattern_items(kind, math.ceil(recipe.items / len(PATTERNS)))
            items += _answers(name, model, tokenizer, kind, chosen, NO_LANGUAGE)
        model.to("cpu")
    return Scores(
        list(models), corpus.language, pd.DataFrame(documents), pd.DataFrame(items), samples, recipe.resamples
    )


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
        for item, ok in zip(items, right, strict=True)
    ]


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, new_tokens: int) -> str:
    """Continue a prompt greedily, without repeating three tokens in a row."""
    ids = [document_start(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    inputs = torch.tensor([ids], device=model.device)
    with torch.no_grad():
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
        `right_script`: of its letters, those in a script that `like` has; `repeated`: of its runs of 8 characters,
        those that were there before; `undecodable`: of its characters, those that stand for bytes that are no text.
    """
    scripts, letters = scripts_of(like), [letter for letter in text if letter.isalpha()]
    runs = [text[begin : begin + 8] for begin in range(len(text) - 7)]
    return {
        "right_script": sum(scripts_of(letter) <= scripts for letter in letters) / len(letters) if letters else 0.0,
        "repeated": 1 - len(set(runs)) / len(runs) if runs else 0.0,
        "undecodable": text.count("\ufffd") / len(text) if text else 0.0,
    }


def opening(text: str, characters: int = 40) -> str:
    """The first words of a text, about as many characters as asked; for prompts."""
    cut = text.find(" ", characters)
    return text[:characters] if cut < 0 or cut > 2 * characters else text[:cut]


@dataclass(frozen=True)
class Scores:
    """What models did on the same documents, items and prompts.

    Attributes:
        models: names, the base first.
        target: code of the target language.
        documents: a row for each model and held-out document, with `language`, `source`, `domain`, `id`,
            `bits`, `bytes`.
        items: a row for each model and evaluation item, with `language`, `kind`, `id`, `correct`.
        samples: `model`, `language`, `prompt`, `text`, and what `text_quality` counts.
        resamples: of every bootstrap.
        more: other tables by name, as records: `divergence`, `drift`, `gains`, `dial`.
    """

    models: list[str]
    target: str
    documents: pd.DataFrame
    items: pd.DataFrame
    samples: list[dict[str, Any]]
    resamples: int
    more: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def bits_per_byte(self, by: Sequence[str] = ("language", "source")) -> pd.DataFrame:
        """Bits per byte of the first and the last model, and the change between them, each as an `Estimate`."""
        rows = []
        for key, group in self.documents.groupby(list(by), sort=False):
            wide = group.pivot(index=["source", "id"], columns="model", values=["bits", "bytes"])
            before, after = (wide["bits"][name].to_numpy() for name in (self.models[0], self.models[-1]))
            sizes = wide["bytes"][self.models[0]].to_numpy()
            rows.append(
                dict(zip(by, key, strict=True))
                | {"before": ratio(before, sizes, resamples=self.resamples)}
                | {"after": ratio(after, sizes, resamples=self.resamples)}
                | {"change": relative_change(before, after, resamples=self.resamples)}
            )
        return pd.DataFrame(rows)

    def accuracy(self) -> pd.DataFrame:
        """Accuracy of the first and the last model, the difference, and what was retained, each as an `Estimate`.

        `retained` is the share of what the first model could do beyond chance; None where it could do nothing beyond
        doubt, or items are few.
        """
        rows = []
        for (language, kind), group in self.items.groupby(["language", "kind"], sort=False):
            wide = group.pivot(index="id", columns="model", values="correct").astype(float)
            before, after = wide[self.models[0]].to_numpy(), wide[self.models[-1]].to_numpy()
            rows.append(
                {"language": language, "kind": kind, "chance": CHANCE[kind]}
                | {"before": wilson(int(before.sum()), len(before)), "after": wilson(int(after.sum()), len(after))}
                | {"change": ratio(after - before, np.ones(len(before)), resamples=self.resamples)}
            )
            able = rows[-1]["before"].low > CHANCE[kind] and len(before) >= ENOUGH
            above = [numbers - CHANCE[kind] for numbers in (after, before)]
            rows[-1]["retained"] = ratio(above[0], above[1], resamples=self.resamples) if able else None
        return pd.DataFrame(rows)

    def backward_transfer(self) -> Estimate:
        """How much accuracy in English changed on average over kinds of items, each counting the same.

        Source: Lopez-Paz & Ranzato 2017, arXiv 1706.08840.
        """
        english = self.items[self.items.language == "en"]
        wide = english.pivot(index=["kind", "id"], columns="model", values="correct").astype(float)
        weights = 1 / wide.groupby("kind")[self.models[0]].transform("size").to_numpy(dtype=float)
        change = (wide[self.models[-1]] - wide[self.models[0]]).to_numpy()
        return ratio(weights * change, weights, resamples=self.resamples)

    def findings(self) -> list[str]:
        """What the tests say, in words: gain on the target language, loss on English."""
        sentences, tables = [], [self.bits_per_byte(), *([self.accuracy()] if len(self.items) else [])]
        for row in tables[0].itertuples():
            change, text = row.change, source_name(row.source)
            moved = "fell" if change.value < 0 else "rose"
            verdict = {-1: "better", 0: "no difference that this test can tell", 1: "worse"}[sign(change)]
            sentences.append(
                f"{language_name(row.language)} ({text}): bits per byte {moved} by {abs(change.value):.1%} "
                f"(95 % interval {change.low:+.1%} to {change.high:+.1%}, {change.units} held-out documents), "
                f"from {row.before.value:.3f} to {row.after.value:.3f}: {verdict}."
            )
        for row in tables[1].itertuples() if len(self.items) else []:
            verdict = {-1: "worse", 0: "no difference that this test can tell", 1: "better"}[sign(row.change)]
            sentences.append(
                f"{language_name(row.language)}, {KIND_NAMES[row.kind]}: {row.before.value:.0%} right before, "
                f"{row.after.value:.0%} after (chance {row.chance:.0%}, {row.before.units} items): {verdict}."
            )
        changes = [change for table in tables for change in table.change]
        sentences.append(
            f"{len(changes)} comparisons, {sum(sign(change) != 0 for change in changes)} of them beyond doubt; if "
            f"nothing had changed, about {len(changes) * (1 - CONFIDENCE):.1f} would be by chance."
        )
        return sentences

    def save(self, path: Path) -> None:
        """Write the scores as JSON: every document and item, and the tables made from them."""
        content = {
            "schema": 2,
            "models": self.models,
            "target": self.target,
            "resamples": self.resamples,
            "findings": self.findings(),
            "bits_per_byte": plain(self.bits_per_byte()),
            "accuracy": plain(self.accuracy()) if len(self.items) else [],
            "documents": self.documents.to_dict("records"),
            "items": self.items.to_dict("records"),
            "samples": self.samples,
            "more": self.more,
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        documents, items = pd.DataFrame(content["documents"]), pd.DataFrame(content["items"])
        rest = (content[name] for name in ("samples", "resamples", "more"))
        return cls(content["models"], content["target"], documents, items, *rest)


def sign(change: Estimate) -> int:
    """-1 or 1 where the whole interval lies below or above 0, else 0."""
    return -1 if change.high < 0 else 1 if change.low > 0 else 0


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as plain data for a file, its estimates as objects."""
    return [
        {name: asdict(cell) if isinstance(cell, Estimate) else cell for name, cell in row.items()}
        for row in table.to_dict("records")
    ]


def _bootstrap_weights(units: int, resamples: int, seed: int) -> Numbers:
    """How often each unit is drawn in each resample, of shape (resamples, units)."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)


def _estimate(value: float, resampled: Numbers, units: int) -> Estimate:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(value), float(low), float(high), units)
