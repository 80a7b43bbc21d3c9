"""The exercises of the notebooks: right answers pass, wrong ones do not, and nothing stops."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from transformers import PreTrainedTokenizerFast

import langadapt_utils as la
from helpers.exercises import answered, cell_with_exercises, solution
from helpers.tiny import llama, saved
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.exercises import FUNCTIONS, VALUES
from langadapt_utils.recipe import MixtureRecipe
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.workspace import NOTEBOOKS

ROOT = Path(__file__).parents[1]
NUMBERS = sorted([*VALUES, *FUNCTIONS])

# Wrong answers, as a reader may write them, in the names of the notebook.
WRONG = {
    "1.1": [
        'report.value("base", "en", "tokens_per_word")',
        '1000 * report.value("base", target, "tokens_per_word")',
        '1000 / report.value("base", "en", "tokens_per_word")',
        "float('nan')",
    ],
    "1.2": [
        "len(texts[target][0]) / 2048",
        "len(base.tokenizer.tokenize(texts['en'][0])) / 2048",
        "2048 / len(base.tokenizer.tokenize(texts[target][0]))",
        "'a half'",
    ],
    "1.3": [
        "lambda word: len(base.tokenizer.tokenize(word)) / len(word)",
        "lambda word: len(word.encode()) / len(base.tokenizer.tokenize(word))",
        "lambda word: len(base.tokenizer.tokenize(word))",
        "lambda word: base.tokenizer.tokenize(word)",
    ],
    "2.1": ["sizes.table.new_tokens.max()", "sizes.table.saved.max() / 2", "0", "sizes.table"],
    "2.2": [
        "max(change.base_pieces)",
        "len(change.base_pieces)",
        "min(map(len, change.base_pieces.values()))",
        "max(change.base_pieces.values(), key=len)",
    ],
    "2.3": [
        "lambda ids, pair, new: [*ids, new]",
        "lambda ids, pair, new: [new if i in pair else i for i in ids]",
        "lambda ids, pair, new: ids[: ids.index(pair[0])] + [new] + ids[ids.index(pair[0]) + 2 :]",
        "from_the_right",
        "without_skipping",
    ],
    "3.1": [
        "change.base_pieces[list(change.added)[-1]][::-1]",
        "next(iter(change.added))",
        "tuple(map(change.base_text, change.base_pieces[next(iter(change.added))]))",
        "change.base_pieces[next(iter(change.added))][:1]",
    ],
    "3.2": ["old.norm(dim=1).mean().item()", "old.mean().item()", "old.mean(dim=0)", "old.norm()"],
    "3.3": [
        "lambda vectors, weights: vectors.mean(dim=0)",
        "lambda vectors, weights: weights @ vectors",
        "lambda vectors, weights: weights @ vectors / len(weights)",
        "lambda vectors, weights: (weights @ vectors / weights.sum()).mean()",
    ],
    "4.1": [
        "len(mixture) * mixture.length",
        'mixture.order.count("en")',
        "mixture.order.count(target) * mixture.length",
        "mixture.share('en')",
    ],
    "4.2": ["1", "len(result.steps)", "max(s['learning_rate'] for s in result.steps)", "'warm-up'"],
    "4.3": [
        "lambda english, target, share, count: (english[: int(share * count)] + target)[:count]",
        "lambda english, target, share, count: sorted(english + target, key=str.upper)[:count]",
        "lambda english, target, share, count: target[:count]",
        "lambda english, target, share, count: interleaved(english[::-1], target, share, count)",
        "lambda english, target, share, count: interleaved(english, target, 1 - share, count)",
        "lambda english, target, share, count: interleaved(english, target, share, count - 1)",
        "lambda english, target, share, count: share",
    ],
    "5.1": [
        "scores.documents.bits.sum()",
        "scores.documents[scores.documents.model == 'base'].bits.sum()",
        "scores.bits_per_byte()",
    ],
    "5.2": [
        "(wide['adapted'] > wide['base']).mean() + 0.5",
        "(wide['adapted'] < wide['base']).sum() + 2",
        "wide['adapted'] < wide['base']",
    ],
    "5.3": [
        "lambda before, after, draws: resampled(before, after, draws, paired=False)",
        "lambda before, after, draws: resampled(before, after, draws, quantiles=(0.05, 0.95))",
        "lambda before, after, draws: resampled(before, after, draws, replace=False)",
        "lambda before, after, draws: np.quantile(after / before - 1, (0.025, 0.975))",
        "lambda before, after, draws: resampled(after, before, draws)",
        "lambda before, after, draws: after.sum() / before.sum() - 1",
    ],
}
# What some of them are made of.
PARTS = """
import numpy as np


