"""Conversations in a mixture: their share, and that the assistant's turns alone are learned."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from helpers.tiny import CHAT_TEMPLATES, for_chat, llama
from helpers.training import RECIPE
from langadapt_utils.chat import CHAT, chat_tokens, messages_of
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.errors import ModelError
from langadapt_utils.recipe import MixtureRecipe
from langadapt_utils.training.mixture import Mixture, mix
from langadapt_utils.training.train import train
from langadapt_utils.training.views import loss_ends, plot_training
from langadapt_utils.vocabulary.change import VocabularyChange
from langadapt_utils.vocabulary.extend import extend_vocabulary

KEYS = ("input_ids", "learned")


@pytest.fixture(params=CHAT_TEMPLATES)
def chat(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> object:
    return for_chat(tokenizer, CHAT_TEMPLATES[request.param])


def mixed(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, *, budget: int = 32_000, length: int = 32
) -> Mixture:
    recipe = MixtureRecipe(sequence_length=length, english_share=0.25, chat_share=0.125)
    return mix(corpus, tokenizer, recipe, budget_tokens=budget)


def test_conversations_have_their_share_and_english_keeps_its_own(
    chat: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    mixture = mixed(corpora["hu"], chat)
    assert len(mixture) == 1_000
    assert [mixture.order.count(name) for name in ("en", "hu", CHAT)] == [250, 625, 125]
    assert {mixture[i]["part"] for i in range(8)} == {0, 1, 2}
    assert not mixture.only("en").order.count(CHAT)


def test_only_the_assistants_turns_are_learned(
    chat: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    mixture = mixed(corpora["hu"], chat, budget=65_536, length=512)
    items = [mixture[i] for i, name in enumerate(mixture.order) if name == CHAT]
    ids, learned = (np.concatenate([item[key] for item in items]) for key in KEYS)
    assert 0.3 < learned.mean() < 0.95 and (ids >= 0).all()
    rendered = [chat_tokens(chat, messages_of(text)) for text in corpora["hu"].chat["text"]]
    known = {tuple(whole): marks for whole, marks in rendered}
    begins = np.flatnonzero(np.concatenate([item["position_ids"] for item in items]) == 0)
    found = 0
    for begin, until in pairwise(begins):
        marks = known.get(tuple(ids[begin:until].tolist()))
        found += marks is not None
        assert marks is None or learned[begin:until].tolist() == marks
    assert found > 10
    assert learned[ids == chat.convert_tokens_to_ids("<|im_end|>")].sum() > 10
    assert not learned[ids == chat.convert_tokens_to_ids("<|im_start|>")].any()


def test_without_a_share_the_mixture_is_what_it_was(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    mixture = mix(corpora["hu"], tokenizer, MixtureRecipe(sequence_length=32), budget_tokens=3_200)
    assert set(mixture.order) == {"en", "hu"} and mixture[0]["learned"].all()


def test_a_base_without_a_chat_template_is_refused(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus]
) -> None:
    with pytest.raises(ModelError, match=r"chat template fails \(it has none\): choose a base"):
        mixed(corpora["hu"], for_chat(tokenizer, None))


def test_the_loss_of_conversations_is_reported_by_itself(
    tokenizer: PreTrainedTokenizerFast, corpora: dict[str, Corpus], tmp_path: Path
) -> None:
    chat = for_chat(tokenizer, CHAT_TEMPLATES["plain"])
    change: VocabularyChange = extend_vocabulary(
        chat, corpora["hu"].train["hu"]["text"][:30], tokens=20
    )
    start = initialise_embeddings(llama(len(chat)), change)
    mixture = mixed(corpora["hu"], change.tokenizer, budget=RECIPE.budget_tokens)
    result = train(start, change, mixture, RECIPE, tmp_path)
    assert [row["language"] for row in loss_ends(result.steps, "hu")] == ["hu", "en", CHAT]
    assert "chat" in plot_training(result.steps, "hu").get_title(loc="left")
