"""Named semaphores of a run that was killed are gone after the next run on the machine; no living
one is touched.

Starting worker processes takes named semaphores (Python's multiprocessing). Python unlinks them
when the run ends, also after a kill of the driver alone, but not where all its processes are killed
at once. They have no owner on record, so here their names say whose they are.
"""

# ruff: noqa: SLF001 - there is no other way in

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.store.attempt import alive, owner

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["clear_dead", "owned"]

_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux shows named semaphores
_NAME = re.compile(r"sem\.stockpot\.(\d+)\.(\d+)\.(\d+)-\w+")


def _whose() -> tuple[int, int, int]:
    """(namespace of process ids, id, ms from the start of the machine to its own) of this
    process.
    """
    here = owner()
    number = re.search(r"\d+", here["namespace"])
    return int(number[0]) if number else 0, int(here["pid"]), int(1000 * here["born"])


@contextmanager
def owned() -> Iterator[None]:
    """Name the semaphores that this process takes, and its children, after this process."""
    from multiprocessing.synchronize import SemLock

    lock: Any = SemLock  # its private names
    config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
    before, named = config.get("semprefix"), lock._make_name
    prefix = config["semprefix"] = "/stockpot.{}.{}.{}".format(*_whose())
    # joblib, which scikit-learn imports, puts a function of its own in this place, which does not
    # ask for the prefix.
    lock._make_name = staticmethod(lambda: f"{prefix}-{next(lock._rand)}")
    try:
        yield
    finally:
        lock._make_name, config["semprefix"] = staticmethod(named), before


def clear_dead() -> None:
    """Unlink the semaphores of processes of this machine that are gone."""
    namespace, _, _ = _whose()
    if not namespace:
        return  # another namespace's process of this number would look dead
    for path in _FOLDER.glob("sem.stockpot.*"):
        found = _NAME.fullmatch(path.name)
        if found and int(found[1]) == namespace and not alive(int(found[2]), int(found[3]) / 1000):
            with suppress(OSError):  # another user's
                path.unlink()
