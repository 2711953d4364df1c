"""Training steps in order, each prepared while the one before is used; a run resumes at exactly the next step.

`Steps` is the engine of `open_batches` and of the trainer. It imports neither torch_geometric nor Dask.
"""

from __future__ import annotations

import warnings
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.held import HeldRecords
from pipeline.prefetch import Prefetch
from pipeline.records import Records
from pipeline.transfer import Transfer, checked_device
from stages.errors import BadInput, Conflict
from stages.hag.params import KEPT_BYTES
from stages.hag.sequence import Sequences, read_order
from stages.hag.step import hag_adjs, hag_matrices, step_hag
from stages.loadplan.artifact import LoadPlan
from stages.order.artifact import Order
from stages.pack.join import join
from stages.pack.layers import SEQUENCE, Weights, transposes, trimmed
from stages.pack.sampled import sampled_matrices
from stages.quantize.codec import EXACT, add_further, decode
from stages.step import Adj, Step
from stages.train.coded import Coded, Part, Tables, worth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.transfer import Sent
    from stages.pack.join import Joined
    from stages.pack.layers import Matrix
    from stages.pack.record import Record
    from stages.stage import Reader

__all__ = ["Order", "Steps", "csr_tensor"]

STATE_FORMAT = 1
TRANSPOSES = ("none", "inner", "all", "places")


