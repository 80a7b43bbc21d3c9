import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from helpers.architectures import OWN, SIZES
from helpers.tiny import GROUPED, SMALL, gpt2, llama
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import METHODS, initialise_embeddings, new_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.evaluation.likelihood import bits_per_byte
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

TEXT = "English text without a new token"


def rows_of(model: PreTrainedModel) -> torch.nn.Parameter:
    return model.get_input_embeddings().weight


def rows(model: PreTrainedModel) -> torch.Tensor:
    return rows_of(model).detach()


def llama_of(matrix: torch.Tensor) -> PreTrainedModel:
    model = llama(len(matrix))
    with torch.no_grad():
        rows_of(model)[:] = matrix
    return model


@pytest.fixture
def replaced(tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]) -> VocabularyChange:
    train = corpora["hu"].train
    return extend_vocabulary(
        tokenizer,
        train["hu"]["text"],
        tokens=40,
        mode="replace",
        others={"en": train["en"]["text"]},
    )


ARCHITECTURES: dict[str, Callable[[int], PreTrainedModel]] = {
    "llama": lambda rows: llama(rows),
    "llama, untied": lambda rows: llama(rows, tied=False),
    "gpt2": lambda rows: gpt2(rows),
    "qwen2": lambda rows: Qwen2ForCausalLM(
        Qwen2Config(vocab_size=rows, tie_word_embeddings=True, **GROUPED)
    ),
    "gemma": lambda rows: GemmaForCausalLM(GemmaConfig(vocab_size=rows, head_dim=8, **GROUPED)),
    "gemma3": lambda rows: Gemma3ForCausalLM(
        Gemma3TextConfig(vocab_size=rows, head_dim=8, **GROUPED)
    ),
    "mistral": lambda rows: MistralForCausalLM(MistralConfig(vocab_size=rows, **GROUPED)),
    "opt": lambda rows: OPTForCausalLM(
        OPTConfig(
            vocab_size=rows, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2
        )
    ),
    "opt, narrow rows": lambda rows: OPTForCausalLM(
        OPTConfig(
            vocab_size=rows,
            hidden_size=16,
            ffn_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=8,
        )
    ),
    "gpt-neox": lambda rows: GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=rows, max_position_embeddings=128, **SMALL)
    ),
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Callable[[int], PreTrainedModel]:
    torch.manual_seed(0)
    return lambda rows: ARCHITECTURES[request.param](rows).eval()


@pytest.mark.parametrize("mode", ["extend", "replace"])
def test_any_architecture_keeps_what_it_said_and_loads_again(
    mode: str,
    architecture: Callable[[int], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    replaced: VocabularyChange,
    tmp_path: Path,
) -> None:
    model, change = architecture(len(tokenizer)), change if mode == "extend" else replaced
    adapted = initialise_embeddings(model, change, method="subword_mean")
    old = torch.tensor(sorted(change.new_to_old))
    assert torch.equal(rows(adapted)[old], rows(model)[old])
    ids = old[100:130].unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits[..., old], model(ids).logits[..., old])
    assert adapted.config.get_text_config().vocab_size == len(rows(adapted)) == change.size
    tied = adapted.get_output_embeddings().weight is rows_of(adapted)
    assert tied == adapted.config.tie_word_embeddings == model.config.tie_word_embeddings
    adapted.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, adapted(ids).logits)


@pytest.mark.filterwarnings("ignore:method .* makes other embeddings")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "build", [llama, lambda n: llama(n, tied=False), gpt2], ids=["tied", "untied", "gpt2"]
)
def test_old_rows_and_old_logits_do_not_change(
    method: str,
    build: Callable[[int], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
) -> None:
    model = build(len(tokenizer))
    adapted = initialise_embeddings(model, change, method=method)
    old = torch.tensor(sorted(change.new_to_old))
    assert torch.equal(rows(adapted)[old], rows(model)[old])
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits[..., old], model(ids).logits[..., old])
    assert adapted.config.vocab_size == len(rows(adapted)) == change.size
    tied = adapted.get_output_embeddings().weight is rows_of(adapted)
    assert tied == adapted.config.tie_word_embeddings == model.config.tie_word_embeddings


