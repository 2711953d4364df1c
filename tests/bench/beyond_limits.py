"""A memory limit and a slow disk for one child process, by control groups of the system where they
can be made."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = Path("/sys/fs/cgroup")
NAMES = "STOCKPOT_BENCH_GROUPS"
"""Variable of the environment: folders of the groups that a child joins."""
CLOUD = {"read_iops_device": 3000, "read_bps_device": 125 << 20}
"""A common cloud disk: reads and bytes a second."""


def disk_of(path: Path) -> str:
    """MAJOR:MINOR of the whole disk that a path lies on."""
    device = path.stat().st_dev
    here = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if (here / "partition").exists():
        return (here.resolve().parent / "dev").read_text().strip()
    return f"{os.major(device)}:{os.minor(device)}"


class Limits:
    """Makes the groups a child joins before it starts.

    Parameters
    ----------
    memory_bytes : that it may hold, pages of files included.
    disk : a path on the disk that is throttled; None leaves it as fast as it is.
    """

    def __init__(self, memory_bytes: int, disk: Path | None = None) -> None:
        self.memory_bytes, self.disk = memory_bytes, disk

    @contextmanager
    def groups(self) -> Iterator[list[Path]]:
        made: list[Path] = []
        name = f"stockpot-bench-{os.getpid()}"
        try:
            memory = GROUPS / "memory" / name
            memory.mkdir()
            made.append(memory)
            (memory / "memory.limit_in_bytes").write_text(str(self.memory_bytes))
            if self.disk is not None:
                throttled = GROUPS / "blkio" / name
                throttled.mkdir()
                made.append(throttled)
                for rule, value in CLOUD.items():
                    rule_file = throttled / f"blkio.throttle.{rule}"
                    rule_file.write_text(f"{disk_of(self.disk)} {value}")
            yield made
        finally:
            for group in made:
                group.rmdir()

    @property
    def missing(self) -> str:
        """Why no such groups can be made here; "" where they can (version 1 of control groups)."""
        try:
            with self.groups():
                return ""
        except OSError as error:
            return str(error)

    def run(self, command: list[str], env: dict[str, str], *, child_alone: bool = False) -> str:
        """Standard output of a command under these limits, started with nothing in memory of what
        it reads.

        Parameters
        ----------
        child_alone : not the command is held to them, but a child of it that joins the groups which
            the variable `NAMES` of its environment names.

        Raises
        ------
        OSError
            No group can be made here.
        """
        with self.groups() as groups:
            names = os.pathsep.join(map(str, groups))

            def join() -> None:
                for group in groups:
                    (group / "tasks").write_text(str(os.getpid()))

            found = subprocess.run(
                command, env={**env, **({NAMES: names} if child_alone else {})},
                capture_output=True, text=True, check=False,
                preexec_fn=None if child_alone else join,
            )  # fmt: skip
        if found.returncode:
            sys.stderr.write(found.stderr[-2000:])
            raise RuntimeError(f"{command[3:5]} ended with {found.returncode}")
        return found.stdout


def forget(*files: Path) -> None:
    """Drop what memory holds of files."""
    os.sync()
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
