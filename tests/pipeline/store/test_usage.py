"""What a task took is counted in full, also in a process that keeps freed memory for reuse."""

import os
import subprocess
import sys
import time

import pytest

from stockpot.stages.peak_memory import PeakMemory
from stockpot.store.usage import Usage

SCRIPT = """
import numpy as np
from stockpot.store.usage import Usage
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
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **keep},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = map(int, done.stdout.split())
    assert first >= 60
    assert second >= 60


def test_processes_that_a_task_starts_are_counted_with_it():
    held = "held = bytearray(b'1') * (64 << 20); print(len(held), flush=True); input()"
    with Usage() as usage:
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", held],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert int(child.stdout.readline()) == 64 << 20
        until = time.monotonic() + 30
        while usage.peak_bytes < 60 << 20 and time.monotonic() < until:
            time.sleep(0.02)
        child.communicate("\n")
    assert usage.peak_bytes >= 60 << 20


@pytest.mark.parametrize(("since", "grown"), [(None, 600), (50, 650), (900, 0)])
def test_a_peak_is_what_was_added_to_the_start(since, grown):
    class Told(PeakMemory):
        every_s = 3600.0  # looked at when it begins and when it ends
        held = 100

        def now(self):
            return self.held

    with Told(since) as peak:
        peak.held = 700
    assert peak.peak_bytes == grown
