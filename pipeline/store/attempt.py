"""An attempt at a shard is private until one exclusive link publishes it whole; of several, the
first counts.

A killed attempt leaves a folder nobody reads. It is removed by the next attempt at the same shard
on the same machine, once its process is known to be dead, or with all work on the artifact when
that is committed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stockpot.errors import Conflict, Corrupt, CorruptShard, NonDeterminism
from stockpot.stages.replace import replacing
from stockpot.store import fs
from stockpot.store.arrays import METADATA, Created, write_array
from stockpot.store.digests import bytes_digest, file_digest, payload_digest
from stockpot.store.forms import entry_fault
from stockpot.store.keys import FORMAT_VERSION, canonical
from stockpot.store.manifest import FACTS, MANIFEST, host, refuse_newer, seal, software, unseal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.store.usage import Usage

__all__ = ["FINISH", "UNLIMITED_BYTES", "Attempt", "Work", "alive", "json_facts", "owner"]

FINISH = "_finish"
"""Name of the shard that runs a stage's `finish`."""

UNLIMITED_BYTES = 1 << 62
OWNER = "owner.json"
PROGRESS_EVERY_S = 0.5
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,127}")


class Work:
    """Paths and published shards of one artifact in progress: `STORE/work/<key>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = root.name
        self.shards = root / "shards"
        self.claims = root / "claims"

    def entry_path(self, shard: str) -> Path:
        """Path of a shard's entry; the shard is published if and only if it exists."""
        if not _SHARD_NAME.fullmatch(shard):
            raise Conflict(f"shard name {shard!r}: expected up to 128 letters, digits and _.:+-")
        return self.shards / f"{shard}.json"

    def payload(self, entry: Mapping[str, Any]) -> Path:
        """Folder of a published shard's files."""
        return self.root / str(entry["attempt"]) / "payload"

    def scratch(self, shard: str) -> Path:
        """Folder of a shard that survives kills."""
        return self.root / "scratch" / shard

    def progress_path(self, shard: str) -> Path:
        """File with the latest progress of a shard."""
        return self.root / "progress" / f"{shard}.json"

    def entry(self, shard: str) -> dict[str, Any] | None:
        """Entry of a published shard, None where it is not published.

        Raises
        ------
        CorruptShard
            It is damaged.
        """
        path = self.entry_path(shard)
        try:
            data = fs.read(path)
        except FileNotFoundError:
            return None
        refuse_newer(data, path)
        try:
            entry = unseal(data, path)
            if (fault := entry_fault(entry)) is not None:
                raise Corrupt(f"{path}: expected the entry of a shard, but {fault}")
            if (entry["key"], entry["shard"]) != (self.key, shard):
                raise Corrupt(
                    f"{path}: expected shard {shard} of {self.key}, found another's entry"
                )
            if entry["digest"] != _entry_digest(entry["files"], entry["facts"]):
                raise Corrupt(f"{path}: its digest does not match its files and facts")
        except Corrupt as error:
            raise CorruptShard(
                error.message,
                fix="run the same command again: the shard is computed anew",
                key=self.key,
                shard=shard,
            ) from error
        return entry

    def published(self) -> list[str]:
        """Names of the published shards, sorted."""
        with suppress(FileNotFoundError):
            return sorted(path.stem for path in self.shards.iterdir() if path.suffix == ".json")
        return []


