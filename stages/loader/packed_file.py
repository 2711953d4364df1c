"""A packed file of records: mapped, its head, tail and places held against its index, each record's
checksum before it is first parsed in a process.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import google_crc32c
import pyarrow as pa

from stockpot.stages.codec.format import Codec
from stockpot.stages.errors import Corrupt, sensible
from stockpot.stages.pack import index as packed_index
from stockpot.stages.pack import schema as packed
from stockpot.stages.pack.layered import depth
from stockpot.stages.places import unread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stockpot.stages.pack.record import Record

__all__ = ["REBUILD", "PackedFile", "open_packed", "shard_names"]

REBUILD = "run the recipe again: the artifact is quarantined and rebuilt"


def shard_names(names: Sequence[str]) -> list[str]:
    """Packed files among the payload `names`, in the order of their records."""
    return sorted(
        n for n in names if n.endswith(".arrow") and not n.endswith(".index.arrow") and "/" not in n
    )


@dataclass
class PackedFile:
    """One opened packed file: its mapped bytes, its schema and which of its records were
    checked.
    """

    path: Path
    index: packed_index.Index
    data: pa.Buffer
    schema: pa.Schema
    layout: list[tuple[str, int, Any, int | None]]
    meta: dict[str, Any]
    checked: bytearray

    def parsed(self, data: pa.Buffer) -> Record:
        """The record of these bytes."""
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(data), self.schema)
        edges = not packed.edgeless(self.meta)
        return packed.parse(batch, self.layout, depth(self.meta), edges=edges)

    @cached_property
    def codec(self) -> Codec:
        with sensible(f"{self.path}: the codec"):
            return Codec.from_json(
                self.meta["codec"], (self.schema.metadata or {}).get(packed.TABLES)
            )

    def first_read(self, k: int, data: pa.Buffer) -> Record:
        """Record `k` of the file from its bytes, which are held against the index."""
        where, expected = f"{self.path}: record {k}", int(self.index.crc32c[k])
        found = int(google_crc32c.value(data))
        if found != expected:
            raise Corrupt(f"{where}: crc32c expected {expected}, found {found}", fix=REBUILD)
        try:
            record = self.parsed(data)
        except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise Corrupt(
                f"{where}: expected a record batch with the columns of a record ({error})",
                fix=REBUILD,
            ) from error
        wrong = packed_index.mismatch(self.index, k, record, gather=bool(self.meta.get("gather")))
        if wrong is not None:
            raise Corrupt(f"{where}: {wrong}", fix=REBUILD)
        self.checked[k] = 1
        return record


def open_packed(path: Path) -> PackedFile:
    """The packed file at `path`, whose index lies beside it.

    Raises
    ------
    Corrupt
        It is missing, cut or damaged, or its index names places that are not in it.
    BadInput
        A newer format, or a `requires` entry that this version does not know.
    """
    index = packed_index.read_index(
        path.with_name(path.name.removesuffix(".arrow") + ".index.arrow")
    )
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != index.meta["bytes"]:
                raise Corrupt(
                    f"{path}: expected {index.meta['bytes']} bytes, found {size}", fix=REBUILD
                )
            data = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise unread(
            path,
            error,
            lambda why: Corrupt(f"{path}: expected a packed file, found none ({why})", fix=REBUILD),
        ) from error
    _check_places(path, index, size)
    head, tail = int(index.offset[0]), int(index.offset[-1] + index.length[-1])
    for what, part in (("head", data.slice(0, head)), ("tail", data.slice(tail))):
        found = int(google_crc32c.value(part))
        if found != index.meta[f"{what}_crc32c"]:
            raise Corrupt(
                f"{path}: crc32c of its {what} expected {index.meta[f'{what}_crc32c']}, found "
                f"{found}",
                fix=REBUILD,
            )
    with sensible(str(path)):
        schema = pa.ipc.read_schema(
            pa.BufferReader(data.slice(packed.MAGIC_BYTES, head - packed.MAGIC_BYTES))
        )
        meta = packed.metadata(schema, str(path))
        packed.supported(meta, str(path))
        return PackedFile(
            path, index, data, schema, packed.layout(schema), meta, bytearray(len(index.offset))
        )


def _check_places(path: Path, index: packed_index.Index, size: int) -> None:
    """Records lie one after the other, inside the file: what an index says of places is held
    against the bytes.
    """
    ends = index.offset + index.length
    sound = len(ends) > 0 and (ends >= index.offset).all() and (index.offset[1:] >= ends[:-1]).all()
    if not sound or index.offset[0] < packed.MAGIC_BYTES or ends[-1] > size:
        raise Corrupt(
            f"{path}: its index names places that are not in its {size} bytes", fix=REBUILD
        )
