"""What a language costs under a tokenizer: tokens per word, character and byte, parity, continued words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CorpusError
from .languages import BY_SPACES, SEGMENTERS, word_spans

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerFast

    from .languages import Spans


@dataclass(frozen=True)
class FertilityReport:
    """Fertility of tokenizers over languages.

    Attributes:
        table: a row for each tokenizer and language, with the columns `tokens`, `words`, `characters`,
            `bytes`, `tokens_per_word` (fertility; Ács 2019), `tokens_per_character`, `tokens_per_byte`,
            `parity` (tokens over those of English for the same sentences; Petrov et al., arXiv 2305.15425;
            empty where the texts are not translations), `continued_words` (share of words that two or more
            tokens touch; Rust et al. 2021), `single_token_words` (share that is exactly one token; arXiv
            2510.09947), `segmenter`.
        sentences: how many texts were measured in each language.
    """

    table: pd.DataFrame
    sentences: int

    def value(self, tokenizer: str, language: str, column: str) -> float:
        """One cell of the table."""
        return float(self.table.set_index(["tokenizer", "language"]).loc[(tokenizer, language), column])

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        content = {"sentences": self.sentences, "rows": json.loads(self.table.to_json(orient="records"))}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> FertilityReport:
        """Read what `save` wrote."""
        import pandas as pd

        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(pd.DataFrame(content["rows"]), content["sentences"])


def measure_fertility(
    tokenizers: Mapping[str, PreTrainedTokenizerFast], texts: Mapping[str, Sequence[str]], *, parallel: bool = True
) -> FertilityReport:
    """Measure what texts cost under tokenizers.

    Args:
        tokenizers: by name.
        texts: per language; translations of each other, line by line, where `parallel`.
        parallel: whether parity to English can be computed.

    Raises:
        CorpusError: a language has no text, or parallel texts differ in number.
    """
    import pandas as pd

    counts = {language: len(lines) for language, lines in texts.items()}
    if not all(counts.values()) or (parallel and len(set(counts.values())) > 1):
        raise CorpusError(
            "fertility needs text in every language, and as many lines of each where they are parallel: "
            f"there are {counts}"
        )
    rows = [
        {"tokenizer": name, "language": language, **_count(tokenizer, lines, language)}
        for name, tokenizer in tokenizers.items()
        for language, lines in texts.items()
    ]
    table = pd.DataFrame(rows)
    table["tokens_per_word"] = table.tokens / table.words
    table["tokens_per_character"] = table.tokens / table.characters
    table["tokens_per_byte"] = table.tokens / table.bytes
    table["continued_words"] = table.continued / table.words
    table["single_token_words"] = 1 - table.continued_words
    english = table[table.language == "en"].set_index("tokenizer").tokens
    table["parity"] = table.tokens / table.tokenizer.map(english) if parallel and len(english) else float("nan")
    return FertilityReport(table.drop(columns="continued"), min(counts.values()))


def _count(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], language: str) -> dict[str, int | str]:
    tokens = words = continued = 0
    for text, encoding in zip(
        texts, tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
    ):
        spans = word_spans(text, language)
        tokens += len(encoding.ids)
        words += len(spans)
        continued += sum(touching > 1 for touching in tokens_touching(spans, encoding.offsets))
    return {
        "tokens": tokens,
        "words": words,
        "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode()) for text in texts),
        "continued": continued,
        "segmenter": SEGMENTERS.get(language, BY_SPACES)[0],
    }


def tokens_touching(words: Spans, tokens: Spans) -> list[int]:
    """How many tokens touch each word; words and tokens are in order of the text.

    Example:
        >>> tokens_touching([(0, 4), (5, 9)], [(0, 2), (2, 4), (4, 9)])
        [2, 1]
    """
    touching, first = [], 0
    for start, end in words:
        while first < len(tokens) and tokens[first][1] <= start:
            first += 1
        last = first
        while last < len(tokens) and tokens[last][0] < end:
            last += 1
        touching.append(last - first)
    return touching
