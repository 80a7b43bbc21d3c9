import dataclasses
import json
import re
import runpy
from importlib import resources
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import saved
from helpers.traces import untraceable
from langadapt_utils import intervals
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.evaluation.evaluate import evaluate
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.intervals import Interval, sign
from langadapt_utils.recipe import EvaluationRecipe

UNDECIDED = "no difference that this test can tell."
SCHEMA = json.loads(
    (resources.files("langadapt_utils") / "scores.schema.json").read_text(encoding="utf-8")
)


def rows_of(
    bits: dict[str, float], documents: int = 20, language: str = "en"
) -> list[dict[str, object]]:
    """Documents of one language that cost each model about as many bits."""
    return [
        {
            "model": model,
            "language": language,
            "source": "builtin",
            "domain": f"d{i % 3}",
            "id": str(i),
        }
        | {"bits": value * (1 + i / 100), "bytes": 100}
        for model, value in bits.items()
        for i in range(documents)
    ]


def test_findings_follow_from_the_tests(scores: Scores) -> None:
    table = scores.bits_per_byte()
    assert all(sign(change) == -1 for change in table.change)
    findings = [finding.text for finding in scores.findings()]
    assert len(findings) == 3 + 2 * 3 + 3 + 1 + 1
    assert all(
        "fell by" in sentence and sentence.endswith(": better.") for sentence in findings[:3]
    )
    small = pd.DataFrame(rows_of({"base": 100.0, "adapted": 99.97}))
    texts = [f.text for f in dataclasses.replace(scores, documents=small).findings()]
    assert any(re.search(r"fell by 0\.030% \(95 % interval -0\.\d{3}% to", text) for text in texts)
    unchanged = Scores(["base", "base"], "hu", scores.documents, scores.items, [], 200)
    assert all(
        "no difference that this test can tell" in str(finding)
        for finding in unchanged.findings()[:-1]
    )