class Attempt:
    """Staging area of one attempt at one shard; implements `stockpot.stages.stage.Writer`.

    Parameters
    ----------
    work : the artifact in progress.
    shard : name of the shard.
    threads : threads the stage may use.
    memory_bytes : memory it may take above the interpreter.
    """

    def __init__(
        self, work: Work, shard: str, *, threads: int = 1, memory_bytes: int = UNLIMITED_BYTES
    ) -> None:
        work.entry_path(shard)
        self.work = work
        self.shard = shard
        self.threads = threads
        self.memory_bytes = memory_bytes
        self.name = f"attempt-{fs.unique()}"
        self.root = work.root / self.name
        self.payload = self.root / "payload"
        self.notes: dict[str, Any] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._created: list[Created] = []
        self._named: set[str] = set()
        self._progress_at = 0.0
        self.started = time.time()
        self._clock = time.perf_counter()
        fs.make_folders(self.payload)
        (self.root / OWNER).write_bytes(seal({"shard": shard, **owner()}))

    # --- stockpot.stages.stage.Writer

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Write a dense array; see `stockpot.store.arrays`."""
        self._claim(name)
        self._files.update(write_array(self.payload, name, values))

    def create(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Make a dense array on disk, to be filled before the shard is published; see
        `arrays.Created`.
        """
        self._claim(name)
        self._created.append(Created(self.payload, name, shape, dtype))
        return self._created[-1].values

    def path(self, name: str) -> Path:
        """Path of a payload file for the caller to create; its folder exists."""
        self._claim(name)
        target = self.payload / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def scratch(self) -> Path:
        """Folder of this shard that survives kills and is not payload."""
        folder = self.work.scratch(self.shard)
        fs.make_folders(folder)
        return folder

    def note(self, name: str, value: Any) -> None:
        """Record a figure that may differ by run; never hashed."""
        self.notes[name] = json_facts(value, f"note {name!r}")

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Leave the progress of this shard where `status` and the driver's bars find it, at most
        twice a second.
        """
        now = time.monotonic()
        if done < total and now - self._progress_at < PROGRESS_EVERY_S:
            return
        self._progress_at = now
        path = self.work.progress_path(self.shard)
        # Progress is a courtesy: where it cannot be written, the work it tells of decides whether
        # that is an error.
        with suppress(OSError):
            if self.work.root.is_dir():
                path.parent.mkdir(exist_ok=True)
            with replacing(path, synced=False) as partial:
                found = {"done": int(done), "total": int(total), "text": text, "time": time.time()}
                partial.write_bytes(seal(found))

    # --- publishing

    def publish(
        self,
        facts: Mapping[str, Any],
        *,
        stage: str,
        exact: bool,
        usage: Usage | None = None,
        device: str = "cpu",
        uses: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make the attempt durable and publish it, or agree with the attempt that was first.

        Parameters
        ----------
        uses : for `finish`, the shard digests it read, which the commit then insists on.

        Returns
        -------
        The entry that stands, this attempt's or the first one's.

        Raises
        ------
        NonDeterminism
            The shard is exact and the first attempt gave other bytes; nothing is replaced.
        """
        facts = json_facts(facts, f"stage {stage}, shard {self.shard}: facts")
        # Removed under this attempt: another driver committed. Folders a stage made since then are
        # no attempt.
        if not (self.root / OWNER).exists():
            raise FileNotFoundError(
                errno.ENOENT, "the work on this artifact was removed", str(self.root)
            )
        if self.shard == FINISH:
            fs.write_new(
                self.payload / FACTS, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
            )
        for created in self._created:
            self._files.update(created.seal())
        files = self._collect()
        seconds = time.perf_counter() - self._clock
        entry = {
            "format": FORMAT_VERSION,
            "stage": stage,
            "key": self.work.key,
            "shard": self.shard,
            "attempt": self.name,
            "files": files,
            "facts": facts,
            "digest": _entry_digest(files, facts),
            "notes": self.notes,
            "started": self.started,
            "seconds": seconds,
            "peak_bytes": usage.peak_bytes if usage else 0,
            "max_rss_bytes": usage.max_rss_bytes if usage else 0,
            "threads": self.threads,
            "device": device,
            "host": host(),
            "software": software(),
            "uses": dict(uses or {}),
        }
        fs.fsync_tree(self.root)
        fs.make_folders(self.work.shards)
        data = seal(entry)
        ready = self.root / "entry.json"
        fs.write_new(ready, data)
        if fs.publish(ready, self.work.entry_path(self.shard), self.work.claims / "shards"):
            return json.loads(json.dumps(entry))
        first = self.work.entry(self.shard)
        if first is None:
            raise FileNotFoundError(
                errno.ENOENT, "the work on this artifact was removed", str(self.root)
            )
        if first["attempt"] == self.name:
            return first
        if exact and first["digest"] != entry["digest"]:
            raise NonDeterminism(
                f"stage {stage}, shard {self.shard} of {self.work.key}: two attempts at an exact "
                f"shard differ in "
                f"{_difference(first, entry)}; the first stands, the second is kept in {self.root}",
                fix="check this machine's memory and library versions, then stockpot verify --all",
            )
        self.drop()
        return first

    def drop(self) -> None:
        """Remove an attempt that is not published."""
        fs.remove_tree(self.root)

    def _claim(self, name: str) -> None:
        path = PurePosixPath(name)
        if (
            not name
            or path.is_absolute()
            or ".." in path.parts
            or str(path) != name
            or name.startswith(".")
        ):
            raise Conflict(f"shard {self.shard}: {name!r} is not a relative path of a payload file")
        if name in {MANIFEST, FACTS} or path.name == METADATA:
            raise Conflict(f"shard {self.shard}: the payload name {name!r} is reserved")
        if name in self._named:
            raise Conflict(f"shard {self.shard}: {name!r} is written twice")
        self._named.add(name)

    def _collect(self) -> dict[str, dict[str, Any]]:
        """Size and digest of every file, each durable."""
        files = {}
        for folder, _, names in os.walk(self.payload):
            for leaf in names:
                path = Path(folder, leaf)
                name = path.relative_to(self.payload).as_posix()
                found = path.lstat()
                if not stat.S_ISREG(found.st_mode):
                    raise Conflict(f"shard {self.shard}: {name!r} is not a plain file")
                if name in self._files:
                    files[name] = self._files[name]
                    continue
                fs.fsync_file(path)
                files[name] = {"size": found.st_size, "digest": file_digest(path)}
        if lost := sorted(self._files.keys() - files.keys()):
            raise FileNotFoundError(
                errno.ENOENT, "a written file is gone", str(self.payload / lost[0])
            )
        return {name: files[name] for name in sorted(files)}