def from_the_right(ids, pair, new):
    ids = list(ids)
    for place in range(len(ids) - 2, -1, -1):
        if tuple(ids[place : place + 2]) == pair:
            ids[place : place + 2] = [new]
    return ids


def without_skipping(ids, pair, new):
    found = [tuple(ids[place : place + 2]) == pair for place in range(len(ids))]
    return [new if here else i for i, here in zip(ids, found)]


def interleaved(english, target, share, count):
    items = []
    for place in range(count):
        taken = sum(item in english for item in items)
        due = taken < int(share * (place + 1))
        items.append(english[taken] if due else target[place - taken])
    return items


def resampled(before, after, draws, paired=True, quantiles=(0.025, 0.975), replace=True):
    draw, changes = np.random.default_rng(0), []
    for _ in range(draws):
        places = draw.choice(len(before), len(before), replace)
        others = places if paired else draw.choice(len(before), len(before), replace)
        changes.append(after[others].sum() / before[places].sum() - 1)
    return np.quantile(changes, quantiles)
"""


def notebook_of(number: str) -> nbformat.NotebookNode:
    (name,) = (name for name in NOTEBOOKS.values() if name.startswith(f"0{number[0]}"))
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


@pytest.fixture(scope="module")
def namespace(
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
    change: VocabularyChange,
    scores: Scores,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The names of the notebooks at their exercises, on a tiny model."""
    model = llama(len(tokenizer))
    base = saved(model, tokenizer, tmp_path_factory.mktemp("base"))
    texts, _ = corpora["hu"].measuring_texts()
    recipe = MixtureRecipe(sequence_length=32)
    names: dict[str, Any] = {
        "la": la,
        "base": base,
        "target": "hu",
        "texts": texts,
        "report": la.measure_fertility({"base": tokenizer}, texts),
        "sizes": la.measure_sizes(base, change, texts, language="hu"),
        "change": change,
        "old": model.get_input_embeddings().weight.detach(),
        "mixture": la.mix(corpora["hu"], change.tokenizer, recipe, budget_tokens=2_560),
        "result": SimpleNamespace(
            steps=[{"step": n, "learning_rate": rate} for n, rate in ((1, 0.1), (2, 0.4), (3, 0.2))]
        ),
        "scores": scores,
    }
    mine = scores.documents[scores.documents.language == "hu"]
    names["wide"] = mine.pivot(index="id", columns="model", values="bits")
    exec(PARTS, names)
    return names


