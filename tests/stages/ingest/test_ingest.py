import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest import STAGE, csr_memory
from stockpot.stages.ingest.buckets import row_ranges
from stockpot.stages.ingest.csr import build_csr, row_sums, turned
from stockpot.stages.ingest.features import SparseRows
from stockpot.stages.ingest.source_data import EdgeBlock
from tests.memory import MemoryReader, run_stage


class Source(MemoryReader):
    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def path(self, name):
        assert name == "source"
        return self.file


def arrays(**changes):
    """A sound data set of 6 nodes: a multi-edge, a self-loop, an isolated node, an unlabelled
    one."""
    found = {
        "edge_index": np.array([[0, 0, 1, 2, 2, 4], [1, 1, 2, 2, 3, 0]]),
        "num_nodes": np.array(6),
        "x": np.arange(12, dtype=np.float32).reshape(6, 2),
        "y": np.array([0, 1, 2, -1, 0, 1]),
        **changes,
    }
    return {name: values for name, values in found.items() if values is not None}


def ingest(tmp_path, undirected=True, reduce=0, **changes):
    np.savez(tmp_path / "g.npz", **arrays(**changes))
    params = STAGE.resolve({"graph.undirected": undirected, "features.reduce": reduce}, {})
    return run_stage(STAGE, params, {"source": Source(tmp_path / "g.npz")}, tmp_path / "out")


@st.composite
def edge_lists(draw):
    n = draw(st.integers(1, 10))
    ids = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(ids, ids), max_size=3 * n))
    edges += draw(st.sampled_from([[], edges, [(b, a) for a, b in edges]]))
    weights = draw(
        st.lists(
            st.sampled_from([0.0, 0.1, 0.3, 1.0, 7.5]), min_size=len(edges), max_size=len(edges)
        )
    )
    return n, np.array(edges, np.int32).reshape(-1, 2).T, np.array(weights, np.float32)


def blocks_of(source, target, weight, size):
    """Edges in blocks of at most `size`, whatever is asked for."""

    def edges(most):
        for start in range(0, len(source), min(size, most)):
            part = slice(start, start + min(size, most))
            yield EdgeBlock(source[part], target[part], None if weight is None else weight[part])

    return edges


def build(n, edges, weight, undirected, folder, room=1 << 40, size=1 << 20):
    source, target = np.ascontiguousarray(edges[0]), np.ascontiguousarray(edges[1])
    return build_csr(
        blocks_of(source, target, weight, size),
        n,
        len(source),
        undirected=undirected,
        weighted=weight is not None,
        room_bytes=room,
        folder=folder,
    )


def summed_in_stored_order(n, edges, weight, undirected):
    """indptr, indices, weight by dictionaries of float64 sums: the definition."""
    rows = [{} for _ in range(n)]
    for e, (j, i) in enumerate(edges.T.tolist()):
        if i != j:
            for a, b in [(i, j), (j, i)] if undirected else [(i, j)]:
                rows[a][b] = rows[a].get(b, 0.0) + float(weight[e])
    indptr = np.cumsum([0, *map(len, rows)])
    indices = [j for row in rows for j in sorted(row)]
    return (
        indptr,
        np.array(indices, np.int32),
        np.array([row[j] for row in rows for j in sorted(row)], np.float32),
    )


@given(graph=edge_lists(), undirected=st.booleans(), weighted=st.booleans())
def test_csr_against_scipy(graph, undirected, weighted, tmp_path_factory):
    n, edges, weight = graph
    folder = tmp_path_factory.mktemp("csr")
    csr = build(n, edges, weight if weighted else None, undirected, folder)
    assert not list(folder.iterdir()), "what fits makes no files"
    source, target = edges
    keep = source != target
    ones = np.ones(keep.sum())
    pattern = sp.csr_matrix((ones, (target[keep], source[keep])), shape=(n, n)).toarray()
    values = sp.csr_matrix(
        (weight[keep].astype(float), (target[keep], source[keep])), shape=(n, n)
    ).toarray()
    if undirected:
        pattern, values = pattern + pattern.T, values + values.T
    dense = np.zeros((n, n))
    for i in range(n):
        columns = csr.indices[csr.indptr[i] : csr.indptr[i + 1]]
        assert (np.diff(columns) > 0).all()
        dense[i, columns] = 1
    assert np.array_equal(dense, pattern > 0)
    assert csr.indptr.dtype == np.int64
    assert csr.indices.dtype == np.int32
    assert csr.self_loops_dropped == (~keep).sum()
    assert len(csr.indices) + csr.duplicates_merged == keep.sum() * (2 if undirected else 1)
    if weighted:
        matrix = sp.csr_matrix((csr.weight, csr.indices, csr.indptr), shape=(n, n)).toarray()
        np.testing.assert_allclose(matrix, values, rtol=1e-6)
        if undirected:
            assert np.array_equal(matrix, matrix.T), "exactly symmetric, not nearly"
    else:
        assert csr.weight is None
    back = build_csr(
        turned(csr),
        n,
        len(csr.indices),
        undirected=False,
        weighted=False,
        room_bytes=1 << 40,
        folder=folder,
    )
    matrix = sp.csr_matrix((np.ones(len(back.indices)), back.indices, back.indptr), shape=(n, n))
    assert matrix.has_sorted_indices
    assert np.array_equal(matrix.toarray(), dense.T)


