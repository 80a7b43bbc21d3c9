import dataclasses
import re

import yaml

from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.intervals import TOO_FEW
from langadapt_utils.recipe import Recipe
from langadapt_utils.report.report import model_card
from langadapt_utils.vocabulary.change import VocabularyChange


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


def test_one_document_has_no_interval(change: VocabularyChange, scores: Scores) -> None:
    alone = dataclasses.replace(
        scores, documents=scores.documents.groupby(["model", "language"]).head(1)
    )
    card = model_card(Recipe.profile("smoke"), change, alone)
    assert TOO_FEW in card and "nan" not in card


def test_a_model_that_was_not_measured_says_so(change: VocabularyChange) -> None:
    card = model_card(Recipe.profile("smoke"), change)
    assert "Not measured yet." in card and "model-index" not in metadata(card)
