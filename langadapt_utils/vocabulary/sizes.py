"""Vocabulary sizes: what each number of new tokens saves and costs.

After a change, on held-out text: merges are ordered, so the tokenizer with n new tokens is the full
one, stopped after n merges. Before a run, on its training text: how many tokens it can teach.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerFast as Tokenizer

from ..chat import chat_tokens, messages_of
from ..corpus.corpus import Corpus
from ..display.html import render
from ..errors import VocabularyError
from ..intervals import knee
from ..languages import Texts, language_name
from ..models import Base, parameters_by_type
from ..recipe import Recipe
from ..tokens import encode_texts
from .change import VocabularyChange
from .merges import times_applied, token_counts
from .patterns import propose_repair
from .select import learn_tokens
from .tokenizer_json import Spec

RARELY = 20  # a token with fewer uses in training is hardly learned
SAMPLE = 20_000_000  # bytes of training text that are read
POINTS, UNIGRAM_POINTS = 60, 10
BYTES_PER_PARAMETER = 2  # in bfloat16


@dataclass(frozen=True)
class VocabularySizes:
    """What each number of new tokens saves and costs.

    Attributes:
        table: one row per number, with the columns `new_tokens`; `tokens` and
            `tokens_per_character` of the target text; `parity` (tokens divided by those of the
            English translation; NaN without translations); `saved` (fraction of the base's
            tokens); `megabytes` (new embeddings in bfloat16, twice if not tied);
            `compute_per_token` and `speed` (multiply-adds per token of a forward pass, and
            characters for the same compute, both as multiples of the base's).
        knee: the number after which more tokens save little: the point farthest from the straight
            line between the ends of the curve (Satopaa et al. 2011, "Finding a Kneedle in a
            haystack").
        language: of the target text.
        texts: number of measured texts.
    """

    table: pd.DataFrame
    knee: int
    language: str
    texts: int

    def at(self, number: int) -> pd.Series:
        """Return the row of the nearest number of new tokens."""
        return self.table.iloc[int(np.argmin(np.abs(self.table.new_tokens.to_numpy() - number)))]


def measure_sizes(
    base: Base, change: VocabularyChange, texts: Texts, *, language: str, parallel: bool = True
) -> VocabularySizes:
    """Measure what each number of new tokens saves and costs, on held-out text.

    Args:
        base: the base model; its configuration gives the cost, and no weights are loaded.
        change: with all new tokens to consider.
        texts: in the target language and, if `parallel`, in English.
        language: code of the target language.
        parallel: whether the texts are translations, line by line.

    Raises:
        VocabularyError: the tokenizer is of a family that cannot be extended.
    """
    old, new = Spec.of(base.tokenizer), Spec.of(change.tokenizer)
    counts = {code: text_tokens(old, new, change, *lines) for code, lines in texts.items()}
    numbers = np.array(list(counts[language]))
    tokens = {code: np.array(list(by_number.values())) for code, by_number in counts.items()}
    target, config = tokens[language], base.config.get_text_config()
    matrices = 1 if config.tie_word_embeddings else 2
    lookup = (matrices - 1) * config.vocab_size * config.hidden_size
    used = parameters_by_type(base.folder).total() - lookup
    added = numbers * (change.mode == "extend")
    work = (used + added * config.hidden_size) / used  # a token reads one row of input embeddings
    columns = {
        "new_tokens": numbers,
        "tokens": target,
        "tokens_per_character": target / sum(map(len, texts[language])),
        "parity": target / tokens["en"] if parallel and "en" in counts else np.nan,
        "saved": 1 - target / target[0],
        "megabytes": added * config.hidden_size * matrices * BYTES_PER_PARAMETER / 1e6,
        "compute_per_token": work,
        "speed": target[0] / target / work,
    }
    bend = int(numbers[knee(numbers, target)])
    return VocabularySizes(pd.DataFrame(columns), bend, language, len(texts[language]))


def text_tokens(base: Spec, grown: Spec, change: VocabularyChange, *texts: str) -> dict[int, int]:
    """Count the tokens of texts for rising numbers of new tokens, from none to all.

    For BPE one encoding is enough. A merge saves one token per use, including uses as a part of
    later merges. A character saves all bytes that spelled it except one. Unigram pieces compete, so
    each number is measured separately, and there are fewer numbers.

    Args:
        base: before the change; `replace` removes its tokens for every number.
        grown: after the change.
        change: of the vocabulary.
        texts: to count.
    """

    def count(spec: Spec) -> Counter[str]:
        encodings = encode_texts(spec.whole, texts, offsets=True)
        return Counter(token for encoding in encodings for token in encoding.tokens)

    added, points = change.added, UNIGRAM_POINTS if grown.family == "Unigram" else POINTS
    rising = np.geomspace(1, max(1, len(added)), points).round().astype(int)
    numbers = [0, *np.unique(rising).tolist()] if added else [0]
    if grown.family == "Unigram":
        specs = {number: _with_first(base, grown, added, number) for number in numbers}
        return {number: count(spec).total() for number, spec in specs.items()}
    counts, parts = count(grown), {left + right: (left, right) for left, right in grown.merges()}
    applied = times_applied(counts, [parts[s] for s in added.values() if s in parts])
    pieces = [2 if s in parts else len(change.base_pieces[new]) for new, s in added.items()]
    saved = [applied[s] * (n - 1) for s, n in zip(added.values(), pieces, strict=True)]
    return {number: counts.total() + sum(saved[number:]) for number in numbers}


def _with_first(base: Spec, grown: Spec, added: Mapping[int, str], number: int) -> Spec:
    """Return a Unigram tokenizer with only the first added pieces."""
    pieces, all_pieces = list(base.data["model"]["vocab"]), grown.data["model"]["vocab"]
    for new in sorted(list(added)[:number]):
        pieces[new : new + 1] = [all_pieces[new]]
    return Spec({**grown.data, "model": {**grown.data["model"], "vocab": pieces}}, grown.family)


def text_allowance(tokenizer: Tokenizer, corpus: Corpus, recipe: Recipe) -> str:
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
    tokenizer: Tokenizer, corpus: Corpus, recipe: Recipe, numbers: Sequence[int]
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
        RecipeError: the mixture has only English and conversations.
        ModelError: the base cannot render the conversations of the recipe.
    """
    recipe.mixture.require_target()
    for text in corpus.chat["text"][:1_000] if recipe.mixture.chat_share else ():
        chat_tokens(tokenizer, messages_of(text))  # a template that fails is found before training
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
    for number in [n for n in numbers if n <= len(learned)] or [len(learned)]:
        chosen = learned[:number]
        counts = token_counts(spec.appended(chosen).bare, words)
        passes = budget / (counts.total() * scale)
        often = sum(counts[token.surface] * scale * passes >= RARELY for token in chosen)
        rows.append([len(chosen), size, 1 - counts.total() / before, passes, often / len(chosen)])
    return pd.DataFrame(rows, columns=["new_tokens", "bytes", "saved", "passes", "seen"])