@st.composite
def skewed_graphs(draw):
    """Hubs, long rows, multi-edges in both directions, weights whose sum depends on the order."""
    n, edges = draw(st.integers(1, 200)), draw(st.integers(0, 1200))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    power = draw(st.sampled_from([1.0, 3.0, 12.0]))
    ids = (n * rng.random((2, edges)) ** np.array([[1.0], [power]])).astype(np.int32)
    again = rng.integers(0, max(edges, 1), draw(st.sampled_from([0, edges])))
    ids = np.concatenate([ids, ids[::-1, again]], axis=1)
    return n, ids, rng.lognormal(0, 6, ids.shape[1]).astype(np.float32)


@given(
    graph=skewed_graphs(),
    undirected=st.booleans(),
    weighted=st.booleans(),
    entries=st.sampled_from([0, 1, 7, 60, 500]),
    block=st.sampled_from([1, 13, 1 << 20]),
    ranges=st.sampled_from([1, 5, 128]),
)
def test_any_memory_and_any_blocks_give_the_same_bytes(
    graph, undirected, weighted, entries, block, ranges, tmp_path_factory
):
    n, edges, weight = graph
    folder = tmp_path_factory.mktemp("csr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csr_memory, "RANGES", ranges)
        room = csr_memory.BLOCK_BYTES * csr_memory.BLOCK_EDGES + 16 * entries
        tight = build(n, edges, weight if weighted else None, undirected, folder, room, block)
    indptr, indices, values = summed_in_stored_order(n, edges, weight, undirected)
    assert tight.indptr.tobytes() == indptr.astype(np.int64).tobytes()
    assert tight.indices.tobytes() == indices.tobytes()
    if weighted:
        assert tight.weight.tobytes() == values.tobytes()
    loops = int((edges[0] == edges[1]).sum())
    assert tight.self_loops_dropped == loops
    assert tight.duplicates_merged == (edges.shape[1] - loops) * (2 if undirected else 1) - len(
        indices
    )


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    capacity=st.integers(1, 50),
    share=st.integers(1, 4),
)
def test_row_ranges_hold_what_they_may(counts, capacity, share):
    indptr = np.concatenate([[0], np.cumsum(counts)])
    longest = capacity // share
    bounds = row_ranges(indptr, capacity, longest)
    assert bounds[0] == 0
    assert bounds[-1] == len(counts)
    assert (np.diff(bounds) > 0).all()
    for first, last in itertools.pairwise(bounds.tolist()):
        held = counts[first:last]
        assert sum(held) <= capacity or len(held) == 1
        assert max(held) <= longest or len(held) == 1


def test_stage_undirected(tmp_path):
    graph = ingest(tmp_path)
    assert graph.array("indptr").tolist() == [0, 2, 4, 6, 7, 8, 8]
    assert graph.array("indices").tolist() == [1, 4, 0, 2, 1, 3, 2, 0]
    assert graph.array("y").tolist() == [0, 1, 2, -1, 0, 1]
    assert graph.array("y").dtype == np.int32
    assert sorted(graph.arrays) == ["indices", "indptr", "x", "y"]
    assert graph.facts == {
        "num_nodes": 6,
        "num_edges_stored": 6,
        "nnz": 8,
        "self_loops_dropped": 1,
        "duplicates_merged": 2,
        "isolated_nodes": 1,
        "num_features": 2,
        "num_classes": 3,
        "unlabelled": 1,
        "published_splits": 0,
        "directed": False,
        "weighted": False,
        "features": "dense",
        "binary": False,
        "x_nnz": 11,
        "max_degree": 2,
    }


