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
from langadapt_utils.models import BASE_CARD
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
    assert "would take the class of the base" in told[False]
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


def test_the_metadata_name_base_licence_data_and_metrics(
    change: VocabularyChange, scores: Scores, tmp_path: Path
) -> None:
    overrides = {"base": "hub:ORG/MODEL@main", "corpus.target": "hub:ORG/TEXT:hu@v1,fineweb2"}
    recipe = Recipe.profile("smoke", overrides=overrides)
    own = "---\nlicense: other\nlicense_name: own\nlicense_link: https://a.b\n---\n# A model\n"
    (tmp_path / BASE_CARD).write_text(own)
    head = metadata(model_card(recipe, change, scores, folder=tmp_path))
    assert head["base_model"] == "ORG/MODEL" and head["metrics"] == ["bits_per_byte"]
    assert head["datasets"] == ["ORG/TEXT", "HuggingFaceFW/fineweb-2"]
    assert [head[name] for name in ("license", "license_name")] == ["other", "own"]
    packaged = metadata(model_card(Recipe.profile("cpu"), change))
    assert packaged["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert packaged["license"] == "apache-2.0" and "metrics" not in packaged


def test_the_card_starts_the_model_in_each_program(
    change: VocabularyChange, tmp_path: Path
) -> None:
    (tmp_path / "proofs.json").write_text('{"hu-f16.gguf": ["The ids are the same."]}')
    card = model_card(Recipe.profile("cpu"), change, folder=tmp_path)
    for line in ("vllm serve model", "mlx_lm.generate --model model", "ollama create hu-cpu -f"):
        assert f"\n{line}" in card
    assert "\nllama-completion -m model/hu-f16.gguf -p" in card and "The ids are the same." in card
    assert "llama-completion" not in model_card(Recipe.profile("cpu"), change)
