from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from helpers.architectures import tiny_model
from helpers.tiny import llama, saved
from langadapt_utils import hardware, planning
from langadapt_utils.cli import app
from langadapt_utils.errors import LangadaptError, ModelError, RecipeError, VocabularyError
from langadapt_utils.files import read_json, write_json
from langadapt_utils.hardware import Machine, machine_named
from langadapt_utils.planning import (
    Lengths,
    Shape,
    enough_tokens,
    plan,
    stage_seconds,
    training_bytes,
    training_seconds,
)
from langadapt_utils.recipe import BUILT_IN, Recipe
from langadapt_utils.sources import built_in_rows

CARD = Machine("a card", 1, 80e9, 6e14, 3e12)
SEVEN = Shape(7 * 10**9, 6_880 * 10**6, 250 * 10**6, 2_000_000, 32, 4_096, 32_000)
OPTIONS = {"corpus.english": BUILT_IN, "mixture.sequence_length": 64}


@pytest.fixture
def base(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A base without its weights."""
    folder = saved(llama(len(tokenizer)), tokenizer, tmp_path / "base").folder
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_a_shape_is_read_from_the_configuration_alone(
    tied: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = llama(len(tokenizer), tied=tied)
    folder = saved(model, tokenizer, tmp_path).folder
    (folder / "model.safetensors").unlink()
    shape = Shape.of(str(folder))
    assert shape.parameters == model.num_parameters()
    assert shape.embeddings == (1 if tied else 2) * len(tokenizer) * 16
    assert shape.multiplied == shape.parameters - (0 if tied else len(tokenizer) * 16)
    grown = shape.with_tokens(100)
    assert grown.vocabulary == len(tokenizer) + 100
    assert grown.parameters - shape.parameters == (1 if tied else 2) * 100 * 16


@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen3_moe", "hunyuan_v1_moe", "gemma4_text"])
def test_a_token_is_multiplied_with_the_experts_that_it_uses(
    kind: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny_model(kind, len(tokenizer))
    assert model is not None
    shape = Shape.of(str(saved(model, tokenizer, tmp_path).folder))
    model.set_experts_implementation("eager")  # whose operations torch counts
    tokens = torch.arange(3, 67)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=tokens[None], use_cache=False)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    assert shape.multiplied == pytest.approx(products / 2 / len(tokens), rel=0.02)


def test_a_shape_knows_what_a_configuration_says_of_memory(tiny_folder: Path) -> None:
    """The fused loss needs logits without a cap or a scale; weights may be in float32."""
    config = read_json(tiny_folder / "config.json")
    shape = Shape.of(str(tiny_folder))
    assert shape.plain_head and shape.weight_bytes == 4
    for more in ({"final_logit_softcapping": 30.0}, {"logit_scale": 0.06}):
        write_json(tiny_folder / "config.json", config | more | {"dtype": "bfloat16"})
        capped = Shape.of(str(tiny_folder))
        assert not capped.plain_head and capped.weight_bytes == 2
        recipe = Recipe.profile("gpu")
        assert training_bytes(capped, recipe, CARD) > training_bytes(shape, recipe, CARD)
    adapters = Recipe.profile(
        "gpu", overrides={"training.lora_rank": 8, "training.fused_loss": False}
    )
    frozen = [training_bytes(each, adapters, CARD) for each in (shape, capped)]
    assert frozen[0] - frozen[1] == 2 * (shape.parameters - shape.embeddings)
    exact = replace(CARD, precision="float32")
    assert training_bytes(capped, adapters, exact) == frozen[0]
    untied = shape.with_tokens(10, untie=True)
    assert untied.embeddings == 2 * (shape.vocabulary + 10) * shape.width
    assert untied.parameters - shape.parameters == untied.embeddings - shape.embeddings
    assert untied.with_tokens(0, untie=True) == untied


def needed(machine: Machine = CARD, **options: object) -> float:
    values = {f"training.{name}": value for name, value in options.items()}
    return training_bytes(SEVEN, Recipe.profile("gpu", overrides=values), machine)


def test_memory_follows_what_learns_what_is_kept_and_how_many_share_it() -> None:
    assert needed(micro_batch_tokens=1_024) > 18 * 7e9
    assert needed(lora_rank=64, micro_batch_tokens=1_024) < 0.3 * needed(micro_batch_tokens=1_024)
    assert needed(gradient_checkpointing=True) < needed()
    assert needed(micro_batch_tokens=2_048) < needed(micro_batch_tokens=8_192)
    eight = needed(replace(CARD, gpus=8), micro_batch_tokens=1_024)
    assert needed(micro_batch_tokens=1_024) - eight == pytest.approx(18 * 7e9 * 7 / 8)
    assert needed(fused_loss=False) - needed() == pytest.approx(16_384 * 16 * 32_000)


def test_what_does_not_fit_is_trained_in_parts_and_at_last_with_adapters() -> None:
    recipe = Recipe.profile("gpu")
    fitted = {
        memory: planning._fitted(recipe, SEVEN, replace(CARD, memory=memory * 1e9)).training
        for memory in (400, 160, 80, 1)
    }
    assert fitted[400] == recipe.training
    assert fitted[160].lora_rank == 0 and fitted[160].micro_batch_tokens < 16_384
    assert fitted[80].lora_rank == planning.RANK
    assert fitted[1].gradient_checkpointing and fitted[1].micro_batch_tokens == 1_024


def test_seconds_grow_with_the_model_the_budget_and_slower_machines() -> None:
    recipe = Recipe.profile("gpu")
    once = stage_seconds(SEVEN, recipe, CARD)
    half = {"speed": CARD.speed / 2, "bandwidth": CARD.bandwidth / 2}
    slower = stage_seconds(SEVEN, recipe, replace(CARD, **half))
    assert list(once) == sorted(once) and all(slower[name] >= once[name] for name in once)
    training = once["04_training"] - 20
    assert slower["04_training"] - 20 == pytest.approx(2 * training)
    eight = stage_seconds(SEVEN, recipe, replace(CARD, gpus=8))
    assert eight["05_evaluation"] == once["05_evaluation"]
    swept = {"mixture.sweep": [0.0], "training.budget_tokens": 10**9}
    training = stage_seconds(SEVEN, recipe.with_options(swept), CARD)["04_training"]
    shared = stage_seconds(SEVEN, recipe.with_options(swept), replace(CARD, gpus=8))
    assert shared["04_training"] == pytest.approx(training / 8, rel=0.02)


@pytest.mark.parametrize(
    ("option", "value", "low", "high"),
    [
        ("lora_rank", 64, 0.6, 0.8),  # 4 operations per frozen parameter instead of 6
        ("gradient_checkpointing", True, 1.3, 1.34),
        ("fused_loss", False, 1.01, 1.1),
        ("batch_tokens", 1_024, 1.1, 2.0),
    ],
)
def test_time_follows_what_is_multiplied_and_what_is_moved(
    option: str, value: object, low: float, high: float
) -> None:
    usual = Recipe.profile("gpu")
    other = usual.with_options({f"training.{option}": value})
    ratio = training_seconds(SEVEN, other, CARD, 1) / training_seconds(SEVEN, usual, CARD, 1)
    assert low < ratio < high


@pytest.mark.parametrize(
    ("longer", "stages"),
    [
        ({"base": 2_000.0}, ["03_embeddings", "05_evaluation"]),
        ({"adapted": 2_000.0}, ["03_embeddings", "04_training", "05_evaluation"]),
        ({"documents": 80}, ["05_evaluation"]),
        ({"english_documents": 160}, ["05_evaluation"]),
    ],
)
def test_evaluation_reads_documents_at_the_length_of_each_tokenizer(
    longer: dict[str, float], stages: list[str]
) -> None:
    recipe = Recipe.profile("cpu")
    usual = stage_seconds(SEVEN, recipe, CARD)
    more = stage_seconds(SEVEN, recipe, CARD, Lengths()._replace(**longer))
    assert [name for name in more if more[name] > usual[name]] == stages


def test_a_plan_for_few_documents_has_no_time_to_give_back() -> None:
    options = {"evaluation.items": 1, "evaluation.interpolation_points": "1.0"}
    recipe = Recipe.profile("gpu", overrides=options)
    seconds = stage_seconds(SEVEN, recipe, CARD, Lengths(documents=20, english_documents=30))
    assert seconds["05_evaluation"] > hardware.ALONE["05_evaluation"]


def test_a_plan_chooses_from_the_text_and_says_what_it_will_take(base: Path) -> None:
    recipe = Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS})
    planned = plan(recipe, gpu="h100", gpus=2)
    tokens = planned.recipe.vocabulary.tokens
    row = planned.sizes[planned.sizes.new_tokens == tokens].iloc[0]
    assert row.seen >= 0.9 and 0 < row.saved < 1
    assert planned.recipe.training.learning_rate == pytest.approx(4e-4)
    assert planned.lengths.adapted == pytest.approx(planned.lengths.base * (1 - row.saved))
    said = str(planned)
    assert "2 x H100 in bfloat16" in said and f"{tokens:,}; {row.saved:.0%}" in said.replace(
        " %", "%"
    )
    assert "kB of Hungarian: expect spelling" in said
    more = plan(recipe.with_options({"training.budget_tokens": 10**8}))
    assert more.recipe.vocabulary.tokens > tokens
    warned = str(more)
    assert "warning:     Hungarian is repeated" in warned
    assert "warning:     English is repeated" in warned
    assert "less than one sequence" not in said + warned
    few = {"training.budget_tokens": 50, "mixture.sweep_tokens": 60}
    short = str(plan(recipe.with_options(few)))
    assert "training.budget_tokens is 50, less than one sequence (64 tokens)" in short
    assert "mixture.sweep_tokens is 60, less than one sequence (64 tokens)" in short


def test_a_plan_keeps_the_number_of_new_tokens_that_was_asked_for(base: Path) -> None:
    recipe = Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS})
    usual, own = plan(recipe), plan(recipe.with_options({"vocabulary.tokens": 33}))
    assert own.recipe.vocabulary.tokens == 33 != usual.recipe.vocabulary.tokens
    said = [line for line in str(own).splitlines() if "the largest number with" in line]
    assert len(said) == 1 and said[0].startswith(f"{usual.recipe.vocabulary.tokens:19d}:")


def test_a_plan_names_what_it_counts_on(base: Path, tmp_path: Path) -> None:
    """Packages that are installed apart, and a translation without which parity is unknown."""
    recipe = Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS})
    said = str(plan(recipe.with_options({"training.lora_rank": 8}), gpu="h100"))
    assert "adapters of rank 8 (they need `pip install 'langadapt[lora]'`)" in said
    assert "with the fused loss (it needs `pip install 'langadapt[gpu]'`)" in said
    assert "note:" not in said and "fused" not in str(plan(recipe))
    assert "cannot be divided" not in said
    three = str(plan(recipe, gpu="h100", gpus=3))
    assert "a batch of 16 sequences cannot be divided among 3 GPUs: change training" in three
    text = tmp_path / "text.txt"
    rows = sorted(" ".join(row["hu"]) for row in built_in_rows())  # not in the order of English
    text.write_text("\n\n".join(rows), encoding="utf-8")
    alone = str(plan(recipe.with_options({"corpus.target": [str(text)]})))
    assert "take a fifth of the rate (training.learning_rate=8.0e-05)" in alone


def test_a_model_that_cannot_be_built_is_one_sentence(base: Path) -> None:
    config = read_json(base / "config.json") | {"hidden_act": "nothing"}
    write_json(base / "config.json", config)
    with pytest.raises(ModelError, match=r"`transformers` cannot load the model in .* \(.*nothing"):
        Shape.of(str(base))


def test_a_mixture_without_the_language_is_refused(base: Path) -> None:
    options = {"base": str(base), **OPTIONS, "mixture.chat_share": 0.2}
    with pytest.raises(RecipeError, match="no sequence in the language: lower one of them"):
        plan(Recipe.profile("cpu", overrides={**options, "mixture.english_share": 0.8}))


def test_sequences_longer_than_the_context_are_refused(base: Path) -> None:
    options = {"base": str(base), **OPTIONS, "mixture.sequence_length": 100_000}
    with pytest.raises(ModelError, match=r"100000 tokens exceed .*: lower mixture.sequence_length"):
        plan(Recipe.profile("cpu", overrides=options))


def test_text_in_another_language_is_said(base: Path, tmp_path: Path) -> None:
    recipe = Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS})
    assert "does not look like" not in str(plan(recipe))
    rows = sorted(row["en"] for row in built_in_rows())  # not in the order of English
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(map(" ".join, rows)), encoding="utf-8")
    finnish = recipe.with_options({"corpus.target": [str(text)]}).model_copy(
        update={"language": "fi"}
    )
    assert "the text does not look like Finnish (100 % of the letters" in str(plan(finnish))
    korean = finnish.model_copy(update={"language": "ko"})
    assert "does not look like Korean (0 % of the letters" in str(plan(korean))


def test_tokens_that_replace_others_take_no_memory(base: Path) -> None:
    recipe = Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS})
    rows = {
        mode: plan(recipe.with_options({"vocabulary.mode": mode})).shape.vocabulary
        for mode in ("extend", "replace")
    }
    assert rows["extend"] > rows["replace"] == Shape.of(str(base)).vocabulary


def test_few_tokens_are_enough_where_the_text_is_small() -> None:
    import pandas as pd

    sizes = pd.DataFrame({"new_tokens": [100, 200, 500], "seen": [0.99, 0.92, 0.4]})
    assert enough_tokens(sizes) == 200
    assert enough_tokens(sizes.assign(seen=0.1)) == 100


def test_a_tiny_text_gets_as_many_tokens_as_it_has(base: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"őszi {number} őszi\n" for number in range(30)), encoding="utf-8")
    recipe = Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS})
    few = plan(recipe.with_options({"corpus.target": [str(text)]}))
    assert 0 < few.recipe.vocabulary.tokens < 10
    assert "Hungarian is repeated" in str(few)
    text.write_text("\n".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), "utf-8")
    with pytest.raises(VocabularyError, match="occurs twice"):
        plan(recipe.with_options({"corpus.target": [str(text)]}))


def test_an_unknown_card_is_one_sentence() -> None:
    with pytest.raises(LangadaptError, match="GPU 'h9' is unknown: set --gpu to one of h100"):
        machine_named("h9", 1)
    with pytest.raises(LangadaptError, match="the name of the 8 GPUs is missing: set --gpu"):
        machine_named("", 8)


def test_the_command_writes_a_recipe_that_runs(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    command = ["plan", "--write", str(file), "--gpu", "l4", "-p", f"base={base}"]
    options = [part for name, value in OPTIONS.items() for part in ("-p", f"{name}={value}")]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.exception
    assert f"langadapt run --recipe {file}" in done.stdout and "new tokens:" in done.stdout
    recipe = Recipe.read(file)
    assert recipe.base == str(base) and recipe.training.learning_rate == pytest.approx(4e-4)
    lacking = CliRunner().invoke(app, ["run", "--recipe", str(file), "--run", str(tmp_path / "r")])
    assert "lacks its weights" in str(lacking.exception)


@pytest.mark.parametrize(
    ("mode", "untie", "rows"), [("extend", False, 1), ("extend", True, 2), ("replace", False, 0)]
)
def test_the_memory_of_new_rows_is_that_of_the_options(
    mode: str, untie: bool, rows: int, base: Path
) -> None:
    options = {"vocabulary.mode": mode, "embeddings.untie": untie, "vocabulary.tokens": 200}
    planned = plan(Recipe.profile("cpu", overrides={"base": str(base), **OPTIONS, **options}))
    sizes = planned.sizes.set_index("new_tokens").megabytes
    assert sizes[200] == pytest.approx(200 * rows * 16 * 2e-6)


def test_a_plan_says_that_the_text_supports_fewer_tokens(base: Path) -> None:
    options = {"base": str(base), **OPTIONS, "vocabulary.tokens": 60_000}
    planned = plan(Recipe.profile("cpu", overrides=options))
    assert planned.recipe.vocabulary.tokens < 60_000
    assert "60,000 new tokens were asked for, but the text supports fewer" in str(planned)
