"""JSON lines are read in blocks: the same documents as line by line, and the same errors."""

import json
import math
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt_utils.corpus import readers
from langadapt_utils.corpus.documents import read_source
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import CorpusRecipe

Write = Callable[[str, bytes], Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path_factory.mktemp("cache")))


ODD = st.sampled_from(["7.0", "7 ", "\xa07", "a\u0301", "\x1f7", "7\x0b", "-7.0\n", "a\r\nb"])
LABELS = st.one_of(
    st.none(), st.text(), ODD, st.integers(-(2**70), 2**70), st.booleans(), st.floats()
)
ROWS = st.fixed_dictionaries(
    {"text": st.one_of(st.text(), st.sampled_from(["a\u0301", "árvíz " * 30, " \n", "\u2126"]))},
    optional={"id": LABELS, "domain": LABELS, "more": st.one_of(LABELS, st.lists(LABELS))},
)


@given(
    st.lists(ROWS, min_size=1, max_size=20), st.sampled_from(["\n", "\r\n", "\n \n"]), st.booleans()
)
@settings(deadline=None, max_examples=200)
def test_lines_are_the_same_read_together_or_one_by_one(
    rows: list[dict[str, Any]], between: str, ascii_only: bool
) -> None:
    """Whole blocks of lines are parsed at once where nothing has to be changed."""
    wanted = [
        (label(row, "id", f"own.jsonl-{place}"), label(row, "domain", "text"), text)
        for place, row in enumerate(rows)
        if (text := in_form(row["text"])).strip()
    ]
    lines = between.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    small = mock.patch.multiple(readers, BLOCK=300, PEEKED=0)
    with tempfile.TemporaryDirectory() as folder, small:
        path = Path(folder, "own.jsonl")
        path.write_text(lines, encoding="utf-8", newline="")
        if wanted:
            read, (about,) = read_source(str(path), "hu", CorpusRecipe())
            assert [(row["id"], row["domain"], row["text"]) for row in read] == wanted
            assert about["documents"] + about["empty"] == len(rows)
            changed = sum(in_form(r["text"]) != r["text"] for r in rows)
            assert about["normalised"] == changed


def in_form(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n"))


def label(row: dict[str, Any], name: str, otherwise: str) -> str:
    value = row.get(name)
    if not isinstance(value, str | int | float):
        return otherwise
    if isinstance(value, float) and not math.isfinite(value):
        return otherwise
    found = unicodedata.normalize("NFC", str(value).strip())
    whole = found.removesuffix(".0")
    return (whole if whole.removeprefix("-").isdecimal() else found) or otherwise


def test_a_bad_line_is_named_wherever_it_stands(write: Write) -> None:
    good = [json.dumps({"text": f"szöveg {n}", "id": n}) for n in range(2_000)]
    for place, bad in ((2, "null"), (700, '{"text": "a"}{"text": "b"}'), (1_999, '{"id": 1}')):
        lines = [*good[: place - 1], bad, *good[place:]]
        path = str(write(f"{place}.jsonl", "\n".join(lines).encode()))
        with mock.patch.object(readers, "BLOCK", 5_000):
            with pytest.raises(CorpusError, match=f"line {place} "):
                read_source(path, "hu", CorpusRecipe())
            rest, _ = read_source(path, "hu", CorpusRecipe(skip_bad=0.01))
        assert rest["text"][:] == [f"szöveg {n}" for n in range(2_000) if n != place - 1]


@pytest.mark.parametrize("size", [1_048_500, 1_048_600, 1_500_000, 2_200_000])
@pytest.mark.parametrize("before", [1, 2, 40])
def test_a_whole_book_may_stand_in_a_line(size: int, before: int, write: Write) -> None:
    texts = [*["rövid"] * before, "á" * (size // 2), "x" * size, "vége", "y" * size]
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    path = str(write("books.jsonl", lines.encode()))
    for block in (8_000_000, 100):
        with mock.patch.object(readers, "BLOCK", block):
            read, _ = read_source(path, "hu", CorpusRecipe(max_megabytes=block))
            assert read["text"][:] == texts
