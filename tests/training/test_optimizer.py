from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast, TrainingArguments

from helpers.architectures import tiny_model
from helpers.training import RECIPE
from langadapt_utils.training.optimizer import RowAdamW, learning_rate, optimizer_for

OLD, NEW = [0, 2, 3, 5], [1, 4]


def step(optimizer: torch.optim.Optimizer, *pairs: tuple[torch.nn.Parameter, torch.Tensor]) -> None:
    for parameter, gradient in pairs:
        parameter.grad = gradient
    optimizer.step()


@pytest.mark.parametrize("chunk", [2**22, 3])
def test_rows_learn_at_their_own_rates_like_separate_parameters(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain reference: old rows and new rows as two parameters in two groups of AdamW."""
    monkeypatch.setattr("langadapt_utils.training.optimizer.CHUNK", chunk)
    torch.manual_seed(0)
    together, body = torch.nn.Parameter(torch.randn(6, 3)), torch.nn.Parameter(torch.randn(4, 3))
    new, old = (torch.nn.Parameter(together.detach()[rows].clone()) for rows in (NEW, OLD))
    same_body = torch.nn.Parameter(body.detach().clone())
    rates = torch.full((6, 1), 0.1)
    rates[NEW] = 5.0
    one = RowAdamW(
        [
            {"params": [body], "weight_decay": 0.2},
            {"params": [together], "rows": True, "weight_decay": 0.0},
        ],
        rates,
        lr=0.01,
        betas=(0.9, 0.95),
    )
    two = torch.optim.AdamW(
        [
            {"params": [same_body], "weight_decay": 0.2},
            {"params": [new], "lr": 0.05, "weight_decay": 0.0},
            {"params": [old], "lr": 0.001, "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    for _ in range(20):
        rows, matrix = torch.randn(6, 3), torch.randn(4, 3)
        step(one, (together, rows), (body, matrix))
        step(two, (new, rows[NEW]), (old, rows[OLD]), (same_body, matrix.clone()))
    torch.testing.assert_close(together.detach()[NEW], new.detach())
    torch.testing.assert_close(together.detach()[OLD], old.detach())
    torch.testing.assert_close(body.detach(), same_body.detach())


def test_a_row_of_rate_zero_stays() -> None:
    matrix = torch.nn.Parameter(torch.tensor([[0.1, 0.0, 1e-38], [0.1, 0.2, 0.3]]))
    before = matrix.detach().clone()
    optimizer = RowAdamW([{"params": [matrix], "rows": True}], torch.tensor([[0.0], [1.0]]), lr=0.1)
    for _ in range(5):
        step(optimizer, (matrix, torch.randn(2, 3)))
    assert torch.equal(matrix.detach()[0], before[0])
    assert not torch.equal(matrix.detach()[1], before[1])


def test_the_state_is_saved_and_loaded() -> None:
    def fresh() -> tuple[torch.nn.Parameter, RowAdamW]:
        torch.manual_seed(0)
        matrix = torch.nn.Parameter(torch.randn(6, 3))
        return matrix, RowAdamW([{"params": [matrix], "rows": True}], torch.rand(6, 1), lr=0.1)

    gradients = list(torch.randn(6, 6, 3))
    whole, optimizer = fresh()
    for gradient in gradients:
        step(optimizer, (whole, gradient))
    first, optimizer = fresh()
    for gradient in gradients[:3]:
        step(optimizer, (first, gradient))
    second, other = fresh()
    other.load_state_dict(optimizer.state_dict())
    second.data.copy_(first.data)
    for gradient in gradients[3:]:
        step(other, (second, gradient))
    assert torch.equal(whole, second)


def test_a_step_copies_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step needs beyond the state that AdamW has anyway is a chunk, not a matrix."""
    monkeypatch.setattr("langadapt_utils.training.optimizer.CHUNK", 1_000)
    matrix = torch.nn.Parameter(torch.randn(10_000, 10))
    optimizer = RowAdamW([{"params": [matrix], "rows": True}], torch.ones(10_000, 1), lr=0.1)
    step(optimizer, (matrix, torch.randn(10_000, 10)))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        optimizer.step()
    operations = [event for event in profile.key_averages() if event.key.startswith("aten::")]
    largest = max(event.self_cpu_memory_usage / event.count for event in operations)
    assert largest <= 10_000 * 4 + 1_024  # the rates, one a row; a chunk is a tenth of that


def _shard_and_step(rank: int, folder: Path) -> None:
    """One of two processes, each of which holds half of the rows, and learns."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.fsdp import fully_shard

    init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.Embedding(7, 3)  # halves of 4 and 3 rows
    rates_V1 = torch.arange(7.0)[:, None]
    fully_shard(model, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    optimizer = RowAdamW(
        [{"params": [model.weight], "rows": True, "weight_decay": 0.0}], rates_V1, lr=0.1
    )
    for _ in range(3):
        model(torch.arange(7)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    whole = model.weight.full_tensor().detach()  # type: ignore[operator]
    if rank == 0:
        torch.save(whole, folder / "sharded.pt")
    destroy_process_group()


def test_rows_that_are_spread_over_processes_learn_at_their_rates(tmp_path: Path) -> None:
    """Rows under FSDP, against the same in one process."""
    torch.multiprocessing.spawn(_shard_and_step, args=(tmp_path,), nprocs=2)
    torch.manual_seed(0)
    model = torch.nn.Embedding(7, 3)
    optimizer = RowAdamW(
        [{"params": [model.weight], "rows": True, "weight_decay": 0.0}],
        torch.arange(7.0)[:, None],
        lr=0.1,
    )
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.arange(7)).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(torch.load(tmp_path / "sharded.pt"), model.weight.detach())


def test_the_rate_follows_the_size_of_the_model_unless_it_is_named() -> None:
    sizes = [1e6, 135e6, 270e6, 1e9, 3e9, 7.5e9, 70e9]
    rates = [learning_rate("auto", int(size)) for size in sizes]
    assert rates == sorted(rates, reverse=True)
    assert rates[:2] == pytest.approx([4e-4, 4e-4]) and rates[-2:] == pytest.approx([2e-5, 2e-5])
    assert 5 * rates[-2] == pytest.approx(1e-4)  # of new embeddings at 7 to 8 billion
    assert learning_rate(3e-5, 135_000_000) == 3e-5


def test_tables_of_layers_learn_at_the_rates_of_embeddings(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_model("gemma4_text", len(tokenizer))
    assert model is not None
    recipe = RECIPE.model_copy(
        update={"old_embeddings_lr_scale": 0.0, "new_embeddings_lr_scale": 1.0}
    )
    arguments = TrainingArguments(learning_rate=0.1, weight_decay=0.1, use_cpu=True)
    optimizer = optimizer_for(model, [5], recipe, arguments)
    table = dict(model.named_parameters())["model.embed_tokens_per_layer.weight"]
    before = table.detach().clone()
    ids = torch.arange(10)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    changed = (table.detach() != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [5]
