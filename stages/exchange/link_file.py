"""Links of a packed split for one number of ranks: an Arrow IPC file a packed file, one record
batch a record.

Each record batch has a row a rank, so that a rank reads the links of a record as slices of one
mapped file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stockpot.stages.exchange.halo_plan import Links
from stockpot.stages.exchange.rank_partition import checksums, owned, parts_read, read_by

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record
    from stockpot.stages.stage import Reader

__all__ = ["LinkReader", "link_batch", "link_schema"]

FORMAT = 2
COLUMNS = {
    "send": pa.int32(),
    "send_ptr": pa.int64(),
    "send_used": pa.uint16(),
    "used": pa.uint16(),
    "deg": pa.int32(),
    "crc32c": pa.uint32(),
}


def link_schema(ranks: int, *, weighted: bool) -> pa.Schema:
    """Schema of a file of links; `deg_w` stands in those of weighted graphs."""
    columns = {**COLUMNS, **({"deg_w": pa.float32()} if weighted else {})}
    fields = [
        pa.field(name, pa.list_(pa.field("item", kind, nullable=False)), False)
        for name, kind in columns.items()
    ]
    return pa.schema(fields, metadata={"stockpot": f'{{"format":{FORMAT},"ranks":{ranks}}}'})


def link_batch(
    schema: pa.Schema, found: Sequence[Links], crc: Sequence[NDArray[np.uint32]]
) -> pa.RecordBatch:
    """A row a rank."""
    columns = []
    for field in schema:
        parts = [
            np.asarray(crc[r]).reshape(-1)
            if field.name == "crc32c"
            else getattr(found[r], field.name)
            for r in range(len(found))
        ]
        offsets = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int32)
        values = pa.array(np.concatenate(parts), field.type.value_type)
        columns.append(pa.ListArray.from_arrays(pa.array(offsets), values, type=field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@dataclass
class LinkReader:
    """Links of an `exchange` artifact; files are mapped when first read in a process.

    Attributes
    ----------
    paths : its files, in the order of their records. first : i8[files + 1], first record of each.
    ranks : the number they were made for.
    """

    paths: Sequence[Path]
    first: NDArray[np.int64]
    ranks: int

    @classmethod
    def from_reader(cls, reader: Reader) -> LinkReader:
        """Of an artifact of stage `exchange`."""
        names = sorted(name for name in reader.names() if name.endswith(".arrow"))
        counts = reader.facts["records_of_shards"]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls([reader.path(name) for name in names], first, int(reader.facts["ranks"]))

    @cached_property
    def _files(self) -> list[Any]:
        return [pa.ipc.open_file(pa.memory_map(str(path))) for path in self.paths]

    def _column(self, i: int, rank: int, name: str) -> NDArray[Any]:
        at = int(np.searchsorted(self.first, i, side="right")) - 1
        batch = self._files[at].get_batch(i - int(self.first[at]))
        column = batch.column(name)
        start, stop = (column.offsets[k].as_py() for k in (rank, rank + 1))
        return column.values.slice(start, stop - start).to_numpy(zero_copy_only=True)

    def of(self, i: int, rank: int) -> Links:
        """Links of record `i` on one rank, views on the file."""
        at = int(np.searchsorted(self.first, i, side="right")) - 1
        names = [name for name in self._files[at].schema.names if name != "crc32c"]
        return Links(**{name: self._column(i, rank, name) for name in names})

    def read(
        self, i: int, record: Record, rank: int, layers: int, *, check: bool
    ) -> tuple[int, bool]:
        """What a model of `layers` layers reads of record `i` on this rank: (its bytes, whether
        they are as written).

        Unless `check`, they are not looked at.
        """
        mine, read = owned(record.block_ptr, self.ranks, rank), parts_read(record, layers)
        size = 0
        for hop in np.flatnonzero(read[:, 0]):
            parts = read_by(record, mine, int(hop))
            size += sum(
                column.nbytes for k, part in enumerate(parts) if read[hop, k] for column in part
            )
        if not check:
            return size, True
        stored = self._column(i, rank, "crc32c").reshape(read.shape)
        return size, np.array_equal(checksums(record, mine, layers), np.where(read, stored, 0))
