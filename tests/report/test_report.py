import ast
import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from playwright.sync_api import expect, sync_playwright
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from helpers.traces import sourced, untraceable
from helpers.vocabularies import with_pattern
from langadapt_utils import cli, hardware
from langadapt_utils.errors import RecipeError, WorkspaceError
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.fertility import measure_fertility
from langadapt_utils.intervals import TOO_FEW, plain
from langadapt_utils.models import BASE_CARD
from langadapt_utils.recipe import Recipe
from langadapt_utils.report import report
from langadapt_utils.report.report import compare_runs, model_card, write_report
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary
from langadapt_utils.workspace import CARD, Workspace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_runs_are_compared_on_the_same_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        finished("second [v2]", 200.0),
        finished("other", 200.0, documents=9),
    )
    table = compare_runs([first, second, other])
    assert [one is None for one in table.against_first] == [True, True, False, False, True, True]
    expected = sum(200.0 + i for i in range(20)) / sum(250.0 + i for i in range(20)) - 1
    assert table.against_first[2].value == pytest.approx(expected)
    done = CliRunner().invoke(cli.app, ["compare", str(first), str(second)], terminal_width=200)
    assert done.exit_code == 0 and "[v2]" in done.output and f"{expected:+.1%}" in done.output
    with pytest.raises(RecipeError, match="is not a run folder"):
        compare_runs([tmp_path])
    Workspace(tmp_path / "a new", Recipe.profile("smoke"))
    with pytest.raises(WorkspaceError, match=r"new holds no finished run .* --run '.*/a new'"):
        compare_runs([tmp_path / "a new"])
    monkeypatch.chdir(second)
    assert set(compare_runs([Path()]).run) == {"second [v2]"}
    for broken in ('{"documents": ', "{}"):
        (first / "scores.json").write_text(broken)
        with pytest.raises(
            WorkspaceError, match=r"scores.json cannot be read .*: run `langadapt run 05"
        ):
            compare_runs([first])


def finished_run(
    folder: Path, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, language: str = "hu"
) -> Any:
    """What the report reads of a run, without models."""
    for name in ("02_vocabulary", "04_training"):
        (folder / name).mkdir()
    texts = {"en": ["Some words here."] * 6, language: ["szép napot", "jó"] * 3}
    fertility = measure_fertility({"base": tokenizer, "adapted": change.tokenizer}, texts)
    fertility.save(folder / "02_vocabulary" / "fertility.json")
    steps = [{"tokens": 10, "bits_per_byte": {"target": 2.5, "en": 1.0}}]
    (folder / "04_training" / "steps.json").write_text(json.dumps(steps))
    (folder / "log.jsonl").write_text('{"time": 0, "stage": "04_training", "step": 1}\n')
    recipe = Recipe.profile("smoke", language=language)
    recipe.write(folder / "recipe.yaml")
    made = {"seconds": 60.0, "hardware": hardware.describe()}
    stage = {"stage": lambda name: folder / name, "manifest": lambda name: made}
    return SimpleNamespace(folder=folder, recipe=recipe, **stage), plain(fertility.table)


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "write_card", lambda *args, **kwargs: None)


GAINS = [
    {"model": name, "characters_per_second": {"value": v, "low": v - 1, "high": v + 1, "units": 5}}
    for name, v in (("base", 40.0), ("adapted", 60.0))
]


@pytest.mark.usefixtures("no_card")
@pytest.mark.parametrize("log", ["torn", "missing"])
def test_the_report_is_written_without_a_whole_log(
    log: str,
    scores: Scores,
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    tmp_path: Path,
) -> None:
    run, fertility = finished_run(tmp_path, tokenizer, change)
    path = tmp_path / "log.jsonl"
    path.unlink() if log == "missing" else path.write_text(path.read_text() + '{"time": 1, "sta')
    own = dataclasses.replace(scores, more={"fertility": fertility, "gains": GAINS, "training": []})
    assert "Stages 1 to 4 took" in write_report(run, scores=own).read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_card")
