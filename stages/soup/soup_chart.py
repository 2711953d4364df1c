"""Pictures of soups: accuracies with their errors, who is in which soup, and what lies between
ingredients.

They read without colour: valid and test differ by shape, negative weights have a stroke, and every
mark has a title.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.stages.show.chart import svg, ticks
from stockpot.stages.show.html import text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Path", "Scored", "Weights", "error_bars", "heat_map", "landscape"]

ROW, LEFT, RIGHT, TOP, BOTTOM = 22, 190, 16, 30, 44
WIDTH, HEIGHT = 720, 300
NUMBERS = 16  # ingredients up to which a heat map's cells hold their numbers
MOST = 0.6  # opacity of the largest weight: its number stays readable on it


@dataclass(frozen=True)
class Scored:
    """A model's accuracies (shares), each with its standard error; None where unknown."""

    name: str
    valid: float | None
    valid_error: float | None = None
    test: float | None = None
    test_error: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Weights:
    """What one method gives each ingredient: one row a group of tensors."""

    method: str
    groups: Sequence[str]
    weights: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Path:
    """Loss at points from 0 to 1 on the straight line between two models."""

    start: str
    end: str
    at: Sequence[float]
    loss: Sequence[float]
    strong: bool = False


def error_bars(rows: Sequence[Scored]) -> str:
    """One row a model: a disc for valid, a diamond for test, each on a bar of one standard error
    both ways.
    """
    ends = []
    for row in rows:
        for value, error in ((row.valid, row.valid_error), (row.test, row.test_error)):
            if value is not None:
                ends += [100 * (value - (error or 0.0)), 100 * (value + (error or 0.0))]
    low, high = min(ends), max(ends)
    if high - low < 0.2:
        low, high = low - 0.1, high + 0.1
    pad = (high - low) / 30
    low, high = low - pad, high + pad

    def place(value: float) -> float:
        return round(LEFT + (100 * value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    height = TOP + ROW * len(rows) + BOTTOM
    floor = TOP + ROW * len(rows)
    body = ['<text x="0" y="14">accuracy (%) and one standard error: ● valid, ◆ test</text>']
    for value in ticks(low, high):
        at = place(value / 100)
        body.append(f'<line class="axis" x1="{at}" y1="{TOP}" x2="{at}" y2="{floor}"/>')
        body.append(f'<text x="{at}" y="{floor + 18}" text-anchor="middle">{value:g}</text>')
    for r, row in enumerate(rows):
        y = TOP + ROW * r + ROW // 2
        kind = ("main", "dot") if row.strong else ("other", "dim")
        name = f'<tspan class="name">{text(row.name)}</tspan>' if row.strong else text(row.name)
        body.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{name}</text>')
        for what, value, error, by in (
            ("valid", row.valid, row.valid_error, -4),
            ("test", row.test, row.test_error, 4),
        ):
            if value is None:
                continue
            said = f"{row.name}, {what}: {100 * value:.2f}" + (
                f" ± {100 * error:.2f} %" if error else " %"
            )
            x, at = place(value), y + by
            if error:
                body.append(
                    f'<path class="{kind[0]}" d="M{place(value - error)} {at} '
                    f'L{place(value + error)} {at}"/>'
                )
            named = f"<title>{text(said)}</title>"
            if what == "valid":
                body.append(
                    f'<circle class="{kind[1]}" cx="{x}" cy="{at}" r="3.5">{named}</circle>'
                )
            else:
                diamond = (
                    f"M{x} {at - 4.5} L{round(x + 4.5, 1)} {at} L{x} {at + 4.5} "
                    f"L{round(x - 4.5, 1)} {at} Z"
                )
                body.append(f'<path class="{kind[1]}" d="{diamond}">{named}</path>')
    about = "; ".join(
        f"{row.name}: valid {_share(row.valid, row.valid_error)}, test "
        f"{_share(row.test, row.test_error)}"
        for row in rows
    )
    return svg(WIDTH, height, "accuracy with standard errors", about, body)


def _share(value: float | None, error: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{100 * value:.2f} %" + (f" ± {100 * error:.2f}" if error else "")


def heat_map(tables: Sequence[Weights]) -> str:
    """One block a method, one row a group of tensors, one column an ingredient; darker is more of
    that soup.
    """
    count = len(tables[0].weights[0])
    cell = max(12, min(46, (WIDTH - LEFT) // count))
    width = LEFT + cell * count + RIGHT
    body, y = ['<text x="0" y="14">weight of each ingredient in each soup</text>'], TOP
    step = max(1, -(-26 // cell))
    body += [
        f'<text x="{LEFT + cell * i + cell / 2}" y="{y + 10}" text-anchor="middle">{i}</text>'
        for i in range(0, count, step)
    ]
    y += 18
    for block in tables:
        single = len(block.groups) == 1
        most = max(abs(w) for row in block.weights for w in row) or 1.0
        if not single:
            body.append(
                f'<text x="0" y="{y + 14}"><tspan class="name">{text(block.method)}</tspan></text>'
            )
            y += ROW
        for group, row in zip(block.groups, block.weights, strict=True):
            label = (
                f'<tspan class="name">{text(block.method)}</tspan>'
                if single
                else text(_short(group))
            )
            x = 0 if single else LEFT - 10
            anchor = "" if single else ' text-anchor="end"'
            body.append(f'<text x="{x}" y="{y + 14}"{anchor}>{label}</text>')
            for i, weight in enumerate(row):
                body.append(
                    _cell(
                        LEFT + cell * i,
                        y,
                        cell,
                        weight,
                        most,
                        f"{block.method}, {group}, ingredient {i}",
                    )
                )
                if count <= NUMBERS and abs(weight) >= 0.005:
                    at = f'x="{LEFT + cell * i + cell / 2}" y="{y + 14}" text-anchor="middle"'
                    body.append(f'<text class="ink" {at}>{_number(weight)}</text>')
            y += ROW
        y += 8
    about = "; ".join(
        f"{t.method}, {g}: {' '.join(f'{w:.2f}' for w in row)}"
        for t in tables
        for g, row in zip(t.groups, t.weights, strict=True)
    )
    return svg(width, y + 4, "weights of the ingredients", about, body)


def _cell(x: float, y: float, width: float, weight: float, most: float, name: str) -> str:
    kind = "over minus" if weight < 0 else "dot"
    shade = f'fill-opacity="{MOST * abs(weight) / most:.3f}"'
    at = f'x="{x + 1}" y="{y}" width="{width - 2}" height="{ROW - 2}"'
    return (
        f'<rect class="{kind}" {shade} {at}><title>{text(f"{name}: {weight:.4f}")}</title></rect>'
    )


def _number(weight: float) -> str:
    return f"{weight:.2f}".replace("0.", ".").replace("-.", "\N{MINUS SIGN}.")


def _short(group: str) -> str:
    """The end of a long name: that is where tensors differ."""
    return group if len(group) <= 26 else "…" + group[-25:]


def landscape(paths: Sequence[Path]) -> str:
    """Loss along straight lines, each from its start on the left to its end on the right, where it
    is named.
    """
    values = [v for p in paths for v in p.loss]
    low, high = min(values), max(values)
    if high - low < 1e-6:
        low, high = low - 0.01, high + 0.01
    right = 200

    def place(at: float, loss: float) -> tuple[float, float]:
        across = 56 + at * (WIDTH - 56 - right)
        return round(across, 1), round(
            TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM), 1
        )

    floor = HEIGHT - BOTTOM
    body = ['<text x="0" y="14">loss (nats) along straight lines between weights</text>']
    for value in ticks(low, high):
        y = place(0, value)[1]
        body.append(f'<line class="axis" x1="56" y1="{y}" x2="{WIDTH - right}" y2="{y}"/>')
        body.append(f'<text x="50" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for at in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = place(at, low)[0]
        body.append(f'<line class="axis" x1="{x}" y1="{floor}" x2="{x}" y2="{floor + 4}"/>')
        body.append(f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{at:g}</text>')
    starts = list(dict.fromkeys(p.start for p in paths))
    label = (
        f"from {starts[0]} (0) to the model named (1)"
        if len(starts) == 1
        else "from one model (0) to the other (1)"
    )
    body.append(
        f'<text x="{place(0.5, low)[0]}" y="{HEIGHT - 6}" text-anchor="middle">{text(label)}</text>'
    )
    ends = _spread([place(p.at[-1], p.loss[-1])[1] for p in paths], 14, TOP + 4, floor + 8)
    order = sorted(range(len(paths)), key=lambda i: paths[i].strong)
    for i in order:
        path = paths[i]
        points = [place(a, v) for a, v in zip(path.at, path.loss, strict=True)]
        named = f"<title>{text(f'{path.start} to {path.end}')}</title>"
        kind = ("main", "dot") if path.strong else ("other", "dim")
        drawn = "M" + " L".join(f"{x} {y}" for x, y in points)
        body.append(f'<path class="{kind[0]}" d="{drawn}">{named}</path>')
        for (x, y), value in zip(points, path.loss, strict=True):
            body.append(
                f'<circle class="{kind[1]}" cx="{x}" cy="{y}" '
                f'r="2.5"><title>{value:.4f}</title></circle>'
            )
        name = path.end if len(starts) == 1 else f"{path.start} to {path.end}"
        name = f'<tspan class="name">{text(name)}</tspan>' if path.strong else text(name)
        x, y = points[-1]
        body.append(f'<path class="axis" d="M{x + 4} {y} L{x + 14} {ends[i]}"/>')
        body.append(f'<text x="{x + 18}" y="{ends[i] + 4}">{name}</text>')
    about = "; ".join(
        f"{p.start} to {p.end}: {' '.join(f'{v:.4g}' for v in p.loss)}" for p in paths
    )
    return svg(WIDTH, HEIGHT, "loss between ingredients and soup", about, body)


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near those wanted, `gap` apart and from `low` to `high`, in the same order; closer
    where too many.
    """
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    last = low - gap
    for i in order:
        last = placed[i] = max(wanted[i], last + gap)
    limit = high
    for i in reversed(order):
        limit = placed[i] = min(placed[i], limit)
        limit -= gap
    return [round(p, 1) for p in placed]
