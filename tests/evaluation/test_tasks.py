"""The tasks for lm-eval in `data/tasks`: its own command finds them, and reads what we score."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils import hardware
from langadapt_utils.corpus.items import load_items
from langadapt_utils.errors import RecipeError
from langadapt_utils.evaluation.evaluate import score_items
from langadapt_utils.evaluation.likelihood import document_bits
from langadapt_utils.files import data_folder
from langadapt_utils.models import Base
from langadapt_utils.tokens import document_start

ITEMS = 12
TASKS = data_folder() / "tasks"
PUBLISHED = runpy.run_path(str(TASKS / "published" / "published.py"))
hulu, thai_exam = PUBLISHED["hulu"], PUBLISHED["thai_exam"]
BUILT_IN = runpy.run_path(str(TASKS / "builtin" / "builtin.py"))
built_in = BUILT_IN["built_in"]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "float32")


@pytest.fixture
def tiny(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Base:
    return saved(llama(len(tokenizer)), tokenizer, tmp_path / "tiny")


def answers(base: Base, tasks: list[str], **metadata: str) -> dict[str, list[dict[str, Any]]]:
    """What `lm_eval` finds of each item: by its task, in the order of the items."""
    known = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    start = document_start(base.tokenizer)
    model = HFLM(base.model, tokenizer=base.tokenizer, prefix_token_id=start, batch_size=16)
    options = {"limit": ITEMS, "bootstrap_iters": 0, "log_samples": True}
    return dict(simple_evaluate(model, tasks=tasks, task_manager=known, **options)["samples"])


def test_lm_eval_gives_the_answers_that_we_give(tiny: Base) -> None:
    """The same items by the other way of scoring: the same answers, but for ties of rounding."""
    found = answers(tiny, ["langadapt_hu", "langadapt_copying"])
    kinds = ["choice_cause", "choice_next", "cloze", "pairs"]
    assert set(found) == {"langadapt_copying", *(f"langadapt_{kind}_hu" for kind in kinds)}
    assert {len(samples) for samples in found.values()} == {ITEMS}
    options = {name: len(samples[0]["filtered_resps"]) for name, samples in found.items()}
    assert options["langadapt_cloze_hu"] == options["langadapt_copying"] == 4
    assert options["langadapt_choice_cause_hu"] == options["langadapt_pairs_hu"] == 2
    for name, metric, items, language in [
        ("langadapt_cloze_hu", "acc_bytes", load_items("cloze", "hu"), "hu"),
        ("langadapt_pairs_hu", "acc", load_items("pairs", "hu"), "hu"),
        ("langadapt_copying", "acc", load_items("copying", "zxx"), "zxx"),
    ]:
        ours = score_items(tiny.model, tiny.tokenizer, name.split("_")[1], items, language)[:ITEMS]
        theirs = [bool(sample[metric]) for sample in found[name]]
        assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= ITEMS - 1, name


def test_bits_per_byte_are_those_of_lm_eval(tiny: Base) -> None:
    texts = [
        "A short text.",
        "Egy másik, árvíztűrő szöveg, hosszabb is.",
        "ข้อความ",
        "Once more, with some words " * 3,
    ]
    model = HFLM(
        pretrained=tiny.model,
        tokenizer=tiny.tokenizer,
        prefix_token_id=document_start(tiny.tokenizer),
        batch_size=2,
    )
    asked = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    sizes = [len(text.encode()) for text in texts]
    theirs = bits_per_byte(list(zip(model.loglikelihood_rolling(asked), sizes, strict=True)))
    ours = document_bits(tiny.model, tiny.tokenizer, texts).sum() / sum(sizes)
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("language", ["en", "hu", "th"])
def test_every_built_in_item_is_in_a_task(language: str) -> None:
    stories = [len(built_in(f"choice_{part}", language)["test"]) for part in ("cause", "next")]
    assert sum(stories) == len(load_items("choice", language)) and min(stories) > 20
    for kind in ("cloze", "pairs"):
        assert len(built_in(kind, language)["test"]) == len(load_items(kind, language))


def test_lm_eval_finds_every_task() -> None:
    known = TaskManager(include_path=str(TASKS), include_defaults=False)
    files = {path.stem for path in TASKS.rglob("*.yaml")}
    assert files == set(known.all_tasks) and len(files) == 12 + 3 + 6 + 5 + 6
    assert set(known.load(["langadapt_hu", "langadapt_patterns"])["tasks"]) < files


ROWS = {
    "HuCOLA": ({"Sent_id": "dev_0", "Sent": "Esik az eső.", "Label": "1"}, "igen"),
    "HuCoPA": (
        {
            "question": "cause",
            "premise": "Esik.",
            "choice1": "Nyár van.",
            "choice2": "Felhős az ég.",
            "label": "2",
        },
        "felhős az ég.",
    ),
    "HuRTE": ({"premise": "Esik az eső.", "hypothesis": "Süt a nap.", "label": 0}, "nem"),
    "HuSST": ({"Sent": "Remek film.", "Label": "positive"}, "pozitív."),
    "HuWNLI": ({"sentence1": "Esik.", "sentence2": "Nedves.", "Label": 1}, "igen"),
    "HuCB": ({"premise": "Esik.", "hypothesis": "Süt.", "label": "contradiction"}, "hamis"),
}


@pytest.mark.parametrize("name", ROWS)
def test_hulu_is_read_from_downloads(name: str, tmp_path: Path) -> None:
    row, answer = ROWS[name]
    (tmp_path / name / "data").mkdir(parents=True)
    (tmp_path / name / "data" / "validation.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (tmp_path / name / "data" / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (item,) = hulu(name, str(tmp_path))["test"]
    assert item["choices"][item["label"]] == answer and item["context"]


def test_tasks_read_downloads_through_lm_eval(tiny: Base, tmp_path: Path) -> None:
    """As `lm_eval --include_path data/tasks --metadata '{"folder": "FOLDER"}'` does."""
    row, _ = ROWS["HuSST"]
    (tmp_path / "HuSST_dev.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (sample,) = answers(tiny, ["langadapt_husst"], folder=str(tmp_path))["langadapt_husst"]
    assert sample["target"] == 2 and len(sample["filtered_resps"]) == 3


def test_thai_exams_are_read_from_downloads(tmp_path: Path) -> None:
    row = {
        "question": "ข้อใดถูก",
        "a": "หนึ่ง",
        "b": "สอง",
        "c": "สาม",
        "d": "สี่",
        "e": "",
        "answer": "c",
    }
    (tmp_path / "tonet").mkdir()
    (tmp_path / "tonet" / "ponet_test.jsonl").write_text('{"question": "another exam"}')
    (tmp_path / "onet_test.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (item,) = thai_exam("onet", str(tmp_path))["test"]
    assert (
        item["choices"] == ["a", "b", "c", "d"]
        and item["label"] == 2
        and "b. สอง" in item["context"]
    )


def test_downloads_that_are_missing_or_others_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no file of HuSST"):
        hulu("HuSST", str(tmp_path))
    (tmp_path / "HuSST_dev.jsonl").write_text('{"text": "x"}', encoding="utf-8")
    with pytest.raises(RecipeError, match="no field Sent or sentence, only text"):
        hulu("HuSST", str(tmp_path))
