import dataclasses
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from datasets import Dataset, concatenate_datasets
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.tiny import BUILT_IN_ONLY
from langadapt_utils.corpus import contamination
from langadapt_utils.corpus.contamination import find_contamination
from langadapt_utils.corpus.corpus import Corpus, check_contamination, load_corpus
from langadapt_utils.corpus.items import load_items
from langadapt_utils.errors import CorpusError
from langadapt_utils.files import data_folder, read_jsonl
from langadapt_utils.recipe import CorpusRecipe

Write = Callable[[str, bytes], Path]


def plainly(trained: list[str], test: str, gram: int) -> float:
    """The plain reference: sets of strings."""
    seen = {
        text[i : i + gram] for text in map(normal, trained) for i in range(len(text) - gram + 1)
    }
    grams = [normal(test)[i : i + gram] for i in range(len(normal(test)) - gram + 1)]
    if grams:
        return sum(one in seen for one in grams) / len(grams)
    short = len(normal(test)) >= gram / 5
    return float(any(normal(test) in normal(text) for text in trained)) if short else float("nan")


def normal(text: str) -> str:
    seen = regex.sub(r"\p{Default_Ignorable_Code_Point}|\u0640", "", text)
    seen = re.sub("[’‘ʼʻ`]", "'", unicodedata.normalize("NFKC", seen))
    seen = re.sub(r"\s+(?=[กิ])|(?<=[กิ])\s+", "", seen)
    return " ".join(seen.casefold().split())


WORDS = st.text(alphabet="ab ñกิ\u0301\u00ad\u0640’😀\n", max_size=60)


@given(st.lists(WORDS, max_size=5), WORDS, st.integers(1, 12), st.integers(1, 100))
def test_shares_are_those_of_sets_of_strings(
    trained: list[str], test: str, gram: int, at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "AT_ONCE", at_once)
        found = find_contamination(trained, {"test": test}, gram=gram)["test"]
    assert found == pytest.approx(plainly(trained, test, gram), nan_ok=True)


@given(st.text(max_size=200))
@example("\u00ad")  # a soft hyphen alone, which is no text
def test_any_text_may_be_checked(text: str) -> None:
    share = find_contamination([text], {"same": text}, gram=5)["same"]
    assert share == 1 or (np.isnan(share) and len(normal(text)) < 1)


def test_copies_are_found_behind_other_spaces_and_case() -> None:
    test = "The ferry left before dawn, and nobody on the quay could say who had untied it, or why."
    others = {"copy": test, "other": test[::-1], "short": "The ferry"}  # too short to say anything
    found = find_contamination(["Preface.  " + test.upper().replace(" ", "\n")], others)
    assert found["copy"] == 1 and found["other"] == 0 and np.isnan(found["short"])


def with_training_text(corpus: Corpus, language: str, text: str) -> Corpus:
    added = Dataset.from_list([{"id": "added", "source": "mine", "domain": "text", "text": text}])
    documents = concatenate_datasets([corpus.train[language], added])
    return dataclasses.replace(corpus, train=corpus.train | {language: documents})


def test_the_built_in_corpus_is_not_contaminated(corpora: dict[str, Corpus]) -> None:
    for language, corpus in corpora.items():
        table = check_contamination(corpus)
        assert (
            set(table.language) == {"en", language} and (table.largest_share.dropna() < 0.5).all()
        )
        assert {"held-out documents", "items: cloze"} <= set(table.measured_on)


def test_a_held_out_document_in_the_training_text_is_named(corpora: dict[str, Corpus]) -> None:
    held = corpora["hu"].heldout["hu"][3]
    contaminated = with_training_text(
        corpora["hu"], "hu", f"Egy új gyűjtemény. {held['text'].upper()} Vége."
    )
    with pytest.raises(
        CorpusError,
        match=rf"'{held['id']}' of the held-out documents \(hu\) also occurs in the training text",
    ):
        check_contamination(contaminated)


def test_an_item_in_the_training_text_is_named(corpora: dict[str, Corpus]) -> None:
    item = max(load_items("cloze", "th"), key=lambda item: len(item["context"]))
    contaminated = with_training_text(corpora["th"], "th", f"{item['context']} {item['target']}")
    with pytest.raises(CorpusError, match=rf"'{item['id']}' of the items: cloze \(th\)"):
        check_contamination(contaminated)


def test_a_short_item_is_looked_for_whole_and_stops_nothing(corpora: dict[str, Corpus]) -> None:
    """Anybody's text may ask what your name is."""
    item = min(load_items("pairs", "th"), key=lambda item: len(item["good"]))
    assert len(item["good"]) < contamination.GRAM
    quoted = with_training_text(corpora["th"], "th", f"ก่อน {item['good']} หลัง")
    shares = [
        table[table.measured_on == "items: pairs"].set_index("language").largest_share["th"]
        for table in map(check_contamination, (corpora["th"], quoted))
    ]
    assert shares == [0, 1]


