"""What a lossy codec encodes with, trained on a sample; arrays by name, as `stages.codec.coder`
reads them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.codec_names import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.codec.codec_names import Kind

__all__ = ["fit"]

_PQ_ROWS = 65_536  # of the k-means of a part
_PQ_ITERATIONS = 20
_ERROR_ROWS = 8192


def fit(
    name: str, sample: NDArray[np.float32], shift: NDArray[np.float32] | None = None, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Arrays that `Coder` encodes with, but for `shift` and `scale`.

    Parameters
    ----------
    name : a lossy codec.
    sample : f4[n, D], finite, n >= 1: all rows, or rows that represent them.
    shift : f4[D], the means of all rows; those of the sample where None.

    Returns
    -------
    sqK : `levels` f4[D, 2^K], ascending. pqM : `levels` f4[D, K], K = 256 entries or fewer, column
        by column.
    opqM : `rotation` f4[D, D], `levels` as of pqM of rotated rows less `shift`.
    rqM : `tables` f4[M, K, D] of rows less `shift`. bifeat-sqK, bifeat-vqW-K : see
        `stockpot.stages.codec.bifeat`.
    """
    kind = parse(name)
    rng = np.random.default_rng((seed, 1))
    if kind.family == "sq":
        from stockpot.stages.codec.lloyd import lloyd_max

        return {"levels": lloyd_max(sample, kind.entries)}
    if kind.family == "bifeat-sq":
        from stockpot.stages.codec.bifeat import log_levels

        return log_levels(sample, kind.bits)
    mixed = rng.permutation(len(sample))
    if kind.family == "bifeat-vq":
        from stockpot.stages.codec.bifeat import vector_parts

        return vector_parts(sample[mixed], kind, rng)
    centre = sample.mean(0, dtype=np.float64).astype(np.float32) if shift is None else shift
    centred = sample[mixed] - centre
    entries = min(kind.entries, len(sample))
    if kind.family == "opq":
        from stockpot.stages.codec.rotation import rotated_parts

        rotation, levels = rotated_parts(centred, kind.edges(sample.shape[1]), entries, rng)
        return {"rotation": rotation, "levels": levels}
    if kind.family == "rq":
        from stockpot.stages.codec.residual import residual_tables

        return {"tables": _halved(centred, residual_tables(centred, kind.units, entries, rng))}
    return {"levels": _product(centred, kind, entries, rng) + centre[:, None]}


def _product(
    x: NDArray[np.float32], kind: Kind, entries: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """f4[D, entries] of a product code; entries that are not needed repeat the last one."""
    from stockpot.stages.codec.kmeans import k_means

    levels = np.empty((x.shape[1], entries), np.float32)
    edges = kind.edges(x.shape[1])
    for lo, hi in itertools.pairwise(edges):
        found = k_means(np.ascontiguousarray(x[:_PQ_ROWS, lo:hi]), entries, _PQ_ITERATIONS, rng)
        levels[lo:hi] = found[np.minimum(np.arange(entries), len(found) - 1)].T
    return levels


def _halved(x: NDArray[np.float32], tables: NDArray[np.float32]) -> NDArray[Any]:
    """Tables of a residual code as half floats, where rounding them adds less than a hundredth to
    the error.
    """
    from stockpot.stages.codec.residual import chosen

    some = x[:_ERROR_ROWS]
    codes = chosen(some, tables, 1)
    error = (
        ((some - sum(table[codes[:, m]] for m, table in enumerate(tables))) ** 2)
        .sum(1, dtype=np.float64)
        .mean()
    )
    with np.errstate(over="ignore"):
        half = tables.astype(np.float16)
    loss = ((half - tables.astype(np.float64)) ** 2).sum((0, 2)).mean()
    return half if loss <= 0.01 * error else tables
