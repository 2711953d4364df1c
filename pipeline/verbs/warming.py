"""warm: every kernel compiled before it is wanted."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from stockpot.verbs.session import said

if TYPE_CHECKING:
    import argparse

__all__ = ["warm"]


def warm(args: argparse.Namespace) -> int:
    from stockpot.execution.kernel_runs import warm
    from stockpot.execution.progress import display

    show = display(sys.stderr, silent=args.json)
    try:
        warmed = warm(len(os.sched_getaffinity(0)), show.say, args.kinds)
    finally:
        show.close()
    document = {
        "folder": str(warmed.folder),
        "kernels": warmed.kernels,
        "compiled": warmed.compiled,
        "seconds": warmed.seconds,
    }
    if warmed.compiled:
        text = (
            f"{warmed.kernels} kernels in {warmed.folder}, {warmed.compiled} compiled now (a "
            f"kernel once for all types that it is called with) in {warmed.seconds:.0f} s"
        )
    else:
        which = (
            f"the kernels of {', '.join(args.kinds)}"
            if args.kinds
            else (f"all {warmed.kernels} kernels")
        )
        text = f"{which} are compiled already, in {warmed.folder}"
    said(args, document, text)
    return 0
