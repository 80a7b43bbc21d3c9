"""Workspace: the run folder. Stages read and write it atomically and can be resumed."""

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from . import hardware
from .errors import RecipeError, WorkspaceError
from .files import package_yaml, project_folder, read_json, write_atomically, write_json
from .recipe import BUILT_IN, FREE_OPTIONS, Recipe
from .sources import absolute, base_fingerprint, fingerprint, require_built_in

NOTEBOOKS: dict[str, str] = package_yaml("notebooks.yaml")  # by stage
STAGES = tuple(NOTEBOOKS)
PUBLISHED = "publish"  # files that a stage writes here move to the top of the run folder
MANIFEST, MARK = "manifest.json", "key"  # of a complete stage; of a stage in progress
REPORT, CARD = "report.html", "model/README.md"


class Workspace:
    """A run folder and its recipe.

    A stage writes into a temporary folder, which is renamed once everything is written. The
    manifest contains a hash of the inputs (`key`). So a stage runs again after a change of recipe,
    text or version.

    Args:
        folder: created if missing.
        recipe: of the run.
        frozen: whether only results are read. Finished stages then count as complete also if text,
            base or version are others by now.

    Raises:
        WorkspaceError: the folder has a run with another recipe, or other files.
        CorpusError: the language has no built-in text, or a text file does not exist.
    """

    def __init__(self, folder: Path | str, recipe: Recipe, *, frozen: bool = False) -> None:
        self.folder, self.recipe, self.frozen = Path(folder), recipe, frozen
        self._opened = time.time()
        if frozen:
            return
        if BUILT_IN in recipe.corpus.target:
            require_built_in(recipe.language)
        # Raises an error for a missing text before anything is written.
        self._inputs = self._versions()
        if (path := self.folder / "recipe.yaml").exists():
            before = Recipe.read(path)
            # If no stage has begun, as after a failed download, nothing is lost.
            begun = any(path for name in STAGES for path in self.folder.glob(f"*{name}*"))
            for name, (there, asked) in before.differences(recipe).items() if begun else ():
                if name.removeprefix("training.") not in FREE_OPTIONS:
                    differ = f"{name} is {there!r} there, not {asked!r}"
                    problem = f"{self.folder} has a run with another recipe ({differ})"
                    raise WorkspaceError(f"{problem}: choose another with --run, or delete it")
            if before == recipe:
                return
        elif self.folder.exists() and any(self.folder.glob("[!.]*")):
            problem = f"{self.folder} is not empty and has no recipe.yaml"
            raise WorkspaceError(f"{problem}: choose another with --run")
        write_atomically(path, recipe.write)

    @classmethod
    def existing(cls, folder: Path, *, frozen: bool = False) -> Self:
        """Open a run folder with its own recipe.

        Raises:
            RecipeError: the folder has no recipe.
        """
        if not (folder / "recipe.yaml").is_file():
            raise RecipeError(f"{folder} is not a run folder (no recipe.yaml): name another")
        return cls(folder, Recipe.read(folder / "recipe.yaml"), frozen=frozen)

    def _repr_markdown_(self) -> str:
        known, recipe = hardware.describe(), self.recipe
        about = f"{recipe.language}, profile {recipe.profile_name}, base {recipe.base}"
        machine = f"{known['device']}, {known['cores']} cores, {known['precision']}"
        rows = {"run folder": self.folder, "recipe": about, "machine": machine}
        rows |= {"complete": ", ".join(filter(self.is_complete, STAGES)) or "nothing yet"}
        return "\n".join(f"* {name}: `{value}`" for name, value in rows.items())

    def stage(self, name: str) -> Path:
        """Return the folder of a finished stage.

        Raises:
            WorkspaceError: the stage is not complete for this recipe and text.
        """
        if not self.is_complete(name):
            manifest = self.folder / name / MANIFEST
            reason = "is of other inputs or lacks files" if manifest.exists() else "does not exist"
            problem = f"stage {name} of run {self.folder} is needed first: {manifest} {reason}"
            command = f"`langadapt run --run {shlex.quote(str(self.folder))}`, or set build_missing"
            raise WorkspaceError(f"{problem}; run notebook {NOTEBOOKS[name]}, or {command}")
        return self.folder / name

    def is_complete(self, name: str) -> bool:
        """Return whether a stage is finished for this recipe and text, with all its files."""
        try:
            manifest = read_json(self.folder / name / MANIFEST)
            files = manifest["files"] | manifest["published"]
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            return False
        # The report and the card can be written again.
        sizes = {self.folder / path: files[path] for path in files if path not in (REPORT, CARD)}
        whole = all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
        return whole and (self.frozen or manifest["key"] == self.key(name))

    def manifest(self, name: str) -> dict[str, Any]:
        """Return the manifest of a finished stage: time, hardware, files."""
        return dict(read_json(self.stage(name) / MANIFEST))

    def key(self, name: str, inputs: str = "") -> str:
        """Return a hash of everything that the result of a stage depends on.

        Args:
            name: of the stage.
            inputs: versions of text and base; by default as they are now.
        """
        from . import __version__

        parts = [name, __version__, self.recipe.digest, inputs or self._versions()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _versions(self) -> str:
        return "\n".join([fingerprint(self.recipe.corpus), base_fingerprint(self.recipe.base)])

    def partial(self, name: str) -> Path:
        """Return the folder that a stage writes until it is complete."""
        return self.folder / f".{name}.partial"

    def begun(self, name: str) -> Path:
        """Return the folder of a stage in progress.

        Files of an interrupted stage with the same inputs are kept, so that it can resume. Older
        files are deleted.
        """
        partial, key = self.partial(name), self.key(name, self._inputs)
        mark = partial / MARK
        if not (mark.exists() and mark.read_text() == key):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            mark.write_text(key)
        return partial

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a folder for the results of a stage; it becomes final if the block succeeds."""
        # Text and base may change on disk meanwhile; the result is that of the old ones.
        partial, key = self.begun(name), self.key(name, self._inputs)
        published = partial / PUBLISHED
        yield partial
        sizes = _sizes(published, Path())  # none where the folder does not exist
        for source in sorted(published.glob("*")):
            _replace(source, self.folder / source.name)
        shutil.rmtree(published, ignore_errors=True)
        (partial / MARK).unlink()
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        # The seconds count from when the notebook began.
        about = {"stage": name, "key": key, "seconds": round(time.time() - self._opened, 1)}
        about |= {"finished": finished, "hardware": hardware.describe()}
        files = {"files": _sizes(partial, Path(name)), "published": sizes}
        write_json(partial / MANIFEST, about | files)
        _replace(partial, self.folder / name)

    def log(self, stage: str, record: Any) -> str:
        """Append a record of a stage (a dict or a phrase) to `log.jsonl`; return it as a phrase."""
        record = record if isinstance(record, dict) else {"doing": record}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "stage": stage, **record}) + "\n")
        return progress_note(record)

    def reporter(self, stage: str) -> Callable[[Any], None]:
        """Return a function that logs records of a stage and displays the newest one."""
        from IPython.display import display

        handle = display({"text/plain": ""}, raw=True, display_id=True)
        return lambda record: handle.update({"text/plain": self.log(stage, record)}, raw=True)


def progress_note(record: Mapping[str, Any]) -> str:
    """Return a progress record as a phrase, with a bar if the number of steps is known."""
    if "steps" not in record:
        return str(record["doing"])
    done = round(20 * record["step"] / record["steps"])
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    bits = ", ".join(f"{name} {value:.2f}" for name, value in record["bits_per_byte"].items())
    bar = f"{'█' * done}{'░' * (20 - done)} step {record['step']} of {record['steps']}"
    speed = f"{record['tokens_per_second']:,.0f} tokens/s, {minutes}:{seconds:02d} left"
    return f"{bar}, {speed}; bits per byte: {bits}"


def anchored(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with absolute paths, which do not depend on the working directory."""
    paths: dict[str, Any] = {"base": absolute(recipe.base, root)}
    for option in ("target", "english", "chat"):
        paths[f"corpus.{option}"] = [absolute(s, root) for s in getattr(recipe.corpus, option)]
    others = (named.partition(":") for named in recipe.corpus.others)
    named = [f"{code}:{absolute(s, root)}" if colon else code for code, colon, s in others]
    return recipe.with_options(paths | {"corpus.others": named})


def default_folder(recipe: Recipe) -> Path:
    """Return `runs/NAME` in the checkout, or in the current folder without a checkout."""
    checkout = project_folder()
    root = checkout if (checkout / "pyproject.toml").exists() else Path.cwd()
    return root / "runs" / recipe.name


def _sizes(folder: Path, below: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(below / path.relative_to(folder)): path.stat().st_size for path in sorted(files)}


def _replace(source: Path, target: Path) -> None:
    """Replace a file or folder; the old one is deleted after the new one is in place."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.is_dir():
        target.replace(old)
    source.replace(target)
    shutil.rmtree(old, ignore_errors=True)
