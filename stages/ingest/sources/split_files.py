"""A part of a split is read from numpy, parquet or text, one node or one flag a row, by number or
by name.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csvs import csv_batches
from stockpot.stages.ingest.dialect import is_float, is_integer, sniff
from stockpot.stages.ingest.gathered import Gathered, Part
from stockpot.stages.ingest.table_files import INTEGERS, Table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.ingest.node_names import NodeNames

__all__ = ["split_part"]

_HEADERS = {
    "id",
    "ids",
    "node",
    "nodes",
    "node_id",
    "idx",
    "index",
    "nid",
    "mask",
    "train",
    "valid",
    "val",
    "test",
}
"""First rows of a text that are no node."""
_FLAGS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def split_part(path: Path, kind: str, names: NodeNames | None) -> Part:
    """Ids, i8, or flags, bool, of one part; names of nodes are looked up.

    Raises
    ------
    BadInput
        A row is no node, or a name that no node has.
    """
    if path.suffix == ".npy" and names is None:
        return Part(path)
    values = _values(path, kind, names)
    if names is not None and kind != "mask" and values.dtype.kind != "b":
        values = _looked_up(path, values, names)
    elif values.dtype.kind == "U":
        at = next(at for at, text in enumerate(values) if not is_integer(str(text)))
        raise _bad(path, f"expected integer node ids, found {str(values[at])!r} at position {at}")
    return Part(path, values=values)


def _values(path: Path, kind: str, names: NodeNames | None) -> NDArray[Any]:
    if path.suffix == ".npy":
        with ExitStack() as stack:
            return Gathered(path.parent, {path.stem: Part(path)}, stack)[path.stem]
    if path.suffix == ".parquet":
        return _column(path)
    return _text(path, kind, names)


def _column(path: Path) -> NDArray[Any]:
    """The only column of a parquet file; pandas' index is none."""
    table = Table(path)
    if len(table.columns) != 1:
        raise table.bad(f"expected one column, found {', '.join(table.columns) or 'none'}")
    (name,) = table.columns
    kind = table.kind(name)
    if kind not in (INTEGERS, "strings", "bool"):
        raise table.bad(
            f"{name}: expected integers, strings or booleans, found {kind}",
            fix="frame.astype('int64')",
        )
    if kind == "bool":
        import pyarrow.parquet as pq

        return np.asarray(pq.read_table(path, columns=[name])[name].to_numpy())
    parts = [
        batch[name].to_numpy(zero_copy_only=False) for batch in table.batches({name: kind}, 1 << 20)
    ]
    found = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return found.astype(np.str_) if kind == "strings" else found


def _text(path: Path, kind: str, names: NodeNames | None) -> NDArray[Any]:
    """One value a row, perhaps under a header; integers where all are, else strings, or flags of a
    mask.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    start = sniff(path, lambda fields: len(fields) == 1)
    first = start.fields[0]
    headed = first.lower() in _HEADERS and (names is None or names.nodes(pa.array([first]))[0] < 0)
    batches = csv_batches(path, ["id"], {"id": pa.large_string()}, skip=start.skip + headed)
    parts = [
        pc.utf8_trim_whitespace(batch.column(0)).to_numpy(zero_copy_only=False) for batch in batches
    ]
    texts = np.concatenate(parts).astype(np.str_) if parts else np.empty(0, np.str_)
    if kind == "mask":
        odd = next((at for at, text in enumerate(texts) if text.lower() not in _FLAGS), None)
        if odd is not None:
            raise _bad(path, f"expected flags, 0 or 1, found {str(texts[odd])!r} at position {odd}")
        return np.array([_FLAGS[text.lower()] for text in texts], bool)
    floats = next((at for at, text in enumerate(texts) if is_float(text)), None)
    if floats is not None:
        raise BadInput(
            f"{path}: expected node ids, found the float {str(texts[floats])!r} at position "
            f"{floats}",
            fix=f"write whole numbers: numpy.savetxt({path.name!r}, ids, fmt='%d')",
        )
    if len(texts) and all(is_integer(text) for text in texts):
        return texts.astype(np.int64)
    return texts


def _looked_up(path: Path, values: NDArray[Any], names: NodeNames) -> NDArray[np.int64]:
    import pyarrow as pa

    if values.dtype.kind != "U" or values.ndim != 1:
        raise _bad(path, f"nodes have names: expected a list of strings, found {values.dtype}")
    nodes = names.nodes(pa.array(values, pa.large_string()))
    if (nodes < 0).any():
        at = int(np.flatnonzero(nodes < 0)[0])
        raise _bad(path, f"expected names of nodes, found {str(values[at])!r} at position {at}")
    return nodes


def _bad(path: Path, text: str) -> BadInput:
    return BadInput(f"{path}: {text}", fix=f"correct {path.name} and run the same command again")
