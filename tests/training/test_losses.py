import sys
import types
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
)

from helpers.architectures import tiny_model
from helpers.tiny import GROUPED, SMALL, gpt2, llama
from langadapt_utils.recipe import TrainingRecipe
from langadapt_utils.training import train as train_module
from langadapt_utils.training.losses import (
    can_fuse_loss,
    compile_layers,
    fuse_loss,
    keeps_documents_apart,
    language_losses,
    shifted_targets,
    undo_speedups,
)

START = 299  # the token that begins documents
IDS = torch.randint(0, START, (4, 24), generator=torch.Generator().manual_seed(0))
# Documents of 10 and 14 tokens, of 24, of 1, 3 and 20, of 24.
POSITIONS = torch.stack(
    [torch.cat([torch.arange(n) for n in parts]) for parts in ([10, 14], [24], [1, 3, 20], [24])]
)
IDS[POSITIONS == 0] = START
BATCH = {"input_ids": IDS, "position_ids": POSITIONS, "sizes": [3, 1], "learned": IDS != START}


def gpt_neox(rows: int) -> PreTrainedModel:
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=rows, **SMALL)).eval()


def gemma2(rows: int) -> PreTrainedModel:
    """A model that squashes its logits."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=rows, head_dim=8, final_logit_softcapping=0.01, pad_token_id=0, **GROUPED
    )
    return Gemma2ForCausalLM(config).eval()


def one_by_one(model: PreTrainedModel, rows: slice) -> float:
    """The plain reference: every document by itself."""
    total = 0.0
    for ids, positions in zip(IDS[rows], POSITIONS[rows], strict=True):
        begins = (positions == 0).nonzero().flatten().tolist()
        for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True):
            logits = model(ids[None, begin:end]).logits[0, :-1]
            total += cross_entropy(logits, ids[begin + 1 : end], reduction="sum").item()
    return total


@pytest.mark.parametrize("make", [llama, gpt2, gpt_neox, gemma2])
@torch.no_grad()
def test_documents_in_one_sequence_do_not_see_each_other(make: Any) -> None:
    model = make(300)
    target, english = language_losses(model, BATCH)
    assert target.item() == pytest.approx(one_by_one(model, slice(0, 3)), rel=1e-4)
    assert english.item() == pytest.approx(one_by_one(model, slice(3, 4)), rel=1e-4)


@torch.no_grad()
def test_without_positions_a_sequence_is_one_text() -> None:
    model = llama(300)
    target, english = language_losses(model, {"input_ids": IDS, "sizes": [4, 0]})
    assert target.item() == pytest.approx(model(IDS, labels=IDS).loss.item() * 4 * 23, rel=1e-5)
    assert english.item() == 0


def test_the_end_of_a_document_is_learned_and_the_start_of_the_next_is_not() -> None:
    ids = torch.tensor([[START, 5, 6, 7, START, 8]])
    assert shifted_targets(ids, ids != START).tolist() == [[5, 6, 7, -100, 8, -100]]
    assert shifted_targets(ids).tolist() == [[5, 6, 7, START, 8, -100]]  # it ends documents, too


@pytest.mark.parametrize("make", [llama, gpt2, gpt_neox, gemma2])
def test_a_trial_tells_whether_documents_are_kept_apart(make: Any) -> None:
    model = make(300)
    assert keeps_documents_apart(model)
    forward = model.forward

    def without_positions(position_ids: object = None, **inputs: Any) -> Any:
        return forward(**inputs)

    model.forward = without_positions
    assert not keeps_documents_apart(model)


@pytest.mark.parametrize("kind", ["lfm2", "falcon_h1", "jamba"])
def test_what_reaches_a_little_into_the_document_before_is_found(kind: str) -> None:
    """With the small weights that models begin with, a convolution reaches 0.1 % across."""
    model = tiny_model(kind, 300)
    assert model is not None
    with torch.no_grad():
        for weight in model.parameters():
            weight.div_(4 if weight.ndim > 1 else 1)
    assert not keeps_documents_apart(model)


def made_faster(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of a model after all speedups of a GPU, which there is none of here."""
    monkeypatch.setattr(train_module.hardware, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(train_module.hardware, "keep_freed_memory", lambda: False)
    arguments = types.SimpleNamespace(bf16=True, learning_rate=1e-4, world_size=1)
    return train_module._made_faster(model, TrainingRecipe(), arguments)


def test_layers_that_do_not_compile_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama(300)

    def broken(self: torch.nn.Module, *args: Any) -> None:
        self._compiled_call_impl = no_compiler

    def no_compiler(*args: Any, **options: Any) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    assert compile_layers(model, BATCH, bf16=True) == "no, no C compiler"
    assert model(input_ids=IDS).logits.isfinite().all()
    assert all(weight.grad is None for weight in model.parameters())


class PlainFused:
    """What liger-kernel computes, without its kernels."""

    def __init__(self, **options: Any) -> None:
        assert options == {"ignore_index": -100, "reduction": "sum"}

    def __call__(
        self, weight: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropy(hidden @ weight.T, targets, reduction="sum")


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("liger_kernel.transformers")
    package.LigerFusedLinearCrossEntropyLoss = PlainFused  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)


@pytest.mark.parametrize("make", [llama, gpt2, gpt_neox])
def test_the_fused_loss_and_its_gradients_are_the_plain_ones(make: Any, liger: None) -> None:
    results = []
    for fused in (False, True):
        model = make(300)
        if fused:
            assert can_fuse_loss(model)
            fuse_loss(model)
        sum(language_losses(model, BATCH)).backward()  # type: ignore[union-attr]
        results.append([parameter.grad for parameter in model.parameters()])
    for plain, fused_gradient in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused_gradient)


def test_speedups_leave_nothing_behind(liger: None) -> None:
    model = llama(300)
    before, plain = model(IDS).logits, language_losses(model, BATCH)
    fuse_loss(model)
    assert model.langadapt_fused
    undo_speedups(model)
    assert torch.equal(model(IDS).logits, before)
    assert torch.equal(torch.stack(language_losses(model, BATCH)), torch.stack(plain))


def test_a_head_that_does_more_than_multiply_is_not_fused(liger: None) -> None:
    model = gemma2(300)
    before = model(IDS).logits
    assert not can_fuse_loss(model)
    assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("kind", ["llama4_text", "modernbert-decoder"])
def test_a_decoder_of_another_kind_is_not_fused(kind: str, liger: None) -> None:
    model = tiny_model(kind, 300)
    assert model is not None and not can_fuse_loss(model)


def test_no_fused_loss_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)
    assert not can_fuse_loss(llama(300))


def test_every_layer_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
    )
    assert compile_layers(llama(300), BATCH, bf16=True) is True
    assert compiled == ["LlamaDecoderLayer"] * 2
    assert compile_layers(torch.nn.Linear(2, 2), BATCH, bf16=True) is False
    assert len(compiled) == 2


def test_the_fused_loss_and_compiled_layers_go_together(
    liger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the trial of the compiler takes the loss of the training, without logits."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    model = llama(300)
    assert made_faster(model, monkeypatch)["fused loss"] is True
    assert compile_layers(model, BATCH, bf16=False) is True
    assert model.langadapt_fused


def test_a_trial_of_the_compiler_leaves_dropout_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    model = gpt2(300)
    assert model.config.embd_pdrop > 0
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert compile_layers(model, BATCH, bf16=False) is True
    assert torch.equal(torch.rand(3), expected)
    assert all(weight.grad is None for weight in model.parameters())
