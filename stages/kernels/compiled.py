"""A compiled kernel on disk belongs to the sources it was compiled from: those of what it calls,
too.

numba asks of a cached function only whether its own file has changed, and goes on with the old code
of a function it calls in another file. So the kernels of a file have a folder for each state of it
and of all it takes names from, and for each numba, CPU and setting that changes the code. Every
kernel takes `njit` from here; a user's own functions stay where numba keeps them.
"""

from __future__ import annotations

import atexit
import hashlib
import inspect
import os
import re
import shutil
import tempfile
import threading
import uuid
import warnings
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
from llvmlite import binding
from numba.core import config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["cache_folder", "cache_root", "kernel_sources", "njit"]

KEPT = 5
"""Folders of a file's kernels that stay, the last used ones: of a few versions, or of CPUs that
share a file system."""

SETTINGS = (
    "BOUNDSCHECK",
    "CPU_FEATURES",
    "CPU_NAME",
    "DEBUGINFO_DEFAULT",
    "DISABLE_INTEL_SVML",
    "ENABLE_AVX",
    "EXTEND_VARIABLE_LIFETIMES",
    "LOOP_VECTORIZE",
    "OPT",
    "SLP_VECTORIZE",
)
"""numba's settings (NUMBA_...) under which a source gives other code; numba's own cache looks at
none of them."""

_PACKAGE = Path(__file__).parents[1]
_IMPORT = re.compile(
    rb"^from stockpot\.stages\.([\w.]+) import (\([^)]*\)|[^\n]*)|^import "
    rb"stockpot\.stages\.([\w.]+)",
    re.MULTILINE,
)
_DECORATING = threading.Lock()


def njit(**options: Any) -> Callable[[Any], Any]:
    """`numba.njit(**options)`, whose compiled code is kept in the `cache_folder` of its file where
    `cache=True`.
    """

    def compiled(function: Any) -> Any:
        # numba reads where to keep a function when it is decorated, from settings of the process;
        # they are put back.
        with _DECORATING:
            before = config.CACHE_DIR, getattr(config, "CACHE_LOCATOR_CLASSES", "")
            config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = (
                str(cache_folder(Path(inspect.getfile(function)))),
                "",
            )
            try:
                dispatcher = numba.njit(**options)(function)  # noqa: TID251 - the one place
            finally:
                config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = before
        _own_files(dispatcher)
        return dispatcher

    return compiled


def _own_files(dispatcher: Any) -> None:
    """Let no two processes write one file: numba counts a function's files from 1, in every process
    anew.

    Two that compile it for different types at once would else leave an index that names one and the
    code of the other.
    """
    files = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    pattern = getattr(files, "_data_name_pattern", None)
    if files is not None and pattern is not None:
        # numba has no public way to name them.
        files._data_name = partial(_file_name, pattern.partition("{")[0])  # noqa: SLF001


def _file_name(stem: str, number: int) -> str:
    del number
    return f"{stem}{uuid.uuid4().hex[:16]}.nbc"


def kernel_sources(file: Path, package: Path | None = None) -> list[Path]:
    """Files whose text decides what the kernels of a file compile to, sorted: it, and all it takes
    names from.

    A kernel sees the globals of its module, so imports inside functions and for type checkers do
    not count.
    """
    package = _PACKAGE if package is None else package
    reached, ahead = {file}, [file]
    while ahead:
        for path in _imports(ahead.pop(), package):
            if path not in reached:
                reached.add(path)
                ahead.append(path)
    return sorted(reached)


@cache
def _imports(file: Path, package: Path) -> tuple[Path, ...]:
    return tuple(path for path in _imported(file.read_bytes(), package) if path.exists())


def _imported(text: bytes, package: Path) -> Iterator[Path]:
    """Where the modules could be that a text imports at its top level."""
    for found in _IMPORT.finditer(text):
        module = package.joinpath(*(found[1] or found[3]).decode().split("."))
        yield from (module.with_suffix(".py"), module / "__init__.py")
        for name in re.findall(r"\w+", (found[2] or b"").decode()):
            yield module / f"{name}.py"


def _digest(file: Path) -> str:
    """Of the sources of a file's kernels, numba, llvmlite, CPU, and settings that change the
    code.
    """
    whole = hashlib.blake2b(digest_size=8)
    features = binding.get_host_cpu_features().flatten()
    settings = [f"{name}={getattr(config, name, None)}" for name in SETTINGS]
    for part in (
        numba.__version__,
        llvmlite.__version__,
        binding.get_host_cpu_name(),
        features,
        *settings,
    ):
        whole.update(f"{part}\0".encode())
    for path in kernel_sources(file):
        text = path.read_bytes()
        whole.update(f"{path.name}\0{len(text)}\0".encode() + text)
    return whole.hexdigest()


@cache
def cache_folder(file: Path) -> Path:
    """Folder of the compiled kernels of a source file, made where it is missing."""
    root = cache_root()
    name = ".".join(file.with_suffix("").parts[-2:])
    folder = root / f"{name}-{_digest(file)}"
    known = folder.is_dir()
    folder.mkdir(exist_ok=True)
    os.utime(folder)
    if not known:
        _prune(root, name, folder.name)
    return folder


@cache
def cache_root() -> Path:
    """Folder of all compiled kernels, made where it is missing, once a process.

    Under NUMBA_CACHE_DIR where that is set, else beside the sources; where neither can be written,
    among the user's own caches, which is said once, and where that cannot be either, a folder that
    lives as long as the process.
    """
    asked = [Path(config.CACHE_DIR) / "stockpot"] if config.CACHE_DIR else []
    first = [*asked, _PACKAGE / "__pycache__" / "kernels"]
    own = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        / "stockpot"
        / "kernels"
    )
    for root in (*first, own):
        known = root.is_dir()
        if _writable(root):
            if not known and root is not first[0]:
                warnings.warn(
                    f"kernels are kept in {root}: {first[0]} cannot be written", stacklevel=2
                )
            return root
    folder = Path(tempfile.mkdtemp(prefix="stockpot-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings.warn(
        f"kernels are compiled anew by every process: neither {first[0]} nor {own} can be written; "
        "fix: NUMBA_CACHE_DIR=FOLDER",
        stacklevel=2,
    )
    return folder


def _writable(folder: Path) -> bool:
    """Make a folder; whether files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _prune(root: Path, name: str, newest: str) -> None:
    """Leave `KEPT` folders of a file, the last used ones; who still works in another writes it
    anew.
    """
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{16}}")
    try:
        others = [p for p in root.iterdir() if pattern.fullmatch(p.name) and p.name != newest]
        others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    except OSError:
        return  # another process prunes it, too
    for folder in others[KEPT - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)
