"""Synthetic graphs: values are a pure function of parameters and position, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.source import describe
from stockpot.stages.ingest.sources.synthetic import (
    SyntheticDataSet,
    _backward,
    _forward,
    _key,
    _order,
    _root,
)
from stockpot.stages.ingest.sources.synthetic_source import counts, parse
from stockpot.store.digests import source_digest

NAME = "communities?nodes=3e3&edges=40000&classes=5&communities=20&features=8&seed=3"


def made(name=NAME):
    return SyntheticDataSet(f"synthetic:{name}", parse(f"synthetic:{name}", name))


def all_edges(data, most):
    blocks = list(data.edges(most))
    assert max(len(block.source) for block in blocks) <= most
    return np.concatenate([np.stack([block.source, block.target]) for block in blocks], axis=1)


WHOLE = all_edges(made(), 1 << 20)


@given(most=st.integers(1000, 50_000))
def test_any_blocks_give_the_same_edges(most):
    assert np.array_equal(all_edges(made(), most), WHOLE)


@given(start=st.integers(0, 3000), stop=st.integers(0, 3000))
def test_any_blocks_give_the_same_rows(start, stop):
    features = made().features()
    whole = features.rows(0, 3000)
    assert np.array_equal(features.rows(start, stop), whole[start:stop])


@given(nodes=st.integers(2, 5000), seed=st.integers(0, 2**64 - 1))
def test_the_order_of_nodes_is_a_bijection(nodes, seed):
    order = _order(nodes, np.uint64(seed))
    there = [int(_forward(np.uint64(i), order)) for i in range(0, nodes, max(1, nodes // 50))]
    assert [int(_backward(np.uint64(v), order)) for v in there] == list(
        range(0, nodes, max(1, nodes // 50))
    )
    assert max(there) < nodes
    if nodes < 300:
        assert sorted(int(_forward(np.uint64(i), order)) for i in range(nodes)) == list(
            range(nodes)
        )


def test_the_bytes_of_a_generator_version_stand():
    """Another sum means another graph under the same key: raise `GENERATOR`."""
    assert WHOLE[:, :4].tolist() == EDGES
    data = made()
    assert data.labels()[:12].tolist() == LABELS
    assert data.features().rows(7, 8)[0, :4].tolist() == pytest.approx(ROW, abs=0)
    assert data.splits()[0]["valid"][:5].tolist() == VALID


EDGES = [[2591, 1290, 2238, 739], [1682, 1846, 2342, 238]]
LABELS = [0, 4, 2, 2, 2, 4, 4, 1, 3, 2, 3, 3]
ROW = [6.60333776473999, 3.9066288471221924, 1.0689208507537842, -2.2079577445983887]
VALID = [4, 5, 9, 10, 13]


def test_what_is_planted_is_found():
    data, source, target = made(), *WHOLE
    assert (source != target).all()
    order = _order(3000, _key(3, 6))
    community = np.array([int(_backward(np.uint64(v), order)) for v in range(3000)]) % 20
    # 80 % stay, and of the rest one in 20 by chance.
    assert np.mean(community[source] == community[target]) == pytest.approx(
        0.8 + 0.2 / 20, abs=0.01
    )
    labels = data.labels()
    assert np.mean(labels == community % 5) == pytest.approx(0.95 + 0.05 / 5, abs=0.015)
    assert np.bincount(community[source]) == pytest.approx(np.full(20, 2000), rel=0.1)
    x = data.features().rows(0, 3000)
    centroids = np.stack([x[community % 5 == c].mean(axis=0) for c in range(5)])
    assert np.std(x - centroids[community % 5]) == pytest.approx(4.0, rel=0.02)
    assert np.std(centroids) == pytest.approx(1.0, rel=0.4)


@pytest.mark.parametrize("hubs", [0, 1, 2, 3])
def test_degrees_follow_the_power_law(hubs):
    """Against the expected share of every rank: the integral of x^(1/p - 1) over it."""
    data = made(f"communities?nodes=2000&edges=4e5&classes=2&communities=2&inside=1&hubs={hubs}")
    source = all_edges(data, 1 << 20)[0]
    order = _order(2000, _key(0, 6))
    rank = np.array([int(_backward(np.uint64(v), order)) for v in range(2000)]) // 2
    found = np.bincount(rank[source], minlength=1000) / len(source)
    bounds = np.arange(1, 1002) ** (1 / (hubs + 1))
    expected = np.diff(bounds) / (bounds[-1] - bounds[0])
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected.max() / len(source)) + 1e-4)


def test_roots():
    for power in (1, 2, 3, 4):
        for value in (2, 999, 2**31):
            assert _root(value, power) == pytest.approx(value ** (1 / power), rel=1e-14)


def test_counts_are_exact_and_splits_disjoint():
    for extra in ("features=9", "labelled=0.1", "train=0.01&valid=0.01", "features=0"):
        name = f"communities?nodes=3e3&edges=40000&{extra}"
        told, data = counts(describe(f"synthetic:{name}")), made(name)
        (split,) = data.splits()
        labels = data.labels()
        assert {name: len(ids) for name, ids in split.items()} == told["splits"]
        every = np.concatenate(list(split.values()))
        assert len(np.unique(every)) == len(every) == told["labelled"] == (labels >= 0).sum()
        assert (labels[every] >= 0).all()
        assert all((np.diff(ids) > 0).all() for ids in split.values())
        assert told["num_edges_stored"] == data.num_edges == 40_000
        features = data.features()
        assert told["num_features"] == (0 if features is None else features.columns)


def test_the_digest_is_that_of_the_parameters():
    def digest(source):
        return source_digest(describe(source), pytest.fail)

    base = digest("synthetic:communities?nodes=1e4")
    assert (
        base
        == digest("synthetic:communities")
        == digest("synthetic:communities?nodes=10000&inside=.8")
    )
    others = [
        digest(f"synthetic:communities?{o}")
        for o in ("seed=1", "inside=0.7", "edges=1e4", "noise=1", "hubs=2")
    ]
    assert len({base, *others}) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("nodes=1", "nodes: expected 10 to 2147483647, found 1"),
        ("edges=999", "edges: expected 1000 to"),
        ("edges=1e5.5", "edges: expected a whole number, found '1e5.5'"),
        ("inside=1.5", "inside: expected 0.0 to 1.0, found 1.5"),
        ("noise=nan", "noise: expected a number, found 'nan'"),
        ("hubs=4", "hubs: expected 0 to 3"),
        ("train=0.6&valid=0.4", "train, valid: expected shares below 1 together"),
        ("node=5", "unknown option 'node', nearest is nodes"),
        ("nodes=50&nodes=60", "nodes: expected nodes=VALUE once, found it twice"),
        ("seed", "expected seed=VALUE once, found no value"),
        ("nodes=20&classes=16", "communities: expected 16 (classes) to 10 (half the nodes)"),
        (
            "communities=3&classes=4",
            "communities: expected 4 (classes) to 5000 (half the nodes), found 3",
        ),
    ],
)
def test_parameters_that_are_refused(options, words):
    with pytest.raises(BadInput, match=r"dataset\.source synthetic:") as caught:
        describe(f"synthetic:communities?{options}")
    assert words in str(caught.value)
