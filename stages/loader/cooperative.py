"""Training steps that all ranks take together: each reads and prepares the rows it owns of every record of the step.

`CooperativeSteps` is `steps.Steps` with another `assemble`: the same order, state and prefetching. All ranks
hand out the same steps; none of them talks to another before the model does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.codec.format import add_further, decode
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.exchange.artifact import LinkReader
from stockpot.stages.exchange.rank_partition import cut, own_codes, owned
from stockpot.stages.exchange.share import share
from stockpot.stages.exchange.step import CoopLayer, CoopStep
from stockpot.stages.loader.steps import Steps
from stockpot.stages.pack.sampled import deep_enough

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.exchange.share import Layer, Share
    from stockpot.stages.pack.record import Record
    from stockpot.stages.stage import Reader

__all__ = ["CooperativeSteps"]


class CooperativeSteps(Steps):
    """Steps of one packed split, a rank's own rows of each.

    Parameters
    ----------
    links : of the split, for a number of ranks; see `stockpot.stages.exchange.artifact`.
    member : this rank. `rank` and `world_size` of `Steps` stay 0 and 1: all ranks take all steps.
    crossing : most bytes of a stored feature row that cross at the first layer as they are; of longer ones the decoded
        or projected row does.

    Attributes
    ----------
    bytes_read : of node, edge and, where they are packed, feature columns of the steps prepared so far.
    feature_bytes : of feature columns or, where they are gathered, rows.
    """

    def __init__(self, *args: Any, links: LinkReader, member: int, crossing: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.links, self.member, self.crossing = links, member, crossing
        if self.store.sampled:
            deep_enough(self.store.sampled, self.num_layers)
        self.bytes_read = self.feature_bytes = 0
        self._checked: set[int] = set()

    @classmethod
    def of_rank(cls, reader: Reader, exchange: Reader, order: Reader | None, *, rank: int, **options: Any) -> Any:
        """One rank's steps of a `pack` artifact, by the `exchange` artifact made for it.

        Raises
        ------
        BadInput
            There is no such rank.
        """
        links = LinkReader.from_reader(exchange)
        if not 0 <= rank < links.ranks:
            raise BadInput(f"rank: expected 0 <= rank < {links.ranks}, found {rank}")
        options = {name: value for name, value in options.items() if name not in ("hag", "coded")}
        return cls.from_reader(reader, order, links=links, member=rank, **options)

    def assemble(self, records: Sequence[int], num_outputs: int) -> CoopStep:
        """The own part of the step of these records."""
        del num_outputs
        L, ranks = self.num_layers, self.links.ranks
        whole = [self._views(i) for i in records]
        pieces = [cut(record, ranks, self.member, L) for record in whole]
        found = share(pieces, [self.links.of(i, self.member) for i in records], self.weights, L)
        x, codes = self._own_features(whole, found)
        labelled = self.store.num_labelled
        return CoopStep(
            x=x,
            layers=tuple(self._layer(layer, first=i == 0) for i, layer in enumerate(found.layers)),
            y=self.tensor(found.y.astype(np.int64)),
            n_id=self.tensor(found.n_id.astype(np.int64)),
            input_id=self.tensor(found.input_id.astype(np.int64)),
            batch_size=found.y.size,
            num_labelled=int(labelled[list(records)].sum()),
            codes=codes,
            decoded=self._decoded,
        )

    def _views(self, i: int) -> Record:
        """Record `i`, of which only own ranges are read; they are checked when first read."""
        record = self.store.unchecked(i)
        size, good = self.links.read(i, record, self.member, self.num_layers, check=i not in self._checked)
        self.bytes_read += size
        if not good:
            place = self.store.place(i)
            raise Corrupt(f"{place.path}: rank {self.member}'s rows of record {i} do not match their crc32c")
        self._checked.add(i)
        return record

    def _layer(self, layer: Layer, *, first: bool) -> CoopLayer:
        kept = self.transposes
        if first and kept == "inner":  # no gradient goes through the features
            kept = "none"
        return CoopLayer(
            adj=self.turned(layer.matrix, kept),
            own=layer.own,
            send=self.tensor(layer.send),
            sent=layer.sent.tolist(),
            received=layer.received.tolist(),
        )

    def _own_features(self, whole: Sequence[Record], found: Share) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(feature rows f[n, D], their codes u1[n, row_bytes] where those cross) of the own nodes of a share."""
        codec, n = self.store.codec, found.n_id.size
        x = torch.empty((n, codec.num_features), dtype=torch.float32, pin_memory=self.transfer.pin)
        crosses = (
            codec.row_bytes is not None
            and codec.row_bytes <= self.crossing
            and codec.further is None
            and self.transfer.device.type == "cpu"
        )
        codes: NDArray[np.uint8] | None = np.empty((n, codec.row_bytes), np.uint8) if crosses else None  # type: ignore[arg-type]
        for record, rows in zip(whole, found.rows, strict=True):
            part: Any
            if self.store.gathers:
                part = self.store.gathered(replace(record, n_id=found.n_id[rows]))
            else:
                hops = min(len(record.num_sampled_nodes), self.num_layers + 1)
                part = own_codes(record, owned(record.block_ptr, self.links.ranks, self.member).head(hops))
            self.feature_bytes += part.codes.nbytes + (0 if part.codes_1 is None else part.codes_1.nbytes)
            decode(codec, part.codes, part.code_indptr, out=x.numpy(), rows=rows.astype(np.int32))
            if codec.further is not None:
                add_further(codec, part.codes_1, rows[part.codes_1_rows], x.numpy())
            if codes is not None:
                codes[rows] = part.codes
        return self.transfer.moved(x).to(self.dtype), None if codes is None else torch.from_numpy(codes)

    def _decoded(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(decode(self.store.codec, codes.numpy())).to(self.dtype)