def test_stage_directed_rows_are_destinations(tmp_path):
    graph = ingest(tmp_path, undirected=False)
    assert graph.array("indptr").tolist() == [0, 1, 2, 3, 4, 4, 4]
    assert graph.array("indices").tolist() == [4, 0, 1, 2]
    assert graph.array("t_indptr").tolist() == [0, 1, 2, 3, 3, 4, 4]
    assert graph.array("t_indices").tolist() == [1, 2, 3, 0]
    assert graph.array("out_deg").tolist() == [1, 1, 1, 0, 1, 0]
    assert graph.facts["directed"]
    assert (graph.facts["isolated_nodes"], graph.facts["duplicates_merged"]) == (1, 1)


def test_stage_weights_are_summed(tmp_path):
    weight = np.array([1, 2, 3, 4, 5, 6], np.float64)
    graph = ingest(tmp_path, edge_weight=weight)
    assert graph.array("weight").tolist() == [3, 6, 3, 3, 3, 5, 5, 6]
    assert graph.array("weight").dtype == np.float32
    assert graph.facts["weighted"]
    assert ingest(tmp_path, undirected=False, edge_weight=weight).array("weight").tolist() == [
        6,
        3,
        3,
        5,
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint64])
def test_any_integer_type_of_ids_is_the_same_graph(tmp_path, dtype):
    graph = ingest(tmp_path, edge_index=arrays()["edge_index"].astype(dtype))
    assert np.array_equal(graph.array("indices"), ingest(tmp_path).array("indices"))


def test_column_major_and_swapped_edges_are_read_alike(tmp_path):
    edges = arrays()["edge_index"]
    for same in (np.asfortranarray(edges), edges.astype(">i4")):
        assert np.array_equal(
            ingest(tmp_path, edge_index=same).array("indices"), ingest(tmp_path).array("indices")
        )


def test_labels_in_other_clothes(tmp_path):
    plain = ingest(tmp_path).array("y")
    with_nan = np.array([0, 1, 2, np.nan, 0, 1])
    for y in (with_nan, with_nan[:, None], arrays()["y"][:, None], arrays()["y"].astype(np.int8)):
        assert np.array_equal(ingest(tmp_path, y=y).array("y"), plain)
    assert ingest(tmp_path, y=np.array([True, False] * 3)).facts["num_classes"] == 2
    assert ingest(tmp_path, num_nodes=None).facts["num_nodes"] == 6


def test_features_may_be_missing(tmp_path):
    facts = ingest(tmp_path, x=None).facts
    assert (facts["features"], facts["num_features"]) == ("none", 0)
    with pytest.raises(BadInput, match="x: expected features to reduce, found none"):
        ingest(tmp_path, x=None, reduce=1)


def sparse(dense, **changes):
    rows = sp.csr_matrix(dense)
    parts = {
        "data": rows.data,
        "indices": rows.indices,
        "indptr": rows.indptr,
        "shape": np.array(rows.shape),
    }
    return {
        "x": None,
        **{
            f"x_{name}": values
            for name, values in {**parts, **changes}.items()
            if values is not None
        },
    }


def test_sparse_features_stay_sparse(tmp_path):
    dense = np.array([[0, 2.5], [1, 0], [0, 0], [1, 1], [0, 0], [0, 1]], np.float32)
    graph = ingest(tmp_path, **sparse(dense))
    found = sp.csr_matrix(
        (graph.array("x_data"), graph.array("x_indices"), graph.array("x_indptr")), shape=(6, 2)
    )
    assert np.array_equal(found.toarray(), dense)
    assert not graph.has("x")
    assert graph.facts["features"] == "sparse"
    assert not graph.facts["binary"]
    assert (graph.array("x_indptr").dtype, graph.array("x_indices").dtype) == (np.int64, np.int32)


def test_binary_features_store_no_values(tmp_path):
    dense = np.eye(6, 3)
    graph = ingest(tmp_path, **sparse(dense))
    assert not graph.has("x_data")
    assert graph.facts["binary"]
    assert graph.facts["x_nnz"] == 3
    assert ingest(tmp_path, **sparse(dense, data=None)).array("x_indices").tolist() == [0, 1, 2]
    assert ingest(tmp_path, x=dense).facts["binary"]


def test_sparse_rows_are_sorted_and_merged_and_lose_stored_zeros(tmp_path):
    graph = ingest(
        tmp_path,
        x=None,
        x_data=np.array([1.0, 2.0, 3.0, 0.0, 4.0]),
        x_indices=np.array([2, 0, 2, 1, 1]),
        x_indptr=np.array([0, 3, 4, 5, 5, 5, 5]),
        x_shape=np.array([6, 3]),
    )
    assert graph.array("x_indptr").tolist() == [0, 2, 2, 3, 3, 3, 3]
    assert graph.array("x_indices").tolist() == [0, 2, 1]
    assert graph.array("x_data").tolist() == [2.0, 4.0, 4.0]
    assert graph.facts["x_nnz"] == 3


