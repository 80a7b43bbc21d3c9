"""Folders of the project and of its cache, free space, reading JSON, writing files whole."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from filelock import FileLock

from .errors import LangadaptError

CACHED = 50 * 10**9  # bytes of texts, and of their tokens, that the cache keeps


def cache_folder() -> Path:
    """Return where fetched files are kept: `LANGADAPT_CACHE`, else the platform's cache folder."""
    chosen = os.environ.get("LANGADAPT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("langadapt"))


def made_once(path: Path, make: Callable[[Path], Path]) -> Path:
    """Return a file or folder of the cache, which the first process that asks for it makes.

    The other processes wait. Nothing is left of what was interrupted.

    Args:
        path: the name that it takes when it is whole.
        make: makes it in a scratch folder, and returns its place there.
    """
    if path.exists():
        return path
    with FileLock(f"{path}.lock"):  # which makes the folder
        prefix = f".making-{path.name}-"
        for stale in path.parent.glob(f"{prefix}*"):  # what a killed process left behind
            shutil.rmtree(stale, ignore_errors=True)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as scratch:
                make(Path(scratch)).replace(path)
    return path


def trim_cache(kind: str, most: int = CACHED) -> int:
    """Delete the files of a kind that were written longest ago, until the others take `most` bytes.

    What is open, such as the tokens of a running training, stays readable. Returns the bytes freed.
    """
    files = [(path.stat(), path) for path in (cache_folder() / kind).glob("*") if path.is_file()]
    total, freed = sum(status.st_size for status, _ in files), 0
    for status, path in sorted(files, key=lambda entry: entry[0].st_mtime):
        if total - freed > most:
            path.unlink(missing_ok=True)
            freed += status.st_size
    return freed


def free_bytes(path: Path) -> int:
    """Return the free disk space where a path is or will be, in bytes."""
    existing = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    return shutil.disk_usage(existing).free


def require_space(path: Path, needed: float, what: str, remedy: str) -> None:
    """Raise an error where the disk of a path has less room than a number of bytes."""
    if (free := free_bytes(path)) < needed:
        problem = f"{path} needs {needed / 1e9:.1f} GB of disk {what}, {free / 1e9:.1f} GB are free"
        raise LangadaptError(f"{problem}: free some space, or {remedy}")


def project_folder() -> Path:
    """Return the folder of `data/` and `notebooks/`: the checkout, or the installed package."""
    package = Path(__file__).resolve().parent
    return package if (package / "data").is_dir() else package.parent


def data_folder() -> Path:
    """Return the folder of the built-in corpus."""
    return project_folder() / "data"


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def package_yaml(name: str) -> Any:
    """Read a YAML file of the package, named by its path in it."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def write_json(path: Path, content: Any, *, allow_nan: bool = True) -> None:
    """Write a JSON file that is indented by two spaces."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan)
    path.write_text(f"{text}\n", encoding="utf-8")


def read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the rows of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


class Spooled:
    """Texts that can be read only once, kept in a temporary file to be read again."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  closed with it
        self._file.writelines(f"{json.dumps(text)}\n" for text in texts)

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return map(json.loads, self._file)


def write_atomically(path: Path, write: Any) -> None:
    """Let `write` write a file beside `path`, then rename it, so that `path` is always whole.

    Its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    write(beside)
    beside.replace(path)
