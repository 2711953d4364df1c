"""Describes `reach`: how many nodes the set of an output has at inference where `infer.top_k` is
"auto", judged by the chosen model on validation outputs; recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.infer.full_graph_cost import widest
from stockpot.stages.influence.batch_params import READS as SIZES
from stockpot.stages.influence.batch_params import resolve as sized
from stockpot.stages.reach.planning import PLANNING
from stockpot.stages.reach.reporting import REPORTING
from stockpot.stages.reach.set_size import DOUBLINGS, MOST
from stockpot.stages.stage import Cost, Facts, Inputs, Shard, Stage, Writer
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.ingredient import roles as trainings
from stockpot.stages.train.training_cost import TORCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from stockpot.stages.reach.sized_records import SizedRecords
    from stockpot.stages.train.model import Network

__all__ = ["SAMPLE", "STAGE", "Params"]

SAMPLE = 16_384
"""Validation outputs that are looked at, at most."""


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    method : node | random.
    alpha, eps, self_loops : of the walk.
    base : nodes that training's records keep for an output; the smallest size tried.
    outputs, mix : of a record, as records of inference have them.
    device : where the model is asked.
    """

    method: str
    alpha: float
    eps: float
    self_loops: bool
    base: int
    outputs: int
    mix: int
    device: str


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params | None:
    """None where every record of training holds the whole graph."""
    train, test = (sized({**recipe, "split": split}, facts) for split in ("train", "test"))
    if train.whole or not train.top_k or test.whole:
        return None
    return Params(
        train.method,
        train.alpha,
        train.eps,
        train.self_loops,
        train.top_k,
        test.outputs,
        test.mix,
        resolved_device(str(recipe["train.device"])),
    )


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np

    from stockpot.stages.influence.walk_inputs import walk_of
    from stockpot.stages.reach.set_size import candidates, choose
    from stockpot.stages.reach.sized_records import SizedRecords
    from stockpot.stages.sizing.measure import Measure
    from stockpot.stages.train.evaluate import settings
    from stockpot.stages.train.model import load_model

    y = np.asarray(inputs["graph"].array("y"))
    valid = np.asarray(inputs["split"].array("valid"))
    labelled = valid[y[valid] >= 0].astype(np.int32)
    graph, walk = walk_of(params, inputs)
    random = params.method == "random"
    measure = Measure(
        graph, walk, params.alpha, labelled, random, writer.threads, _unheard, SAMPLE
    )  # fmt: skip
    model = load_model(inputs["soup"].path("chosen.safetensors")).to(params.device)
    sizes = candidates(params.base, len(y))
    hits: dict[int, NDArray[np.bool_]] = {}
    rows: dict[int, int] = {}
    with settings(writer.threads):
        for done, size in enumerate(reversed(sizes)):  # the largest entries hold all others
            records = SizedRecords(measure, inputs, size, params.outputs, params.mix)
            hits[size] = _hits(model, records, len(measure.sample), params.device)
            rows[size] = records.rows
            writer.progress(done + 1, len(sizes), "sizes")
    taken, table, reason = choose(hits, rows)
    return {
        "top_k": taken,
        "reason": reason,
        "table": [row.to_json() for row in table],
        "judged_on": len(measure.sample),
    }


def _hits(model: Network, records: SizedRecords, outputs: int, device: str) -> NDArray[np.bool_]:
    """Whether the model has each sampled output right, on its own record."""
    import numpy as np
    import torch

    from stockpot.stages.loader.assembly import Assembly
    from stockpot.stages.loader.options import Delivery, Form
    from stockpot.stages.pack.layers import Weights

    config = model.config
    names = ("normalization", "mass", "self_loops")
    form = Form(
        int(config["layers"]),
        Weights(model.adj, *(config[name] for name in names)),
        transposes="none",
    )
    source: Any = records
    assembly = Assembly(source, form, Delivery(device=device).transfer())
    right = np.zeros(outputs, np.bool_)
    model.eval()
    with torch.no_grad():
        for i in range(len(records)):
            step = assembly.joined((i,), [records[i]])
            hit = model(step.x, step.adjs).argmax(1) == step.y
            right[step.input_id.cpu().numpy()] = hit.cpu().numpy()
    return right


def _unheard(done: int, total: int, text: str) -> None:
    """Progress of the pushes, which are a small part of the work."""


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Bytes: those of `influence` on a sample, and one record of the largest size with its step."""
    graph = facts["graph"]
    nodes, nnz = int(graph["num_nodes"]), int(graph["nnz"])
    edges = 8 * nodes + (8 if graph.get("weighted") else 4) * nnz
    most = max(params.base, min(MOST, params.base << DOUBLINGS))
    outputs = min(SAMPLE, int(facts["split"]["valid"]))
    rows = min(nodes, params.outputs * (most + 1))
    weights, hidden, _ = widest(facts, trainings(facts))
    columns = int(facts["codes"]["num_features"])
    degree = -(-nnz // max(1, nodes))
    step = rows * (4 * columns + 12 * hidden + 24 * degree + 200)
    push = nodes * (4 * 48 + 60) + outputs * (96 * most + 400)
    codes = int(facts["codes"]["code_bytes"])
    return Cost(
        edges + min(codes, rows * (DOUBLINGS + 1) * 4 * columns),
        1 << 14,
        TORCH_BYTES + (96 << 20) + edges + weights + push + step,
        note=f"the model is asked about {outputs:,} validation outputs with sets of "
        f"{params.base} to {most} nodes",
        mend="--set infer.top_k=0",
    )


STAGE = Stage(
    name="reach",
    version=1,
    exact=False,
    params=Params,
    roles=("graph", "split", "partition", "codes", "soup", "ingredient*"),
    reads=(*SIZES, "train.device"),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
