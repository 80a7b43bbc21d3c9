"""How much text is enough: what a text allows, said before anything is paid for."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from ..corpus.corpus import Corpus
from ..languages import language_name
from ..recipe import Recipe
from .audit import RARELY
from .merges import token_counts
from .patterns import propose_repair
from .select import learn_tokens
from .tokenizer_json import Spec

# From how many bytes on a text teaches what, as far as our own runs show.
TEACHES = {
    0: "expect spelling and frequent words, not sentences",
    100_000: "expect spelling and common sentences, not knowledge",
    5_000_000: "expect fluent sentences on what the text speaks of, little knowledge",
    200_000_000: "expect fluent text, and some knowledge of what the text repeats",
}


@dataclass(frozen=True)
class Allowance:
    """What a training text allows under a recipe.

    Attributes:
        language: code of the target language.
        size: of its training text, in bytes.
        passes: how often the budget repeats that text.
        tokens: new tokens that the recipe asks for.
        learned: how many of them are seen at least 20 times within the budget.
    """

    language: str
    size: int
    passes: float
    tokens: int
    learned: int

    def __str__(self) -> str:
        teaches = [said for least, said in TEACHES.items() if self.size >= least][-1]
        size = f"{self.size / 1e6:,.1f} MB" if self.size >= 1e6 else f"{self.size / 1e3:,.0f} kB"
        return (
            f"{size} of {language_name(self.language)}: {teaches}. The budget reads it "
            f"{self.passes:.1f} times, and {self.learned:,} of {self.tokens:,} new tokens are seen "
            f"at least {RARELY} times in that."
        )


def text_allowance(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe) -> Allowance:
    """Return what the training text of a run allows.

    Tokens are learned as notebook 2 learns them, but without protecting English, and counted.

    Args:
        tokenizer: of the base.
        corpus: the text.
        recipe: how many tokens, how long a training.
    """
    texts, tokens = corpus.train[corpus.language]["text"], recipe.vocabulary.tokens
    spec = Spec.of(tokenizer)
    if repair := propose_repair(tokenizer, texts, corpus.train["en"]["text"]):
        spec = spec.with_pre_tokenizer(repair.pre_tokenizer)
    words = spec.count_words(texts)
    learned = learn_tokens(spec, words, tokens, min_frequency=2, max_token_length=16)[:tokens]
    counts = token_counts(spec.appended(learned).bare, words)
    budget = recipe.training.budget_tokens * (1 - recipe.mixture.english_share)
    passes = budget / counts.total()
    seen = sum(counts[token.surface] * passes >= RARELY for token in learned)
    size = sum(len(text.encode()) for text in texts)
    return Allowance(corpus.language, size, passes, tokens, seen)
