"""Feature rows that can only be read front to back serve any order of reading: going back starts
anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.ingest.features import check_dense_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from stockpot.stages.ingest.bad import Bad

__all__ = ["StreamedRows"]


class StreamedRows:
    """See `stockpot.stages.ingest.source_data.Features`; memory is that of one batch and of the
    rows asked for.

    Parameters
    ----------
    batches : starts to read from the first row: f4[n, columns] each.
    """

    sparse = False

    def __init__(
        self,
        batches: Callable[[], Iterator[NDArray[np.float32]]],
        columns: int,
        num_nodes: int,
        bad: Bad,
    ) -> None:
        self.columns = columns
        self._start, self._nodes, self._bad = batches, num_nodes, bad
        self._start_anew()

    def _start_anew(self) -> None:
        self._batches = self._start()
        self._at, self._left = 0, np.empty((0, self.columns), np.float32)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        found = self._read(start, stop)
        if len(found) != stop - start:
            raise self._bad("x", f"expected {self._nodes} rows, one a node, found {self._at}")
        if stop == self._nodes and len(self._read(stop, stop + 1)):
            raise self._bad("x", f"expected {self._nodes} rows, one a node, found more")
        return check_dense_rows(self._bad, "x", found, start)

    def _read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start:stop`, fewer where the file ends."""
        if start < self._at:
            self._start_anew()
        out = np.empty((max(0, stop - start), self.columns), np.float32)
        filled = 0
        while self._at < stop:
            if not len(self._left):
                batch = next(self._batches, None)
                if batch is None:
                    break
                self._left = batch
                continue
            taken, self._left = self._left[: stop - self._at], self._left[stop - self._at :]
            used = taken[max(0, start - self._at) :]
            out[filled : filled + len(used)] = used
            filled, self._at = filled + len(used), self._at + len(taken)
        return out[:filled]
