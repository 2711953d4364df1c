"""Load plan as a stage: the fewest feature rows read through a cache of fixed size, for epochs
whose order is known.

Where every epoch walks one tour, it is planned once for each round, and training follows it. Where
orders are drawn, `EPOCHS` of them are drawn under seed 0 and planned, and training uses those in
turn: a plan is of no use for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.loadplan.planning import PLANNING
from stockpot.stages.loadplan.reporting import REPORTING
from stockpot.stages.loadplan.size import cache_rows
from stockpot.stages.order.epoch_order import walks_tour
from stockpot.stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE"]

EPOCHS = 4
"""Least number of planned epochs where orders are drawn: each costs 4 bytes a row and up to 8 a row
read."""


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    cache : rows of features that are held.
    epochs : that are planned, a multiple of the rounds: epoch e of seed s uses number (e + s
        rounds) mod epochs.
    """

    cache: int
    epochs: int


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Rows of the cache, and how many epochs are planned.

    Raises
    ------
    BadInput
        Features are no part of what is read, or the cache does not hold the largest record.
    """
    packed, order = facts["records"], facts["order"]
    nodes = int(facts["graph"]["num_nodes"])
    if "gather_bytes" not in packed:
        raise BadInput(
            "order.cache: expected records that gather their features, found features packed "
            "beside every row, which "
            "are read in one piece with the record",
            fix="--set features.layout=gather, or --set order.cache=0",
        )
    asked, most = values["order.cache"], int(packed["max_rows"])
    cache = cache_rows(asked, nodes, 4 * int(packed["num_features"]))
    if cache < most:
        raise BadInput(
            f"order.cache = {asked}: a cache of {cache} rows does not hold the largest record, of "
            f"{most} rows; the "
            f"smallest useful size is {most}",
            fix=f"--set order.cache={most}, or smaller records by batches.outputs",
        )
    rounds = int(packed.get("rounds", 1))
    return Params(cache, rounds if walks_tour(order) else rounds * -(-EPOCHS // rounds))


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """One for each planned epoch."""
    return [Shard(f"{p:02d}", p, p + 1) for p in range(params.epochs)]


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Walk the records of one epoch backwards for the next uses, then forwards for the reads."""
    from stockpot.stages.loader.records import Records
    from stockpot.stages.loadplan.belady import Cache, note_next_uses
    from stockpot.stages.order.epoch_order import Order

    records = Records.from_reader(inputs["records"])
    count = len(records) // records.rounds
    given = Order.from_reader(inputs["order"])
    order = np.asarray(given.records(count, 0, shard.start), np.int32)
    where = order + shard.start % records.rounds * count
    row_ptr = np.concatenate([[0], np.cumsum(records.num_nodes[where])]).astype(np.int64)
    nodes, rows = int(inputs["graph"].facts["num_nodes"]), int(row_ptr[-1])
    uses = np.memmap(writer.scratch() / f"uses-{shard.name}", np.int32, "w+", shape=(rows,))
    last = np.full(nodes, count, np.int32)
    for k in reversed(range(count)):
        ids = records.stored(int(where[k])).n_id
        note_next_uses(ids, k, count, last, uses[row_ptr[k] : row_ptr[k + 1]])
        writer.progress(count - k, 2 * count, "records")
    slot = writer.create(f"slot-{shard.name}", (rows,), np.int32)
    cache, read_ptr = Cache(params.cache, nodes, count), np.zeros(count + 1, np.int64)
    paths = [writer.scratch() / f"{name}-{shard.name}" for name in ("read", "read_slot")]
    dtype: np.dtype[Any] = np.dtype(np.int32)
    with open(paths[0], "wb") as read_file, open(paths[1], "wb") as slot_file:
        for k in range(count):
            ids, span = (
                records.stored(int(where[k])).n_id,
                slice(int(row_ptr[k]), int(row_ptr[k + 1])),
            )
            missing, into = cache.step(ids, k, uses[span], slot[span])
            missing.tofile(read_file)
            into.tofile(slot_file)
            dtype, read_ptr[k + 1] = missing.dtype, read_ptr[k] + len(missing)
            writer.progress(count + k + 1, 2 * count, "records")
    writer.array(f"order-{shard.name}", order)
    writer.array(f"row_ptr-{shard.name}", row_ptr)
    writer.array(f"read_ptr-{shard.name}", read_ptr)
    _copied(paths[0], dtype, int(read_ptr[-1]), writer, f"read-{shard.name}")
    _copied(paths[1], np.dtype(np.int32), int(read_ptr[-1]), writer, f"read_slot-{shard.name}")
    return {"rows": rows, "read": int(read_ptr[-1])}


def _copied(path: Path, dtype: np.dtype[Any], count: int, writer: Writer, name: str) -> None:
    """A file of numbers as an array, without being held."""
    found: NDArray[Any] = np.memmap(path, dtype, "r", shape=(count,))
    writer.create(name, (count,), dtype)[:] = found


def finish(
    params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    """Facts: rows of the records and rows read, by planned epoch."""
    packed, order = inputs["records"].facts, inputs["order"].facts
    parts = [outputs[name].facts for name in sorted(outputs)]
    return {
        "split": packed["split"],
        "order": order["method"],
        "cache": params.cache,
        "cache_bytes": 4 * params.cache * int(packed["num_features"]),
        "largest_record": int(packed["max_rows"]),
        "rounds": int(packed.get("rounds", 1)),
        "epochs": params.epochs,
        "rows": [int(part["rows"]) for part in parts],
        "read": [int(part["read"]) for part in parts],
    }


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: records are read twice for each planned epoch; a row costs 4 written and 8 where it is
    read; in memory a node 8, a row held 16 and a row of the largest record 32. 256 MiB for the
    reader (torch) and to compile.
    """
    packed, nodes = facts["records"], int(facts["graph"]["num_nodes"])
    rounds = int(packed.get("rounds", 1))
    rows, count = int(packed["rows"]) // rounds, int(packed["records"]) // rounds
    return Cost(
        read=2 * params.epochs * int(packed["bytes"]) // rounds,
        written=params.epochs * (12 * rows + 20 * count),
        peak=(256 << 20)
        + 8 * nodes
        + 16 * params.cache
        + 32 * int(packed["max_rows"])
        + 64 * int(packed["records"]),
    )


STAGE: Stage[Params] = Stage(
    name="loadplan",
    version=1,
    exact=True,
    params=Params,
    roles=("records", "order", "graph"),
    reads=("order.cache",),
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
