"""Work in several processes, as started by `accelerate launch` or `torchrun`."""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from . import hardware
from .errors import LangadaptError
from .workspace import Workspace

PRINT_SECONDS = 5


def in_processes(work: Callable[[Path, PartialState], None]) -> None:
    """Work on the run folder that the command line names, in every process that was started.

    Args:
        work: called with the folder and the state of the process; its docstring is the help text.
    """
    parser = argparse.ArgumentParser(description=work.__doc__)
    parser.add_argument("folder", type=Path, help="the run folder")
    folder = parser.parse_args().folder
    # One process reads, encodes and perhaps writes text while the others wait.
    state = PartialState(cpu=hardware.device().type == "cpu", timeout=timedelta(hours=12))
    try:
        work(folder, state)
    except LangadaptError as error:
        if state.is_main_process:
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def printer(run: Workspace, stage: str) -> Callable[[Any], None]:
    """Return a function that logs all records of a stage, and prints phrases and some steps."""
    printed = 0.0

    def report(record: Any) -> None:
        nonlocal printed
        note = run.log(stage, record)
        now = not isinstance(record, dict) or record.get("step") == record.get("steps", 0)
        if now or time.monotonic() - printed > PRINT_SECONDS:
            printed = time.monotonic()
            print(note, flush=True)

    return report


def across_processes(work: Callable[[list[Any]], list[Any]], rows: list[Any]) -> list[Any]:
    """Divide rows among the processes and return all results, in order, in every process.

    Args:
        work: returns one result per row.
        rows: the same in every process.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return work(rows)
    count = torch.distributed.get_world_size()
    results: list[list[Any]] = [[]] * count
    torch.distributed.all_gather_object(results, work(rows[torch.distributed.get_rank() :: count]))
    return [results[place % count][place // count] for place in range(len(rows))]
