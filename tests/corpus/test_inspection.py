import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from langadapt_utils.corpus.corpus import Corpus, load_corpus
from langadapt_utils.corpus.inspection import inspect_text
from langadapt_utils.recipe import BUILT_IN, CorpusRecipe

Write = Callable[[str, bytes], Path]


@pytest.mark.parametrize("language", ["hu", "th"])
def test_the_built_in_text_is_clean(language: str, corpora: dict[str, Corpus]) -> None:
    found = inspect_text(corpora[language]).set_index("language")
    assert list(found.index) == [language, "en"]
    assert (found.in_script > 0.99).all() and (found.in_language > 0.99).all()
    assert (found[["repeats", "near_repeats", "odd_characters"]] == 0).all().all()
    assert (found.documents == 170).all()


def test_what_is_wrong_with_a_text_is_counted(write: Write, corpora: dict[str, Corpus]) -> None:
    hungarian = corpora["hu"].train["hu"]["text"][:30]
    english = corpora["hu"].train["en"]["text"][:10]
    broken = ["Egy \ufffd törött\x00 mondat, amely elég hosszú ahhoz, hogy felismerjék."] * 2
    texts = [*hungarian, hungarian[0].upper(), f"Forrás: lap. {hungarian[1]}", *english, *broken]
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    path = write("own.jsonl", lines.encode())
    found = inspect_text(
        load_corpus(CorpusRecipe(target=[str(path)], english=[BUILT_IN]), "hu")
    ).set_index("language")
    hu = found.loc["hu"]
    assert hu.repeats == 2 and hu.near_repeats == 1 and hu.documents == 41
    assert hu.in_language == pytest.approx(31 / 41, abs=0.03) and hu.odd_characters > 0
    assert hu.longest == max(map(len, texts[:-3]))


def test_a_language_that_nobody_identifies_has_no_share(write: Write) -> None:
    lines = "\n".join(f"{unicodedata.name(chr(65 + n))} is a line of its own" for n in range(20))
    path = write("own.txt", lines.encode())
    corpus = load_corpus(CorpusRecipe(target=[str(path)], english=[BUILT_IN]), "qqq")
    found = inspect_text(corpus).set_index("language").in_language
    assert found.isna().tolist() == [True, False]
