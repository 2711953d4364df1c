"""Nodes with names of their own are numbered by the sorted order of the names, whatever order files
hold them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["NodeNames", "collect", "together"]

_PENDING = 1 << 22  # names held twice before they are made unique again
_BATCH = 1 << 20


def collect(columns: Iterable[Any]) -> NodeNames:
    """All names of string columns. Memory is that of the distinct names, and of a few million
    more.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.array([], pa.large_string())
    pending: list[Any] = []
    for column in columns:
        pending.append(pc.unique(column))
        if sum(map(len, pending)) > max(_PENDING, len(found)):
            found, pending = pc.unique(pa.concat_arrays([found, *pending])), []
    found = pc.unique(pa.concat_arrays([found, *pending]))
    return NodeNames(found.take(pc.sort_indices(found)))


def together(batches: Iterable[dict[str, Any]], rows: int) -> Iterator[dict[str, Any]]:
    """The same columns in batches of `rows` and more: names are looked up at the cost of all names
    a batch.
    """
    import pyarrow as pa

    held: list[dict[str, Any]] = []
    count = 0

    def joined() -> dict[str, Any]:
        return {name: pa.concat_arrays([batch[name] for batch in held]) for name in held[0]}

    for batch in batches:
        held.append(batch)
        count += len(next(iter(batch.values())))
        if count >= rows:
            yield joined()
            held, count = [], 0
    if held:
        yield joined()


class NodeNames:
    """Distinct names sorted by their UTF-8 bytes; a name's position is its node.

    Parameters
    ----------
    names : large_string, sorted and unique.
    """

    def __init__(self, names: Any) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def nodes(self, column: Any) -> NDArray[np.int64]:
        """Node of every name, -1 where there is no such node. O(column + names): look up many at
        once.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(column.cast(pa.large_string()), value_set=self.names)
        return np.asarray(found.fill_null(-1)).astype(np.int64)

    def write(self, path: Path) -> None:
        """Arrow IPC file of one column `id`; row i is the name of node i."""
        import pyarrow as pa

        schema = pa.schema([("id", pa.large_string())])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for start in range(0, len(self.names), _BATCH):
                # A slice would be written with the offsets of the whole column.
                part = pa.concat_arrays([self.names.slice(start, _BATCH)])
                writer.write_batch(pa.record_batch([part], schema=schema))
