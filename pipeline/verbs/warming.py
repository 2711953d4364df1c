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
        found = warm(len(os.sched_getaffinity(0)), show.say, args.kinds)
    finally:
        show.close()
    document = {
        "folder": str(found.folder),
        "kernels": found.kernels,
        "compiled": found.compiled,
        "seconds": found.seconds,
    }
    if found.compiled:
        text = (
            f"{found.kernels} kernels in {found.folder}, {found.compiled} compiled now (a kernel "
            f"once for all types that it is called with) in {found.seconds:.0f} s"
        )
    else:
        which = (
            f"the kernels of {', '.join(args.kinds)}"
            if args.kinds
            else (f"all {found.kernels} kernels")
        )
        text = f"{which} are compiled already, in {found.folder}"
    said(args, document, text)
    return 0
