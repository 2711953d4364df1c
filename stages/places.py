"""A place is a path of a file system; an object store or another service is refused by name until
it is built.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FORBIDDEN", "forbidden", "local", "unread"]

FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EIO})
"""Errors that say of a file only that it cannot be read here and now, not that it is damaged."""
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})

_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]+)"
_TEXT = re.compile(_SCHEME + "://(.*)", re.DOTALL)
_PATH = re.compile(_SCHEME + ":/(.*)", re.DOTALL)  # a `Path` keeps one slash


def local(where: str | Path, what: str) -> Path:
    """The path that a user gave as `what`.

    Raises
    ------
    BadInput
        It is of another scheme: names it.

    Examples
    --------
    >>> local("runs/store", "--store").as_posix()
    'runs/store'
    """
    if found := (_TEXT if isinstance(where, str) else _PATH).fullmatch(str(where)):
        scheme, rest = found.groups()
        raise BadInput(
            f"{what} {scheme}://{rest}: {scheme}:// is not built yet; expected a path of a file "
            f"system",
            fix="name a folder or file that this machine has mounted",
        )
    return Path(where)


def forbidden(path: Path | str, error: OSError) -> BadInput:
    """The error of a file or folder that this process cannot read."""
    return BadInput(
        f"{path}: cannot be read: {error.strerror or error}",
        fix="let this user read it, or choose another store with --store DIR",
    )


def unread(path: Path | str, error: OSError, damage: Callable[[str], Exception]) -> Exception:
    """The error of a stored file that could not be read.

    Damage only where there is no such file: what the system forbids, or could not do this once, is
    none.

    Parameters
    ----------
    damage : makes the error for damage from the system's words.
    """
    if error.errno in FORBIDDEN:
        return forbidden(path, error)
    return damage(error.strerror or str(error)) if error.errno in _MISSING else error
