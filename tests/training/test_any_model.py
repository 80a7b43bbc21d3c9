"""Models as people have them: how documents end, and what a folder goes on from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.architectures import tiny_model
from helpers.tiny import llama, reply, saved
from helpers.training import RECIPE, stop_at
from langadapt_utils import hardware
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.evaluation.forgetting import weight_drift
from langadapt_utils.experiments.comparison import compare_methods
from langadapt_utils.files import read_json, write_json
from langadapt_utils.hardware import native_precision
from langadapt_utils.models import (
    _older_rope,
    load_base,
    longest_context,
    parameters_by_type,
    save_model,
)
from langadapt_utils.recipe import MixtureRecipe, Recipe
from langadapt_utils.tokens import document_end, document_start
from langadapt_utils.training.losses import shifted_targets
from langadapt_utils.training.mixture import Mixture, mix
from langadapt_utils.training.optimizer import add_adapters
from langadapt_utils.training.train import save_adapted, train
from langadapt_utils.vocabulary.change import VocabularyChange

LENGTH = 64


def mixture_for(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerFast,
    *,
    separate: bool = True,
    budget: int = RECIPE.budget_tokens,
) -> Mixture:
    recipe = MixtureRecipe(sequence_length=LENGTH, separate_documents=separate)
    return mix(corpus, tokenizer, recipe, budget_tokens=budget)


@pytest.mark.parametrize("separate", [True, False])
def test_documents_end_with_eos_and_nobody_learns_to_begin_one(
    separate: bool, apart: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    mixture = mixture_for(corpora["hu"], apart, separate=separate, budget=40_000)
    start, end = document_start(apart), document_end(apart)
    assert end is not None and start != end
    ends = 0
    for index in range(len(mixture)):
        ids = torch.tensor(mixture[index]["input_ids"])[None]
        targets = shifted_targets(ids, torch.tensor(mixture[index]["learned"])[None])
        assert start not in targets
        ends += int((targets == end).sum())
        after = ids[0, 1:][ids[0, :-1] == end]
        assert (after == start).all()
    assert ends > 5


def test_where_one_token_begins_and_ends_documents_it_is_learned(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    mixture = mixture_for(corpora["hu"], tokenizer, budget=40_000)
    start = document_start(tokenizer)
    assert document_end(tokenizer) == start
    items = [mixture[index] for index in range(len(mixture))]
    assert all(item["learned"].all() for item in items)
    assert sum(int((item["input_ids"][1:] == start).sum()) for item in items) > 5


def test_a_folder_does_not_go_on_from_another_start(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    model, mixture = llama(len(tokenizer)), mixture_for(corpora["hu"], change.tokenizer)
    first, second = (
        initialise_embeddings(model, change, method=method) for method in ("subword_mean", "random")
    )
    recipe = RECIPE.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(KeyboardInterrupt):
        train(first, change, mixture, recipe, tmp_path, report=stop_at(4))
    fewer = replace(change, added=dict(list(change.added.items())[:-1]))
    for start, changed in ((second, change), (first, fewer)):
        with pytest.raises(ModelError, match="has checkpoints of a run with another"):
            train(start, changed, mixture, recipe, tmp_path)
    assert len(train(first, change, mixture, recipe, tmp_path).steps) == 10


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mpt", "whisper"])
def test_a_sequence_longer_than_the_model_reads_is_one_sentence(
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    longest = longest_context(model)
    start = initialise_embeddings(model, change)
    recipe = MixtureRecipe(sequence_length=2 * longest)
    mixture = mix(corpora["hu"], change.tokenizer, recipe, budget_tokens=4 * longest)
    sentence = f"sequences of {2 * longest} tokens exceed the context of the model, {longest}"
    with pytest.raises(ModelError, match=sentence):
        train(start, change, mixture, RECIPE, tmp_path)


@pytest.mark.parametrize("kind", ["bloom", "mamba", "recurrent_gemma"])
def test_a_model_without_a_longest_context_reads_and_writes_any_sequence(
    kind: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    vars(model.config).pop("max_position_embeddings", None)  # which tiny models of any kind have
    assert longest_context(model, silent=10**6) == 10**6
    assert reply(model, tokenizer, "A ház", 4, min_new_tokens=4, do_sample=False).tokens == 4


@pytest.mark.parametrize("kind", ["opt", "bloom", "mpt", "gpt_oss", "mamba"])
def test_the_log_tells_where_documents_are_not_kept_apart(
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    start, said = initialise_embeddings(model, change), list[str]()
    mixture = mixture_for(corpora["hu"], change.tokenizer)
    report = lambda record: said.append(str(record.get("doing")))  # noqa: E731
    result = train(start, change, mixture, RECIPE, tmp_path, report=report)
    apart = result.settings["documents separate"]
    assert apart == keeps_apart(result.model, result.settings["attention"])
    assert apart != any("documents attend to earlier ones" in line for line in said)
    assert len(result.steps) == 10


def keeps_apart(model: PreTrainedModel, attention: str) -> bool:
    """Whether another first document changes nothing in the second one."""
    model.set_attn_implementation(attention)
    positions, second = torch.tensor([[*range(6), *range(8)]]), range(20, 28)
    rows = [torch.tensor([[*first, *second]]) for first in (range(3, 9), range(40, 46))]
    try:
        with torch.no_grad():
            options = {"position_ids": positions, "use_cache": False}
            read = [model(input_ids=ids, **options).logits for ids in rows]
    except (TypeError, ValueError):
        return False
    return bool(torch.allclose(read[0][:, 6:], read[1][:, 6:], atol=1e-4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_an_adapted_model_is_saved_in_the_precision_of_its_base(
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    tmp_path: Path,
) -> None:
    base = load_base(str(saved(llama(len(tokenizer)).to(dtype), tokenizer, tmp_path / "b").folder))
    grown = initialise_embeddings(base.model, change)
    kept = native_precision() == "bfloat16" and dtype == torch.bfloat16
    assert grown.dtype == (dtype if kept else torch.float32)
    (stage := tmp_path / "stage").mkdir()
    save_adapted(grown, [], change, stage, base)
    place = stage / "publish" / "model"
    config = json.loads((place / "config.json").read_text())  # also as older readers spell it
    assert config["torch_dtype"] == config["dtype"] == str(dtype).removeprefix("torch.")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    again = load_base(str(place)).model
    for name, weight in again.named_parameters():
        kept = dict(grown.named_parameters())[name].to(dtype)
        assert torch.equal(weight.float(), kept.float()), name
    size = {2: 2.1, 4: 4.2}[dtype.itemsize] * parameters_by_type(place).total() + 20_000
    assert (place / "model.safetensors").stat().st_size < size


def test_rotary_positions_are_spelled_as_older_readers_do() -> None:
    llama3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    assert _older_rope(llama3) == {
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
    phi3 = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0], "long_factor": [2.0]}
    scaling = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    own = {**phi3, "original_max_position_embeddings": 64}
    assert _older_rope(own) == {"rope_theta": 1e4, "rope_scaling": scaling}
    neox = _older_rope({"rope_theta": 5.0, "partial_rotary_factor": 1.0})
    assert (neox["rotary_emb_base"], neox["rotary_pct"]) == (5.0, 1.0)
    assert _older_rope(None) == {}


def test_padding_of_a_matrix_is_no_drift(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    padded = llama(len(tokenizer) + len(change.added) + 37)
    grown = initialise_embeddings(padded, change)
    assert len(grown.get_input_embeddings().weight) == len(padded.get_input_embeddings().weight)
    assert (weight_drift(padded, grown, change).drift == 0).all()


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "falcon_h1", "gemma3_text", "phimoe"])
def test_adapters_leave_out_what_kernels_read(
    kind: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The kernels of Mamba read the weights of some layers themselves; routers give two results."""
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    add_adapters(model, 2)
    adapted = {name for name, weight in model.named_parameters() if "lora_A" in name}
    assert adapted and not any("mixer.out_proj" in n or "mamba.out_proj" in n for n in adapted)
    assert model(torch.arange(8)[None], use_cache=False).logits.isfinite().all()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_train_on_a_base_of_half_precision(
    kind: str,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "bfloat16")
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    base = saved(model.to(dtype), tokenizer, tmp_path / "base")
    start = initialise_embeddings(base.model, change)
    recipe = RECIPE.model_copy(update={"lora_rank": 2, "precision": "bfloat16"})
    mixture = mixture_for(corpora["hu"], change.tokenizer)
    result = train(start, change, mixture, recipe, tmp_path / "run")
    first, last = (result.steps[place]["bits_per_byte"]["target"] for place in (0, -1))
    assert last < first


