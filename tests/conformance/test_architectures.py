"""Every causal architecture of `transformers` goes the whole path, or is refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from helpers.architectures import ARCHITECTURES, tiny_model
from helpers.tiny import reply
from langadapt_utils import hardware
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import LangadaptError
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.evaluate import score_items
from langadapt_utils.evaluation.forgetting import measure_gains, weight_drift
from langadapt_utils.evaluation.likelihood import bits_per_byte, token_bits
from langadapt_utils.models import Base, load_base, save_model, weight_files
from langadapt_utils.recipe import MixtureRecipe, TrainingRecipe
from langadapt_utils.training.mixture import Mixture, mix
from langadapt_utils.training.train import Training, save_adapted, train
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

TABLE = Path(__file__).parents[2] / "docs" / "models.md"
STEPS, LENGTH = 3, 32
RECIPE = TrainingRecipe(
    batch_tokens=2 * LENGTH,
    micro_batch_tokens=LENGTH,
    precision="float32",
    attention="sdpa",
    learning_rate=1e-3,
    checkpoint_minutes=1e-9,  # one after each step
    interpolation=1.0,
)


@dataclass(frozen=True)
class Outcome:
    """What became of an architecture, as a row of the table."""

    kind: str
    outcome: str
    attention: str = ""
    apart: str = ""

    def __str__(self) -> str:
        return f"| {self.kind} | {self.outcome} | {self.attention} | {self.apart} |"


class Stopped(Exception):
    """Stands for a process that dies between two steps."""


@pytest.fixture(scope="module")
def small(tokenizer: Tokenizer, corpora: dict[str, Corpus]) -> VocabularyChange:
    return extend_vocabulary(tokenizer, corpora["hu"].train["hu"]["text"], tokens=20)


@pytest.fixture(scope="module")
def mixture(small: VocabularyChange, corpora: dict[str, Corpus]) -> Mixture:
    recipe = MixtureRecipe(sequence_length=LENGTH, english_share=0.5)
    return mix(corpora["hu"], small.tokenizer, recipe, budget_tokens=STEPS * 2 * LENGTH)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    """The rows of the table; written to the file where `UPDATE_ARCHITECTURES` is set."""
    rows: dict[str, Outcome] = {}
    yield rows
    if os.environ.get("UPDATE_ARCHITECTURES"):
        text = TABLE.read_text(encoding="utf-8").partition("| architecture")[0]
        lines = [
            "| architecture | outcome | attention | documents kept apart |",
            "|---|---|---|---|",
        ]
        lines += [str(rows[kind]) for kind in sorted(rows)]
        TABLE.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.conformance
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_works_or_is_refused_by_name(
    kind: str,
    small: VocabularyChange,
    tokenizer: Tokenizer,
    mixture: Mixture,
    corpora: dict[str, Corpus],
    outcomes: dict[str, Outcome],
    tmp_path: Path,
) -> None:
    model = tiny_model(kind, len(tokenizer))
    if model is None:
        pytest.skip(f"no tiny configuration of {kind} builds")
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    try:
        base = load_base(str(tmp_path / "base"))
        read = base.model
    except LangadaptError as error:
        assert kind in str(error) and "\n" not in str(error)
        outcomes[kind] = Outcome(kind, f"refused: {reason(error)}")
    else:
        start = extended(read, small)
        result = trained_twice(start, small, mixture, tmp_path)
        measured(base, result.model, small, mixture, corpora["hu"], tmp_path)
        apart = bool(result.settings["documents separate"])
        if apart:
            assert neighbour_changes(result.model, str(result.settings["attention"])) < 1e-4
        settings = str(result.settings["attention"]), "yes" if apart else "no"
        with_pictures = hasattr(model.config, "text_config")
        alone = with_pictures and read.config.model_type != kind
        works = "works, its language model alone" if alone else "works"
        outcomes[kind] = Outcome(kind, works, *settings)
    assert str(outcomes[kind]) in recorded() or os.environ.get("UPDATE_ARCHITECTURES")


def reason(error: LangadaptError) -> str:
    reasons = "no causal language model", "reads in both directions", "cannot load again by itself"
    for words in reasons:
        if words in str(error):
            return words
    return "cannot be loaded"


def extended(model: PreTrainedModel, change: VocabularyChange) -> PreTrainedModel:
    """The model with embeddings for the new tokens; old ones and old logits are what they were."""
    start = initialise_embeddings(model, change)
    old, new = model.get_input_embeddings().weight, start.get_input_embeddings().weight
    kept = torch.tensor(sorted(change.new_to_old))
    assert torch.equal(new[kept], old[kept])
    for table, before in tables(start, model):
        for token, pieces in change.base_pieces.items():
            mean = before[list(pieces)].float().mean(dim=0)
            assert torch.allclose(table[token].float(), mean, atol=2e-2 * float(mean.norm()) + 1e-6)
    ids = kept[5:21][None]
    with torch.no_grad():
        before, after = (m(input_ids=ids, use_cache=False).logits for m in (model, start))
    size = float(before.abs().max())
    assert torch.allclose(before[..., kept], after[..., kept], atol=1e-4 * size)
    assert tied(model) == tied(start)
    return start


def tables(
    start: PreTrainedModel, before: PreTrainedModel
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every table of a model that has a row per token, and what it was before."""
    rows = before.get_input_embeddings().weight.shape[0]
    old = {name: m for name, m in before.named_modules() if isinstance(m, torch.nn.Embedding)}
    new = dict(start.named_modules())
    per_token = [name for name, m in old.items() if m.num_embeddings == rows]
    pairs = [(new[name].weight, old[name].weight) for name in per_token]
    heads = start.get_output_embeddings(), before.get_output_embeddings()
    return [*pairs, (heads[0].weight, heads[1].weight)]


