"""Several models on the same documents: measured alike, and compared document by document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from .corpus.corpus import Corpus
from .evaluation.likelihood import document_bits
from .hardware import device
from .intervals import Estimate, ratio, relative_change

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

RESAMPLES = 2_000
MEASURED = ["language", "document", "bits", "bytes"]  # what stands in a row of `document_rows` after its labels


def heldout_texts(corpus: Corpus, documents: int) -> dict[str, Sequence[str]]:
    """Some held-out documents of the target language and of English."""
    return {code: corpus.heldout[code].shuffle(seed=0)["text"][:documents] for code in (corpus.language, "en")}


def document_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Mapping[str, Sequence[str]],
    window_tokens: int,
    *labels: Any,
) -> list[list[Any]]:
    """A row a text: the labels, and what `MEASURED` names."""
    model.to(device())
    rows = [
        [*labels, code, index, float(value), len(text.encode())]
        for code, lines in texts.items()
        for index, (value, text) in enumerate(
            zip(document_bits(model, tokenizer, lines, window_tokens=window_tokens), lines, strict=True)
        )
    ]
    model.to("cpu")
    return rows


def bits_by(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Bits of each document of one language, averaged over seeds: a row for each value of a column of labels."""
    return table.pivot_table(index=name, columns="document", values="bits", sort=False)


def compared(table: pd.DataFrame, name: str, reference: str) -> Iterator[tuple[str, Estimate, Estimate | None]]:
    """Bits per byte for each value of a column of labels, and the change against the one that is the reference.

    Intervals are over documents. The table holds one language; where it has no reference, there are no changes.
    """
    bits = bits_by(table, name)
    sizes = table.groupby("document")["bytes"].first().loc[bits.columns].to_numpy(dtype=float)
    for label, values in zip(bits.index, bits.to_numpy(), strict=True):
        change = None
        if label != reference and reference in bits.index:
            change = relative_change(bits.loc[reference].to_numpy(), values, resamples=RESAMPLES)
        yield label, ratio(values, sizes, resamples=RESAMPLES), change
