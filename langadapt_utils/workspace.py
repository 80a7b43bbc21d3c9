"""Workspace: the run folder, where each stage reads and writes; atomic, checked, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from . import hardware
from .errors import CorpusError, WorkspaceError
from .files import data_folder, free_bytes, project_folder, write_atomically
from .recipe import BUILT_IN, Recipe
from .sources import absolute, base_fingerprint, built_in_languages, fingerprint

NOTEBOOKS = {
    "01_fertility": "01_tokenizer_fertility.ipynb",
    "02_vocabulary": "02_vocabulary_extension.ipynb",
    "03_embeddings": "03_embedding_initialisation.ipynb",
    "04_training": "04_mixture_training.ipynb",
    "05_evaluation": "05_forgetting_evaluation.ipynb",
}
STAGES = tuple(NOTEBOOKS)
PUBLISHED = "publish"  # what a stage writes below this name moves to the top of the run folder
MANIFEST = "manifest.json"
REPORT, CARD = "report.html", "model/README.md"


class Workspace:
    """A run folder and its recipe.

    A stage writes into a folder beside its own, which takes its name only when everything is
    written. Its manifest names the inputs (`key`), so that a stage is done again when recipe, text
    or version changed.

    Args:
        folder: created when missing.
        recipe: of the run.
        stage: that a notebook opens it for; how long that took in a recorded run is shown.

    Raises:
        WorkspaceError: the folder holds a run of another recipe, or other files.
        CorpusError: the language has no built-in text, or a named text does not exist.
    """

    def __init__(self, folder: Path | str, recipe: Recipe, *, stage: str = "") -> None:
        self.folder, self.recipe, self._stage = Path(folder), recipe, stage
        self._opened = time.time()
        if recipe.language not in built_in_languages() and BUILT_IN in recipe.corpus.target:
            raise CorpusError(
                f"language '{recipe.language}' has no built-in text, only {', '.join(built_in_languages())} have: "
                "name your own with -p corpus.target=my_text.jsonl"
            )
        fingerprint(recipe.corpus)  # a text that does not exist is said before anything is written
        path = self.folder / "recipe.yaml"
        if path.exists():
            before = Recipe.read(path)
            if different := before.conflicts(recipe):
                name, (there, asked) = next(iter(different.items()))
                raise WorkspaceError(
                    f"{self.folder} holds a run of another recipe ({name} is {there!r} there, {asked!r} was asked): "
                    "choose another folder with --run, or delete this one"
                )
            if before != recipe:  # it goes on with other options of speed
                write_atomically(path, lambda beside: recipe.write(beside))
        elif self.folder.exists() and any(
            not path.name.startswith(".") for path in self.folder.iterdir()
        ):
            raise WorkspaceError(
                f"{self.folder} is not empty and holds no recipe.yaml: choose another folder with --run"
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda beside: recipe.write(beside))

    def _repr_html_(self) -> str:
        machine = hardware.describe()
        rows = {
            "run folder": self.folder,
            "recipe": f"{self.recipe.language}, profile {self.recipe.profile_name}, base {self.recipe.base}",
            "machine": f"{machine['device']}, {machine['cores']} cores, {machine['precision']}",
            "this notebook": recorded_time(self._stage, self.recipe.language),
            "complete": ", ".join(name for name in STAGES if self.is_complete(name))
            or "nothing yet",
        }
        left = 'style="text-align:left"'
        cells = "".join(
            f"<tr><th {left}>{name}</th><td {left}>{escape(str(value))}</td></tr>"
            for name, value in rows.items()
            if value
        )
        return f"<table>{cells}</table>"

    def stage(self, name: str) -> Path:
        """The folder of a finished stage.

        Raises:
            WorkspaceError: the stage has not been done with this recipe and text.
        """
        if not self.is_complete(name):
            manifest = self.folder / name / MANIFEST
            reason = "was made from other inputs" if manifest.exists() else "does not exist"
            raise WorkspaceError(
                f"stage {name} of run {self.folder} is needed first: {manifest} {reason}; run notebook "
                f"{NOTEBOOKS[name]}, or `langadapt run {name[:2]} --run {self.folder}`, or set build_missing"
            )
        return self.folder / name

    def is_complete(self, name: str) -> bool:
        """Whether a stage was finished with this recipe and text, and its files are still whole."""
        try:
            manifest = json.loads((self.folder / name / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        files = {**manifest["files"], **manifest["published"]}
        whole = all(
            (self.folder / path).is_file() and (self.folder / path).stat().st_size == size
            for path, size in files.items()
            if path not in (REPORT, CARD)  # which can be written again
        )
        return whole and manifest["key"] == self.key(name)

    def manifest(self, name: str) -> dict[str, Any]:
        """What a finished stage recorded about itself."""
        content: dict[str, Any] = json.loads(
            (self.stage(name) / MANIFEST).read_text(encoding="utf-8")
        )
        return content

    def key(self, name: str) -> str:
        """A hash of all that a stage's result depends on."""
        from . import __version__

        recipe = self.recipe
        inputs = [
            name,
            __version__,
            recipe.digest,
            fingerprint(recipe.corpus),
            base_fingerprint(recipe.base),
        ]
        return hashlib.sha256("\n".join(inputs).encode()).hexdigest()

    def partial(self, name: str) -> Path:
        """Where a stage writes until it is complete."""
        return self.folder / f".{name}.partial"

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A folder to write a stage's results into; it becomes the stage's folder when the block
        ends well.

        What an interrupted stage left is handed out again when its inputs are the same, so that it
        can go on from there; anything older is removed.
        """
        partial, key = self.partial(name), self.key(name)
        mark = partial / "key"
        if not (mark.exists() and mark.read_text() == key):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            mark.write_text(key)
        yield partial
        published = partial / PUBLISHED
        moved = sorted(published.iterdir()) if published.exists() else []
        sizes = _sizes(published, Path()) if moved else {}
        for source in moved:
            _replace(source, self.folder / source.name)
        if published.exists():
            published.rmdir()
        mark.unlink()
        manifest = {
            "stage": name,
            "key": key,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self._opened, 1),  # since the notebook began
            "hardware": hardware.describe(),
            "files": _sizes(partial, Path(name)),
            "published": sizes,
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _replace(partial, self.folder / name)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to `log.jsonl`."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")

    def reporter(self, stage: str) -> Callable[[Any], None]:
        """A function that logs the records of a stage and shows the newest one as a line that keeps
        its place.
        """
        from IPython.display import display

        handle = display({"text/plain": ""}, raw=True, display_id=True)

        def report(record: Any) -> None:
            record = record if isinstance(record, dict) else {"doing": record}
            self.log({"stage": stage, **record})
            handle.update({"text/plain": progress_note(record)}, raw=True)

        return report

    def require_space(self, needed_bytes: int) -> None:
        """Raise a `WorkspaceError` when the disk has less room than a stage will need."""
        free = free_bytes(self.folder)
        if free < needed_bytes:
            raise WorkspaceError(
                f"{self.folder} needs {needed_bytes / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free: "
                "free some, or choose another disk with --run"
            )


def recorded_time(stage: str, language: str) -> str:
    """How long a stage took in the recorded run of a language, or of another where that one has
    none, in words.
    """
    found = {
        path.stem.removesuffix("-cpu"): path
        for path in (data_folder() / "reference").glob("*-cpu.json")
    }
    if not stage or not found:
        return ""
    content = json.loads(
        found.get(language, next(iter(found.values()))).read_text(encoding="utf-8")
    )
    machine, seconds = content["hardware"], content["seconds"][stage]
    took = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
    return f"took {took} on {machine['cores']} cores of {machine['device']} ({content['name']}, recorded)"


def progress_note(record: Mapping[str, Any]) -> str:
    """A progress record in words, with a bar where the number of steps is known."""
    if "steps" not in record:
        return str(record["doing"])
    done = round(20 * record["step"] / record["steps"])
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    bits = ", ".join(f"{name} {value:.2f}" for name, value in record["bits_per_byte"].items())
    return (
        f"{'█' * done}{'░' * (20 - done)} step {record['step']} of {record['steps']}, "
        f"{record['tokens_per_second']:,.0f} tokens/s, {minutes}:{seconds:02d} left; bits per byte: {bits}"
    )


def anchored(recipe: Recipe, root: Path) -> Recipe:
    """The recipe with its local paths made absolute, so that it means the same from any working
    directory.
    """
    corpus = recipe.corpus.model_copy(
        update={
            name: [absolute(s, root) for s in getattr(recipe.corpus, name)]
            for name in ("target", "english")
        }
        | {"others": [_anchored_other(named, root) for named in recipe.corpus.others]}
    )
    folder = recipe.evaluation.task_folder
    evaluation = recipe.evaluation.model_copy(
        update={"task_folder": folder and absolute(folder, root)}
    )
    anchored_parts = {"corpus": corpus, "evaluation": evaluation}
    return recipe.model_copy(update={"base": absolute(recipe.base, root), **anchored_parts})


def _anchored_other(named: str, root: Path) -> str:
    """CODE:SOURCE with its path made absolute."""
    code, colon, source = named.partition(":")
    return f"{code}:{absolute(source, root)}" if colon else named


def default_folder(recipe: Recipe) -> Path:
    """`runs/NAME` in the checkout, or below the current folder where langadapt is installed without
    one.
    """
    checkout = project_folder()
    return (
        (checkout if (checkout / "pyproject.toml").exists() else Path.cwd()) / "runs" / recipe.name
    )


def _sizes(folder: Path, below: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(below / path.relative_to(folder)): path.stat().st_size for path in sorted(files)}


def _replace(source: Path, target: Path) -> None:
    """Put a file or folder in the place of another, which is gone only once the new one is
    there.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.is_dir():
        target.replace(old)
    source.replace(target)
    shutil.rmtree(old, ignore_errors=True)