class Steps:
    """Steps of one packed split. Iterating walks the epoch last set; `set_epoch` chooses it, 0 at first.

    Parameters
    ----------
    records : the records of the split.
    store_key, split : of the artifact they come from, kept in the state.
    order : order artifact; where None, `shuffle` draws a permutation from (seed, epoch).
    loads : load plan artifact, whose order then counts: where one process walks the steps of an epoch, features come
        from the rows that are held as planned. Ranks, and steps asked for one by one, gather the same features.
    layers : depth of the model: a step is trimmed to it.
    adj, normalization, mass, self_loops : values of the matrices, see `stages.pack.layers.Weights`.
    transposes : what a backward pass will read of them. none | inner: but of the first matrix, where the features get
        no gradient through it | all | places: all, with the places of their entries (`stages.step.Adj`).
    per_step : records joined in a step.
    shuffle : False keeps the order of the file.
    drop_last : leave out a last step of fewer records, and last steps that do not reach every rank.
    rank, world_size : rank r takes steps r, r + W, ...
    prefetch : steps prepared ahead by a thread; 0 prepares each when it is asked for.
    dtype, device : of the tensors; values are computed in float32 and converted last.
    pin_memory : pinned tensors on the CPU; copies to a GPU start from pinned memory in any case.
    hag : multiply by the shared partial sums of records that hold them; for models that read no single edge.
    transform : called with every step, on the preparing thread; never part of a key.
    coded : `x` stays codes (`stages.train.coded.Coded`) where a layer may be cheaper on them than on decoded rows.

    Attributes
    ----------
    epoch, first : epoch of the next iteration, and the step of it to begin with (0 unless a state was loaded).
    held : in the steps of an iteration that follows a load plan: its records.
    rows_read : of features, by iterations that follow a load plan.
    """

    def __init__(
        self,
        records: Records,
        *,
        store_key: str,
        split: str,
        layers: int,
        order: Order | None = None,
        loads: LoadPlan | None = None,
        adj: str = "plain",
        normalization: str = "sym",
        mass: str = "none",
        self_loops: bool = True,
        transposes: str = "all",
        per_step: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 2,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        pin_memory: bool = False,
        hag: bool = False,
        transform: Callable[[Any], Any] | None = None,
        coded: bool = False,
    ) -> None:
        for name, value, least in (
            ("layers", layers, 1),
            ("per_step", per_step, 1),
            ("prefetch", prefetch, 0),
            ("seed", seed, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BadInput(f"{name}: expected a whole number from {least}, found {value!r}")
        if not 0 <= rank < world_size:
            raise BadInput(f"rank: expected 0 <= rank < world_size, found rank {rank} of {world_size}")
        if transposes not in TRANSPOSES:
            raise BadInput(f"transposes: expected {' | '.join(TRANSPOSES)}, found {transposes}")
        self.store = records
        self.store_key, self.split, self.order, self.loads = store_key, split, order, loads
        self.held: HeldRecords | None = None
        self.rows_read = 0
        self.num_layers, self.per_step, self.seed = layers, per_step, seed
        self.weights, self.transposes = Weights(adj, normalization, mass, self_loops), transposes
        self.shuffle, self.drop_last, self.prefetch = shuffle, drop_last, prefetch
        self.rank, self.world_size = rank, world_size
        self.dtype, self.transform, self.hag, self.coded = dtype, transform, hag, coded
        self.transfer = Transfer(checked_device(device, pin=pin_memory), pin=pin_memory)
        self.epoch, self.first, self._handed = 0, 0, 0
        self._kept: dict[int, tuple[Adj, ...]] = {}
        self._kept_bytes = 0
        quiet_csr()

    @classmethod
    def from_reader(
        cls, reader: Reader, order: Reader | None = None, *, layers: int, loads: Reader | None = None, **options: Any
    ) -> Steps:
        """Steps of a `pack` artifact, in the order of an `order` artifact, by a `loadplan` where they are given.

        Their state names both by digest: a training goes on where they were rebuilt, under whatever key, byte by byte.
        """
        records = Records.from_reader(reader)
        split = str(reader.facts["split"])
        found = None if order is None else Order.from_reader(order, order.digest)
        planned = None if loads is None else LoadPlan.from_reader(loads, loads.digest)
        given: dict[str, Any] = {"order": found, "loads": planned, "layers": layers}
        return cls(records, store_key=reader.digest, split=split, **given, **options)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. The one a state was loaded for keeps its position, any other begins at its first step."""
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise BadInput(f"epoch: expected a whole number from 0, found {epoch!r}")
        if epoch != self.epoch:
            self.epoch, self.first, self._handed = epoch, 0, 0

    def plan(self, epoch: int) -> list[tuple[tuple[int, ...], int]]:
        """Steps of this rank in an epoch: (records of the step, outputs of the steps all ranks take with it).

        A function of (order artifact, order method, shuffle, seed, epoch, per_step, rounds, drop_last) and, of those
        steps, every `world_size`th from `rank`. An epoch reads one round: epoch e round e mod rounds.
        """
        rounds = self.store.rounds
        num_records = len(self.store) // rounds
        if not self.shuffle:
            order: NDArray[np.integer[Any]] = np.arange(num_records)
        elif (given := self.order if self.loads is None else self.loads) is not None:
            if given.rounds != rounds:
                raise Conflict(
                    f"order {given.key}: it has {given.rounds} rounds, but {self.store_key} has {rounds}",
                    fix="use the order built for this split",
                )
            order = given.records(num_records, self.seed, epoch)
            if len(order) != num_records:
                raise Conflict(
                    f"order {given.key}: it orders {len(order)} records, but {self.store_key} has {num_records}",
                    fix="use the order built for this split",
                )
        else:
            order = np.random.default_rng((self.seed, epoch)).permutation(num_records)
        order = order + epoch % rounds * num_records
        steps = [tuple(map(int, order[k : k + self.per_step])) for k in range(0, num_records, self.per_step)]
        outputs = self.store.outputs_of(order)
        if self.drop_last:
            if len(steps[-1]) < self.per_step:
                steps.pop()
            del steps[len(steps) // self.world_size * self.world_size :]
        size = [int(part.sum()) for part in np.split(outputs, range(self.per_step, num_records, self.per_step))]
        W = self.world_size
        return [(steps[k], sum(size[k // W * W : k // W * W + W])) for k in range(self.rank, len(steps), W)]

    def __len__(self) -> int:
        """Steps of an epoch on this rank: rounds are of equal size, so every epoch has as many."""
        num_records = len(self.store) // self.store.rounds
        if self.drop_last:
            return num_records // self.per_step // self.world_size
        steps = -(-num_records // self.per_step)
        return len(range(self.rank, steps, self.world_size))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position: the steps handed out so far in this epoch. Prefetched ones do not count."""
        return {
            "format": STATE_FORMAT,
            "store_key": self.store_key,
            "order_key": self._order_key(),
            "split": self.split,
            "seed": self.seed,
            "epoch": self.epoch,
            "step": self._handed,
            "per_step": self.per_step,
            "world_size": self.world_size,
        }

    def _order_key(self) -> str | None:
        # Without an order artifact the two other orders must not be taken for each other either.
        if not self.shuffle:
            return "file"
        given = self.order if self.loads is None else self.loads
        return "shuffle" if given is None else given.key

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was taken: the next iteration hands out exactly the step that would have come next.

        Another number of ranks is accepted where all ranks of the old one stand at a step of the new one.

        Raises
        ------
        Conflict
            The state is of another store, order, split, seed, per_step or format.
        """
        mine = self.state_dict()
        for name in ("format", "store_key", "order_key", "split", "seed", "per_step"):
            if state.get(name) != mine[name]:
                raise Conflict(
                    f"loader state: its {name} is {state.get(name)}, but {mine[name]} here",
                    fix="resume with the data and options it was saved with, or start the epoch anew",
                )
        if missing := [name for name in ("world_size", "step", "epoch") if not isinstance(state.get(name), int)]:
            raise Conflict(
                f"loader state: expected an integer {missing[0]}, found {state.get(missing[0])!r}",
                fix="load what state_dict() returned, or start the epoch anew",
            )
        ranks, step = int(state["world_size"]), int(state["step"])
        done = ranks * step
        if ranks != self.world_size:
            if done % self.world_size:
                raise Conflict(
                    f"loader state: {done} steps done by world_size {ranks}, not a multiple of {self.world_size} here",
                    fix=f"resume with world_size {ranks}, or start the epoch anew",
                )
            step = done // self.world_size
        if step > len(self) and ranks == self.world_size:
            raise Conflict(f"loader state: step {step} of an epoch of {len(self)}", fix="start the epoch anew")
        self.epoch = int(state["epoch"])
        self._handed = self.first = min(step, len(self))

    def __getitem__(self, i: int) -> Any:
        """Step `i` of the epoch, made now; the position is left alone."""
        return self.make(self.plan(self.epoch)[i])

    def __iter__(self) -> Iterator[Any]:
        first, self.first = self.first, 0
        self._handed = first
        plan = self.plan(self.epoch)[first:]
        maker = self._holding(first) if plan else self
        if self.prefetch == 0:
            for step in map(maker.make, plan):
                self._handed += 1
                yield step
            return
        ahead = Prefetch(maker._sent, plan, self.prefetch)  # noqa: SLF001 - these steps, holding rows
        try:
            for sent in ahead:
                self._handed += 1
                yield self.transfer.received(sent)
                del sent
        finally:
            ahead.close()

    def _holding(self, first: int) -> Steps:
        """These steps with the rows held that the load plan of the epoch holds before its step `first`."""
        if self.loads is None or not self.shuffle or self.world_size > 1:
            return self
        plan = self.loads.epoch(self.seed, self.epoch)
        running = copy(self)
        running.coded, running.held = False, HeldRecords(self.store, plan, first * self.per_step, self._count)
        return running

    def _count(self, rows: int) -> None:
        self.rows_read += rows

    def record(self, i: int) -> Record:
        """Record `i` of the split; without features where these are held."""
        return self.store[i] if self.held is None else self.held[i]

    def make(self, planned: tuple[tuple[int, ...], int]) -> Any:
        """One entry of `plan` as the step handed out."""
        return self.transfer.received(self._sent(planned))

    def _sent(self, planned: tuple[tuple[int, ...], int]) -> Sent:
        def made() -> Any:
            step = self.assemble(*planned)
            return step if self.transform is None else self.transform(step)

        return self.transfer.sent(made)

    def assemble(self, records: Sequence[int], num_outputs: int) -> Any:
        """The step of these records."""
        del num_outputs
        L = self.num_layers
        parts = self.parts(records)
        joined = join(parts, layers=L)
        nodes = joined.num_sampled_nodes.tolist()
        adjs = self.shared_once(tuple(records), parts, joined) if self.hag else None
        if self.weights.adj == SEQUENCE:
            adjs = self.sequences(joined)
        elif adjs is None:
            adjs = self.adjs(self.matrices(joined), symmetric=self.weights.symmetric and joined.symmetric)
        return Step(
            x=self.features(parts, joined),
            adjs=adjs,
            y=self.tensor(joined.y.astype(np.int64)),
            n_id=self.tensor(joined.n_id.astype(np.int64)),
            input_id=self.tensor(joined.input_id.astype(np.int64)),
            num_sampled_nodes=tuple(nodes + [0] * (L + 1 - len(nodes))),
            batch_size=joined.y.size,
        )

    def parts(self, records: Sequence[int]) -> Sequence[Record]:
        """What a step is joined of."""
        return [self.record(i) for i in records]

    def matrices(self, joined: Joined, layers: int | None = None) -> list[Matrix]:
        """Matrices of a joined step, the first applied first.

        Raises
        ------
        BadInput
            The model is deeper than the records were sampled.
        """
        layers = self.num_layers if layers is None else layers
        if joined.layers is not None:
            deg = self._measured(joined)[0]
            return sampled_matrices(
                self.weights, layers, joined.num_sampled_nodes, joined.layers, deg, nested=not joined.layered
            )
        return trimmed(
            self.weights,
            layers,
            joined.num_sampled_nodes,
            joined.indptr,
            joined.indices,
            *self._measured(joined),
        )

    def _measured(self, joined: Joined) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """Degrees and edge weights that the values of the matrices follow from."""
        if joined.deg_w is None or self.weights.adj != "norm":
            return joined.deg, None
        return joined.deg_w, joined.weight

    def shared_once(self, records: tuple[int, ...], parts: Sequence[Record], joined: Joined) -> tuple[Adj, ...] | None:
        """`shared`, kept for the next epoch where the step is one record: what is laid out then is always the same.

        On the CPU, up to `KEPT_BYTES`: laying out a HAG costs about as much as a few narrow products by it.
        """
        if len(records) > 1 or self.transfer.device.type != "cpu":
            return self.shared(parts, joined)
        if records[0] in self._kept:
            return self._kept[records[0]]
        made = self.shared(parts, joined)
        size = sum(m.plan_bytes + sum(t.nbytes for t in m.tensors()) for m in hag_matrices(made or ()))
        if made is not None and self._kept_bytes + size <= KEPT_BYTES:
            self._kept[records[0]] = made
            self._kept_bytes += size
        return made

    def shared(self, parts: Sequence[Record], joined: Joined) -> tuple[Adj, ...] | None:
        """The same matrices by the records' HAGs, each with the transpose asked for; None where no record has one."""
        found = step_hag(parts, joined)
        if found is None:
            return None
        moved = None if self.transfer.device.type == "cpu" else self.transfer.moved
        deg, weight = self._measured(joined)
        sizes = joined.num_sampled_nodes, joined.indptr
        return hag_adjs(
            found, self.weights, self.num_layers, *sizes, deg, weight, transposes=self.read_back, moved=moved
        )

    def sequences(self, joined: Joined) -> tuple[Adj, ...]:
        """Rows of the matrices as sequences, in the order of the whole graph; equal ones share their tensors."""
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
        if self.transposes == "places":
            both = {id(m): m.turned() for m in matrices}
            turned = [both[id(m)][0] for m in matrices]
            places = {key: self.tensor(found) for key, (_, found) in both.items()}
        elif self.transposes != "none":
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
        return Adj(self.csr(matrix), self.csr(back), self.tensor(places) if transposes == "places" else None)

    @property
    def tables(self) -> tuple[Tables, ...] | None:
        """Tables of the codes on this device, and of their further stages; None where the loader decodes the rows."""
        return self._tables if self.coded else None

    @cached_property
    def _tables(self) -> tuple[Tables, ...] | None:
        codec = self.store.codec
        if codec.name in EXACT or not worth(codec.lookup, self.transfer.device):
            return None
        stages = [codec] if codec.further is None else [codec, codec.further]
        return tuple(Tables.of(stage.lookup, self.dtype, self.transfer.device) for stage in stages)

    @property
    def read_back(self) -> str:
        """`transposes`, and all where codes may be multiplied first: then the first matrix has a gradient behind it."""
        return "all" if self.transposes == "inner" and self.tables is not None else self.transposes

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
        return self.transfer.moved(x).to(self.dtype)

    def csr(self, matrix: Matrix) -> torch.Tensor:
        """A matrix as torch CSR on this device."""
        return csr_tensor(matrix, self.dtype, moved=self.transfer.moved)

    def tensor(self, values: NDArray[Any]) -> torch.Tensor:
        """A freshly made array as a tensor on this device."""
        return self.transfer.moved(torch.from_numpy(values))


def further_stages(parts: Sequence[Any], joined: Joined) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
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
    """A numpy CSR matrix as torch sparse CSR, each part `moved`; without a copy in float32 and with ids as they are.

    32-bit ids are what MKL multiplies with; checks of the invariants are left out, the store has checksums.
    """
    indptr, indices, values = (moved(torch.from_numpy(a)) for a in (matrix.indptr, matrix.indices, matrix.values))
    if ids is not None:
        indptr, indices = indptr.to(ids), indices.to(ids)
    return torch.sparse_csr_tensor(indptr, indices, values.to(dtype), matrix.shape, check_invariants=False)


def quiet_csr() -> None:
    """Spend torch's one warning that CSR is in beta here, so that neither loader thread nor user meets it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        zero = torch.zeros(1, dtype=torch.int32)
        torch.sparse_csr_tensor(zero, zero[:0], torch.zeros(0), (0, 0), check_invariants=False)