def tied(model: PreTrainedModel) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def trained_twice(
    start: PreTrainedModel, change: VocabularyChange, mixture: Mixture, folder: Path
) -> Training:
    """Train; stop and resume in another folder, to the same weights; nothing else moved."""
    before = {name: weight.clone() for name, weight in start.named_parameters()}
    whole = train(start, change, mixture, RECIPE, folder / "whole")

    def stop(record: dict[str, object]) -> None:
        if record.get("step") == STEPS:
            raise Stopped

    with pytest.raises(Stopped):
        train(start, change, mixture, RECIPE, folder / "halves", report=stop)
    assert list((folder / "halves").glob("checkpoint-*"))
    resumed = train(start, change, mixture, RECIPE, folder / "halves")
    for name, weight in whole.model.named_parameters():
        other = dict(resumed.model.named_parameters())[name]
        assert torch.allclose(weight, other, atol=1e-6), name
    assert all(torch.equal(weight, before[name]) for name, weight in start.named_parameters())
    assert len(whole.steps) == STEPS and tied(whole.model) == tied(start)
    return whole


def measured(
    base: Base,
    model: PreTrainedModel,
    change: VocabularyChange,
    mixture: Mixture,
    corpus: Corpus,
    folder: Path,
) -> None:
    """Save, read again with stock classes, and measure what notebook 5 measures."""
    stage = folder / "stage"
    stage.mkdir()
    save_adapted(model, [], change, stage, base)
    place = stage / "publish" / "model"
    stock = AutoModelForCausalLM.from_pretrained(place).eval()
    ids = torch.tensor(mixture[0]["input_ids"])[None]
    with torch.no_grad():
        logits = [m(input_ids=ids, use_cache=False).logits for m in (model, stock)]
    assert torch.allclose(*logits, atol=1e-4 * float(logits[0].abs().max()))
    text = "Egy kis szöveg, amit mindkettő olvas."
    read = AutoTokenizer.from_pretrained(place)(text, add_special_tokens=False)["input_ids"]
    assert read == change.tokenizer(text, add_special_tokens=False)["input_ids"]
    adapted = load_base(str(place))
    assert tied(adapted.model) == tied(base.model)
    in_the_precision_of_the_base(base, model, change, folder)
    texts = corpus.heldout["hu"]["text"][:2]
    for each in (base, adapted):
        reads_together_as_alone(each.model)
        score = bits_per_byte(each.model, each.tokenizer, texts, window_bytes=128)
        assert 0 < score.value < 100
        items = [{"good": "A ház nagy.", "bad": "Ház a nagy."}]
        assert len(score_items(each.model, each.tokenizer, "pairs", items, "hu")) == 1
        assert reply(each.model, each.tokenizer, "A ház", 4, do_sample=False).tokens > 0
    drift = weight_drift(base.model, adapted.model, change)
    assert np.isfinite(drift.drift).all()
    assert (weight_drift(base.model, base.model, change).drift == 0).all()
    gains = measure_gains({"base": base, "adapted": adapted}, texts, new_tokens=2)
    assert all(speed.value > 0 for speed in gains.characters_per_second)


