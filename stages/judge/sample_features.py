"""Feature rows of the judge's sample, exact or as a code leaves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.coder import Coder, Sums, units
from stockpot.stages.codec.encode import FP16_MAX
from stockpot.stages.codec.fit import fit
from stockpot.stages.codec.format import decode
from stockpot.stages.codec.row_blocks import BLOCK_ROWS, CHUNK_BYTES
from stockpot.stages.pack.layers import Weights, trimmed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.judge.sample_records import SampleRecord

__all__ = ["Coding", "SampleRows"]

_TRIAL_ROWS = 8192
"""Rows a code is trained on to be judged; the one that is chosen is trained on a larger sample."""
_ERROR_ROWS = 32_768
"""Rows of records that errors are measured on."""


@dataclass(frozen=True)
class Coding:
    """A code of the sample.

    Attributes
    ----------
    name : of the codec. row_bytes, table_bytes : as stored.
    rows : places in the sample -> decoded rows f4[n, D].
    nmse : error energy over centred energy, of single rows; `nmse_aggregated`, after one mean over
        the neighbours that records hold.
    """

    name: str
    row_bytes: int
    table_bytes: int
    rows: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    nmse: float
    nmse_aggregated: float


class SampleRows:
    """Exact rows of all nodes that stand in some records.

    Parameters
    ----------
    features : of the graph.
    records : whose nodes are the sample; of `measured` the errors are taken.
    """

    def __init__(
        self, features: Features, records: Sequence[SampleRecord], measured: Sequence[SampleRecord]
    ) -> None:
        self.n_id = np.unique(np.concatenate([r.n_id for r in (*records, *measured)]))
        self.x = np.empty((len(self.n_id), features.num_features), np.float32)
        for start, stop in self._spans():
            self.x[start:stop] = features.rows(self.n_id[start:stop])
            features.check(self.x[start:stop], int(self.n_id[start]))
        self._measured = list(measured)
        self._shift = self.x.mean(0, dtype=np.float64).astype(np.float32)

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Whole blocks of the sample's rows, about `CHUNK_BYTES` each."""
        step = max(1, CHUNK_BYTES // (4 * BLOCK_ROWS * max(1, self.x.shape[1]))) * BLOCK_ROWS
        for start in range(0, len(self.n_id), step):
            yield start, min(start + step, len(self.n_id))

    def places(self, record: SampleRecord) -> NDArray[np.int64]:
        """Where the nodes of a record stand in the sample."""
        return np.searchsorted(self.n_id, record.n_id)

    def exact(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """f4[n, D]"""
        return self.x[places]

    def halves(self) -> Coding | None:
        """The sample as half floats; None where a value is beyond them."""
        if float(np.abs(self.x).max()) > FP16_MAX:
            return None

        def rows(places: NDArray[np.int64]) -> NDArray[np.float32]:
            return self.x[places].astype(np.float16).astype(np.float32)

        columns = self.x.shape[1]
        own, aggregated = self._errors(rows)
        return Coding("fp16", 2 * columns, 0, rows, own, aggregated)

    def coded(self, name: str, seed: int) -> Coding:
        """The sample in a lossy code that is trained on some of its rows."""
        some = np.random.default_rng((seed, 3)).permutation(len(self.x))[:_TRIAL_ROWS]
        reach = np.abs(self.x - self._shift).max(0)
        fitted = fit(name, self.x[np.sort(some)], self._shift, seed)
        coder = Coder(name, fitted | {"shift": self._shift, "scale": units(reach, len(self.x))})
        parts = [coder.encode(self.x[start:stop]) for start, stop in self._spans()]
        codes = np.concatenate([found for found, _ in parts])
        codec, _ = coder.codec(Sums.together(sums for _, sums in parts))

        def rows(places: NDArray[np.int64]) -> NDArray[np.float32]:
            return decode(codec, codes[places])

        own, aggregated = self._errors(rows)
        return Coding(name, coder.row_bytes, codec.table_bytes, rows, own, aggregated)

    def _errors(
        self, rows: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    ) -> tuple[float, float]:
        """Error energy over centred energy, of rows of records and of their means over
        neighbours.
        """
        import scipy.sparse as sp

        error, energy, done = np.zeros(2), np.zeros(2), 0
        for record in self._measured:
            places = self.places(record)
            exact = self.x[places] - self._shift
            lost = rows(places) - self.x[places]
            hops, csr = record.num_sampled_nodes, (record.indptr, record.indices)
            (mean,) = trimmed(Weights("mean"), 1, hops, *csr, record.deg)
            matrix: Any = sp.csr_matrix((mean.values, mean.indices, mean.indptr), mean.shape)
            means = matrix @ exact[: mean.shape[1]], matrix @ lost[: mean.shape[1]]
            for i, (x, e) in enumerate(((exact, lost), means)):
                error[i] += float(np.einsum("ij,ij->", e, e, dtype=np.float64))
                energy[i] += float(np.einsum("ij,ij->", x, x, dtype=np.float64))
            done += len(places)
            if done >= _ERROR_ROWS:
                break
        shares = [float(e / c) if c > 0 else 0.0 for e, c in zip(error, energy, strict=True)]
        return shares[0], shares[1]
