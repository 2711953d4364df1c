"""`python -m stages.exchange.member RANK`: one rank of a training, told its job on standard input by who started it."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def main() -> None:
    """Read the job, join the others, work; end at once when standard input does."""
    rank, source = int(sys.argv[1]), sys.stdin.buffer
    size = int.from_bytes(source.read(8), "little")
    job = pickle.loads(source.read(size))  # noqa: S301 - from the process that started this one
    threading.Thread(target=_with_parent, args=(source,), daemon=True).start()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from stages.errors import StockpotError
    from stages.exchange.team import TIMEOUT, here, joined, raised

    store = TCPStore(job["host"], job["port"], job["size"], is_master=False, timeout=TIMEOUT)
    try:
        inputs = {role: reopened(reader) for role, reader in job["inputs"].items()}
        here(store, rank)
        with joined(rank, job["size"], store, inputs, job["device"]) as team:
            job["work"](team, inputs=inputs, **job["arguments"])
    except BaseException as error:  # noqa: BLE001 - said to who started it; the others must not wait for a clean end
        if isinstance(error, StockpotError):
            raised(store, rank, error)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


@dataclass(frozen=True)
class Absent:
    """What stands for an artifact where there is none: the ranks' agreement refuses it."""

    root: Path
    key: str = "nothing"
    digest: str = "none"


def reopened(reader: Any) -> Any:
    """The artifact that stands under the same path where this rank runs."""
    try:
        return type(reader)(reader.root, json.loads((reader.root / "manifest.json").read_bytes()))
    except FileNotFoundError:
        return Absent(reader.root)


def _with_parent(source: object) -> None:
    source.read()  # type: ignore[attr-defined]
    os._exit(1)


if __name__ == "__main__":
    main()
