import json
import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.tiny import gpt2, llama, sentencepiece_bpe, train_tokenizer, unigram
from helpers.vocabularies import without_bytes
from langadapt_utils import hardware
from langadapt_utils.errors import CorpusError, ModelError
from langadapt_utils.evaluation import likelihood
from langadapt_utils.evaluation.likelihood import (
    bits_per_byte,
    continuation_bits,
    document_bits,
    kept_bits,
    shared_window,
)
from langadapt_utils.tokens import byte_lengths, document_start, token_ids, token_spans
from langadapt_utils.vocabulary.change import VocabularyChange


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "float32")


@pytest.fixture
def cached(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An empty cache; returns the number of sequences in each pass over text from now on."""
    monkeypatch.setattr(likelihood, "cache_folder", lambda: tmp_path)
    read: list[int] = []

    def count(model: PreTrainedModel, args: object, given: dict[str, Any], out: object) -> None:
        if given["input_ids"].shape != (1, 8):  # the trial
            read.append(len(given["input_ids"]))

    model.register_forward_hook(count, with_kwargs=True)
    return read


def direct_bits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """The plain reference: one pass over the whole text, one token after the other."""
    ids = [document_start(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        probabilities = model(torch.tensor([ids])).logits[0].softmax(dim=-1)
    return -sum(math.log2(probabilities[i, token]) for i, token in enumerate(ids[1:]))


@pytest.mark.parametrize("composes", [False, True])
def test_another_normal_form_loses_no_bytes(
    composes: bool, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Some tokenizers compose accents; and a composed form may have more bytes."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if composes:
        backend.normalizer = normalizers.NFC()
    own = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tokenizer.eos_token)
    texts = [unicodedata.normalize("NFD", "árvíztűrő"), "\u0958\u095c\u095d", "kő"]
    expected = [direct_bits(model, own, text) for text in texts]
    assert document_bits(model, own, texts) == pytest.approx(expected, rel=1e-4)


def test_bits_are_those_computed_directly(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["A short text.", "", "Egy másik, árvíztűrő szöveg, hosszabb is.", "x"]
    expected = [direct_bits(model, tokenizer, text) for text in texts]
    assert document_bits(model, tokenizer, texts) == pytest.approx(expected, rel=1e-4)


def test_bits_do_not_depend_on_the_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, used = ["Egy szöveg, " * times for times in (1, 3, 9, 27)], set()

    def forward(*args: object, **options: object) -> object:
        used.add(model.config._attn_implementation)
        return type(model).forward(model, *args, **options)

    monkeypatch.setattr(model, "forward", forward)
    model.set_attn_implementation("sdpa")
    found = []
    for tokens in (0, 20, 10_000):
        monkeypatch.setattr(likelihood, "EAGER_TOKENS", tokens)
        found.append(document_bits(model, tokenizer, texts).tolist())
        assert model.config._attn_implementation == "sdpa"
    assert used == {"eager", "sdpa"}
    for bits in found[1:]:
        assert bits == pytest.approx(found[0], rel=1e-5)


def test_bits_do_not_depend_on_the_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text number {i} " * (i % 5 + 1) for i in range(20)]
    made: list[int] = []
    hook = model.register_forward_hook(lambda *given: made.append(given[-1].logits.numel()))
    together = document_bits(model, tokenizer, texts)
    most, longest = max(made), max(made) // 20  # of some 20 sequences, padded to the longest
    monkeypatch.setattr(likelihood, "LOGITS", budget := 3 * longest)
    made.clear()
    assert document_bits(model, tokenizer, texts) == pytest.approx(together, rel=1e-4)
    assert max(made) <= budget < most
    hook.remove()
    sizes: list[int] = []

    def counted(logits: torch.Tensor, targets: torch.Tensor, **options: str) -> torch.Tensor:
        sizes.append(len(logits))
        return cross_entropy(logits, targets, **options)

    monkeypatch.setattr(likelihood, "AT_ONCE", 7)  # tokens in float32 at the same time
    monkeypatch.setattr(likelihood, "cross_entropy", counted)
    assert document_bits(model, tokenizer, texts) == pytest.approx(together, rel=1e-4)
    assert max(sizes) == 7


@given(
    text=st.text(min_size=1, max_size=90),
    window=st.integers(2, 40),
    context=st.integers(0, 40),
)
def test_windows_score_every_token_once_with_context(
    tokenizer: PreTrainedTokenizerFast, text: str, window: int, context: int
) -> None:
    text = text.encode("utf-8", "ignore").decode()
    (read,) = likelihood._read(tokenizer, [text])
    context = min(context, window // 2)
    pieces = list(likelihood._windows(0, -1, read, window, context))
    scored = [token for piece in pieces for token in piece.ids[piece.first :]]
    assert scored == read.ids and pieces[0].ids[0] == -1
    sizes = byte_lengths(tokenizer)
    longest = int(sizes.max())
    for piece in pieces[1:]:
        before = int(sizes[piece.ids[: piece.first]].sum())
        assert piece.first >= 1 and before >= context - longest
        assert int(sizes[piece.ids].sum()) < window + 2 * longest


def test_two_tokenizers_read_the_same_bytes_before_what_they_score(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    text = "Egy régi híd előtt álltunk, és néztük a folyót. " * 30
    places = []
    for each in (tokenizer, change.tokenizer):
        (read,) = likelihood._read(each, [text])
        pieces = list(likelihood._windows(0, 0, read, 200, 50))
        lengths = byte_lengths(each)
        first = [int(lengths[piece.ids[piece.first :]].sum()) for piece in pieces]
        places.append(np.cumsum(first)[:-1])
        before = [int(lengths[piece.ids[: piece.first]].sum()) for piece in pieces[1:]]
        assert all(abs(size - 50) <= lengths.max() for size in before)
    assert len(places[0]) == len(places[1]) > 5
    assert np.abs(places[0] - places[1]).max() <= byte_lengths(change.tokenizer).max()


def test_a_window_fits_the_model_that_reads_least(
    tokenizer: PreTrainedTokenizerFast, change: VocabularyChange
) -> None:
    models = [(llama(len(change.tokenizer)), each) for each in (tokenizer, change.tokenizer)]
    text = "Egy régi híd előtt álltunk, és néztük a folyót. " * 30
    window = shared_window(models, [text], 4_096)
    assert window < 4_096 and window == shared_window(models[::-1], [text], 4_096)
    (read,) = likelihood._read(tokenizer, [text])
    pieces = list(likelihood._windows(0, 0, read, window, 50))
    assert max(len(piece.ids) for piece in pieces) <= 128 < len(read.ids)


@pytest.mark.parametrize(("window", "context_bytes"), [(64, 20), (100, 10), (100, 50), (240, 100)])
def test_long_texts_are_read_in_windows(
    window: int, context_bytes: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each token is as likely as a pass over its own context alone says."""
    model = gpt2(len(tokenizer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # so that every token of the context counts
    text = "".join(f"a long text, part {number}, goes on and on; " for number in range(12))
    spans = token_spans(tokenizer, text)
    assert len(spans) > 128
    expected, start = 0.0, document_start(tokenizer)
    for index, span in enumerate(spans):
        begin, end = 0, window  # of the window in which the token is scored, in bytes
        while span.start >= end:
            begin, end = end - context_bytes, end - context_bytes + window
        first = next(i for i, one in enumerate(spans) if one.start >= begin)
        ids = [one.id for one in spans[min(first, max(index - 1, 0)) : index]]
        ids = ids if begin else [start, *ids]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        expected -= logits.log_softmax(dim=-1)[span.id].item() / math.log(2)
    options = {"window_bytes": window, "context_bytes": context_bytes}
    assert document_bits(model, tokenizer, [text], **options)[0] == pytest.approx(
        expected, rel=1e-5
    )


def test_a_loss_that_is_not_finite_names_the_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="gives hu-12 a likelihood that is not finite"):
        document_bits(model, tokenizer, ["egy"], names=["hu-12"])
    with pytest.raises(ModelError, match="gives 'one two' a likelihood that is not finite"):
        continuation_bits(model, tokenizer, [("one", " two")])


def test_bytes_without_a_token_cost_eight_bits_each() -> None:
    """A base that does not know Thai at all: an unknown token, or nothing, for a whole word."""
    spelled = unigram(["the old bridge over the river"] * 50, size=40)
    dropping = without_bytes(train_tokenizer(["the old bridge"] * 9), "ภาษาไทย")
    data = json.loads(sentencepiece_bpe(["the old bridge"] * 9, 300).backend_tokenizer.to_str())
    data["model"]["vocab"].pop("<0xE0>")  # with which every Thai letter begins
    data["model"]["unk_token"] = None
    fallback = Tokenizer.from_str(json.dumps(data))
    lacking = PreTrainedTokenizerFast(tokenizer_object=fallback, bos_token="<s>", unk_token="<s>")
    for tokenizer in (spelled, dropping, lacking):
        model = llama(max(tokenizer.get_vocab().values()) + 1)
        with torch.no_grad():
            model.model.norm.weight.zero_()  # every token is as likely as another
        score = bits_per_byte(model, tokenizer, ["ภาษาไทย"]).value
        assert score >= 8
        more = continuation_bits(model, tokenizer, [("the ", "ภาษาไทย")])[0]
        assert more >= 8 * len("ภาษาไทย".encode())
        both = continuation_bits(model, tokenizer, [("ไทย", "ภาษา"), ("the ภาษา", "ไทย")])
        assert (both >= 8 * np.array([len("ภาษา".encode()), len("ไทย".encode())])).all()


def test_what_reads_like_a_special_token_is_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = "The price: <|endoftext|> 400"
    (ids,) = token_ids(tokenizer, [text])
    assert document_start(tokenizer) not in ids and tokenizer.decode(ids) == text
    assert sum(byte_lengths(tokenizer)[ids]) == len(text.encode())
    assert document_bits(model, tokenizer, [text])[0] > 8


def test_a_continuation_costs_what_it_adds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    context, continuation = "The cat sat", " on the mat."
    cost = continuation_bits(model, tokenizer, [(context, continuation), ("", context)])
    assert cost.sum() == pytest.approx(
        direct_bits(model, tokenizer, context + continuation), rel=1e-4
    )


@pytest.mark.parametrize("make", [llama, gpt2])
def test_contexts_that_are_shared_change_nothing(
    make: Callable[[int], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make(len(tokenizer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    contexts = ["The cat sat", "A much longer context, and more of it, before", "One"]
    words = [" on the mat.", " x", " somewhere else entirely", " y z"]
    pairs = [(context, word) for context in contexts for word in words]
    together = continuation_bits(model, tokenizer, pairs)
    alone = [continuation_bits(model, tokenizer, [pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, rel=1e-4)


def test_a_token_across_the_border_is_scored_with_its_context() -> None:
    """A tokenizer that joins letters: the cost is that of both less that of the context."""
    joining = train_tokenizer(["abcd"] * 99, size=265)
    model = llama(len(joining))
    assert len(joining("abcd")["input_ids"]) == 1
    expected = direct_bits(model, joining, "abcd") - direct_bits(model, joining, "ab")
    assert continuation_bits(model, joining, [("ab", "cd")])[0] == pytest.approx(expected, rel=1e-4)


def test_bits_per_byte_needs_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    score = bits_per_byte(model, tokenizer, ["one", "kettő", "สาม"])
    total = sum(direct_bits(model, tokenizer, text) for text in ("one", "kettő", "สาม"))
    assert score.value == pytest.approx(total / (3 + 6 + 9), rel=1e-4) and score.units == 3
    for texts in ([], ["", ""]):
        with pytest.raises(CorpusError, match="give at least one"):
            bits_per_byte(model, tokenizer, texts)


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = llama(len(tokenizer))
    with torch.no_grad():
        model.model.norm.weight.zero_()
    text = "any text at all"
    expected = len(tokenizer(text)["input_ids"]) * math.log2(len(tokenizer)) / len(text)
    assert bits_per_byte(model, tokenizer, [text]).value == pytest.approx(expected, rel=1e-5)


def test_kept_bits_are_not_measured_again(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, cached: list[int]
) -> None:
    """A text is read once under the same weights and window, and only then."""
    texts = ["Egy szöveg.", "Egy másik, árvíztűrő szöveg, hosszabb is.", "Egy szöveg."]
    plain = document_bits(model, tokenizer, texts)
    cached.clear()
    first = document_bits(model, tokenizer, texts[:2], keep=kept_bits(model))
    assert cached == [2]
    again = document_bits(model, tokenizer, [*texts, "Új."], keep=kept_bits(model))
    assert cached == [2, 1]  # only the new text
    assert again[:2].tolist() == first.tolist() == pytest.approx(plain[:2])
    document_bits(model, tokenizer, texts[1:2], window_bytes=16, keep=kept_bits(model))
    assert cached[2:] and sum(cached[2:]) > 1
    cached.clear()
    with torch.no_grad():
        model.model.norm.weight[3] *= 5
    changed = document_bits(model, tokenizer, texts, keep=kept_bits(model))
    assert sum(cached) == 3 and not np.allclose(changed, plain)
    assert changed == pytest.approx(document_bits(model, tokenizer, texts))
    cached.clear()
    assert (
        document_bits(model, tokenizer, texts, keep=kept_bits(model)).tolist() == changed.tolist()
    )
    assert not cached


@pytest.mark.parametrize("other", ["precision", "configuration", "versions", "hook"])
def test_kept_bits_are_those_of_the_same_circumstances(
    other: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    cached: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document_bits(model, tokenizer, ["Egy szöveg."], keep=kept_bits(model))
    cached.clear()
    if other == "precision":
        monkeypatch.setattr(hardware, "native_precision", lambda asked="auto": "bfloat16")
    elif other == "configuration":
        model.config.rms_norm_eps = 1e-3
    elif other == "versions":
        monkeypatch.setattr(likelihood.transformers, "__version__", "5.99")
    else:
        model.lm_head.register_forward_hook(lambda *given: given[-1] * 2)
    document_bits(model, tokenizer, ["Egy szöveg."], keep=kept_bits(model))
    assert cached == [1]


def test_processes_keep_the_bits_of_each_other(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    cached: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = likelihood.read

    def meanwhile(*given: object, **options: object) -> object:
        monkeypatch.setattr(likelihood, "read", plain)
        document_bits(model, tokenizer, ["A másik folyamaté."], keep=kept_bits(model))
        return plain(*given, **options)

    monkeypatch.setattr(likelihood, "read", meanwhile)
    document_bits(model, tokenizer, ["Az egyiké."], keep=kept_bits(model))
    cached.clear()
    document_bits(model, tokenizer, ["Az egyiké.", "A másik folyamaté."], keep=kept_bits(model))
    assert not cached
