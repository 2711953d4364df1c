"""`train.model = "package.module:factory"` names exactly one source file, and that file is what a
key holds of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput, Conflict

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["factory_of", "factory_source", "source_digest"]

_WHERE = "run in the folder that holds it, or install it"
_imported: dict[str, str] = {}
"""Module -> digest of the source it was imported from in this process."""


def _split(name: str) -> tuple[str, str]:
    module, _, factory = name.partition(":")
    if not factory.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise BadInput(
            f"train.model: expected package.module:factory, found {name!r}",
            fix="--set train.model=mypackage.models:build",
        )
    return module, factory


def _working_folder_first() -> None:
    """Let modules of the working directory be found, as `python -m` does, in every process."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()


def factory_source(name: str) -> Path:
    """The source file of a factory's module; nothing is imported or run.

    Raises
    ------
    BadInput
        The name has another form, or there is no such module here.
    """
    module, _ = _split(name)
    _working_folder_first()
    parts = module.split(".")
    # The main script is another one in every worker process.
    spec = None if parts[0] == "__main__" else importlib.util.find_spec(parts[0])
    for i in range(1, len(parts)):
        inside = list(spec.submodule_search_locations or []) if spec is not None else []
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), inside) if inside else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise BadInput(
            f"train.model: {name!r}: expected a module {module} with a source file, found none",
            fix=_WHERE,
        )
    return Path(spec.origin)


def source_digest(name: str) -> str:
    """blake3 of the factory's source file, 32 hex characters."""
    from blake3 import blake3

    return blake3(factory_source(name).read_bytes()).hexdigest(length=16)


def factory_of(name: str, digest: str) -> Callable[[dict[str, Any]], Any]:
    """The factory, called with a configuration; what it raises arrives as one line that says where.

    Raises
    ------
    BadInput
        It cannot be imported, is not callable or raises.
    Conflict
        Its source is not the one of `digest`.
    """
    module_name, factory_name = _split(name)
    found = source_digest(name)
    if found != digest:
        raise Conflict(
            f"train.model: {name!r}: {factory_source(name)} has digest {found}, but {digest} made "
            f"this model",
            fix="run the recipe again, or bring back the source it was trained with",
        )
    factory = getattr(_module(name, module_name, digest), factory_name, None)
    if not callable(factory):
        raise BadInput(
            f"train.model: {name!r}: expected a callable {factory_name} in {factory_source(name)}, "
            f"found {'none' if factory is None else type(factory).__name__}",
            fix=f"define {factory_name}(config) there",
        )

    def call(config: dict[str, Any]) -> Any:
        try:
            return factory(config)
        except Exception as error:
            raise _raised(f"train.model: {name!r}", error) from error

    return call


def _module(name: str, module_name: str, digest: str) -> ModuleType:
    try:
        module = importlib.import_module(module_name)
        if _imported.setdefault(module_name, digest) != digest:
            module = importlib.reload(module)  # its source changed while this process lived
            _imported[module_name] = digest
    except Exception as error:
        raise _raised(f"train.model: {name!r}: cannot be imported", error) from error
    return module


def _raised(what: str, error: Exception) -> BadInput:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    words = " ".join(str(error).split())
    return BadInput(
        f"{what}: {type(error).__name__}: {words}{where}", fix="mend it there and run again"
    )