def test_comparisons_write_no_checkpoints(
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def written(*_: object) -> None:
        raise AssertionError("a checkpoint")

    monkeypatch.setattr("langadapt_utils.training.trainer.MixtureTrainer._save_checkpoint", written)
    base = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    often = {"mixture.sequence_length": 32, "training.checkpoint_minutes": 1e-6}
    recipe = Recipe.profile("smoke", overrides=often)
    options = {"methods": ["mean"], "steps": (3,), "documents": 1, "batch_tokens": 64}
    found = compare_methods(base, change, corpora["hu"], recipe, **options)
    assert set(found.table.steps) == {3}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("falcon", {"lora_rank": 4}), ("openai-gpt", {"gradient_checkpointing": True})],
)
def test_options_that_a_plan_chooses_work_on_models_with_parts_of_their_own(
    kind: str,
    options: dict[str, object],
    change: VocabularyChange,
    corpora: dict[str, Corpus],
    tmp_path: Path,
) -> None:
    """Adapters in layers of an own class; where layers cannot be checkpointed, the log says so."""
    model = tiny_model(kind, change.size)
    assert model is not None
    mixture = mixture_for(corpora["hu"], change.tokenizer, budget=1_024)
    trained = train(model, change, mixture, RECIPE.model_copy(update=options), tmp_path)
    assert trained.steps and trained.settings["gradient checkpointing"] is False
    before = dict(model.named_parameters())
    assert any(not torch.equal(w, before[n]) for n, w in trained.model.named_parameters())


@pytest.mark.parametrize(
    "asked", [{"_attn_implementation": "flash_attention_2"}, {"output_attentions": True}]
)
def test_outputs_and_attention_that_config_json_asks_for_are_not_taken(
    asked: dict[str, object], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The attention may not be installed, and the model would not be saved with these outputs."""
    folder = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base").folder
    config = read_json(folder / "config.json") | asked | {"return_dict": False}
    write_json(folder / "config.json", config)
    base = load_base(str(folder))
    assert base.model.config._attn_implementation == "sdpa"
    save_model(base.model, tokenizer, tmp_path / "again", folder)
    again = load_base(str(tmp_path / "again")).model
    ids = torch.arange(9)[None]
    assert torch.equal(again(ids).logits, base.model(ids).logits)
