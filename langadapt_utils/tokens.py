"""Token spans: the UTF-8 bytes of a text that each token covers.

A token of a byte-level tokenizer can end inside a character, so spans are byte offsets. Together
they cover the text without gaps.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
import regex
from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Sequence, Split
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .errors import CorpusError

Ids = npt.NDArray[np.int64]
PROBES = "In the first place", "12 cafés", "two  ﬁne ways"  # which show how text is normalised
SPACE = "▁"  # how SentencePiece writes a space
NEVER = b"\xff"  # occurs in no UTF-8 text
BYTE_TOKEN = regex.compile("<0x[0-9A-F]{2}>")  # a byte of an unknown character in SentencePiece
# How GPT-2 writes each byte: printable Latin-1 characters stand for themselves, the other bytes are
# numbered from U+0100 on.
LETTERS: dict[int, str] = bytes_to_unicode()
BYTE_ALPHABET = {letter: byte for byte, letter in LETTERS.items()}
BYTES = {ord(letter): chr(byte) for byte, letter in LETTERS.items()}
ESCAPED_BYTES = {0xDC00 + byte: f"⟨{byte:02X}⟩" for byte in range(0x80, 0x100)}


@dataclass(frozen=True)
class Span:
    """A token of a text: its id and the bytes `start:end` that it covers."""

    id: int
    start: int
    end: int


def is_byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether a vocabulary uses the byte alphabet of GPT-2, as Llama 3 does."""
    backend = tokenizer.backend_tokenizer
    return "ByteLevel" in f"{backend.pre_tokenizer!r} {backend.decoder!r}"


def surface_bytes(surface: str, *, byte_level: bool = True) -> bytes:
    """Return the bytes of a token.

    Args:
        surface: the token as the vocabulary writes it.
        byte_level: whether the vocabulary uses the byte alphabet; otherwise the spelling is that of
            SentencePiece, in which `▁` is a space and `<0xE1>` a byte.

    Example:
        >>> surface_bytes("ĠhÃ¡z").decode()
        ' ház'
        >>> surface_bytes("▁ház", byte_level=False).decode()
        ' ház'
        >>> surface_bytes("<0xE1>", byte_level=False)
        b'\\xe1'
    """
    if byte_level:
        return surface.translate(BYTES).encode("latin-1", "replace")
    if BYTE_TOKEN.fullmatch(surface):
        return bytes([int(surface[3:5], 16)])
    return surface.replace(SPACE, " ").encode()


def bytes_surface(raw: bytes) -> str:
    """Return bytes in the spelling of a byte-level vocabulary.

    Example:
        >>> bytes_surface(" ház".encode())
        'ĠhÃ¡z'
    """
    return raw.decode("latin-1").translate(LETTERS)


def as_surfaces(words: Iterable[str]) -> list[str]:
    """Return words in the spelling of a byte-level vocabulary, converted together for speed.

    Example:
        >>> as_surfaces(["ház", " ló"])
        ['hÃ¡z', 'ĠlÃ³']
    """
    joined = bytes_surface(NEVER.join(word.encode() for word in words))
    return joined.split(bytes_surface(NEVER)) if joined else []


def as_words(surfaces: Iterable[str]) -> list[str]:
    """Return tokens of a byte-level vocabulary as text, without incomplete characters.

    Example:
        >>> as_words(["hÃ¡z", "ĠlÃ³"])
        ['ház', ' ló']
    """
    joined = surface_bytes(bytes_surface(NEVER).join(surfaces))
    return [raw.decode("utf-8", "ignore") for raw in joined.split(NEVER)] if joined else []


def readable(tokenizer: PreTrainedTokenizerFast, token: int | str) -> str:
    """Return a token as text; bytes that are no character become ⟨E0⟩.

    Args:
        tokenizer: of the token.
        token: its id, or its spelling in the vocabulary.
    """
    surface = tokenizer.convert_ids_to_tokens(token) if isinstance(token, int) else token
    return bytes_as_text(surface_bytes(surface, byte_level=is_byte_level(tokenizer)))


def bytes_as_text(raw: bytes) -> str:
    """Return bytes as text; bytes that are no character become ⟨E0⟩.

    Example:
        >>> bytes_as_text(b"h\\xc3\\xa1z\\xe0")
        'ház⟨E0⟩'
    """
    return raw.decode("utf-8", "surrogateescape").translate(ESCAPED_BYTES)


def encode_texts(
    tokenizer: Tokenizer, texts: Iterable[str], *, offsets: bool = False
) -> list[Encoding]:
    """Encode running text. A string that reads like a special token is encoded as text.

    Args:
        tokenizer: of the `tokenizers` library.
        texts: to encode.
        offsets: also return the characters and the spelling of each token, which takes longer.
    """
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    special, cutter = tokenizer.encode_special_tokens, tokenizer.pre_tokenizer
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, Unigram):  # for which a special token is a piece like any other
        cut = Split(Regex(special_starts(tokenizer)), "isolated")
        tokenizer.pre_tokenizer = Sequence([*filter(None, [cutter]), cut])
    try:
        return list(encode(list(texts), add_special_tokens=False))
    finally:
        tokenizer.encode_special_tokens, tokenizer.pre_tokenizer = special, cutter
        if truncation:
            tokenizer.enable_truncation(**truncation)
        if padding:
            tokenizer.enable_padding(**padding)


