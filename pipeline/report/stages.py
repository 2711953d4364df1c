"""The DAG as inline SVG, a box a stage: any DAG is drawn left to right, and no arrow crosses a box.

Layers are longest paths from the sources. An arrow over several layers passes a free slot in each
(Sugiyama, Tagawa and Toda 1981); slots are ordered by the mean place of their neighbours. O(stages
* arrows).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stockpot.stages.show.html import text
from stockpot.stages.show.plain import human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.node import Node

__all__ = ["Box", "boxes", "draw", "layers", "nearest"]

WIDE, TALL, GAP, SPACE, LANE = 134, 104, 30, 16, 18
"""Size of a box, room between layers and between boxes, height of an arrow's slot; in pixels."""
SWEEPS = 8


@dataclass(frozen=True)
class Box:
    """What a box says: a stage, how many of its artifacts there are, and their sums (peaks: the
    largest).

    Attributes
    ----------
    state : "built" (at least one by this run), "cached", or "missing" (at least one is not there).
    words : the state as it is written.
    """

    stage: str
    artifacts: int
    state: str
    words: str
    seconds: float | None = None
    bytes: int | None = None
    peak_bytes: int | None = None
    projected_bytes: int | None = None


def boxes(nodes: Sequence[Node], artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, Box]:
    """Stage -> its box, in the order of `nodes`.

    Parameters
    ----------
    nodes : all nodes of the recipe.
    artifacts : `summary["artifacts"]`, the committed ones.
    """
    found = {}
    for stage in dict.fromkeys(node.stage for node in nodes):
        ids = [node.id for node in nodes if node.stage == stage]
        there = [artifacts[i] for i in ids if i in artifacts]
        fresh = sum(not a["cached"] for a in there)
        if len(there) < len(ids):
            words = f"{len(there)} of {len(ids)} there" if there else "not built"
            state = "missing"
        else:
            state = "built" if fresh else "cached"
            words = f"{fresh} of {len(ids)} built" if 0 < fresh < len(ids) else state
        if not there:
            found[stage] = Box(stage, len(ids), state, words)
            continue
        projected = [a["projected_bytes"] for a in there if a["projected_bytes"] is not None]
        found[stage] = Box(
            stage,
            len(ids),
            state,
            words,
            sum(a["seconds"] for a in there),
            sum(a["bytes"] for a in there),
            max(a["peak_bytes"] for a in there),
            max(projected, default=None),
        )
    return found


