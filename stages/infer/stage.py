"""Describes `infer`: predictions of the chosen model, every candidate's test accuracy, and the
full-graph figure.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stockpot.stages.infer.full_graph_cost import full_graph_bytes, widest
from stockpot.stages.infer.official import official_data, official_score
from stockpot.stages.infer.planning import PLANNING
from stockpot.stages.infer.reporting import REPORTING
from stockpot.stages.soup.planning import METHODS
from stockpot.stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.ingredient import count, ingredients
from stockpot.stages.train.ingredient import roles as trainings
from stockpot.stages.train.training_cost import TORCH_BYTES, step_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from stockpot.stages.infer.predict import Predictions
    from stockpot.stages.processes.process_group import Team
    from stockpot.stages.step import Adj
    from stockpot.stages.student.serving import Student
    from stockpot.stages.train.ingredient import Ingredient
    from stockpot.stages.train.model import Network

__all__ = ["STAGE", "Params"]

_REPEATS = 9
"""Of a measurement, whose median is noted."""


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
    official : data set of OGB whose evaluator scores the chosen model's predictions, "" for none.
    by : whose predictions are written: "records", the chosen model's, or "student".
    """

    full_graph: bool
    device: str = added("cpu")
    ranks: int = added(1)
    exchange: str = added("auto")
    official: str = added("")
    by: str = added("records")


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    ranks = int(recipe["train.ranks"])
    together = ranks > 1 and recipe["train.exchange"] == "cooperative"
    return Params(
        bool(recipe["infer.full_graph"]),
        resolved_device(str(recipe["train.device"]), ranks),
        ranks,
        "cooperative" if together else "auto",
        official_data(recipe),
        str(recipe["infer.by"]),
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
    found, official, by_student = result.found, {}, {}
    if params.official:
        predicted = found.probabilities.argmax(1)
        official["official"] = official_score(params.official, found.y, predicted)
    if params.by == "student":
        from stockpot.stages.student.serving import Student

        student = Student(inputs["student"], inputs["codes"], inputs["graph"])
        by_student["student_accuracy"] = _answer(student, found, writer)
    started, path = time.perf_counter(), writer.path("predictions.arrow")
    write_predictions(path, found)
    for name, seconds in (
        *result.seconds.items(),
        ("write_seconds", time.perf_counter() - started),
    ):
        writer.note(name, seconds)
    if params.by == "student":
        _time_serving(student, path, found.n_id, writer)
    exact = None
    if params.full_graph:
        started = time.perf_counter()
        with settings(writer.threads):
            exact = _full_graph_accuracy(result.model, inputs, found, writer, result.device)
        writer.note("full_graph_seconds", time.perf_counter() - started)
    return {
        **official,
        **by_student,
        "num_outputs": int(inputs["outputs"].facts["outputs"]),
        "labelled": result.labelled,
        "chosen": result.chosen,
        "test_accuracy": result.accuracies[result.chosen],
        "full_graph_test_accuracy": exact,
        "results": result.accuracies,
        **({} if result.gain is None else {"gain": result.gain}),
    }


def _answer(student: Student, found: Predictions, writer: Writer) -> float | None:
    """Put the student's probabilities in the place of the chosen model's, and say how many of the
    labelled outputs it has right; None where none has a label.
    """
    from stockpot.stages.train.evaluate import settings

    with settings(1):
        started = time.perf_counter()
        found.probabilities = student(found.n_id)
        writer.note("student_seconds", time.perf_counter() - started)
    labelled = found.y >= 0
    right = found.probabilities.argmax(1) == found.y
    return float(right[labelled].mean()) if labelled.any() else None


def _time_serving(student: Student, path: Path, n_id: NDArray[np.int64], writer: Writer) -> None:
    """Note what a hundredth of the nodes takes in one thread: by the student, and looked up in what
    was written.
    """
    import numpy as np

    from stockpot.stages.infer.predict import PredictionTable
    from stockpot.stages.train.evaluate import settings

    asked = -(-student.rows.num_nodes // 100)
    ids = np.random.default_rng(0).choice(n_id, min(asked, len(n_id)), replace=False)
    table = PredictionTable(path)
    with settings(1):
        for name, ask in (("student", student), ("table", table)):
            seconds = []
            for _ in range(_REPEATS):
                started = time.perf_counter()
                ask(ids)
                seconds.append(time.perf_counter() - started)
            writer.note(f"{name}_hundredth_seconds", float(np.median(seconds)))
    writer.note("hundredth", len(ids))


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

    from stockpot.stages.codec.node_rows import NodeRows
    from stockpot.stages.infer.full_graph import full_graph_logits, graph_matrix

    labelled = found.y >= 0
    if not labelled.any():
        return None
    graph = inputs["graph"]
    matrix = graph_matrix(graph, model)
    x = torch.from_numpy(NodeRows(inputs["codes"]).all()).to(device)
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


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    packed = facts["outputs"]
    roles = trainings(facts)
    weights, hidden, floats = widest(facts, roles)
    outputs, classes = int(packed["outputs"]), int(packed["num_classes"])
    written = outputs * (12 + 4 * classes)
    models = (count(facts) + len(METHODS)) * weights
    read, peak = (
        int(packed["bytes"]) + models,
        step_bytes(hidden, packed, edge_floats=floats) + 3 * written,
    )
    mend = ""
    if params.full_graph:
        more, whole = full_graph_bytes(facts, roles, classes)
        read += more
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
    roles=("outputs", "soup", "ingredient*", "graph", "codes", "hag", "exchange", "student"),
    reads=(
        "infer.by",
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
