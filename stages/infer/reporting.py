"""What infer says of a run: accuracy and seconds, and where records and the whole graph
disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import NOTICEABLE, TOLERANCE, pick
from stockpot.stages.sample.limits import METHODS as SAMPLED
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import Built, View

__all__ = ["REPORTING"]


SECONDS = ("seconds", "full_graph_seconds", "all_models_seconds", "load_seconds", "write_seconds")
"""Of the chosen model's batched inference alone, and of its parts; null in artifacts of older
versions."""


def _summary(view: View) -> Mapping[str, Any]:
    infer = view.built.get("infer")
    if infer is None:
        return {}
    figures = pick(infer.facts, "num_outputs", "test_accuracy", "full_graph_test_accuracy")
    if "gain" in infer.facts:
        figures["gain"] = infer.facts["gain"]
    if view.values["infer.split"] != "test":
        # Measured on the nodes asked for, among them perhaps those trained on: no test accuracy.
        figures |= {
            "accuracy": figures["test_accuracy"],
            "full_graph_accuracy": figures["full_graph_test_accuracy"],
        }
        figures |= {"test_accuracy": None, "full_graph_test_accuracy": None}
    figures["student"] = _student(view, infer)
    if (sets := _sets(view)) is not None:
        figures["sets"] = sets
    if "official" in infer.facts:
        figures["official"] = infer.facts["official"]
    return {"infer": {**{name: infer.note(name) for name in SECONDS}, **figures}}


def _sets(view: View) -> Mapping[str, Any] | None:
    """Nodes kept for every output, and who said so; None where records are not sized by outputs."""
    records = view.built.get("influence:infer") or view.built.get("influence:test")
    params: Mapping[str, Any] = records.manifest.get("params") or {} if records is not None else {}
    if not params.get("top_k"):
        return None
    top_k = view.values["infer.top_k"]
    by = "validation" if top_k == "auto" else "recipe" if top_k else "training"
    return {"top_k": params["top_k"], "by": by}


def _student(view: View, infer: Built) -> Mapping[str, Any] | None:
    """Figures of the student, where there is one: its accuracy on test nodes that its twin was not
    taught, and on those that it was; seconds of all outputs, and of a hundredth of the nodes.
    """
    if "student" not in view.built or "student" not in infer.node.inputs:
        return None
    names = (
        "test_accuracy",
        "taught_test_accuracy",
        "teacher_test_accuracy",
        "agreement",
        "teacher",
        "num_parameters",
    )
    return {
        "seconds": infer.note("student_seconds"),
        **pick(view.facts("student"), *names),
        "hundredth": {
            "outputs": infer.note("hundredth"),
            "seconds": infer.note("student_hundredth_seconds"),
            "table_seconds": infer.note("table_hundredth_seconds"),
        },
    }


def _remarks(view: View) -> Iterator[str]:
    """The chosen model is worth more, or less, on records than on the whole graph."""
    facts = view.facts("infer")
    batched, whole = facts.get("test_accuracy"), facts.get("full_graph_test_accuracy")
    if batched is None or whole is None or abs(batched - whole) <= NOTICEABLE + TOLERANCE:
        return
    figures = (
        f"{100 * batched:.2f} % batched, {100 * whole:.2f} % by exact inference on the full graph"
    )
    if batched < whole:
        cause = "records of inference hold too few of their nodes' neighbours"
    else:
        cause = (
            "the model learned on records that hold a part of their nodes' neighbours, and "
            "meets all of them there"
        )
    inferred = "pack:infer" if "pack:infer" in view.built else "pack:test"
    mend = _larger_records(view, inferred if batched < whole else "pack:train")
    yield (
        f"batched inference is {100 * abs(batched - whole):.1f} points "
        f"{'below' if batched < whole else 'above'} "
        f"full-graph inference ({figures}): {cause}; fix: {mend}"
    )


def _larger_records(view: View, packed: str) -> str:
    """The setting by which the records of a packed split hold more of their nodes' neighbours."""
    method = view.values["batches.method"]
    if method in SAMPLED:
        return (
            f"larger batches.fanouts, e.g. --set "
            f"batches.fanouts={[2 * k for k in view.values['batches.fanouts']]}"
        )
    if method == "batch":
        return f"--set batches.aux_ratio={2 * view.values['batches.aux_ratio']:g}"
    records = view.built.get(f"influence:{packed.removeprefix('pack:')}")
    params: Mapping[str, Any] = records.manifest["params"] if records is not None else {}
    top_k, outputs = params.get("top_k"), params.get("outputs")
    settings = []
    if top_k:
        name = "infer.top_k" if packed != "pack:train" else "batches.top_k"
        settings.append(f"--set {name}={2 * int(top_k)}")
    if outputs:
        settings.append(f"--set batches.outputs={2 * int(outputs)}")
    trained = view.built.get("train:0")
    if view.values["train.model"] == "gcn" and (
        trained is None or trained.manifest["params"].get("mass", "none") == "none"
    ):
        settings.append("--set graph.mass=row")
    return " ".join(settings) or "larger batches.outputs"


REPORTING = Reporting(_summary, remarks=_remarks)