def nearest(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Arrows between stages, without those that a longer way says already (transitive reduction),
    sorted.
    """
    stage_of = {node.id: node.stage for node in nodes}
    above: dict[str, set[str]] = {stage: set() for stage in stage_of.values()}
    for node in nodes:
        above[node.stage] |= {stage_of[parent] for parent in node.parents} - {node.stage}
    everything: dict[str, set[str]] = {}
    for stage in (
        above
    ):  # nodes are in topological order, but a stage's last node may come after its reader's first
        _reach(stage, above, everything)
    return sorted(
        (parent, stage)
        for stage, parents in above.items()
        for parent in parents
        if not any(parent in everything[other] for other in parents if other != parent)
    )


def _reach(stage: str, above: Mapping[str, set[str]], known: dict[str, set[str]]) -> set[str]:
    if stage not in known:
        known[stage] = set()
        known[stage] = above[stage].union(
            *(_reach(parent, above, known) for parent in above[stage])
        )
    return known[stage]


def layers(stages: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Stage -> length of the longest way to it from a source."""
    depth = dict.fromkeys(stages, 0)
    for _ in stages:
        for parent, stage in arrows:
            depth[stage] = max(depth[stage], depth[parent] + 1)
    return depth


Slot = tuple[str, ...]
"""(stage,) is a box; (parent, stage, layer) the passage of an arrow through a layer."""


def _slots(
    depth: Mapping[str, int], arrows: Sequence[tuple[str, str]]
) -> tuple[list[list[Slot]], list[tuple[Slot, Slot]]]:
    """Slots of each layer in drawing order, and the links between neighbouring layers."""
    columns: list[list[Slot]] = [[] for _ in range(max(depth.values()) + 1)]
    for stage, layer in depth.items():
        columns[layer].append((stage,))
    links: list[tuple[Slot, Slot]] = []
    for parent, stage in arrows:
        way: list[Slot] = [(parent,)]
        for layer in range(depth[parent] + 1, depth[stage]):
            way.append((parent, stage, str(layer)))
            columns[layer].append(way[-1])
        way.append((stage,))
        links += pairwise(way)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        place = {
            slot: i / max(1, len(c) - 1) if len(c) > 1 else 0.5
            for c in columns
            for i, slot in enumerate(c)
        }
        for column in columns if forward else reversed(columns):
            wish = {}
            for slot in column:
                near = (
                    [place[a] for a, b in links if b == slot]
                    if forward
                    else [place[b] for a, b in links if a == slot]
                )
                wish[slot] = sum(near) / len(near) if near else place[slot]
            column.sort(key=lambda slot: (wish[slot], place[slot], slot))
            place |= {
                slot: i / max(1, len(column) - 1) if len(column) > 1 else 0.5
                for i, slot in enumerate(column)
            }
    return columns, links


def draw(nodes: Sequence[Node], artifacts: Mapping[str, Mapping[str, Any]]) -> str:
    """The picture; empty where there are no nodes."""
    found, arrows = boxes(nodes, artifacts), nearest(nodes)
    if not found:
        return ""
    depth = layers(list(found), arrows)
    columns, links = _slots(depth, arrows)
    heights = [
        sum(TALL if len(s) == 1 else LANE for s in c) + SPACE * (len(c) - 1) for c in columns
    ]
    height, width = max(heights) + 4, len(columns) * (WIDE + GAP) - GAP + 4
    middle: dict[Slot, tuple[float, float]] = {}
    body: list[str] = []
    for i, column in enumerate(columns):
        y = 2 + (height - 4 - heights[i]) / 2
        for slot in column:
            tall = TALL if len(slot) == 1 else LANE
            middle[slot] = (2 + i * (WIDE + GAP), y + tall / 2)
            if len(slot) == 1:
                body.append(_box(found[slot[0]], middle[slot][0], y))
            y += tall + SPACE
    lines = [_arrow(middle[a], middle[b], a, b) for a, b in links]
    words = "; ".join(f"{box.stage}: {', '.join(_lines(box))}" for box in found.values())
    flows = ", ".join(f"{a} to {b}" for a, b in arrows)
    title = f"Stages of the run, {len(found)} boxes"
    return (
        f'<svg class="dag" viewBox="0 0 {width} {height:.0f}" role="img" '
        f'aria-label="{text(title)}">'
        f"<title>{text(title)}</title><desc>{text(words)}. Arrows: {text(flows)}.</desc>"
        f"{''.join(lines)}{''.join(body)}</svg>"
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], a: Slot, b: Slot) -> str:
    """From the right side of a slot to the left side of the next; a passage is drawn straight
    through its layer.
    """
    x0, y0, x1, y1 = start[0] + WIDE, start[1], end[0], end[1]
    through = f"M{start[0]:.0f} {y0:.1f} H{x0:.0f} " if len(a) > 1 else f"M{x0:.0f} {y0:.1f} "
    tip = 6 if len(b) == 1 else 0
    bend = (x0 + x1 - tip) / 2
    path = f"{through}C{bend:.0f} {y0:.1f} {bend:.0f} {y1:.1f} {x1 - tip:.0f} {y1:.1f}"
    head = f'<path class="arrow" d="M{x1:.0f} {y1:.1f} l-7 -4 v8 z"/>' if tip else ""
    return f'<path class="other" d="{path}"/>{head}'


def _lines(box: Box) -> list[str]:
    """What stands in a box under its name."""
    if box.seconds is None or box.bytes is None or box.peak_bytes is None:
        return [box.words]
    said = [
        box.words,
        f"{box.seconds:,.1f} s",
        f"{human_bytes(box.bytes)} stored",
        f"peak {human_bytes(box.peak_bytes)}",
    ]
    return (
        said
        if box.projected_bytes is None
        else [*said, f"projected {human_bytes(box.projected_bytes)}"]
    )


def _box(box: Box, x: float, y: float) -> str:
    times = f" × {box.artifacts}" if box.artifacts > 1 else ""
    body = [
        (
            f'<rect class="box {box.state}" x="{x}" y="{y:.1f}" width="{WIDE}" height="{TALL}" '
            f'rx="6"/>'
        ),
        f'<text class="name" x="{x + 9}" y="{y + 19:.1f}">{text(box.stage)}{times}</text>',
    ]
    for i, line in enumerate(_lines(box)):
        body.append(f'<text x="{x + 9}" y="{y + 36 + 15 * i:.1f}">{text(line)}</text>')
    return "".join(body)
