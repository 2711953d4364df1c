"""Describes `hag`: whether records share enough partial sums to be searched, or the HAG of the
whole graph.

The decision is an artifact of its own, made once from a few training records and this machine's
rates: `pack` hashes what was decided, not how. Where the answer is no, `pack` is what it would be
without this stage.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.planning import PLANNING, Sharing, enabled
from stockpot.stages.hag.reporting import REPORTING
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from stockpot.stages.hag.hag import Hag

__all__ = ["ENABLED", "STAGE", "Params", "graph_hag"]

ENABLED = ("auto", "always", "never")
LEAST = 1.2  # stockpot.stages.hag.product_cost.GAIN, which imports scipy
ROW_BYTES = (64, 512)  # 16 and 128 floats: narrow products gain less
SAMPLE = 6
SAMPLE_ENTRIES = 4_000_000  # most entries of the sample: a record is always looked at
ARRAYS = ("level_ptr", "indptr", "indices", "out_indptr", "out_indices")


@dataclass(frozen=True)
class Params:
    """`of`: the records, or the graph. `mode`: auto or always. `capacity`: -1 for auto. `device`:
    whose rates.
    """

    of: str
    mode: str
    loops: bool
    capacity: float
    device: str


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    from stockpot.stages.train.devices import resolved_device

    asked = recipe["hag.capacity"]
    return Params(
        of=str(recipe["of"]),
        mode=enabled(recipe["hag.enabled"]),
        loops=bool(recipe["graph.self_loops"]),
        capacity=-1.0 if asked == "auto" else float(asked),
        device=resolved_device(str(recipe["train.device"])).partition(":")[0],
    )


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.hag.product_cost import measured_rates

    rates = asdict(measured_rates(params.device))
    sharing = Sharing(
        on=True,
        loops=params.loops,
        capacity=params.capacity,
        least=0.0 if params.mode == "always" else LEAST,
        rates=tuple(
            float(f"{1e9 * rate:.3g}") for rate in rates.values()
        ),  # what is kept is what is judged by
        row_bytes=ROW_BYTES,
    )
    facts = {
        "of": params.of,
        "mode": params.mode,
        "sharing": asdict(sharing),
        "device": params.device,
    }
    if params.of == "graph":
        return facts | _of_graph(params, inputs["graph"], sharing, writer)
    return facts | _of_records(params, inputs, sharing)


def _of_graph(params: Params, graph: Reader, sharing: Sharing, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.hag.hag_choice import best

    _refuse_weights(params, graph)
    choice = best(
        graph.array("indptr"),
        graph.array("indices"),
        sharing,
        loops=sharing.loops,
        threads=writer.threads,
    )
    hag = choice.hag
    assert hag is not None
    for name in ARRAYS:
        writer.array(name, getattr(hag, name))
    return {
        "use": True,
        "crc": hag.crc,
        "plain_reads": hag.plain_reads,
        "plain_adds": hag.plain_adds,
        "adds_ratio": hag.adds_ratio,
        "reads_ratio": hag.reads_ratio,
        "predicted_gain": choice.predicted,
    }


def graph_hag(searched: Reader) -> tuple[Hag, bool]:
    """The HAG of a whole graph from its artifact, and whether the diagonal is in it."""
    from stockpot.stages.hag.hag import Hag

    facts = searched.facts
    nodes = len(searched.array("out_indptr")) - 1
    hag = Hag(
        num_rows=nodes,
        num_nodes=nodes,
        level_ptr=searched.array("level_ptr"),
        indptr=searched.array("indptr"),
        indices=searched.array("indices"),
        out_indptr=searched.array("out_indptr"),
        out_indices=searched.array("out_indices"),
        weight=None,
        out_weight=None,
        crc=int(facts["crc"]),
        plain_reads=int(facts["plain_reads"]),
        plain_adds=int(facts["plain_adds"]),
    )
    return hag, bool(facts["sharing"]["loops"])


def _refuse_weights(params: Params, graph: Reader) -> None:
    """Weights that do not factor cannot share sums: refused where a HAG is asked for in any case,
    the edge named.
    """
    import numpy as np

    from stockpot.stages.hag.factors import factors

    if params.mode == "always" and graph.facts["weighted"]:
        factors(
            graph.array("indptr"), graph.array("indices"), graph.array("weight").astype(np.float64)
        )
        if params.of == "graph":
            raise BadInput(
                "hag.enabled: a HAG of the whole graph carries no edge weights, and this graph has "
                "them",
                fix="--set infer.full_graph=false, or --set hag.enabled=auto",
            )


def _of_records(params: Params, inputs: Inputs, sharing: Sharing) -> dict[str, Any]:
    """A few records searched: whether any is predicted to gain enough."""
    from stockpot.stages.hag.hag_choice import best

    _refuse_weights(params, inputs["graph"])
    loops = sharing.loops and not inputs["graph"].facts["weighted"]
    choices = [best(*csr, sharing, loops=loops) for csr in _sample(inputs)]
    found = [choice.hag for choice in choices if choice.hag is not None]
    pays = bool(found) or params.mode == "always"
    gains = [choice.predicted if choice.hag is not None else 1.0 for choice in choices]
    possible = max(choice.possible for choice in choices)
    if params.mode == "always":
        why = "asked for"
    elif pays:
        why = f"{len(found)} of {len(choices)} records looked at gain {LEAST} x and more"
    else:
        why = (
            f"none of {len(choices)} records looked at gains {LEAST} x: {possible:.2f} x is the "
            f"most possible"
        )
    reads, plain = sum(h.reads for h in found), sum(h.plain_reads for h in found)
    adds, plain_adds = sum(h.adds for h in found), sum(h.plain_adds for h in found)
    return {
        "use": pays,
        "why": why,
        "sampled": len(choices),
        "paying": len(found),
        "predicted_gain": sum(gains) / len(gains),
        "possible_gain": possible,
        "reads_ratio": plain / reads if reads else 1.0,
        "adds_ratio": plain_adds / adds if adds else 1.0,
    }


def _sample(inputs: Inputs) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """CSRs of records evenly spread over the first round, until they are large."""
    import numpy as np

    from stockpot.stages.pack.build import subgraph

    graph, records = inputs["graph"], inputs["records"]
    indptr, indices = graph.array("indptr"), graph.array("indices")
    n_ptr, out_ptr = records.array("n_ptr"), records.array("out_ptr")
    n_id, outputs = records.array("n_id"), records.array("outputs")
    count = int(n_ptr.size) - 1
    local = np.full(int(graph.facts["num_nodes"]), -1, np.int32)
    entries = 0
    for r in np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)).tolist():
        nodes, mine = n_id[n_ptr[r] : n_ptr[r + 1]], outputs[out_ptr[r] : out_ptr[r + 1]]
        one_block = np.zeros(nodes.size, np.int32)
        found = subgraph(nodes, mine, one_block, 1, indptr, indices, np.zeros(0, np.float32), local)
        yield found[2], found[3]
        entries += found[3].size
        if entries > SAMPLE_ENTRIES:
            return


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    graph = facts["graph"]
    nodes, nnz = int(graph["num_nodes"]), int(graph["nnz"])
    searched = nnz
    if params.of == "records":
        records = facts["records"]
        rows = int(records["rows"]) / max(1, int(records["records"]))
        searched = int(min(nnz, 2 * rows * nnz / max(1, nodes)))
    return Cost(8 * nodes + 4 * nnz, 8 * searched, 4 * nodes + 80 * searched + (96 << 20))


STAGE = Stage(
    name="hag",
    version=1,
    exact=False,
    params=Params,
    roles=("graph", "records"),
    reads=("hag.enabled", "hag.capacity", "graph.self_loops", "train.device"),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
