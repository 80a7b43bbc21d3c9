"""Models write: streaming, the end of a text, the terminal, and the control of notebook 5."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from helpers.tiny import CHAT_TEMPLATES, for_chat, gpt2, llama, reply, saved
from langadapt_utils.cli import app
from langadapt_utils.errors import CorpusError, LangadaptError
from langadapt_utils.evaluation import generation
from langadapt_utils.evaluation.generation import replies, sampled
from langadapt_utils.evaluation.scores import Scores
from langadapt_utils.evaluation.views import talk_widget
from langadapt_utils.models import Base
from langadapt_utils.recipe import Recipe
from langadapt_utils.tokens import document_start
from langadapt_utils.workspace import Workspace


def ending(rows: int) -> torch.nn.Module:
    """A model that finds all tokens alike: the first one, which ends documents, is taken."""
    model = llama(rows)
    with torch.no_grad():
        model.model.norm.weight.zero_()
    return model


def mamba(rows: int) -> torch.nn.Module:
    """A model without positions, whose state goes through the padding."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=rows, hidden_size=16, state_size=4, num_hidden_layers=2)
    return MambaForCausalLM(config).eval()


@pytest.fixture
def bundles(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Base]:
    chat = for_chat(tokenizer, CHAT_TEMPLATES["plain"])
    return {
        "base": saved(llama(len(chat)), chat, tmp_path / "base"),
        "adapted": saved(ending(len(chat)), chat, tmp_path / "adapted"),
    }


def test_no_more_is_written_than_the_context_holds(tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).eval()
    assert 0 < reply(model, tokenizer, "A house", 100, min_new_tokens=31).tokens < 32


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_what_is_shown_is_what_was_written(
    chat: bool, temperature: float, bundles: dict[str, Base]
) -> None:
    base, pieces = bundles["base"], list[str]()
    parts = base.model, base.tokenizer, "Egy régi híd", 12
    shown = reply(*parts, chat=chat, show=pieces.append, **sampled(temperature))
    assert "".join(pieces) == shown.text and 1 <= shown.tokens <= 12 and shown.seconds > 0
    assert reply(*parts, chat=chat, **sampled(temperature)).text == shown.text
    assert f"{shown.tokens} tokens, " in str(shown)


