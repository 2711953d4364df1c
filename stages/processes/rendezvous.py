"""Where ranks meet: on one machine nothing listens but on the loopback interface; over several no
store of ours does.

Ranks that rank 0 started meet in a store that it opens on 127.0.0.1. Ranks of a launcher meet in
the launcher's store, under a name of their own, so that no further store is opened. Tensors travel
by gloo and NCCL; where all ranks are on one machine these too listen on its loopback interface
alone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "SECRET",
    "TIMEOUT",
    "jobs_key",
    "launcher_place",
    "launcher_store",
    "listening",
    "met",
    "on_loopback",
]

TIMEOUT = timedelta(
    minutes=10
)  # longest that a rank waits for another: kernels are compiled, records first read
LOOPBACK = "127.0.0.1"
SECRET = "STOCKPOT_RANKS_SECRET"  # noqa: S105 - the name of the variable
"""Variable with the secret of a run, hex: for the processes of a launcher, and those they start."""
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def launcher_place() -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def jobs_key() -> str:
    """Key of a launcher's store that counts the jobs of this attempt, each under it and its number.

    Its store outlives a restart of the processes.
    """
    return f"stockpot/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/jobs"


def launcher_store() -> Any:
    """The store of the launcher that started this process as one of several ranks, None where none
    did.

    torchrun sets WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT, and keeps a store there.
    """
    if not launcher_place():
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=TIMEOUT)


def listening(size: int) -> Any:
    """A new store for `size` ranks of this machine, which no other machine can reach."""
    with socket.socket() as door:
        door.bind((LOOPBACK, 0))
        door.listen()
        port = door.getsockname()[1]
        # Without a socket of ours it would listen on every interface.
        return TCPStore(
            LOOPBACK,
            port,
            size,
            is_master=True,
            wait_for_workers=False,
            timeout=TIMEOUT,
            master_listen_fd=door.detach(),
        )


def met(place: Mapping[str, Any], size: int) -> Any:
    """The store where the ranks of a job meet: the port of rank 0, or a part of the launcher's
    store.
    """
    if "port" in place:
        return TCPStore(LOOPBACK, int(place["port"]), size, is_master=False, timeout=TIMEOUT)
    return PrefixStore(str(place["prefix"]), launcher_store())


def one_machine() -> bool:
    """Whether all ranks are on this machine: no launcher, or one that started all of them here."""
    if not launcher_place():
        return True
    if (local := os.environ.get("LOCAL_WORLD_SIZE")) is not None:
        return local == os.environ["WORLD_SIZE"]
    host = os.environ["MASTER_ADDR"]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have gloo and NCCL listen on the loopback interface alone, where all ranks are on this
    machine.
    """
    if not one_machine():
        yield
        return
    before = {name: os.environ.get(name) for name in _INTERFACES}
    os.environ.update(dict.fromkeys(_INTERFACES, "lo" if sys.platform == "linux" else "lo0"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
