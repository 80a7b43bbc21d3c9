"""How much text is enough: what a text allows, said before anything is paid for."""

from collections.abc import Sequence
from dataclasses import dataclass

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

RARELY = 20  # a token used less often than this in its training text will hardly be learned
SAMPLE = 20_000_000  # bytes of text that are looked at


@dataclass(frozen=True)
class Allowance:
    """What a training text allows under a recipe.

    Attributes:
        language: code of the target language.
        size: of its training text, in bytes.
        passes: how often the budget repeats that text.
        tokens: new tokens that the recipe asks for, or as many as the text has.
        seen: the share of them that is seen at least 20 times within the budget.
    """

    language: str
    size: int
    passes: float
    tokens: int
    seen: float

    def __str__(self) -> str:
        about = {"text": self, "name": language_name(self.language), "often": RARELY}
        return str(render("vocabulary/allowance.txt.j2", **about))


def text_allowance(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe) -> Allowance:
    """Return what the training text of a run allows, with as many new tokens as the recipe says.

    Args:
        tokenizer: of the base.
        corpus: the text.
        recipe: how many tokens, how long a training.
    """
    row = token_numbers(tokenizer, corpus, recipe, [recipe.vocabulary.tokens]).iloc[0]
    return Allowance(corpus.language, row.bytes, row.passes, int(row.new_tokens), row.seen)


def token_numbers(
    tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe, numbers: Sequence[int]
) -> pd.DataFrame:
    """Return what several numbers of new tokens bring.

    Tokens are learned as notebook 2 learns them, but without protecting English and from 20 MB at
    most, and counted there.

    Args:
        tokenizer: of the base.
        corpus: the text.
        recipe: how long a training.
        numbers: of new tokens, rising.

    Returns:
        One row per number for which the text is enough; if it is for none, one row with the number
        that it has: `new_tokens`; `bytes` of the text; `saved`, the share of its tokens; `passes`
        of the budget over it; `seen`, the share of new tokens that are seen at least 20 times in
        that.

    Raises:
        VocabularyError: nothing is repeated in the text, so there is no token to learn.
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
    others = recipe.mixture.english_share + recipe.mixture.chat_share
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
