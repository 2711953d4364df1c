"""Accuracy against CPU seconds as an SVG of its own, each line named at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.show.chart import svg, ticks
from stockpot.stages.show.html import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.time_to_accuracy import Curve

__all__ = ["chart"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 360, 50, 190, 34, 44
LINE = 14
"""Height of a line of text: names stand so far apart."""
SHOWN = 0.12
"""Accuracies shown, below the best one: what comes before says little."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, which differ for all eyes; a dash pattern differs too."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "5 5")


def chart(curves: Mapping[str, Curve], starts: Mapping[str, float], title: str) -> str:
    """Test accuracy in % over CPU seconds, a line a side.

    Parameters
    ----------
    starts : CPU seconds of each side's preprocessing, where its line begins.
    """
    lines = {
        name: [(starts[name] + point.seconds, 100 * point.test) for point in curve]
        for name, curve in curves.items()
        if curve
    }
    right = max(x for line in lines.values() for x, _ in line)
    top = max(y for line in lines.values() for _, y in line)
    low = max(min(y for line in lines.values() for _, y in line), top - 100 * SHOWN)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / right * (WIDTH - LEFT - RIGHT)
        up = (y - low) / max(top - low, 1e-9)
        return round(across, 1), round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1)

    style = (
        "<style>text{font:12px sans-serif;fill:#222}.axis{stroke:#ccc}"
        "path{fill:none;stroke-width:2}</style>"
    )
    body = [style, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="8" y="18">{text(title)}</text>']  # fmt: skip
    for value in ticks(low, top):
        at = place(0, value)[1]
        body.append(f'<line class="axis" x1="{LEFT}" y1="{at}" x2="{WIDTH - RIGHT}" y2="{at}"/>')
        body.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{value:g}</text>')
    floor = HEIGHT - BOTTOM
    for value in ticks(0, right):
        at = place(value, low)[0]
        body.append(f'<line class="axis" x1="{at}" y1="{floor}" x2="{at}" y2="{floor + 4}"/>')
        body.append(f'<text x="{at}" y="{floor + 18}" text-anchor="middle">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    about = "CPU seconds, preprocessing and validation included"
    body.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{about}</text>')
    names = _apart({name: place(*line[-1])[1] for name, line in lines.items()})
    for i, (name, line) in enumerate(lines.items()):
        drawn = [place(x, y) for x, y in line if y >= low]
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        path = "M" + " L".join(f"{x} {y}" for x, y in drawn)
        body.append(
            f'<path d="{path}" stroke="{colour}" stroke-dasharray="{dash}">'
            f"<title>{text(name)}</title></path>"
        )
        key, at = WIDTH - RIGHT + 6, names[name]
        body.append(
            f'<path d="M{key} {at - 4} L{key + 26} {at - 4}" stroke="{colour}" '
            f'stroke-dasharray="{dash}"/><text x="{key + 32}" y="{at}">{text(name)}</text>'
        )
    whole = svg(WIDTH, HEIGHT, title, f"Test accuracy in %, over {about}", body)
    return whole.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _apart(wanted: Mapping[str, float]) -> dict[str, float]:
    """Heights near the wanted ones, at least a line of text apart, inside the picture."""
    placed: dict[str, float] = {}
    last = float(TOP)
    for name in sorted(wanted, key=wanted.__getitem__):
        last = placed[name] = max(wanted[name] + 4, last + LINE)
    over = max(0.0, last - (HEIGHT - BOTTOM))
    return {name: at - over for name, at in placed.items()}
