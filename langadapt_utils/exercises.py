"""The exercises of the notebooks: which answers are right.

A notebook gives the number of an exercise, the reader's answer, and the results that the answer
follows from. So the cell with the answer does not contain the solution.
"""

import copy
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from .intervals import Numbers, relative_change

NOT_TRIED, RIGHT = "not tried yet", "right"


def check_exercise(number: str, answer: object, *given: object) -> None:
    """Print whether the answer to an exercise is right. A wrong answer stops nothing.

    Args:
        number: of the exercise: `2.3` is the third one of notebook 2.
        answer: a value, or a function where the exercise asks for code. None, and a function that
            returns None, mean that the reader has not tried yet.
        given: the results of the notebook that the answer follows from.

    Example:
        >>> check_exercise("2.3", lambda ids, pair, new: ids)
        ✗ 2.3: for ([1, 2, 3, 1, 2], (1, 2), 4) the function returns [1, 2, 3, 1, 2]
    """
    if number in FUNCTIONS:
        verdict = _try_function(answer, *FUNCTIONS[number], given)
    else:
        right, rtol = VALUES[number]
        wrong = NOT_TRIED if answer is None else f"{_shown(answer)} is wrong; unfold the hint"
        verdict = RIGHT if _accepts(_equal, answer, right(*given), rtol) else wrong
    print({RIGHT: "✓", NOT_TRIED: "…"}.get(verdict, "✗"), f"{number}: {verdict}")


def _try_function(function: Any, judge: Callable[..., bool], calls: Any, given: Any) -> str:
    """Call a reader's function with each of the arguments; return the first wrong result."""
    for arguments in calls:
        try:
            answer = function(*copy.deepcopy(arguments))
        except Exception as error:  # whatever is wrong with the reader's code
            return f"for {_shown(arguments)} the function raises {_shown(error)}"
        if answer is None:
            return NOT_TRIED
        if not _accepts(judge, answer, *arguments, *given):
            return f"for {_shown(arguments)} the function returns {_shown(answer)}"
    return RIGHT


def _accepts(judge: Callable[..., bool], *values: Any) -> bool:
    with suppress(Exception):  # an answer of a type that cannot be compared
        return judge(*values)
    return False


def _shown(value: object) -> str:
    return textwrap.shorten(repr(value), 120, placeholder=" …")


def _equal(answer: Any, right: Any, rtol: float) -> bool:
    """Return whether numbers, or sequences of them, are the same, up to a relative error."""
    answers, rights = np.asarray(answer, dtype=float), np.asarray(right, dtype=float)
    return answers.shape == rights.shape and np.allclose(answers, rights, rtol, 1e-6 if rtol else 0)


def _bits(scores: Any, language: str) -> Any:
    """Return the bits of each document (row) under each model (column)."""
    mine = scores.documents[scores.documents.language == language]
    return mine.pivot(index="id", columns="model", values="bits")


# What is right, from what the notebook gives, and by which fraction an answer may differ.
VALUES: dict[str, tuple[Callable[..., Any], float]] = {
    "1.1": (lambda report: 1000 * report.value("base", "en", "tokens_per_word"), 0.005),
    "1.2": (lambda tokenizer, text: len(tokenizer.tokenize(text)) / 2048, 0.005),
    "2.1": (lambda sizes: sizes.table.query("saved >= saved.max() / 2").new_tokens.iloc[0], 0.1),
    "2.2": (lambda change: max(map(len, change.base_pieces.values())), 0),
    "3.1": (lambda change: change.base_pieces[next(iter(change.added))], 0),
    "3.2": (lambda old: old.mean(dim=0).norm().item(), 0.001),
    "4.1": (lambda mixture: mixture.order.count("en") * mixture.length, 0),
    "4.2": (lambda steps: max(steps, key=lambda step: step["learning_rate"])["step"], 0),
    "5.1": (lambda scores, code: _bits(scores, code)["base"].sum(), 0.001),
    "5.2": (lambda scores, code: _bits(scores, code).eval("adapted < base").mean(), 0.001),
}


def _is_tokens_per_byte(answer: Any, word: str, tokenizer: Any) -> bool:
    return _equal(answer, len(tokenizer.tokenize(word)) / len(word.encode()), 0.001)


# Ids before and after the merges of exercise 2.3, and each pair with its new id.
_MERGED = {(1, 2, 3, 1, 2): [4, 3, 4], (1, 1, 1): [5, 1], (3, 2, 1): [3, 2, 1], (): []}
_PAIRS = ((1, 2), 4), ((1, 1), 5), ((1, 2), 4), ((1, 2), 4)


def _is_merged(answer: Any, ids: list[int], *_: Any) -> bool:
    return _equal(answer, _MERGED[tuple(ids)], 0)


def _is_average(answer: Any, vectors: torch.Tensor, weights: torch.Tensor) -> bool:
    return _equal(answer, weights @ vectors / weights.sum(), 0.001)


def _is_interleaved(answer: Any, english: Any, target: Any, share: float, count: int) -> bool:
    """Both lists keep their order; after every item, English is within one of its share."""
    is_english = np.array([item in english for item in answer])
    first, off = int(is_english.sum()), is_english.cumsum() - share * np.arange(1, count + 1)
    in_order = sorted(answer, key=lambda item: item in target)
    return in_order == english[:first] + target[: count - first] and bool((abs(off) < 1).all())


def _is_interval(answer: Any, before: Numbers, after: Numbers, draws: int) -> bool:
    """Both ends are right to within a twentieth of the interval: draws differ."""
    right = relative_change(before, after, resamples=draws)
    off = np.abs(np.asarray(answer, dtype=float) - (right.low, right.high))
    return off.shape == (2,) and bool((off < (right.high - right.low) / 20).all())


def _documents(number: int) -> tuple[Numbers, Numbers]:
    """Return the bits of documents before and after a training that saves about a fifth."""
    draw = np.random.default_rng(number)
    before = draw.gamma(20, 50, number)
    return before, before * draw.normal(0.8, 0.05, number)


_TABLE, _LISTS = torch.tensor([[1.0, 2.0], [3.0, 6.0]]), (list("ABCDEFGHI"), list("abcdefghi"))
_SHARES = (0.25, 8), (0.5, 9), (0.7, 7), (0.0, 4)  # fractions of English, and numbers of items
# What judges an answer, and the arguments of each call of the reader's function.
FUNCTIONS: dict[str, tuple[Callable[..., bool], Sequence[tuple[Any, ...]]]] = {
    "1.3": (_is_tokens_per_byte, [("language",), ("nyelv",), ("szépség",), ("ภาษา",)]),
    "2.3": (_is_merged, [(list(ids), *pair) for ids, pair in zip(_MERGED, _PAIRS, strict=True)]),
    "3.3": (_is_average, [(_TABLE, torch.tensor(w)) for w in ([1.0, 1.0], [3.0, 1.0], [0.0, 2.0])]),
    "4.3": (_is_interleaved, [(*_LISTS, *asked) for asked in _SHARES]),
    "5.3": (_is_interval, [(*_documents(number), 10_000) for number in (150, 300)]),
}
