"""Token spans: where each token sits in a text, in UTF-8 bytes.

A token of a byte-level tokenizer can end inside a character, so spans are byte offsets; they tile the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Span:
    """A token of a text: its id, and the bytes `start:end` that it covers."""

    id: int
    start: int
    end: int


@cache
def byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies (the convention of GPT-2).

    Printable Latin-1 characters stand for themselves; the other bytes are numbered from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + index): b for index, b in enumerate(others)}


def surface_bytes(surface: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for.

    Example:
        >>> surface_bytes("Ġház").decode("utf-8", "replace")
        ' h�z'
        >>> surface_bytes("ĠhÃ¡z").decode()
        ' ház'
    """
    alphabet = byte_alphabet()
    return bytes(alphabet.get(character, ord("?")) for character in surface)


def readable(surface: str) -> str:
    """A token of a byte-level vocabulary as text; bytes that are no character by themselves as ⟨E0⟩."""
    raw, text, position = surface_bytes(surface), [], 0
    while position < len(raw):
        for length in (1, 2, 3, 4):
            try:
                text.append(raw[position : position + length].decode())
                break
            except UnicodeDecodeError:
                continue
        else:
            text.append(f"⟨{raw[position]:02X}⟩")
            length = 1
        position += length
    return "".join(text)


def byte_lengths(tokenizer: PreTrainedTokenizerFast) -> npt.NDArray[np.int64]:
    """Bytes that each id of a byte-level tokenizer stands for, of shape (highest id + 1,); 0 for special ones."""
    vocabulary = tokenizer.get_vocab()
    lengths = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for surface, index in vocabulary.items():
        lengths[index] = len(surface)
    lengths[list(tokenizer.added_tokens_decoder)] = 0
    return lengths


def token_spans(tokenizer: PreTrainedTokenizerFast, text: str) -> list[Span]:
    """The tokens of a text and the bytes each covers; together they cover every byte once.

    Byte-level tokens carry their length in themselves. For other tokenizers, whose tokens end at characters,
    a token covers what lies between its end and the end of the one before.
    """
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    size, spans, start = len(text.encode()), [], 0
    raw = [surface_bytes(token) for token in encoding.tokens]
    if b"".join(raw) == text.encode():
        ends = np.cumsum([len(piece) for piece in raw]).tolist()
    else:
        ends = [len(text[:end].encode()) for _, end in encoding.offsets]
    for index, (token, end) in enumerate(zip(encoding.ids, ends, strict=True)):
        end = size if index == len(encoding.ids) - 1 else max(start, end)
        spans.append(Span(token, start, end))
        start = end
    return spans
