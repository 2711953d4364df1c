"""What a code costs in bytes and in error, of single rows and after mean aggregations, on a sample
of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.coder import Coder, Sums
from stockpot.stages.codec.format import decode
from stockpot.stages.codec.rate_error import nmse_by_depth, propagated, sensitivity
from stockpot.stages.codec.rate_sample import draw
from stockpot.stages.codec.rate_sizes import FANOUT, LAYERS, WHOLE, WIDTH, most_outputs, most_rows
from stockpot.stages.codec.row_blocks import BLOCK_ROWS, CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.stage import Reader

    Decoder = Callable[[NDArray[np.float32]], NDArray[np.float32]]

__all__ = ["Figures", "Measure", "measured"]


@dataclass(frozen=True)
class Figures:
    """Of one code.

    Attributes
    ----------
    codec : its name.
    row_bytes, table_bytes : as stored. total_bytes : of all rows of the graph, with the tables.
    compression_ratio : fp32 over `total_bytes`.
    nmse : error energy over centred energy, of single rows.
    nmse_by_depth : the same of the outputs after 1, 2, ... mean aggregations.
    """

    codec: str
    row_bytes: int
    table_bytes: int
    total_bytes: int
    compression_ratio: float
    nmse: float
    nmse_by_depth: tuple[float, ...]

    @property
    def nmse_aggregated(self) -> float:
        """Mean over the depths."""
        return sum(self.nmse_by_depth) / max(1, len(self.nmse_by_depth))


class Measure:
    """Measures codes on one sample of a graph, always against the exact features.

    Parameters
    ----------
    graph : as ingested.
    features : of that graph.
    outputs, others : ids of nodes to measure errors at, disjoint, neither empty.

    Notes
    -----
    At most `rate_sizes.rate_bytes` of memory. Features wider than `WIDTH` are projected by random
    signs first, which keeps inner products in expectation and commutes with aggregation.
    """

    def __init__(
        self,
        graph: Reader,
        features: Features,
        outputs: NDArray[np.integer[Any]],
        others: NDArray[np.integer[Any]],
        seed: int = 0,
    ) -> None:
        self._features = features
        columns = features.num_features
        self.sample = draw(
            np.asarray(graph.array("indptr")),
            np.asarray(graph.array("indices")),
            outputs,
            others,
            layers=LAYERS,
            most_outputs=most_outputs(columns),
            most_rows=most_rows(columns),
            fanout=FANOUT if graph.facts["nnz"] > WHOLE else int(graph.facts["nnz"]) + 1,
            seed=seed,
        )
        self._project: NDArray[np.float32] | None = None
        if columns > WIDTH:
            signs = np.random.default_rng((seed, 1)).integers(0, 2, (columns, WIDTH))
            self._project = (2 * signs - 1).astype(np.float32) / np.float32(np.sqrt(WIDTH))
        self._exact = propagated(self.sample, self._rows(lambda block: block), LAYERS)

    def sensitivity(self) -> list[float]:
        """Chat_1, ..., Chat_LAYERS of the graph and its features."""
        return sensitivity(self.sample, self._rows(lambda block: block), LAYERS)

    def figures(self, name: str, fitted: Mapping[str, NDArray[Any]]) -> Figures:
        """Figures of the lossy codec `name`, with tables recalibrated on the sample.

        Parameters
        ----------
        fitted : what its coder encodes with.
        """
        rows, columns = self._features.num_rows, self._features.num_features
        coder = Coder(name, fitted)
        parts = [coder.encode(block) for block in self._blocks()]
        codes = np.concatenate([mine for mine, _ in parts])
        codec, nmse = coder.codec(Sums.together([sums for _, sums in parts]))
        done = 0

        def decoded(block: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal done
            done += len(block)
            return decode(codec, codes[done - len(block) : done])

        _, *by_depth = nmse_by_depth(
            self._exact, propagated(self.sample, self._rows(decoded), LAYERS)
        )
        total = coder.row_bytes * rows + codec.table_bytes
        return Figures(
            codec=name,
            row_bytes=coder.row_bytes,
            table_bytes=codec.table_bytes,
            total_bytes=total,
            compression_ratio=4.0 * rows * columns / total,
            nmse=nmse,
            nmse_by_depth=tuple(by_depth),
        )

    def _rows(self, decoder: Decoder) -> NDArray[np.float32]:
        """Decoded rows of the sample's nodes, projected where they are wide: f4[n, width]."""
        width = min(self._features.num_features, WIDTH)
        out, done = np.empty((len(self.sample.n_id), width), np.float32), 0
        for block in self._blocks():
            values = decoder(block)
            out[done : done + len(block)] = (
                values if self._project is None else values @ self._project
            )
            done += len(block)
        return out

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """Exact rows of the sample's nodes in order, f4[rows, D], whole blocks of `BLOCK_ROWS` but
        the last.
        """
        n_id = self.sample.n_id
        step = (
            max(1, CHUNK_BYTES // (4 * BLOCK_ROWS * max(1, self._features.num_features)))
            * BLOCK_ROWS
        )
        for start in range(0, len(n_id), step):
            yield self._features.rows(n_id[start : start + step])


def measured(
    name: str,
    fitted: Mapping[str, NDArray[Any]],
    graph: Reader,
    features: Features,
    seed: int,
) -> dict[str, Any]:
    """Facts of a code: its errors after aggregation, how much the graph averages out, and on how
    much of it.
    """
    measure = Measure(graph, features, *_any_nodes(features, seed), seed=seed)
    found = measure.figures(name, fitted)
    return {
        "nmse_aggregated": found.nmse_aggregated,
        "nmse_by_depth": list(found.nmse_by_depth),
        "sensitivity": measure.sensitivity(),
        "measured_rows": len(measure.sample.n_id),
        "measured_outputs": len(measure.sample.outputs),
    }


def _any_nodes(features: Features, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nodes to measure errors at, in two parts as a split is: no label is asked for."""
    most = most_outputs(features.num_features)
    if features.num_rows <= most:
        ids = np.arange(features.num_rows)
    else:
        ids = np.unique(np.random.default_rng((seed, 2)).integers(0, features.num_rows, most))
    return ids[::2], ids[1::2]
