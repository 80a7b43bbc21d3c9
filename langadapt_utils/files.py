"""Folders of the project and its cache, disk space, JSON and YAML, atomic writing."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from filelock import FileLock

from .errors import LangadaptError

CACHED = 50 * 10**9  # bytes of texts, and of their tokens, that the cache keeps


def cache_folder() -> Path:
    """Return the folder of downloaded files: `LANGADAPT_CACHE`, or the platform's cache folder."""
    chosen = os.environ.get("LANGADAPT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("langadapt"))


def made_once(path: Path, make: Callable[[Path], Path]) -> Path:
    """Return a file or folder of the cache; the first process that needs it makes it.

    Other processes wait. An interrupted attempt leaves nothing.

    Args:
        path: name of the complete file or folder.
        make: makes it in a scratch folder and returns its path there.
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
    """Delete the oldest files of a kind until the rest takes at most `most` bytes.

    Open files, such as the tokens of a running training, stay readable. Returns the bytes freed.
    """
    names = (cache_folder() / kind).glob("*[!k]")  # without locks
    files = [(path.stat(), path) for path in names if path.is_file()]
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
    """Raise a `LangadaptError` if the disk of a path has less free space than `needed` bytes."""
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
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))


def write_json(path: Path, content: Any, *, allow_nan: bool = True) -> None:
    """Write a JSON file that is indented by two spaces."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan)
    path.write_text(f"{text}\n", encoding="utf-8")


def read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the rows of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def write_atomically(path: Path, write: Any) -> None:
    """Call `write` with a path beside `path`, then rename the file, so that `path` is always whole.

    A missing folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".partial-{path.name}")  # with its suffix, which `np.save` needs
    write(beside)
    beside.replace(path)
