"""How much text is enough: how many new tokens a text can teach, estimated before a run."""

from collections.abc import Sequence

import pandas as pd
from transformers import PreTrainedTokenizerFast

from ..corpus.corpus import Corpus
from ..display.html import render
from ..errors import VocabularyError
from ..languages import language_name
from ..recipe import Recipe
from .merges import token_counts
from .patterns import propose_repair
from .select import learn_tokens
from .tokenizer_json import Spec

RARELY = 20  # a token with fewer uses in training is hardly learned
SAMPLE = 20_000_000  # bytes of text that are read


def text_allowance(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe) -> str:
    """Say how well the training text of a run teaches the new tokens of the recipe.

    Args:
        tokenizer: of the base.
        corpus: its `train` part is used.
        recipe: number of new tokens, training budget, mixture.

    Raises:
        VocabularyError: no pair of tokens occurs twice in the text.
    """
    row = token_numbers(tokenizer, corpus, recipe, [recipe.vocabulary.tokens]).iloc[0]
    about = {"row": row, "name": language_name(corpus.language), "rarely": RARELY}
    return str(render("vocabulary/allowance.txt.j2", **about))


def token_numbers(
    tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe, numbers: Sequence[int]
) -> pd.DataFrame:
    """Estimate the effect of several numbers of new tokens.

    Tokens are learned as in notebook 2, but without protection of English and from at most 20 MB of
    text.

    Args:
        tokenizer: of the base.
        corpus: its `train` part is used.
        recipe: training budget and mixture.
        numbers: of new tokens, rising.

    Returns:
        One row per number that the text supports, or one row with the largest number if it supports
        none: `new_tokens`; `bytes` of the text; `saved`, the fraction of its tokens; `passes` of
        the budget over the text; `seen`, the fraction of new tokens that training shows at least 20
        times.

    Raises:
        VocabularyError: no pair of tokens occurs twice in the text.
    """
    texts = corpus.train[corpus.language]["text"]
    size = sum(len(text.encode()) for text in texts)
    sample = texts[:: -(-size // SAMPLE)]
    spec, scale = Spec.of(tokenizer), size / sum(len(text.encode()) for text in sample)
    if repair := propose_repair(tokenizer, sample, corpus.train["en"]["text"]):
        spec = spec.with_pre_tokenizer(repair.pre_tokenizer)
    words = spec.count_words(sample)
    before = token_counts(spec.bare, words).total()
    learned = learn_tokens(spec, words, max(numbers), min_frequency=2, max_token_length=16)
    if not learned:
        problem = f"no pair of tokens occurs twice in {len(sample)} documents"
        raise VocabularyError(f"{problem}: give more text with corpus.target")
    others = recipe.mixture.mean_english + recipe.mixture.chat_share
    budget = recipe.training.budget_tokens * max(0.0, 1 - others)
    rows: list[list[float]] = []
    for number in numbers:
        if number > len(learned) and rows:
            break
        chosen = learned[:number]
        counts = token_counts(spec.appended(chosen).bare, words)
        passes = budget / (counts.total() * scale)
        often = sum(counts[token.surface] * scale * passes >= RARELY for token in chosen)
        saved = 1 - counts.total() / before
        rows.append([len(chosen), size, saved, passes, often / len(chosen)])
    return pd.DataFrame(rows, columns=["new_tokens", "bytes", "saved", "passes", "seen"])
