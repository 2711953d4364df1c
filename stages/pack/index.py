"""The index of a packed file covers every byte of the file and of itself: a flipped bit anywhere is
found.

Beside `<shard>.arrow` stands `<shard>.index.arrow`, a row per record: offset, length and crc32c of
its byte range, its counts, first `input_id` and labels. Its metadata holds size, head and tail of
the file and a checksum of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import pyarrow as pa

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.hag.columns import mismatch as hag_mismatch
from stockpot.stages.pack.layered import check as layers_check
from stockpot.stages.pack.schema import FORMAT, KEY, canonical, metadata
from stockpot.stages.places import unread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = ["Index", "label_counts", "mismatch", "read_index", "write_index"]

COLUMNS = {
    "offset": pa.int64(),
    "length": pa.int64(),
    "crc32c": pa.uint32(),
    "num_outputs": pa.int32(),
    "num_nodes": pa.int32(),
    "num_edges": pa.int32(),
    "first_input_id": pa.int64(),
}
LABELS = pa.list_(pa.field("item", pa.int32(), nullable=False))
DAMAGE = (
    pa.ArrowException,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
)
"""What Arrow and numpy raise on bytes that are not what they were."""


@dataclass(frozen=True)
class Index:
    """Rows of one index file, a record each.

    Attributes
    ----------
    meta : size of the file, crc32c of its head (up to the first record) and tail (from the end of
        the last).
    offset, length, crc32c, num_outputs, num_nodes, num_edges, first_input_id : i8 / u4 / i4
        [records].
    label_counts : i4[records, num_classes], labelled outputs of each class.
    """

    meta: Mapping[str, Any]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    crc32c: NDArray[np.uint32]
    num_outputs: NDArray[np.int32]
    num_nodes: NDArray[np.int32]
    num_edges: NDArray[np.int32]
    first_input_id: NDArray[np.int64]
    label_counts: NDArray[np.int32]

    def check(self) -> int:
        """crc32c over the metadata without its own checksum and all columns."""
        crc = google_crc32c.value(canonical({k: v for k, v in self.meta.items() if k != "check"}))
        for name in (*COLUMNS, "label_counts"):
            crc = google_crc32c.extend(crc, np.ascontiguousarray(getattr(self, name)).tobytes())
        return int(crc)


def label_counts(y: NDArray[np.int32], num_classes: int) -> NDArray[np.int32]:
    """i4[num_classes], labelled outputs of each class; -1 is unlabelled."""
    return np.bincount(y[y >= 0], minlength=num_classes).astype(np.int32)


def write_index(
    path: Path,
    meta: Mapping[str, Any],
    rows: Mapping[str, Sequence[int]],
    labels: NDArray[np.int32],
) -> None:
    """Write the index of one packed file.

    Parameters
    ----------
    meta : bytes, head_crc32c, tail_crc32c, records of that file.
    rows : the columns of `Index` by name.
    labels : i4[records, num_classes].
    """
    columns = {
        name: np.asarray(rows[name], kind.to_pandas_dtype()) for name, kind in COLUMNS.items()
    }
    index = Index({**meta, "format": FORMAT}, **columns, label_counts=labels)
    text = canonical({**index.meta, "check": index.check()})
    fields = [pa.field(name, kind, nullable=False) for name, kind in COLUMNS.items()]
    schema = pa.schema(
        [*fields, pa.field("label_counts", LABELS, nullable=False)], metadata={KEY: text}
    )
    offsets = np.arange(len(labels) + 1, dtype=np.int32) * labels.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(labels.reshape(-1)), type=LABELS)
    arrays = [pa.array(columns[name], kind) for name, kind in COLUMNS.items()]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_batch(pa.RecordBatch.from_arrays([*arrays, lists], schema=schema))


def read_index(path: Path) -> Index:
    """Read and check an index file. O(records).

    Raises
    ------
    BadInput
        It is of a newer format.
    Corrupt
        It is missing, cannot be parsed, or its checksum does not match.
    """
    fix = "run the recipe again: the artifact is quarantined and rebuilt"
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"{path}: expected the index of a packed file, found none"
        raise unread(path, error, lambda why: Corrupt(f"{message} ({why})", fix=fix)) from error
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0)
        table.validate(full=True)
        for name, kind in (*COLUMNS.items(), ("label_counts", LABELS)):
            if table.schema.field(name).type != kind:
                raise TypeError(f"{name} is {table.schema.field(name).type}, not {kind}")
        columns = {name: table.column(name).to_numpy(zero_copy_only=True) for name in COLUMNS}
        flat = table.column("label_counts").values.to_numpy(zero_copy_only=True)
        labels = flat.reshape(table.num_rows, -1)
    except DAMAGE as error:
        raise Corrupt(
            f"{path}: expected an Arrow file with the columns of an index, found other bytes",
            fix=fix,
        ) from error
    meta = metadata(table.schema, str(path))
    index = Index(meta, **columns, label_counts=labels)
    if index.check() != meta.get("check"):
        raise Corrupt(
            f"{path}: crc32c of the index expected {meta.get('check')}, found {index.check()}",
            fix=fix,
        )
    if meta.get("format") != FORMAT:
        raise BadInput(
            f"{path}: expected index format {FORMAT}, found {meta.get('format')}",
            fix="read it with the version of stockpot that wrote it, or run the recipe again with "
            "this one",
        )
    return index


def mismatch(index: Index, i: int, record: Record, *, gather: bool = False) -> str | None:
    """What of record `i` disagrees with its index row or with itself, None where nothing does.
    O(nodes).

    `gather`: its codes lie elsewhere.
    """
    n, e, o = int(index.num_nodes[i]), int(index.num_edges[i]), int(index.num_outputs[i])
    checks = {
        "nodes": (n, record.n_id.size),
        "degrees": (n, record.deg.size),
        "nodes over the hops": (n, int(record.num_sampled_nodes.sum())),
        "rows in the last block": (n, int(record.block_ptr[-1, -1])),
        "edges": (e, record.num_edges),
        "outputs": (o, record.y.size),
        "outputs in hop 0": (o, int(record.num_sampled_nodes[0])),
        "input_id": (o, record.input_id.size),
        "first input_id": (int(index.first_input_id[i]), int(record.input_id[0])),
        "code rows": (
            0 if gather else n,
            len(record.codes if record.code_indptr is None else record.code_indptr[1:]),
        ),
    }
    if not record.layered:
        checks |= {
            "row pointers": (n + 1, record.indptr.size),
            "edges by row pointer": (e, int(record.indptr[-1])),
        }
    checks |= layers_check(record)
    if record.code_indptr is not None:
        checks["code bytes"] = (int(record.code_indptr[-1]), record.codes.size)
    if record.codes_1 is not None and record.codes_1_rows is not None:
        rows = record.codes_1_rows
        checks["rows of further stages"] = (len(record.codes_1), rows.size)
        if rows.size and not (rows[0] >= 0 and rows[-1] < n and (np.diff(rows) > 0).all()):
            return (
                f"rows of further stages: expected ascending ones below {n}, found {rows[0]} to "
                f"{rows[-1]}"
            )
    if record.t_indptr is not None and record.t_indices is not None:
        checks["transposed edges"] = (e, record.t_indices.size)
    if record.weight is not None:
        checks["weights"] = (e, record.weight.size)
    for what, (expected, found) in checks.items():
        if expected != found:
            return f"{what}: expected {expected}, found {found}"
    if (wrong := hag_mismatch(record)) is not None:
        return wrong
    if not np.array_equal(
        label_counts(record.y, index.label_counts.shape[1]), index.label_counts[i]
    ):
        return "labels: their counts differ from the index"
    return None
