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

from .errors import LangadaptError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]


def device() -> torch.device:
    """Return the first GPU if there is one (CUDA or Apple's), else the CPU.

    The environment variable LANGADAPT_DEVICE names another: cpu, cuda or mps.

    Raises:
        LangadaptError: this machine does not have what it names.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    usable = [name for name in there if there[name]] + ["cpu"]
    if (asked := os.environ.get("LANGADAPT_DEVICE") or usable[0]) not in usable:
        problem = f"LANGADAPT_DEVICE is {asked}, which torch does not find here"
        raise LangadaptError(f"{problem}: set it to one of {', '.join(usable)}")
    return torch.device(asked)


def native_precision(asked: str = "auto") -> Precision:
    """Return the precision to compute in: as asked, else bfloat16 where the hardware has it."""
    import torch

    if asked != "auto":
        return "bfloat16" if asked == "bfloat16" else "float32"
    if device().type == "mps":
        return "float32"  # autocast to bfloat16 was not tried on one
    if device().type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = any(map(torch.cpu.get_capabilities().get, ("avx512_bf16", "amx_bf16", "bf16")))
    return "bfloat16" if native else "float32"


def autocast(precision: Precision, device_type: str) -> AbstractContextManager[Any]:
    """Return a context in which a type of device multiplies matrices in this precision."""
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
    """Return the hardware and the software that decide speed, for manifests."""
    import torch
    import transformers

    return {
        "device": torch.cuda.get_device_name() if device().type == "cuda" else processor_name(),
        "cores": usable_cores(),
        "precision": native_precision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor_name() -> str:
    """Return the processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Count the cores this process may use, by its affinity and the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def use_all_cores() -> None:
    """Let torch use as many threads as there are usable cores, unless OMP_NUM_THREADS is set."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())


@cache
def measured_flops(precision: Precision, seconds: float = 1.5) -> float:
    """Measure floating-point operations per second of a large matrix product on this machine."""
    import torch

    size = 1_024 if device().type == "cpu" else 4_096
    a = torch.randn(size, size, dtype=getattr(torch, precision), device=device())
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        (a @ a).sum().item()  # .item() waits for the GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


# Fraction of a large matrix product's speed that training reaches, measured by
# benchmarks/training.py.
EFFICIENCY = {("cpu", "bfloat16"): 0.45, ("cpu", "float32"): 0.7}
EFFICIENCY |= {("cuda", "bfloat16"): 0.15, ("cuda", "float32"): 0.4}
EFFICIENCY |= {("mps", "float32"): 0.4}  # not measured


def estimate_training_time(parameters: int, tokens: int, precision: Precision) -> float:
    """Return the seconds that training takes on this machine, from the speed of a matrix product.

    Training costs about 6 floating-point operations per parameter and token (Kaplan et al. 2020,
    arXiv 2001.08361).

    Args:
        parameters: of the model.
        tokens: of the run.
        precision: of the matrix products.
    """
    speed = EFFICIENCY[device().type, precision] * measured_flops(precision)
    return 6 * parameters * tokens / speed
