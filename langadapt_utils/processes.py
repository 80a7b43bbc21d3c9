"""Work in several processes, as started by `accelerate launch` or `torchrun`."""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from . import hardware
from .errors import LangadaptError
from .workspace import Workspace


def in_processes(work: Callable[[Workspace, PartialState], None]) -> None:
    """Work on the run that the command line names, in every process that was started.

    Args:
        work: called with the run and the state of the process; its docstring is the help text.
    """
    parser = argparse.ArgumentParser(description=work.__doc__)
    parser.add_argument("folder", type=Path, help="the run folder")
    folder = parser.parse_args().folder
    # One process reads, encodes and perhaps writes text while the others wait.
    state = PartialState(cpu=hardware.device().type == "cpu", timeout=timedelta(hours=12))
    try:
        work(Workspace.existing(folder), state)
    except LangadaptError as error:
        print(f"error in process {state.process_index}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def printer(run: Workspace, stage: str) -> Callable[[Any], None]:
    """Return a function that logs all records of a stage, and prints phrases and some steps."""

    def report(record: Any) -> None:
        step = re.search(r"step (\d+) of (\d+)", note := run.log(stage, record))
        if not step or step[1] == step[2] or int(step[1]) % 10 == 1:
            print(note, flush=True)

    return report


def across_processes(work: Callable[[list[Any]], list[Any]], rows: list[Any]) -> list[Any]:
    """Divide rows among the processes and return all results, in order, in every process.

    Args:
        work: returns one result per row.
        rows: the same in every process.
    """
    with PartialState().split_between_processes(rows) as own:
        return list(gather_object(work(own)))
