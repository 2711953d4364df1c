"""Packed records without edges, committed once, stay readable with the same values by every later
version: format 1, with an entry of `requires`."""

from pathlib import Path

from stockpot.stages.loader.records import Records
from tests.formats.test_records_1 import values_digest

FILE = Path(__file__).parent / "records-1-edgeless" / "directed-weighted.arrow"
DIGEST = "7709ae1eefc6e1e184fb58a67352e7b6ae21f9eaea4069e1e85126e696906ba4"


def test_stored_records_without_edges_are_still_read():
    records = Records([FILE])
    assert values_digest(records) == DIGEST
    assert records.meta["format"] == 1
    assert records.edgeless
    assert len(records) == 2
    assert [record.num_edges for record in records] == [0, 0]
    assert [record.num_outputs for record in records] == [6, 6]
    assert FILE.stat().st_size < 8_000
