"""The report of a run: one self-contained HTML file made from what the stages wrote, and the model
card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..corpus.items import kind_name
from ..display.html import show, table_html
from ..errors import WorkspaceError
from ..evaluation.scores import Scores
from ..evaluation.views import plot_accuracy, plot_changes, plot_domains
from ..fertility import FertilityReport, plot_fertility
from ..files import write_atomically
from ..intervals import percent, relative_change, restored, with_ends
from ..languages import language_name
from ..recipe import Recipe
from ..sources import source_name
from ..training.views import loss_ends, plot_training
from ..vocabulary.change import VocabularyChange
from ..vocabulary.views import plot_vocabulary_curve
from ..workspace import CARD, REPORT, STAGES, Workspace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MORE = {
    "fertility": "Tokens on held-out text, before and after",
    "gains": "What the user gains, measured on this machine (medians of three rounds)",
    "interpolation": "On the way from the start to the adapted model, and short runs with other shares of English",
    "kl_divergence": "How far next tokens in English are from the base's: bits, and over how many tokens",
    "drift": "How far weights moved, as a share of their length",
    "audit": "Audit of the vocabulary",
}


def write_report(run: Workspace, *, scores: Scores | None = None, path: Path | None = None) -> Path:
    """Write `report.html` of a run, and fill the model card of the adapted model.

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
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["html"] = lambda piece: jinja2.utils.markupsafe.Markup(str(piece))
    change = VocabularyChange.load(run.stage("02_vocabulary"))
    page = environment.get_template("report.html.j2").render(**_content(run, scores, change))
    path = path or run.folder / REPORT
    write_atomically(path, lambda beside: beside.write_text(page, encoding="utf-8"))
    card = model_card(run.recipe, change, scores)
    write_atomically(run.folder / CARD, lambda beside: beside.write_text(card, encoding="utf-8"))
    return path


def stage_tables(run: Workspace) -> dict[str, list[dict[str, Any]]]:
    """What the report says of the first four stages, as tables for `Scores.more`: `fertility`,
    `vocabulary`, `audit` and `training`.
    """
    change = VocabularyChange.load(run.stage("02_vocabulary"))
    fertility = FertilityReport.load(run.stage("02_vocabulary") / "fertility.json")
    return {
        "fertility": json.loads(fertility.table.to_json(orient="records")),
        "vocabulary": [change.savings()],
        "audit": change.audit_table().to_dict("records"),
        "training": loss_ends(_steps(run), run.recipe.language),
    }


def compare_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """What several runs did to each language, beside each other.

    Runs that read the same documents are compared document by document with the first of them.

    Args:
        folders: of finished runs.

    Returns:
        A row a run, language and source: `run`, `language`, `source`, `before`, `after`, `change`
        against the run's own base, and `against_first` of the adapted models (None where documents
        differ), each an `Interval`.

    Raises:
        WorkspaceError: a folder holds no finished run.
    """
    rows, first = [], None
    for folder in folders:
        if not (folder / "scores.json").is_file():
            raise WorkspaceError(
                f"{folder} holds no finished run: it has no scores.json; run `langadapt run` first"
            )
        scores = Scores.load(folder / "scores.json")
        documents = scores.documents[scores.documents.model == scores.models[-1]]
        first = documents if first is None else first
        for row in scores.bits_per_byte().itertuples():
            mine = (
                some[(some.language == row.language) & (some.source == row.source)]
                for some in (documents, first)
            )
            here, there = (some.set_index("id").sort_index() for some in mine)
            against = None
            if documents is not first and here.bytes.equals(there.bytes):
                against = relative_change(
                    there.bits.to_numpy(), here.bits.to_numpy(), resamples=scores.resamples
                )
            rows.append(
                [folder.name, row.language, row.source, row.before, row.after, row.change, against]
            )
    columns = ["run", "language", "source", "before", "after", "change", "against_first"]
    return pd.DataFrame(rows, columns=columns)


