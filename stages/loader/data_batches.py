"""Steps as torch_geometric `Data`, for one's own training script."""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from stockpot.stages.errors import BadInput
from stockpot.stages.loader.assembly import Assembler, Assembly, csr_tensor
from stockpot.stages.loader.options import Delivery
from stockpot.stages.loader.steps import Steps
from stockpot.stages.pack.join import join
from stockpot.stages.pack.record import Layer
from stockpot.stages.pack.sampled import sampled_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.stages.loader.dataset import BatchesDataset
    from stockpot.stages.loader.feature_cache import HeldRecords
    from stockpot.stages.loader.options import Form, Schedule, Source
    from stockpot.stages.pack.layers import Matrix

__all__ = ["Batches", "data_class"]

FORMS = ("csr", "edge_index")


class Batches(Steps):
    """Training steps as torch_geometric `Data`; see `open_batches`.

    Each has `x`, `y` (int64, outputs only, -1 unlabelled), `n_id`, `input_id`, `num_sampled_nodes`,
    `batch_size`, `num_outputs_step` and its edges: `adj_t` (CSR, row = destination), `edge_index`
    with `edge_weight` where values are not all 1, or after `layers(L)` `adjs`, one CSR a layer, the
    first applied first, row i of it being column i. Of records without edges it has none of these.

    Parameters
    ----------
    trimmed : to a model of `form.layers`; else everything is kept.
    """

    def __init__(
        self,
        source: Source,
        form: Form,
        schedule: Schedule | None = None,
        delivery: Delivery | None = None,
        *,
        as_: str = "csr",
        trimmed: bool = False,
    ) -> None:
        if as_ not in FORMS:
            raise BadInput(f"as_: expected {' | '.join(FORMS)}, found {as_}")
        delivery = delivery or Delivery()
        transfer = delivery.transfer()
        self.form, self.as_ = form, as_
        base = Assembly(source.records, form, transfer)
        super().__init__(
            source,
            DataAssembly(base, source.store_key, as_, trimmed=trimmed),
            transfer,
            schedule,
            delivery,
        )

    @property
    def num_features(self) -> int:
        """Columns of `x`."""
        return int(self.store.codec.num_features)

    @property
    def num_classes(self) -> int:
        """Classes that `y` counts, from 0."""
        return int(self.store.meta["num_classes"])

    def layers(self, num_layers: int) -> Batches:
        """The same batches trimmed to a model of that many layers; the position is not taken over.

        As CSR a batch has `adjs` instead of `adj_t`; as edges it has `num_sampled_edges` for PyG's
        `trim_to_layer`.
        """
        form = replace(self.form, layers=num_layers)
        return Batches(self.source, form, self.schedule, self.delivery, as_=self.as_, trimmed=True)

    def dataset(self) -> BatchesDataset:
        """The same batches as a torch `IterableDataset`, for `DataLoader(..., batch_size=None,
        num_workers=n)`.
        """
        from stockpot.stages.loader.dataset import BatchesDataset

        return BatchesDataset(self)

    def __getitem__(self, i: int) -> NoReturn:
        """Refuse to be indexed: a `DataLoader` given these itself would read one epoch again and
        again.
        """
        raise BadInput(
            f"batches: expected to be iterated, found the index {i}: it would always be a step of "
            f"the same epoch",
            fix="for batch in batches, or DataLoader(batches.dataset(), batch_size=None)",
        )


