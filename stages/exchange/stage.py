"""Exchange as a stage: who reads which rows of whom, for one packed split and one number of
ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.exchange.planning import PLANNING
from stockpot.stages.exchange.reporting import REPORTING
from stockpot.stages.stage import Cost, Shard, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.exchange.rank_reads import Reads
    from stockpot.stages.stage import Facts, Inputs, Reader, Writer

__all__ = ["STAGE", "Params"]

MOST = 8
"""Deepest model that is counted for."""
KINDS = ("rows", "edges", "features")


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    ranks : processes that share one model's training.
    """

    ranks: int


def resolve(values: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Check the number of ranks."""
    ranks, blocks = int(values["train.ranks"]), int(facts["records"]["K"])
    if not 1 <= ranks <= blocks:
        raise BadInput(
            f"train.ranks: expected 1 to {blocks}, one a block of the packed records, found "
            f"{ranks}",
            fix=f"--set train.ranks={min(max(ranks, 1), blocks)}",
        )
    return Params(ranks)


def _files(inputs: Inputs) -> list[str]:
    return sorted(
        n
        for n in inputs["records"].names()
        if n.endswith(".arrow") and not n.endswith(".index.arrow")
    )


def shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    """One for each packed file."""
    from stockpot.stages.pack.index import read_index

    found, first = [], 0
    for name in _files(inputs):
        index = read_index(inputs["records"].path(f"{name.removesuffix('.arrow')}.index.arrow"))
        found.append(Shard(name.removesuffix(".arrow"), first, first + len(index.offset)))
        first += len(index.offset)
    return found


def run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    """Links of the records of one packed file; counts of what ranks read, exchange and would read
    alone.
    """
    import pyarrow as pa

    from stockpot.stages.exchange.halo_plan import links
    from stockpot.stages.exchange.link_file import link_batch, link_schema
    from stockpot.stages.exchange.rank_partition import bounds, checksums, owned
    from stockpot.stages.exchange.rank_reads import reads, received_by_level
    from stockpot.stages.loader.records import Records

    records = Records.from_reader(inputs["records"])
    ranks, codec = params.ranks, records.codec
    rows, received = np.zeros(ranks, np.int64), np.zeros(MOST, np.int64)
    together: list[Reads] = []
    alone: list[Reads] = []
    schema = link_schema(ranks, weighted=bool(inputs["records"].facts["weighted"]))
    with (
        pa.OSFile(str(writer.path(f"{shard.name}.arrow")), "wb") as sink,
        pa.ipc.new_file(sink, schema) as file,
    ):
        for i in range(shard.start, shard.stop):
            whole, record = (
                records[i],
                records.unchecked(i),
            )  # features that are gathered are no part of it
            hops = len(record.num_sampled_nodes)
            mine = [owned(record.block_ptr, ranks, rank) for rank in range(ranks)]
            found = links(record, ranks)
            file.write_batch(link_batch(schema, found, [checksums(record, m, hops) for m in mine]))
            rows += np.diff(bounds(record.block_ptr, ranks)).sum(0)
            received += received_by_level(found, MOST)
            for total, found_there in zip(
                (together, alone), reads(whole, ranks, MOST), strict=True
            ):
                total.append(found_there)
            writer.progress(i + 1 - shard.start, shard.stop - shard.start)
    return {
        "records": shard.stop - shard.start,
        "row_bytes": codec.row_bytes if codec.further is None else None,
        "rows": rows.tolist(),
        "received": received.tolist(),
        **{
            name: {
                kind: np.sum([getattr(one, kind) for one in found], axis=0).tolist()
                for kind in KINDS
            }
            for name, found in (("together", together), ("alone", alone))
        },
    }


def finish(
    params: Params, inputs: Inputs, outputs: Mapping[str, Reader], writer: Writer
) -> dict[str, Any]:
    """Facts over all records: rows each rank owns; by depth, rows that cross, are read together and
    would be alone.

    `received[h]`: for the layer that computes hops <= h; of `together` and `alone`, see
    `stages.exchange.rank_reads.Reads`. `row_bytes`: of a stored feature row, None where rows
    differ.
    """
    parts = [outputs[name].facts for name in sorted(outputs)]
    return {
        "ranks": params.ranks,
        "split": inputs["records"].facts["split"],
        "row_bytes": parts[0]["row_bytes"],
        "records_of_shards": [int(part["records"]) for part in parts],
        "rows": np.sum([part["rows"] for part in parts], axis=0).tolist(),
        "received": np.sum([part["received"] for part in parts], axis=0).tolist(),
        **{
            name: {
                kind: np.sum([part[name][kind] for part in parts], axis=0).tolist()
                for kind in KINDS
            }
            for name in ("together", "alone")
        },
    }


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """A record and its links: 13 bytes a node for each rank (ids, uses, places), 12 a row that
    crosses; 112 MiB to compile.
    """
    packed = facts["records"]
    rows, most = int(packed["rows"]), int(packed["max_rows"])
    written = 12 * rows * min(params.ranks - 1, 4) // 2 + 4096
    return Cost(
        read=int(packed["bytes"]),
        written=written,
        peak=(112 << 20) + most * (32 * params.ranks + 64),
    )


STAGE: Stage[Params] = Stage(
    name="exchange",
    version=2,
    exact=True,
    params=Params,
    roles=("records",),
    reads=("train.ranks",),
    resolve=resolve,
    shards=shards,
    run=run,
    finish=finish,
    cost=cost,
    planning=PLANNING,
    reporting=REPORTING,
)
