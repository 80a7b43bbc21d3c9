"""The report of a run, one self-contained HTML file, and the model card."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..corpus.items import kind_name
from ..display.figures import new_axes
from ..display.html import render, show, table_html
from ..errors import WorkspaceError, explained
from ..evaluation.scores import CONTROL, Finding, Scores
from ..evaluation.views import plot_changes
from ..fertility import FertilityReport, plot_fertility
from ..files import read_json, write_atomically
from ..intervals import plain, relative_change, restored
from ..languages import language_name
from ..models import BASE_CARD
from ..recipe import Recipe
from ..sources import HUB_NAMES, WHEELS, parse_source, public_name, source_name
from ..training.views import loss_ends, plot_training
from ..vocabulary.audit import read_by_stock
from ..vocabulary.change import VocabularyChange
from ..workspace import CARD, REPORT, STAGES, Workspace

PROOFS = "proofs.json"  # results of comparing the GGUF files beside it with PyTorch
LICENCE = ("license", "license_name", "license_link")  # in the hub's metadata


def write_report(run: Workspace, *, scores: Scores | None = None, path: Path | None = None) -> Path:
    """Write the report of a run, and update the model card of the adapted model.

    Args:
        run: its first four stages must be complete.
        scores: of the fifth stage; read from `scores.json` by default.
        path: output file; `report.html` in the run folder by default.

    Returns:
        The path of the report.

    Raises:
        WorkspaceError: a stage is missing.
    """
    scores = scores or Scores.load(run.stage(STAGES[-1]).parent / "scores.json")
    page = str(render("report/report.html.j2", **_content(run, scores)))
    path = path or run.folder / REPORT
    write_atomically(path, lambda beside: beside.write_text(page + "\n", encoding="utf-8"))
    write_card(run, scores=scores)
    return path


def write_card(run: Workspace, *, scores: Scores | None = None) -> None:
    """Write the model card of the adapted model, with the scores that exist so far."""
    change, measured = VocabularyChange.load(run.stage("02_vocabulary")), run.folder / "scores.json"
    scores = scores or (Scores.load(measured) if measured.is_file() else None)
    words = [change.text(new) for new in change.added]
    stock = read_by_stock(run.folder / "model", [*words, " ".join(words)]).passed
    card = model_card(run.recipe, change, scores, stock=stock, folder=run.folder / "model")
    write_atomically(run.folder / CARD, lambda beside: beside.write_text(card, encoding="utf-8"))


def stage_tables(run: Workspace) -> dict[str, list[dict[str, Any]]]:
    """Return results of the first four stages, as tables for `Scores.more`.

    Args:
        run: its first four stages must be complete.

    Returns:
        The tables `fertility`, `audit` and `training`, each a list of rows.

    Raises:
        WorkspaceError: a stage is missing.
    """
    audit = VocabularyChange.load(run.stage("02_vocabulary")).audit_table().to_dict("records")
    fertility = FertilityReport.load(run.stage("02_vocabulary") / "fertility.json")
    training = loss_ends(read_json(run.stage("04_training") / "steps.json"), run.recipe.language)
    return {"fertility": plain(fertility.table), "audit": audit, "training": training}


def compare_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Compare the bits per byte of several runs, by language and source.

    Runs with the same held-out documents are compared with the first run document by document.

    Args:
        folders: of finished runs.

    Returns:
        One row per run, language and source, with the columns `run`, `language`, `source`, and four
        `Interval`s: `before` and `after` training, in bits per byte; `change` from the run's own
        base; `against_first`, the change from the adapted model of the first run to that of this
        run (None if the documents differ).

    Raises:
        WorkspaceError: a folder has no finished run.
    """
    rows: list[list[Any]] = []
    first: dict[Any, pd.DataFrame] = {}
    for folder in folders:
        there = f"--run {shlex.quote(str(folder))}"
        if not (folder / "scores.json").is_file():
            problem = f"{Workspace.existing(folder).folder} holds no finished run (no scores.json)"
            raise WorkspaceError(f"{problem}: finish it with `langadapt run {there}`")
        again = f"run `langadapt run 05 {there}` again"
        with explained(WorkspaceError, f"{folder / 'scores.json'} cannot be read", again):
            scores = Scores.load(folder / "scores.json")
        adapted = scores.documents[scores.documents.model == scores.models[-1]]
        parts = dict(list(adapted.set_index("id").sort_index().groupby(["language", "source"])))
        first = first or parts
        for row in scores.bits_per_byte().itertuples():
            key, against = (row.language, row.source), None
            after, before = parts[key], first.get(key)
            if parts is not first and before is not None and after.bytes.equals(before.bytes):
                bits = before.bits.to_numpy(), after.bits.to_numpy()
                against = relative_change(*bits, resamples=scores.resamples)
            rows.append([folder.absolute().name, *key, row.before, row.after, row.change, against])
    columns = ["run", "language", "source", "before", "after", "change", "against_first"]
    return pd.DataFrame(rows, columns=columns)


