"""Every change to a store goes through these primitives, each of them durable and whole when it
returns.

`before(name, path)` is called ahead of every primitive; the fault tests put a crash or a full disk
there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "allocate",
    "append",
    "before",
    "create",
    "disk_errors",
    "fsync_file",
    "fsync_folder",
    "fsync_tree",
    "link_or_copy",
    "make_folders",
    "publish",
    "read",
    "remove_tree",
    "rename",
    "replace",
    "unique",
    "write_new",
]

STALE_RETRIES = 5
STALE_WAIT_S = 0.1
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
COPY_BYTES = 1 << 22


def before(name: str, path: str) -> None:
    """Do nothing; the fault tests replace this."""


def unique() -> str:
    """Random name part no other attempt on any host will have."""
    return uuid.uuid4().hex


def make_folders(path: Path) -> None:
    """Create `path` and its parents where missing; each new name is durable."""
    if path.is_dir():
        return
    make_folders(path.parent)
    before("mkdir", str(path))
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    fsync_folder(path.parent)


def create(path: Path) -> int:
    """Open a new file for writing; it must not exist."""
    before("open", str(path))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)


def allocate(path: Path, size: int) -> None:
    """Create a new file of `size` zero bytes with room on the disk for all of them."""
    fd = create(path)
    try:
        before("write", str(path))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.truncate(fd, size)
    finally:
        os.close(fd)


def append(fd: int, data: Any, path: Path) -> None:
    """Write all of `data` (bytes-like) at the end of an open file."""
    before("write", str(path))
    view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_new(path: Path, data: bytes) -> None:
    """Create a file with these bytes and make them durable."""
    fd = create(path)
    try:
        append(fd, data, path)
        before("fsync", str(path))
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the bytes of a closed file durable."""
    before("fsync", str(path))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    before("fsync-folder", str(path))
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems make names durable by themselves and refuse this call.
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}:
            raise
    finally:
        os.close(fd)


def fsync_tree(root: Path) -> None:
    """Make the names in a folder and all folders below it durable."""
    for folder, _, _ in os.walk(root, topdown=False):
        fsync_folder(Path(folder))


def rename(source: Path, target: Path) -> None:
    """Give a file or folder a new name; a folder never replaces one that is not empty."""
    before("rename", str(target))
    source.rename(target)


def replace(source: Path, target: Path) -> None:
    """Give a file a new name, replacing what had it."""
    before("replace", str(target))
    source.replace(target)


def remove_tree(path: Path) -> None:
    """Remove a folder; what another process removes meanwhile is no error."""
    before("remove", str(path))
    shutil.rmtree(path, ignore_errors=True)


def read(path: Path) -> bytes:
    """Read a whole small file, trying again where a network file system lost its handle.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    for attempt in range(STALE_RETRIES):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno != errno.ESTALE or attempt == STALE_RETRIES - 1:
                raise
            time.sleep(STALE_WAIT_S * 2**attempt)
    raise AssertionError("unreachable")


def publish(source: Path, target: Path, claims: Path) -> bool:
    """Give the durable file `source` the name `target` if nothing has it yet.

    One link, which fails where the name is taken: the first publisher wins and readers see all or
    nothing. Where the file system has no hard links, the claim is the rename of a folder holding a
    copy, equally exclusive and whole; every contender then puts the claimed bytes in place.

    Parameters
    ----------
    claims : folder for such claims, on the same file system, removed only after `target` exists.

    Returns
    -------
    Whether `source` is what now stands at `target`.
    """
    won = _link(source, target)
    if won is None:
        won = _claim(source, target, claims)
    elif not won:
        # A network file system may have lost the reply to our own successful call.
        return source.samefile(target)
    fsync_folder(target.parent)
    return won


def _link(source: Path, target: Path) -> bool | None:
    """Whether `target` was free and is `source` now; None where the file system has no links."""
    before("link", str(target))
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return None
    return True


def _claim(source: Path, target: Path, claims: Path) -> bool:
    if target.exists():
        return False
    data = read(source)
    offer = claims / f"offer-{unique()}"
    claimed = claims / f"claim-{target.name}"
    make_folders(offer)
    write_new(offer / "bytes", data)
    fsync_folder(offer)
    try:
        rename(offer, claimed)
        fsync_folder(claims)
        won = True
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        remove_tree(offer)
        won = False
    # A claim that succeeds because an earlier winner's was cleared away finds the winner's file in
    # place; it may also be our own bytes, put there by a contender that lost to our claim.
    if target.exists():
        return read(target) == data
    copy = claims / f"copy-{unique()}"
    write_new(copy, read(claimed / "bytes"))
    replace(copy, target)
    return won


def link_or_copy(source: Path, target: Path, staging: Path) -> bool:
    """Give the durable file `source` a second name, or where links are missing put a durable copy
    there.

    Returns
    -------
    False where `target` exists already and is another file; the caller compares.
    """
    linked = _link(source, target)
    if linked is not None:
        return linked or source.samefile(target)
    if target.exists():
        return False
    copy = staging / f"copy-{unique()}"
    with open(source, "rb") as file:
        fd = create(copy)
        try:
            while data := file.read(COPY_BYTES):
                append(fd, data, copy)
            before("fsync", str(copy))
            os.fsync(fd)
        finally:
            os.close(fd)
    replace(copy, target)
    return True


@contextlib.contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk under `root` into a one-line `BadInput` with its
    mend.
    """
    try:
        yield
    except OSError as error:
        described = describe_disk_error(error, root)
        if described is None:
            raise
        raise described from error
    except Exception as error:
        # safetensors and others wrap the system's error in a type of their own and keep only its
        # text.
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None or int(code[1]) not in DISK or isinstance(error, BadInput):
            raise
        raise _bad_disk(root, int(code[1]), str(root)) from error


def describe_disk_error(error: OSError, root: Path) -> BadInput | None:
    """Give the `BadInput` for an error of the disk that holds `root`, or None where it is another
    error.
    """
    if error.errno not in DISK:
        return None
    named = error.filename2 or error.filename
    path = os.fsdecode(named) if isinstance(named, (str, bytes)) else str(root)
    outside = not Path(path).absolute().is_relative_to(root.absolute())
    # A forbidden file elsewhere is no fault of the store.
    if outside and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return None
    return _bad_disk(root, error.errno, path)


def _bad_disk(root: Path, code: int, path: str) -> BadInput:
    mend = "free some space" if code in {errno.ENOSPC, errno.EDQUOT} else "make it writable"
    return BadInput(
        f"store {root}: cannot write {path}: {DISK[code]}",
        fix=f"{mend} or choose another store with --store DIR, then run the same command again",
    )