def verdicts(cell: str, names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the cell prints, a line per exercise."""
    capsys.readouterr()
    exec(cell, dict(names))
    return capsys.readouterr().out.splitlines()


def answer(number: str, code: str) -> str:
    """The code with which a reader gives an answer."""
    if number not in FUNCTIONS:
        return f"answer_{number[-1]} = {code}"
    stub = ast.parse(cell_with_exercises(notebook_of(number)).source).body[1]
    assert isinstance(stub, ast.FunctionDef)
    return f"{stub.name} = {code}"


@pytest.mark.parametrize("notebook", "12345")
def test_the_solutions_of_a_notebook_are_right(
    notebook: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    content = notebook_of(notebook)
    printed = verdicts(answered(content, solution(content)), namespace, capsys)
    assert printed == [f"✓ {notebook}.{exercise}: right" for exercise in (1, 2, 3)]


@pytest.mark.parametrize("notebook", "12345")
def test_exercises_wait_for_the_reader(
    notebook: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = verdicts(cell_with_exercises(notebook_of(notebook)).source, namespace, capsys)
    assert printed == [f"… {notebook}.{exercise}: not tried yet" for exercise in (1, 2, 3)]


@pytest.mark.parametrize(
    ("number", "code"), [(number, code) for number in NUMBERS for code in WRONG[number]]
)
def test_a_wrong_answer_is_named_and_stops_nothing(
    number: str, code: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cell = answered(notebook_of(number), answer(number, code))
    printed = verdicts(cell, namespace, capsys)
    assert len(printed) == 3
    (line,) = (line for line in printed if number in line)
    assert line.startswith(f"✗ {number}: "), line


def test_other_right_answers_pass(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def furthest_behind(english: list[str], target: list[str], share: float, count: int) -> Any:
        behind, lists = [0.0, 0.0], (iter(english), iter(target))
        for _ in range(count):
            behind = [behind[0] + share, behind[1] + 1 - share]
            chosen = behind.index(max(behind))
            behind[chosen] -= 1
            yield next(lists[chosen])

    change, old = namespace["change"], namespace["old"]
    la.check_exercise("3.1", list(change.base_pieces[next(iter(change.added))]), change)
    la.check_exercise("3.2", old.mean(dim=0).norm(), old)
    la.check_exercise("4.2", 2.0, namespace["result"].steps)
    la.check_exercise("4.3", lambda *arguments: list(furthest_behind(*arguments)))
    assert capsys.readouterr().out.count(": right\n") == 4


def test_every_exercise_has_three_wrong_answers_or_more() -> None:
    assert set(WRONG) == set(NUMBERS)
    assert Counter(number[0] for number in FUNCTIONS) == Counter("12345")
    assert min(map(len, WRONG.values())) >= 3


def test_a_wrong_function_is_shown_with_its_input(capsys: pytest.CaptureFixture[str]) -> None:
    la.check_exercise("2.3", lambda ids, pair, new: [4, 3, 4])
    la.check_exercise("2.3", lambda ids, pair, new: ids[9])
    la.check_exercise("2.3", 7)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✗ 2.3: for ([1, 1, 1], (1, 1), 5) the function returns [4, 3, 4]"
    first = "✗ 2.3: for ([1, 2, 3, 1, 2], (1, 2), 4) the function raises "
    assert lines[1] == f"{first}IndexError('list index out of range')"
    assert lines[2].startswith(f"{first}TypeError(")


def test_a_function_may_change_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    def merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
        place = 0
        while place < len(ids):
            if tuple(ids[place : place + 2]) == pair:
                ids[place : place + 2] = [new]
            place += 1
        return ids

    for _ in range(2):
        la.check_exercise("2.3", merge)
    assert capsys.readouterr().out == "✓ 2.3: right\n" * 2


@pytest.mark.parametrize("notebook", "12345")
def test_a_cell_of_exercises_gives_nothing_away(notebook: str) -> None:
    """Below the reader's `None` stand only calls of the checker, with names of results."""
    answers, stub, *checks = ast.parse(cell_with_exercises(notebook_of(notebook)).source).body
    assert ast.unparse(answers) == "answer_1, answer_2 = (None, None)"
    assert isinstance(stub, ast.FunctionDef) and ast.unparse(stub.body[0]) == "return None"
    assert len(checks) == 3
    for check in checks:
        assert isinstance(check, ast.Expr) and isinstance(check.value, ast.Call)
        assert ast.unparse(check.value.func) == "la.check_exercise" and not check.value.keywords
        assert not [node for node in ast.walk(check) if isinstance(node, ast.BinOp)]


@pytest.mark.parametrize("notebook", "12345")
def test_exercises_have_level_minutes_and_hints(notebook: str) -> None:
    (text,) = (
        cell.source
        for cell in notebook_of(notebook).cells
        if cell.source.startswith("## Exercises")
    )
    for number, level in enumerate(("Easy", "Medium", "Code"), start=1):
        assert f"{number}. *{level}, " in text and " minutes.*" in text
        assert f"<details><summary>Hint for {number}</summary>" in text
