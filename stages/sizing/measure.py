"""What records of a size would hold, from the very kernels that make them, on a sample of a split's
outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.influence.batch_params import mixed
from stockpot.stages.influence.grouping import at_random, by_influence, grouped
from stockpot.stages.influence.mix import balanced
from stockpot.stages.influence.pairs import overlaps, shared
from stockpot.stages.influence.spans import PAIRS, Entries, largest_entries
from stockpot.stages.influence.union import record_nodes
from stockpot.stages.sizing.held import HOPS, held_sums
from stockpot.stages.sizing.record_size import ALL, Found
from stockpot.stages.sizing.sample import SAMPLE, sampled_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stockpot.stages.influence.walk import Walk
    from stockpot.stages.influence.walk_inputs import Arrays

    Members = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]

__all__ = ["Measure"]

_ENTRIES = 4_000_000
"""Edges of the records that are looked into, at least one record in any case."""


@dataclass
class Measure:
    """Measures sizes of one split's records.

    Attributes
    ----------
    graph, walk, alpha : as of stage influence.
    outputs : i4[O] of the split.
    random : records of outputs drawn evenly, instead of by influence.
    threads, progress : of the pushes.
    most : outputs that are looked at.
    """

    graph: Arrays
    walk: Walk
    alpha: float
    outputs: NDArray[np.int32]
    random: bool
    threads: int
    progress: Callable[[int, int, str], None]
    most: int = SAMPLE

    def __post_init__(self) -> None:
        self.sample = sampled_outputs(
            self.graph, self.walk, self.alpha, self.outputs, self.threads, self.most
        )
        self._hop = np.full(len(self.graph[0]) - 1, -2, np.int32)
        self._entries: Entries | None = None

    @property
    def most_outputs(self) -> int:
        """Most outputs of a record that can be measured."""
        return len(self.sample)

    def of(self, top_k: int, outputs: int, mix: int) -> Found:
        """What records of at most `outputs` outputs hold, with the `top_k` largest entries of each.

        `mix` clusters are dealt to a record; 0: as many as "auto" has.
        """
        ids = self.sample
        mix = mix or mixed(balanced(len(ids), min(outputs, len(ids)))[1])
        members, ptr, n_id, n_ptr = self.records(top_k, outputs, mix)
        sums = np.zeros((3, HOPS))
        looked, rows = 0, np.diff(n_ptr)
        for (start, stop), (first, last) in zip(
            pairwise(n_ptr.tolist()), pairwise(ptr.tolist()), strict=True
        ):
            sums += held_sums(
                *self.graph[:2], n_id[start:stop], ids[members[first:last]], self._hop
            )
            looked += 1
            if sums[2].sum() > _ENTRIES:
                break
        share = np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1.0), 1.0)
        whole = len(self.outputs) / len(ids)
        return Found(
            top_k=top_k,
            outputs=outputs,
            mix=mix,
            held=tuple(round(float(one), 6) for one in share),
            records=balanced(len(self.outputs), outputs)[0],
            rows=round(float(len(n_id)) * whole),
            largest=int(rows.max()),
            edges=round(float(sums[2].sum()) / looked),
        )

    def records(self, top_k: int, outputs: int, mix: int) -> Members:
        """Records of the sample, as stage `influence` makes them of a whole split.

        Returns
        -------
        members, ptr : i8[S], i8[R + 1], places in the sample of each record's outputs.
        n_id, n_ptr : i4[rows], i8[R + 1], nodes of each record.
        """
        ids, nodes = self.sample, len(self._hop)
        records, cap = balanced(len(ids), min(outputs, len(ids)))
        top, value = self._top(top_k)
        if self.random:
            record = at_random(len(ids), records, 0)
        elif records == 1:
            record = np.zeros(len(ids), np.int32)
        else:
            entries = self._entries
            assert entries is not None
            held = entries.pair >= 0
            at = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int64)
            pairs = overlaps(at, entries.pair[held], entries.pair_value[held])
            record = by_influence(pairs, shared(top, value, nodes), len(ids), records, cap, mix, 0)
        members, ptr = grouped(record, records)
        return members, ptr, *record_nodes(ids, members, ptr, top, nodes)

    def whole(self, outputs: int) -> Found:
        """What records of all nodes hold."""
        records, nodes = balanced(len(self.outputs), outputs)[0], len(self._hop)
        return Found(
            ALL, outputs, 0, (1.0,) * HOPS, records, records * nodes, nodes, len(self.graph[1])
        )

    def _top(self, top_k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The `top_k` largest entries of the sample; pushed again only for more than before."""
        if self._entries is None or self._entries.top.shape[1] < top_k:
            pairs = 0 if self.random else PAIRS
            self._entries = largest_entries(
                self.graph,
                self.walk,
                self.alpha,
                self.sample,
                self.sample,
                top_k,
                pairs,
                self.threads,
                self.progress,
            )
        found = self._entries
        return np.ascontiguousarray(found.top[:, :top_k]), np.ascontiguousarray(
            found.top_value[:, :top_k]
        )