def reads_together_as_alone(model: PreTrainedModel) -> None:
    """Answers after one context have the bits that each has alone, in a tree or in a batch."""
    pairs = [(list(range(3, size)), [answer, 4]) for size in (60, 90) for answer in (5, 6, 7)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "native_precision", lambda: "float32")
        patch.setattr(likelihood, "TREE_TOKENS", 112)
        patch.setattr(likelihood, "DEEPEST", 98)
        together = token_bits(model, pairs)
        alone = [token_bits(model, [pair])[0] for pair in pairs]
    for bits, expected in zip(together, alone, strict=True):
        assert bits == pytest.approx(expected, rel=1e-3)


def in_the_precision_of_the_base(
    base: Base, model: PreTrainedModel, change: VocabularyChange, folder: Path
) -> None:
    """Each weight has the precision that it has in the base, and no weight is saved twice."""
    half = folder / "half"
    AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.bfloat16).save_pretrained(half)
    save_model(model, change.tokenizer, folder / "saved", half)
    sizes, types = [], []
    for place in (half, folder / "saved"):
        (file,) = weight_files(place)
        with safe_open(file, framework="pt") as weights:
            read = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
        floating = {name: weight for name, weight in read.items() if weight.is_floating_point()}
        sizes.append(sum(weight.nbytes for weight in floating.values()))
        types.append({name: weight.dtype for name, weight in floating.items()})
    # A few, such as biases of experts, stay in float32.
    assert types[0] == types[1] and torch.bfloat16 in types[1].values()
    grown = sum(p.nbytes for p in model.parameters()) / sum(
        p.nbytes for p in base.model.parameters()
    )
    assert sizes[1] <= 1.01 * grown * sizes[0]


def neighbour_changes(model: PreTrainedModel, attention: str) -> float:
    """By how much of their size the logits of a document change with the one before it."""
    model.set_attn_implementation(attention)
    positions = torch.tensor([[*range(6), *range(8)]])
    documents = [torch.tensor([[*first, *range(20, 28)]]) for first in (range(3, 9), range(40, 46))]
    with torch.no_grad():
        read = [
            model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 6:]
            for ids in documents
        ]
    return float((read[0] - read[1]).abs().max() / read[0].abs().max())


def recorded() -> list[str]:
    return TABLE.read_text(encoding="utf-8").splitlines()


def test_nearly_all_work_and_the_table_says_which() -> None:
    rows = [line.split(" | ") for line in recorded() if line.startswith("| ")][1:]
    done = [row for row in rows if row[1] == "works" or row[1].startswith("refused: ")]
    assert len(rows) > 140 and len(done) >= 0.95 * len(rows)
    assert sum(row[1] == "works" for row in rows) > 0.8 * len(rows)
