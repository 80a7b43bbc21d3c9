"""The report of a run: one self-contained HTML file made from what the stages wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from . import plots
from .changes import VocabularyChange
from .corpus import language_name, source_name
from .errors import WorkspaceError
from .evaluation import KIND_NAMES, Scores, relative_change
from .fertility import FertilityReport
from .render import show, table_html
from .workspace import REPORT, STAGES, Workspace, write_atomically

MORE = {
    "gains": "What the user gains, measured on this machine",
    "drift": "How far weights moved, as a share of their length",
    "divergence": "How far next tokens in English are from the base's: bits, and over how many tokens",
}


def write_report(run: Workspace, *, scores: Scores | None = None, path: Path | None = None) -> Path:
    """Write `report.html` of a run.

    Args:
        run: its first four stages must be complete.
        scores: of the fifth; read from `scores.json` where not given.
        path: where to write; the run folder's `report.html` by default.

    Raises:
        WorkspaceError: a stage is missing.
    """
    import jinja2

    if scores is None:
        if not (run.folder / "scores.json").is_file():
            run.stage(STAGES[-1])
        scores = Scores.load(run.folder / "scores.json")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["html"] = lambda piece: jinja2.utils.markupsafe.Markup(str(piece))
    page = environment.get_template("report.html.j2").render(**_content(run, scores))
    path = path or run.folder / REPORT
    write_atomically(path, lambda beside: beside.write_text(page, encoding="utf-8"))
    return path


def compare_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """What several runs did to each language, beside each other.

    Runs that read the same documents are compared document by document with the first of them.

    Args:
        folders: of finished runs.

    Returns:
        A row a run, language and source: `run`, `language`, `source`, `before`, `after`, `change` against the run's own
        base, and `against_first` of the adapted models (None where documents differ), each an `Estimate`.

    Raises:
        WorkspaceError: a folder holds no finished run.
    """
    rows, first = [], None
    for folder in folders:
        if not (folder / "scores.json").is_file():
            raise WorkspaceError(f"{folder} holds no finished run: it has no scores.json; run `langadapt run` first")
        scores = Scores.load(folder / "scores.json")
        documents = scores.documents[scores.documents.model == scores.models[-1]]
        first = documents if first is None else first
        for row in scores.bits_per_byte().itertuples():
            mine = (some[(some.language == row.language) & (some.source == row.source)] for some in (documents, first))
            here, there = (some.set_index("id").sort_index() for some in mine)
            against = None
            if documents is not first and here.bytes.equals(there.bytes):
                against = relative_change(there.bits.to_numpy(), here.bits.to_numpy(), resamples=scores.resamples)
            rows.append([folder.name, row.language, row.source, row.before, row.after, row.change, against])
    columns = ["run", "language", "source", "before", "after", "change", "against_first"]
    return pd.DataFrame(rows, columns=columns)


def _content(run: Workspace, scores: Scores) -> dict[str, Any]:
    language = language_name(run.recipe.language)
    fertility = FertilityReport.load(run.stage("02_vocabulary") / "fertility.json")
    change = VocabularyChange.load(run.stage("02_vocabulary"))
    steps = json.loads((run.stage("04_training") / "steps.json").read_text(encoding="utf-8"))
    manifests = {name: run.manifest(name) for name in STAGES[:-1]}
    return {
        "title": f"{language} for {run.recipe.base}",
        "language": language,
        "findings": scores.findings(),
        "figures": [
            show(plots.plot_changes(scores)),
            show(plots.plot_domains(scores)),
            *([show(plots.plot_accuracy(scores))] if len(scores.items) else []),
            show(plots.plot_training(steps, run.recipe.language)),
            show(plots.plot_vocabulary_curve(change, run.recipe.language)),
            show(plots.plot_fertility(fertility, "tokens_per_word")),
        ],
        "bits_table": table_html(_named(scores.bits_per_byte()), caption="Bits per byte on held-out documents"),
        "accuracy_table": table_html(_named(scores.accuracy()), caption="Evaluation items")
        if len(scores.items)
        else "",
        "fertility_table": table_html(_named(fertility.table), caption="Fertility on held-out text"),
        "audit_table": table_html(change.audit_table(), caption="Audit of the vocabulary"),
        "more_tables": {
            caption: table_html(pd.DataFrame(scores.more[name]))
            for name, caption in MORE.items()
            if name in scores.more
        },
        "samples": [sample | {"name": language_name(sample["language"])} for sample in scores.samples],
        "models": scores.models,
        "recipe": (run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        "hardware": manifests["04_training"]["hardware"],
        "minutes": sum(manifest["seconds"] for manifest in manifests.values()) / 60,
    }


def _named(table: pd.DataFrame) -> pd.DataFrame:
    named = table.assign(language=table.language.map(language_name))
    if "source" in named:
        named["source"] = named.source.map(source_name)
    if "kind" in named:
        named["kind"] = named.kind.map(KIND_NAMES)
    return named
