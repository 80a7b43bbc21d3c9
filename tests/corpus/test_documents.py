import bz2
import csv
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unicodedata import normalize

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt_utils.corpus import documents
from langadapt_utils.corpus.documents import read_source
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe

Write = Callable[[str, bytes], Path]
TWO = "Első bekezdés.\nMég mindig az.\n\nMásodik bekezdés: ทดสอบ.\n".encode()
LINES = b'{"text": "egy", "domain": "a"}\n{"text": "kett\\u0151", "domain": "b"}\n'


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before is not known."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(documents, "cache_folder", lambda: folder)


def read_documents(
    source: str, language: str, recipe: CorpusRecipe | None = None
) -> datasets.Dataset:
    return read_source(source, language, recipe or CorpusRecipe())[0]


COMPRESS = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("end", COMPRESS)
def test_a_text_file_has_a_document_a_paragraph(end: str, write: Write) -> None:
    documents = read_documents(str(write(f"own.txt{end}", COMPRESS[end](TWO))), "hu")
    assert [text.strip() for text in documents["text"]] == [
        part.strip() for part in TWO.decode().split("\n\n")
    ]


def test_jsonl_and_parquet_give_text_and_domain(write: Write, tmp_path: Path) -> None:
    documents = read_documents(str(write("own.jsonl", LINES)), "hu")
    assert documents["text"][:] == ["egy", "kettő"] and documents["domain"][:] == ["a", "b"]
    datasets.Dataset.from_dict({"text": ["egy", "két"]}).to_parquet(tmp_path / "own.parquet")
    assert read_documents(str(tmp_path / "own.parquet"), "hu")["text"][:] == ["egy", "két"]


def test_a_folder_is_read_whole(write: Write, tmp_path: Path) -> None:
    write("texts/a.txt", b"one\n")
    write("texts/deep/b.jsonl", LINES)
    write("texts/picture.png", b"\x89PNG")
    assert sorted(
        text.strip() for text in read_documents(str(tmp_path / "texts"), "hu")["text"]
    ) == [
        "egy",
        "kettő",
        "one",
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.txt", b" \n\n \n", "has only empty documents"),
        ("blank.jsonl.gz", gzip.compress(b"", mtime=0), "has only empty documents"),
        ("latin2.txt", "árvíztűrő tükörfúrógép".encode("latin2"), "is not UTF-8"),
        ("latin2.jsonl", '{"text": "tűrő"}'.encode("latin2"), "is not UTF-8"),
        (
            "two.jsonl",
            b'{"body": "x", "title": "y"}\n',
            "no column 'text': set corpus.text_field to one of body, title",
        ),
        ("none.jsonl", b'{"number": 1}\n', "set corpus.text_field to one of number"),
        ("broken.jsonl", b'{"text": "x"}\n{"text"\n', "broken.jsonl: line 2 is no JSON object"),
        (
            "list.jsonl",
            b'{"text": "x"}\n[1]\n',
            "line 2 is no JSON object ('list' object is not a mapping)",
        ),
        ("torn.txt.gz", gzip.compress(b"text " * 99, mtime=0)[:20], "give a complete file"),
        ("torn.txt.zst", zstandard.compress(b"text\n" * 9_999)[:-4], "give a complete file"),
        ("empty.json", b"{}", "no column 'text': give rows with text"),
        ("five.json", b"5", "row 1 has a value of type int in column 'text', not text"),
        ("null.json", b"null", "has only empty documents"),
        ("deep.jsonl", b'{"text": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "line 1 is no JSON"),
        ("lists.jsonl", b'{"text": ["egy"]}\n', "line 1 has a value of type list in column 'text'"),
        (
            "inner.jsonl",
            b'{"doc": {"text": "egy"}, "n": 1}\n',
            "corpus.text_field to one of doc, n",
        ),
        ("bare.tsv", "1\tElső mondat.\n2\tMásik.\n".encode(), "add a header line before it, or"),
        ("comma.csv", "Igen, jó.\nMásik.\n".encode(), r"begins with 'Igen, jó.\n': add a header"),
        ("bare.csv", f"{'ก' * 50}\n{'ข' * 50}\n".encode(), "add a header line before it"),
        (
            "mixed.jsonl",
            b'{"text": "egy"}\n{"body": "sok"}\n',
            "line 2 has no value in column 'text'",
        ),
        ("names.json", json.dumps({str(n): "egy" for n in range(999)}).encode(), "…"),
        ("quote.csv", b'id,text\n1,egy\n2,"sok\n3,ten\n', "the row in line 3 is not CSV"),
        ("commas.csv", b"text\negy, sok\n", "line 2 has more cells than the header"),
        ("no.parquet", b"PAR2", "give a complete file"),
        ("no.arrow", b"ARROW2", "give a complete file"),
        ("notes.docx", b"PK", "has no readable text"),
    ],
)
def test_text_that_cannot_be_used_is_refused(
    name: str, content: bytes, sentence: str, write: Write
) -> None:
    with pytest.raises(CorpusError) as error:
        read_documents(str(write(name, content)), "hu")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_an_unknown_language_are_refused() -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        read_documents("/no/such/file.txt", "hu")
    with pytest.raises(CorpusError, match="'fi' has no built-in text"):
        read_documents(BUILT_IN, "fi")


