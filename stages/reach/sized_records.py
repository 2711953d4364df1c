"""Records of sampled outputs with sets of any size, as `influence` and `pack` make them, held in
memory one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.format import Codec
from stockpot.stages.pack.shard import Builder
from stockpot.stages.partition.blocks import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record
    from stockpot.stages.sizing.measure import Measure
    from stockpot.stages.stage import Inputs

__all__ = ["SizedRecords"]


class _Members:
    """What `influence` would have stored of some records: a reader of arrays that are here."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.facts: dict[str, Any] = {}
        self._arrays = arrays

    def array(self, name: str) -> NDArray[Any]:
        return self._arrays[name]


class SizedRecords:
    """Records of the sample of `measure`, with `top_k` nodes for every output; stands where
    `stockpot.stages.loader.records.Records` does for one process that assembles steps.

    Parameters
    ----------
    inputs : roles graph, partition, codes.
    outputs : most of a record. mix : clusters dealt to one.

    Attributes
    ----------
    rows : of all records.
    """

    edgeless = plain = False

    def __init__(
        self, measure: Measure, inputs: Inputs, top_k: int, outputs: int, mix: int
    ) -> None:
        members, ptr, n_id, n_ptr = measure.records(top_k, outputs, mix)
        arrays: dict[str, NDArray[Any]] = {
            "outputs": measure.sample[members], "out_ptr": ptr, "input_id": members,
            "n_id": n_id, "n_ptr": n_ptr,
        }  # fmt: skip
        stored: Any = _Members(arrays)
        self._builder = Builder({**inputs, "records": stored}, BLOCKS)
        self._count = len(ptr) - 1
        self.codec = Codec.from_reader(inputs["codes"])
        self.rows = int(np.asarray(n_ptr)[-1])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Record:
        """Record `i`, built now: O(sum of degrees of its nodes)."""
        return self._builder.build(i)
