"""The rate-distortion table of a graph's features: what codecs cost in bytes, in aggregated error and in accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.codebook.rate_choice import Candidate
from stages.codebook.rate_error import nmse_by_depth, propagated, sensitivity
from stages.codebook.rate_proxy import correct, drop_of
from stages.codebook.rate_sample import draw
from stages.codebook.rate_sizes import FANOUT, LAYERS, WHOLE, WIDTH, most_outputs, most_rows
from stages.quantize.codec import EXACT, decode
from stages.quantize.coder import Coder, Sums
from stages.quantize.names import parse
from stages.quantize.sizes import BLOCK_ROWS, CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from stages.quantize.features import Features
    from stages.stage import Reader

    Decoder = Callable[[NDArray[np.float32]], NDArray[np.float32]]

__all__ = ["Measure"]


@dataclass(frozen=True)
class _Side:
    """Propagated features of the outputs, f4[LAYERS + 1, outputs, width], and the proxy's hits on validation."""

    features: NDArray[np.float32]
    hits: NDArray[np.bool_] | None


class Measure:
    """Measures codecs on one sample of a graph, always against the exact features.

    Parameters
    ----------
    graph : as ingested.
    features : of that graph.
    train, valid : ids of outputs, disjoint, neither empty.
    judged : whether they are a split: without, errors are measured and no accuracy.

    Notes
    -----
    At most `rate_sizes.rate_bytes` of memory. Features wider than `WIDTH` are projected by random signs first, which
    keeps inner products in expectation and commutes with aggregation.
    """

    def __init__(
        self,
        graph: Reader,
        features: Features,
        train: NDArray[np.integer[Any]],
        valid: NDArray[np.integer[Any]],
        *,
        judged: bool,
        seed: int = 0,
    ) -> None:
        self._features, self._judged = features, judged
        columns = features.num_features
        self.sample = draw(
            np.asarray(graph.array("indptr")),
            np.asarray(graph.array("indices")),
            train,
            valid,
            layers=LAYERS,
            most_outputs=most_outputs(columns),
            most_rows=most_rows(columns),
            fanout=FANOUT if graph.facts["nnz"] > WHOLE else int(graph.facts["nnz"]) + 1,
            seed=seed,
        )
        outputs = self.sample.n_id[self.sample.outputs]
        self._y = np.asarray(graph.array("y"))[outputs].astype(np.int64) if judged else None
        self._classes = int(graph.facts["num_classes"]) if judged else 0
        self._project: NDArray[np.float32] | None = None
        if columns > WIDTH:
            signs = np.random.default_rng((seed, 1)).integers(0, 2, (columns, WIDTH))
            self._project = (2 * signs - 1).astype(np.float32) / np.float32(np.sqrt(WIDTH))
        self._exact = self._side(lambda block: block)

    @property
    def judged_on(self) -> int:
        """Validation nodes whose labels count."""
        return 0 if self._exact.hits is None else len(self._exact.hits)

    def sensitivity(self) -> list[float]:
        """Chat_1, ..., Chat_LAYERS of the graph and its features."""
        return sensitivity(self.sample, self._rows(lambda block: block), LAYERS)

    def candidate(self, name: str, fitted: Mapping[str, NDArray[Any]]) -> Candidate:
        """Figures of codec `name`, with tables recalibrated on the sample.

        Parameters
        ----------
        fitted : what its coder encodes with; empty for fp32 and fp16.
        """
        columns = self._features.num_features
        if name == "fp32":
            return self._row(name, 4 * columns, 0, 0.0, None)
        if name == "fp16":
            return self._row(name, 2 * columns, 0, None, lambda block: block.astype(np.float16).astype(np.float32))
        coder = Coder(name, fitted)
        parts = [coder.encode(block) for block in self._blocks()]
        codes = np.concatenate([mine for mine, _ in parts])
        codec, nmse = coder.codec(Sums.together([sums for _, sums in parts]))
        done = 0

        def decoded(block: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal done
            done += len(block)
            return decode(codec, codes[done - len(block) : done])

        return self._row(name, coder.row_bytes, codec.table_bytes, nmse, decoded)

    def _row(
        self, name: str, row_bytes: int, table_bytes: int, nmse: float | None, decoder: Decoder | None
    ) -> Candidate:
        total = row_bytes * self._features.num_rows + table_bytes
        family = name if name in EXACT else parse(name).family
        if decoder is None:
            return Candidate(name, family, row_bytes, table_bytes, total, 1.0, 0.0, (0.0,) * LAYERS, 0.0, 0.0, 0.0)
        side = self._side(decoder)
        own, *by_depth = nmse_by_depth(self._exact.features, side.features)
        drop = None if self._exact.hits is None or side.hits is None else drop_of(self._exact.hits, side.hits)
        return Candidate(
            codec=name,
            family=family,
            row_bytes=row_bytes,
            table_bytes=table_bytes,
            total_bytes=total,
            compression_ratio=4.0 * self._features.num_rows * self._features.num_features / total,
            nmse=own if nmse is None else nmse,
            nmse_by_depth=tuple(by_depth),
            drop=drop.mean if drop else None,
            drop_error=drop.error if drop else None,
            drop_bound=drop.bound if drop else None,
        )

    def _side(self, decoder: Decoder) -> _Side:
        found = propagated(self.sample, self._rows(decoder), LAYERS)
        if self._y is None:
            return _Side(found, None)
        return _Side(found, correct(found, self._y, len(self.sample.train), self._classes))

    def _rows(self, decoder: Decoder) -> NDArray[np.float32]:
        """Decoded rows of the sample's nodes, projected where they are wide: f4[n, width]."""
        width = min(self._features.num_features, WIDTH)
        out, done = np.empty((len(self.sample.n_id), width), np.float32), 0
        for block in self._blocks():
            values = decoder(block)
            out[done : done + len(block)] = values if self._project is None else values @ self._project
            done += len(block)
        return out

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """Exact rows of the sample's nodes in order, f4[rows, D], whole blocks of `BLOCK_ROWS` but the last."""
        n_id = self.sample.n_id
        step = max(1, CHUNK_BYTES // (4 * BLOCK_ROWS * max(1, self._features.num_features))) * BLOCK_ROWS
        for start in range(0, len(n_id), step):
            yield self._features.rows(n_id[start : start + step])