def test_a_hub_data_set_is_loaded_by_name_config_and_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fake(
        repository: str, config: str | None, *, split: str, revision: str | None, streaming: bool
    ) -> Iterator[dict[str, str]]:
        asked.append((repository, config, split, revision))
        return iter([{"text": "egy"}, {"text": "kettő"}])

    monkeypatch.setattr(documents, "load_dataset", fake)
    assert read_documents("hub:org/texts:hun@v2", "hu")["text"][:] == ["egy", "kettő"]
    assert asked == [("org/texts", "hun", "train", "v2")]


def test_no_more_of_a_hub_data_set_is_read_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def rows() -> Iterator[dict[str, str]]:
        for number in range(1_000_000):
            read.append(number)
            yield {"text": "x" * 1_000, "url": f"https://example.org/{number}"}

    def fake(*_: object, streaming: bool, **__: object) -> Iterator[dict[str, str]]:
        assert streaming
        return rows()

    monkeypatch.setattr(documents, "load_dataset", fake)
    few = CorpusRecipe(max_megabytes=0.02)
    for _ in range(2):  # then from the cache
        assert len(read_documents("hub:org/large", "hu", few)) == 20 and len(read) <= 102


@pytest.mark.parametrize("name", ["long.txt", "long.jsonl"])
def test_the_beginning_of_a_file_is_enough(name: str, write: Write) -> None:
    texts = [f"{number} " + "word " * 200 for number in range(100)]
    lines = (
        [json.dumps({"text": text}) for text in texts]
        if name.endswith("jsonl")
        else [f"{t}\n" for t in texts]
    )
    path = write(name, "\n".join(lines).encode())
    some, all_of_it = (
        list(read_documents(str(path), "hu", CorpusRecipe(max_megabytes=limit))["text"])
        for limit in (0.01, 0.0)
    )
    assert 9 <= len(some) <= 11 and some == all_of_it[: len(some)] and len(all_of_it) == 100


THREE = ["egy", 'kett\u0151, "három"\nés négy', "öt"]


