import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import gpt2, llama, train_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from langadapt_utils import embeddings
from langadapt_utils.changes import VocabularyChange
from langadapt_utils.corpus import Corpus
from langadapt_utils.embeddings import METHODS, initialise_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.vocabulary import extend_vocabulary, trim_vocabulary

TEXT = "English text without a new token"


def rows(model: PreTrainedModel) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()


@pytest.fixture
def replaced(tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]) -> VocabularyChange:
    train = corpora["hu"].train
    return extend_vocabulary(
        tokenizer, train["hu"]["text"], tokens=40, mode="replace", others={"en": train["en"]["text"]}
    )


def test_sub_word_means_are_those_computed_by_hand(model: PreTrainedModel, change: VocabularyChange) -> None:
    new = rows(initialise_embeddings(model, change, method="subword_mean"))
    for index, old in change.spelled.items():
        expected = sum(rows(model)[i] for i in old) / len(old)
        torch.testing.assert_close(new[index], expected)


def test_means_are_the_mean_of_all_rows(model: PreTrainedModel, change: VocabularyChange) -> None:
    new = rows(initialise_embeddings(model, change, method="mean"))
    for index in change.added:
        torch.testing.assert_close(new[index], rows(model).sum(dim=0) / len(rows(model)))


def test_random_rows_have_the_spread_of_old_ones_and_follow_the_seed(
    model: PreTrainedModel, change: VocabularyChange
) -> None:
    one, two, other = (
        rows(initialise_embeddings(model, change, method="random", seed=s))[list(change.added)] for s in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert one.std().item() == pytest.approx(rows(model).std().item(), rel=0.05)
    assert one.mean().item() == pytest.approx(rows(model).mean().item(), abs=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("build", [llama, lambda n: llama(n, tied=False), gpt2], ids=["tied", "untied", "gpt2"])
def test_old_rows_and_old_logits_do_not_change(
    method: str, build: type, tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    model = build(len(tokenizer))
    adapted = initialise_embeddings(model, change, method=method)
    old = torch.tensor(sorted(change.kept))
    assert torch.equal(rows(adapted)[old], rows(model)[old])
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits[..., old], model(ids).logits[..., old])
    assert adapted.config.vocab_size == len(rows(adapted)) == change.size
    tied = adapted.get_output_embeddings().weight is adapted.get_input_embeddings().weight
    assert tied == adapted.config.tie_word_embeddings == model.config.tie_word_embeddings


def test_an_untied_head_gets_rows_from_its_own(tokenizer: PreTrainedTokenizerFast, change: VocabularyChange) -> None:
    model = llama(len(tokenizer), tied=False)
    adapted = initialise_embeddings(model, change)
    index, old = next(iter(change.spelled.items()))
    expected = model.lm_head.weight.detach()[list(old)].mean(dim=0)
    torch.testing.assert_close(adapted.lm_head.weight.detach()[index], expected)


def test_a_head_with_a_bias_gets_entries_too(tokenizer: PreTrainedTokenizerFast, change: VocabularyChange) -> None:
    model = llama(len(tokenizer), tied=False)
    model.lm_head = torch.nn.Linear(16, len(tokenizer))
    adapted = initialise_embeddings(model, change)
    index, old = next(iter(change.spelled.items()))
    torch.testing.assert_close(adapted.lm_head.bias[index], model.lm_head.bias[list(old)].mean())
    assert torch.equal(adapted.lm_head.bias[: len(tokenizer)], model.lm_head.bias)


def test_padded_rows_are_used_before_the_matrix_grows(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    padded = llama(len(tokenizer) + 500)
    adapted = initialise_embeddings(padded, change)
    assert len(rows(adapted)) == len(tokenizer) + 500
    assert torch.equal(rows(adapted)[change.size :], rows(padded)[change.size :])


def test_replaced_rows_are_made_like_added_ones(model: PreTrainedModel, replaced: VocabularyChange) -> None:
    adapted = initialise_embeddings(model, replaced)
    assert len(rows(adapted)) == len(rows(model))
    for index, old in replaced.spelled.items():
        torch.testing.assert_close(rows(adapted)[index], rows(model)[list(old)].mean(dim=0))
    kept = torch.tensor(sorted(replaced.kept))
    assert torch.equal(rows(adapted)[kept], rows(model)[kept])


def test_the_given_model_is_not_changed(model: PreTrainedModel, change: VocabularyChange) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise_embeddings(model, change)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.config.vocab_size == len(rows(model))


def test_half_precision_rows_are_computed_in_full(tokenizer: PreTrainedTokenizerFast, change: VocabularyChange) -> None:
    half = llama(len(tokenizer)).to(torch.bfloat16)
    adapted = initialise_embeddings(half, change)
    index, old = max(change.spelled.items(), key=lambda item: len(item[1]))
    assert rows(adapted).dtype == torch.bfloat16
    assert torch.equal(rows(adapted)[index], rows(half)[list(old)].float().mean(dim=0).to(torch.bfloat16))


def test_the_result_loads_in_stock_transformers(model: PreTrainedModel, change: VocabularyChange, tmp_path) -> None:  # type: ignore[no-untyped-def]
    adapted = initialise_embeddings(model, change)
    adapted.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(rows(again), rows(adapted))
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_what_cannot_be_is_refused(
    model: PreTrainedModel, change: VocabularyChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="method 'magic' is unknown: use one of random, mean, subword_mean"):
        initialise_embeddings(model, change, method="magic")
    with pytest.raises(ModelError, match="the model only 100 rows"):
        initialise_embeddings(llama(100), change)
    broken = lambda old, change, generator: torch.full((len(change.added), old.shape[1]), float("nan"))  # noqa: E731
    monkeypatch.setitem(embeddings.METHODS, "broken", broken)
    with pytest.raises(ModelError, match="not finite"):
        initialise_embeddings(model, change, method="broken")


def test_a_change_without_tokens_changes_nothing(model: PreTrainedModel, change: VocabularyChange) -> None:
    nothing = dataclasses.replace(change, added={}, spelled={})
    assert torch.equal(rows(initialise_embeddings(model, nothing, method="mean")), rows(model))


def test_a_trimmed_vocabulary_gives_a_smaller_model_that_says_the_same(
    corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    texts = list(corpora["hu"].train["en"]["text"])
    both = train_tokenizer([*texts, *corpora["th"].train["th"]["text"]], size=700)
    change = trim_vocabulary(both, texts)
    for tied in (True, False):
        model = llama(len(both), tied=tied)
        model.config.eos_token_id = model.generation_config.eos_token_id = both.eos_token_id
        small = initialise_embeddings(model, change)
        assert len(rows(small)) == small.config.vocab_size == change.size < len(rows(model))
        assert small.config.eos_token_id == change.tokenizer.eos_token_id == small.generation_config.eos_token_id
        new, old = (torch.tensor(list(ids)) for ids in (change.kept.keys(), change.kept.values()))
        with torch.no_grad():
            before = model(**both(TEXT, return_tensors="pt")).logits[..., old]
            after = small(**change.tokenizer(TEXT, return_tensors="pt")).logits[..., new]
        assert torch.equal(before, after)
        small.save_pretrained(tmp_path / str(tied))
        again = AutoModelForCausalLM.from_pretrained(tmp_path / str(tied))
        assert torch.equal(rows(again), rows(small))
