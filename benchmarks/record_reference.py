"""Record a finished run as a reference result: its numbers, its figure, the table in the README.

    python benchmarks/record_reference.py runs/hu-cpu runs/th-cpu runs/ko-flores

Writes `data/reference/FOLDER.json` (recipe, hardware, commit, seconds, scores) and `FOLDER.svg` for
each run, and the part of `README.md` between the marks `<!-- results -->`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import langadapt_utils as la
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.fertility import FertilityReport
from langadapt_utils.intervals import Interval, percent, plain
from langadapt_utils.languages import language_name
from langadapt_utils.workspace import STAGES, Workspace

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "data" / "reference"
MARK = "<!-- results -->"
SMALL_TEXTS = """\
The same recipe on a small text: 797 sentences of FLORES-200 dev, 110 to 260 kB per language,
evaluated on 40 of the remaining 200 sentences."""


def commit() -> str:
    """The commit of the code at hand, marked `-dirty` where tracked files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def record(folder: Path, commit: str) -> None:
    """Write the JSON and the figure of one run."""
    run = Workspace.existing(folder)
    scores = Scores.load(folder / "scores.json")
    fertility = FertilityReport.load(run.stage("02_vocabulary") / "fertility.json")
    manifests = {name: run.manifest(name) for name in STAGES}
    stored = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    content = {
        "name": folder.name,
        "commit": commit,
        "recipe": run.recipe.model_dump(),
        "hardware": manifests["04_training"]["hardware"],
        "seconds": {name: manifest["seconds"] for name, manifest in manifests.items()},
        "fertility": plain(fertility.table),
        "findings": [str(finding) for finding in scores.findings()],
        **{key: stored[key] for key in ("bits_per_byte", "accuracy", "backward_transfer")},
    }
    REFERENCE.mkdir(exist_ok=True)
    path = REFERENCE / f"{folder.name}.json"
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    for source in (*run.recipe.corpus.target, *run.recipe.corpus.english):
        text = text.replace(f"{Path(source).parent}/", "") if Path(source).is_absolute() else text
    path.write_text(text, encoding="utf-8")
    figure = la.plot_changes(scores).figure
    figure.savefig(
        path.with_suffix(".svg"), bbox_inches="tight", facecolor="white", metadata={"Date": None}
    )


def _recorded(kind: str) -> list[dict[str, Any]]:
    paths = sorted(REFERENCE.glob(f"*-{kind}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _small_texts() -> str:
    """What the README says of runs on the text of FLORES, in Markdown."""
    lines = ["| | tokens per word | bits per byte, the language | English Wikipedia |"]
    lines.append("|---|---|---|---|")
    for one in _recorded("flores"):
        language = one["recipe"]["language"]
        (source,) = {r["source"] for r in one["bits_per_byte"] if r["language"] == language}
        cells = _words(one), _change(one, language, source), _change(one, "en", "wikipedia")
        lines.append(f"| {language_name(language)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readme_section() -> str:
    """What the README says of the recorded results, in Markdown."""
    recorded = _recorded("cpu")
    lines = [
        "| | " + " | ".join(language_name(one["recipe"]["language"]) for one in recorded) + " |"
    ]
    lines.append("|---|" + "---|" * len(recorded))
    for title, cell in ROWS.items():
        lines.append(f"| {title} | " + " | ".join(cell(one) for one in recorded) + " |")
    hardware = recorded[0]["hardware"]
    figures = [f"![{one['findings'][0]}](data/reference/{one['name']}.svg)" for one in recorded[:1]]
    machine = (
        f"Measured on {hardware['cores']} cores of {hardware['device']}, {hardware['precision']}; "
    )
    return "\n\n".join(
        [
            *figures,
            "\n".join(lines),
            machine + "brackets hold 95 % intervals over held-out documents.",
            SMALL_TEXTS,
            _small_texts(),
        ]
    )


def _change(one: dict[str, Any], language: str, source: str, column: str = "change") -> str:
    row = next(
        r for r in one["bits_per_byte"] if (r["language"], r["source"]) == (language, source)
    )
    return percent(Interval(**row[column]))


def _words(one: dict[str, Any]) -> str:
    rows = [r for r in one["fertility"] if r["language"] == one["recipe"]["language"]]
    return " → ".join(f"{row['tokens_per_word']:.2f}" for row in rows)


def _minutes(one: dict[str, Any]) -> str:
    longer = (
        one["recipe"]["mixture"]["sweep_tokens"] > la.Recipe.profile("cpu").mixture.sweep_tokens
    )
    note = " (with the longer comparisons of an earlier version)" if longer else ""
    return f"{sum(one['seconds'].values()) / 60:.0f}{note}"


ROWS = {
    "tokens per word": _words,
    "bits per byte, the language": lambda one: _change(one, one["recipe"]["language"], "builtin"),
    "bits per byte, English Wikipedia": lambda one: _change(one, "en", "wikipedia"),
    "bits per byte, English project documents": lambda one: _change(one, "en", "builtin"),
    "English Wikipedia, against training on English alone": lambda one: _change(
        one, "en", "wikipedia", "against_control"
    ),
    "minutes": _minutes,
}


def main() -> None:
    """Record the runs that are named, and bring the README up to date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    code = commit()
    for folder in parser.parse_args().runs:
        record(folder, code)
    before, _, after = (ROOT / "README.md").read_text(encoding="utf-8").split(MARK)
    text = f"{before}{MARK}\n\n{readme_section()}\n\n{MARK}{after}"
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
