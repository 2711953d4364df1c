"""Records become a step on its device: joined, trimmed to the model, with matrices, their
transposes and features.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot.stages.codec.coded_rows import Coded, Part, Tables, worth
from stockpot.stages.codec.format import EXACT, add_further, decode
from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag_step import hag_adjs, hag_matrices, step_hag
from stockpot.stages.hag.planning import KEPT_BYTES
from stockpot.stages.hag.sequence import Sequences, read_order
from stockpot.stages.pack.join import join
from stockpot.stages.pack.layers import SEQUENCE, transposes, trimmed
from stockpot.stages.pack.sampled import sampled_matrices
from stockpot.stages.step import Adj, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.loader.feature_cache import HeldRecords
    from stockpot.stages.loader.options import Form
    from stockpot.stages.loader.records import Records
    from stockpot.stages.loader.transfer import Transfer
    from stockpot.stages.pack.join import Joined
    from stockpot.stages.pack.layers import Matrix
    from stockpot.stages.pack.record import Record

__all__ = ["Assembler", "Assembly", "csr_tensor", "with_edges"]


class Assembler(ABC):
    """Makes a step of records; `stockpot.stages.loader.steps.Steps` says of which, and when."""

    @abstractmethod
    def assemble(self, records: Sequence[int], num_outputs: int) -> Any:
        """The step of these records; `num_outputs` counts those of all ranks' steps."""

    def holding(self, held: HeldRecords) -> Assembler:
        """The same, whose features are rows that a load plan holds.

        Raises
        ------
        BadInput
            Each rank reads rows of its own.
        """
        del held
        raise BadInput("load plan: one process follows it, not ranks that take each step together")


