import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from langadapt_utils import cli
from langadapt_utils.errors import WorkspaceError
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.intervals import TOO_FEW
from langadapt_utils.recipe import Recipe
from langadapt_utils.report.report import compare_runs, model_card
from langadapt_utils.vocabulary.change import VocabularyChange


def test_runs_are_compared_on_the_same_documents(tmp_path: Path) -> None:
    def finished(name: str, after: float, documents: int = 20) -> Path:
        rows = [
            {"model": model, "language": code, "source": "builtin", "domain": "d", "id": str(i)}
            | {"bits": bits + i, "bytes": 100}
            for code in ("hu", "en")
            for model, bits in (("base", 300.0), ("adapted", after))
            for i in range(documents)
        ]
        folder = tmp_path / name
        folder.mkdir()
        Scores(["base", "adapted"], "hu", pd.DataFrame(rows), pd.DataFrame(), [], 200).save(
            folder / "scores.json"
        )
        return folder

    first, second, other = (
        finished("first", 250.0),
        finished("second", 200.0),
        finished("other", 200.0, documents=9),
    )
    table = compare_runs([first, second, other])
    assert [one is None for one in table.against_first] == [True, True, False, False, True, True]
    expected = sum(200.0 + i for i in range(20)) / sum(250.0 + i for i in range(20)) - 1
    assert table.against_first[2].value == pytest.approx(expected)
    done = CliRunner().invoke(cli.app, ["compare", str(first), str(second)], terminal_width=200)
    assert done.exit_code == 0 and "second" in done.output and f"{expected:+.1%}" in done.output
    with pytest.raises(WorkspaceError, match="holds no finished run"):
        compare_runs([tmp_path])


def metadata(card: str) -> dict[str, object]:
    found = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    assert found
    return dict(yaml.safe_load(found[1]))


def test_the_card_holds_what_was_measured(change: VocabularyChange, scores: Scores) -> None:
    recipe = Recipe.profile("smoke", overrides={"base": "hub:ORG/MODEL@main"})
    card = model_card(recipe, change, scores)
    head = metadata(card)
    assert head["language"] == ["hu", "en"] and head["base_model"] == "ORG/MODEL"
    (index,) = head["model-index"]
    values = {one["dataset"]["name"]: one["metrics"][0]["value"] for one in index["results"]}
    for row in scores.bits_per_byte().itertuples():
        assert round(row.after.value, 4) in values.values()
    assert all(finding.text in card for finding in scores.findings())
    assert f"{len(change.added):,} tokens for Hungarian" in card


def test_the_card_says_what_loads_a_tokenizer_that_stock_classes_read_otherwise(
    change: VocabularyChange,
) -> None:
    told = {
        stock: model_card(Recipe.profile("smoke"), change, stock=stock) for stock in (True, False)
    }
    assert "= PreTrainedTokenizerFast.from_pretrained" in told[False]
    assert "`AutoTokenizer` would take the class of the base" in told[False]
    assert "= AutoTokenizer.from_pretrained" in told[True]


def test_one_document_has_no_interval(change: VocabularyChange, scores: Scores) -> None:
    alone = dataclasses.replace(
        scores, documents=scores.documents.groupby(["model", "language"]).head(1)
    )
    card = model_card(Recipe.profile("smoke"), change, alone)
    assert TOO_FEW in card and "nan" not in card


def test_a_model_that_was_not_measured_says_so(change: VocabularyChange) -> None:
    card = model_card(Recipe.profile("smoke"), change)
    assert "Not measured yet." in card and "model-index" not in metadata(card)
