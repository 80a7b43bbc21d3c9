"""Translations: which texts belong together, and stay on one side of the split."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from langadapt_utils.corpus.corpus import load_corpus
from langadapt_utils.errors import CorpusError
from langadapt_utils.recipe import CorpusRecipe

Write = Callable[[str, bytes], Path]


def test_a_few_ids_that_occur_in_both_languages_tie_nothing(write: Write) -> None:
    """Numbered rows, and an English encyclopedia with articles about the numbers 0 and 1."""
    rows = [{"id": n, "text": f"A {n}. mondat a {n * n}. oldalon."} for n in range(200)]
    target = write("own.jsonl", "\n".join(map(json.dumps, rows)).encode())
    names = ["0", "1", *(f"Article {n}" for n in range(200))]
    articles = [{"id": name, "text": f"{name} is the subject of this text."} for name in names]
    english = write("articles.jsonl", "\n".join(map(json.dumps, articles)).encode())
    corpus = load_corpus(CorpusRecipe(target=[str(target)], english=[str(english)]), "hu")
    texts, parallel = corpus.measuring_texts()
    assert not parallel and len(texts["hu"]) == 40


@pytest.mark.parametrize("apart", [False, True])
def test_translations_stay_tied_where_a_limit_ends_the_reading(apart: bool, write: Write) -> None:
    """The limit counts bytes, so the languages end at other rows, in one file or in two."""
    rows = [
        (f"Sentence {n} " + "word " * (n % 19), f"Mondat {n} " + "szavacska " * (n % 19))
        for n in range(2_000)
    ]
    sources = [write("pairs.tsv", "\n".join(["en\thu", *map("\t".join, rows)]).encode())] * 2
    if apart:
        sources = [
            write(f"{code}.txt", "\n".join(texts).encode())
            for code, texts in zip(("en", "hu"), zip(*rows, strict=True), strict=True)
        ]
    english, target = map(str, sources)
    recipe = CorpusRecipe(target=[target], english=[english], max_megabytes=0.05)
    corpus = load_corpus(recipe, "hu")
    held, trained = (
        {text.split()[1] for text in texts}
        for texts in (corpus.heldout["hu"]["text"], corpus.train["en"]["text"])
    )
    assert corpus.measuring_texts()[1] and held and not held & trained


@pytest.mark.parametrize(
    ("own", "english"),
    [
        ("{n}", "{n}.0"),  # pandas makes fractions of a column with a gap
        ("{n:05d}", "{n}"),  # spreadsheets drop zeros
        ("{n}", "{n}.00"),
        ("cikk {n}", " cikk {n} "),
        ("\u00e1rv\u00edz {n}", "a\u0301rvi\u0301z {n}"),  # as macOS writes names of files
    ],
)
def test_an_id_is_found_again_in_other_forms(own: str, english: str, write: Write) -> None:
    paths = []
    for code, name in (("hu", own), ("en", english)):
        order = sorted(range(200), key=lambda n: (n * 7919) % (211 if code == "hu" else 223))
        rows = [
            {"id": name.format(n=n), "text": f"{n} {code} " + "word " * (n % 19)} for n in order
        ]
        paths.append(write(f"{code}.jsonl", "\n".join(map(json.dumps, rows)).encode()))
    recipe = CorpusRecipe(target=[str(paths[0])], english=[str(paths[1])])
    corpus = load_corpus(recipe, "hu")
    held = {text.split()[0] for text in corpus.heldout["hu"]["text"]}
    assert held and not held & {text.split()[0] for text in corpus.train["en"]["text"]}


def test_rows_that_are_skipped_keep_the_places_of_the_others(write: Write) -> None:
    rows = [
        f"Sentence {n} " + "word " * (n % 19) + f"\tMondat {n} " + "szó " * (n % 19)
        for n in range(200)
    ]
    rows[50] = "Sentence 50 without a translation"
    path = str(write("pairs.tsv", "\n".join(["en\thu", *rows]).encode()))
    recipe = CorpusRecipe(target=[path], english=[path], skip_bad=0.1)
    corpus = load_corpus(recipe, "hu")
    texts, parallel = corpus.measuring_texts()
    assert parallel and len(texts["en"]) == len(corpus.heldout["hu"])
    for english, own in zip(texts["en"], texts["hu"], strict=True):
        assert english.split()[1] == own.split()[1]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("place", [0, 40, 150])
def test_unreadable_lines_keep_the_places_of_the_others(
    kind: str, place: int, write: Write
) -> None:
    texts = {
        code: [f"{code} text {n}, {'x' * (n * 7 % 40)}." for n in range(160)]
        for code in ("en", "hu")
    }
    if kind == "jsonl":
        texts = {code: [json.dumps({"text": t}) for t in every] for code, every in texts.items()}
    lines = {code: [text.encode() for text in every] for code, every in texts.items()}
    lines["hu"][place] = lines["hu"][place].replace(b"text", b"sz\xf6veg")
    head = [b"sentence"] if kind == "csv" else []
    if kind == "csv":
        lines = {c: [b'"' + line + b'"' for line in every] for c, every in lines.items()}
    english, target = (
        str(write(f"{code}.{kind}", b"\n".join([*head, *lines[code]]))) for code in ("en", "hu")
    )
    corpus = load_corpus(CorpusRecipe(target=[target], english=[english], skip_bad=0.01), "hu")
    texts, parallel = corpus.measuring_texts()
    assert parallel
    for one, other in zip(texts["en"], texts["hu"], strict=True):
        assert one.split()[2] == other.split()[2]


def test_texts_of_one_length_that_are_read_in_part_are_no_translations(write: Write) -> None:
    lines = "\n".join(json.dumps({"text": f"{n:04} " + "x" * 995}) for n in range(200)).encode()
    paths = [
        write(f"{name}.jsonl", lines.replace(b"x", name[-1:].encode())) for name in ("ab", "cd")
    ]
    target, english = map(str, paths)
    for limit, tied in (
        (0.0, True),
        (0.05, False),
    ):  # equally many rows are a sign, a limit is none
        recipe = CorpusRecipe(target=[target], english=[english], max_megabytes=limit)
        assert load_corpus(recipe, "hu").measuring_texts()[1] == tied


@pytest.mark.parametrize("kind", ["one file", "a column for the language"])
def test_one_text_for_both_languages_is_refused(kind: str, write: Write) -> None:
    rows = [
        {"lang": code, "text": f"{code} {n} {'x' * n}"} for n in range(30) for code in ("en", "hu")
    ]
    lines = [json.dumps(row if kind != "one file" else {"text": row["text"]}) for row in rows]
    path = str(write("both.jsonl", "\n".join(lines).encode()))
    with pytest.raises(CorpusError, match="'hu' and 'en' have the same text: name two sources"):
        load_corpus(CorpusRecipe(target=[path], english=[path], others=[]), "hu")


@pytest.mark.parametrize("named", ["both", "one"])
def test_lines_with_ids_of_their_own_are_translations_by_their_order(
    named: str, write: Write
) -> None:
    rows = {
        code: [
            {"id": f"{code}-{n}", "text": f"{code} {n} {'x' * (n * 7 % 40)}"} for n in range(120)
        ]
        for code in ("en", "hu")
    }
    if named == "one":
        rows["en"] = [{"text": row["text"]} for row in rows["en"]]
    english, target = (
        str(write(f"{code}.jsonl", "\n".join(map(json.dumps, rows[code])).encode()))
        for code in ("en", "hu")
    )
    corpus = load_corpus(CorpusRecipe(target=[target], english=[english]), "hu")
    texts, parallel = corpus.measuring_texts()
    assert parallel
    for one, other in zip(texts["en"], texts["hu"], strict=True):
        assert one.split()[1] == other.split()[1]


def test_a_sentence_without_a_translation_keeps_the_places_of_the_others(write: Write) -> None:
    """An empty line among lines of translations does not separate documents."""
    lines = {
        code: [f"{word} {n} " + "x" * (n % 90) for n in range(300)]
        for code, word in (("en", "Sentence"), ("hu", "Mondat"))
    }
    lines["hu"][150] = ""
    paths = {code: write(f"{code}.txt", "\n".join(own).encode()) for code, own in lines.items()}
    recipe = CorpusRecipe(target=[str(paths["hu"])], english=[str(paths["en"])])
    corpus = load_corpus(recipe, "hu")
    texts, parallel = corpus.measuring_texts()
    assert parallel
    numbers = [[text.split()[1] for text in texts[code]] for code in ("en", "hu")]
    assert numbers[0] == numbers[1]
    held = {text.split()[1] for text in corpus.heldout["hu"]["text"]}
    assert held and not held & {text.split()[1] for text in corpus.train["en"]["text"]}
