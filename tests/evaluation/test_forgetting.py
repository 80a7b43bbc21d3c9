import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import llama, saved
from langadapt_utils import hardware
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.corpus.items import OPTIONS, PATTERNS, load_items
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.evaluation import forgetting, generation
from langadapt_utils.evaluation.evaluate import score_items
from langadapt_utils.evaluation.forgetting import measure_gains, weight_drift
from langadapt_utils.languages import NO_LANGUAGE
from langadapt_utils.models import Base, load_base
from langadapt_utils.vocabulary.change import VocabularyChange


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "float32")


@pytest.mark.parametrize("kind", PATTERNS)
def test_a_pattern_has_one_right_answer_among_different_ones(kind: str) -> None:
    items = load_items(kind, NO_LANGUAGE)
    assert len(items) == 99
    assert not load_items(kind, "en")
    for item in items:
        numbers = [int(option) for option in item["options"]]
        assert len(set(numbers)) == OPTIONS and all(10 <= number < 100 for number in numbers)
        context, right = item["context"], numbers[item["label"]]
        if kind == "counting":
            shown = [int(number) for number in context.split()]
            assert right - shown[-1] == shown[1] - shown[0]
        elif kind == "mapping":
            pairs = dict(line.split(" = ") for line in context.splitlines()[:-1])
            assert pairs[context.splitlines()[-1].removesuffix(" =")] == str(right)
        else:
            first, second, last = context.splitlines()
            assert first == second == f"{last} {right}"
    assert {item["label"] for item in items} == set(range(OPTIONS))


@pytest.mark.base
def test_the_base_model_follows_patterns(base: Base) -> None:
    right = {
        kind: score_items(
            base.model, base.tokenizer, kind, load_items(kind, NO_LANGUAGE)[:12], "zxx"
        )
        for kind in PATTERNS
    }
    assert sum(right["copying"]) >= 11 and sum(right["mapping"]) >= 7


def test_drift_is_the_share_of_its_length_that_a_part_moved(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    start = initialise_embeddings(model, change)
    end = copy.deepcopy(start)
    with torch.no_grad():
        end.model.layers[1].mlp.up_proj.weight.mul_(1.1)
        end.model.layers[1].mlp.down_proj.weight.mul_(1.1)
        end.model.layers[1].mlp.gate_proj.weight.mul_(1.1)
        end.get_input_embeddings().weight[list(change.added)] += 5.0
    table = weight_drift(model, end, change).set_index(["layer", "part"]).drift
    assert table[1, "mlp"] == pytest.approx(0.1, rel=1e-4)
    assert (
        (table.drop((1, "mlp")) == 0).all()
        and (-1, "embed_tokens") in table
        and (0, "self_attn") in table
    )


def test_drift_of_weights_that_were_zero_is_a_number(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    with torch.no_grad():
        model.model.norm.weight.zero_()  # as those of Gemma begin
    end = initialise_embeddings(model, change)
    with torch.no_grad():
        end.model.norm.weight.add_(0.1)
    drift = weight_drift(model, end, change).drift
    assert drift.between(0, 1).all()


def test_gains_are_counted_in_characters(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    adapted = saved(
        initialise_embeddings(base.model, change), change.tokenizer, tmp_path / "adapted"
    )
    texts = list(corpora["hu"].heldout["hu"]["text"][:8])
    took = {"base": [1.0, 3.0, 2.0, 4.0, 1.0], "adapted": [4.0, 1.0, 1.0, 3.0, 2.0]}
    turns = iter(seconds for pair in zip(*took.values(), strict=True) for seconds in pair)

    def written(model: object, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        """Ten seconds for the prompt; of the four tokens after the first, one is slow."""
        each = next(turns)
        for wait in (0.0, 10.0, each, each, 60.0, each):
            clock[0] += wait
            options["streamer"].put(ids[:, -1])
        return torch.cat([ids, ids[:, :1].expand(1, 5)], dim=1)

    clock = [0.0]
    monkeypatch.setattr(forgetting.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(generation, "_written", written)
    table = measure_gains({"base": base, "adapted": adapted}, texts, new_tokens=4).set_index(
        "model"
    )
    for name, bundle in (("base", base), ("adapted", adapted)):
        tokens = [len(ids) for ids in bundle.tokenizer(texts)["input_ids"]]
        each, row = sum(map(len, texts)) / sum(tokens), table.loc[name]
        assert row.characters_per_token.value == pytest.approx(each)
        assert row.characters_per_token.low < each < row.characters_per_token.high
        assert row.context_in_characters == round(128 * each)
        assert row.tokens_per_second == pytest.approx(5 / sum(took[name]))
        whole = sum(n * seconds for n, seconds in zip(tokens[:5], took[name], strict=True))
        speed = row.characters_per_second
        assert speed.value == pytest.approx(sum(map(len, texts[:5])) / whole)
        assert speed.low < speed.value < speed.high and speed.units == 5
    before, after = table.characters_per_token
    assert after.value > 1.1 * before.value


def test_speed_is_that_of_the_models(tiny_folder: Path) -> None:
    base = load_base(str(tiny_folder))
    table = measure_gains({"base": base}, ["some words to begin with"] * 5, new_tokens=2)
    assert table.characters_per_second[0].value > 0
