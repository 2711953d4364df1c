"""The Arrow form of records: one record batch of one row of list columns each, described by
canonical JSON metadata.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stockpot.stages.codec.codec_names import FAMILIES
from stockpot.stages.codec.format import EXACT
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.hag.columns import COLUMNS as HAG_COLUMNS
from stockpot.stages.pack.layered import column, is_layered, layers_of, types_of
from stockpot.stages.pack.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "EDGELESS",
    "FORMAT",
    "INT32_MAX",
    "KEY",
    "MAGIC_BYTES",
    "TABLES",
    "canonical",
    "edgeless",
    "layout",
    "metadata",
    "parse",
    "schema_of",
    "supported",
    "to_batch",
]

FORMAT = 1
KEY = b"stockpot"
TABLES = b"stockpot.tables"
"""Metadata of files of lossy codes: the codec's tables, one after the other."""
MAGIC_BYTES = 8
"""`ARROW1` and its padding stand before the schema message of an Arrow IPC file."""
EDGELESS = "edgeless"
REQUIRES = frozenset(
    {
        *(f"codec:{name}" for name in (*EXACT, *FAMILIES)),
        "rounds",
        "gather",
        "tiers",
        "sampled",
        EDGELESS,
    }
)
"""What a file may ask of its reader, as far as this version knows; "rounds": to read one round's
records an epoch; "gather": to read the codes of its nodes from the artifact of codes; "tiers": to
add further stages to some rows; "sampled": that edges are a sample, in form "nodes" one for all
layers, in form "layers" one for each; "edgeless": that nodes are outputs alone, whose edges are not
there, nor their columns."""
FORMS = ("nodes", "layers")

OPTIONAL = (
    "code_indptr",
    "codes_1",
    "codes_1_rows",
    "t_indptr",
    "t_indices",
    "out_deg",
    "weight",
    "deg_w",
    *HAG_COLUMNS,
)
COLUMNS = (
    "n_id",
    "num_sampled_nodes",
    "block_ptr",
    "indptr",
    "indices",
    "deg",
    "y",
    "input_id",
    "codes",
    *OPTIONAL,
)
INT32_MAX = 2**31 - 1


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def edgeless(meta: Mapping[str, Any]) -> bool:
    """Whether the records of a file are their outputs alone, without edges."""
    return EDGELESS in meta.get("requires", ())


def _types(meta: Mapping[str, Any]) -> dict[str, pa.DataType]:
    row_bytes = meta["codec"]["row_bytes"]
    types = {
        name: pa.int32()
        for name in ("num_sampled_nodes", "block_ptr", "indptr", "indices", "deg", "y")
    }
    types["n_id"] = pa.int64() if meta["num_nodes"] > INT32_MAX else pa.int32()
    types["input_id"] = pa.int64()
    if not meta.get("gather"):
        types["codes"] = pa.binary(1 if row_bytes is None else row_bytes)
        if row_bytes is None:
            types["code_indptr"] = pa.int32()
        if (further := meta["codec"].get("further")) is not None:
            types |= {"codes_1": pa.binary(further["row_bytes"]), "codes_1_rows": pa.int32()}
    no_edges = edgeless(meta)
    if meta["form"] == "layers" or no_edges:
        del types["indptr"], types["indices"]
    if meta["directed"] and ("sampling" in meta or no_edges):
        types["out_deg"] = pa.int32()
    elif meta["directed"]:
        types |= dict.fromkeys(("t_indptr", "t_indices", "out_deg"), pa.int32())
    if meta["weighted"]:
        types |= dict.fromkeys(
            ("deg_w",) if "sampling" in meta or no_edges else ("weight", "deg_w"), pa.float32()
        )
    if "hag" in meta:
        types |= {name: pa.from_numpy_dtype(kind) for name, kind in HAG_COLUMNS.items()}
    return {name: types[name] for name in COLUMNS if name in types} | types_of(meta)


def schema_of(meta: Mapping[str, Any], tables: bytes = b"") -> pa.Schema:
    """Arrow schema of a packed file with metadata `meta` and tables of its codec; no field of it
    may hold nulls.
    """
    fields = [
        pa.field(name, pa.list_(pa.field("item", kind, nullable=False)), nullable=False)
        for name, kind in _types(meta).items()
    ]
    return pa.schema(fields, metadata={KEY: canonical(meta)} | ({TABLES: tables} if tables else {}))


