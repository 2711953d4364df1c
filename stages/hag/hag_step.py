"""The matrices of a training step by the HAGs of its records: joined, trimmed to each layer, with
their transposes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.hag.columns import hag_of, has_loops, scale_of
from stockpot.stages.hag.hag import Hag
from stockpot.stages.hag.product.levels import head, joined, transposed
from stockpot.stages.hag.product.matrix import HagMatrix
from stockpot.stages.hag.search.csr_rows import pattern
from stockpot.stages.pack.layers import scales
from stockpot.stages.step import Adj

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.pack.join import Joined
    from stockpot.stages.pack.layers import Weights
    from stockpot.stages.pack.record import Record

__all__ = ["StepHag", "hag_adjs", "hag_matrices", "step_hag"]


class StepHag:
    """The HAG of a joined step: `hag`; `loops`, whether the diagonal is in it; `scale`, factors of
    the edge weights.
    """

    def __init__(
        self,
        hag: Hag,
        *,
        loops: bool,
        scale: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    ) -> None:
        self.hag, self.loops, self.scale = hag, loops, scale


def step_hag(parts: Sequence[Record], step: Joined) -> StepHag | None:
    """The HAG of a joined step; None where no record has one, or edge weights of some are not known
    to factor.

    A record without one stands there by its CSR. O(reads + nodes).
    """
    having = [p for p in parts if p.hag_about is not None and p.hag_about.size]
    if not having:
        return None
    loops = has_loops(having[0])
    hags = []
    for part, rows, cols in zip(parts, step.whole, step.kept, strict=True):
        hag = hag_of(part)
        hags.append(_unshared(part, rows, cols, loops) if hag is None else head(hag, rows, cols))
    scale = None
    if parts[0].weight is not None:
        scale = _scales(parts, step)
        if scale is None:
            return None
    if step.rows is None:
        return StepHag(hags[0], loops=loops, scale=scale)
    cols = step.n_id.size
    return StepHag(joined(hags, step.rows, sum(step.whole), cols), loops=loops, scale=scale)


def _unshared(part: Record, rows: int, cols: int, loops: bool) -> Hag:
    """The CSR of a record's first rows as a HAG without aggregation nodes."""
    indptr, indices = pattern(part.indptr, part.indices, rows, loops=loops)
    nothing = np.zeros(1, np.int64)
    adds = int(np.maximum(np.diff(indptr) - 1, 0).sum())
    return Hag(
        rows,
        cols,
        nothing,
        nothing,
        np.zeros(0, np.int32),
        indptr,
        indices,
        None,
        None,
        0,
        len(indices),
        adds,
    )


def _scales(
    parts: Sequence[Record], step: Joined
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Factors of the edge weights of a step, where every record has them."""
    both = np.ones((2, step.n_id.size), np.float32)
    for r, (part, cols) in enumerate(zip(parts, step.kept, strict=True)):
        found = scale_of(part)
        if found is None:
            return None
        places = slice(0, cols) if step.rows is None else step.rows[r]
        both[0, places], both[1, places] = found[0][:cols], found[1][:cols]
    return both[0], both[1]


def hag_matrices(adjs: Sequence[Adj]) -> list[HagMatrix]:
    """The different HAGs among the matrices of a step and their transposes."""
    every = [m for adj in adjs for m in (adj.csr, adj.t_csr) if isinstance(m, HagMatrix)]
    return list({id(m): m for m in every}.values())


def hag_adjs(
    found: StepHag,
    how: Weights,
    layers: int,
    num_sampled_nodes: NDArray[np.integer[Any]] | Sequence[int],
    indptr: NDArray[Any],
    deg: NDArray[Any],
    weight: NDArray[np.float32] | None,
    *,
    transposes: str,
    moved: Callable[[torch.Tensor], torch.Tensor] | None,
) -> tuple[Adj, ...]:
    """One `Adj` a layer, the first applied first, as `stockpot.stages.pack.layers.trimmed` makes
    them of a CSR.

    Parameters
    ----------
    how, layers, num_sampled_nodes, indptr, deg, weight : as of `trimmed`, for the whole step.
    transposes : none | inner | all, see `stockpot.stages.loader.options.Form`.
    moved : brings tensors to another device; None: the CPU.
    """
    ends = np.cumsum(num_sampled_nodes)
    reach = [int(ends[min(h, ends.size - 1)]) for h in range(layers + 1)]
    left, right = scales(how, reach[layers - 1], indptr, deg[: reach[layers]], weight)
    diagonal = left * right[: left.size]
    if weight is not None and how.adj == "norm" and found.scale is not None:
        left, right = left * found.scale[0][: left.size], right * found.scale[1][: right.size]
    # The HAG's diagonal, if it has one, is scaled as its edges are: what is missing or too much is
    # set right.
    diagonal = how.loops * diagonal - found.loops * left * right[: left.size]

    def tensor(values: NDArray[np.float32]) -> torch.Tensor:
        whole = torch.from_numpy(np.ascontiguousarray(values))
        return whole if moved is None else moved(whole)

    a, b = tensor(left), tensor(right)
    d = tensor(diagonal) if diagonal.any() else None
    out: list[Adj] = []
    shapes: list[tuple[int, int]] = []
    hag = found.hag
    for layer in range(layers, 0, -1):
        rows, cols = reach[layer - 1], reach[layer]
        if shapes and shapes[-1] == (rows, cols) and (len(out) > 1 or transposes != "inner"):
            out.append(out[-1])
            shapes.append((rows, cols))
            continue
        hag = head(hag, rows, cols)
        own = None if d is None else d[:rows]
        matrix = HagMatrix(hag, a[:rows], b[:cols], own, moved)
        turned = None
        if transposes in ("all", "places") or (transposes == "inner" and out):
            turned = HagMatrix(transposed(hag), b[:cols], a[:rows], own, moved)
        out.append(Adj(matrix, turned))
        shapes.append((rows, cols))
    return tuple(out)
