"""Export a run as GGUF, and verify the file in llama.cpp: ids, likelihoods, generated text.

The word pattern with which llama.cpp gives the ids of a tokenizer.json is found by trial. Public
converters recognise a tokenizer by a hash of its ids, which a new vocabulary changes
(ggml-org/llama.cpp issues 8649, 9927, 27277).
"""

import math
import random
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ..corpus.corpus import load_corpus
from ..errors import ModelError, RecipeError, VocabularyError
from ..files import write_json
from ..languages import Texts, language_name
from ..models import load_model, load_tokenizer, longest_context, quiet_transformers, save_tokenizer
from ..report.report import PROOFS, proofs_of, write_card
from ..tokens import byte_lengths, document_start, is_byte_level, token_ids
from ..workspace import Workspace
from .gguf_file import ELSEWHERE, KINDS, KNOWN, Pattern, exportable, write_gguf
from .llama import loaded

DOCUMENTS, TOKENS = 10, 100  # minimum number of documents, and scored tokens per document
PROMPT, LENGTH = 12, 24  # maximum tokens of a prompt, and tokens of its continuation
TIE = 0.01  # nats below the most likely id that rounding to float16 explains
BYTE_LEVEL = [Pattern(name) for name in KNOWN["byte_level"]]
SENTENCEPIECE = [Pattern(*options) for options in KNOWN["sentencepiece"]]
TEXTS, FIRST = 5_000, 500  # minimum number of texts; number of texts that are compared first
LINES, WHOLE = 4_000, 50  # maximum lines and documents per language


def export_gguf(run: Workspace, *, kind: str = "f16") -> list[str]:
    """Write the adapted model as GGUF into its folder, for llama.cpp and Ollama.

    The file gets its name after it is verified. A `Modelfile` for Ollama is written beside it, and
    the model card lists the results.

    Args:
        run: its first four stages must be complete.
        kind: precision of the matrices: `f16`, `bf16`, `q8_0` or `q4_0`.

    Returns:
        The path of the file, and one sentence per verified property.

    Raises:
        RecipeError: the kind is unknown.
        WorkspaceError: a stage is missing.
        ModelError: llama.cpp is not installed, the architecture is not supported, or llama.cpp and
            PyTorch differ.
        VocabularyError: no word pattern of llama.cpp gives the ids of the tokenizer.
    """
    if kind not in KINDS:
        raise RecipeError(f"type '{kind}' is unknown: use one of {', '.join(KINDS)}")
    if find_spec("xllamacpp") is None:
        raise ModelError("the export needs xllamacpp: run pip install 'langadapt[export]'")
    run.stage("04_training")
    folder = run.folder / "model"
    exportable(folder)
    write_card(run)  # its metadata become part of the file
    heldout = load_corpus(run.recipe.corpus, run.recipe.language).heldout
    documents = {language: list(part["text"]) for language, part in heldout.items()}
    texts, recipe = trial_texts(documents), (run.folder / "recipe.yaml").read_text("utf-8")
    pattern = find_pattern(folder, texts)
    file = folder / f"{run.folder.resolve().name}-{kind}.gguf"
    results = [f"The ids of {len(texts):,} texts are those of tokenizer.json ({pattern.name})."]

    with TemporaryDirectory(dir=run.folder, prefix=".export-") as scratch:
        made = Path(scratch) / file.name
        write_gguf(folder, made, kind, pattern, recipe)
        results += prove(made, folder, kind, texts, documents)
        made.replace(file)
    # Ollama reads a chat template from the file.
    prompt = "" if load_tokenizer(folder).chat_template else 'TEMPLATE "{{ .Prompt }}"\n'
    (folder / "Modelfile").write_text(f"FROM ./{file.name}\n{prompt}", encoding="utf-8")
    write_json(folder / PROOFS, proofs_of(folder) | {file.name: results})
    write_card(run)
    return [str(file), *results]


