"""Run the notebooks in order with papermill. A run reports progress, stops at the first error, and
can be resumed.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import hardware
from .errors import RecipeError, StageFailed, WorkspaceError
from .files import cache_folder, project_folder, require_space
from .models import fetch_model, parameters_by_type
from .planning import Shape, stage_seconds
from .recipe import Recipe, wrong_value
from .workspace import NOTEBOOKS, STAGES, Workspace, anchored, default_folder

# The parameters of each notebook, with their types.
PARAMETERS = dict(profile=str, language=str, run_dir=str, overrides=dict, build_missing=bool)
WIDGET = "application/vnd.jupyter.widget-view+json"  # the type of a control among outputs
Report = Callable[[str], None]
Progress = Callable[[dict[str, Any]], None]


def open_run(stage: str, namespace: Mapping[str, Any]) -> Workspace:
    """Open the run that the `parameters` cell of a notebook describes.

    Args:
        stage: of the notebook, such as `02_vocabulary`.
        namespace: the notebook's `globals()`, from which the parameters are read.

    Raises:
        RecipeError: a parameter is unknown or has the wrong type, or training needs a package that
            is not installed.
        WorkspaceError: the stage before is missing and `build_missing` is False.
    """
    cells = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters")]
    injected = {name for cell in cells for name in re.findall(r"^(\w+) =", cell, re.MULTILINE)}
    for name in injected - PARAMETERS.keys():  # papermill does not check them itself
        raise RecipeError(f"parameter '{name}' is unknown: use one of {', '.join(PARAMETERS)}")
    for name, kind in PARAMETERS.items():
        if not isinstance(namespace[name], kind):
            raise wrong_value(f"parameter {name}", namespace[name], f"be a {kind.__name__}")
    profile, language, folder, overrides, build_missing = map(namespace.get, PARAMETERS)
    recipe = Recipe.profile(str(profile), language=str(language), overrides=overrides)
    recipe = anchored(recipe, project_folder())
    if stage != STAGES[-1]:
        _require_packages(recipe)
    place = project_folder() / str(folder) if folder else default_folder(recipe)
    before = STAGES[: STAGES.index(stage)]
    if build_missing and not all(map(Workspace(place, recipe).is_complete, before)):
        run_notebooks(recipe, place, stages=before)
    run = Workspace(place, recipe)  # opened here, so that its time starts now
    if before:
        run.stage(before[-1])
    return run


def _require_packages(recipe: Recipe) -> None:
    if recipe.training.lora_rank and not find_spec("peft"):
        raise RecipeError("training.lora_rank needs peft: run pip install 'langadapt[lora]'")
    if trackers := recipe.training.report_to:
        from transformers.integrations import get_available_reporting_integrations as listed

        # The four names are known to `transformers`, but not listed.
        if missing := set(trackers) - {"all", "none", "azure_ml", "flyte", *listed()}:
            problem = f"training.report_to names {min(missing)}, which `transformers` does not find"
            raise RecipeError(f"{problem}: install its package, or remove it from the list")


def run_notebooks(
    recipe: Recipe,
    folder: Path,
    *,
    stages: Sequence[str] = STAGES,
    report: Report = print,
    progress: Progress = lambda record: None,
) -> Workspace:
    """Run the notebooks of all stages that are not complete.

    Args:
        recipe: of the run.
        folder: of the run; created if missing.
        stages: names in `STAGES`, in order.
        report: called with a line when a stage begins, ends or is skipped.
        progress: called with each record that a running notebook writes to `log.jsonl`.

    Raises:
        StageFailed: a notebook stopped. Finished work stays, and the next call resumes.
        LangadaptError: the recipe, folder, corpus, model or disk cannot be used.
    """
    run = Workspace(folder, recipe)
    try:
        with FileLock(lock_path(run.folder), timeout=0):
            _run_missing(run, stages, report, progress)
    except Timeout as error:
        remedy = "wait until it ends, or choose another folder with --run"
        raise WorkspaceError(f"another process uses {run.folder}: {remedy}") from error
    return run


def _run_missing(run: Workspace, stages: Sequence[str], report: Report, progress: Progress) -> None:
    if missing := [name for name in stages if not run.is_complete(name)]:
        # Fills matplotlib's cache of fonts, so that no notebook reports on stderr that it does.
        import matplotlib.font_manager  # noqa: F401

        report(f"base model: {run.recipe.base}")  # the first download takes a moment
        saved = fetch_model(run.recipe.base, run.recipe.accept_terms)
        # Three models (before and after training, control) and a checkpoint of weights and moments.
        needed = 24 * parameters_by_type(saved).total() if "04_training" in missing else 0
        require_space(run.folder, needed, "for a run", "choose another with --run")
        report(expected_time(run.recipe, missing))
    for name in stages:
        if name in missing:
            report(f"{name}: {NOTEBOOKS[name]}")
            report(f"{name}: done in {_execute(run, name, progress):.0f} s")
        else:
            report(f"{name}: complete already")


def lock_path(folder: Path) -> Path:
    """Return the file that a running process locks. It is in the cache, not among the results."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "locks" / name


