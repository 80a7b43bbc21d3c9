import json
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt_utils.corpus import documents
from langadapt_utils.corpus.corpus import (
    Corpus,
    built_in_corpus,
    check_contamination,
    load_corpus,
    split_documents,
)
from langadapt_utils.corpus.documents import read_source
from langadapt_utils.corpus.items import load_items
from langadapt_utils.errors import CorpusError, RecipeError
from langadapt_utils.recipe import BUILT_IN, WIKIPEDIA, CorpusRecipe, Recipe
from langadapt_utils.sources import fingerprint

Write = Callable[[str, bytes], Path]
TWO = "Első bekezdés.\nMég mindig az.\n\nMásodik bekezdés: ทดสอบ.\n".encode()
LINES = b'{"text": "egy", "domain": "a"}\n{"text": "kett\\u0151", "domain": "b"}\n'


def test_the_built_in_corpus_is_held_out_alike_in_every_language(
    corpora: dict[str, Corpus],
) -> None:
    ids = {language: set(corpus.heldout[language]["id"]) for language, corpus in corpora.items()}
    assert ids["hu"] == ids["th"] == set(corpora["hu"].heldout["en"]["id"])
    for corpus in corpora.values():
        for language in corpus.train:
            assert not set(corpus.train[language]["id"]) & set(corpus.heldout[language]["id"])
            assert len(corpus.train[language]) + len(corpus.heldout[language]) == 170


def test_at_least_a_fifth_of_every_domain_is_held_out(corpora: dict[str, Corpus]) -> None:
    corpus = corpora["hu"]
    held, trained = Counter(corpus.heldout["hu"]["domain"]), Counter(corpus.train["hu"]["domain"])
    assert len(held) == 8
    for domain in held:
        assert 0.2 <= held[domain] / (held[domain] + trained[domain]) < 0.3


def test_parallel_sentences_are_held_out_and_aligned(corpora: dict[str, Corpus]) -> None:
    for language, corpus in corpora.items():
        texts, parallel = corpus.measuring_texts()
        assert parallel and len(texts["en"]) == len(texts[language]) > 400
        held = " ".join(corpus.heldout[language]["text"])
        assert all(sentence in held for sentence in texts[language])


def test_another_seed_holds_out_other_documents(corpora: dict[str, Corpus]) -> None:
    other = load_corpus(CorpusRecipe(english=[BUILT_IN]), "hu", seed=1)
    assert set(other.heldout["hu"]["id"]) != set(corpora["hu"].heldout["hu"]["id"])


@given(
    domains=st.lists(st.sampled_from(["a", "b", "c"]), min_size=8, max_size=40),
    share=st.floats(0.05, 0.4),
    seed=st.integers(0, 5),
)
@settings(deadline=None, max_examples=30)
def test_a_split_loses_no_document_and_mixes_none(
    domains: list[str], share: float, seed: int
) -> None:
    rows = [{"id": str(i), "source": "s", "domain": d, "text": "t"} for i, d in enumerate(domains)]
    train, heldout = split_documents(datasets.Dataset.from_list(rows), share, seed)
    assert sorted([*train["id"], *heldout["id"]]) == sorted(str(i) for i in range(len(domains)))
    held = Counter(heldout["domain"])
    large = {domain: total for domain, total in Counter(domains).items() if share * total >= 1}
    assert all(held[domain] >= share * total - 1e-9 for domain, total in large.items())
    assert len(heldout) >= share * len(domains) - 1e-9 and len(train) > 0


