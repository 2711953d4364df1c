"""Where stockpot itself lies: in a clone its folders are named otherwise than once they are
installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["child_environment", "source_files"]


def child_environment() -> dict[str, str]:
    """Environment of a child process that imports the same stockpot as this one.

    An installed package is found by the folder above it, which this process may have got from its
    own `sys.path` alone; a clone by the finder that its environment's editable install brings.
    """
    root = Path(sys.modules["stockpot"].__path__[0])
    paths = [str(root.parent)] if root.name == "stockpot" else []
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def source_files() -> dict[str, Path]:
    """All source files of stockpot by their path inside the package, the same for a clone and an
    installation.

    Raises
    ------
    RuntimeError
        They are not where they were imported from.
    """
    files: dict[str, Path] = {}
    for package in (
        "stockpot",
        "stockpot.stages",
    ):  # two folders of a clone, one inside the other once installed
        root, inside = Path(sys.modules[package].__path__[0]), package.split(".")[1:]
        files |= {
            "/".join((*inside, *path.relative_to(root).parts)): path for path in root.rglob("*.py")
        }
    if "cli.py" not in files or "stages/stage.py" not in files:
        raise RuntimeError(
            f"the source files of stockpot are not where they were imported from: {sorted(files)}"
        )
    return {name: files[name] for name in sorted(files)}
