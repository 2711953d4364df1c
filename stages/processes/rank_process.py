"""`python -m stockpot.stages.processes.rank_process RANK`: one rank of a training, told its job on
standard input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the job, join the others, work; end at once when standard input does."""
    rank, source = int(sys.argv[1]), sys.stdin.buffer
    size = int.from_bytes(source.read(8), "little")
    told = json.loads(source.read(size))
    threading.Thread(target=_with_parent, args=(source,), daemon=True).start()
    from stockpot.stages.errors import StockpotError
    from stockpot.stages.processes.messages import decoded, named
    from stockpot.stages.processes.process_group import Job, here, joined, raised
    from stockpot.stages.processes.rendezvous import met

    job = Job(**told)
    store = met(job.place, job.size)
    try:
        inputs = {
            role: reopened(named(kind), Path(root)) for role, (kind, root) in job.inputs.items()
        }
        here(store, rank)
        with joined(rank, job.size, store, inputs, job.device) as team:
            arguments = {name: decoded(value) for name, value in job.arguments.items()}
            named(job.work)(team, inputs=inputs, **arguments)
    except BaseException as error:  # noqa: BLE001
        # Who started it is told; the other ranks must not wait for a clean end.
        if isinstance(error, StockpotError):
            raised(store, rank, error, job)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


@dataclass(frozen=True)
class Absent:
    """What stands for an artifact where there is none: the ranks' agreement refuses it."""

    root: Path
    key: str = "nothing"
    digest: str = "none"


def reopened(kind: Any, root: Path) -> Any:
    """The artifact that stands under the same path where this rank runs, checked as any that is
    opened.
    """
    try:
        return kind.at(root)
    except FileNotFoundError:
        return Absent(root)


def _with_parent(source: object) -> None:
    source.read()  # type: ignore[attr-defined]
    os._exit(1)


if __name__ == "__main__":
    main()