def test_a_split_reads_many_documents_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read per document took most of the time of loading a gigabyte."""
    reads, read = [], datasets.Dataset.__getitem__

    def counted(documents: datasets.Dataset, key: Any) -> Any:
        reads.append(key)
        return read(documents, key)

    monkeypatch.setattr(datasets.Dataset, "__getitem__", counted)
    train, heldout = split_documents(many_documents(500), 0.2, 0)
    assert (len(train), len(heldout), len(reads)) == (400, 100, 0)


def test_documents_are_counted_in_little_memory() -> None:
    """A gigabyte of sentences has ten million documents: 200 bytes each are 2 GB."""
    documents = many_documents(20_000)
    kept = documents.select(range(0, 20_000, 2))  # as without repeats
    split_documents(kept, 0.2, 0)  # what is loaded once
    corpus = Corpus("hu", {"hu": kept}, {}, *[pd.DataFrame(), pd.DataFrame(), {}, dict, dict])
    for work in (lambda: split_documents(kept, 0.2, 0), corpus.summary):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak / len(kept) < 200


def many_documents(count: int) -> datasets.Dataset:
    ids = [f"document {number}" for number in range(count)]
    same = {"source": ["folder/of/a/file.txt"] * count, "domain": ["text"] * count}
    return datasets.Dataset.from_dict({"id": ids, **same, "text": ids})


def test_domains_of_one_document_are_pooled() -> None:
    rows = [{"id": str(i), "source": "s", "domain": f"site-{i}", "text": "t"} for i in range(50)]
    train, heldout = split_documents(datasets.Dataset.from_list(rows), 0.2, 0)
    assert (len(train), len(heldout)) == (40, 10)


def test_a_source_of_one_document_is_pooled_with_others(write: Write) -> None:
    books = [str(write(f"book-{n}.md", f"A {n}. könyv szövege. ".encode() * 9)) for n in range(6)]
    corpus = load_corpus(CorpusRecipe(target=books), "hu")
    assert (len(corpus.train["hu"]), len(corpus.heldout["hu"])) == (4, 2)


def test_held_out_documents_are_counted_where_ids_come_again() -> None:
    """As in shards that are numbered from 0 each."""
    rows = [
        {"id": str(n % 1_000), "source": "s", "domain": "d", "text": "t"} for n in range(30_000)
    ]
    _, heldout = split_documents(datasets.Dataset.from_list(rows), 0.2, 0)
    assert 2_000 <= len(heldout) <= 2_030


def test_an_id_that_most_documents_have_is_not_held_out() -> None:
    """As where a crawl wrote the name of a missing value."""
    rows = [
        {"id": "None" if n < 50 else str(n), "source": "s", "domain": "d", "text": "t"}
        for n in range(60)
    ]
    for seed in range(9):
        train, heldout = split_documents(datasets.Dataset.from_list(rows), 0.2, seed)
        assert len(train) == 50 and "None" not in heldout["id"][:]


def test_files_of_one_name_keep_their_documents_apart(write: Write, tmp_path: Path) -> None:
    for folder in "abcdefgh":
        write(f"texts/{folder}/part.txt", f"document {folder}".encode())
    corpus = load_corpus(CorpusRecipe(target=[str(tmp_path / "texts")], english=[BUILT_IN]), "fi")
    ids = [*corpus.train["fi"]["id"], *corpus.heldout["fi"]["id"]]
    assert len(set(ids)) == 8 and len(corpus.heldout["fi"]) == 2


def test_kinds_of_files_mix(write: Write, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": pyarrow.array(["large"] * 9, pyarrow.large_string())})
    pyarrow.parquet.write_table(table, tmp_path / "large.parquet")
    sources = [str(tmp_path / "large.parquet"), str(write("own.jsonl", LINES)), BUILT_IN]
    corpus = load_corpus(CorpusRecipe(target=sources, english=[BUILT_IN]), "hu")
    assert len(corpus.train["hu"]) > 100


def test_a_code_that_is_also_a_field_is_no_language() -> None:
    assert load_items("choice", "id") == []
    with pytest.raises(CorpusError, match="'id' has no built-in text"):
        read_source(BUILT_IN, "id", CorpusRecipe())


def test_a_single_document_cannot_be_split(write: Write) -> None:
    path = write("one.txt", b"one document\n")
    with pytest.raises(CorpusError, match="too few to hold out"):
        load_corpus(CorpusRecipe(target=[str(path)], english=[BUILT_IN]), "fi")


def test_a_text_that_occurs_twice_is_on_one_side_only(write: Write) -> None:
    path = write(
        "twice.txt",
        b"\n\n".join([b"same  text", b"same text", *(b"other %d" % i for i in range(9))]),
    )
    corpus = load_corpus(CorpusRecipe(target=[str(path)], english=[BUILT_IN]), "fi")
    texts = [*corpus.train["fi"]["text"], *corpus.heldout["fi"]["text"]]
    assert len(texts) == 10
    assert corpus.measuring_texts()[1] is False


@pytest.mark.base
def test_wikipedia_is_split_by_article() -> None:
    documents, _ = read_source(WIKIPEDIA, "en", CorpusRecipe())
    assert len(documents) > 10_000 and set(documents["source"]) == {"wikipedia"}
    train, heldout = split_documents(documents, 0.2, 0)
    assert not set(train["id"]) & set(heldout["id"]) and len(heldout) >= 0.2 * len(documents)
    assert json.dumps(train[0])


def test_other_languages_are_there_to_be_measured_on_alone(
    corpora: dict[str, Corpus], write: Write
) -> None:
    others = corpora["hu"].others
    assert set(others) == {"th"} and set(others["th"]["id"]) == set(
        corpora["hu"].heldout["hu"]["id"]
    )
    german = write("de.txt", b"Ein Absatz.\n\nNoch einer.")
    corpus = load_corpus(CorpusRecipe(english=[BUILT_IN], others=[f"de:{german}"]), "hu")
    assert corpus.others["de"]["text"][:] == ["Ein Absatz.", "Noch einer."] and set(
        corpus.train
    ) == {"hu", "en"}
    before = fingerprint(CorpusRecipe(others=[f"de:{german}"]))
    german.write_text("Ein anderer.", encoding="utf-8")
    assert fingerprint(CorpusRecipe(others=[f"de:{german}"])) != before
    both = load_corpus(
        CorpusRecipe(english=[BUILT_IN], others=[f"th:{german}", BUILT_IN]), "hu"
    ).others["th"]
    assert len(both) == 1 + len(others["th"])
    with pytest.raises(CorpusError, match=r"corpus\.others has"):
        load_corpus(CorpusRecipe(english=[BUILT_IN], others=[f"hu:{german}"]), "hu")
    for wrong in ("german.txt", "de:", "hub:ORG/NAME", "en:more.txt"):
        with pytest.raises(RecipeError, match="CODE:SOURCE"):
            Recipe.profile("smoke", overrides={"corpus.others": wrong})


def test_the_built_in_corpus_is_what_a_recipe_that_names_it_reads() -> None:
    own, named = (
        built_in_corpus("th"),
        load_corpus(Recipe.profile("cpu", language="th").corpus, "th"),
    )
    assert own.measuring_texts() == named.measuring_texts()
    assert list(own.train["th"]["text"]) == list(named.train["th"]["text"])
    assert set(own.train["en"]["source"]) == {"builtin"}
    with pytest.raises(CorpusError):
        built_in_corpus("fi")


def lines(language: str, count: int = 60) -> list[str]:
    return [f"{language} sentence {n}, which says that {n * n} comes after." for n in range(count)]


@pytest.mark.parametrize("kind", ["lines", "ids"])
def test_ones_own_parallel_files_are_held_out_together(kind: str, write: Write) -> None:
    """The second line of one is empty, and two lines of it are equal."""
    texts = {code: lines(code) for code in ("hu", "en")}
    texts["hu"][1], texts["hu"][7] = "", texts["hu"][6]
    paths = {}
    for code, own in texts.items():
        rows = [json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(own)]
        if code == "en" and kind == "ids":
            rows = [*rows[::-1], json.dumps({"id": "more", "text": "en sentence alone"})]
        content = "\n".join(rows if kind == "ids" else [text or "-" for text in own])
        name = f"{code}.jsonl" if kind == "ids" else f"{code}.txt"
        paths[code] = str(write(name, content.encode()))
    corpus = load_corpus(CorpusRecipe(target=[paths["hu"]], english=[paths["en"]]), "hu")
    numbers = [
        {text.split()[2] for text in part[code]["text"] if " " in text.strip()} - {"alone"}
        for code in ("hu", "en")
        for part in (corpus.train, corpus.heldout)
    ]
    assert numbers[0].isdisjoint(numbers[3]) and numbers[1].isdisjoint(numbers[2])
    measured, parallel = corpus.measuring_texts()
    assert parallel and len(measured["hu"]) == len(measured["en"]) >= 11
    assert all(
        a.replace("hu ", "") == b.replace("en ", "")
        for a, b in zip(measured["hu"], measured["en"], strict=True)
        if a != "-"
    )


@pytest.mark.parametrize("english", [60, 61])
@pytest.mark.parametrize("name", ["{}.txt", "{}/data.txt", "{}/deep/data.txt"])
@pytest.mark.parametrize("folder", [False, True])
def test_positions_tie_documents_of_files_that_are_equally_long(
    english: int, name: str, folder: bool, write: Write
) -> None:
    """Also where both files have the same name, so that their documents have the same ids."""
    paths = []
    for code, count in (("hu", 60), ("en", english)):
        file = write(name.format(code), "\n".join(lines(code, count)).encode())
        above = [part for part in file.parents if part.name == code]
        paths.append(str(above[0] if folder and above else file))
    corpus = load_corpus(CorpusRecipe(target=paths[:1], english=paths[1:]), "hu")
    assert corpus.measuring_texts()[1] == (english == 60)


def test_files_of_one_name_are_no_translations_by_their_name(write: Write, tmp_path: Path) -> None:
    for code, numbers in (("hu", (30, 20)), ("en", (10, 20))):
        for name, n in zip("ab", numbers, strict=True):
            write(f"{code}/{name}.txt", "\n".join(lines(f"{code} {name}", n)).encode())
    one = CorpusRecipe(target=[f"{tmp_path}/hu/a.txt"], english=[f"{tmp_path}/en/a.txt"])
    assert not load_corpus(one, "hu").measuring_texts()[1]
    folders = CorpusRecipe(target=[f"{tmp_path}/hu"], english=[f"{tmp_path}/en"])
    parallel = load_corpus(folders, "hu").parallel
    assert len(parallel) and all(name.startswith("b.txt-") for name in parallel["id"])


@pytest.mark.parametrize("kind", ["ids", "positions"])
def test_texts_that_only_have_the_same_numbers_are_no_translations(kind: str, write: Write) -> None:
    paths = []
    for code, factor in (("hu", 7), ("en", 11)):
        texts = [f"{code} {n}: " + "szó " * (n * factor % 60) for n in range(60)]
        named = [
            {"text": text} | ({"id": n} if kind == "ids" else {}) for n, text in enumerate(texts)
        ]
        paths.append(str(write(f"{code}.jsonl", "\n".join(map(json.dumps, named)).encode())))
    corpus = load_corpus(CorpusRecipe(target=paths[:1], english=paths[1:]), "hu")
    assert not corpus.measuring_texts()[1]
    assert len(corpus.train["en"]) + len(corpus.heldout["en"]) == 60


def test_translations_with_names_for_ids_are_tied_however_long_they_are(write: Write) -> None:
    paths = []
    for code, factor in (("hu", 7), ("en", 11)):
        texts = [f"{code} {n}: " + "szó " * (n * factor % 60) for n in range(60)]
        rows = [json.dumps({"text": text, "id": f"Q{n}"}) for n, text in enumerate(texts)]
        paths.append(str(write(f"{code}.jsonl", "\n".join(rows).encode())))
    corpus = load_corpus(CorpusRecipe(target=paths[:1], english=paths[1:]), "hu")
    assert corpus.measuring_texts()[1]


def test_files_that_are_not_read_are_listed_beside_the_others(write: Write, tmp_path: Path) -> None:
    write("own/a.txt", b"egy\nsok\nten\n")
    write("own/README.md", b"about")
    corpus = load_corpus(CorpusRecipe(target=[f"{tmp_path}/own"], english=[BUILT_IN]), "hu")
    assert corpus.read.language.tolist() == ["hu", "hu", "en"]


@pytest.mark.parametrize("kind", ["sources", "a pattern"])
def test_each_text_is_tied_to_its_own_translation(kind: str, write: Write, tmp_path: Path) -> None:
    paths = {
        code: [
            str(
                write(
                    f"{part}/{code}.txt",
                    "\n".join(f"{part} {n} {code}" for n in range(30)).encode(),
                )
            )
            for part in ("books", "news")
        ]
        for code in ("hu", "en")
    }
    paths = paths if kind == "sources" else {code: [f"{tmp_path}/*/{code}.txt"] for code in paths}
    corpus = load_corpus(CorpusRecipe(target=paths["hu"], english=paths["en"]), "hu")
    held = {text.removesuffix(" hu") for text in corpus.heldout["hu"]["text"]}
    assert held == {text.removesuffix(" en") for text in corpus.heldout["en"]["text"]}
    pairs = zip(corpus.parallel["hu"], corpus.parallel["en"], strict=True)
    assert all(a.removesuffix(" hu") == b.removesuffix(" en") for a, b in pairs)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "hub"])
def test_one_file_of_translations_is_read_in_both_languages(
    kind: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "cache_folder", lambda: tmp_path / "cache")
    pairs = [{"en": a, "hu": b} for a, b in zip(lines("en"), lines("hu"), strict=True)]
    pairs[7] |= {"hu": ""}
    table = pd.DataFrame(pairs if kind == "csv" else {"translation": pairs})
    source = f"{write('own.' + kind, b'')}"
    if kind == "jsonl":
        table.to_json(source, orient="records", lines=True)
    elif kind == "hub":
        source = "hub:org/pairs:en-hu"
        rows = table.to_dict("records")
        monkeypatch.setattr(documents, "load_dataset", lambda *names, **where: rows)
    else:
        getattr(table, f"to_{kind}")(source, index=False)
    corpus = load_corpus(CorpusRecipe(target=[source], english=[source]), "hu")
    measured, parallel = corpus.measuring_texts()
    assert parallel and len(measured["hu"]) == len(measured["en"]) >= 11
    assert [text.replace("hu ", "en ") for text in measured["hu"]] == list(measured["en"])


def test_parts_of_one_document_are_on_one_side(write: Write) -> None:
    rows = [{"id": n % 10, "text": f"szöveg {n}"} for n in range(50)]
    path = write("own.jsonl", "\n".join(map(json.dumps, rows)).encode())
    corpus = load_corpus(CorpusRecipe(target=[str(path)], english=[BUILT_IN]), "hu")
    assert len(corpus.heldout["hu"]) == 10 and len(set(corpus.heldout["hu"]["id"])) == 2


def test_short_texts_that_others_quote_stop_nothing(write: Write) -> None:
    short = ["Köszönöm szépen", "Köszönöm szépen!", "Kellemes ünnepeket kívánok mindenkinek!"]
    long = [
        f"{one} Ezt mondta a szomszéd a {n}. napon, és még sok mást."
        for one in short
        for n in range(20)
    ]
    path = write("own.txt", "\n\n".join(short + long).encode())
    recipe = CorpusRecipe(target=[str(path)], english=[BUILT_IN], heldout_share=0.9)
    corpus = load_corpus(recipe, "hu")
    assert {*short} & {*corpus.heldout["hu"]["text"]}
    assert len(check_contamination(corpus))
    drop = recipe.model_copy(update={"contamination": "drop"})
    assert len(load_corpus(drop, "hu").heldout["hu"]) == len(corpus.heldout["hu"])


def test_a_copy_in_another_normal_form_is_found(write: Write) -> None:
    texts = [f"Árvíztűrő tükörfúrógép {n}, és a {n * n}. mondat erről." for n in range(40)]
    copies = [unicodedata.normalize("NFD", f"Újra: {text}") for text in texts]
    path = write("own.txt", "\n".join(texts + copies).encode())
    recipe = CorpusRecipe(target=[str(path)], english=[BUILT_IN], normal_form="as it is")
    with pytest.raises(CorpusError, match="test contamination"):
        check_contamination(load_corpus(recipe, "hu"))


def test_text_that_is_read_late_is_refused_early(write: Write) -> None:
    german = write("de.jsonl", b'{"title": "Name", "body": "Ein Text."}')
    for other, problem in ((f"de:{german}", "no column 'text'"), ("de:fineweb2", "max_megabytes")):
        with pytest.raises(CorpusError, match=problem):
            load_corpus(CorpusRecipe(english=[BUILT_IN], others=[other]), "hu")
    with pytest.raises(CorpusError, match="is no conversation"):
        load_corpus(CorpusRecipe(english=[BUILT_IN], chat=[str(german)]), "hu")


def test_long_texts_are_measured_by_their_beginnings(write: Write) -> None:
    novels = b"\n\n".join(b"%d " % n + b"sok szo " * 9_999 for n in range(9))
    corpus = load_corpus(
        CorpusRecipe(target=[str(write("own.txt", novels))], english=[BUILT_IN]), "hu"
    )
    assert max(map(len, corpus.measuring_texts()[0]["hu"])) == 20_000