def _content(run: Workspace, scores: Scores) -> dict[str, Any]:
    """Return the values for the template of the report."""
    manifests = {name: run.manifest(name) for name in STAGES[:-1]}
    fertility = FertilityReport.load(run.stage("02_vocabulary") / "fertility.json")
    unit = "word" if fertility.table.words.notna().all() else "character"
    steps = read_json(run.stage("04_training") / "steps.json")
    axes = partial(new_axes, width=5)  # inches, so that figures can be read on a phone
    figures = {  # by the place in `scores.json` of the numbers in their titles
        "/bits_per_byte": plot_changes(scores, ax=axes()),
        "/more/training": plot_training(steps, scores.target, ax=axes()),
        "/more/fertility": plot_fertility(fertility, f"tokens_per_{unit}", ax=axes()),
    }
    base = _base_terms(run.recipe, None).get("base_model", run.recipe.base)
    about = {"run": run, "base": base, "scores": scores, "unit": unit}
    about |= {"headline": _headline(scores), "hardware": manifests["04_training"]["hardware"]}
    return about | {
        "figures": {source: show(ax) for source, ax in figures.items()},
        "more": {name: restored(records) for name, records in scores.more.items()},
        "table": lambda data, title, n=2: table_html(named(data), caption=title, digits=n),
        "recipe": (run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        "spent": _time_spent(run, manifests),
    }


def _headline(scores: Scores) -> list[Finding]:
    """Return two findings: the change of the target language, and that of English from the control,
    or from the base if there is no control. Of several sources, the one with the smallest gain.
    """
    texts, findings = scores.bits_per_byte(), scores.findings()
    against, said = "against_control" if CONTROL in scores.models else "change", []
    for code, column, which in ((scores.target, "change", 0), ("en", against, -1)):
        changes = texts[texts.language == code][column]
        source = f"/bits_per_byte/{changes.map(lambda change: change.value).idxmax()}"
        said.append([finding for finding in findings if finding.source == source][which])
    return said


def _time_spent(run: Workspace, manifests: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Return stages and their parts, as named in the log, with their minutes."""
    spent = Counter({(name, ""): about["seconds"] for name, about in manifests.items()})
    records, path = list[dict[str, Any]](), run.folder / "log.jsonl"
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):  # a line that was cut off
            records.append(json.loads(line))
    for record, after in pairwise(records):
        seconds, doing = after["time"] - record["time"], record.get("doing", "training")
        if record["stage"] == after["stage"] and seconds < 600:  # else the run was not at work
            spent[record["stage"], re.split("[:,]", doing)[0]] += seconds
    return [(*key, seconds / 60) for key, seconds in sorted(spent.items())]


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with names in place of codes, without empty columns."""
    names = {"language": language_name, "source": source_name, "kind": kind_name}
    columns = {column: table[column].map(names[column]) for column in names if column in table}
    return table.assign(**columns).dropna(axis="columns", how="all")


def model_card(
    recipe: Recipe,
    change: VocabularyChange,
    scores: Scores | None = None,
    *,
    stock: bool = True,
    folder: Path | None = None,
) -> str:
    """Return a Hugging Face model card in Markdown, its metadata in YAML.

    Args:
        recipe: of the run.
        change: of the vocabulary.
        scores: of the adapted model; without them the card says that it was not evaluated.
        stock: whether `AutoTokenizer` gives the right ids; if not, the card names another class.
        folder: of the model, with the card of its base and the results of its GGUF files.
    """
    table = list(scores.bits_per_byte().itertuples()) if scores else []
    texts = [f"{language_name(row.language)}, {source_name(row.source)}" for row in table]
    terms = _base_terms(recipe, folder)
    about = {"recipe": recipe, "change": change, "scores": scores, "stock": stock, "terms": terms}
    about |= {"rows": list(zip(texts, table, strict=True)), "proofs": proofs_of(folder)}
    prompt = scores.samples[0]["prompt"] if scores and scores.samples else "…"
    about |= {"prompt": " ".join(prompt.split()), "json": partial(json.dumps, ensure_ascii=False)}
    about["base"] = base = terms.get("base_model", public_name(recipe.base))
    about |= {"metadata": _metadata(recipe, base, table, texts, terms), "quote": shlex.quote}
    for part in ("target", "english"):
        about[part] = ", ".join(map(public_name, getattr(recipe.corpus, part)))
    return f"{render('report/card.md.j2', **about)}\n"


def proofs_of(folder: Path | None) -> dict[str, list[str]]:
    """Return the results of comparing GGUF files with PyTorch, by file in the folder of a model."""
    return dict(read_json(folder / PROOFS)) if folder and (folder / PROOFS).is_file() else {}


def _base_terms(recipe: Recipe, folder: Path | None) -> dict[str, Any]:
    """Return name and licence of the base, in the fields of the hub's metadata."""
    kind, name = parse_source(recipe.base)
    if wheel := WHEELS.get(name):
        return {"base_model": wheel.model, "license": wheel.accept or wheel.licence.lower()}
    known = folder and (folder / BASE_CARD).is_file()
    own = ModelCard.load(folder / BASE_CARD).data.to_dict() if folder and known else {}
    about = {field: own[field] for field in LICENCE if field in own}
    return about | ({"base_model": name.partition("@")[0]} if kind == "hub" else {})


def _metadata(recipe: Recipe, base: str, table: list[Any], texts: list[str], about: Any) -> str:
    """Return the metadata of a model card in YAML: languages, base, licence, data, results."""
    task, results = "text-generation", []
    measured = {"task_type": task, "metric_type": "bits_per_byte", "metric_name": "bits per byte"}
    for text, row in zip(texts, table, strict=True):
        source = source_name(row.source).replace(" ", "-")
        named = {"dataset_type": source, "dataset_config": row.language, "dataset_name": text}
        named |= {"dataset_split": "held out", "metric_value": round(row.after.value, 4)}
        results.append(EvalResult(**measured, **named))
    sources = map(parse_source, [*recipe.corpus.target, *recipe.corpus.english])
    hub = [HUB_NAMES.get(name, name) for kind, name in sources if kind == "hub"]
    about |= {"library_name": "transformers", "pipeline_tag": task, "tags": ["langadapt"]}
    about["model_name"] = f"{language_name(recipe.language)} adaptation of {base}"
    about["datasets"] = [re.split("[:@]", name)[0] for name in hub] or None
    about["metrics"] = ["bits_per_byte"] if results else None
    data = ModelCardData(language=[recipe.language, "en"], eval_results=results or None, **about)
    return str(data.to_yaml()).strip()
