import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings

from stockpot.stages.errors import BadInput, StockpotError
from stockpot.stages.partition import STAGE
from stockpot.stages.partition.blocks import blocks, num_blocks
from stockpot.stages.partition.cut import balance, edge_cut, symmetric
from stockpot.stages.partition.parhip import write_parhip
from stockpot.stages.partition.solver import solve
from tests.memory import run_stage
from tests.stages.graphs import communities, csr, graphs, reader

ROOT = Path(__file__).resolve().parents[3]
METHODS = ("metis", "kaminpar", "stream")
VALUES = {"partition.method": "auto", "partition.parts": "auto"}


def facts(nodes, nnz, *, directed=False):
    return {"graph": {"num_nodes": nodes, "nnz": nnz, "directed": directed}}


def params(graph, **values):
    return STAGE.resolve(
        {**VALUES, **{k.replace("__", "."): v for k, v in values.items()}}, {"graph": graph.facts}
    )


@pytest.mark.parametrize("method", METHODS)
def test_communities_are_found_and_reported(tmp_path, method):
    edges, _ = communities(800, 8, within=0.97)
    graph = reader(*csr(800, edges)[:2])
    chosen = params(graph, partition__parts=8, partition__method=method)
    out = run_stage(STAGE, chosen, {"graph": graph}, tmp_path)
    part = out.array("part")
    assert part.dtype == np.int32
    assert part.shape == (800,)
    assert set(out.facts) == {"method", "parts", "num_nodes", "edge_cut", "balance"}
    rows = np.repeat(np.arange(800), np.diff(graph.array("indptr")))
    cut = (part[rows] != part[graph.array("indices")]).mean()
    assert out.facts["edge_cut"] == pytest.approx(cut, abs=1e-6)
    assert cut < 0.3
    assert out.facts["balance"] == pytest.approx(np.bincount(part, minlength=8).max() / 100)
    again = run_stage(STAGE, chosen, {"graph": graph}, tmp_path / "again")
    np.testing.assert_array_equal(part, again.array("part"))


def test_what_metis_is_given_has_no_loops_and_each_edge_both_ways():
    pattern = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]], bool)
    indptr, indices = (
        np.concatenate([[0], np.cumsum(pattern.sum(1))]),
        np.nonzero(pattern)[1].astype(np.int32),
    )
    found_ptr, found = symmetric(indptr, indices)
    assert found_ptr.tolist() == [0, 1, 3, 3, 4]
    assert found.tolist() == [1, 0, 3, 1]


def test_directed_graphs_are_symmetrised(tmp_path):
    edges, _ = communities(300, 4)
    directed = reader(*csr(300, edges, undirected=False)[:2], directed=True)
    both = reader(*csr(300, edges)[:2])
    a = run_stage(STAGE, params(directed, partition__parts=5), {"graph": directed}, tmp_path / "a")
    b = run_stage(STAGE, params(both, partition__parts=5), {"graph": both}, tmp_path / "b")
    np.testing.assert_array_equal(a.array("part"), b.array("part"))
    assert a.facts == b.facts


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_symmetric_pattern_against_scipy(graph):
    indptr, indices, _, _ = graph
    n = len(indptr) - 1
    expected = sp.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(n, n)).toarray()
    got_ptr, got = symmetric(indptr, indices)
    dense = sp.csr_matrix((np.ones(len(got)), got, got_ptr), shape=(n, n)).toarray()
    np.testing.assert_array_equal(dense, (expected + expected.T > 0).astype(float))
    assert got_ptr.dtype == np.int64
    assert got.dtype == np.int32
    part = (np.arange(n) % 3).astype(np.int32)
    rows, cols = np.nonzero(dense)
    assert edge_cut(got_ptr, got, part) == pytest.approx(
        (part[rows] != part[cols]).mean() if len(rows) else 0.0
    )
    assert balance(part, 3) >= 1.0