def test_the_report_opens_with_four_numbers_and_every_number_stands_where_it_says(
    scores: Scores, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, tmp_path: Path
) -> None:
    run, fertility = finished_run(tmp_path, tokenizer, change)
    ends = [
        {"language": "hu", "first": 2.5, "last": 2.5},
        {"language": "en", "first": 1, "last": 1},
    ]
    more = {"fertility": fertility, "gains": GAINS, "training": ends}
    own = dataclasses.replace(scores, more=more)
    page = write_report(run, scores=own).read_text(encoding="utf-8")
    own.save(tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    said = sourced(page)
    for source, text in said:
        assert not untraceable(text, content, source), (source, text)
    wrong = said[0][1].replace("%", "9%", 1)
    assert untraceable(wrong, content, said[0][0])
    cards, rest = [text for _, text in said[:4]], said[4:]
    assert "Hungarian" in cards[0] and "English" in cards[1]
    for card, name in zip(cards[2:], ("tokens per word", "characters per second"), strict=True):
        assert name in card and "→" in card and "[" in card
    assert rest[0][0] == "/bits_per_byte" and page.index("<figure") < page.index("<blockquote")
    assert page.index("<blockquote") < page.index("<table") < page.index("<details")
    findings = own.findings()
    assert len(said) == 4 + 3 + len(findings)
    for finding in findings:
        number = re.split(r" [\[(]", finding.change)[0]
        parts = finding.what, finding.direction, number, finding.verdict
        texts = [text for source, text in rest if source == finding.source]
        assert any(all(part in text for part in parts) for text in texts), finding


@pytest.mark.usefixtures("no_card")
def test_a_report_of_older_scores_says_what_was_not_recorded(
    scores: Scores, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, tmp_path: Path
) -> None:
    run, fertility = finished_run(tmp_path, tokenizer, change)
    older = [{name: row[name] for name in row if name != "interval"} for row in fertility]
    page = write_report(run, scores=dataclasses.replace(scores, more={"fertility": older}))
    *_, (_, tokens), (_, speed) = sourced(page.read_text("utf-8"))[:4]
    assert "tokens per word" in tokens and "→" in tokens and "no interval recorded" in tokens
    assert "characters per second" in speed and "not measured" in speed


@pytest.mark.usefixtures("no_card")
def test_samples_of_a_language_from_right_to_left_are_set_so(
    scores: Scores, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, tmp_path: Path
) -> None:
    run, _ = finished_run(tmp_path, tokenizer, change, "he")
    documents = scores.documents.replace({"language": {"hu": "he"}})
    samples = [
        row | {"language": {"hu": "he"}.get(row["language"], "en")} for row in scores.samples
    ]
    hebrew = dataclasses.replace(scores, target="he", documents=documents, samples=samples)
    page = write_report(run, scores=hebrew).read_text(encoding="utf-8")
    first = page[: page.index("<table")]
    assert first.count('<blockquote lang="he" dir="rtl"') == first.count("<blockquote") == 2


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it")
@pytest.mark.usefixtures("no_card")
def test_the_report_fits_a_phone_and_paper_shows_what_is_folded(
    scores: Scores, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange, tmp_path: Path
) -> None:
    run, fertility = finished_run(tmp_path, tokenizer, change)
    own = dataclasses.replace(scores, more={"fertility": fertility, "gains": GAINS})
    path = write_report(run, scores=own)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(path.as_uri())
        folded = page.get_by_text("Held-out documents, by domain")
        expect(folded).to_be_hidden()
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.reload()
        page.emulate_media(media="print")
        expect(folded).to_be_visible()
        browser.close()


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
    assert "picks the class of the base" in told[False]
    assert "= AutoTokenizer.from_pretrained" in told[True]


@pytest.mark.parametrize(("kind", "reader"), [("llama", "Auto"), ("qwen2", "PreTrained")])
def test_the_card_of_a_run_names_what_reads_its_tokenizer(
    kind: str, reader: str, tmp_path: Path
) -> None:
    base = with_pattern("llama3")
    thai = extend_vocabulary(base, ["ที่นี่มีที่นั่ง"] * 50, tokens=14)
    run, _ = finished_run(tmp_path, base, thai)
    thai.save(tmp_path / "02_vocabulary")
    thai.save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": kind}))
    report.write_card(run)
    assert f"tokenizer = {reader}Tokenizer" in (tmp_path / CARD).read_text(encoding="utf-8")


def test_one_document_has_no_interval(change: VocabularyChange, scores: Scores) -> None:
    alone = dataclasses.replace(
        scores, documents=scores.documents.groupby(["model", "language"]).head(1)
    )
    card = model_card(Recipe.profile("smoke"), change, alone)
    assert TOO_FEW in card and "nan" not in card


def test_the_card_quotes_a_prompt_for_each_program(
    change: VocabularyChange, scores: Scores
) -> None:
    prompt = 'Ő: "Jó\nreggelt!" C:\\új $5 `ls` it\'s'
    samples = [{**sample, "prompt": prompt} for sample in scores.samples]
    documents = scores.documents.assign(source="a|b.txt")
    odd = dataclasses.replace(scores, samples=samples, documents=documents)
    card, one_line = model_card(Recipe.profile("smoke"), change, odd), " ".join(prompt.split())
    (call,) = re.findall(r"^ids = tokenizer\((.+), return_tensors", card, re.MULTILINE)
    assert ast.literal_eval(call) == one_line
    (command,) = re.findall(r"^mlx_lm.generate .+", card, re.MULTILINE)
    assert shlex.split(command)[-1] == one_line
    assert "| Hungarian, a\\|b.txt |" in card


def test_the_card_does_not_publish_where_files_lie(
    change: VocabularyChange,
) -> None:
    options = {"base": "/home/anna/my models/llama", "corpus.target": ["/home/anna/hu.txt"]}
    card = model_card(Recipe.profile("smoke", overrides=options), change)
    assert "anna" not in card and "# Hungarian adaptation of llama\n" in card
    assert "Hungarian from hu.txt; English from builtin" in card


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
    card, name = model_card(Recipe.profile("cpu"), change), "HuggingFaceTB/SmolLM2-135M-Instruct"
    packaged = metadata(card)
    assert packaged["base_model"] == name and f"# Hungarian adaptation of {name}\n" in card
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