class DataAssembly(Assembler):
    """Makes torch_geometric `Data` of records.

    Parameters
    ----------
    trimmed : to the layers of the form; else everything is kept.
    """

    def __init__(self, base: Assembly, store_key: str, as_: str, *, trimmed: bool) -> None:
        self.base, self.store_key, self.as_ = base, store_key, as_
        self.depth = base.form.layers if trimmed else None
        self._data = data_class()

    def holding(self, held: HeldRecords) -> DataAssembly:
        """The same, whose features are rows that a load plan holds."""
        found = copy(self)
        found.base = self.base.holding(held)
        return found

    def assemble(self, records: Sequence[int], num_outputs: int) -> Any:
        """The batch of these records."""
        if self.base.store.edgeless or self.depth == 0:
            return self._rows(records, num_outputs)
        parts = [self.base.record(i) for i in records]
        joined = join(parts, layers=self.depth)
        hops = joined.num_sampled_nodes.tolist()
        if joined.layered and (self.depth is None or self.as_ != "csr"):
            raise BadInput(
                f"{self.store_key}: layers of its records were sampled apart: expected as_ csr, "
                f"trimmed to layers",
                fix=f"open_batches(…, layers={len(joined.layers or ())}), or --set "
                f"batches.layer_dependency=true",
            )
        if joined.layers is not None and self.depth is None:
            whole = Layer(joined.indptr, joined.indices)
            matrices = [sampled_matrix(self.base.form.weights, whole, joined.deg)]
        else:
            matrices = self.base.matrices(joined, len(hops) if self.depth is None else self.depth)
        data = self._data(
            x=self.base.features(parts, joined),
            y=self.base.tensor(joined.y.astype(np.int64)),
            n_id=self.base.tensor(joined.n_id.astype(np.int64)),
            input_id=self.base.tensor(joined.input_id.astype(np.int64)),
            num_sampled_nodes=hops
            if self.depth is None
            else hops + [0] * (self.depth + 1 - len(hops)),
            batch_size=int(joined.y.size),
            num_outputs_step=num_outputs,
        )
        if self.as_ == "edge_index":
            self._edges(data, matrices[0])
        elif self.depth is None:
            data.adj_t = self._wide(matrices[0])
        else:
            made = {id(m): self._wide(m) for m in matrices}
            data.adjs = tuple(made[id(m)] for m in matrices)
        return data

    def _rows(self, records: Sequence[int], num_outputs: int) -> Any:
        """The outputs of records, where these have no edges or no layer reads any."""
        if self.depth or self.as_ == "edge_index":
            raise BadInput(
                f"{self.store_key}: its batches have no edges (batches.method propagate): expected "
                f"as_ csr, and layers None or 0, found {self.as_} and {self.depth}",
                fix="--set batches.method=node, or open_batches without as_ and layers",
            )
        parts = [self.base.record(i) for i in records]
        joined = join(parts, layers=0)
        return self._data(
            x=self.base.features(parts, joined),
            y=self.base.tensor(joined.y.astype(np.int64)),
            n_id=self.base.tensor(joined.n_id.astype(np.int64)),
            input_id=self.base.tensor(joined.input_id.astype(np.int64)),
            num_sampled_nodes=joined.num_sampled_nodes.tolist(),
            batch_size=int(joined.y.size),
            num_outputs_step=num_outputs,
        )

    def _wide(self, matrix: Matrix) -> torch.Tensor:
        # 64-bit ids: PyG's layers that do not multiply (attention, max) scatter by them, which
        # torch needs int64 for.
        return csr_tensor(matrix, self.base.form.dtype, torch.int64, self.base.transfer.moved)

    def _edges(self, data: Any, matrix: Matrix) -> None:
        counts = np.diff(matrix.indptr)
        target = np.repeat(np.arange(matrix.shape[0]), counts)
        data.edge_index = self.base.tensor(np.stack([matrix.indices, target]).astype(np.int64))
        if self.base.form.weights.adj in {"norm", "mean"}:
            data.edge_weight = self.base.tensor(matrix.values).to(self.base.form.dtype)
        if self.depth is not None:
            ends = np.minimum(np.cumsum(data.num_sampled_nodes[: self.depth]), matrix.shape[0])
            data.num_sampled_edges = np.diff(matrix.indptr[ends], prepend=0).tolist()


def data_class() -> Any:
    """Import torch_geometric's `Data`, whose import warns of torch's own plans for `torch.jit`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric.data import Data
    return Data
