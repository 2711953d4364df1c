"""soup: one model of several that exist."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from stockpot.verbs.session import said

if TYPE_CHECKING:
    import argparse

__all__ = ["soup"]


def soup(args: argparse.Namespace) -> int:
    from stockpot.execution.progress import Fraction, display
    from stockpot.souping.soup_outputs import document_text
    from stockpot.souping.souping import Asked, make

    words = [str(path) for path in args.where]
    for name in ("batches", "factory", "out"):
        if value := getattr(args, name):
            words += [f"--{name}", str(value)]
    for override in args.set:
        words += ["--set", override]
    asked = Asked(
        args.where,
        args.batches,
        args.factory,
        args.out,
        args.set,
        shlex.join(["stockpot", "soup", *words]),
    )
    show = display(sys.stdout, silent=args.json)
    show.start("soup", 1)

    def report(done: int, total: int, text: str) -> None:
        show.update("soup", 0, {"soup": Fraction(done, total, text)})

    try:
        document = make(asked, report)
    finally:
        show.close()
    said(args, document, document_text(document))
    return 0
