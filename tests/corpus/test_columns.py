"""Which column of a file is the text, and what its first lines tell about the file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

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


@pytest.mark.parametrize("content", [{"text": ["egy", "kettő"]}, {"hu": ["egy", "kettő"]}])
def test_a_json_file_with_a_list_of_texts_is_those_texts(
    content: dict[str, list[str]], write: Write
) -> None:
    assert texts_of(write("own.json", json.dumps(content).encode())) == ["egy", "kettő"]


def table_of(kind: str, rows: list[dict[str, object]], path: Path) -> Path:
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        getattr(pd.DataFrame(rows), f"to_{kind}")(path, index=False)
    return path


@pytest.mark.parametrize("empty", ["", None])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_that_is_empty_in_the_first_row_may_be_the_text(
    kind: str, empty: str | None, write: Write
) -> None:
    rows = [{"url": "https://a.hu", "content": empty}, {"url": "https://b.hu", "content": "egy"}]
    path = table_of(kind, rows, write(f"own.{kind}", b""))
    with pytest.raises(CorpusError, match="to one of url, content"):
        texts_of(path)
    assert texts_of(path, text_field="content") == ["egy"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_without_letters_is_no_text(kind: str, write: Write) -> None:
    rows = [{"content": text, "note": "", "score": None} for text in ("egy", "kettő", "három")]
    path = table_of(kind, rows, write(f"own.{kind}", b""))
    assert texts_of(path) == ["egy", "kettő", "három"]


def test_english_may_have_a_text_where_another_column_is_named(write: Write) -> None:
    options = CorpusRecipe(text_field="content")
    for name, content in {
        "own.txt": b"egy",
        "own.md": b"egy",
        "own.jsonl": b'{"text": "egy"}',
        "named.jsonl": b'{"text": "T", "content": "egy"}',
    }.items():
        path = write(name, content)
        assert texts_of(path, text_field="content") == ["egy"]
    path = write("more.jsonl", b'{"text": "one", "title": "T"}')
    assert list(read_source(str(path), "en", options)[0]["text"]) == ["one"]
    with pytest.raises(CorpusError, match="no column 'content'"):
        texts_of(path, text_field="content")


@pytest.mark.parametrize(
    "first",
    [
        "สวัสดีครับ ไปไหนมา?",
        "我們試試看！",
        "क्या हाल है।",
        "1\tKöszönöm szépen",
        "Jól van, jöjjön be!",
    ],
)
def test_a_first_row_that_is_no_header_is_refused(first: str, write: Write) -> None:
    path = write("own.tsv", f"{first}\nmásodik\tsor\n".encode())
    with pytest.raises(CorpusError, match="add a header line"):
        texts_of(path)


@pytest.mark.parametrize(
    "header",
    ["szöveg", "текст", "文本", "Full text", "id\ttext", "0\ttext", "2019\ttext", "text\t2"],
)
def test_a_header_in_any_language_is_one(header: str, write: Write) -> None:
    cells = ["egy" if name not in ("id", "0", "2019", "2") else "7" for name in header.split("\t")]
    path = write("own.tsv", "\n".join([header, "\t".join(cells), ""]).encode())
    assert texts_of(path) == ["egy"]


def test_quotation_marks_of_a_tab_separated_file_may_be_text(write: Write) -> None:
    """As in Common Voice, whose sentences stand as they are."""
    rows = ['1\t"Gyere ide!', "2\tNem megyek.", '3\t"Jó" mondta.', '4\tDe igen."']
    path = write("own.tsv", "\r\n".join(["id\tsentence", *rows]).encode())
    assert texts_of(path) == [row.partition("\t")[2] for row in rows]


@pytest.mark.parametrize("columns", [["text"], ["id", "text"]])
def test_quoted_cells_of_a_tab_separated_file_may_have_line_ends(
    columns: list[str], write: Write
) -> None:
    texts = ['egy "két"', "három\nnégy", '"öt"']
    rows = pd.DataFrame({"id": ["a", "b", "c"], "text": texts})[columns]
    path = write("own.tsv", b"")
    rows.to_csv(path, sep="\t", index=False)
    assert texts_of(path) == texts


def test_joined_files_have_byte_order_marks_within(write: Write) -> None:
    mark = "\ufeff".encode()
    assert texts_of(write("own.txt", mark + b"egy\n" + mark + b"sok\n")) == ["egy", "sok"]
    lines = [mark + json.dumps({"text": text}).encode() for text in ("egy", "sok")]
    assert texts_of(write("own.jsonl", b"\n".join(lines))) == ["egy", "sok"]


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
