"""Describes `infer`: predictions of the chosen model, every candidate's test accuracy, and the
full-graph figure.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stockpot.stages.infer.official import official_data, official_score
from stockpot.stages.infer.planning import PLANNING
from stockpot.stages.infer.reporting import REPORTING
from stockpot.stages.soup.planning import METHODS
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added
from stockpot.stages.train.ingredient import count, ingredients
from stockpot.stages.train.ingredient import roles as trainings
from stockpot.stages.train.train_params import resolved_device
from stockpot.stages.train.training_cost import TORCH_BYTES, step_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from stockpot.stages.infer.predict import Predictions
    from stockpot.stages.processes.process_group import Team
    from stockpot.stages.step import Adj
    from stockpot.stages.train.ingredient import Ingredient
    from stockpot.stages.train.model import Network

__all__ = ["STAGE", "Params"]

_HIDDEN = 1024  # width reckoned with until an ingredient says its own
_DECODE_ROWS = 65_536


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    full_graph : also exact inference on the whole graph, by one process.
    device : where models are asked.
    ranks : processes that predict the split.
    exchange : "cooperative": together, record by record; else each takes every `ranks`-th, so that
        no row crosses.
    official : data set of OGB whose evaluator scores the predictions, "" for none.
    """

    full_graph: bool
    device: str = added("cpu")
    ranks: int = added(1)
    exchange: str = added("auto")
    official: str = added("")


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    ranks = int(recipe["train.ranks"])
    together = ranks > 1 and recipe["train.exchange"] == "cooperative"
    return Params(
        bool(recipe["infer.full_graph"]),
        resolved_device(str(recipe["train.device"]), ranks),
        ranks,
        "cooperative" if together else "auto",
        official_data(recipe),
    )


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    from stockpot.stages.infer.predict import write_predictions
    from stockpot.stages.train.evaluate import settings

    options: dict[str, Any] = {"params": params, "threads": max(1, writer.threads // params.ranks)}
    if params.ranks == 1:
        result = asked(None, inputs, writer.progress, **options)
    else:
        from stockpot.stages.processes.process_group import led

        with led(params.ranks, asked, inputs, device=params.device, **options) as team:
            result = asked(team, inputs, writer.progress, **options)
    found = result.found
    started = time.perf_counter()
    write_predictions(writer.path("predictions.arrow"), found)
    for name, seconds in (
        *result.seconds.items(),
        ("write_seconds", time.perf_counter() - started),
    ):
        writer.note(name, seconds)
    exact = None
    if params.full_graph:
        started = time.perf_counter()
        with settings(writer.threads):
            exact = _full_graph_accuracy(result.model, inputs, found, writer, result.device)
        writer.note("full_graph_seconds", time.perf_counter() - started)
    official = {}
    if params.official:
        official["official"] = official_score(
            params.official, found.y, found.probabilities.argmax(1)
        )
    return {
        **official,
        "num_outputs": int(inputs["outputs"].facts["outputs"]),
        "labelled": result.labelled,
        "chosen": result.chosen,
        "test_accuracy": result.accuracies[result.chosen],
        "full_graph_test_accuracy": exact,
        "results": result.accuracies,
        **({} if result.gain is None else {"gain": result.gain}),
    }


@dataclass(frozen=True)
class Asked:
    """What the models say: predictions of the chosen one, the accuracy of each, None where no
    output has a label.
    """

    chosen: str
    model: Network
    device: str
    found: Predictions
    labelled: int
    accuracies: dict[str, float | None]
    seconds: dict[str, float]
    """Seconds of each part: to load the models; `seconds`, the chosen model's inference alone; of
    all models."""
    gain: dict[str, Any] | None
    """By how much the chosen soup is more accurate than the best single model of validation, and
    the standard error of that, paired over the labelled outputs; None where that one is chosen."""


def asked(
    team: Team | None,
    inputs: Inputs,
    report: Callable[[int, int, str], Any] | None = None,
    *,
    params: Params,
    threads: int,
) -> Asked:
    """Predict the outputs with every model, alone or as one rank of a team."""
    from stockpot.stages.infer.predict import ENSEMBLE, predict
    from stockpot.stages.loader.options import Delivery, RankPart, Schedule
    from stockpot.stages.train.evaluate import open_steps, settings
    from stockpot.stages.train.model import load_model
    from stockpot.stages.train.state import state_digest

    started = time.perf_counter()
    soup, packed = inputs["soup"], inputs["outputs"].facts
    device = params.device
    schedule, member = Schedule(shuffle=False), None
    if team is not None:
        device = team.device(device)
        if params.exchange == "cooperative":
            member = RankPart(team.rank, team.size, inputs["exchange"])
        else:
            schedule = Schedule(shuffle=False, rank=team.rank, world_size=team.size)
    how = schedule, Delivery(device=device)
    singles = ingredients(inputs)
    paths = {one.name: one.path for one in singles}
    paths |= {name: soup.path(f"soup-{name}.safetensors") for name in soup.facts["methods"]}
    chosen = str(soup.facts["chosen"])
    models: dict[str, tuple[str, Network]] = {}
    same: dict[str, str] = {}
    for name in sorted(
        paths, key=lambda name: name != chosen
    ):  # the chosen one first: equal ones need no second pass
        model = load_model(paths[name]).to(device)
        digest = state_digest(model.state_dict())
        same[name] = models.setdefault(digest, (name, model))[0]
    distinct = dict(models.values())
    copies = Counter(same[one.name] for one in singles)
    together = copies if copies.total() > 1 else None
    outputs, classes = int(packed["outputs"]), int(packed["num_classes"])
    sizes = (outputs, classes, report or _unheard, team)
    clock = [started, time.perf_counter()]
    with settings(threads):
        # The chosen model alone, as whoever takes its predictions runs it; the others are asked for
        # their scores.
        steps = open_steps(inputs["outputs"], distinct[chosen], *how, member=member)
        found, scores = predict({chosen: distinct[chosen]}, chosen, steps, *sizes)
        compared: dict[str, Any] | None = None
        clock.append(time.perf_counter())
        if len(distinct) > 1 or together:
            steps = open_steps(inputs["outputs"], distinct[chosen], *how, member=member)
            best = _best_single(inputs)
            other = None if same[best] == same[chosen] else same[best]
            found, scores = predict(distinct, chosen, steps, *sizes, together, other)
            if other is not None and (gain := found.gain()) is not None:
                compared = {"over": best, "accuracy": gain[0], "error": gain[1]}
        clock.append(time.perf_counter())
    labelled = scores[chosen].labelled
    same |= {ENSEMBLE: ENSEMBLE} if together else {}
    accuracies = {name: scores[same[name]].accuracy if labelled else None for name in same}
    load, alone, every = (later - earlier for earlier, later in pairwise(clock))
    seconds = {
        "load_seconds": load,
        "seconds": alone,
        "all_models_seconds": every if len(scores) > 1 else alone,
    }
    return Asked(chosen, distinct[chosen], device, found, labelled, accuracies, seconds, compared)


def _best_single(inputs: Inputs) -> str:
    """The ingredient that validation has as the best, of equals the first."""

    def rank(one: Ingredient) -> tuple[float, float]:
        return float(one.facts["valid_accuracy"]), -float(one.facts["valid_loss"])

    return max(ingredients(inputs), key=rank).name


def _unheard(done: int, total: int, text: str) -> None:
    """Progress of a rank that nobody listens to."""


def _full_graph_accuracy(
    model: Network, inputs: Inputs, found: Predictions, writer: Writer, device: str
) -> float | None:
    """Accuracy of exact inference on the labelled outputs; None where none has a label."""
    import torch

    from stockpot.stages.infer.full_graph import full_graph_logits
    from stockpot.stages.pack.layers import adjacency

    labelled = found.y >= 0
    if not labelled.any():
        return None
    graph, config = inputs["graph"], model.config
    weight = graph.array("weight") if graph.has("weight") else None
    matrix = adjacency(
        graph.array("indptr"),
        graph.array("indices"),
        weight=weight,
        adj=model.adj,
        normalization=config["normalization"],
        mass=config["mass"],
        self_loops=config["self_loops"],
    )
    x = torch.from_numpy(_features(inputs["codes"])).to(device)
    shared = (
        _shared(model, inputs["hag"], graph, device) if "hag" in inputs and model.shares else None
    )
    predicted = full_graph_logits(model, matrix, x, writer.progress, shared).argmax(1).cpu().numpy()
    return float((predicted[found.n_id[labelled]] == found.y[labelled]).mean())


def _shared(model: Network, searched: Reader, graph: Reader, device: str) -> Adj:
    """The model's matrix of the whole graph by its HAG.

    Raises
    ------
    BadInput
        The HAG was searched on another CSR.
    """
    import numpy as np

    from stockpot.stages.hag.hag import check
    from stockpot.stages.hag.hag_step import StepHag, hag_adjs
    from stockpot.stages.hag.search.csr_rows import pattern
    from stockpot.stages.hag.stage import graph_hag
    from stockpot.stages.pack.layers import Weights

    hag, loops = graph_hag(searched)
    indptr, indices = graph.array("indptr"), graph.array("indices")
    check(hag, *pattern(indptr, indices, loops=loops))
    how = Weights(
        model.adj, *(model.config[name] for name in ("normalization", "mass", "self_loops"))
    )
    moved = None if device == "cpu" else lambda tensor: tensor.to(device)
    found, nodes = StepHag(hag, loops=loops, scale=None), indptr.size - 1
    return hag_adjs(
        found, how, 1, [nodes], indptr, np.diff(indptr), None, transposes="none", moved=moved
    )[0]


def _features(codes: Reader) -> NDArray[Any]:
    """Decoded features of all nodes: f4[N, num_features]."""
    import numpy as np

    from stockpot.stages.codec.format import Codec, add_further, decode

    codec = Codec.from_reader(codes)
    rows = int(codes.facts["num_nodes"])
    stored = codes.array("codes")
    out = np.empty((rows, codec.num_features), np.float32)
    if codec.row_bytes is None:
        pointer = codes.array("code_indptr")
        for start in range(0, rows, _DECODE_ROWS):
            part = pointer[start : start + _DECODE_ROWS + 1]
            decode(
                codec,
                stored[part[0] : part[-1]],
                part - part[0],
                out=out[start : start + len(part) - 1],
            )
        return out
    for start in range(0, rows, _DECODE_ROWS):
        stop = min(start + _DECODE_ROWS, rows)
        decode(codec, stored[start:stop], out=out[start:stop])
    if codec.further is not None:
        coded, more = codes.array("codes_1_rows"), codes.array("codes_1")
        for start in range(0, len(coded), _DECODE_ROWS):
            add_further(
                codec, more[start : start + _DECODE_ROWS], coded[start : start + _DECODE_ROWS], out
            )
    return out


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    packed, graph, codes = facts["outputs"], facts["graph"], facts["codes"]
    roles = trainings(facts)
    weights = 4 * max((int(facts[role].get("num_parameters", 0)) for role in roles), default=0)
    hidden = max((int(facts[role].get("hidden", _HIDDEN)) for role in roles), default=_HIDDEN)
    floats = max((int(facts[role].get("edge_floats", 0)) for role in roles), default=0)
    outputs, classes = int(packed["outputs"]), int(packed["num_classes"])
    written = outputs * (12 + 4 * classes)
    models = (count(facts) + len(METHODS)) * weights
    read, peak = (
        int(packed["bytes"]) + models,
        step_bytes(hidden, packed, edge_floats=floats) + 3 * written,
    )
    mend = ""
    if params.full_graph:
        nodes, nnz, columns = int(graph["num_nodes"]), int(graph["nnz"]), int(codes["num_features"])
        read += 8 * nodes + 4 * nnz + int(codes["code_bytes"])
        # Per node: two layers' activations, a third where the first layer reads no edge, pointers
        # and a loop; per edge an id and a value; and blocks of rows.
        stored = hidden if "propagated" in codes else 0
        whole = (
            nodes * (4 * (max(columns, hidden) + hidden + stored) + 32)
            + 8 * nnz
            + (4 * max(columns, hidden) << 17)
        )
        if floats:
            # Attention projects all nodes before the first edge; a model without layers sees all
            # edges at once. Where neighbours are read in order, a block of a few thousand rows,
            # some of them long, is held.
            sequential = any(facts[role].get("sequential") for role in roles)
            edges = min(nnz, (nnz << 14) // max(1, nodes)) if sequential else nnz + nodes
            whole += 4 * nodes * (
                2 * hidden + (0 if sequential else floats) * classes
            ) + 4 * edges * (2 * floats + 4)
        if written + whole > peak:  # smaller records are no help then
            peak, mend = written + whole, "--set infer.full_graph=false"
    if params.ranks > 1:  # a process for every rank
        peak += (params.ranks - 1) * (
            TORCH_BYTES + models + step_bytes(hidden, packed, edge_floats=floats) + written
        )
    return Cost(read, written, TORCH_BYTES + models + peak, mend=mend)


STAGE = Stage(
    name="infer",
    version=1,
    exact=False,
    params=Params,
    roles=("outputs", "soup", "ingredient*", "graph", "codes", "hag", "exchange"),
    reads=(
        "infer.full_graph",
        "infer.split",
        "dataset.source",
        "train.device",
        "train.ranks",
        "train.exchange",
    ),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