def to_batch(schema: pa.Schema, record: Record) -> pa.RecordBatch:
    """One row of list columns; zero-copy.

    Raises
    ------
    BadInput
        A column is longer than Arrow's 32-bit list offsets reach.
    """
    columns = []
    for field in schema:
        values = np.ascontiguousarray(column(record, field.name))
        kind = field.type.value_type
        if pa.types.is_fixed_size_binary(kind):
            count = values.size // kind.byte_width
            array = pa.FixedSizeBinaryArray.from_buffers(kind, count, [None, pa.py_buffer(values)])
        else:
            count, array = values.size, pa.array(values.reshape(-1), kind)
        if count > INT32_MAX:
            raise BadInput(
                f"record with first input_id {record.input_id[0]}: column {field.name} has {count} "
                f"entries, "
                f"expected at most {INT32_MAX}",
                fix="lower batches.outputs",
            )
        offsets = pa.array(np.array([0, count], np.int32))
        columns.append(pa.ListArray.from_arrays(offsets, array, type=field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def metadata(schema: pa.Schema, where: str) -> dict[str, Any]:
    """The `stockpot` metadata of a file.

    Raises
    ------
    Corrupt
        There is none, or it is not JSON.
    """
    try:
        value = json.loads(schema.metadata[KEY])
        return dict(value)
    except (TypeError, KeyError, ValueError) as error:
        raise Corrupt(
            f"{where}: expected stockpot metadata in the schema, found none that can be read"
        ) from error


def supported(meta: Mapping[str, Any], where: str) -> None:
    """Refuse a file this version cannot read.

    Raises
    ------
    BadInput
        A newer format, an entry of `requires` it does not know, or another form of record.
    """
    newer = (
        "read it with the version of stockpot that wrote it, or run the recipe again with this one"
    )
    if meta.get("format") != FORMAT:
        raise BadInput(
            f"{where}: expected record format {FORMAT}, found {meta.get('format')}", fix=newer
        )
    unknown = sorted(set(meta.get("requires", ())) - REQUIRES)
    if unknown:
        raise BadInput(
            f"{where}: it requires {', '.join(unknown)}, which this version does not know",
            fix=newer,
        )
    if meta.get("form") not in FORMS or meta.get("task") != "multiclass":
        found = f"{meta.get('form')}, {meta.get('task')}"
        forms = " or ".join(FORMS)
        raise BadInput(
            f"{where}: expected records of form {forms}, task multiclass, found {found}", fix=newer
        )


def layout(schema: pa.Schema) -> list[tuple[str, int, Any, int | None]]:
    """How `parse` reads a file: (name, position, dtype, bytes of an entry or None) of each column
    known here.
    """
    found: list[tuple[str, int, Any, int | None]] = []
    for name in (*COLUMNS, *filter(is_layered, schema.names)):
        if name in schema.names:
            kind = schema.field(name).type.value_type
            if pa.types.is_fixed_size_binary(kind):
                found.append((name, schema.names.index(name), np.uint8, kind.byte_width))
            else:
                found.append((name, schema.names.index(name), kind.to_pandas_dtype(), None))
    return found


def parse(
    batch: pa.RecordBatch,
    columns: list[tuple[str, int, Any, int | None]],
    sampled: int = 0,
    *,
    edges: bool = True,
) -> Record:
    """Zero-copy views on one record batch of checked bytes; columns this version does not know are
    ignored.

    Parameters
    ----------
    columns : from `layout` of the file's schema.
    sampled : layers of a sampled record, 0 of any other.
    edges : False where the file says that its records have none, nor columns for them.

    Raises
    ------
    ValueError, TypeError, KeyError
        The batch is not a record: a column is missing or has another shape.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, position, dtype, width in columns:
        values = batch.column(position).values
        count = len(values) * (width or 1)
        buffer = values.buffers()[1] if count else None
        flat = np.zeros(0, dtype) if buffer is None else np.frombuffer(buffer, dtype, count)
        found[name] = flat.reshape(-1, width) if width is not None else flat
    if "codes" not in found:
        found["codes"] = np.zeros((0, 0), np.uint8)
    if "code_indptr" in found:
        found["codes"] = found["codes"].reshape(-1)
    found["block_ptr"] = found["block_ptr"].reshape(found["num_sampled_nodes"].size, -1)
    if not edges:
        found["indptr"] = np.zeros(found["n_id"].size + 1, np.int32)
        found["indices"] = np.zeros(0, np.int32)
    return Record(**(layers_of(found, sampled) if sampled else found))