def test_an_item_cannot_be_dropped(corpora: dict[str, Corpus]) -> None:
    item = max(load_items("cloze", "th"), key=lambda item: len(item["context"]))
    contaminated = with_training_text(corpora["th"], "th", f"{item['context']} {item['target']}")
    with pytest.raises(CorpusError, match=r"remove the copies$"):
        check_contamination(contaminated)


def test_copies_in_ones_own_text_stop_or_are_dropped(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    texts = [
        f"Document {i}. " + f"Number {i} tells of {i * i} things that happened in year {i}. " * 3
        for i in range(40)
    ]
    texts += [f"Again. {text}" for text in texts[:20]]  # copies are on both sides of the split
    path.write_text("\n\n".join(texts), encoding="utf-8")
    recipe = CorpusRecipe(target=[str(path)], english=["builtin"])
    with pytest.raises(CorpusError, match=r"or set corpus\.contamination=drop"):
        check_contamination(load_corpus(recipe, "hu"))
    dropped = load_corpus(recipe.model_copy(update={"contamination": "drop"}), "hu")
    check_contamination(dropped)
    assert 0 < len(dropped.heldout["hu"]) < len(load_corpus(recipe, "hu").heldout["hu"])


def test_copies_with_invisible_characters_are_found() -> None:
    text = "A language that nobody wrote down, but everybody sang in the evening."
    marked = text.replace("a", "a\u00ad").replace("n", "n\u200b")
    assert find_contamination([marked], {"copy": text})["copy"] == 1.0


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("П’ять років тому в цьому м’якому кліматі не було жодного лісу.", str.maketrans("’", "'")),
        ("O'zbek tili bo'yicha yangi so'zlar lug'ati bugun bosilib chiqdi.", {39: "\u02bb"}),
        ("Această țară își păstrează tradițiile și le învață pe copiii ei.", {537: 351, 539: 355}),
        ("كتب المعلم الدرس الجديد على السبورة وقرأه التلاميذ في الصباح.", {1604: "ل\u0640"}),
        (
            "Árvízt\u0171r\u0151 tükörfúrógép a hegyen túl, ahol senki sem hallja.",
            {252: "u\u0308\u00ad"},
        ),
    ],
)
def test_copies_with_other_signs_for_the_same_letters_are_found(
    text: str, copied: dict[int, int | str]
) -> None:
    other = text.translate(copied)
    assert other != text and find_contamination([other], {"copy": text})["copy"] == 1.0


@pytest.mark.parametrize("place", ["English", "target", "chat"])
def test_copies_in_any_training_text_stop_or_are_dropped(place: str, write: Write) -> None:
    """Not only in the text of the same language."""
    held = load_corpus(BUILT_IN_ONLY, "hu").heldout
    own = [f"Sentence {n} about the number {n * n}, and {n + 3} more." for n in range(60)]
    copies = list(held["en" if place == "target" else "hu"]["text"])
    if place == "chat":
        rows = [{"prompt": "Mesélj!", "response": text} for text in copies]
        path = write("chat.jsonl", "\n".join(map(json.dumps, rows)).encode())
        options: dict[str, Any] = {"chat": [str(path)]}
    else:
        path = write("text.txt", "\n\n".join([*own, *copies]).encode())
        options = {"english" if place == "English" else "target": ["builtin", str(path)]}
    recipe = BUILT_IN_ONLY.model_copy(update=options)
    with pytest.raises(CorpusError, match="also occurs in the training text"):
        check_contamination(load_corpus(recipe, "hu"))
    dropping = recipe.model_copy(update={"contamination": "drop"})
    if place == "chat":  # the built-in items stay, but no document does
        with pytest.raises(CorpusError, match="all held-out text"):
            load_corpus(dropping, "hu")
    else:
        check_contamination(load_corpus(dropping, "hu"))


@pytest.mark.parametrize("change", [str, str.upper, "{}\n".format, " {} ".format])
def test_prompts_of_the_evaluation_are_not_learned(
    change: Callable[[str], str], write: Write
) -> None:
    asked = [row["prompt"] for row in read_jsonl(data_folder() / "eval_chat.jsonl")]
    rows = [{"prompt": change(prompt), "response": "x"} for prompt in [*asked, "Mi újság?"]]
    path = write("chat.jsonl", "\n".join(map(json.dumps, rows)).encode())
    recipe = BUILT_IN_ONLY.model_copy(update={"chat": [str(path)]})
    (left,) = load_corpus(recipe, "hu").chat["text"]
    assert "újság" in left.lower()


def test_a_short_text_amid_spaces_is_no_contamination(write: Write) -> None:
    long = [f"Mondat {n}, és a {n * n}. oldal. Köszönöm szépen. Jó napot." for n in range(40)]
    short = ["\n" + " " * 30 + text + "\n" * 30 for text in ("Köszönöm szépen.", "Jó napot.")]
    rows = "\n".join(json.dumps({"text": text}) for text in long + short)
    target = [str(write("own.jsonl", rows.encode()))]
    recipe = BUILT_IN_ONLY.model_copy(update={"target": target, "heldout_share": 0.9})
    corpus = load_corpus(recipe, "hu")
    assert {"\n" + " " * 30} & {text[:31] for text in corpus.heldout["hu"]["text"]}
    check_contamination(corpus)
