"""What this machine is, in words, for documents people read; nothing of it enters a key."""

from __future__ import annotations

import os
import platform
from contextlib import suppress

__all__ = ["machine"]


def machine() -> dict[str, str]:
    """Host, system, processor, cores this process may use, and memory."""
    import psutil

    from stockpot.stages.show.plain import human_bytes

    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": human_bytes(psutil.virtual_memory().total),
    }


def _processor() -> str:
    """Its name as Linux gives it."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
