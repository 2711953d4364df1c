"""Started once for every rank by torchrun: rank 0 builds the run, the others lend a process to each of its trainings.

`torchrun --nproc-per-node 2 -m pipeline.cli run RECIPE` is `stockpot run RECIPE --ranks 2` with the processes of the
launcher, which may stand on several machines that see the same store. Imports torch only where there is a launcher.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.exchange.team import Member

__all__ = ["overrides", "place", "served", "serving"]

TURN_S = 0.1


def place() -> tuple[int, int]:
    """(rank, ranks) that a launcher gave this process; (0, 1) where none did."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(os.environ.get(name) for name in names):
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def overrides(ranks: int | None) -> list[str]:
    """What `--ranks` and a launcher say of `train.ranks`, as overrides of the recipe.

    Raises
    ------
    BadInput
        They say different numbers.
    """
    _, launched = place()
    if launched > 1 and ranks not in (None, launched):
        raise BadInput(
            f"--ranks: the launcher started {launched} processes, expected --ranks {launched} or none, found {ranks}",
            fix=f"torchrun --nproc-per-node {ranks} ...",
        )
    ranks = launched if launched > 1 else ranks
    return [] if ranks is None else [f"train.ranks={ranks}"]


def served(rank: int) -> int:
    """Start this rank of every training that rank 0 begins, until it is done with its run.

    Returns
    -------
    0; the launcher ends this process where rank 0 fails.
    """
    from stages.exchange.team import jobs_key, launched, launcher_store

    store, members, seen = launcher_store(), [], 0
    while not store.check([_done_key()]):
        while store.check([f"{jobs_key()}/{seen + 1}"]):
            seen += 1
            members.append(launched(rank, store.get(f"{jobs_key()}/{seen}")))
        _reap(members)
        time.sleep(TURN_S)
    for member in members:
        member.process.kill()
    return 0


def _reap(members: list[Member]) -> None:
    for member in [m for m in members if m.process.poll() is not None]:
        if how := member.ending():
            print(f"stockpot: rank {member.rank} of a training: {how}", file=sys.stderr)
        member.close()
        members.remove(member)


@contextmanager
def serving() -> Iterator[None]:
    """Tell the ranks of a launcher, where there is one, when this run, rank 0's, is over."""
    try:
        yield
    finally:
        if place()[1] > 1:
            from stages.exchange.team import launcher_store

            launcher_store().set(_done_key(), b"1")


def _done_key() -> str:
    """Key of a launcher's store that says the run of this attempt is over."""
    from stages.exchange.team import jobs_key

    return f"{jobs_key()}/done"
