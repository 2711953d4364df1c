"""Validation records are read once: what a pass needs is kept where it fits, the first layer's sums
included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.codec.coded_rows import dense, kept_tensors
from stockpot.stages.errors import BadInput
from stockpot.stages.hag.product.matrix import HagMatrix
from stockpot.stages.hag.sequence import Sequences
from stockpot.stages.influence.permutation import permutation, scramble
from stockpot.stages.kernels.sparse_product import spmm
from stockpot.stages.step import Adj, Sparse, Step
from stockpot.stages.train.model import GCN, GIN, SAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from stockpot.stages.train.model import Network

__all__ = ["LEAST", "PIECES", "Batches", "Parts", "divide", "first_layer_once", "step_bytes"]

LEAST = 20
"""Labelled outputs a part must have: a paired test on fewer decides nothing."""
PIECES = 4
"""Pieces of validation there are at least, so that each half of it can be halved again."""
_PIECE_SEED = 0x91EC  # of the draw of an output's piece


@dataclass(frozen=True)
class Parts:
    """Records by number. Soups are fitted on `fit` and compared on `select`; the same ones where
    `divided` is False.
    """

    fit: tuple[int, ...]
    select: tuple[int, ...]
    divided: bool


def divide(labelled: Sequence[int], seed: int = 0, records: Sequence[int] | None = None) -> Parts:
    """Split records into two parts of about as many labelled outputs, whole records, seeded.

    Whole records, since outputs of one record share neighbours, and a pass over a part then costs
    half of one over all. Parts of fewer than `LEAST` labelled outputs are not made: all records are
    both then.

    Parameters
    ----------
    labelled : labelled outputs of every record.
    records : those to be split; None: all.

    Raises
    ------
    BadInput
        No output has a label.
    """
    numbers = np.arange(len(labelled)) if records is None else np.asarray(records, np.int64)
    counts = np.asarray(labelled, np.int64)[numbers]
    if not counts.sum():
        raise BadInput(
            "valid split: expected labelled nodes to choose a soup on, found none",
            fix="label some of its nodes, or change the split",
        )
    drawn = permutation(len(counts), seed)
    sides: tuple[list[int], list[int]] = ([], [])
    sums = [0, 0]
    for r in drawn[np.argsort(-counts[drawn], kind="stable")]:
        side = int(sums[1] < sums[0])
        sides[side].append(int(numbers[r]))
        sums[side] += int(counts[r])
    if min(sums) < LEAST:
        every = tuple(numbers.tolist())
        return Parts(every, every, divided=False)
    return Parts(tuple(sorted(sides[0])), tuple(sorted(sides[1])), divided=True)


def _identity(
    rows: int, cols: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Sparse f4[rows, cols] that takes the last `rows` columns, and its transpose."""
    kind = torch.int64
    pointer = torch.arange(rows + 1, dtype=kind, device=device)
    ones = torch.ones(rows, dtype=dtype, device=device)
    at = torch.arange(cols - rows, cols, dtype=kind, device=device)
    turned = torch.cat([torch.zeros(cols - rows, dtype=kind, device=device), pointer])
    make = torch.sparse_csr_tensor
    return (
        make(pointer, at, ones, (rows, cols), check_invariants=False),
        make(turned, pointer[:-1], ones, (cols, rows), check_invariants=False),
    )


def first_layer_once(model: Network, step: Step) -> Step:
    """The step with `A x` in place of `x`, where the first layer is a sum over edges that no weight
    enters.

    The first matrix becomes an identity, so that the model computes the same from it (in GraphSAGE
    and GIN beside the rows' own features). A step of any other model is returned as it is.
    """
    if not isinstance(model, GCN | SAGE | GIN) or len(step.adjs) != len(model.convs):
        return step
    if model.stored is not None:  # the first edges are read by what weights made of the features
        return step
    first = step.adjs[0].csr
    rows = first.shape[0]
    features = dense(step.x)
    summed = spmm(first, None, features)
    x = summed if isinstance(model, GCN) else torch.cat([features[:rows], summed])
    made: dict[int, Tensor] = {}

    def own(csr: Sparse) -> Sparse:  # inner matrices are views of the first, which is let go
        if isinstance(csr, HagMatrix):
            return csr
        if id(csr) not in made:
            parts = csr.crow_indices().clone(), csr.col_indices().clone(), csr.values().clone()
            made[id(csr)] = torch.sparse_csr_tensor(*parts, csr.shape, check_invariants=False)
        return made[id(csr)]

    inner = [Adj(own(a.csr), None if a.t_csr is None else own(a.t_csr)) for a in step.adjs[1:]]
    return replace(step, x=x, adjs=(Adj(*_identity(rows, x.shape[0], x.dtype, x.device)), *inner))


def step_bytes(step: Step) -> int:
    """Bytes of a step's tensors; those that share storage count once."""
    tensors = [*kept_tensors(step.x), step.y, step.n_id, step.input_id]
    plans: dict[int, int] = {}
    for adj in step.adjs:
        for csr in (adj.csr, adj.t_csr):
            if isinstance(csr, HagMatrix):
                tensors += csr.tensors()
                plans[id(csr)] = csr.plan_bytes
            elif isinstance(csr, Sequences):
                tensors += csr.tensors()
            elif csr is not None:
                tensors += [csr.crow_indices(), csr.col_indices(), csr.values()]
        tensors += [] if adj.places is None else [adj.places]
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(kept.values()) + sum(plans.values())


class Batches:
    """Records of the validation split by number, prepared for `model`; kept up to `keep_bytes`,
    else made anew.

    Where there are fewer than `PIECES` records, each is read as several: the same record with the
    labels of a part of its outputs, drawn by their ids. A single large record is divided so, too.

    Parameters
    ----------
    steps : indexable, one step a record, with what a backward pass reads.
    """

    def __init__(self, model: Network, steps: Any, keep_bytes: int) -> None:
        self.model, self.steps, self.keep_bytes = model, steps, keep_bytes
        self.pieces = -(-PIECES // max(1, len(steps))) if len(steps) < PIECES else 1
        self.kept: dict[int, Step] = {}
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self.steps) * self.pieces

    def __getitem__(self, i: int) -> Step:
        record, piece = divmod(i, self.pieces)
        step = self._record(record)
        if self.pieces == 1:
            return step
        drawn = scramble(step.input_id.cpu().numpy(), _PIECE_SEED) % np.uint64(self.pieces)
        own = torch.from_numpy(drawn == piece).to(step.y.device)
        return replace(step, y=torch.where(own, step.y, -1))

    def _record(self, i: int) -> Step:
        if i in self.kept:
            return self.kept[i]
        step = first_layer_once(self.model, self.steps[i])
        size = step_bytes(step)
        if self.kept_bytes + size <= self.keep_bytes:
            self.kept[i] = step
            self.kept_bytes += size
        return step
