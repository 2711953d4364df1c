"""A side of `make bench-train` in a process of its own: an epoch for each line it is sent, and a
line of CPU seconds and accuracies back; "save PATH" writes its weights, "floor" counts the dense
products of one more epoch.

    python -m tests.bench.training_child JOB.json

What is compiled or loaded at a first use is used once before the clock counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.bench.training_side import Side


def main(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    kind = Side
    if job["kind"] == "script":
        from tests.bench.dgl_script import Script

        kind = Script
    kind(job).warm()
    side = kind(job)
    print(json.dumps({"began": side.began}), flush=True)
    for line in sys.stdin:
        if line.startswith("save "):
            side.save(line.split(maxsplit=1)[1].strip())
            print(json.dumps({"saved": True}), flush=True)
        elif line.strip() == "floor":
            print(json.dumps(side.floor()), flush=True)
        else:
            print(json.dumps(side.turn()), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