def written(kind: str, column: str, folder: Path) -> Path:
    """Three documents in a file of a kind, in a column of some name."""
    path, rows = folder / f"own{kind}", [{column: text, "number": 1} for text in THREE]
    if kind in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "," if kind == ".csv" else "\t"
            writer = csv.DictWriter(file, [column, "number"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    elif kind == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif kind in (".arrow", "-file.arrow"):
        table = pa.Table.from_pylist(rows)
        new = pa.ipc.new_stream if kind == ".arrow" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        lists = {".json": rows, "-data.json": {"version": "1", "data": rows}, "-texts.json": THREE}
        lines = "\n".join(map(json.dumps, rows))
        path.write_text(json.dumps(lists[kind]) if kind in lists else lines, encoding="utf-8")
    return path


KINDS = [".jsonl", "-lines.json", ".json", "-data.json", "-texts.json", ".csv", ".tsv"]


@pytest.mark.parametrize("column", ["text", "content"])
@pytest.mark.parametrize("kind", [*KINDS, ".parquet", ".arrow", "-file.arrow"])
@pytest.mark.parametrize("end", ["", ".zst"])
def test_every_kind_of_file_gives_its_texts(
    kind: str, column: str, end: str, tmp_path: Path
) -> None:
    path = written(kind, column, tmp_path)
    if end:
        packed = path.with_name(path.name + end)
        packed.write_bytes(zstandard.compress(path.read_bytes()))
        path = packed
    read, about = read_source(str(path), "hu", CorpusRecipe())
    assert read["text"][:] == THREE and len(set(read["id"])) == 3
    assert about[0]["documents"] == 3 and (kind == "-texts.json" or column in about[0]["rule"])


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_the_header_shows_the_delimiter(delimiter: str, kind: str, write: Write) -> None:
    rows = [["id", "text", "domain"], ["a", "egy; kettő, három | négy\n\nöt", "hír"]]
    lines = (delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    read = read_documents(str(write(f"own{kind}", "\r\n".join(["", *lines]).encode())), "hu")
    assert read[0]["text"] == rows[1][1] and (read[0]["id"], read[0]["domain"]) == ("a", "hír")


def test_content_tells_the_compression_where_the_name_is_wrong(write: Write) -> None:
    assert read_documents(str(write("plain.txt.gz", b"egy")), "hu")["text"][:] == ["egy"]
    for end, compress in COMPRESS.items():
        path = write(f"packed{end}/own.txt", compress(b"egy"))
        assert read_documents(str(path), "hu")["text"][:] == ["egy"]


def test_a_domain_that_is_no_text_is_no_domain(write: Write) -> None:
    path = write(
        "own.jsonl", b'{"text": "egy", "domain": null}\n{"text": "sok", "domain": ["a"]}\n'
    )
    assert set(read_documents(str(path), "hu")["domain"]) == {"text"}


def test_a_field_of_another_name_is_taken_where_it_is_named(write: Write) -> None:
    path = str(write("own.jsonl", b'{"title": "x", "body": "y", "id": "a"}\n'))
    assert read_documents(path, "hu", CorpusRecipe(text_field="body"))["text"][:] == ["y"]
    with pytest.raises(CorpusError, match="no column 'Body'"):
        read_documents(path, "hu", CorpusRecipe(text_field="Body"))


def test_a_file_without_blank_lines_has_a_document_a_line(write: Write) -> None:
    lines = "\n".join(f"Mondat {n}." for n in range(40))
    path = str(write("own.txt", f"\n{lines}\n\n".encode()))
    read, about = read_source(path, "hu", CorpusRecipe())
    assert read["text"][:] == lines.splitlines() and about[0]["rule"] == "a document per line"


def test_numbers_of_the_leipzig_corpora_are_dropped(write: Write) -> None:
    lines = "\n".join(f"{n}\tAz 1. mondat {n}." for n in range(40))
    read, about = read_source(str(write("own.txt", lines.encode())), "hu", CorpusRecipe())
    assert read["text"][7] == "Az 1. mondat 7." and "numbers dropped" in about[0]["rule"]


def test_a_markdown_file_is_one_document(write: Write, tmp_path: Path) -> None:
    for name in "abc":
        write(f"notes/{name}.md", f"# {name}\n\nfirst\n\nsecond".encode())
    assert len(read_documents(str(tmp_path / "notes"), "hu")) == 3


def test_names_patterns_and_hidden_files(write: Write, tmp_path: Path) -> None:
    for name in ("korpusz [2024]/hu.txt", "hu[1].txt", "hu1.txt", "hu2.txt"):
        write(name, name.encode())
    write("more/hu3.jsonl.zst", zstandard.compress(b'{"text": "zst"}'))
    write("more/hu4.txt.xz", lzma.compress(b"xz"))
    write(".ipynb_checkpoints/hu-checkpoint.txt", b"old")
    write("picture.png", b"PNG")
    write(".own/hu5.txt", b"named")

    def texts(source: str) -> list[str]:
        return sorted(read_documents(str(tmp_path / source), "hu")["text"])

    assert texts("korpusz [2024]/hu.txt") == ["korpusz [2024]/hu.txt"]
    assert texts("hu[1].txt") == ["hu[1].txt"] and texts("hu?.txt") == ["hu1.txt", "hu2.txt"]
    assert texts("*/hu.txt") == ["korpusz [2024]/hu.txt"] and len(texts("")) == 6
    assert texts("more") == ["xz", "zst"] and len(texts("**/*.txt")) == 4
    assert texts(".own") == texts(".own/*.txt") == texts(".o*/hu5.txt") == ["named"]
    _, about = read_source(str(tmp_path), "hu", CorpusRecipe())
    assert [row["file"] for row in about if row["rule"] == "not read"] == [
        str(tmp_path / "picture.png")
    ]


def test_what_describes_a_data_set_is_not_its_text(write: Write, tmp_path: Path) -> None:
    """The folders that `datasets` saves, and a repository with its card."""
    own = datasets.Dataset.from_list([{"text": f"szöveg {n}"} for n in range(4)])
    datasets.DatasetDict({"train": own}).save_to_disk(tmp_path / "saved")
    card = write("saved/README.md", b"# About the texts")
    write("saved/LICENSE.txt", b"CC0")
    read, about = read_source(str(tmp_path / "saved"), "hu", CorpusRecipe())
    assert read["text"][:] == own["text"][:]
    other = {Path(row["file"]).name for row in about if row["rule"] == "not read"}
    assert other >= {"README.md", "LICENSE.txt", "dataset_info.json", "state.json"}
    for named in (card, tmp_path / "s*" / "README.md", write("alone/README.md", b"a").parent):
        assert len(read_documents(str(named), "hu")) == 1


@pytest.mark.parametrize("column", ["id", "domain", "text"])
def test_half_a_surrogate_pair_becomes_the_replacement_character(column: str, write: Write) -> None:
    rows = [{"id": f"a{n}", "domain": "b", "text": f"szöveg {n}"} for n in range(4)]
    rows[2][column] = "ő\ud800"
    path = write("own.jsonl", b"\n".join(json.dumps(row).encode() for row in rows))
    expected = [row[column].replace("\ud800", "\ufffd") for row in rows]
    assert read_documents(str(path), "hu")[column][:] == expected


def test_patterns_pass_over_hidden_files_and_links_are_followed(
    write: Write, tmp_path: Path
) -> None:
    write("korpusz [2024]/deep/a.txt", b"a")
    write("korpusz [2024]/.ipynb_checkpoints/a-checkpoint.txt", b"old")
    write("korpusz [2024]/._a.txt", b"old")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "there").symlink_to(tmp_path / "korpusz [2024]")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "linked")
    for source in ("korpusz [2024]/**/*.txt", "korpusz [2024]/*", "k*/**", "linked"):
        assert read_documents(str(tmp_path / source), "hu")["text"][:] == ["a"], source
    with pytest.raises(CorpusError, match="does not exist"):
        read_documents(str(tmp_path / ("szöveg" * 100)), "hu")


def test_lines_that_cannot_be_read_are_named_or_left_out(write: Write) -> None:
    good = [json.dumps({"text": f"szöveg {n}"}).encode() for n in range(18)]
    path = str(write("own.jsonl", b"\n".join([*good[:9], b'{"text": ', *good[9:], b"\xff\xfe"])))
    with pytest.raises(CorpusError, match=r"own.jsonl: line 10 is no JSON"):
        read_documents(path, "hu")
    with pytest.raises(CorpusError, match=r"2 of 20 rows .* more than corpus.skip_bad=0.05"):
        read_documents(path, "hu", CorpusRecipe(skip_bad=0.05))
    read, about = read_source(path, "hu", CorpusRecipe(skip_bad=0.1))
    assert len(read) == 18 and about[0]["left_out"] == 2


def test_text_comes_in_one_normal_form(write: Write) -> None:
    decomposed = normalize("NFD", "árvíztűrő")
    path = str(write("own.jsonl", json.dumps({"text": decomposed}).encode()))
    read, about = read_source(path, "hu", CorpusRecipe())
    assert read["text"][:] == ["árvíztűrő"] and about[0]["normalised"] == 1
    as_it_is = read_documents(path, "hu", CorpusRecipe(normal_form="as it is"))
    assert as_it_is["text"][:] == [decomposed]


def test_half_a_character_becomes_a_sign_that_says_so(write: Write) -> None:
    path = str(write("own.jsonl", b'{"text": "ab \\ud83d c"}'))
    assert read_documents(path, "hu")["text"][:] == ["ab \ufffd c"]


def test_a_changed_file_is_read_again(write: Write) -> None:
    path = write("own.txt", b"one")
    assert read_documents(str(path), "hu")["text"][:] == ["one"]
    path.write_bytes(b"another")
    assert read_documents(str(path), "hu")["text"][:] == ["another"]


def test_large_data_sets_have_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(repository: str, config: str, **_: object) -> Iterator[dict[str, str]]:
        asked.append((repository, config))
        return iter([{"text": "a"}])

    monkeypatch.setattr(documents, "load_dataset", fake)
    some = CorpusRecipe(max_megabytes=1)
    for name, language in (("fineweb2", "ko"), ("fineweb2", "sr"), ("fineweb-edu", "en")):
        read_documents(name, language, some)
    assert asked == [
        ("HuggingFaceFW/fineweb-2", "kor_Hang"),
        ("HuggingFaceFW/fineweb-2", "srp_Cyrl"),
        ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
    ]
    with pytest.raises(CorpusError, match=r"set corpus\.max_megabytes"):
        read_documents("fineweb2", "ko")


@pytest.mark.parametrize("name", ["content", "raw_content"])
def test_the_first_rows_of_a_data_set_decide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless(*_: object, **__: object) -> Iterator[dict[str, object]]:
        for number in range(10**6):
            read.append(number)
            yield {name: "x" * 1_000, "id": number, "score": 0.5}

    monkeypatch.setattr(documents, "load_dataset", endless)
    few = CorpusRecipe(max_megabytes=0.01)
    assert len(read_documents(f"hub:org/{name}", "hu", few)) == 10
    assert len(read) <= 102  # rows that tell the column
    with pytest.raises(CorpusError, match="no column 'text'"):
        read_documents(f"hub:org/{name}-2", "hu", CorpusRecipe(max_megabytes=1, text_field="text"))
    assert len(read) <= 204


@given(texts=st.lists(st.text(), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_whatever_json_can_hold_is_read(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "own.jsonl")
        path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        wanted = [normalize("NFC", t.replace("\r\n", "\n")) for t in texts if t.strip()]
        if wanted:
            assert read_documents(str(path), "hu")["text"][:] == wanted
        else:
            with pytest.raises(CorpusError, match="has only empty documents"):
                read_documents(str(path), "hu")


@given(lines=st.lists(st.text(st.characters(categories=["L", "Zs"]), max_size=9), max_size=9))
@settings(deadline=None, max_examples=40)
def test_line_ends_of_windows_are_those_of_unix(lines: list[str]) -> None:
    """In every format, also where a line end is written as an escape."""
    text = normalize("NFC", "\n".join(["első", *lines, "utolsó"]))
    with tempfile.TemporaryDirectory() as folder:
        for end in ("\n", "\r\n"):
            own = text.replace("\n", end)
            Path(folder, f"{len(end)}.md").write_bytes(own.encode())
            Path(folder, f"{len(end)}.jsonl").write_text(json.dumps({"text": own}))
            table = pa.table({"text": [own]})
            pa.parquet.write_table(table, Path(folder, f"{len(end)}.parquet"))
            for kind in ("md", "jsonl", "parquet"):
                assert read_documents(f"{folder}/{len(end)}.{kind}", "hu")["text"][:] == [text]


def test_blocks_of_rows_get_unix_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{n}\r\nsor"}) for n in range(500)))
    assert read_documents(str(path), "hu")["text"][:] == [f"{n}\nsor" for n in range(500)]
