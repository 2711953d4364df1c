"""Packed batches for one's own training script: torch_geometric `Data` in order, resumable; no Dask
is imported.

>>> from stockpot import open_batches  # doctest: +SKIP
>>> for batch in open_batches("runs/wordnet", adj="norm"):  # doctest: +SKIP
...     out = model(batch.x, batch.adj_t)[: batch.batch_size]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stockpot.locate import opened
from stockpot.stages.errors import sensible
from stockpot.stages.loader.data_batches import Batches
from stockpot.stages.loader.online_sampling import FreshRecords
from stockpot.stages.loader.options import Delivery, Form, Schedule, Source
from stockpot.stages.loader.records import Records
from stockpot.stages.loader.steps import whole_steps
from stockpot.stages.loadplan.load_plan import LoadPlan
from stockpot.stages.order.epoch_order import Order
from stockpot.stages.pack.layers import Weights
from stockpot.stages.step import Adj
from stockpot.stages.train.train_params import resolved_mass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from stockpot.stages.stage import Reader
    from stockpot.stages.student.serving import Student

__all__ = ["open_batches", "open_model", "open_records", "open_student"]


def open_batches(
    where: str | Path | Reader,
    split: str = "train",
    *,
    shuffle: bool | None = None,
    seed: int = 0,
    adj: str = "plain",
    as_: str = "csr",
    layers: int | None = None,
    device: torch.device | str = "cpu",
    per_step: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    prefetch: int = 2,
    pin_memory: bool = False,
    dtype: torch.dtype = torch.float32,
    transform: Callable[[Any], Any] | None = None,
    self_loops: bool | None = None,
    normalization: str | None = None,
    mass: str | None = None,
    coded: bool = False,
    fresh: bool = False,
    store: str | Path | None = None,
) -> Batches:
    """Batches of one packed split, one training step each. Opened lazily, so safe to fork.

    Each iteration is the next epoch: `for batch in batches` twice reads epochs 0 and 1. `set_epoch`
    chooses another.

    Parameters
    ----------
    where : run folder (`runs/NAME`), store, folder of a pack artifact, or a reader of one.
    split : train | valid | test | infer.
    shuffle : an order of its own for each epoch, by the run's order artifact where there is one, or
        the orders its load plan has. None: only for train.
    adj : "plain", 0/1 pattern (SAGE, GIN, GAT); "plain+loops"; "norm", normalised values with the
        diagonal, for `GCNConv(normalize=False)`; "mean", rows divided by their in-record degree.
    as_ : "csr" for `adj_t` as torch CSR, "edge_index" for edges with `edge_weight`.
    layers : trim to a model of that many layers, see `Batches.layers`; None keeps everything.
    per_step, self_loops, normalization, mass : None takes the run's recipe, else 1, True, "sym",
        "none". A mass of "auto" is what the run found.
    rank, world_size : rank r takes steps r, r + W, ...; `num_outputs_step` counts the outputs of
        all ranks' steps.
    drop_last : leave out a short last step, and last steps that do not reach every rank; refused
        where none is left.
    prefetch : steps prepared ahead by a thread.
    device : "cpu", "cuda" or "cuda:N"; copies to a GPU run beside the step before, from pinned
        memory.
    pin_memory : pinned tensors where the device is the CPU.
    transform : called with every batch, by the preparing thread.
    coded : `x` of lossy codes stays codes (`codec.coded_rows.Coded`) where a layer may be cheaper
        on them: `x.times(weight)` is a linear layer, `x.decoded()` the rows.
    fresh : of a sampled split: neighbours and the outputs that go together are drawn anew in every
        epoch instead of read, in the order of the sampling, whatever `shuffle` says: batches that
        depend follow each other.
    store : of a run whose store is no longer where it was, and did not move together with the run's
        folder.

    Raises
    ------
    BadInput
        There is no such run, artifact or split, or an option is outside its range.
    Corrupt
        On reading: stored bytes do not match their checksums.
    """
    found = opened(where, split, store)
    graph, train = found.recipe.get("graph", {}), found.recipe.get("train", {})
    shuffle = (split == "train" if shuffle is None else shuffle) and not fresh
    per_step = train.get("per_step", 1) if per_step is None else per_step
    with sensible(f"{where}: order and load plan"):
        order = Order.from_reader(found.order) if shuffle and found.order is not None else None
        loads = LoadPlan.from_reader(found.loads) if shuffle and found.loads is not None else None
    weights = Weights(
        adj,
        graph.get("normalization", "sym") if normalization is None else normalization,
        resolved_mass(
            graph.get("mass", "none") if mass is None else mass,
            None if found.sizing is None else found.sizing.facts,
        ),
        graph.get("self_loops", True) if self_loops is None else self_loops,
    )
    records = (FreshRecords if fresh else Records).from_reader(found.pack)
    batches = Batches(
        Source(records, found.pack.key, split, order, loads),
        Form(1 if layers is None else layers, weights, coded=coded, dtype=dtype),
        Schedule(per_step, shuffle, seed, drop_last, rank, world_size),
        Delivery(prefetch, device, pin_memory, transform),
        as_=as_,
        trimmed=layers is not None,
    )
    if drop_last:  # what is counted in the artifact: its files stay closed
        whole_steps(
            int(found.pack.facts["records"]) // int(found.pack.facts.get("rounds", 1)),
            per_step,
            world_size,
        )
    return batches


def open_records(
    where: str | Path | Reader, split: str = "train", *, store: str | Path | None = None
) -> Records:
    """Single records of one packed split by index, as numpy views; `where` and `store` as in
    `open_batches`.
    """
    return Records.from_reader(opened(where, split, store).pack)


def open_model(where: str | Path, *, store: str | Path | None = None) -> nn.Module:
    """The model a run chose (its soup), in eval mode: `model(batch.x, batch.adj_t)` or `(batch.x,
    batch.adjs)`.

    It reads batches opened with `adj=model.adj`; `store` as in `open_batches`.

    Raises
    ------
    BadInput
        `where` is not the folder of a run that has been souped.
    """
    from stockpot.locate import artifact_of
    from stockpot.stages.train.model import load_model

    model = load_model(artifact_of(where, "soup", store).path("chosen.safetensors")).eval()
    model.register_forward_pre_hook(_with_transposes)
    return model


def open_student(where: str | Path, *, store: str | Path | None = None) -> Student:
    """The student of a run: `student(ids)` are probabilities f4[n, C] of nodes of its graph,
    `student.new(x, neighbours)` of others; `store` as in `open_batches`.

    Raises
    ------
    BadInput
        `where` is not the folder of a run that has a student.
    Conflict
        The run's features are not those that it was taught on.
    """
    from stockpot.locate import artifact_of
    from stockpot.stages.student.serving import Student

    mend = "stockpot run RECIPE --set infer.by=student builds it"
    taught = artifact_of(where, "student", store, fix=mend)
    codes, graph = (artifact_of(where, name, store) for name in ("quantize", "ingest"))
    return Student(taught, codes, graph)


def _with_transposes(model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let a model take plain CSR tensors where it expects each with its transpose."""
    del model
    x, *given = args
    adjs = given[0] if given else ()  # a model of rows reads none

    def paired(adj: Any) -> Any:
        if not isinstance(adj, torch.Tensor):
            return adj
        # Only a backward pass looks at the transpose.
        return Adj(adj, adj.t().to_sparse_csr() if torch.is_grad_enabled() else adj)

    return x, tuple(map(paired, adjs)) if isinstance(adjs, (list, tuple)) else paired(adjs)