class Assembly(Assembler):
    """Steps of whole records for `stockpot.stages.train.model`, and the parts that other steps are
    made of.

    Attributes
    ----------
    held : rows of features that a load plan holds; None where each record brings or gathers its
        own.
    """

    def __init__(self, records: Records, form: Form, transfer: Transfer) -> None:
        self.store, self.form, self.transfer, self.coded = records, form, transfer, form.coded
        self.held: HeldRecords | None = None
        self._kept: dict[int, tuple[Adj, ...]] = {}
        self._kept_bytes = 0
        quiet_csr()

    def holding(self, held: HeldRecords) -> Assembly:
        """The same, whose features are rows that a load plan holds; never codes."""
        found = copy(self)
        found.coded, found.held = False, held
        return found

    def record(self, i: int) -> Record:
        """Record `i` of the split; without features where these are held, or gathered straight into
        the step.
        """
        if self.held is not None:
            return self.held[i]
        return self.store.stored(i) if self.store.plain else self.store[i]

    def assemble(self, records: Sequence[int], num_outputs: int) -> Step:
        """The step of these records."""
        del num_outputs
        return self.joined(tuple(records), [self.record(i) for i in records])

    def joined(self, records: tuple[int, ...], parts: Sequence[Record]) -> Step:
        """The step of `parts`, which are those records or, in this process and always, the same
        part of each.
        """
        L = self.form.layers
        joined = join(parts, layers=L)
        nodes = joined.num_sampled_nodes.tolist()
        if L:
            with_edges(self.store, L)
        adjs = self.shared_once(records, parts, joined) if self.form.hag and L else None
        if not L:
            adjs = ()
        elif self.form.weights.adj == SEQUENCE:
            adjs = self.sequences(joined)
        elif adjs is None:
            symmetric = self.form.weights.symmetric and joined.symmetric
            adjs = self.adjs(self.matrices(joined), symmetric=symmetric)
        return Step(
            x=self.features(parts, joined),
            adjs=adjs,
            y=self.tensor(joined.y.astype(np.int64)),
            n_id=self.tensor(joined.n_id.astype(np.int64)),
            input_id=self.tensor(joined.input_id.astype(np.int64)),
            num_sampled_nodes=tuple(nodes + [0] * (L + 1 - len(nodes))),
            batch_size=joined.y.size,
        )

    def matrices(self, joined: Joined, layers: int | None = None) -> list[Matrix]:
        """Matrices of a joined step, the first applied first.

        Raises
        ------
        BadInput
            The model is deeper than the records were sampled.
        """
        layers = self.form.layers if layers is None else layers
        if joined.layers is not None:
            deg = self._measured(joined)[0]
            return sampled_matrices(
                self.form.weights,
                layers,
                joined.num_sampled_nodes,
                joined.layers,
                deg,
                nested=not joined.layered,
            )
        return trimmed(
            self.form.weights,
            layers,
            joined.num_sampled_nodes,
            joined.indptr,
            joined.indices,
            *self._measured(joined),
        )

    def _measured(self, joined: Joined) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """Degrees and edge weights that the values of the matrices follow from."""
        if joined.deg_w is None or self.form.weights.adj != "norm":
            return joined.deg, None
        return joined.deg_w, joined.weight

    def shared_once(
        self, records: tuple[int, ...], parts: Sequence[Record], joined: Joined
    ) -> tuple[Adj, ...] | None:
        """`shared`, kept for the next epoch where the step is one record: what is laid out then is
        always the same.

        On the CPU, up to `KEPT_BYTES`: laying out a HAG costs about as much as a few narrow
        products by it.
        """
        if len(records) > 1 or self.transfer.device.type != "cpu":
            return self.shared(parts, joined)
        if records[0] in self._kept:
            return self._kept[records[0]]
        made = self.shared(parts, joined)
        size = sum(
            m.plan_bytes + sum(t.nbytes for t in m.tensors()) for m in hag_matrices(made or ())
        )
        if made is not None and self._kept_bytes + size <= KEPT_BYTES:
            self._kept[records[0]] = made
            self._kept_bytes += size
        return made

    def shared(self, parts: Sequence[Record], joined: Joined) -> tuple[Adj, ...] | None:
        """The same matrices by the records' HAGs, each with the transpose asked for; None where no
        record has one.
        """
        found = step_hag(parts, joined)
        if found is None:
            return None
        moved = None if self.transfer.device.type == "cpu" else self.transfer.moved
        deg, weight = self._measured(joined)
        sizes = joined.num_sampled_nodes, joined.indptr
        return hag_adjs(
            found,
            self.form.weights,
            self.form.layers,
            *sizes,
            deg,
            weight,
            transposes=self.read_back,
            moved=moved,
        )

    def sequences(self, joined: Joined) -> tuple[Adj, ...]:
        """Rows of the matrices as sequences, in the order of the whole graph; equal ones share
        their tensors.
        """
        moved = None if self.transfer.device.type == "cpu" else self.transfer.moved
        made: dict[int, Adj] = {}
        matrices = self.matrices(joined)
        for m in matrices:
            if id(m) not in made:
                cols = m.shape[1]
                rank = read_order(joined.deg[:cols], joined.n_id[:cols])
                made[id(m)] = Adj(Sequences(m.indptr, m.indices, cols, rank, moved))
        return tuple(made[id(m)] for m in matrices)

    def adjs(self, matrices: Sequence[Matrix], *, symmetric: bool) -> tuple[Adj, ...]:
        """Matrices of a step with the transposes asked for; equal ones share their tensors."""
        turned: list[Matrix | None] = [None] * len(matrices)
        places: dict[int, torch.Tensor] = {}
        if self.form.transposes == "places":
            both = {id(m): m.turned() for m in matrices}
            turned = [both[id(m)][0] for m in matrices]
            places = {key: self.tensor(found) for key, (_, found) in both.items()}
        elif self.form.transposes != "none":
            turned = list(transposes(matrices, symmetric=symmetric, first=self.read_back == "all"))
        csr = {id(m): self.csr(m) for m in [*matrices, *turned] if m is not None}
        return tuple(
            Adj(csr[id(m)], None if t is None else csr[id(t)], places.get(id(m)))
            for m, t in zip(matrices, turned, strict=True)
        )

    def turned(self, matrix: Matrix, transposes: str) -> Adj:
        """One matrix that is not symmetric, with the transpose asked for."""
        if transposes == "none":
            return Adj(self.csr(matrix))
        back, places = matrix.turned()
        return Adj(
            self.csr(matrix),
            self.csr(back),
            self.tensor(places) if transposes == "places" else None,
        )

    @property
    def tables(self) -> tuple[Tables, ...] | None:
        """Tables of the codes on this device, and of their further stages; None where the loader
        decodes the rows.
        """
        return self._tables if self.coded else None

    @cached_property
    def _tables(self) -> tuple[Tables, ...] | None:
        codec = self.store.codec
        if codec.name in EXACT or not worth(codec.lookup, self.transfer.device):
            return None
        stages = [codec] if codec.further is None else [codec, codec.further]
        return tuple(
            Tables.of(stage.lookup, self.form.dtype, self.transfer.device) for stage in stages
        )

    @property
    def read_back(self) -> str:
        """`transposes`, and all where codes may be multiplied first: then the first matrix has a
        gradient behind it.
        """
        return (
            "all"
            if self.form.transposes == "inner" and self.tables is not None
            else self.form.transposes
        )

    def features(self, parts: Sequence[Any], joined: Joined) -> torch.Tensor | Coded:
        """Feature rows of a joined step, f[n, D], or their codes."""
        codec = self.store.codec
        n = joined.n_id.size
        if self.tables is not None:
            first, *more = self.tables
            codes = np.empty((n, len(first.lookup)), np.uint8)
            for r, part in enumerate(parts):
                kept = part.codes[: joined.kept[r]]
                codes[slice(None) if joined.rows is None else joined.rows[r]] = kept
            found = [Part(self.tensor(codes), first)]
            for tables in more:
                codes_1, places = further_stages(parts, joined)
                found.append(Part(self.tensor(codes_1), tables, self.tensor(places)))
            return Coded(tuple(found))
        x = torch.empty((n, codec.num_features), dtype=torch.float32, pin_memory=self.transfer.pin)
        out = x.numpy()
        if self.held is None and self.store.plain and not any(part.codes.size for part in parts):
            self.store.rows(joined.n_id, out)
            return self.transfer.moved(x).to(self.form.dtype)
        for r, part in enumerate(parts):
            n = joined.kept[r]
            rows = None if joined.rows is None else joined.rows[r]
            if self.held is not None:
                self.held.fill(n, out, rows)
            elif part.code_indptr is None:
                decode(codec, part.codes[:n], out=out, rows=rows)
            else:
                decode(codec, part.codes, part.code_indptr[: n + 1], out=out, rows=rows)
        if codec.further is not None and self.held is None:
            add_further(codec, *further_stages(parts, joined), out)
        return self.transfer.moved(x).to(self.form.dtype)

    def csr(self, matrix: Matrix) -> torch.Tensor:
        """A matrix as torch CSR on this device."""
        return csr_tensor(matrix, self.form.dtype, moved=self.transfer.moved)

    def tensor(self, values: NDArray[Any]) -> torch.Tensor:
        """A freshly made array as a tensor on this device."""
        return self.transfer.moved(torch.from_numpy(values))


