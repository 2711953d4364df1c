"""Features and their products of the nodes of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.codec.feature_columns import slab_starts
from stockpot.stages.propagate.products import multiply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.judge.sample_records import SampleRecord
    from stockpot.stages.propagate.products import Multiplied
    from stockpot.stages.stage import Reader

__all__ = ["SampleProducts"]


class SampleProducts:
    """Rows [x, Mx, .., M^K x] of all nodes that stand in some records; the products are exact, of
    the whole graph.

    Two arrays f4[N, columns] are held while they are computed, and f4[n, (K + 1) D] of the sample.

    Parameters
    ----------
    columns : that are multiplied at a time.
    """

    def __init__(
        self,
        graph: Reader,
        params: Multiplied,
        columns: int,
        records: Sequence[SampleRecord],
        threads: int,
    ) -> None:
        self.n_id = np.unique(np.concatenate([record.n_id for record in records]))
        features = Features.from_reader(graph)
        self.columns = features.num_features
        self._x = np.empty((len(self.n_id), (params.hops + 1) * self.columns), np.float32)
        self._x[:, : self.columns] = features.rows(self.n_id)
        for start in slab_starts(self.columns, columns):
            stop = min(start + columns, self.columns)
            multiply(params, graph, start, stop, threads, self._taking(start, stop))

    def _taking(self, start: int, stop: int) -> Callable[[int, NDArray[np.float32]], None]:
        def done(hop: int, product: NDArray[np.float32]) -> None:
            at = hop * self.columns
            self._x[:, at + start : at + stop] = product[self.n_id]

        return done

    def places(self, record: SampleRecord) -> NDArray[np.int64]:
        """Where the nodes of a record stand in the sample."""
        return np.searchsorted(self.n_id, record.n_id)

    def of(self, hops: int) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        """Places -> f4[n, (hops + 1) D], rows with so many products."""
        width = (hops + 1) * self.columns

        def rows(places: NDArray[np.int64]) -> NDArray[np.float32]:
            return np.ascontiguousarray(self._x[places, :width])

        return rows
