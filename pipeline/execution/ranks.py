"""Started once for every rank by torchrun: rank 0 builds the run, the others lend a process to each
of its trainings.

`torchrun --nproc-per-node 2 -m stockpot.cli run RECIPE` is `stockpot run RECIPE --ranks 2` with the
processes of the launcher, which may stand on several machines that see the same store. Imports
torch only where there is a launcher.

The launcher's store can be reached over its network, so what rank 0 says there is signed with a
secret: one that the user gave all ranks in `STOCKPOT_RANKS_SECRET`, else a new one in a file of the
store that only this user can read.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput, Conflict
from stockpot.stages.show.printable import printable
from stockpot.store import fs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stockpot.stages.processes.process_group import Member

__all__ = ["overrides", "place", "served", "serving"]

TURN_S = 0.1
SECRET_NAME = re.compile(r"\.ranks-[0-9a-f]{32}")
SECRET_WITHIN_S = 30.0
"""A network file system may show a new file late."""


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
            f"--ranks: the launcher started {launched} processes, expected --ranks {launched} or "
            f"none, found {ranks}",
            fix=f"torchrun --nproc-per-node {ranks} ...",
        )
    ranks = launched if launched > 1 else ranks
    return [] if ranks is None else [f"train.ranks={ranks}"]


def served(rank: int, store_root: Path) -> int:
    """Start this rank of every training that rank 0 begins, until it is done with its run.

    Returns
    -------
    0; the launcher ends this process where rank 0 fails.

    Raises
    ------
    Conflict
        A job is not from rank 0 of this run.
    """
    from stockpot.stages.processes.messages import received
    from stockpot.stages.processes.process_group import Job, launched
    from stockpot.stages.processes.rendezvous import jobs_key, launcher_store

    store, members, seen = launcher_store(), [], 0
    while not store.check([_done_key()]):
        while store.check([number := f"{jobs_key()}/{seen + 1}"]):
            seen += 1
            secret = _given_secret() or _secret_of(store, store_root)
            document = received(bytes.fromhex(secret), number, store.get(number))
            members.append(launched(rank, Job(**document | {"secret": secret})))
        _reap(members)
        time.sleep(TURN_S)
    for member in members:
        member.process.kill()
    return 0


def _reap(members: list[Member]) -> None:
    for member in [m for m in members if m.process.poll() is not None]:
        if how := member.ending():
            print(printable(f"stockpot: rank {member.rank} of a training: {how}"), file=sys.stderr)
        member.close()
        members.remove(member)


@contextmanager
def serving(store_root: Path) -> Iterator[None]:
    """Tell the ranks of a launcher, where there is one, when this run, rank 0's, is over."""
    if place()[1] <= 1:
        yield
        return
    from stockpot.stages.processes.rendezvous import launcher_store

    with _shared_secret(store_root):
        try:
            yield
        finally:
            launcher_store().set(_done_key(), b"1")


@contextmanager
def _shared_secret(store_root: Path) -> Iterator[None]:
    """Have a secret in the environment of this process, and in a file of the store for the other
    ranks of the user.
    """
    from stockpot.stages.processes.rendezvous import SECRET, launcher_store

    if _given_secret() is not None:
        yield
        return
    path = store_root / "work" / f".ranks-{fs.unique()}"
    os.environ[SECRET] = secrets.token_hex(32)
    with fs.disk_errors(store_root):
        fs.make_folders(path.parent)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.environ[SECRET].encode())
            os.fsync(fd)
        finally:
            os.close(fd)
    try:
        launcher_store().set(_secret_key(), path.name)
        yield
    finally:
        del os.environ[SECRET]
        with suppress(OSError):
            path.unlink()


def _given_secret() -> str | None:
    """The secret that the user gave all ranks, hex."""
    from stockpot.stages.processes.rendezvous import SECRET

    given = os.environ.get(SECRET)
    if given is not None and not re.fullmatch(r"([0-9a-f]{2}){16,}", given):
        raise BadInput(
            f"{SECRET}: expected at least 32 hex digits",
            fix=f"export {SECRET}=$(openssl rand -hex 32)",
        )
    return given


def _secret_of(store: Any, store_root: Path) -> str:
    """The secret that rank 0 left in the store; the network says only what its file is called.

    Raises
    ------
    Conflict
        There is none that this user can read.
    """
    name = store.get(_secret_key()).decode(errors="replace")
    path = store_root / "work" / name
    until = time.monotonic() + SECRET_WITHIN_S
    while SECRET_NAME.fullmatch(name):
        with suppress(OSError):
            return fs.read(path).decode("ascii")
        if time.monotonic() > until:
            break
        time.sleep(TURN_S)
    raise Conflict(
        f"ranks: {store_root / 'work'}: no secret of this run that this user can read",
        fix="give all ranks the same --store and user, or the same STOCKPOT_RANKS_SECRET",
    )


def _secret_key() -> str:
    """Key of a launcher's store with the name of the file that holds the secret of this attempt."""
    from stockpot.stages.processes.rendezvous import jobs_key

    return f"{jobs_key()}/secret"


def _done_key() -> str:
    """Key of a launcher's store that says the run of this attempt is over."""
    from stockpot.stages.processes.rendezvous import jobs_key

    return f"{jobs_key()}/done"