def prove(file: Path, folder: Path, kind: str, texts: Sequence[str], whole: Texts) -> Iterator[str]:
    """Compare a GGUF file in llama.cpp with its folder in PyTorch, in float32.

    Greedy continuations are compared id by id, after the text that llama.cpp wrote. An id is equal
    if PyTorch finds no id more likely. With `f16`, an id may be up to `TIE` nats less likely,
    because rounding exchanges nearly equal ids. With other kinds, such continuations are counted.

    Args:
        file: to verify.
        folder: of the model.
        kind: of the file.
        texts: their ids are compared.
        whole: documents by language; the first ones are scored.

    Yields:
        One sentence per verified property.

    Raises:
        ModelError: llama.cpp and PyTorch differ; the message names the difference.
    """
    tokenizer = load_tokenizer(folder)
    start, sizes = document_start(tokenizer), byte_lengths(tokenizer)
    with loaded(file, context=TOKENS + LENGTH) as llama:
        if llama.ids(texts, start) != token_ids(tokenizer, texts):
            raise ModelError(f"{file.name} gives other ids than tokenizer.json: update xllamacpp")
        model, below = load_model(folder).float(), list[float]()
        most, each = min(TOKENS, longest_context(model) - 1), math.ceil(DOCUMENTS / len(whole))
        for language, named in whole.items():
            read = [ids[:most] for ids in token_ids(tokenizer, named[:each])]
            for prompt in ([start, *ids[:PROMPT]] for ids in read):
                below.append(_read(model, prompt, llama.continuation(prompt, LENGTH))[1])
                if below[-1] > TIE and kind == "f16":
                    less = f"an id {below[-1]:.2f} nats below PyTorch's: use --type bf16"
                    raise ModelError(f"after {tokenizer.decode(prompt)!r}, llama.cpp writes {less}")
            ours = sum(_read(model, [start], ids)[0] for ids in read)
            theirs = sum(llama.nats(start, ids) for ids in read)
            size = math.log(2) * sum(int(sizes[ids].sum()) for ids in read)
            change = f"{theirs / size:.4f} in llama.cpp, {ours / size:.4f} in PyTorch"
            sentence = f"Bits per byte, {language_name(language)}: {change}"
            if abs(theirs / ours - 1) > KNOWN["largest_change"].get(kind, math.inf):
                raise ModelError(f"{sentence}, too far apart: choose a --type with more bits")
            yield f"{sentence} ({theirs / ours - 1:+.2%})."
    less = f"; in the others, an id is at most {max(below):.3f} nats less likely"
    same = f"{below.count(0)} of {len(below)} greedy continuations of {LENGTH} tokens"
    yield f"{same} are PyTorch's{less if any(below) else ''}."


def _read(model: PreTrainedModel, prompt: list[int], ids: list[int]) -> tuple[float, float]:
    """Return the nats of ids after a prompt, and the largest gap to the most likely id."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    nats_TV = -logits_TV.float().log_softmax(dim=-1)
    nats_T = nats_TV.gather(1, torch.tensor(ids)[:, None])[:, 0]
    return float(nats_T.sum()), float((nats_T - nats_TV.min(dim=-1).values).max())


def trial_texts(texts: Texts, least: int = TEXTS) -> list[str]:
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
        lines += draw.sample(found, min(len(found), LINES))
        whole += documents[:WHOLE]
    trial = dict.fromkeys([*KNOWN["probes"], *draw.sample(lines, len(lines)), *whole])
    while len(trial) < least:
        trial[draw.choice(lines) + draw.choice(KNOWN["joints"]) + draw.choice(lines)] = None
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
            shape = LlamaConfig(vocab_size=rows, num_hidden_layers=1, **KNOWN["tiny"])
            LlamaForCausalLM(shape).save_pretrained(tiny)
        save_tokenizer(tokenizer, tiny)
        for pattern in BYTE_LEVEL if is_byte_level(tokenizer) else SENTENCEPIECE:
            write_gguf(tiny, file, "f16", pattern)
            try:
                with loaded(file) as llama:
                    if (ids := llama.ids(texts[:FIRST], separator)) == right[:FIRST]:
                        ids += llama.ids(texts[FIRST:], separator)
            except ModelError:  # a name that this llama.cpp does not have, or its own failure
                continue
            if not (wrong := [place for place, found in enumerate(ids) if found != right[place]]):
                return pattern
            shortest = min(wrong, key=lambda place: len(texts[place]))
            tried.append((-len(ids), len(wrong), pattern.name, shortest, ids[shortest]))
    if not tried:
        raise ModelError("llama.cpp cannot load any file: update xllamacpp")
    _, _, name, place, found = min(tried)
    problem = f"no word pattern of llama.cpp fits {folder / 'tokenizer.json'}: the nearest"
    differ = f"'{name}', reads {texts[place]!r} as {found}, not as {right[place]}"
    raise VocabularyError(f"{problem}, {differ}; {ELSEWHERE}")