@pytest.mark.parametrize(
    ("nodes", "edges", "parts"),
    [
        (1, [], 1),
        (1, [], 64),
        (5, [(0, 1)], 64),
        (5, [(0, 1)], 5),
        (90, [], 64),
        (9, [], 2),
        (40, [(0, 1)], 1),
        (40, [(0, 1), (2, 3)], 3),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_degenerate_graphs(tmp_path, nodes, edges, parts, method):
    graph = reader(*csr(nodes, edges)[:2])
    chosen = params(graph, partition__parts=parts, partition__method=method)
    out = run_stage(STAGE, chosen, {"graph": graph}, tmp_path)
    part = out.array("part")
    assert part.shape == (nodes,)
    assert part.min() >= 0
    assert part.max() < parts
    assert out.facts["balance"] >= 1.0 or parts > nodes
    assert 0 <= out.facts["edge_cut"] <= 1


def test_auto_parts_come_in_multiples_of_64():
    for nodes, parts in [(117_659, 512), (13_752, 64), (100, 64), (10, 10), (1, 1), (10**6, 4352)]:
        assert STAGE.resolve(VALUES, facts(nodes, 10)).parts == parts


def test_auto_method_follows_from_counts():
    for nnz, directed, method in [
        (10, False, "metis"),
        (491_722, False, "metis"),
        (999_999, False, "metis"),
        (1_000_000, False, "kaminpar"),
        (499_999, True, "metis"),
        (500_000, True, "kaminpar"),
        (2_000_000_000, False, "kaminpar"),
        (2_200_000_000, False, "stream"),
    ]:
        assert STAGE.resolve(VALUES, facts(1000, nnz, directed=directed)).method == method


def test_a_missing_kaminpar_is_an_error_and_never_another_method(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert STAGE.resolve(VALUES, facts(1000, 10)).method == "metis"
    with pytest.raises(BadInput, match="kaminpar is not installed; fix: pip install kaminpar"):
        STAGE.resolve(VALUES, facts(1000, 10**7))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise SystemExit('out of memory')", r"exit status 1 \(out of memory\)"),
        ("pass", "exit status 0"),
    ],
)
def test_a_crash_of_the_child_is_one_line(tmp_path, code, text):
    indptr, indices, _ = csr(10, [(0, 1), (1, 2)])
    with pytest.raises(StockpotError, match=text) as error:
        solve(indptr, indices, 2, seed=0, folder=tmp_path, child=(sys.executable, "-c", code))
    assert "10 nodes, 4 directed edges, 2 parts" in str(error.value)
    assert "\n" not in str(error.value)


def test_parhip_holds_what_kaminpar_reads(tmp_path):
    kaminpar = pytest.importorskip("kaminpar")
    indptr, indices, _ = csr(6, [(0, 1), (1, 2), (0, 4), (4, 2), (2, 0)])
    write_parhip(tmp_path / "g", indptr, indices)
    graph = kaminpar.load_graph(str(tmp_path / "g"), kaminpar.GraphFileFormat.PARHIP)
    assert (graph.n(), graph.m()) == (6, len(indices))
    assert not graph.is_node_weighted()
    assert not graph.is_edge_weighted()
    for node in range(6):
        assert [n for n, _ in graph.neighbors(node)] == indices[
            indptr[node] : indptr[node + 1]
        ].tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_a_killed_parent_leaves_no_child(tmp_path):
    child = (
        "import os, sys, time, pathlib; from stockpot.stages.partition.child import die_with\n"
        "die_with(int(sys.argv[2])); pathlib.Path(sys.argv[1], "
        "'pid').write_text(str(os.getpid())); time.sleep(60)"
    )
    parent = (
        "import sys, pathlib, numpy as np; from stockpot.stages.partition.solver import solve\n"
        "solve(np.array([0, 1, 2, 2]), np.array([1, 0], np.int32), 2, seed=0, "
        "folder=pathlib.Path(sys.argv[1]),"
        f" child=(sys.executable, '-c', {child!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)], cwd=ROOT)
    pid = tmp_path / "pid"
    for _ in range(300):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid.read_text()}/stat").read_text().split(")")[1].split()[0] == "Z":
            return  # killed, and waiting only for the init process of this container
        time.sleep(0.05)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def test_blocks_are_runs_of_parts():
    for parts in (1, 5, 63, 64, 65, 512):
        block = blocks(np.arange(parts), parts)
        assert block.dtype == np.int32
        assert (np.diff(block) >= 0).all()
        assert block.min() == 0
        assert block.max() == num_blocks(parts) - 1
        assert len(np.unique(block)) == num_blocks(parts)
    assert num_blocks(7, K=4) == 4


def test_a_guess_that_counts_too_many_edges_still_projects_enough():
    """Edges both ways are counted twice before they are read: `auto` then turns out METIS, which
    takes more."""
    values = {"partition.method": "auto", "partition.parts": 64}
    peaks = {}
    for nnz in (1_800_000, 900_000):
        facts = {"graph": {"num_nodes": 89_250, "nnz": nnz, "directed": False, "max_degree": 1000}}
        params = STAGE.resolve(values, facts)
        peaks[params.method] = STAGE.cost(params, facts).peak
    assert peaks["kaminpar"] >= peaks["metis"]