def with_edges(records: Records, layers: int) -> None:
    """Refuse records without edges to a model that reads some.

    Raises
    ------
    BadInput
        They are outputs alone.
    """
    if records.edgeless:
        raise BadInput(
            f"a model of {layers} layers that read edges: expected records with edges, found those "
            f"of batches.method propagate, which have none",
            fix="--set batches.method=node, or --set train.model=sign",
        )


def further_stages(
    parts: Sequence[Any], joined: Joined
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(codes u1[k, bytes], rows i8[k] ascending) of the further stages of a joined step."""
    codes, rows = [], []
    for r, part in enumerate(parts):
        kept = int(np.searchsorted(part.codes_1_rows, joined.kept[r]))
        mine = part.codes_1_rows[:kept]
        codes.append(part.codes_1[:kept])
        rows.append(mine if joined.rows is None else joined.rows[r][mine])
    places = np.concatenate(rows).astype(np.int64)
    ascending = np.argsort(places)
    return np.concatenate(codes)[ascending], places[ascending]


def csr_tensor(
    matrix: Matrix,
    dtype: torch.dtype = torch.float32,
    ids: torch.dtype | None = None,
    moved: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> torch.Tensor:
    """A numpy CSR matrix as torch sparse CSR, each part `moved`; without a copy in float32 and with
    ids as they are.

    32-bit ids are what MKL multiplies with; checks of the invariants are left out, the store has
    checksums.
    """
    indptr, indices, values = (
        moved(torch.from_numpy(a)) for a in (matrix.indptr, matrix.indices, matrix.values)
    )
    if ids is not None:
        indptr, indices = indptr.to(ids), indices.to(ids)
    return torch.sparse_csr_tensor(
        indptr, indices, values.to(dtype), matrix.shape, check_invariants=False
    )


def quiet_csr() -> None:
    """Spend torch's one warning that CSR is in beta here, so that neither loader thread nor user
    meets it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        zero = torch.zeros(1, dtype=torch.int32)
        torch.sparse_csr_tensor(zero, zero[:0], torch.zeros(0), (0, 0), check_invariants=False)
