"""Training steps that all ranks take together: each reads and prepares the rows it owns of every
record of the step.

Order, state and prefetching are those of all steps. All ranks hand out the same steps; none of them
talks to another before the model does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.codec.format import add_further, decode
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.exchange.link_file import LinkReader
from stockpot.stages.exchange.rank_partition import cut, own_codes, owned
from stockpot.stages.exchange.rank_step import CoopLayer, CoopStep
from stockpot.stages.exchange.share import share
from stockpot.stages.loader.assembly import Assembler, with_edges
from stockpot.stages.pack.sampled import deep_enough

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stockpot.stages.exchange.share import Layer, Share
    from stockpot.stages.loader.assembly import Assembly
    from stockpot.stages.loader.options import RankPart
    from stockpot.stages.pack.record import Record
    from stockpot.stages.stage import Reader

__all__ = ["CooperativeAssembly"]


class CooperativeAssembly(Assembler):
    """Makes a rank's own rows of each step. A record's HAG serves no rank that has a part of the
    record.

    Parameters
    ----------
    links : of the split, for a number of ranks; see `stockpot.stages.exchange.link_file`.
    member : this rank.
    crossing : see `stockpot.stages.loader.options.RankPart`.

    Attributes
    ----------
    bytes_read : of node, edge and, where they are packed, feature columns of the steps prepared so
        far.
    feature_bytes : of feature columns or, where they are gathered, rows.
    """

    def __init__(self, base: Assembly, links: LinkReader, member: int, crossing: int) -> None:
        self.base, self.links, self.member, self.crossing = base, links, member, crossing
        self.store, self.form = base.store, base.form
        if self.form.layers:
            with_edges(self.store, self.form.layers)
        if self.store.sampled:
            deep_enough(self.store.sampled, self.form.layers)
        self.bytes_read = self.feature_bytes = 0
        self._checked: set[int] = set()

    @classmethod
    def of_member(cls, base: Assembly, member: RankPart, exchange: Reader) -> CooperativeAssembly:
        """By the `exchange` artifact that was made for the split.

        Raises
        ------
        BadInput
            It is for another number of ranks.
        """
        links = LinkReader.from_reader(exchange)
        if member.ranks != links.ranks:
            raise BadInput(
                f"ranks: expected {links.ranks}, for which rows are linked, found {member.ranks}"
            )
        return cls(base, links, member.rank, member.crossing)

    def assemble(self, records: Sequence[int], num_outputs: int) -> CoopStep:
        """The own part of the step of these records."""
        del num_outputs
        L, ranks = self.form.layers, self.links.ranks
        whole = [self._views(i) for i in records]
        pieces = [cut(record, ranks, self.member, L) for record in whole]
        found = share(
            pieces, [self.links.of(i, self.member) for i in records], self.form.weights, L
        )
        x, codes = self._own_features(whole, found)
        labelled = self.store.num_labelled
        return CoopStep(
            x=x,
            layers=tuple(self._layer(layer, first=i == 0) for i, layer in enumerate(found.layers)),
            y=self.base.tensor(found.y.astype(np.int64)),
            n_id=self.base.tensor(found.n_id.astype(np.int64)),
            input_id=self.base.tensor(found.input_id.astype(np.int64)),
            batch_size=found.y.size,
            num_labelled=int(labelled[list(records)].sum()),
            codes=codes,
            decoded=self._decoded,
        )

    def _views(self, i: int) -> Record:
        """Record `i`, of which only own ranges are read; they are checked when first read."""
        record = self.store.unchecked(i)
        size, good = self.links.read(
            i, record, self.member, self.form.layers, check=i not in self._checked
        )
        self.bytes_read += size
        if not good:
            place = self.store.place(i)
            raise Corrupt(
                f"{place.path}: rank {self.member}'s rows of record {i} do not match their crc32c"
            )
        self._checked.add(i)
        return record

    def _layer(self, layer: Layer, *, first: bool) -> CoopLayer:
        kept = self.form.transposes
        if first and kept == "inner":  # no gradient goes through the features
            kept = "none"
        return CoopLayer(
            adj=self.base.turned(layer.matrix, kept),
            own=layer.own,
            send=self.base.tensor(layer.send),
            sent=layer.sent.tolist(),
            received=layer.received.tolist(),
        )

    def _own_features(
        self, whole: Sequence[Record], found: Share
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(feature rows f[n, D], their codes u1[n, row_bytes] where those cross) of the own nodes
        of a share.
        """
        codec, n = self.store.codec, found.n_id.size
        x = torch.empty(
            (n, codec.num_features), dtype=torch.float32, pin_memory=self.base.transfer.pin
        )
        codes: NDArray[np.uint8] | None = None
        if (
            codec.row_bytes is not None
            and codec.row_bytes <= self.crossing
            and codec.further is None
            and self.base.transfer.device.type == "cpu"
        ):
            codes = np.empty((n, codec.row_bytes), np.uint8)
        for record, rows in zip(whole, found.rows, strict=True):
            part: Any
            if self.store.gathers:
                part = self.store.gathered(replace(record, n_id=found.n_id[rows]))
            else:
                hops = min(len(record.num_sampled_nodes), self.form.layers + 1)
                part = own_codes(
                    record, owned(record.block_ptr, self.links.ranks, self.member).head(hops)
                )
            self.feature_bytes += part.codes.nbytes + (
                0 if part.codes_1 is None else part.codes_1.nbytes
            )
            decode(codec, part.codes, part.code_indptr, out=x.numpy(), rows=rows.astype(np.int32))
            if codec.further is not None:
                add_further(codec, part.codes_1, rows[part.codes_1_rows], x.numpy())
            if codes is not None:
                codes[rows] = part.codes
        return self.base.transfer.moved(x).to(
            self.form.dtype
        ), None if codes is None else torch.from_numpy(codes)

    def _decoded(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(decode(self.store.codec, codes.numpy())).to(self.form.dtype)