def special_starts(tokenizer: Tokenizer) -> str:
    """Return a pattern of the first character of a special token, if the rest follows."""
    added = tokenizer.get_added_tokens_decoder().values()
    names = [token.content for token in added if token.special and len(token.content) > 1]
    first = (f"{regex.escape(name[0])}(?={regex.escape(name[1:])})" for name in names)
    return "|".join(first) or "(?!)"


def unknown_token(tokenizer: Tokenizer) -> str | None:
    """Return the token for unknown characters, or None."""
    if not isinstance(tokenizer.model, Unigram):
        unknown = getattr(tokenizer.model, "unk_token", None)
        return unknown if unknown and tokenizer.token_to_id(unknown) is not None else None
    unknown = json.loads(tokenizer.to_str())["model"]["unk_id"]
    return None if unknown is None else tokenizer.id_to_token(unknown)


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> list[list[int]]:
    """Return the ids of each text, without the tokens that begin and end a document.

    Args:
        tokenizer: that encodes the texts.
        texts: running text; one that reads like a special token is encoded as text.
    """
    return [encoding.ids for encoding in encode_texts(tokenizer.backend_tokenizer, texts)]


def byte_lengths(tokenizer: PreTrainedTokenizerFast) -> Ids:
    """Return the bytes per id of a tokenizer, of shape (highest id + 1,); 0 for special tokens."""
    byte_level, added = is_byte_level(tokenizer), tokenizer.added_tokens_decoder
    lengths = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=np.int64)
    for surface, index in tokenizer.get_vocab().items():
        lengths[index] = len(surface_bytes(surface, byte_level=byte_level))
    for index, token in added.items():
        lengths[index] = 0 if token.special else len(token.content.encode())
    return lengths


def token_spans(tokenizer: PreTrainedTokenizerFast, text: str) -> list[Span]:
    """Return the tokens of a text with the bytes that each covers. Each byte is covered once.

    A byte-level token has a known length. A token of another tokenizer ends at a character and
    covers the bytes after the end of the token before.
    """
    (encoding,) = encode_texts(tokenizer.backend_tokenizer, [text], offsets=True)
    byte_level = is_byte_level(tokenizer)
    raw = [surface_bytes(token, byte_level=byte_level) for token in encoding.tokens]
    if b"".join(raw) == text.encode():
        ends = np.cumsum([len(piece) for piece in raw[:-1]]).tolist()
    else:
        places = np.cumsum([0, *(len(letter.encode()) for letter in text)])
        # A token may overlap the next: a space that was put before the text, a part of a letter.
        ends = [int(places[min(end, after)]) for (_, end), (after, _) in pairwise(encoding.offsets)]
    ends = [*accumulate(ends, max), len(text.encode())]
    return list(map(Span, encoding.ids, [0, *ends], ends))


def spread(texts: Iterable[str], *, count: int = 1_000, length: int = 1_000) -> list[str]:
    """Return evenly spaced excerpts of texts. The texts are read twice.

    Example:
        >>> spread(["abcdef", "ghij"], count=2, length=3)
        ['abc', 'f', 'gh']
    """
    step = max(length, sum(map(len, texts)) // count)
    excerpts, offset = [], 0
    for text in texts:
        # From the first window that reaches into it.
        for begin in range(max(0, (offset - length) // step + 1) * step - offset, len(text), step):
            excerpts.append(text[max(begin, 0) : begin + length])
        offset += len(text)
    return excerpts


def document_start(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id before each document in training and evaluation.

    It is the token that the tokenizer itself puts before a text. If it puts none, it is the first
    of `<|endoftext|>`, the BOS token and the EOS token that exists.

    Raises:
        CorpusError: the tokenizer has none of these tokens.
    """
    encode = tokenizer.backend_tokenizer.encode
    whole, plain = (encode("a", add_special_tokens=own).ids[:1] for own in (True, False))
    if whole != plain:
        return int(whole[0])
    # The library looks up one token; `get_vocab` would copy the whole vocabulary.
    for token in filter(None, ("<|endoftext|>", tokenizer.bos_token, tokenizer.eos_token)):
        if (index := tokenizer.backend_tokenizer.token_to_id(token)) is not None:
            return int(index)
    problem = f"the tokenizer {tokenizer.name_or_path} has no BOS or EOS token to begin documents"
    raise CorpusError(f"{problem}: name one as bos_token in its tokenizer_config.json")


def document_end(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the id that ends a document in training: the EOS token, or None if there is none."""
    end = tokenizer.eos_token
    return tokenizer.backend_tokenizer.token_to_id(end) if end else None


def check_pieces(tokenizer: PreTrainedTokenizerFast, files: Iterable[object]) -> None:
    """Check that text has the tokens of SentencePiece, whose files some classes read otherwise.

    Args:
        tokenizer: that `transformers` built from the files.
        files: models of SentencePiece.

    Raises:
        ValueError: the tokens differ.
    """
    for file in files:
        from sentencepiece import SentencePieceProcessor

        pieces = SentencePieceProcessor(model_file=str(file)).encode([*PROBES], out_type=str)
        if pieces != (tokens := [tokenizer.tokenize(text) for text in PROBES]):
            raise ValueError(f"{file} gives {pieces} for {PROBES}, and its class {tokens}")