def _entry_digest(files: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    return bytes_digest(canonical([payload_digest(files), facts]))


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    a, b = first["files"], second["files"]
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            return f"file {name}, which only one of them wrote"
        if a[name]["digest"] != b[name]["digest"]:
            return f"file {name} (digest {a[name]['digest']} against {b[name]['digest']})"
    names = sorted(first["facts"].keys() | second["facts"].keys())
    differing = [name for name in names if first["facts"].get(name) != second["facts"].get(name)]
    return f"facts {', '.join(differing)}"


def json_facts(value: Any, where: str) -> Any:
    """`value` as JSON: numpy scalars become Python's, tuples lists.

    Raises
    ------
    TypeError, ValueError
        It holds something else, or a number that is not finite.
    """
    if isinstance(value, Mapping):
        return {str(name): json_facts(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_facts(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    try:
        canonical(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
    return value


def owner() -> dict[str, Any]:
    """What tells whether the process behind an attempt is still alive, and on which machine to
    ask.
    """
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {
        "host": host(),
        "boot": boot,
        "namespace": namespace,
        "pid": os.getpid(),
        "born": _born(os.getpid()),
    }


def clear_dead_attempts(work: Work, shard: str) -> None:
    """Remove what dead processes of this machine left of earlier attempts at a shard."""
    here = owner()
    if not here["boot"] or not here["namespace"]:
        return
    dead = []
    for path in work.root.glob(f"attempt-*/{OWNER}"):
        with suppress(
            OSError, Corrupt, KeyError
        ):  # whose owner cannot be told stays until the artifact is committed
            who = unseal(path.read_bytes(), path)
            local = all(who[name] == here[name] for name in ("host", "boot", "namespace"))
            if who["shard"] == shard and local and not alive(who["pid"], who["born"]):
                dead.append(path.parent)
    # Read after the process is known to be dead: it can publish no more.
    entry = work.entry(shard) if dead else None
    for folder in dead:
        if entry is None or entry["attempt"] != folder.name:
            fs.remove_tree(folder)


def _born(pid: int, *, clock: bool = False) -> float:
    """When a process began: seconds since the machine did, which no change of the clock moves;
    `clock`: since 1970.
    """
    import psutil

    process = psutil.Process(pid)
    with suppress(OSError, IndexError, ValueError):
        if not clock:  # field 22 of proc(5); the name, field 2, may hold blanks
            ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
            return ticks / os.sysconf("SC_CLK_TCK")
    return float(process.create_time())


def alive(pid: int, born: float) -> bool:
    """Whether the process of that number that began at that time (`owner`) still runs here."""
    import psutil

    try:
        # Before 0.2 owners were noted by the clock.
        return abs(_born(pid, clock=born > 1e9) - born) < 1.0
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
