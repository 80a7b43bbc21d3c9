"""Which column of a file is the text, and what its first lines tell about the file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from langadapt_utils.corpus.documents import read_source
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import CorpusRecipe

Write = Callable[[str, bytes], Path]


def texts_of(path: Path, **options: str | float) -> list[str]:
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


@pytest.mark.parametrize(
    ("english", "own"),
    [
        ("text_en", "text_hu"),
        ("EN", "HU"),
        ("English", "Hungarian"),
        ("translation.eng", "translation.hun"),
        ("sentence_eng_Latn", "sentence_hun_Latn"),
    ],
)
def test_both_languages_of_a_table_are_found_by_the_names_of_their_columns(
    english: str, own: str, write: Write
) -> None:
    pairs = write("pairs.tsv", f"url\t{english}\t{own}\nhttps://a\tone\tegy\n".encode())
    rows = write("rows.jsonl", json.dumps({"pair": {english: "one", own: "egy"}}).encode())
    for path in pairs, rows:
        for language, text in ("hu", "egy"), ("en", "one"):
            assert read_source(str(path), language, CorpusRecipe())[0]["text"][:] == [text]


def test_a_title_in_two_languages_is_not_the_text_beside_it(write: Write) -> None:
    row = {"title_hu": "Cím", "title_en": "Title", "content": "This is a text. " * 9}
    path = write("rows.jsonl", json.dumps(row).encode())
    with pytest.raises(CorpusError, match="to one of title_hu, title_en, content"):
        read_source(str(path), "en", CorpusRecipe())
    row |= {"text_hu": "Ez egy szöveg. " * 12, "text_en": row.pop("content")}
    path = write("both.jsonl", json.dumps(row).encode())
    for language in "hu", "en":
        found, about = read_source(str(path), language, CorpusRecipe())
        assert found["text"][:] == [row[f"text_{language}"]]
        assert about[0]["rule"].endswith(f"column text_{language}")


@pytest.mark.parametrize("code", ["https://a.hu/1", "ab12f0", "wav/a0.wav", "https://a.hu/Győr"])
def test_an_address_is_no_text_though_nothing_else_has_letters(code: str, write: Write) -> None:
    path = write("rows.jsonl", json.dumps({"source": code, "html": None}).encode())
    with pytest.raises(CorpusError, match="to one of source, html"):
        read_source(str(path), "hu", CorpusRecipe())


def test_a_nested_column_is_named_with_dots(write: Write) -> None:
    path = write("rows.jsonl", json.dumps({"doc": {"title": "T", "body": "egy"}, "n": 1}).encode())
    with pytest.raises(CorpusError, match=r"to one of doc, n, doc\.title, doc\.body"):
        texts_of(path)
    assert texts_of(path, text_field="doc.body") == ["egy"]


@pytest.mark.parametrize(
    "rows",
    [
        ["0\tElső.", '1\t"Igen, mondta.', "2\tMásodik.", '3\tNem tudom."', "4\tUtolsó."],
        ["0\tElső.", '1\t"Igen" – mondta –, "persze"', "2\tUtolsó."],
        ["0\tElső.", '1\t"Igen, mondta.\t', "2\trövid", '3\tÉs végül."\t'],
    ],
)
@pytest.mark.parametrize("before", [0, 1_200])
def test_quotation_marks_of_bare_text_join_no_rows(
    before: int, rows: list[str], write: Write
) -> None:
    many = [f"{n}\tMondat {n}." for n in range(before)]
    header = "id\ttext" + "\tnote" * (rows[-1].count("\t") > 1)
    path = write("own.tsv", "\n".join([header, *many, *rows]).encode())
    assert texts_of(path)[before:] == [row.split("\t")[1] for row in rows]


def test_a_code_within_a_name_is_no_language_without_english_beside_it(write: Write) -> None:
    path = write("rows.csv", b"doc_id,doc_no,line\na1,b1,Selamat pagi.\n")
    with pytest.raises(CorpusError, match="to one of doc_id, doc_no, line"):
        read_source(str(path), "id", CorpusRecipe())


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


@pytest.mark.parametrize(
    "beside", [{"tags": ["sport", "politika"]}, {"authors": [{"name": "Kiss Anna"}]}]
)
def test_a_json_file_with_one_article_is_not_the_list_beside_its_text(
    beside: dict[str, object], write: Write
) -> None:
    """Also where no column is named: the only text is that of the article."""
    path = write("own.json", json.dumps({"content": "A teljes cikk. Ez az."} | beside).encode())
    assert texts_of(path) == ["A teljes cikk. Ez az."]


def test_a_json_file_with_one_conversation_is_that_conversation(write: Write) -> None:
    said = [{"role": "user", "content": "Kérdés?"}, {"role": "assistant", "content": "Válasz."}]
    path = write("own.json", json.dumps({"id": "a", "messages": said}).encode())
    assert len(texts_of(path, text_field="messages")) == 1


def test_json_lines_under_another_name_are_read_up_to_the_limit(write: Write) -> None:
    lines = "\n".join(json.dumps({"text": f"{n} " + "szó " * 250}) for n in range(3_000))
    path = write("own.json", lines.encode())
    recipe = CorpusRecipe(max_megabytes=0.1)
    texts, (about,) = read_source(str(path), "hu", recipe)
    assert 75 < len(texts) < 85 and about["cut"]


def test_a_column_without_letters_in_the_first_row_may_be_the_text(write: Write) -> None:
    path = write("own.csv", "speaker,line\nAnna,...\nBéla,Jó napot!\n".encode())
    with pytest.raises(CorpusError, match="to one of speaker, line"):
        texts_of(path)


def test_a_text_that_the_first_row_leaves_out_is_missing_there_alone(write: Write) -> None:
    rows = [{"title": "Cím"}, {"title": "Másik", "text": "Ez a szöveg."}]
    path = write("own.jsonl", "\n".join(map(json.dumps, rows)).encode())
    with pytest.raises(CorpusError, match="line 1 has no value in column 'text'"):
        texts_of(path)
    assert texts_of(path, skip_bad=0.5) == ["Ez a szöveg."]


def test_a_code_of_a_language_may_name_another_column(write: Write) -> None:
    """`id` is the code of Indonesian, and a number in most files; `no` that of Norwegian."""
    pairs = write("pairs.tsv", b"en\tid\nGood morning.\tSelamat pagi.\nThanks.\tTerima kasih.\n")
    found, _ = read_source(str(pairs), "id", CorpusRecipe())
    assert found["text"][:] == ["Selamat pagi.", "Terima kasih."]
    rows = write("rows.csv", b"no,line\n1,God morgen.\n2,Tusen takk.\n")
    found, _ = read_source(str(rows), "no", CorpusRecipe())
    assert found["text"][:] == ["God morgen.", "Tusen takk."]
    mails = write("mails.csv", b"from,to,body\na@c.to,b@c.to,Ko e fuofua lea eni. Ko e ua eni.\n")
    with pytest.raises(CorpusError, match=r"set corpus\.text_field to one of from, to, body"):
        read_source(str(mails), "to", CorpusRecipe())
    lists = write("lists.jsonl", '{"title": "Cím", "hu": ["Egy mondat."]}'.encode())
    with pytest.raises(CorpusError, match="a value of type list in column 'hu'"):
        texts_of(lists)
    empty = "".join('{"en": "Good morning.", "hu": ""}\n' for _ in range(200))
    late = write("late.jsonl", (empty + '{"en": "Thanks.", "hu": "Kösz."}').encode())
    assert texts_of(late) == ["Kösz."]


def test_a_row_without_the_cell_of_the_text_is_no_empty_text(write: Write) -> None:
    path = write("own.csv", "id,text\n1,Az első sor\nés a folytatása\n2,Másik\n".encode())
    with pytest.raises(CorpusError, match="row 2 has no value in column 'text'"):
        texts_of(path)
    assert texts_of(path, skip_bad=0.5) == ["Az első sor", "Másik"]
    short = write("short.csv", "text,note\negy,x\nkettő\n".encode())
    assert texts_of(short) == ["egy", "kettő"]  # only the note is missing


@pytest.mark.parametrize(
    "rows",
    [[{"content": "Ez az első cikk."}, {"content": "Másik."}], ["Ez az első cikk.", "Másik."]],
)
def test_a_sentence_about_a_list_of_texts_is_no_text(rows: list[object], write: Write) -> None:
    wrapped = {"description": "A corpus of news.", "items": rows}
    path = write("own.json", json.dumps(wrapped).encode())
    assert texts_of(path) == ["Ez az első cikk.", "Másik."]


@pytest.mark.parametrize(
    "row",
    [
        {"title": "Cím", "paragraphs": ["Ez egy hosszú bekezdés.", "Ez még egy."]},
        {"title": "Mi történt ma?", "paragraphs": ["Ez egy hosszú bekezdés. " * 9]},
        {"url": "https://a.hu/1", "sentences": ["Ez egy mondat.", "Ez még egy mondat."]},
        {"source": "forum", "messages": [{"role": "user", "content": "Szia, hogy vagy ma?"}]},
        {"title": "Cím", "sections": {"first": "Ez egy hosszú bekezdés."}},
    ],
)
def test_a_title_beside_lists_of_sentences_is_not_the_text(
    row: dict[str, object], write: Write
) -> None:
    path = write("rows.jsonl", "\n".join([json.dumps(row)] * 5).encode())
    with pytest.raises(CorpusError, match=f"corpus.text_field to one of {', '.join(row)}"):
        read_source(str(path), "hu", CorpusRecipe())


def test_a_column_of_english_is_no_text_of_another_language(write: Write) -> None:
    path = write("rows.jsonl", b'{"en": "In the first years it rained.", "score": 0.9}')
    with pytest.raises(CorpusError, match="no column 'text'"):
        texts_of(path)
    assert len(read_source(str(path), "en", CorpusRecipe())[0]) == 1


def test_an_article_with_a_list_of_tags_is_read(write: Write) -> None:
    row = {"body": "Ez egy hosszú cikk, két mondattal. Ez a második.", "tags": ["kultúra", "film"]}
    path = write("rows.jsonl", "\n".join([json.dumps(row)] * 5).encode())
    documents, _ = read_source(str(path), "hu", CorpusRecipe())
    assert set(documents["text"]) == {row["body"]}


@pytest.mark.parametrize("header", ["id, hu, en", "id,hu,en", "id; hu; en", " id,  hu,  en"])
def test_spaces_after_commas_are_no_part_of_cells(header: str, write: Write) -> None:
    mark = "; " if ";" in header else ", "
    rows = [mark.join((f"{n}", f'"Szia, {n}. Péter"', f"Hello {n}")) for n in range(5)]
    path = write("rows.csv", "\n".join([header, *rows]).encode())
    documents, _ = read_source(str(path), "hu", CorpusRecipe())
    assert documents["text"][:] == [f"Szia, {n}. Péter" for n in range(5)]
    assert documents["id"][:] == list("01234")


def test_a_quotation_at_the_start_of_a_text_is_no_quoted_cell(write: Write) -> None:
    path = write("rows.csv", 'id,text\n1, "Szia" mondta Péter\n2, Jó.\n'.encode())
    documents, _ = read_source(str(path), "hu", CorpusRecipe())
    assert documents["text"][0].strip() == '"Szia" mondta Péter'
    path = write("more.csv", 'id, text\n1, "A ""b"" c, d."\n2, "Igen, az, ""e"" jó."\n'.encode())
    documents, _ = read_source(str(path), "hu", CorpusRecipe())
    assert documents["text"][:] == ['A "b" c, d.', 'Igen, az, "e" jó.']


def test_a_file_of_parallel_zstandard_begins_with_a_frame_without_text(write: Write) -> None:
    packed = b"\x50\x2a\x4d\x18\4\0\0\0size" + zstandard.compress(b"egy\nk\xc3\xa9t\n")
    documents, _ = read_source(str(write("own.txt.zst", packed)), "hu", CorpusRecipe())
    assert documents["text"][:] == ["egy", "két"]


def test_the_cache_of_a_saved_data_set_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": [f"szöveg {n}" for n in range(20)]}).save_to_disk(folder)
    saved = datasets.load_from_disk(folder)
    saved.map(lambda row: {"text": row["text"].upper()})
    saved.shuffle(seed=0)
    assert len(list(folder.glob("cache-*.arrow"))) == 2
    documents, about = read_source(str(folder), "hu", CorpusRecipe())
    assert documents["text"][:] == [f"szöveg {n}" for n in range(20)]
    assert [row["rule"] for row in about].count("not read") == 4


def test_a_date_beyond_those_of_python_is_named(tmp_path: Path) -> None:
    times = pa.array([0, 2**62], pa.timestamp("us"))
    table = pa.table({"text": ["egy", "két"], "date": times})
    pyarrow.parquet.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(CorpusError, match=r"cannot read .*odd.parquet \(date value out of range\)"):
        read_source(str(tmp_path / "odd.parquet"), "hu", CorpusRecipe())
