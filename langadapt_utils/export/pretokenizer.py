"""Find by trial the word pattern with which llama.cpp gives the ids of a tokenizer.json.

Public converters recognise a tokenizer by a hash of its ids, which a new vocabulary changes
(ggml-org/llama.cpp issues 8649, 9927, 27277).
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import LlamaConfig, LlamaForCausalLM

from ..errors import ModelError, VocabularyError
from ..models import load_tokenizer, quiet_transformers, save_tokenizer
from ..tokens import document_start, is_byte_level, token_ids
from .gguf_file import ELSEWHERE, KNOWN, Pattern, write_gguf
from .llama import loaded

BYTE_LEVEL = [Pattern(name) for name in KNOWN["byte_level"]]
SENTENCEPIECE = [Pattern(*options) for options in KNOWN["sentencepiece"]]
TEXTS, FIRST = 5_000, 500  # minimum number of texts, and those of a first comparison
PER_LANGUAGE, DOCUMENTS = 4_000, 50  # maximum lines and documents per language
JOINTS = (" ", "\n", "\r\n", "\n\n", "\t", "  ", ", ")  # between two lines
TINY = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 1}  # and one layer


def trial_texts(texts: Mapping[str, Sequence[str]], least: int = TEXTS) -> list[str]:
    """Return texts on which to compare the ids of two tokenizers.

    These are hard cases, lines and documents in all languages, and joined lines if there are too
    few.

    Args:
        texts: documents by language.
        least: minimum number of texts.
    """
    draw, lines, whole = random.Random(0), list[str](KNOWN["probes"]), list[str]()
    for documents in texts.values():
        found = [line for document in documents for line in document.splitlines() if line.strip()]
        lines += draw.sample(found, min(len(found), PER_LANGUAGE))
        whole += documents[:DOCUMENTS]
    trial = dict.fromkeys([*KNOWN["probes"], *draw.sample(lines, len(lines)), *whole])
    while len(trial) < least:
        trial[draw.choice(lines) + draw.choice(JOINTS) + draw.choice(lines)] = None
    return list(trial)


def find_pattern(folder: Path, texts: Sequence[str]) -> Pattern:
    """Return the first word pattern of llama.cpp that gives the ids of a tokenizer.json.

    Args:
        folder: of the tokenizer.
        texts: to compare; a pattern that fails on the first ones is not tried further.

    Raises:
        VocabularyError: no pattern fits; the message shows a short text on which the nearest one
            fails.
        ModelError: llama.cpp cannot load any file.
    """
    tokenizer, tried = load_tokenizer(folder), []
    right, separator = token_ids(tokenizer, texts), document_start(tokenizer)
    with TemporaryDirectory() as scratch:
        tiny, file = Path(scratch) / "tiny", Path(scratch) / "tiny.gguf"
        rows = max(tokenizer.get_vocab().values()) + 1
        with quiet_transformers():
            shape = LlamaConfig(vocab_size=rows, num_hidden_layers=1, **TINY)
            LlamaForCausalLM(shape).save_pretrained(tiny)
        save_tokenizer(tokenizer, tiny)
        for pattern in BYTE_LEVEL if is_byte_level(tokenizer) else SENTENCEPIECE:
            write_gguf(tiny, file, "f16", pattern)
            try:
                with loaded(file) as llama:
                    ids = llama.ids(texts[:FIRST], separator)
                    if ids == right[:FIRST]:
                        ids += llama.ids(texts[FIRST:], separator)
            except ModelError:  # a name that this llama.cpp does not have, or its own failure
                continue
            wrong = [place for place, found in enumerate(ids) if found != right[place]]
            if not wrong:
                return pattern
            shortest = min(wrong, key=lambda place: len(texts[place]))
            tried.append((-len(ids), len(wrong), pattern.name, shortest, ids[shortest]))
    if not tried:
        raise ModelError("llama.cpp cannot load any file: update xllamacpp")
    _, _, name, place, found = min(tried)
    problem = f"no word pattern of llama.cpp fits {folder / 'tokenizer.json'}: the nearest"
    differ = f"'{name}', reads {texts[place]!r} as {found}, not as {right[place]}"
    raise VocabularyError(f"{problem}, {differ}; {ELSEWHERE}")
