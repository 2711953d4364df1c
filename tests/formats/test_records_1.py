"""Packed records of format 1, committed once, stay readable with the same values by every later
version."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from stockpot.stages.codec.format import decode
from stockpot.stages.loader.records import Records
from stockpot.stages.pack.index import read_index

FOLDER = Path(__file__).parent / "records-1"
KINDS = ("undirected-fp32", "directed-weighted-bits", "undirected-sparse")


def values_digest(records):
    """One digest over every value a reader sees."""
    digest = hashlib.sha256()
    for record in records:
        for name in record.__dataclass_fields__:
            value = getattr(record, name)
            if value is not None:
                digest.update(
                    f"{name} {value.dtype.str} {value.shape} ".encode()
                    + np.ascontiguousarray(value).tobytes()
                )
        digest.update(decode(records.codec, record.codes, record.code_indptr).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_stored_records_are_still_read(kind):
    path = FOLDER / f"{kind}.arrow"
    records = Records([path])
    expected = dict(line.split() for line in (FOLDER / "digests.txt").read_text().splitlines())
    assert values_digest(records) == expected[kind]
    assert (
        read_index(FOLDER / f"{kind}.index.arrow").meta["records"]
        == len(records)
        == (2 if kind == "undirected-fp32" else 1)
    )
    assert ("directed" in kind and not kind.startswith("un")) == (records[0].t_indptr is not None)


def test_the_stored_files_stay_small():
    files = list(FOLDER.iterdir())
    assert len(files) == 2 * len(KINDS) + 1
    assert sum(f.stat().st_size for f in files) < 25_000
