"""What calibrate says of a run: which precision was taken, and by which measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.built import Block, pick, sentence
from stockpot.stages.stage import Reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stockpot.stages.built import View

__all__ = ["REPORTING"]

_FIGURES = ("precision", "fp32_ms", "bf16_ms", "device", "flags")


def _summary(view: View) -> Mapping[str, Any]:
    facts = view.facts("calibrate")
    return {"stages": {"calibrate": pick(facts, *_FIGURES)}} if facts else {}


def _report(summary: Mapping[str, Any], view: View) -> Iterator[Block]:
    if not (found := summary["stages"].get("calibrate")) or not found.get("precision"):
        return
    other = found["bf16_ms"]
    against = "the device has no bf16" if other is None else f"{other:.2f} ms in bf16"
    yield sentence(
        f"train.precision = auto is {found['precision']}: a dense layer, forward and backward, "
        f"took {found['fp32_ms']:.2f} ms in fp32, and {against}, on the machine that measured it "
        f"first ({found['device']}); all that share the store follow."
    )


REPORTING = Reporting(_summary, report=_report)
