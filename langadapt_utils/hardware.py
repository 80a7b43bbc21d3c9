"""What this machine has: device, native precision, name, and how fast it multiplies."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import hardware

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]


def device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def native_precision(asked: str = "auto") -> Precision:
    """The precision to compute in: what was asked, else bfloat16 where the processor or GPU has
    it.
    """
    import torch

    if asked == "auto":
        if device().type == "cuda":
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
            has_bfloat16 = any(
                capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")
            )
        return "bfloat16" if has_bfloat16 else "float32"
    return "bfloat16" if asked == "bfloat16" else "float32"


def autocast(precision: Precision, device_type: str) -> AbstractContextManager[Any]:
    """A context in which matrix products run in this precision on devices of this type (`cpu`,
    `cuda`).
    """
    import torch

    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of returning them to the kernel.

    Training on a CPU frees and allocates the same large tensors at every step; fetching their pages
    from the kernel each time costs about a third of the speed (`benchmarks/training.py`). Does
    nothing elsewhere.

    Returns:
        Whether the C library took the setting.
    """
    if platform.libc_ver()[0] != "glibc" or device().type != "cpu":
        return False
    trim_threshold, mmap_threshold = -1, -3  # names of the settings in malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_threshold, 2**30) and libc.mallopt(trim_threshold, 2**31 - 1))


def describe() -> dict[str, Any]:
    """The hardware and the software that decide speed, for manifests."""
    import torch
    import transformers

    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name(),
        "cores": usable_cores(),
        "precision": native_precision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may run on, by its affinity and by the quota of its container."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def use_all_cores() -> None:
    """Let torch compute in as many threads as there are usable cores, unless the environment says
    how many.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())


@cache
def measured_flops(precision: Precision, seconds: float = 1.5) -> float:
    """Floating-point operations per second of a large matrix product on this machine, now."""
    import torch

    size = 4_096 if device().type == "cuda" else 1_024
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(size, size, dtype=dtype, device=device())
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        (a @ a).sum().item()  # .item() waits for the GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


# Share of a large matrix product's speed that training reaches, where it was measured: see
# benchmarks/training.py.
EFFICIENCY = {
    ("cpu", "bfloat16"): 0.45,
    ("cpu", "float32"): 0.7,
    ("cuda", "bfloat16"): 0.15,
    ("cuda", "float32"): 0.4,
}


def estimate_training_time(parameters: int, tokens: int, precision: hardware.Precision) -> float:
    """How long training on a number of tokens takes here, from the speed of a matrix product.

    Training costs about 6 floating-point operations a parameter and token (Kaplan et al. 2020,
    arXiv 2001.08361).

    Args:
        parameters: of the model.
        tokens: of the run.
        precision: of the matrix products.
    """
    efficiency = EFFICIENCY[hardware.device().type, precision]
    return 6 * parameters * tokens / (efficiency * hardware.measured_flops(precision))