@pytest.mark.parametrize(
    ("where", "works"),
    [
        ("_validate_model_kwargs", 0),  # before `generate` shows the prompt
        ("_prepare_cache_for_generation", 0),
        ("_update_model_kwargs_for_generation", 1),  # after the first token
    ],
)
def test_a_model_that_cannot_use_a_cache_shows_what_it_writes_too(
    where: str, works: int, bundles: dict[str, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, pieces = bundles["base"], list[str]()
    parts = base.model, base.tokenizer, "Egy régi híd", 6
    expected, usual = reply(*parts, do_sample=False).text, getattr(type(base.model), where)
    called: list[None] = []

    def without_cache(*given: Any, **options: Any) -> Any:
        called.append(None)
        if len(called) == works + 1:
            raise ValueError("this model has no cache")
        return usual(*given, **options)

    monkeypatch.setattr(type(base.model), where, without_cache)
    shown = reply(*parts, show=pieces.append, do_sample=False)
    assert shown.text == expected and len(called) > works + 1
    begun = base.tokenizer.decode(base.tokenizer(expected)["input_ids"][:works])
    # A token that was shown before `generate` failed is shown again.
    assert "".join(pieces) == begun + expected


def test_a_model_without_a_cache_stops_at_the_end_too(
    bundles: dict[str, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = bundles["adapted"].model, bundles["adapted"].tokenizer

    usual = type(model)._prepare_cache_for_generation

    def fails(self: Any, config: Any, *given: Any) -> None:
        if config.use_cache:
            raise ValueError("this model has no cache")
        usual(self, config, *given)

    monkeypatch.setattr(type(model), "_prepare_cache_for_generation", fails)
    done = reply(model, tokenizer, "Egy régi híd", 50, do_sample=False)
    assert (done.text, done.tokens, done.ended) == ("", 1, True)
    longer = reply(model, tokenizer, "Egy régi híd", 5, do_sample=False, min_new_tokens=5)
    assert longer.tokens == 5  # as for the speed


def test_options_that_generate_refuses_are_an_error(bundles: dict[str, Base]) -> None:
    base = bundles["base"]
    with pytest.raises(ValueError, match="top_p"):
        reply(base.model, base.tokenizer, "Egy", 5, **sampled(0.7, top_p=-1.0))


def test_a_base_that_searches_beams_writes_one_text(bundles: dict[str, Base]) -> None:
    model, tokenizer = bundles["base"].model, bundles["base"].tokenizer
    parts = model, tokenizer, "Egy régi híd", 12
    expected = reply(*parts, do_sample=False)
    model.generation_config.update(num_beams=3, num_return_sequences=2)
    model.generation_config.update(return_dict_in_generate=True, output_hidden_states=True)
    pieces: list[str] = []
    assert reply(*parts, show=pieces.append, do_sample=False).text == expected.text
    assert "".join(pieces) == expected.text


def test_draws_follow_their_seed(bundles: dict[str, Base]) -> None:
    base = bundles["base"]
    options = sampled(1.0) | {"top_p": 1.0}
    parts = base.model, base.tokenizer, "Egy régi híd", 12
    texts = [reply(*parts, seed=seed, **options).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_model_stops_by_itself_at_the_end(bundles: dict[str, Base]) -> None:
    adapted = bundles["adapted"]
    done = reply(adapted.model, adapted.tokenizer, "Egy régi híd", 50, **sampled(0))
    assert (done.text, done.tokens, done.ended) == ("", 1, True)


def test_a_model_stops_at_the_end_also_where_documents_begin_with_another_token(
    apart: PreTrainedTokenizerFast,
) -> None:
    end = apart.eos_token_id
    assert end != document_start(apart)
    others = [index for index in range(len(apart)) if index != end]
    done = reply(llama(len(apart)), apart, "Egy", 9, do_sample=False, suppress_tokens=others)
    assert (done.tokens, done.ended) == (1, True)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_prompt_longer_than_the_context_is_cut_at_its_beginning(
    make: Callable[[int], torch.nn.Module], tokenizer: PreTrainedTokenizerFast
) -> None:
    read = reply(make(len(tokenizer)), tokenizer, "régi híd " * 200, 5, **sampled(0))
    assert 1 <= read.tokens <= 5


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("make", [llama, gpt2, mamba])
def test_prompts_are_answered_together_as_alone(
    make: Callable[[int], torch.nn.Module], chat: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    chatting = for_chat(tokenizer, CHAT_TEMPLATES["plain"])
    model, prompts = make(len(chatting)), ["Egy", "Egy régi híd a folyó felett", "A ház"]
    options = {"chat": chat, **sampled(0)}
    alone = [reply(model, chatting, prompt, 8, **options)[:2] for prompt in prompts]
    together = replies(model, chatting, prompts, 8, **options)
    assert [written[:2] for written in together] == alone


def test_a_prompt_that_ends_early_does_not_wait(
    bundles: dict[str, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = bundles["base"].model, bundles["base"].tokenizer
    end, width = tokenizer.eos_token_id, []

    def written(model: object, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        width.append(ids.shape[1])
        return torch.cat([ids, torch.tensor([[9, end, end, end], [9, 9, 9, 9]])[: len(ids)]], dim=1)

    monkeypatch.setattr(generation, "_written", written)
    parts = model, tokenizer, ["Egy", "Egy régi híd"], 4
    short, long = replies(*parts, do_sample=False)
    assert (short.tokens, short.ended) == (2, True) and (long.tokens, long.ended) == (4, False)
    assert len(width) == 1, "both are read at once"


@pytest.mark.parametrize(
    "setting",
    [
        {"stop_strings": ["a", "e", "o"]},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"bad_words_ids": [[10**6]]},
        {"prompt_lookup_num_tokens": 3},
        {"max_time": 1e-9},
        {"min_new_tokens": 9},
        {"num_beams": 3, "num_return_sequences": 3},
        {"sequence_bias": [[[10**6], 5.0]]},
        {"guidance_scale": 2.0},
        {"repetition_penalty": 5.0},
    ],
)
def test_the_own_settings_of_a_base_do_not_count(
    setting: dict[str, Any], bundles: dict[str, Base]
) -> None:
    model, tokenizer = bundles["base"].model, bundles["base"].tokenizer
    asked = model, tokenizer, ["Egy", "Egy régi híd"], 6
    plain = [reply.text for reply in replies(*asked, do_sample=False)]
    own = model.generation_config
    try:
        model.generation_config = changed = GenerationConfig(**setting)
        assert [reply.text for reply in replies(*asked, do_sample=False)] == plain
        assert model.generation_config is changed
    finally:
        model.generation_config = own


@pytest.fixture
def run(tmp_path: Path, bundles: dict[str, Base]) -> Path:
    """A run whose training is complete."""
    recipe = Recipe.profile("smoke", overrides={"base": str(bundles["base"].folder)})
    run = Workspace(tmp_path / "run", recipe)
    with run.writing("04_training") as folder:
        adapted = bundles["adapted"]
        saved(adapted.model, adapted.tokenizer, folder / "publish" / "model")
    return run.folder


@pytest.mark.parametrize("options", [[], ["--chat"], ["--seed", "3", "--top-p", "0.5"]])
def test_try_prints_both_models_and_what_they_took(options: list[str], run: Path) -> None:
    command = ["try", str(run), "Egy régi híd", "--tokens", "6", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    base, adapted = done.output.removeprefix("\nbase: ").split("\nadapted: ")
    for part in (base, adapted):
        assert " tokens, " in part and " characters per second, " in part


def test_try_stops_at_the_end_of_a_text(run: Path) -> None:
    command = ["try", str(run), "Egy régi híd", "--temperature", "0"]
    adapted = CliRunner().invoke(app, command).output.split("\nadapted: ")[1]
    assert adapted == "\n(1 tokens, 0 characters per second, ended by itself)\n"


def test_try_asks_for_prompts_until_there_is_none(run: Path) -> None:
    command = ["try", str(run), "--tokens", "3", "--temperature", "0"]
    done = CliRunner().invoke(app, command, input="Egy\nKettő\n\n")
    assert done.exit_code == 0 and done.output.count("base: ") == 2


def test_a_trained_run_is_tried_when_its_text_is_gone(
    tmp_path: Path, bundles: dict[str, Base]
) -> None:
    text = tmp_path / "own.txt"
    text.write_text("Egy régi híd.\n", encoding="utf-8")
    overrides = {"base": str(bundles["base"].folder), "corpus.target": str(text)}
    run = Workspace(tmp_path / "own", Recipe.profile("smoke", overrides=overrides))
    with run.writing("04_training") as folder:
        adapted = bundles["adapted"]
        saved(adapted.model, adapted.tokenizer, folder / "publish" / "model")
    text.unlink()
    done = CliRunner().invoke(app, ["try", str(run.folder), "Egy", "--tokens", "3"])
    assert done.exit_code == 0 and "adapted: " in done.output
    with pytest.raises(CorpusError, match="does not exist"):  # it cannot go on without its text
        Workspace.existing(run.folder)


def test_try_needs_a_trained_run(tmp_path: Path) -> None:
    nowhere = CliRunner().invoke(app, ["try", str(tmp_path / "nothing"), "Hi"])
    assert isinstance(nowhere.exception, LangadaptError) and "is not a run folder" in str(
        nowhere.exception
    )
    run = Workspace(tmp_path / "run", Recipe.profile("smoke"))
    untrained = CliRunner().invoke(app, ["try", str(run.folder), "Hi"])
    assert isinstance(untrained.exception, LangadaptError)
    assert "stage 04_training of run" in str(untrained.exception)


def test_the_control_shows_samples_until_a_prompt_is_typed(
    bundles: dict[str, Base], scores: Scores
) -> None:
    shown = talk_widget(bundles, scores)
    typed, heat, length, chat, below = shown.controls.children
    assert "right script" in below.value and "right script" in str(shown.static)
    heat.value, length.value = 0.0, 25
    assert "right script" in below.value
    typed.value = "Egy <b>régi</b> híd"
    assert "ended by itself" in below.value and "<b>base</b>" in below.value
    chat.value = True
    assert "ended by itself" in below.value and "right script" not in below.value
    assert below.value.index("<b>base</b>") < below.value.index("<b>adapted</b>")


def test_the_control_says_where_the_base_cannot_chat(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, scores: Scores
) -> None:
    plain = for_chat(tokenizer, None)
    bundle = saved(llama(len(plain)), plain, tmp_path / "plain")
    shown = talk_widget({"base": bundle}, scores)
    typed, _, _, chat, below = shown.controls.children
    chat.value, typed.value = True, "Hi"
    assert 'role="alert"' in below.value and "it has none" in below.value