def test_every_number_of_a_finding_stands_where_it_says(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [finding["text"] for finding in content["findings"]] == [
        finding.text for finding in scores.findings()
    ]
    for finding in content["findings"]:
        assert not untraceable(finding["text"], content, finding["source"]), finding
    wrong = content["findings"][0]["text"].replace("from 10.", "from 12.")
    assert wrong != content["findings"][0]["text"] and untraceable(
        wrong, content, "/bits_per_byte/0"
    )


def test_what_is_saved_is_what_the_schema_says(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(content, SCHEMA)
    content["accuracy"][0]["before"]["value"] = "much"
    with pytest.raises(jsonschema.ValidationError, match="much"):
        jsonschema.validate(content, SCHEMA)


def test_the_schema_is_made_from_the_result_classes() -> None:
    """Where this fails, run `python benchmarks/record_schema.py`."""
    path = Path(__file__).parents[2] / "benchmarks" / "record_schema.py"
    assert runpy.run_path(str(path))["scores_schema"]() == SCHEMA


def test_a_table_that_a_user_changes_is_the_users_and_nothing_is_drawn_again(
    scores: Scores,
) -> None:
    first = [scores.bits_per_byte(), scores.accuracy()]
    said, drawn = scores.findings(), intervals._bootstrap_weights.cache_info().misses
    first[0]["before"] = None
    first[1].drop(first[1].index, inplace=True)
    assert scores.bits_per_byte().before.notna().all() and len(scores.accuracy())
    assert scores.findings() == said
    assert intervals._bootstrap_weights.cache_info().misses == drawn


def test_english_is_compared_with_the_control_too(tmp_path: Path) -> None:
    rows = rows_of({"base": 300.0, "control": 250.0, "adapted": 275.0})
    rows += rows_of({"base": 500.0, "adapted": 400.0}, language="hu")
    scores = Scores(
        ["base", "control", "adapted"], "hu", pd.DataFrame(rows), pd.DataFrame(), [], 200
    )
    english, hungarian = scores.bits_per_byte().itertuples()
    assert english.against_control.value == pytest.approx(0.1) and hungarian.against_control is None
    findings = [finding.text for finding in scores.findings()]
    assert (
        findings[0].endswith(": better.")
        and findings[1].endswith(": worse.")
        and "control" in findings[1]
    )
    assert scores.comparisons()["count"] == 3
    scores.save(tmp_path / "scores.json")
    jsonschema.validate(json.loads((tmp_path / "scores.json").read_text()), SCHEMA)


def test_one_document_says_nothing_of_others(tmp_path: Path) -> None:
    scores = Scores(
        ["base", "adapted"],
        "hu",
        pd.DataFrame(rows_of({"base": 3.0, "adapted": 1.0}, 1)),
        pd.DataFrame(),
        [],
        200,
    )
    assert scores.findings()[0].text.endswith("no difference that this test can tell.")
    scores.save(tmp_path / "scores.json")
    jsonschema.validate(json.loads((tmp_path / "scores.json").read_text()), SCHEMA)


def test_what_was_retained_is_measured_above_chance() -> None:
    rows = [
        {
            "model": model,
            "language": "en",
            "kind": kind,
            "id": f"{kind}{i}",
            "correct": i < right,
            "chance": 0.5,
        }
        for kind, before, after in (("choice", 90, 70), ("pairs", 55, 50))
        for model, right in (("base", before), ("adapted", after))
        for i in range(100)
    ]
    scores = Scores(["base", "adapted"], "hu", pd.DataFrame(), pd.DataFrame(rows), [], 500)
    table = scores.accuracy().set_index("kind")
    assert table.retained["choice"].value == pytest.approx(0.5) and table.retained["pairs"] is None
    transfer = scores.backward_transfer()
    assert (
        transfer
        and transfer.value == pytest.approx(-0.125)
        and transfer.low < -0.125 < transfer.high < 0
    )


def test_a_model_compared_with_itself_is_never_told_apart(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    same = saved(model, tokenizer, tmp_path / "same")
    recipe = EvaluationRecipe(documents=6, items=8)
    models = {"base": same, "control": same, "adapted": same}
    scores = evaluate(models, corpora["hu"], recipe, resamples=200, new_tokens=4)
    findings = [finding.text for finding in scores.findings()]
    assert any("control" in line for line in findings) and all(
        line.endswith("no difference that this test can tell.") for line in findings[:-1]
    )
    assert " 0 of them significant" in findings[-1]


def test_scores_are_read_back_the_same(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.json")
    again = Scores.load(tmp_path / "scores.json")
    assert again.findings() == scores.findings() and again.samples == scores.samples
    pd.testing.assert_frame_equal(again.documents, scores.documents)


@pytest.mark.parametrize("hosts", [False, True])
def test_domains_add_up_to_the_whole(hosts: bool, scores: Scores) -> None:
    """Also where a domain is the host of a web page, so that there are hundreds."""
    if hosts:
        rows = pd.concat([scores.documents.assign(source=f"s{n}") for n in range(9)])
        names = rows.source + "-" + rows.id + ".org"
        rows.domain = names.where(rows.source != "s0", "large.org")
        scores = dataclasses.replace(scores, documents=rows)
    by_domain = scores.bits_per_byte(by=("language", "domain"))
    assert sum(estimate.units for estimate in by_domain.before) == len(scores.documents) / 2
    assert isinstance(by_domain.change.iloc[0], Interval)
    assert ("other domains" in set(by_domain.domain)) == hosts
    assert "large.org" in set(by_domain.domain) or not hosts
    assert by_domain.groupby("language").size().max() <= 21


@given(changes=st.lists(st.sampled_from([-1, 0, 1]), min_size=30, max_size=60))
@settings(deadline=None, max_examples=60)
def test_a_verdict_on_answers_needs_as_many_as_a_sign_test(changes: list[int]) -> None:
    before = [change < 0 for change in changes]
    after = [change > 0 for change in changes]
    rows = [
        {"model": model, "language": "hu", "kind": "choice", "id": i, "correct": right, "chance": 0}
        for model, answers in (("base", before), ("adapted", after))
        for i, right in enumerate(answers)
    ]
    scores = Scores(["base", "adapted"], "hu", pd.DataFrame(), pd.DataFrame(rows), [], 500)
    change = scores.accuracy().change[0]
    assert change.low <= change.value <= change.high
    if changes.count(1) + changes.count(-1) < 6:
        assert sign(change) == 0


def test_what_has_no_interval_is_no_comparison() -> None:
    few = pd.DataFrame(rows_of({"base": 3.0, "adapted": 1.0}, 4))
    scores = Scores(["base", "adapted"], "hu", few, pd.DataFrame(), [], 200)
    assert scores.comparisons() == {"count": 0, "beyond_doubt": 0, "by_chance": 0.0}
