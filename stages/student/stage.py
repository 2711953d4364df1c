"""Describes `student`: one that is taught all nodes and serves, and one that is not taught the test
nodes, by which new nodes are judged.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.infer.full_graph_cost import full_graph_bytes, widest
from stockpot.stages.stage import Cost, Derived, Facts, Inputs, Reader, Shard, Stage, Writer
from stockpot.stages.student.lesson import BATCH, Lesson
from stockpot.stages.student.planning import PLANNING, no_hops, student_parameters
from stockpot.stages.student.reporting import REPORTING
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.ingredient import count, ingredients
from stockpot.stages.train.ingredient import roles as trainings
from stockpot.stages.train.train_params import resolved_precision
from stockpot.stages.train.training_cost import TORCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stockpot.stages.train.model import Network

__all__ = ["STAGE", "Params"]

EPOCHS, STEPS = 40, 1500
"""Passes of a lesson, and the steps that they come to at least."""
_MEND = "stockpot run RECIPE, which trains on the features that it has"


@dataclass(frozen=True)
class Params:
    """Resolved parameters.

    Attributes
    ----------
    teacher : "soup" or "ensemble".
    hops : that rows hold beyond the stored ones.
    neighbours : rows hold the mean of what the teacher says of neighbours, too.
    hidden, epochs, dropout, noise : see `stockpot.stages.student.teaching.Lesson`.
    precision : of the products, "fp32" or "bf16". seed : of weights, order, dropout and noise.
    device : where teachers are asked and students taught.
    """

    teacher: str
    hops: int
    neighbours: bool
    hidden: int
    epochs: int
    dropout: float
    noise: float
    precision: str
    seed: int
    device: str


def _resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    if facts["codes"].get("propagated") is None:
        raise no_hops("none: features.propagate = auto found that no hop pays")
    teacher = str(recipe["student.teacher"])
    if teacher == "auto":
        teacher = "ensemble" if count(facts) > 1 else "soup"
    return Params(
        teacher,
        int(recipe["student.hops"]),
        bool(recipe["student.neighbours"]),
        int(recipe["student.hidden"]),
        _epochs(recipe["student.epochs"], int(facts["graph"]["num_nodes"])),
        float(recipe["student.dropout"]),
        float(recipe["student.noise"]),
        resolved_precision(str(recipe["train.precision"]), facts),
        int(recipe["train.seed"]),
        resolved_device(str(recipe["train.device"])),
    )


def _epochs(asked: int | str, nodes: int) -> int:
    """Passes over all nodes; "auto" is `EPOCHS`, or as many as make `STEPS` steps."""
    return max(EPOCHS, -(-STEPS // -(-nodes // BATCH))) if asked == "auto" else int(asked)


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    import numpy as np
    import torch

    from stockpot.stages.codec.node_rows import NodeRows
    from stockpot.stages.student.student_network import save_student
    from stockpot.stages.student.teacher import teacher_probabilities
    from stockpot.stages.student.teaching import predicted, taught
    from stockpot.stages.train.evaluate import settings

    models = _teachers(params, inputs)
    codes = inputs["codes"]
    names = ("hidden", "epochs", "dropout", "noise", "precision", "seed")
    lesson = Lesson(**{name: getattr(params, name) for name in names})
    work = _Work(writer, len(models), params.epochs)
    with settings(writer.threads):
        x = NodeRows(codes).all()
        started = time.perf_counter()
        targets = teacher_probabilities(
            [(model.to(params.device), copies) for model, copies in models],
            inputs["graph"],
            torch.from_numpy(x).to(params.device),
            work,
        )
        writer.note("teacher_seconds", time.perf_counter() - started)
        x = np.concatenate([x, *_beside(params, inputs, x, targets, writer)], axis=1)
        everyone = np.arange(len(x))
        test = np.asarray(inputs["split"].array("test"), np.int64)
        predictions = {}
        for name, ids in (
            ("student", everyone),
            ("kept-out", np.delete(everyone, test)),
        ):
            started = time.perf_counter()
            student = taught(x, targets, ids, lesson, work, params.device)
            writer.note(f"{name}_seconds", time.perf_counter() - started)
            about = {"codes": codes.digest, "teacher": params.teacher, "taught": len(ids)}
            save_student(writer.path(f"{name}.safetensors"), student, about)
            predictions[name] = predicted(student, x[test]).argmax(1)
    y, told = inputs["graph"].array("y")[test], targets[test].argmax(1)
    return {
        "teacher": params.teacher,
        "num_features": x.shape[1],
        "hidden": params.hidden,
        "num_parameters": sum(p.numel() for p in student.parameters()),
        "nodes": len(x),
        "kept_out": len(test),
        "test_accuracy": _accuracy(predictions["kept-out"], y),
        "taught_test_accuracy": _accuracy(predictions["student"], y),
        "teacher_test_accuracy": _accuracy(told, y),
        "agreement": float((predictions["kept-out"] == told).mean()),
        "taught_agreement": float((predictions["student"] == told).mean()),
    }


def _beside(
    params: Params,
    inputs: Inputs,
    x: NDArray[np.float32],
    targets: NDArray[np.float32],
    writer: Writer,
) -> Iterator[NDArray[np.float32]]:
    """Columns beside the stored rows, written as they are made; see `StudentRows`."""
    import numpy as np

    from stockpot.stages.student.student_rows import (
        MORE,
        NEAR,
        TOLD,
        mean_of_neighbours,
        multiply_further,
    )

    graph, products = inputs["graph"], inputs["codes"].facts["propagated"]
    if params.hops:
        width = params.hops * int(products["own_columns"])
        more = writer.create(MORE, (len(x), width), np.float32)
        multiply_further(x, params.hops, products, graph, writer.threads, more)
        yield more
    if params.neighbours:
        near = writer.create(NEAR, targets.shape, np.float32)
        mean_of_neighbours(targets, graph, writer.threads, near)
        writer.array(TOLD, targets)
        yield near


class _Work:
    """Progress of all parts as one: asking the models, then two students, epoch by epoch."""

    def __init__(self, writer: Writer, models: int, epochs: int) -> None:
        self.writer, self.done, self.total = writer, 0, models + 2 * epochs

    def __call__(self, text: str) -> None:
        self.done += 1
        self.writer.progress(self.done, self.total, text)


def _accuracy(predicted: NDArray[np.integer[Any]], y: NDArray[np.integer[Any]]) -> float | None:
    """Share of the labelled nodes that are right; None where none has a label."""
    labelled = y >= 0
    return float((predicted == y)[labelled].mean()) if labelled.any() else None


def _teachers(params: Params, inputs: Inputs) -> Sequence[tuple[Network, int]]:
    """The models that teach, each with how often it counts; equal ones are asked once.

    Raises
    ------
    BadInput
        One of them was trained on other features than the student would read.
    """
    from stockpot.stages.train.model import load_model
    from stockpot.stages.train.state import state_digest

    singles = ingredients(inputs)
    for one in singles:
        _check_features(one.name, one.reader, inputs["codes"])
    paths = {one.name: one.path for one in singles}
    if params.teacher == "soup":
        paths = {"soup": inputs["soup"].path("chosen.safetensors")}
    models: dict[str, Network] = {}
    copies: Counter[str] = Counter()
    columns = int(inputs["codes"].facts["num_features"])
    for name, path in paths.items():
        model = load_model(path)
        if (found := int(model.config["num_features"])) != columns:
            raise BadInput(
                f"student: its teacher {name} ({path}) was trained on other features: expected "
                f"rows of {columns} columns, found a model of {found}",
                fix=_MEND,
            )
        digest = state_digest(model.state_dict())
        models.setdefault(digest, model)
        copies[digest] += 1
    return [(model, copies[digest]) for digest, model in models.items()]


def _check_features(role: str, ingredient: Reader, codes: Reader) -> None:
    """Refuse an ingredient whose records hold other codes, where its store knows them.

    Raises
    ------
    BadInput
        They are others.
    """
    if not isinstance(ingredient, Derived):
        return
    packed = ingredient.parent("train")
    assert isinstance(packed, Derived)
    if (found := packed.parent("codes").digest) != codes.digest:
        raise BadInput(
            f"student: its teacher {role} was trained on other features: expected codes of digest "
            f"{codes.digest}, found {found}",
            fix=_MEND,
        )


def _cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Rows f4[N, F] beside what exact inference holds of them, and two tables of probabilities."""
    graph, codes = facts["graph"], facts["codes"]
    nodes, classes = int(graph["num_nodes"]), int(graph["num_classes"])
    more = params.hops * int(graph["num_features"]) + params.neighbours * classes
    columns = int(codes["num_features"]) + more
    roles = trainings(facts)
    asked = count(facts) if params.teacher == "ensemble" else 1
    weights, _, _ = widest(facts, roles)
    read, whole = full_graph_bytes(facts, roles, classes)
    own = 4 * student_parameters(columns, params.hidden, classes)
    # Weights, gradients, two moments; the activations of a step, and of rows that are predicted.
    teaching = 8 * own + 4 * (1 << 14) * (columns + 8 * params.hidden + 4 * classes)
    # What exact inference held is gone when rows are made wider, which holds them twice.
    wide = 4 * nodes * (2 * columns + 2 * int(graph["num_features"]))
    peak = max(whole, wide) + 8 * classes * nodes + teaching + (asked + 1) * weights
    return Cost(
        asked * read + (asked + 1) * weights,
        2 * own + 4 * nodes * (more + params.neighbours * classes),
        TORCH_BYTES + peak,
        mend="--set infer.by=records",
    )


STAGE = Stage(
    name="student",
    version=2,
    exact=False,
    params=Params,
    roles=("graph", "split", "codes", "soup", "ingredient*"),
    reads=(
        "student.teacher",
        "student.hops",
        "student.neighbours",
        "student.hidden",
        "student.epochs",
        "student.dropout",
        "student.noise",
        "train.precision",
        "train.seed",
        "train.device",
    ),
    resolve=_resolve,
    run=_run,
    cost=_cost,
    planning=PLANNING,
    reporting=REPORTING,
)