def test_rows_made_for_an_untied_head_untie_it(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    made = new_embeddings(model, change, untie=True)
    adapted = initialise_embeddings(model, change, embeddings=made)
    new = list(change.added)
    assert made.output is not None and not adapted.config.tie_word_embeddings
    assert torch.equal(rows(adapted)[new], made.input.vectors_ND)
    assert torch.equal(adapted.get_output_embeddings().weight.detach()[new], made.output.vectors_ND)


@pytest.mark.parametrize(
    "build", [llama, gpt2, ARCHITECTURES["gemma3"]], ids=["llama", "gpt2", "gemma3"]
)
def test_a_head_that_is_untied_has_rows_of_its_own_and_stays_so(
    build: Callable[[int], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    change: VocabularyChange,
    tmp_path: Path,
) -> None:
    model = build(len(tokenizer)).eval()
    adapted = initialise_embeddings(model, change, untie=True)
    index, old = next((new, old) for new, old in change.base_pieces.items() if len(set(old)) > 1)
    head = adapted.get_output_embeddings().weight
    assert head is not rows_of(adapted) and not adapted.config.tie_word_embeddings
    for matrix in (head, rows(adapted)):
        torch.testing.assert_close(matrix[index], rows(model)[list(old)].mean(dim=0))
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    adapted.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not again.config.tie_word_embeddings
    with torch.no_grad():
        kept = torch.tensor(sorted(change.new_to_old))
        torch.testing.assert_close(adapted(ids).logits[..., kept], model(ids).logits[..., kept])
        assert torch.equal(again(ids).logits, adapted(ids).logits)
        again.get_input_embeddings().weight.zero_()
    assert again.get_output_embeddings().weight.abs().sum() > 0
    assert model.config.tie_word_embeddings and model.get_output_embeddings().weight is rows_of(
        model
    )


@pytest.mark.parametrize("padding", [0, 200], ids=["grows", "has room"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_body_lies_in_memory_once(
    tied: bool, padding: int, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    model = llama(len(tokenizer) + padding, tied=tied)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    adapted = dict(initialise_embeddings(model, change).named_parameters())
    tables = {"model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])}
    for name, weight in model.named_parameters():
        assert (weight.data_ptr() == adapted[name].data_ptr()) == (name not in tables), name
        assert torch.equal(weight, before[name])
    with torch.no_grad():
        for name in tables:
            adapted[name].zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_an_untied_head_gets_rows_from_its_own(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    model = llama(len(tokenizer), tied=False)
    adapted = initialise_embeddings(model, change)
    index, old = next(iter(change.base_pieces.items()))
    expected = model.lm_head.weight.detach()[list(old)].mean(dim=0)
    torch.testing.assert_close(adapted.lm_head.weight.detach()[index], expected)


def test_a_head_with_a_bias_gets_entries_too(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    model = llama(len(tokenizer), tied=False)
    model.lm_head = torch.nn.Linear(16, len(tokenizer))
    adapted = initialise_embeddings(model, change)
    index, old = next(iter(change.base_pieces.items()))
    torch.testing.assert_close(adapted.lm_head.bias[index], model.lm_head.bias[list(old)].mean())
    assert torch.equal(adapted.lm_head.bias[: len(tokenizer)], model.lm_head.bias)


def test_padded_rows_are_used_before_the_matrix_grows(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    padded = llama(len(tokenizer) + 500)
    with torch.no_grad():
        rows_of(padded)[len(tokenizer) :] = (
            1e6  # padding was never trained, so no method may look at it
        )
    same = new_embeddings(padded, change, method="mean").input.vectors_ND
    assert torch.equal(
        same,
        new_embeddings(
            llama_of(rows(padded)[: len(tokenizer)]), change, method="mean"
        ).input.vectors_ND,
    )
    adapted = initialise_embeddings(padded, change)
    assert len(rows(adapted)) == len(tokenizer) + 500
    assert torch.equal(rows(adapted)[change.size :], rows(padded)[change.size :])


def test_replaced_rows_are_made_like_added_ones(
    model: PreTrainedModel, replaced: VocabularyChange
) -> None:
    adapted = initialise_embeddings(model, replaced)
    assert len(rows(adapted)) == len(rows(model))
    noisy = new_embeddings(model, replaced).input.noisy
    assert len(noisy) < len(replaced.added) / 2
    for place, index in enumerate(replaced.added):
        expected = rows(model)[list(replaced.base_pieces[index])].mean(dim=0)
        if place in noisy:  # told apart by noise
            assert (rows(adapted)[index] - expected).norm() <= 0.0101 * expected.norm()
        else:
            torch.testing.assert_close(rows(adapted)[index], expected)
    kept = torch.tensor(sorted(replaced.new_to_old))
    assert torch.equal(rows(adapted)[kept], rows(model)[kept])


def test_the_given_model_is_not_changed(model: PreTrainedModel, change: VocabularyChange) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise_embeddings(model, change)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.config.vocab_size == len(rows(model))


def test_half_precision_rows_are_computed_in_full(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    half = llama(len(tokenizer)).to(torch.bfloat16)
    adapted = initialise_embeddings(half, change)
    index, old = max(change.base_pieces.items(), key=lambda item: len(item[1]))
    assert rows(adapted).dtype == torch.bfloat16
    assert torch.equal(
        rows(adapted)[index], rows(half)[list(old)].float().mean(dim=0).to(torch.bfloat16)
    )


def test_the_result_loads_in_stock_transformers(
    model: PreTrainedModel, change: VocabularyChange, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    adapted = initialise_embeddings(model, change)
    adapted.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(rows(again), rows(adapted))
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_what_cannot_be_is_refused(model: PreTrainedModel, change: VocabularyChange) -> None:
    with pytest.raises(ModelError, match="method 'magic' is unknown: use one of random, mean,"):
        initialise_embeddings(model, change, method="magic")
    with pytest.raises(ModelError, match="the model has 100 embeddings"):
        initialise_embeddings(llama(100), change)


def test_a_change_without_tokens_changes_nothing(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    nothing = dataclasses.replace(change, added={}, base_pieces={})
    assert torch.equal(rows(initialise_embeddings(model, nothing, method="mean")), rows(model))


@pytest.mark.parametrize("kind", ["gemma3n_text", "gemma4_text"])
@pytest.mark.parametrize("spare", [13, 64])
def test_a_table_per_layer_may_be_shorter_than_the_vocabulary(
    kind: str, spare: int, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    """As in Gemma 3n, with 262,400 embeddings and 262,144 rows per layer."""
    rows, options = len(tokenizer), SIZES | OWN[kind]
    options |= {"vocab_size": rows + spare, "vocab_size_per_layer_input": rows}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).eval()
    start, again = (initialise_embeddings(model, change) for _ in "ab")
    old, new, same = (m.model.embed_tokens_per_layer.weight for m in (model, start, again))
    assert len(new) == start.config.vocab_size_per_layer_input == max(change.size, rows + spare)
    assert torch.equal(new[:rows], old) and torch.equal(new, same)
    for token, pieces in list(change.base_pieces.items())[:5]:
        assert torch.allclose(new[token], old[list(pieces)].mean(dim=0), atol=1e-6)
    assert bits_per_byte(start, change.tokenizer, ["Egy régi híd."]).value > 0


@pytest.mark.parametrize("at", ["the end", "a new token"])
def test_a_row_for_padding_that_a_new_token_took_is_trained(
    at: str, model: PreTrainedModel, change: VocabularyChange, tmp_path: Path
) -> None:
    new = min(change.added)
    model.config.pad_token_id = -1 if at == "the end" else new
    grown = initialise_embeddings(model, change)
    grown.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    for own in grown, again:
        own(torch.tensor([[max(change.added), new]])).logits.sum().backward()
        rows = own.get_input_embeddings().weight.grad
        assert rows[max(change.added)].any() and rows[new].any()
