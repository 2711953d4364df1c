"""What a task took is counted in full, also in a process that keeps freed memory for reuse."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from pipeline.usage import Usage
for _ in range(2):
    with Usage() as usage:
        held = [np.ones(1 << 20, np.uint8) for _ in range(64)]
        import time; time.sleep(0.2)
        del held
    print(usage.peak_bytes >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")
def test_the_second_task_of_a_process_is_counted_like_the_first():
    keep = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **keep}, capture_output=True, text=True, check=True
    )
    first, second = map(int, done.stdout.split())
    assert first >= 60
    assert second >= 60
