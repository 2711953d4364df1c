"""Learning curves show the spread of the single models and which of them is best, for one
ingredient as for fifty.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.show.chart import Line, line_chart
from stockpot.stages.show.html import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


__all__ = ["Curve", "curve", "learning_curves"]


@dataclass(frozen=True)
class Curve:
    """One ingredient's learning curve.

    Attributes
    ----------
    node : its node id.
    name : as titles say it.
    series : name -> (epoch from 1, value) pairs.
    valid_accuracy : of the weights it kept.
    """

    node: str
    name: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    valid_accuracy: float | None = None


def curve(history: Path, facts: Mapping[str, Any], node: str) -> Curve:
    """The learning curve of an artifact.

    Parameters
    ----------
    history : its `history.json`, a list with one table per epoch.
    node : its node id; a warm-up is nobody's model, and never the best.
    """
    epochs = json.loads(history.read_bytes())
    rows = epochs["epochs"] if isinstance(epochs, dict) else epochs
    series = {
        name: [
            (float(row.get("epoch", i)) + 1, float(row[name]))
            for i, row in enumerate(rows)
            if row.get(name) is not None
        ]
        for name in ("loss", "valid_accuracy")
    }
    accuracy = None if node.startswith("warmup") else facts.get("valid_accuracy")
    return Curve(node, f"{node}, seed {facts.get('seed')}", series, accuracy)


def learning_curves(learning: Sequence[Curve]) -> str:
    """Loss and validation accuracy: the best single model stands out, the others show the
    spread.
    """
    if not learning:
        return ""
    best = max(learning, key=lambda c: -1.0 if c.valid_accuracy is None else c.valid_accuracy)
    figures = []
    for name, title, scale in (
        ("loss", "training loss (nats)", 1.0),
        ("valid_accuracy", "validation accuracy (%)", 100.0),
    ):
        lines = [Line(c.name, c.series.get(name, ()), strong=c is best) for c in learning]
        lines = [line for line in lines if line.points]
        if lines:
            ends = "; ".join(
                f"{line.name}: {line.points[0][1] * scale:.4g} to {line.points[-1][1] * scale:.4g}"
                for line in lines
            )
            figures.append(f"<figure>{line_chart(lines, title, ends, 'epoch', scale)}</figure>")
    others = (
        f', <span class="key"></span> the other{f" {len(learning) - 1}" * (len(learning) > 2)}'
        if len(learning) > 1
        else ""
    )
    legend = (
        f'<p><span class="key best"></span> {text(best.name)}, the best on validation{others}</p>'
    )
    return f'<div class="charts">{"".join(figures)}</div>{legend if figures else ""}'
