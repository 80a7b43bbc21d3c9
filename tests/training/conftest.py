"""What the tests of training start from."""

import pytest
from transformers import PreTrainedModel

from helpers.training import RECIPE
from langadapt_utils.corpus.corpus import Corpus
from langadapt_utils.embeddings.initialise import initialise_embeddings
from langadapt_utils.recipe import MixtureRecipe
from langadapt_utils.training.mixture import Mixture, mix
from langadapt_utils.vocabulary.change import VocabularyChange


@pytest.fixture
def mixture(corpora: dict[str, Corpus], change: VocabularyChange) -> Mixture:
    return mix(
        corpora["hu"],
        change.tokenizer,
        MixtureRecipe(sequence_length=32),
        budget_tokens=RECIPE.budget_tokens,
    )


@pytest.fixture
def start(model: PreTrainedModel, change: VocabularyChange) -> PreTrainedModel:
    return initialise_embeddings(model, change)
