"""Any DAG is drawn: arrows lead to the right, boxes do not overlap, and no arrow is drawn that a
longer way says."""

import re

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from stockpot.planning.dag import build
from stockpot.planning.recipe import from_tables
from stockpot.report.stages import boxes, draw, layers, nearest
from stockpot.stages.node import Node
from tests.pipeline.report.pages import Page


@st.composite
def dags(draw_):
    n = draw_(st.integers(1, 9))
    nodes = []
    for i in range(n):
        parents = draw_(st.sets(st.integers(0, i - 1))) if i else set()
        nodes.append(Node(f"s{i}", f"s{i}", {str(p): f"s{p}" for p in parents}))
    return nodes


@given(dags())
def test_arrows_are_the_transitive_reduction(nodes):
    graph = nx.DiGraph()
    graph.add_nodes_from(node.id for node in nodes)
    graph.add_edges_from((p, node.id) for node in nodes for p in node.parents)
    assert nearest(nodes) == sorted(nx.transitive_reduction(graph).edges)
    depth = layers(list(graph), nearest(nodes))
    for node in graph:
        ways = [depth[p] + 1 for p in graph.predecessors(node)]
        assert depth[node] == max(ways, default=0)


def rectangles(page):
    found = [a for tag, a in page.drawn if tag == "rect"]
    return [tuple(float(a[k]) for k in ("x", "y", "width", "height")) for a in found]


def bezier(path):
    """Points along `M x y [H x] C x y x y x y`."""
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", path)]
    if "H" in path:
        x0, y0, x1, *rest = numbers
        yield from ((x0 + t * (x1 - x0) / 20, y0) for t in range(21))
        numbers = [x1, y0, *rest]
    a, b, c, d = zip(numbers[::2], numbers[1::2], strict=True)
    for k in range(41):
        t = k / 40
        w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        yield tuple(sum(wi * p[j] for wi, p in zip(w, (a, b, c, d), strict=True)) for j in (0, 1))


@given(dags())
def test_nothing_overlaps_and_no_arrow_crosses_a_box(nodes):
    page = Page(f"<h1>{draw(nodes, {})}</h1>")
    found = rectangles(page)
    assert len(found) == len(nodes)
    for i, (x, y, w, h) in enumerate(found):
        for u, v, p, q in found[:i]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y
    paths = [a["d"] for tag, a in page.drawn if tag == "path" and a["class"] == "other"]
    for path in paths:
        points = list(bezier(path))
        assert points[0][0] < points[-1][0]
        for px, py in points:
            assert not any(
                x + 1 < px < x + w - 1 and y + 1 < py < y + h - 1 for x, y, w, h in found
            )


def test_the_dag_of_a_recipe():
    nodes = build(from_tables("toy", {}))
    assert nearest(nodes) == [
        ("codebook", "quantize"),
        ("hag", "pack"),
        ("influence", "hag"),
        ("influence", "order"),
        ("ingest", "partition"),
        ("ingest", "split"),
        ("judge", "codebook"),
        ("order", "train"),
        ("pack", "train"),
        ("partition", "pack"),
        ("quantize", "pack"),
        ("sizing", "influence"),
        ("soup", "codeloss"),
        ("soup", "infer"),
        ("split", "judge"),
        ("split", "sizing"),
        ("train", "soup"),
    ]
    assert boxes(nodes, {})["train"].artifacts == 8
    assert {box.words for box in boxes(nodes, {}).values()} == {"not built"}


def test_nothing_to_draw():
    assert draw([], {}) == ""