def _content(run: Workspace, scores: Scores, change: VocabularyChange) -> dict[str, Any]:
    language = language_name(run.recipe.language)
    manifests = {name: run.manifest(name) for name in STAGES[:-1]}
    return {
        "title": f"{language} for {run.recipe.base}",
        "language": language,
        "findings": scores.findings(),
        "figures": [(source, show(ax)) for source, ax in _figures(run, scores, change).items()],
        "bits_table": table_html(
            _named(scores.bits_per_byte()), caption="Bits per byte on held-out documents"
        ),
        "accuracy_table": table_html(_named(scores.accuracy()), caption="Evaluation items")
        if len(scores.items)
        else "",
        "more_tables": {
            name: (caption, table_html(_named(restored(scores.more[name]))))
            for name, caption in MORE.items()
            if name in scores.more
        },
        "samples": [
            sample | {"name": language_name(sample["language"])} for sample in scores.samples
        ],
        "recipe": (run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        "hardware": manifests["04_training"]["hardware"],
        "minutes": sum(manifest["seconds"] for manifest in manifests.values()) / 60,
    }


def _figures(run: Workspace, scores: Scores, change: VocabularyChange) -> dict[str, Axes]:
    """Figures by where in `scores.json` the numbers of their titles stand."""
    fertility = FertilityReport.load(run.stage("02_vocabulary") / "fertility.json")
    figures = {"/bits_per_byte": plot_changes(scores), "/domains": plot_domains(scores)}
    if len(scores.items):
        figures["/accuracy"] = plot_accuracy(scores)
    return figures | {
        "/more/training": plot_training(_steps(run), run.recipe.language),
        "/more/vocabulary": plot_vocabulary_curve(change, run.recipe.language),
        "/more/fertility": plot_fertility(fertility, "tokens_per_word"),
    }


def _steps(run: Workspace) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads(
        (run.stage("04_training") / "steps.json").read_text(encoding="utf-8")
    )
    return steps


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """A table with names for codes, and columns that hold nothing left out."""
    names = {"language": language_name, "source": source_name, "kind": kind_name}
    named = table.assign(
        **{column: table[column].map(name) for column, name in names.items() if column in table}
    )
    return named.loc[:, [column for column in named if named[column].notna().any()]]


HUB = "hub:"


def model_card(recipe: Recipe, change: VocabularyChange, scores: Scores | None = None) -> str:
    """A Hugging Face model card in Markdown, its metadata in YAML.

    Args:
        recipe: of the run.
        change: of the vocabulary.
        scores: of the adapted model; the card says that it was not measured where there are none.
    """
    language = language_name(recipe.language)
    share = f"{recipe.mixture.english_share:.0%} of them English"
    return f"""---
{_metadata(recipe, scores)}
---
# {language} adaptation of {recipe.base}

Made with langadapt: {len(change.added):,} tokens for {language} were added to the tokenizer ({change.mode}), their rows
started by the method {recipe.embeddings.method}, and the model was trained on {recipe.training.budget_tokens:,} tokens,
{share}. Method: Csaki et al., arXiv 2311.05741, and later work.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = (kind.from_pretrained("model") for kind in (AutoTokenizer, AutoModelForCausalLM))
```

## What was gained and lost

{_results(scores)}

## Text and licence

{language} from {", ".join(recipe.corpus.target)}; English from {", ".join(recipe.corpus.english)}. The licences of
the base model and of the text apply. Whatever the base model says wrongly or unfairly, this one may say too.
"""


def _metadata(recipe: Recipe, scores: Scores | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=source_name(row.source).replace(" ", "-"),
            dataset_config=row.language,
            dataset_split="held out",
            dataset_name=f"{language_name(row.language)}, {source_name(row.source)}",
            metric_type="bits_per_byte",
            metric_name="bits per byte",
            metric_value=round(row.after.value, 4),
        )
        for row in (scores.bits_per_byte().itertuples() if scores else [])
    ]
    data = ModelCardData(
        language=[recipe.language, "en"],
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["langadapt"],
        base_model=recipe.base.removeprefix(HUB).partition("@")[0]
        if recipe.base.startswith(HUB)
        else None,
        model_name=f"{language_name(recipe.language)} adaptation of {recipe.base}",
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _results(scores: Scores | None) -> str:
    if not scores:
        return "Not measured yet."
    lines = ["| text | bits per byte before | after | change |", "|---|---|---|---|"]
    for row in scores.bits_per_byte().itertuples():
        text = f"{language_name(row.language)}, {source_name(row.source)}"
        lines.append(
            f"| {text} | {with_ends(row.before)} | {with_ends(row.after)} | {percent(row.change)} |"
        )
    found = "\n".join(f"* {finding}" for finding in scores.findings())
    return (
        "\n".join(lines) + f"\n\nBrackets hold 95 % intervals over held-out documents.\n\n{found}"
    )
