"""Teach a pretrained English LLM a new language: plan a run, run it, use the adapted model.

Type `langadapt COMMAND --help` for the options of a command.
"""

import time
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal, Optional

import typer
from more_itertools import duplicates_everseen
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from .errors import LangadaptError, RecipeError
from .files import cache_folder, package_yaml, trim_cache, write_atomically
from .hardware import GPUS, device
from .recipe import PROFILES, Recipe, parse_override
from .workspace import STAGES, Workspace, anchored, default_folder, progress_note

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
PLAIN_LINE_SECONDS = 20  # between progress lines where there is no terminal

RUN, RECIPE, OPTION, RUNS, CLEAR, PROMPT = package_yaml("cli.yaml").values()
Stages = Annotated[Optional[list[str]], typer.Argument(help="Stages, such as 03. Default: all.")]
Language = Annotated[Optional[str], typer.Option(help="Code of the target language. Default: hu.")]
Profile = Annotated[Optional[str], typer.Option(help=f"{', '.join(PROFILES)}. Default: cpu.")]
Overrides = Annotated[list[str], typer.Option("--parameter", "-p", help=OPTION)]


@app.command()
def run(
    stages: Stages = None,
    language: Language = None,
    profile: Profile = None,
    run_dir: Annotated[Optional[Path], typer.Option("--run", help=RUN)] = None,
    parameter: Overrides = [],  # noqa: B006  typer copies it
    recipe: Annotated[Optional[Path], typer.Option(help=RECIPE)] = None,
) -> None:
    """Run the notebooks. Complete stages are skipped; a stopped run resumes."""
    from .runner import run_notebooks

    chosen = sorted({_stage(name) for name in stages or STAGES})  # by their numbers
    if recipe and (language or profile):
        problem = f"--recipe {recipe} has its own language and profile"
        raise RecipeError(f"{problem}: leave out --language and --profile, or leave out --recipe")
    if run_dir and not (recipe or language or profile) and (run_dir / "recipe.yaml").is_file():
        recipe = run_dir / "recipe.yaml"
    asked = _recipe(language, profile, parameter, recipe)
    folder = run_dir or default_folder(asked)
    try:
        with _Display() as display:
            report, progress = display.report, display.progress
            run = run_notebooks(asked, folder, stages=chosen, report=report, progress=progress)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command resumes from here", err=True)
        raise typer.Exit(130) from None
    if run.is_complete(STAGES[-1]):
        from .evaluation.scores import Scores

        found = Scores.load(run.folder / "scores.json").findings()
        typer.echo("\n" + "\n".join(f"  {one}" for one in found if one.verdict != "cannot tell"))
        typer.echo(f"\nmodel:  {run.folder / 'model'}\nreport: {run.folder / 'report.html'}")


@app.command("try")
def talk(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    prompt: Annotated[Optional[str], typer.Argument(help=PROMPT)] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat template.")] = False,
    tokens: Annotated[int, typer.Option(help="Maximum number of new tokens.", min=1)] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest tokens.", min=0)] = 0.7,
    top_p: Annotated[float, typer.Option(help="Probability mass to sample.", min=0, max=1)] = 0.9,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of sampling.")] = 0,
) -> None:
    """Let the base and the adapted model continue a text or answer it, one after the other."""
    from .evaluation.evaluate import run_models
    from .evaluation.generation import replies, sampled

    models = run_models(Workspace.existing(run_dir, frozen=True))
    options = sampled(temperature, top_p) | {"chat": chat, "seed": seed}
    asks = iter(partial(typer.prompt, "\nprompt (none to end)", "", show_default=False), "")
    for asked in [prompt] if prompt else asks:
        for name in ("base", "adapted"):
            typer.echo(f"\n{name}: ", nl=False)
            about = models[name].model.to(device()), models[name].tokenizer, [asked], tokens
            typer.echo(f"\n({replies(*about, show=partial(typer.echo, nl=False), **options)[0]})")