def expected_time(recipe: Recipe, stages: Sequence[str]) -> str:
    """Return the expected time of stages on this machine, as a phrase.

    Args:
        recipe: of the run.
        stages: names in `STAGES`.

    Raises:
        LangadaptError: the base cannot be loaded, or the device is missing.
    """
    machine = hardware.this_machine(hardware.native_precision(recipe.training.precision))
    seconds = stage_seconds(Shape.of(recipe.base, recipe.accept_terms), recipe, machine)
    minutes = max(1, round(sum(map(seconds.__getitem__, stages)) / 60))
    return f"about {minutes} minute{'s' * (minutes > 1)} on {machine.name}"


def _execute(run: Workspace, name: str, progress: Progress) -> float:
    """Execute one notebook and keep the executed copy, as `….failed.ipynb` after an error."""
    import nbformat.sign
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    notebook = project_folder() / "notebooks" / NOTEBOOKS[name]
    executed = run.folder / "notebooks" / notebook.name
    executed.parent.mkdir(exist_ok=True)
    beside = executed.with_name(f".{notebook.stem}.partial.ipynb")
    failed = executed.with_suffix(".failed.ipynb")
    options = {"kernel_name": "python3", "progress_bar": False, "start_timeout": 120}
    options |= {"cwd": notebook.parent, "extra_arguments": ["--log-level=CRITICAL"]}  # no notices
    # Without a kernel, the state of controls would only hide their static copies.
    options["store_widget_state"] = False
    began, over = time.monotonic(), threading.Event()
    log = run.folder / "log.jsonl"
    start = log.stat().st_size if log.exists() else 0
    follower = threading.Thread(target=_follow, args=(log, start, progress, over), daemon=True)
    follower.start()
    try:
        # Papermill fills in names between single braces.
        paths = (str(p).replace("{", "{{").replace("}", "}}") for p in (notebook, beside))
        done = papermill.execute_notebook(*paths, _parameters(run), **options)
    except DeadKernelError as error:
        problem = f"the kernel of {notebook.name} died, probably for lack of memory"
        raise StageFailed(f"{problem}: lower training.micro_batch_tokens") from error
    except PapermillExecutionError as error:
        beside.replace(failed)
        where = f"{notebook.name} stopped in cell {error.exec_count} (see {failed})"
        raise StageFailed(f"{where}: {error.ename}: {error.evalue}") from error
    finally:
        over.set()
        follower.join()
    for cell in done.cells:
        if "outputs" in cell:  # a control without a kernel is an error; its static copy stays
            cell.outputs = [one for one in cell.outputs if WIDGET not in one.get("data", ())]
    nbformat.write(done, beside)
    beside.replace(executed)
    nbformat.sign.NotebookNotary().sign(done)  # else JupyterLab hides diagrams and styles
    failed.unlink(missing_ok=True)
    return time.monotonic() - began


def _parameters(run: Workspace) -> dict[str, Any]:
    """Return the parameters of the notebooks for a run."""
    recipe = run.recipe
    profile = Recipe.profile(recipe.profile_name, language=recipe.language)
    overrides = {name: value for name, (value, _) in recipe.differences(profile).items()}
    of_recipe = {"profile": recipe.profile_name, "language": recipe.language}
    return of_recipe | {"run_dir": str(run.folder.absolute()), "overrides": overrides}


def _follow(path: Path, position: int, progress: Progress, over: threading.Event) -> None:
    """Read the complete new lines of a growing file, twice per second."""
    last = False
    while not last:
        last = over.wait(0.5)
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                for line in file:
                    if line.endswith(b"\n"):  # the last may be half written
                        position += len(line)
                        progress(json.loads(line))
