"""What a benchmark was run on: the head of every runs/bench/NAME.json."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """CPU, cores and load (processes that wanted a core in the last minute), and the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    load = os.getloadavg()[0]
    cpu = platform.processor() or platform.machine()
    return {"machine": {"cpu": cpu, "cores": os.cpu_count(), "load": load}, "commit": commit}
