"""Which column of a file is the text, and what its first lines tell about the file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from langadapt_utils.corpus.documents import read_source
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import CorpusRecipe

Write = Callable[[str, bytes], Path]


def texts_of(path: Path, **options: str) -> list[str]:
    return list(read_source(str(path), "hu", CorpusRecipe(**options))[0]["text"])


@pytest.mark.parametrize(
    "beside",
    [
        {"tags": ["sport", "politika"]},
        {"tags": []},
        {"authors": [{"name": "Kiss Anna"}]},
        {"places": ["Pécs"], "sources": [{"url": "https://a.hu"}]},
    ],
)
@pytest.mark.parametrize("name", ["text", "body"])
def test_a_json_file_with_one_article_is_that_article(
    name: str, beside: dict[str, object], write: Write
) -> None:
    article = {"title": "Cím", name: "A teljes cikk."} | beside
    path = write("own.json", json.dumps(article).encode())
    assert texts_of(path, text_field="" if name == "text" else name) == ["A teljes cikk."]


def test_a_json_file_with_a_list_of_rows_is_those_rows(write: Write) -> None:
    wrapped = {"version": "1.0", "licence": "CC0", "data": [{"text": "egy"}, {"text": "kettő"}]}
    assert texts_of(write("own.json", json.dumps(wrapped).encode())) == ["egy", "kettő"]


@pytest.mark.parametrize("empty", ["", None])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_that_is_empty_in_the_first_row_may_be_the_text(
    kind: str, empty: str | None, write: Write
) -> None:
    rows = [{"url": "https://a.hu", "content": empty}, {"url": "https://b.hu", "content": "egy"}]
    path, table = write(f"own.{kind}", b""), pd.DataFrame(rows)
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        getattr(table, f"to_{kind}")(path, index=False)
    with pytest.raises(CorpusError, match="to one of url, content"):
        texts_of(path)
    assert texts_of(path, text_field="content") == ["egy"]


def test_a_named_column_is_only_asked_of_files_without_a_text(write: Write) -> None:
    files = {
        "own.txt": b"egy",
        "own.md": b"egy",
        "own.jsonl": b'{"text": "egy", "title": "T"}',
        "named.jsonl": b'{"text": "T", "content": "egy"}',
    }
    for name, content in files.items():
        assert texts_of(write(name, content), text_field="content") == ["egy"]
    with pytest.raises(CorpusError, match="no column 'content'"):
        texts_of(write("other.jsonl", b'{"body": "egy", "title": "T"}'), text_field="content")


@pytest.mark.parametrize(
    "first",
    ["สวัสดีครับ ไปไหนมา?", "我們試試看！", "क्या हाल है।", "1\tKöszönöm szépen", "Jól van, jöjjön be!"],
)
def test_a_first_row_that_is_no_header_is_refused(first: str, write: Write) -> None:
    path = write("own.tsv", f"{first}\nmásodik\tsor\n".encode())
    with pytest.raises(CorpusError, match="add a header line"):
        texts_of(path)


@pytest.mark.parametrize("header", ["szöveg", "текст", "文本", "Full text", "id\ttext"])
def test_a_header_in_any_language_is_one(header: str, write: Write) -> None:
    path = write(
        "own.tsv", f"{header}\n7\tegy\n".encode() if "\t" in header else f"{header}\negy\n".encode()
    )
    assert texts_of(path) == ["egy"]


def test_quotation_marks_of_a_tab_separated_file_may_be_text(write: Write) -> None:
    """As in Common Voice, whose sentences stand as they are."""
    rows = ['1\t"Gyere ide!', "2\tNem megyek.", '3\t"Jó" mondta.', '4\tDe igen."']
    path = write("own.tsv", "\r\n".join(["id\tsentence", *rows]).encode())
    assert texts_of(path) == [row.partition("\t")[2] for row in rows]
    quoted = write(
        "quoted.tsv", b'id\tsentence\n1\t"egy ""k\xc3\xa9t"""\n2\t"h\xc3\xa1rom\nn\xc3\xa9gy"\n'
    )
    assert texts_of(quoted) == ['egy "két"', "három\nnégy"]


def test_joined_files_have_byte_order_marks_within(write: Write) -> None:
    mark = "\ufeff".encode()
    assert texts_of(write("own.txt", mark + b"egy\n" + mark + b"sok\n")) == ["egy", "sok"]
    lines = [mark + json.dumps({"text": text}).encode() for text in ("egy", "sok")]
    assert texts_of(write("own.jsonl", b"\n".join(lines))) == ["egy", "sok"]


def test_archives_that_many_threads_wrote_are_read(write: Write) -> None:
    parts = [zstandard.compress(f"{text}\n".encode()) for text in ("egy", "sok")]
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x00\x00\x00\x00"  # a frame without text
    assert texts_of(write("own.txt.zst", b"".join(skipped + part for part in parts))) == [
        "egy",
        "sok",
    ]


def test_damaged_files_are_named(write: Write) -> None:
    whole = gzip.compress(("egy kettő három " * 4_000).encode())
    torn = whole[:40] + bytes(60) + whole[100:]
    table = pa.table({"text": ["egy"], "raw": pa.array([b"\xff"]).view(pa.string())})
    pyarrow.parquet.write_table(table, path := write("own.parquet", b""))
    for damaged in (path, write("own.txt.gz", torn)):
        with pytest.raises(CorpusError, match=f"cannot read {damaged}"):
            texts_of(damaged)


def test_an_empty_id_is_none(write: Write) -> None:
    rows = [json.dumps({"id": "", "text": f"szöveg {n}"}) for n in range(9)]
    documents, _ = read_source(
        str(write("own.jsonl", "\n".join(rows).encode())), "hu", CorpusRecipe()
    )
    assert len(set(documents["id"])) == 9
