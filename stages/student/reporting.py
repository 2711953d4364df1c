"""What student says of a run: what it is worth on nodes that it was taught and on others, and what
an answer costs beside a look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block
from stockpot.stages.show.html import count, percent, table, text
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]

_SECTION = "The student"


def _summary(view: View) -> Mapping[str, Any]:
    if "student" not in view.built:
        return {}
    built = view.built["student"]
    seconds = {name: built.note(f"{name}_seconds") for name in ("teacher", "student", "kept-out")}
    return {"stages": {"student": {"parts_seconds": seconds}}}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    student = (summary["infer"] or {}).get("student")
    if student is None:
        return
    facts, each = view.facts("student"), student["hundredth"]
    whom = "mean of all ingredients" if facts["teacher"] == "ensemble" else "chosen soup"
    rows = [
        [f"{whom}, its teacher, on the whole graph", percent(student["teacher_test_accuracy"]), ""],
        [
            "the student, test nodes taught: a compressed table of predictions",
            percent(student["taught_test_accuracy"]),
            _ms(each["seconds"]),
        ],
        [
            "its twin, test nodes kept out of the teaching: what new nodes get",
            percent(student["test_accuracy"]),
            _ms(each["seconds"]),
        ],
        ["looked up in predictions.arrow, where nodes stand in it", "", _ms(each["table_seconds"])],
    ]
    yield Block(
        _SECTION,
        table(
            ("", "test accuracy", f"{count(each['outputs'])} nodes, one thread"),
            [[text(cell) for cell in row] for row in rows],
            about=f"What a student is worth. It reads one row of {count(facts['num_features'])} "
            f"columns a node and no edge. It was taught all {count(facts['nodes'])} "
            f"nodes, its twin all but {count(facts['kept_out'])}, and agrees with the teacher "
            f"on {percent(facts['agreement'])} of these.",
        ),
    )


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g} ms"


REPORTING = Reporting(_summary, report=_report)
