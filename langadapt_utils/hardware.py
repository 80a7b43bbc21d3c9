"""This machine: device, native precision, name, and speed of matrix products."""

import ctypes
import os
import platform
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import joblib

from .errors import LangadaptError
from .files import package_yaml

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, in bytes
SCARCE = 0.75  # of the memory of this machine: a process that holds more returns freed memory

# Tensors in large pages: the first step on a CPU waits for fewer pages (`benchmarks/training.py`).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def device() -> "torch.device":
    """Return the first GPU (CUDA or Apple), or the CPU if there is none.

    The environment variable LANGADAPT_DEVICE overrides it: cpu, cuda or mps.

    Raises:
        LangadaptError: torch does not find the device of LANGADAPT_DEVICE.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    usable = [name for name in there if there[name]] + ["cpu"]
    if (asked := os.environ.get("LANGADAPT_DEVICE") or usable[0]) not in usable:
        problem = f"LANGADAPT_DEVICE is {asked}, which torch does not find"
        raise LangadaptError(f"{problem}: set it to one of {', '.join(usable)}")
    return torch.device(asked)


def native_precision(asked: str = "auto") -> Precision:
    """Return the requested precision; `auto` is bfloat16 if the hardware supports it."""
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
    """Return a context in which a device multiplies matrices in a precision."""
    import torch

    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks instead of returning them to the kernel.

    Training on a CPU frees and allocates the same large tensors at every step. Fetching their pages
    from the kernel each time costs about a third of the speed (`benchmarks/training.py`). On other
    devices and C libraries the function does nothing.

    Returns:
        Whether the C library accepted the setting.
    """
    if platform.libc_ver()[0] != "glibc" or device().type != "cpu":
        return False
    trim_threshold, mmap_threshold = -1, -3  # names of the settings in malloc.h
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_threshold, 2**30) and libc.mallopt(trim_threshold, 2**31 - 1))


def return_freed_memory(*_: Any, always: bool = False) -> None:
    """Return freed memory that glibc keeps to the kernel, if memory is scarce.

    Other C libraries are unaffected. As a hook of torch, the function ignores its arguments.

    Args:
        always: also if this process holds less than `SCARCE` of the memory of this machine.
    """
    if platform.libc_ver()[0] == "glibc":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        if always or pages * os.sysconf("SC_PAGE_SIZE") > SCARCE * machine_memory():
            ctypes.CDLL(None).malloc_trim(0)


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the container that limits it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = MEMORY_LIMIT.read_text().strip() if MEMORY_LIMIT.exists() else ""
    return min(memory, int(limit)) if limit.isdigit() else memory


def describe() -> dict[str, Any]:
    """Return the hardware and software versions that determine speed."""
    import torch
    import transformers

    lines = info.read_text(encoding="utf-8") if (info := Path("/proc/cpuinfo")).exists() else ""
    named = re.search(r"^model name\s*: (.+)", lines, re.MULTILINE)
    processor = named[1] if named else platform.processor() or platform.machine()
    name = torch.cuda.get_device_name() if device().type == "cuda" else processor
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    about = {"device": name, "cores": joblib.cpu_count(), "precision": native_precision()}
    return about | {"python": platform.python_version()} | versions


def use_all_cores() -> None:
    """Let torch use as many threads as there are usable cores, unless OMP_NUM_THREADS is set."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(joblib.cpu_count())


@cache
def measured_flops(precision: Precision, seconds: float = 1.5) -> float:
    """Measure floating-point operations per second of a large matrix product on this machine."""
    import torch

    size = 1_024 if device().type == "cpu" else 4_096
    a = torch.randn(size, size, dtype=getattr(torch, precision), device=device())
    return 2 * size**3 / _fastest("(a @ a).sum().item()", seconds, a=a)


@cache
def measured_bandwidth(seconds: float = 0.5) -> float:
    """Return the memory bandwidth in bytes per second, measured by copying 128 MB.

    Bytes that are read and bytes that are written both count.
    """
    import torch

    a = torch.randn(2**25, device=device())
    return 2 * a.nbytes / _fastest("b.copy_(a)[-1].item()", seconds, a=a, b=torch.empty_like(a))


def _fastest(statement: str, seconds: float, **tensors: "torch.Tensor") -> float:
    """Return the seconds of the fastest run of a statement; it runs for about `seconds`."""
    import torch
    from torch.utils.benchmark import Timer

    timer = Timer(statement, globals=tensors, num_threads=torch.get_num_threads())
    return float(min(timer.blocked_autorange(min_run_time=seconds).times))


GPUS, EFFICIENCY, ALONE = package_yaml("hardware.yaml").values()


@dataclass(frozen=True)
class Machine:
    """The machine that a run is planned for.

    Attributes:
        name: description for the plan.
        gpus: number of GPUs; 0 for a CPU.
        memory: bytes per device.
        speed: operations per second and device of matrix products.
        bandwidth: of the memory, in bytes per second and device, read and written.
        precision: of matrix products in training.
    """

    name: str
    gpus: int
    memory: float
    speed: float
    bandwidth: float
    precision: Precision = "bfloat16"


def this_machine(precision: Precision | None = None) -> Machine:
    """Return this machine; its speed is measured with a matrix product and a copy."""
    import torch

    kind, about, precision = device().type, describe(), precision or native_precision()
    total = machine_memory() if kind != "cuda" else torch.cuda.get_device_properties(0).total_memory
    cores = f"{about['cores']} cores of " if kind == "cpu" else ""
    name, gpus = f"{cores}{about['device']} in {precision}", int(kind == "cuda")  # a run uses one
    speeds = {"speed": measured_flops(precision), "bandwidth": measured_bandwidth()}
    return Machine(name, gpus, total, **speeds, precision=precision)


def machine_named(gpu: str, gpus: int, precision: Precision | None = None) -> Machine:
    """Return a machine with a number of GPUs from `GPUS`, or this machine if `gpu` is empty.

    Only this machine has a choice of precision; GPUs in `GPUS` train in bfloat16.

    Raises:
        LangadaptError: the GPU is unknown.
    """
    if not gpu and gpus == 1:
        return this_machine(precision)
    if gpu.lower() not in GPUS:
        problem = f"GPU '{gpu}' is unknown" if gpu else f"the name of the {gpus} GPUs is missing"
        raise LangadaptError(f"{problem}: set --gpu to one of {', '.join(GPUS)}")
    memory, teraflops, bandwidth = GPUS[gpu.lower()]
    speeds = {"speed": EFFICIENCY * teraflops * 1e12, "bandwidth": bandwidth * 1e9}
    return Machine(f"{gpus} x {gpu.upper()} in bfloat16", gpus, memory * 1e9, **speeds)
