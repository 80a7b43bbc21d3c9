import os
import platform
import types
from pathlib import Path

import pytest
import torch

from langadapt_utils import hardware
from langadapt_utils.errors import LangadaptError


def test_an_apple_gpu_is_taken_and_another_device_can_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LANGADAPT_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.device().type == "mps" and hardware.native_precision() == "float32"
    monkeypatch.setenv("LANGADAPT_DEVICE", "cpu")
    assert hardware.device().type == "cpu"
    monkeypatch.setenv("LANGADAPT_DEVICE", "cuda")
    with pytest.raises(LangadaptError, match=r"LANGADAPT_DEVICE is cuda, .* one of mps, cpu"):
        hardware.device()


def test_a_plan_for_this_machine_uses_what_a_run_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The memory of the container, and one of its GPUs."""
    monkeypatch.setattr(hardware, "measured_flops", lambda precision: 1e12)
    monkeypatch.setattr(hardware, "measured_bandwidth", lambda: 1e10)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "MEMORY_LIMIT", limit)
    whole = hardware.this_machine("float32").memory
    for text, memory in (("max\n", whole), ("1000000\n", 1e6), (f"{2 * whole}\n", whole)):
        limit.write_text(text)
        assert hardware.this_machine("float32").memory == memory
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(hardware, "describe", lambda: {"device": "card", "cores": 8})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    card = types.SimpleNamespace(total_memory=24e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    machine = hardware.this_machine("bfloat16")
    assert (machine.gpus, machine.memory) == (1, 24e9)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory")
def test_freed_memory_goes_back_where_memory_is_scarce(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Freed tensors lie between tensors that are still used."""

    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    monkeypatch.setenv("LANGADAPT_DEVICE", "cpu")
    hardware.keep_freed_memory()
    (limit := tmp_path / "memory.max").write_text("max")
    monkeypatch.setattr(hardware, "MEMORY_LIMIT", limit)
    pieces = [torch.ones(2**18) for _ in range(200)]  # of 1 MB
    del pieces[::2]
    full = resident()
    hardware.return_freed_memory()
    assert resident() > full - 20  # enough memory
    limit.write_text("1")
    hardware.return_freed_memory()
    assert resident() < full - 50
    limit.write_text("max")
    del pieces[::2]
    full = resident()
    hardware.return_freed_memory(always=True)
    assert resident() < full - 20
