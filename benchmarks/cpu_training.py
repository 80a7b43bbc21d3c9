"""What makes training on a CPU fast: bfloat16, and keeping freed memory.

Each lever is timed in a process of its own, because the memory setting cannot be taken back; the processes
take turns, and medians are compared. Run on a machine that does nothing else:

    python benchmarks/cpu_training.py [--steps 6] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

LEVERS = {
    "float32": ("float32", False),
    "float32, memory kept": ("float32", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16, memory kept": ("bfloat16", True),
}


def measure(precision: str, keep: bool, steps: int) -> float:
    """Tokens per second of forward, backward and optimiser step; the first two steps do not count."""
    import torch

    from langadapt_utils import hardware
    from langadapt_utils.recipe import BASE_MODEL
    from langadapt_utils.sources import load_base

    if keep and not hardware.keep_freed_memory():
        raise SystemExit("this C library does not take the setting")
    model = load_base(BASE_MODEL).model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    ids = torch.randint(0, model.config.vocab_size, (4, 256))
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        with hardware.autocast(precision, "cpu"):  # type: ignore[arg-type]
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return ids.numel() / statistics.median(seconds[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(*LEVERS[arguments.one], arguments.steps))
        return
    speeds: dict[str, list[float]] = {lever: [] for lever in LEVERS}
    for _ in range(arguments.rounds):
        for lever in LEVERS:
            command = [sys.executable, __file__, "--one", lever, "--steps", str(arguments.steps)]
            speeds[lever].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    reference = statistics.median(speeds["float32"])
    print(f"{'lever':<24}{'tokens/s':>10}{'range':>16}{'ratio':>8}")
    for lever, measured in speeds.items():
        median = statistics.median(measured)
        spread = f"{min(measured):.0f}-{max(measured):.0f}"
        print(f"{lever:<24}{median:>10.0f}{spread:>16}{median / reference:>8.2f}")


if __name__ == "__main__":
    main()