def test_as_many_masks_as_nodes_are_read_by_row_under_our_names(tmp_path):
    rng = np.random.default_rng(1)
    part = np.stack([rng.permutation([0, 0, 0, 1, 1, 2]) for _ in range(6)])
    names = ("train_masks", "valid_masks", "test_masks")
    graph = ingest(tmp_path, **{name: part == k for k, name in enumerate(names)})
    for k, name in enumerate(("train", "valid", "test")):
        ptr = graph.array(f"split_{name}_ptr")
        for split in range(6):
            found = graph.array(f"split_{name}")[ptr[split] : ptr[split + 1]]
            assert found.tolist() == np.flatnonzero(part[split] == k).tolist()


def test_published_lists_and_masks(tmp_path):
    lists = {
        "train_idx": np.array([2, 0]),
        "valid_idx": np.array([1]),
        "test_idx": np.array([5, 4]),
    }
    graph = ingest(tmp_path, **lists)
    assert graph.facts["published_splits"] == 1
    assert graph.array("split_train").tolist() == [0, 2]
    assert graph.array("split_test_ptr").tolist() == [0, 2]
    masks = {name: np.zeros((2, 6), bool) for name in ("train_masks", "valid_masks", "test_masks")}
    for row, (train, valid, test) in enumerate([([0, 2], [1], [4, 5]), ([5], [4], [0])]):
        masks["train_masks"][row, train] = masks["valid_masks"][row, valid] = masks["test_masks"][
            row, test
        ] = True
    graph = ingest(tmp_path, **masks)
    assert graph.facts["published_splits"] == 2
    assert graph.array("split_train").tolist() == [0, 2, 5]
    assert graph.array("split_train_ptr").tolist() == [0, 2, 3]
    assert graph.array("split_train").dtype == np.int32
    one = ingest(tmp_path, **{name: mask[0].astype(np.uint8) for name, mask in masks.items()})
    assert one.facts["published_splits"] == 1


def test_two_runs_give_the_same_arrays(tmp_path):
    first, second = ingest(tmp_path, reduce=2), ingest(tmp_path, reduce=2)
    assert first.facts == second.facts
    for name in first.arrays:
        assert first.array(name).tobytes() == second.array(name).tobytes()


def test_cost_follows_the_counts():
    params = STAGE.resolve({"graph.undirected": True, "features.reduce": 0}, {})
    counts = {
        "num_nodes": 1000,
        "num_edges_stored": 5000,
        "num_features": 8,
        "x_nnz": 8000,
        "features": "dense",
    }
    base = STAGE.cost(params, {"source": counts})
    many = STAGE.cost(params, {"source": {**counts, "num_edges_stored": 50_000_000}})
    assert many.peak > base.peak + 50_000_000 * 18 - (64 << 20)
    assert many.needed < base.needed + 50_000_000
    assert STAGE.cost(params, {"source": {**counts, "x_nnz": 80_000_000}}).peak == base.peak, (
        "rows come in blocks"
    )
    whole = STAGE.cost(
        params, {"source": {**counts, "x_nnz": 80_000_000, "features_loaded_whole": True}}
    )
    assert whole.needed > base.peak + 80_000_000 * 16 - (64 << 20)
    assert STAGE.cost(params, {"source": {}}).peak > 0


def test_describing_the_stage_imports_nothing_heavy():
    import subprocess
    import sys

    modules = ("ingest", "split", "ingest.source", "ingest.sources.wordnet")
    code = "import sys\n" + "".join(f"import stockpot.stages.{name}\n" for name in modules)
    code += (
        "print([m for m in ('torch', 'numba', 'scipy', 'zarr', 'dask', 'torch_geometric') if m "
        "in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"


def test_sparse_rows_hold_their_width():
    rows = SparseRows(np.array([0, 1]), np.array([3], np.int32), None, 9)
    assert rows.columns == 9


def test_row_sums_are_differences_of_running_sums_and_hold_no_array_of_edges():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, 50_000)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    weight = rng.lognormal(0, 5, indptr[-1]).astype(np.float32)
    running = np.concatenate([[0.0], np.cumsum(weight, dtype=np.float64)])
    expected = running[indptr[1:]] - running[indptr[:-1]]
    np.testing.assert_array_equal(row_sums(indptr, weight), expected)  # bit by bit
    np.testing.assert_array_equal(row_sums(indptr.astype(np.int32), weight), expected)
    assert row_sums(np.zeros(1, np.int64), weight[:0]).size == 0
    tracemalloc.start()
    row_sums(indptr, weight)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(counts) + 10_000 < 4 * len(weight)
