"""A worker is held to its memory: its own, not the pages of the files it reads."""

import time

import numpy as np

from stockpot.execution.cluster import start_local

LIMIT = 400 << 20


def read_mapped(path):
    values = np.memmap(path, np.uint8, "r")
    total = int(values[::4096].sum())
    time.sleep(1)
    return total + int(values[-1])


def take(count):
    values = np.ones(count, np.uint8)
    time.sleep(20)
    return int(values[-1])


def test_mapped_pages_are_free_and_own_memory_is_not(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2 * LIMIT)
    cluster = start_local(1, LIMIT, 1)
    try:
        cluster.submit("mapped", read_mapped, str(path))
        cluster.submit("own", take, LIMIT)
        found = {}
        deadline = time.monotonic() + 120
        while len(found) < 2 and time.monotonic() < deadline:
            found |= {outcome.tag: outcome for outcome in cluster.wait(0.25)}
    finally:
        cluster.close(now=True)
    assert found["mapped"].value == 0
    assert found["own"].lost
