import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest

from langadapt_utils.corpus import documents
from langadapt_utils.corpus.documents import read_documents
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import BUILT_IN

Write = Callable[[str, bytes], Path]
TWO = "Első bekezdés.\nMég mindig az.\n\nMásodik bekezdés: ทดสอบ.\n".encode()
LINES = b'{"text": "egy", "domain": "a"}\n{"text": "kett\\u0151", "domain": "b"}\n'


@pytest.mark.parametrize("compress", [None, gzip, lzma, bz2], ids=["plain", "gz", "xz", "bz2"])
def test_a_text_file_has_a_document_a_paragraph(compress: object, write: Write) -> None:
    name = {None: "own.txt", gzip: "own.txt.gz", lzma: "own.txt.xz", bz2: "own.txt.bz2"}[compress]
    content = TWO if compress is None else compress.compress(TWO)  # type: ignore[attr-defined]
    documents = read_documents(str(write(name, content)), "hu")
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
        ("blank.txt", b" \n\n \n", "has no text in it"),
        ("latin2.txt", "árvíztűrő tükörfúrógép".encode("latin2"), "is not UTF-8"),
        ("latin2.jsonl", '{"text": "tűrő"}'.encode("latin2"), "is not UTF-8"),
        ("other.jsonl", b'{"body": "x"}\n', "has no field 'text', only body"),
        ("broken.jsonl", b'{"text": "x"\n', "broken.jsonl"),
        ("notes.docx", b"PK", "is not text langadapt can read"),
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
    with pytest.raises(CorpusError, match="no text in 'fi'"):
        read_documents(BUILT_IN, "fi")


def test_a_hub_data_set_is_loaded_by_name_config_and_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fake(
        repository: str, config: str | None, *, split: str, revision: str | None
    ) -> datasets.Dataset:
        asked.append((repository, config, split, revision))
        return datasets.Dataset.from_dict({"text": ["egy", "kettő"]})

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
    assert len(read_documents("hub:org/large", "hu", max_megabytes=0.02)) == len(read) == 20


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
        list(read_documents(str(path), "hu", max_megabytes=limit)["text"]) for limit in (0.01, 0.0)
    )
    assert 9 <= len(some) <= 11 and some == all_of_it[: len(some)] and len(all_of_it) == 100
