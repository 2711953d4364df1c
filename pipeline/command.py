"""A command that is shown can be typed: words quoted for a shell, options left at their defaults
left out.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["DEFAULT_RUNS", "DEFAULT_STORE", "command", "kept", "typed", "verify_mends"]

DEFAULT_STORE, DEFAULT_RUNS = Path("runs/store"), Path("runs")


_OF_A_STORE = re.compile(r"\bstockpot (run|plan|status|verify|report|inspect)\b(?! --help)")


def kept(text: str, args: argparse.Namespace) -> str:
    """A mend with the folders and the recipe of the parsed command in every command of it, so that
    it mends this run.

    Options stand behind the verb, where they are understood whatever follows; what a command
    already says stays.
    """
    recipe = str(getattr(args, "recipe", None) or "")
    ends = [*(found.start() for found in _OF_A_STORE.finditer(text)), len(text)]

    def filled(found: re.Match[str]) -> str:
        rest = text[found.end() : next(end for end in ends if end > found.start())]
        options = [word for word in _folders(args) if word[0] not in rest]
        return shlex.join([*found[0].split(), *(part for option in options for part in option)])

    mended = _OF_A_STORE.sub(filled, text)
    return (
        re.sub(r"\bRECIPE\b", lambda _: shlex.quote(recipe), mended)
        if recipe.endswith(".toml")
        else mended
    )


def verify_mends(store: Path) -> str:
    """The mend of a damaged artifact of a store."""
    return (
        f"stockpot verify --all --store {shlex.quote(str(store))} sets it aside, the next run "
        f"builds it anew"
    )


def _folders(args: argparse.Namespace) -> list[tuple[str, str]]:
    """--store and --runs, where they are not at their defaults."""
    asked = (("--store", "store", DEFAULT_STORE), ("--runs", "runs", DEFAULT_RUNS))
    return [
        (option, str(value))
        for option, name, default in asked
        if (value := getattr(args, name, default)) != default
    ]


def command(args: argparse.Namespace, verb: str, *words: str) -> str:
    """`stockpot VERB RECIPE WORDS` with the recipe, overrides and folders of the parsed command
    `args`.
    """
    parts = ["stockpot", verb, str(args.recipe), *words]
    for override in args.set:
        parts += ["--set", override]
    if getattr(args, "scheduler", None):
        parts += ["--scheduler", args.scheduler]
    parts += [word for option in _folders(args) for word in option]
    return shlex.join(parts)


def typed(args: argparse.Namespace | None, text: str) -> str:
    """A text whose command that fetches the data can be typed as it stands."""
    if getattr(args, "recipe", None) is None:
        return text
    return text.replace("stockpot fetch RECIPE", command(args, "fetch"))  # type: ignore[arg-type]
