"""What cannot be read is refused or left out in its place, and nothing is read as garbage."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from langadapt_utils.corpus.corpus import load_corpus
from langadapt_utils.corpus.documents import read_source
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import CorpusRecipe

Write = Callable[[str, bytes], Path]


def read(path: Path, language: str = "hu", **options: object) -> tuple[list[str], int]:
    """The texts of a file, and the number of rows that were left out."""
    documents, about = read_source(str(path), language, CorpusRecipe(**options))
    return documents["text"][:], about[0]["left_out"]


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_no_text_with_a_bad_line(code: str, write: Write) -> None:
    text = "\ufeff" + "\n".join(f"Это строка {n}." for n in range(300))
    for name in ("own.txt", "own.csv"):
        path = write(name, text.encode(code))
        with pytest.raises(CorpusError, match=r"is in UTF-16 and is not UTF-8: convert the file"):
            read(path, "ru", skip_bad=0.5)


def test_bytes_that_are_not_utf_8_leave_a_row_out_wherever_they_stand(write: Write) -> None:
    rows = [f"{n},word,Ez a {n}. mondat." for n in range(40)]
    for bad in ("20,sz\xf3,Ez a 20. mondat.", "20,word,Ez a 20. mond\xe1t."):
        lines = [
            *(row.encode() for row in rows[:20]),
            bad.encode("latin-1"),
            *map(str.encode, rows),
        ]
        path = write("own.csv", b"\n".join([b"id,domain,text", *lines]))
        with pytest.raises(CorpusError, match="line 22 is not UTF-8"):
            read(path)
        texts, left_out = read(path, skip_bad=0.1)
        assert left_out == 1 and len(texts) == 60
        with pytest.raises(CorpusError, match=r"more than corpus.skip_bad=0.001 allows"):
            read(path, skip_bad=0.001)
    chats = b"\n".join([b"prompt,response", "j\xf3l,igen".encode("latin-1"), *[b"jo,igen"] * 30])
    found, left_out = read(write("chat.csv", chats), skip_bad=0.1, text_field="messages")
    assert len(found) == 30 and left_out == 1


def test_a_remedy_that_would_not_help_is_not_offered(write: Write) -> None:
    path = write("own.md", b"A line\n" * 999 + b"\xff\n")
    with pytest.raises(CorpusError, match="invalid start byte") as error:
        read(path)
    assert "skip_bad" not in str(error.value)
    lines = ["{"] * 101 + [json.dumps({"text": f"szöveg {n}"}) for n in range(300)]
    path = write("own.jsonl", "\n".join(lines).encode())
    with pytest.raises(CorpusError, match=r"the first 101 rows of .* \(the first: line 1, which"):
        read(path, skip_bad=1.0)


def test_dates_in_an_unknown_time_zone_are_one_sentence(tmp_path: Path) -> None:
    kind = pa.timestamp("s", tz="Nowhere/Town")
    columns = {"text": ["Egy mondat."], "day": pa.array([datetime(2020, 1, 1)], pa.timestamp("s"))}
    columns["day"] = columns["day"].cast(kind)
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "own.parquet")
    with pytest.raises(CorpusError, match=r"cannot read .*own.parquet \(.*Nowhere/Town"):
        read(tmp_path / "own.parquet")


def test_a_link_to_nothing_is_said(tmp_path: Path, write: Write) -> None:
    write("texts/a.txt", b"Egy mondat.")
    (tmp_path / "texts" / "b.txt").symlink_to(tmp_path / "gone.txt")
    for source in (tmp_path / "texts", tmp_path / "texts" / "*.txt"):
        with pytest.raises(CorpusError, match=r"b.txt is a link to nothing: restore or remove it"):
            read(source)


def test_commas_in_a_header_of_tabs_delimit_nothing(write: Write) -> None:
    rows = "\n".join(f"{n}\tEz a {n}. mondat." for n in range(30))
    path = write("own.tsv", f"id\tsentence (hu, cleaned, v2)\n{rows}".encode())
    assert read(path)[0][:2] == ["Ez a 0. mondat.", "Ez a 1. mondat."]


def test_an_empty_numbered_line_keeps_no_numbers(write: Write) -> None:
    lines = [f"{n}\tMondat {n}." if n != 50 else "50\t" for n in range(1, 101)]
    texts, _ = read(write("own.txt", "\n".join(lines).encode()))
    assert len(texts) == 99 and texts[0] == "Mondat 1."


def test_a_column_of_the_target_need_not_be_one_of_english(write: Write) -> None:
    own = [{"title": f"Cím {n}", "content": f"Ez a {n}. cikk."} for n in range(30)]
    english = [{"sentence": f"This is sentence {n}."} for n in range(30)]
    target, other = (
        str(write(name, "\n".join(map(json.dumps, rows)).encode()))
        for name, rows in (("hu.jsonl", own), ("en.jsonl", english))
    )
    recipe = CorpusRecipe(target=[target], english=[other], others=[], text_field="content")
    corpus = load_corpus(recipe, "hu")
    assert corpus.train["en"][0]["text"].startswith("This is sentence")
    assert corpus.train["hu"][0]["text"].startswith("Ez a ")


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "json", "parquet"])
def test_a_part_without_rows_is_counted_and_the_others_are_read(
    suffix: str, tmp_path: Path, write: Write
) -> None:
    write("part-0.txt", "Első.\nMásodik.\n".encode())
    write(f"part-1.{suffix}", b"")
    found, about = read_source(str(tmp_path), "hu", CorpusRecipe())
    assert found["text"][:] == ["Első.", "Második."]
    assert [row["documents"] for row in about] == [2, 0]


def test_a_pointer_to_a_file_that_was_not_fetched_is_no_text(write: Write) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    for name in "hu.txt", "hu.csv", "hu.parquet", "hu.txt.gz":
        with pytest.raises(CorpusError, match="run `git lfs pull`"):
            read(write(name, pointer))


def test_an_array_of_json_may_be_named_as_lines(write: Write) -> None:
    rows = [{"text": "egy"}, {"text": "kettő"}]
    for n, content in enumerate((json.dumps(rows), json.dumps(rows, indent=1))):
        assert read(write(f"{n}.jsonl", content.encode()))[0] == ["egy", "kettő"]


def test_columns_of_several_types_have_their_values(tmp_path: Path) -> None:
    """As `datasets` writes rows whose keys differ: as JSON."""
    rows = [{"doc": {"hu": "egy", "en": "one"}}, {"doc": {"hu": "kettő", "de": "zwei"}}]
    column = pa.array([json.dumps(row["doc"]) for row in rows], pa.json_())
    pa.parquet.write_table(pa.table({"doc": column}), tmp_path / "own.parquet")
    assert read(tmp_path / "own.parquet")[0] == ["egy", "kettő"]
    (tmp_path / "hub").mkdir()
    lines = "\n".join(json.dumps(row) for row in rows * 20)
    (tmp_path / "hub" / "train.jsonl").write_text(lines, encoding="utf-8")
    found, _ = read_source(f"hub:{tmp_path / 'hub'}", "hu", CorpusRecipe())
    assert found["text"][:2] == ["egy", "kettő"]
