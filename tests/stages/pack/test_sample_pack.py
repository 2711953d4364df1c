"""Sampled batches as records: the stage, the packed columns, and the matrices a model reads of
them."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.loader.online_sampling import FreshRecords
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack.join import join
from stockpot.stages.pack.layers import Weights, adjacency
from stockpot.stages.pack.sampled import sampled_matrices
from stockpot.stages.pack.stage import Params as PackParams
from stockpot.stages.sample import STAGE
from stockpot.stages.sample.batch import Sampler
from stockpot.stages.sample.sampler_inputs import graph_of, sampling_of
from stockpot.stages.sample.seeds import dealt
from stockpot.stages.sample.stage import members_of
from tests.loaders import read_steps, record_batches, record_steps
from tests.memory import MemoryReader, run_stage
from tests.packs import inputs_of

VALUES = {
    "batches.method": "labor",
    "batches.outputs": 12,
    "batches.rounds": 2,
    "batches.fanouts": [3, 3],
    "batches.kappa": 1,
    "batches.importance_sampling": 0,
    "batches.layer_dependency": False,
    "batches.seeds": "random",
    "infer.split": "test",
    "infer.top_k": 0,
    "split": "train",
}


def params_of(facts, **changes):
    values = {**VALUES, **{f"batches.{name}": value for name, value in changes.items()}}
    return STAGE.resolve(values, facts)


def packed(root, *, threads=1, changes=None, **graph):
    """(reader of the packed split, inputs of pack, the sample artifact)."""
    inputs = inputs_of(root, **graph)
    nodes = inputs["graph"].facts["num_nodes"]
    ids = np.arange(0, nodes, 4, dtype=np.int32)
    inputs["split"] = MemoryReader({"train": ids}, {"train": len(ids)})
    params = params_of(
        {"graph": inputs["graph"].facts, "split": inputs["split"].facts}, **(changes or {})
    )
    inputs["records"] = run_stage(STAGE, params, inputs, root / "sample", threads=threads)
    inputs["records"].digest = "8" * 32
    reader = run_stage(PACK, PackParams("train", 4), inputs, root / "pack")
    return reader, inputs


CHANGES = [
    {},
    {"method": "neighbor", "layer_dependency": True, "kappa": "inf"},
    {"importance_sampling": -1, "fanouts": [3, 2, 4], "kappa": 4},
    {"seeds": "community", "kappa": 3},
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("graph", [{}, {"directed": True, "weighted": True}])
def test_records_are_the_sampled_batches(tmp_path, changes, graph):
    reader, inputs = packed(tmp_path, changes=changes, **graph)
    records, artifact = Records.from_reader(reader), inputs["records"]
    how = sampling_of(artifact.facts["sampling"])
    assert records.rounds == artifact.facts["rounds"] == 2
    assert records.sampled == len(how.fanouts)
    sampler = Sampler(graph_of(inputs["graph"]), how)
    ptr, n_ptr = artifact.array("out_ptr"), artifact.array("n_ptr")
    outputs, n_id = artifact.array("outputs"), artifact.array("n_id")
    for r, record in enumerate(records):
        mine = outputs[ptr[r] : ptr[r + 1]]
        found = sampler.batch(r, mine)
        assert sorted(record.n_id.tolist()) == n_id[n_ptr[r] : n_ptr[r + 1]].tolist()
        assert record.num_sampled_nodes.tolist() == found.num_sampled_nodes.tolist()
        assert record.layered == (not how.one_csr(weighted=bool(graph)))
        assert (
            inputs["split"].array("train")[record.input_id].tolist()
            == record.n_id[: record.num_outputs].tolist()
        )
        for mine_l, other in zip(record.layers, found.layers, strict=True):
            a, b = (
                sp.csr_matrix(
                    (np.ones(one.indices.size), ids[one.indices], one.indptr),
                    (one.indptr.size - 1, 200),
                )
                for one, ids in ((mine_l, record.n_id), (other, found.n_id))
            )
            rows = np.argsort(record.n_id[: a.shape[0]]), np.argsort(found.n_id[: b.shape[0]])
            assert (a[rows[0]] != b[rows[1]]).nnz == 0
            assert mine_l.indices.dtype == mine_l.indptr.dtype == np.int32
            assert (mine_l.weight is None) == (not graph)
    for half in (0, 1):
        some = range(half * len(records) // 2, (half + 1) * len(records) // 2)
        assert sorted(np.concatenate([records[r].input_id for r in some]).tolist()) == list(
            range(50)
        )
    facts = artifact.facts
    assert facts["edges"] == reader.facts["edges"] == sum(r.num_edges for r in records)
    assert facts["rows"] == reader.facts["rows"]
    assert reader.facts["dropped_nodes"] == 0


def test_the_same_bytes_for_any_number_of_threads(tmp_path):
    one, two = (
        packed(tmp_path / str(t), threads=t, changes={"importance_sampling": 1})[1]["records"]
        for t in (1, 3)
    )
    assert one.facts == two.facts
    assert all(one.array(name).tobytes() == two.array(name).tobytes() for name in one.arrays)


@pytest.mark.parametrize("adj", ["norm", "mean", "plain", "plain+loops"])
@pytest.mark.parametrize("normalization", ["sym", "rw"])
@pytest.mark.parametrize("graph", [{}, {"weighted": True}, {"directed": True}])
@pytest.mark.parametrize("one", [False, True])
def test_with_all_neighbours_the_matrices_are_exact(tmp_path, adj, normalization, graph, one):
    changes = {"fanouts": [-1, -1], "layer_dependency": one, "rounds": 1, "importance_sampling": 0}
    reader, inputs = packed(tmp_path, changes=changes, **graph)
    arrays = inputs["graph"].arrays
    weight = arrays.get("weight")
    whole = adjacency(
        arrays["indptr"],
        arrays["indices"],
        weight=weight,
        adj=adj,
        normalization=normalization,
        self_loops=True,
    )
    x = np.random.default_rng(0).normal(size=(200, 3))
    dense = sp.csr_matrix((whole.values, whole.indices, whole.indptr), whole.shape)
    exact = dense @ (dense @ x)
    steps = read_steps(
        reader,
        layers=2,
        adj=adj,
        normalization=normalization,
        mass="row",
        per_step=2,
        shuffle=False,
        prefetch=0,
    )
    for step in steps:
        out = torch.from_numpy(x)[step.n_id]
        for one_adj in step.adjs:
            out = one_adj.csr.to(torch.float64) @ out
            assert torch.equal(one_adj.t_csr.to_dense(), one_adj.csr.to_dense().t())
        assert np.allclose(
            out.numpy(), exact[step.n_id[: step.batch_size].numpy()], rtol=1e-4, atol=1e-6
        )


def test_sums_over_sampled_neighbours_are_without_bias(tmp_path):
    """GCN's product with one sampled layer, over many batches: neighbour sampling has no bias at
    all (a Hájek mean of equal probabilities), so its mean is the exact product within its error."""
    inputs = inputs_of(tmp_path, degree=16)
    facts = {"graph": inputs["graph"].facts, "split": {"train": 50}}
    how = sampling_of({**_sampling(params_of(facts, method="neighbor", fanouts=[4]))})
    graph = graph_of(inputs["graph"])
    sampler, outputs = Sampler(graph, how), np.arange(0, 200, 4, dtype=np.int32)
    whole = adjacency(graph.indptr, graph.indices, adj="norm")
    x = np.random.default_rng(1).normal(size=200)
    exact = (sp.csr_matrix((whole.values, whole.indices, whole.indptr), whole.shape) @ x)[outputs]
    deg = np.diff(graph.indptr)
    found = np.empty((1500, len(outputs)))
    for run in range(len(found)):
        batch = sampler.batch(run, outputs)
        (one,) = sampled_matrices(
            Weights("norm"), 1, batch.num_sampled_nodes, batch.layers, deg[batch.n_id], nested=False
        )
        found[run] = sp.csr_matrix((one.values, one.indices, one.indptr), one.shape) @ x[batch.n_id]
    error = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - exact) <= 5 * error + 1e-6).all()
    assert error.max() > 0


def _sampling(params):
    from stockpot.stages.sample.sampler_inputs import facts_of
    from stockpot.stages.sample.stage import _sampling as made

    return facts_of(made(params))


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("weighted", [False, True])
def test_joined_records_are_those_records(tmp_path, changes, weighted):
    reader, _ = packed(tmp_path, changes=changes, weighted=weighted)
    records = list(Records.from_reader(reader))[:3]
    x = np.random.default_rng(0).normal(size=200)
    for depth in range(1, len(records[0].layers) + 1):

        def product(joined, depth=depth):
            out = x[joined.n_id]
            deg = joined.deg if joined.deg_w is None else joined.deg_w
            made = sampled_matrices(
                Weights("norm"),
                depth,
                joined.num_sampled_nodes,
                joined.layers,
                deg,
                nested=not joined.layered,
            )
            for one in made:
                out = sp.csr_matrix((one.values, one.indices, one.indptr), one.shape) @ out
            return dict(zip(joined.input_id.tolist(), out.tolist(), strict=True))

        together = product(join(records, layers=depth))
        apart = {}
        for record in records:
            apart |= product(join([record], layers=depth))
        assert together.keys() == apart.keys()
        assert np.allclose([together[i] for i in apart], list(apart.values()), rtol=1e-5, atol=1e-7)


def test_a_model_deeper_than_the_sample_is_refused(tmp_path):
    reader, _ = packed(tmp_path)
    steps = read_steps(reader, layers=3, shuffle=False, prefetch=0)
    with pytest.raises(
        BadInput, match="a model of 3 layers on records sampled for 2: expected at most 2"
    ):
        steps[0]


def test_batches_of_a_script_are_trimmed_or_of_one_sample(tmp_path):
    apart, _ = packed(tmp_path / "apart")
    options = {"store_key": "k", "split": "train", "shuffle": False, "prefetch": 0}
    with pytest.raises(BadInput, match="layers of its records were sampled apart"):
        next(iter(record_batches(Records.from_reader(apart), **options)))
    adjs = next(iter(record_batches(Records.from_reader(apart), **options).layers(2))).adjs
    assert adjs[1].shape[1] == adjs[0].shape[0]
    together, _ = packed(tmp_path / "together", changes={"layer_dependency": True})
    whole = record_batches(Records.from_reader(together), adj="norm", **options)
    batch, trimmed = next(iter(whole)), next(iter(whole.layers(2))).adjs
    n = batch.n_id.numel()
    assert batch.adj_t.shape == (n, n)
    x = torch.randn(n, 2)
    full = (batch.adj_t @ (batch.adj_t @ x))[: batch.batch_size]
    assert torch.allclose(full, trimmed[1] @ (trimmed[0] @ x), atol=1e-5)


def test_every_output_stands_in_one_record_of_a_round():
    members, ptr = members_of(101, 10, 3)
    assert len(ptr) == 3 * 11 + 1
    assert np.diff(ptr).max() <= 10
    for half in range(3):
        assert sorted(members[half * 101 : (half + 1) * 101].tolist()) == list(range(101))
    assert members[:101].tolist() != members[101:202].tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 5))
def test_outputs_of_one_community_go_together(part, outputs, seed):
    count, records = len(part), -(-len(part) // outputs)
    members, ptr = dealt(count, records, seed, np.array(part))
    assert sorted(members.tolist()) == list(range(count))
    assert np.ptp(np.diff(ptr)) <= 1
    # Walked in the order of the records, a round enters each community once; the first one, where
    # it begins, twice.
    walk = [sorted(part[i] for i in members[a:b]) for a, b in pairwise(ptr)]
    spans = sum(len(set(inside)) for inside in walk)
    assert spans <= len(set(part)) + records + (seed > 0)
    again = dealt(count, records, seed, np.array(part))
    assert np.array_equal(again[0], members)
    if seed == 0:
        assert [one for inside in walk for one in inside] == sorted(part)


def test_rounds_of_community_seeds_differ():
    part = np.repeat(np.arange(10), 30)
    rounds = [dealt(300, 25, seed, part)[0].tolist() for seed in range(4)]
    assert len({tuple(one) for one in rounds}) == 4


def test_evaluated_splits_do_not_drift():
    facts = {
        "graph": {"num_nodes": 100, "nnz": 500},
        "split": {"train": 50, "valid": 20, "test": 20},
    }
    values = {**VALUES, "batches.kappa": "inf", "split": "valid"}
    assert STAGE.resolve(values, facts).kappa == 1
    assert STAGE.resolve({**values, "split": "train"}, facts).kappa is None
    assert (
        STAGE.resolve(values, facts).seed != STAGE.resolve({**values, "split": "train"}, facts).seed
    )


@pytest.mark.parametrize("changes", CHANGES)
def test_fresh_records_begin_with_the_stored_rounds_and_go_on(tmp_path, changes):
    reader, inputs = packed(tmp_path, changes=changes)
    reader.parents = inputs
    stored, fresh = Records.from_reader(reader), FreshRecords.from_reader(reader)
    for i, record in enumerate(stored):
        other = fresh[i]
        for name in (
            "n_id",
            "block_ptr",
            "indptr",
            "indices",
            "deg",
            "y",
            "input_id",
            "codes",
            "num_sampled_nodes",
        ):
            assert np.array_equal(getattr(record, name), getattr(other, name)), name
        for a, b in zip(record.layers, other.layers, strict=True):
            assert np.array_equal(a.indices, b.indices)
            assert a.edge_w is None or np.array_equal(a.edge_w, b.edge_w)
    options = {
        "store_key": "k",
        "split": "train",
        "shuffle": False,
        "prefetch": 2,
        "layers": 2,
        "per_step": 2,
    }
    steps = record_steps(fresh, **options)
    seen = []
    for epoch in (0, 1, 7):
        steps.set_epoch(epoch)
        epochs = list(steps)
        assert len(epochs) == len(steps) == 3
        assert [n for _, n in steps.plan(epoch)] == [step.batch_size for step in epochs]
        assert sorted(torch.cat([step.input_id for step in epochs]).tolist()) == list(range(50))
        seen.append([step.n_id.tolist() for step in epochs])
    assert seen[0] != seen[1] != seen[2]
    assert seen[2] != [
        step.n_id.tolist() for step in steps
    ]  # and the next iteration is the next epoch
    state = steps.state_dict()
    assert (state["epoch"], state["step"]) == (9, 0)
    first = record_steps(stored, **options)
    assert [step.n_id.tolist() for step in first] == seen[0]


def test_fresh_records_are_of_sampled_splits(tmp_path):
    from tests.packs import packed as plain

    reader, _ = plain(tmp_path)
    with pytest.raises(BadInput, match="expected sampled records, found all edges"):
        FreshRecords.from_reader(reader)


def test_records_of_other_rounds_begin_elsewhere_in_the_communities():
    begins = []
    for seed in range(6):
        members, ptr = dealt(
            60, 6, seed, np.arange(60)
        )  # each output a community, so that only the place differs
        first = members[ptr[0] : ptr[1]]
        steps = np.diff(first) != 1
        assert steps.sum() <= 1  # one run, perhaps across the end
        begins.append(int(first[np.flatnonzero(steps)[0] + 1] if steps.any() else first[0]))
    assert begins[0] == 0
    assert len(set(begins)) > 3
