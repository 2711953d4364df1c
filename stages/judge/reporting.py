"""What judge says of a run: which codes were compared, what each may cost, and why one was
taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import TOLERANCE, Block, pick
from stockpot.stages.codec.auto import keeps
from stockpot.stages.codec.format import EXACT
from stockpot.stages.judge.spending import JUDGED, SHARE
from stockpot.stages.show.html import count, table, text
from stockpot.stages.show.plain import table as plain_table
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stockpot.stages.built import View
    from stockpot.stages.stage import Facts

__all__ = ["REPORTING"]


RATE_HEAD = (
    "bytes a row",
    "table bytes",
    "all bytes",
    "x smaller",
    "NMSE",
    "after a mean",
    "loses",
    "may cost",
    "pairs",
    "allowed",
)
CODES = "Feature codes"
"""Section of the report."""
FIGURES = (
    "reason",
    "rate",
    "judged_on",
    "trained_on",
    "accuracy",
    "model",
    "row_passes",
    "rows_allowed",
)


def rate_table(facts: Facts) -> list[str]:
    """The table of the codecs that were compared as plain text, "*" the one that was chosen; none
    where none were.
    """
    if not facts.get("rate"):
        return []
    rows = [
        (f"{'*' if c['codec'] == facts['codec'] else ' '} {c['codec']}", *rate_cells(c))
        for c in facts["rate"]
    ]
    return [plain_table(("  codec", *RATE_HEAD), rows, right=tuple(range(1, len(RATE_HEAD) + 1)))]


def rate_cells(candidate: Mapping[str, Any]) -> list[str]:
    """A row of the table without its name; accuracies in points."""
    c = candidate
    errors = [f"{value:.4g}" for value in (c["nmse"], c["nmse_aggregated"])]
    sizes = [f"{c[name]:,}" for name in ("row_bytes", "table_bytes", "total_bytes")]
    said = ["", "", "", "not judged"]
    if c["drop"] is not None:
        lost = f"{100 * c['drop']:.2f} ± {100 * c['drop_error']:.2f}"
        said = [
            lost,
            f"{100 * c['drop_bound']:.2f}",
            str(c["pairs"]),
            "yes" if c["allowed"] else "no",
        ]
    return [*sizes, f"{c['compression_ratio']:.1f}", *errors, *said]


def row_pass_share(view: View) -> float | None:
    """Row-passes of the judge over those of all epochs of the run's trainings; None where either is
    not there.
    """
    judge, packed = view.built.get("judge"), view.built.get("pack:train")
    epochs = sum(
        int(b.facts.get("epochs") or 0)
        for b in view.built.values()
        if b.node.stage in ("train", "warmup")
    )
    if judge is None or packed is None or not epochs:
        return None
    rows = int(packed.facts["rows"]) / int(packed.facts.get("rounds", 1))
    return float(judge.facts.get("row_passes") or 0) / (epochs * rows)


def judged(view: View) -> dict[str, Any]:
    """Figures of the choice, for `summary.json`; empty where nothing was judged."""
    facts = view.facts("judge")
    return {**pick(facts, *FIGURES), "row_pass_share": row_pass_share(view)} if facts else {}


def _summary(view: View) -> Mapping[str, Any]:
    figures = judged(view)
    return (
        {"stages": {"judge": {"codec": view.facts("judge").get("codec"), **figures}}}
        if figures
        else {}
    )


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    """What was compared and why the codec was taken; nothing where nothing was measured."""
    judge = summary["stages"].get("judge") or {}
    if judge.get("rate"):
        rows: list[Sequence[str]] = [
            (text(c["codec"]), *map(text, rate_cells(c))) for c in judge["rate"]
        ]
        about = (
            "Candidates of features.codec = auto, from the most bytes until one fails; of equal "
            "bytes the one of least "
            "error is judged. NMSE: error energy over centred energy, of rows and after the mean "
            "of their neighbours "
            "in a record. Points of validation accuracy that short trainings of the model lose on "
            "the code against "
            "fp32, from the same start, on records of a sample of the graph; may cost: two "
            "standard errors more."
        )
        marked = [c["codec"] == judge["codec"] for c in judge["rate"]]
        yield Block(CODES, table(("codec", *RATE_HEAD), rows, about=about, marked=marked))
    if judge:
        share = judge.get("row_pass_share")
        of = "" if share is None else f", {100 * share:.1f} % of those of the training"
        yield Block(
            CODES,
            f"<p>Chosen: {text(judge['codec'])}; {text(judge['reason'])}. Judged by "
            f"{text(judge['model'])} on "
            f"{count(judge['judged_on'])} nodes in {count(judge['row_passes'])} "
            f"row-passes{of}.</p>",
        )


def _remarks(view: View) -> Iterator[str]:
    yield from _fell_back(view)
    yield from _costs_passes(view)


def _fell_back(view: View) -> Iterator[str]:
    facts, graph = view.facts("judge"), view.facts("ingest")
    if view.values["features.codec"] != "auto":
        return
    if (
        graph.get("num_features")
        and view.values["train.model"] not in JUDGED
        and not keeps(view.values, graph)
    ):
        yield (
            f"features.codec auto: features stay without loss: no judge runs train.model "
            f"{view.values['train.model']!r}, only {', '.join(JUDGED)}; fix: "
            "name a codec, e.g. --set features.codec=sq8"
        )
    if facts and facts.get("codec") in EXACT and facts["codec"] != "fp16":
        yield (
            f"features.codec auto: features stay {facts['codec']}, no smaller code is shown to "
            f"cost at most "
            f"{100 * view.values['features.max_accuracy_drop']:.2f} points "
            f"({facts.get('reason')}); fix: "
            f"--set features.codec={facts['codec']} saves the comparison, a larger "
            f"features.max_accuracy_drop allows "
            "one"
        )


def _costs_passes(view: View) -> Iterator[str]:
    """The judge is sized for trainings of many epochs, whatever this recipe's are: its key holds
    none of them.
    """
    share = row_pass_share(view)
    if share is not None and share > SHARE + TOLERANCE:
        codec = view.facts("judge").get("codec")
        yield (
            f"choosing the codec took {100 * share:.0f} % of the rows of this training, which is a "
            f"short one; fix: "
            f"--set features.codec={codec} names the choice"
        )


def _inspect(facts: Facts, judged: Facts) -> list[str]:
    return rate_table(facts)


REPORTING = Reporting(_summary, report=_report, remarks=_remarks, inspect=_inspect)