@app.command()
def plan(
    language: Language = None,
    profile: Profile = None,
    parameter: Overrides = [],  # noqa: B006  typer copies it
    gpu: Annotated[str, typer.Option(help=f"GPU of another machine: {', '.join(GPUS)}.")] = "",
    gpus: Annotated[int, typer.Option(help="Number of GPUs.", min=1)] = 1,
    write: Annotated[Path, typer.Option(help="Output file of the recipe.")] = Path("plan.yaml"),
) -> None:
    """Print the memory and time that a run needs, and write its recipe. It loads no weights."""
    from .planning import plan

    if write.is_dir():
        raise RecipeError(f"--write {write} is a folder: name a file, such as plan.yaml")
    planned = plan(_recipe(language, profile, parameter, None), gpu=gpu, gpus=gpus)
    typer.echo(f"{planned}\n")
    write_atomically(write, planned.recipe.write)
    typer.echo(f"recipe: {write}; run it with: langadapt run --recipe {quote(str(write))}")


@app.command()
def report(run_dir: Annotated[Path, typer.Option("--run", help="Run folder.")]) -> None:
    """Write report.html of a finished run again."""
    from .report.report import write_report

    typer.echo(f"report: {write_report(Workspace.existing(run_dir, frozen=True))}")


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    format: Annotated[Literal["gguf"], typer.Option(help="Format of the file.")] = "gguf",
    type: Annotated[str, typer.Option(help="Precision: f16, bf16, q8_0, q4_0.")] = "f16",
) -> None:
    """Write the adapted model for llama.cpp and Ollama, and verify it in llama.cpp."""
    from .export.export import export_gguf

    typer.echo("\n".join(export_gguf(Workspace.existing(run_dir, frozen=True), kind=type)))


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(help=RUNS)]) -> None:
    """Print a table that compares finished runs with the first one."""
    from rich.table import Table

    from .intervals import percent
    from .report.report import compare_runs, named

    table = Table("run", "language", "text", "before", "after", "change", "against the first")
    for row in named(compare_runs(runs)).itertuples():
        changes = ("" if change is None else percent(change) for change in row[6:8])
        scores = f"{row.before.value:.3f}", f"{row.after.value:.3f}"
        table.add_row(row.run, row.language, row.source, *scores, *changes)
    Console(markup=False).print(table)


@app.command()
def cache(clear: Annotated[bool, typer.Option(help=CLEAR)] = False) -> None:
    """Show the size of the cache. Deleted files are made or downloaded again when needed."""
    for kind in ("texts", "tokens", "bits") if clear else ():
        typer.echo(f"{kind}: {trim_cache(kind, 0) / 1e6:,.0f} MB deleted")
    for folder in sorted(path for path in cache_folder().glob("*") if path.is_dir()):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        typer.echo(f"{folder}: {size / 1e6:,.0f} MB")


def entry() -> None:
    """Run the command line. An error that the user can fix is one sentence and exit code 1."""
    try:
        app()
    except (LangadaptError, OSError) as error:  # such as a folder that cannot be written
        typer.echo(f"error: {error}" + ": use another place" * isinstance(error, OSError), err=True)
        raise SystemExit(1) from None


def _recipe(code: str | None, kind: str | None, given: list[str], file: Path | None) -> Recipe:
    recipe = Recipe.read(file) if file else Recipe.profile(kind or "cpu", language=code or "hu")
    options = [parse_override(text) for text in given]
    for name in duplicates_everseen(name for name, _ in options):
        raise RecipeError(f"option {name} is given twice: give it once, a list with commas")
    return anchored(recipe.with_options(dict(options)), Path.cwd())


def _stage(name: str) -> str:
    for stage in STAGES:
        if name.zfill(2) in (stage, *stage.split("_")):
            return stage
    raise RecipeError(f"stage '{name}' is unknown: use one of {', '.join(STAGES)}")


class _Display(Progress):
    """A progress bar for the running stage; plain lines if there is no terminal."""

    def __init__(self) -> None:
        console, note = Console(), "{task.fields[note]}"
        columns = ("{task.description:<32}", BarColumn(), note, TimeElapsedColumn())
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._steps = self.add_task("", total=None, note="", visible=False)
        self._printed = time.monotonic()

    def report(self, line: str) -> None:
        name, _, rest = line.partition(": ")
        if name in STAGES:
            begins = rest.endswith(".ipynb")
            self.reset(self._steps, total=None, description=name, note="", visible=begins)
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def progress(self, record: dict[str, Any]) -> None:
        note = progress_note(record)
        self.update(self._steps, total=record.get("steps"), completed=record.get("step"), note=note)
        if not self.console.is_terminal and time.monotonic() - self._printed > PLAIN_LINE_SECONDS:
            self._printed = time.monotonic()
            self.console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
