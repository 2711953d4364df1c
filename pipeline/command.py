"""A command that is shown can be typed: words quoted for a shell, options left at their defaults left out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["DEFAULT_RUNS", "DEFAULT_STORE", "command"]

DEFAULT_STORE, DEFAULT_RUNS = Path("runs/store"), Path("runs")


def command(args: argparse.Namespace, verb: str, *words: str) -> str:
    """`stockpot VERB RECIPE WORDS` with the recipe, overrides and folders of the parsed command `args`."""
    parts = ["stockpot", verb, str(args.recipe), *words]
    for override in args.set:
        parts += ["--set", override]
    if getattr(args, "scheduler", None):
        parts += ["--scheduler", args.scheduler]
    if args.store != DEFAULT_STORE:
        parts += ["--store", str(args.store)]
    if args.runs != DEFAULT_RUNS:
        parts += ["--runs", str(args.runs)]
    return shlex.join(parts)
