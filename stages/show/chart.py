"""Charts as inline SVG whose axes say what they count; they read without colour: by width, by place
and by title.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.stages.show.html import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Line", "bins", "histograms", "line_chart", "meter", "svg", "ticks"]

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 260, 52, 12, 30, 40
ROW, BINS = 64, 16  # height of one histogram; about how many bars


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, (x, y) points in the order of x, and whether it stands out."""

    name: str
    points: Sequence[tuple[float, float]]
    strong: bool = False


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart, at most `most`
    steps.

    >>> ticks(0.0, 1.0, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = _step((high - low) / max(1, most))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = max(0, -math.floor(math.log10(step)))
    return [round(i * step, places) for i in range(first, last + 1)]


def _step(rough: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below `rough`."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def svg(width: int, height: int, title: str, about: str, body: Sequence[str]) -> str:
    """A picture that a screen reader can name and describe."""
    named = f"<title>{text(title)}</title><desc>{text(about)}</desc>"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{text(title)}">{named}{"".join(body)}</svg>'


def line_chart(
    lines: Sequence[Line], title: str, about: str, x_label: str, scale: float = 1.0
) -> str:
    """Lines over whole numbers; strong ones are drawn last, thick and coloured. Values are shown
    times `scale`.
    """
    found = [(x, y * scale) for line in lines for x, y in line.points]
    x0, x1 = min(x for x, _ in found), max(x for x, _ in found)
    y0, y1 = min(y for _, y in found), max(y for _, y in found)
    if y1 == y0:
        y0, y1 = y0 - max(abs(y0), 1.0) / 100, y1 + max(abs(y1), 1.0) / 100
    x1 = max(x1, x0 + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)

    floor = HEIGHT - BOTTOM
    body = [f'<text x="0" y="14">{text(title)}</text>']
    for value in ticks(y0, y1):
        at = place(x0, value)[1]
        body.append(f'<line class="axis" x1="{LEFT}" y1="{at}" x2="{WIDTH - RIGHT}" y2="{at}"/>')
        body.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{value:g}</text>')
    for value in (v for v in ticks(x0, x1) if v == int(v)):
        at = place(value, y0)[0]
        body.append(f'<line class="axis" x1="{at}" y1="{floor}" x2="{at}" y2="{floor + 4}"/>')
        body.append(f'<text x="{at}" y="{floor + 18}" text-anchor="middle">{value:.0f}</text>')
    body.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{text(x_label)}</text>'
    )
    for line in sorted(lines, key=lambda line: line.strong):
        points = [place(x, y * scale) for x, y in line.points]
        named = f"<title>{text(line.name)}</title>"
        if len(points) == 1:
            kind = "dot" if line.strong else "dim"
            body.append(
                f'<circle class="{kind}" cx="{points[0][0]}" cy="{points[0][1]}" '
                f'r="3.5">{named}</circle>'
            )
        elif points:
            path = "M" + " L".join(f"{x} {y}" for x, y in points)
            body.append(
                f'<path class="{"main" if line.strong else "other"}" d="{path}">{named}</path>'
            )
    return svg(WIDTH, HEIGHT, title, about, body)


def bins(rows: Mapping[str, Sequence[int]]) -> tuple[list[int], dict[str, list[int]]]:
    """Common edges with round steps, and how many values of each row fall in [edge, next edge).

    Returns
    -------
    (edges, row -> len(edges) - 1 counts); counts of a row add up to its values.
    """
    low, high = min(min(v) for v in rows.values()), max(max(v) for v in rows.values())
    step = max(1, int(_step((high - low + 1) / BINS)))
    first = low // step
    edges = [step * i for i in range(first, high // step + 2)]
    counts = {}
    for name, values in rows.items():
        counts[name] = [0] * (len(edges) - 1)
        for value in values:
            counts[name][value // step - first] += 1
    return edges, counts


def histograms(rows: Mapping[str, Sequence[int]], title: str, about: str, x_label: str) -> str:
    """One histogram a row, under each other on one x axis; heights are counts on one scale."""
    edges, counts = bins(rows)
    most = max(max(c) for c in counts.values())
    left, height = LEFT + 6, TOP + ROW * len(rows) + BOTTOM
    width = (WIDTH - left - RIGHT) / (len(edges) - 1)
    body = [f'<text x="0" y="14">{text(title)}</text>']
    for r, (name, found) in enumerate(counts.items()):
        base = TOP + ROW * (r + 1) - 6
        room = ROW - 22
        body.append(f'<text x="0" y="{base - 4}">{text(name)}</text>')
        body.append(
            f'<line class="axis" x1="{left}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        )
        for b, n in enumerate(found):
            if n:
                tall = max(1.0, round(room * n / most, 1))
                at = (
                    f'x="{left + b * width + 0.5:.1f}" y="{base - tall:.1f}" '
                    f'width="{width - 1:.1f}" height="{tall}"'
                )
                about_bar = f"{name}: {n:,} records of {edges[b]:,} to {edges[b + 1] - 1:,}"
                body.append(f'<rect class="bar" {at}><title>{text(about_bar)}</title></rect>')
        top = max(range(len(found)), key=found.__getitem__)
        tall = max(1.0, room * found[top] / most)
        across = left + (top + 0.5) * width
        body.append(
            f'<text x="{across:.1f}" y="{base - tall - 3:.1f}" '
            f'text-anchor="middle">{found[top]:,}</text>'
        )
    floor = TOP + ROW * len(rows) - 6
    for value in ticks(edges[0], edges[-1], most=5):
        along = left + (value - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - left - RIGHT)
        body.append(
            f'<line class="axis" x1="{along:.1f}" y1="{floor}" x2="{along:.1f}" y2="{floor + 4}"/>'
        )
        anchor = (
            "end" if along > WIDTH - 2 * RIGHT else "middle"
        )  # the last one stays inside the picture
        body.append(
            f'<text x="{along:.1f}" y="{floor + 18}" text-anchor="{anchor}">{value:,.0f}</text>'
        )
    middle = (left + WIDTH - RIGHT) / 2
    body.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">{text(x_label)}</text>')
    return svg(WIDTH, height, title, about, body)


def meter(part: float, whole: float, most: float, width: int = 120) -> str:
    """`part` of `whole` as a bar in a track, `most` being the whole width; for the eye only, beside
    its numbers.
    """
    most = max(most, part, whole, 1)
    inner, outer = round(width * part / most, 1), round(width * whole / most, 1)
    over = " over" if part > whole > 0 else ""
    track = f'<rect class="track" width="{outer}" height="10" rx="2"/>' if whole else ""
    bar = f'<rect class="bar{over}" width="{max(inner, 1.0)}" height="4" y="3"/>'
    return (
        f'<svg class="meter" viewBox="0 0 {width} 10" width="{width}" height="10" '
        f'aria-hidden="true">{track}{bar}</svg>'
    )
