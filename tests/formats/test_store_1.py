"""An artifact of store format 1, committed once, stays readable with the same digests by every
later version."""

from pathlib import Path

import numpy as np
import zarr

from stockpot.store.keys import FORMAT_VERSION
from stockpot.store.store import Store
from stockpot.store.verify import verify_store
from tests.pipeline.store.toy import build, install, payload_bytes

ROOT = Path(__file__).parent / "store-1"
KEY = "28a7ffb85810a8d908f795f058a2c1fc"


def test_reads():
    store = Store(ROOT)
    assert store.artifacts() == [("count", KEY)]
    assert verify_store(store) == []
    reader = store.open("count", KEY)
    assert reader.digest == "0be368eb594437898f71ad5dacf92b47"
    assert reader.facts == {"count": 12, "names": ["a", "b"]}
    assert np.array_equal(reader.array("total"), np.arange(12, dtype=np.int32) * 2)
    assert reader.array("empty").shape == (0, 3)
    assert reader.path("lines/shard-1.txt").read_text() == "6\n7\n8\n9\n10\n11"
    assert np.array_equal(
        zarr.open_array(ROOT / "objects/count" / KEY / "total", mode="r")[:], reader.array("total")
    )
    assert reader.manifest["format"] == 1
    assert reader.manifest["params"] == {"n": 12, "shards": 2, "names": ["a", "b"]}


def test_this_version_still_writes_it(tmp_path, monkeypatch):
    assert FORMAT_VERSION == 1
    install(monkeypatch)
    key, _ = build(tmp_path)
    assert key == KEY
    assert payload_bytes(tmp_path) == payload_bytes(ROOT)
