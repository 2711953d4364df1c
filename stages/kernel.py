"""A compiled kernel on disk belongs to the sources it was compiled from: those of what it calls, too.

numba asks of a cached function only whether its own file has changed, and goes on with the old code of a function it
calls in another file. So each state of the kernels' sources has a folder of its own, and so has each numba, CPU and
setting that changes the code. Every kernel takes `njit` from here; nothing of this touches a user's own functions.
"""

from __future__ import annotations

import atexit
import hashlib
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

__all__ = ["cache_folder", "kernel_sources", "njit"]

KEPT = 5
"""Folders that stay beside each other, the last used ones: of a few versions, or of CPUs that share an installation."""

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
"""numba's settings (NUMBA_...) under which a source gives other code; numba's own cache looks at none of them."""

_PACKAGE = Path(__file__).parent
_KERNEL = re.compile(rb"^(?:from stages\.kernel|from numba[\w.]*|import numba)\b", re.MULTILINE)
_IMPORT = re.compile(rb"^from stages\.([\w.]+) import (\([^)]*\)|[^\n]*)|^import stages\.([\w.]+)", re.MULTILINE)
_NAME = re.compile(r"[0-9a-f]{16}")
_DECORATING = threading.Lock()


def njit(**options: Any) -> Callable[[Any], Any]:
    """`numba.njit(**options)`, whose compiled code is kept in `cache_folder()` where `cache=True`."""

    def compiled(function: Any) -> Any:
        # numba reads where to keep a function when it is decorated, from settings of the process; they are put back.
        with _DECORATING:
            before = config.CACHE_DIR, getattr(config, "CACHE_LOCATOR_CLASSES", "")
            config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = str(cache_folder()), ""
            try:
                dispatcher = numba.njit(**options)(function)  # noqa: TID251 - the one place
            finally:
                config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = before
        _own_files(dispatcher)
        return dispatcher

    return compiled


def _own_files(dispatcher: Any) -> None:
    """Let no two processes write one file: numba counts a function's files from 1, in every process anew.

    Two that compile it for different types at once would else leave an index that names one and the code of the other.
    """
    files = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    pattern = getattr(files, "_data_name_pattern", None)
    if files is not None and pattern is not None:
        files._data_name = partial(_file_name, pattern.partition("{")[0])  # noqa: SLF001 - numba has no public way


def _file_name(stem: str, number: int) -> str:
    del number
    return f"{stem}{uuid.uuid4().hex[:16]}.nbc"


def kernel_sources(package: Path = _PACKAGE) -> list[Path]:
    """Files whose text decides what kernels compile to, sorted: those with kernels, and all they take names from.

    A kernel sees the globals of its module, so imports inside functions and for type checkers do not count.
    """
    texts = {path: path.read_bytes() for path in package.rglob("*.py")}
    reached = {path for path, text in texts.items() if _KERNEL.search(text)}
    ahead = list(reached)
    while ahead:
        for path in _imported(texts[ahead.pop()], package):
            if path in texts and path not in reached:
                reached.add(path)
                ahead.append(path)
    return sorted(reached)


def _imported(text: bytes, package: Path) -> Iterator[Path]:
    """Where the modules could be that a text imports at its top level."""
    for found in _IMPORT.finditer(text):
        module = package.joinpath(*(found[1] or found[3]).decode().split("."))
        yield from (module.with_suffix(".py"), module / "__init__.py")
        for name in re.findall(r"\w+", (found[2] or b"").decode()):
            yield module / f"{name}.py"


def _digest(package: Path) -> str:
    """Name of the folder: sources, numba, llvmlite, CPU, and settings that change the code."""
    whole = hashlib.blake2b(digest_size=8)
    features = binding.get_host_cpu_features().flatten()
    settings = [f"{name}={getattr(config, name, None)}" for name in SETTINGS]
    for part in (numba.__version__, llvmlite.__version__, binding.get_host_cpu_name(), features, *settings):
        whole.update(f"{part}\0".encode())
    for path in kernel_sources(package):
        text = path.read_bytes()
        whole.update(f"{path.relative_to(package).as_posix()}\0{len(text)}\0".encode() + text)
    return whole.hexdigest()


@cache
def cache_folder() -> Path:
    """Folder of compiled kernels, made where it is missing, once a process.

    Under NUMBA_CACHE_DIR where that is set, else beside the sources; where neither can be written, among the user's
    own caches, which is said once, and where that cannot be either, in a folder that lives as long as the process.
    """
    digest = _digest(_PACKAGE)
    asked = [Path(config.CACHE_DIR) / "stockpot"] if config.CACHE_DIR else []
    first = [*asked, _PACKAGE / "__pycache__" / "kernels"]
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "stockpot" / "kernels"
    for root in (*first, own):
        known = (root / digest).is_dir()
        if not _writable(root / digest):
            continue
        if not known:
            if root is not first[0]:
                warnings.warn(f"kernels are kept in {root}: {first[0]} cannot be written", stacklevel=2)
            _prune(root, digest)
        return root / digest
    folder = Path(tempfile.mkdtemp(prefix="stockpot-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings.warn(
        f"kernels are compiled anew by every process: neither {first[0]} nor {own} can be written; "
        "fix: NUMBA_CACHE_DIR=FOLDER",
        stacklevel=2,
    )
    return folder


def _writable(folder: Path) -> bool:
    """Make a folder and note that it is used; whether files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except OSError:
        return False
    return True


def _prune(root: Path, digest: str) -> None:
    """Leave `KEPT` folders, the last used ones; who still works in another writes it anew."""
    try:
        others = [p for p in root.iterdir() if _NAME.fullmatch(p.name) and p.name != digest]
        others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    except OSError:
        return  # another process prunes it, too
    for folder in others[KEPT - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)
