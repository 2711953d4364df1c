"""HAGs in packed records: steps by them are the steps of the CSR; auto decides, weights and damage
are refused."""

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from stockpot.stages.errors import BadInput
from stockpot.stages.hag import STAGE
from stockpot.stages.hag.columns import columns_of, hag_of, mismatch
from stockpot.stages.hag.hag import check, cover
from stockpot.stages.hag.hag_choice import with_hag
from stockpot.stages.hag.planning import Sharing, sharing_of
from stockpot.stages.hag.product.matrix import HagMatrix
from stockpot.stages.hag.product_cost import Counts, Rates, measured_rates
from stockpot.stages.hag.search.csr_rows import pattern
from stockpot.stages.hag.stage import graph_hag
from stockpot.stages.loader import assembly
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack.stage import Params as PackParams
from tests.loaders import read_steps
from tests.memory import run_stage
from tests.packs import inputs_of

ALWAYS = Sharing(
    on=True,
    loops=True,
    capacity=-1.0,
    least=0.0,
    rates=(1.0, 0.1, 3.0, 0.1, 5.0),
    row_bytes=(64, 512),
)
KINDS = {"plain": {}, "directed": {"directed": True}, "weighted": {"weighted": True}}


def cliques(nodes=200, groups=9, seed=0, directed=False, weighted=False):
    """Edges inside groups, some flipped; weights are products of a number of either end."""
    rng = np.random.default_rng(seed)
    member = rng.integers(0, groups, nodes)
    dense = (member[:, None] == member) ^ (rng.random((nodes, nodes)) < 0.01)
    dense = dense if directed else np.triu(dense) | np.triu(dense).T
    np.fill_diagonal(dense, 0)
    a = sp.csr_matrix(dense.astype(np.float32))
    arrays = {"indptr": a.indptr.astype(np.int64), "indices": a.indices.astype(np.int32)}
    if weighted:
        u = rng.uniform(0.5, 2, nodes)
        arrays["weight"] = (
            u[np.repeat(np.arange(nodes), np.diff(a.indptr))] * u[a.indices]
        ).astype(np.float32)
    if directed:
        t = a.T.tocsr()
        t.sort_indices()
        arrays |= {"t_indptr": t.indptr.astype(np.int64), "t_indices": t.indices.astype(np.int32)}
        arrays["out_deg"] = np.diff(t.indptr).astype(np.int32)
    return arrays, {"nnz": int(a.nnz)}


def inputs_with_cliques(root, **kind):
    inputs = inputs_of(root, **kind)
    arrays, facts = cliques(**kind)
    inputs["graph"].arrays |= arrays
    inputs["graph"].facts |= facts
    return inputs


def packed_with(root, sharing, **kind):
    inputs = inputs_with_cliques(root, **kind)
    return run_stage(
        PACK, PackParams("train", 4, sharing=sharing), inputs, root / f"pack-{sharing.on}"
    )


@pytest.fixture(scope="module", params=KINDS)
def pack(request, tmp_path_factory):
    return packed_with(tmp_path_factory.mktemp("pack"), ALWAYS, **KINDS[request.param])


def dense_of(matrix):
    if isinstance(matrix, HagMatrix):
        return matrix.product(torch.eye(matrix.shape[1]))
    return matrix.to_dense()


@pytest.mark.parametrize("options", [
    {"adj": "norm"}, {"adj": "norm", "mass": "row"},
    {"adj": "norm", "normalization": "rw", "self_loops": False},
    {"adj": "mean"}, {"adj": "plain"},
])  # fmt: skip
@pytest.mark.parametrize("per_step", [1, 4])
def test_steps_are_those_of_the_csr(pack, options, per_step):
    for layers in (1, 3, 9):
        how = {"layers": layers, "per_step": per_step, "shuffle": False, "prefetch": 0, **options}
        for mine, plain in zip(
            read_steps(pack, hag=True, **how), read_steps(pack, **how), strict=True
        ):
            assert mine.num_sampled_nodes == plain.num_sampled_nodes
            assert len(mine.adjs) == len(plain.adjs) == layers
            for ours, theirs in zip(mine.adjs, plain.adjs, strict=True):
                assert isinstance(ours.csr, HagMatrix)
                assert tuple(ours.csr.shape) == tuple(theirs.csr.shape)
                torch.testing.assert_close(
                    dense_of(ours.csr), dense_of(theirs.csr), rtol=2e-5, atol=1e-6
                )
                torch.testing.assert_close(
                    dense_of(ours.t_csr), dense_of(theirs.t_csr), rtol=2e-5, atol=1e-6
                )


def test_matrices_of_a_record_are_made_once(pack, monkeypatch):
    for keep, made in ((0, 2), (1 << 30, 1)):
        monkeypatch.setattr(assembly, "KEPT_BYTES", keep)
        steps = read_steps(pack, layers=3, hag=True, shuffle=True, prefetch=0)
        seen = {}
        for epoch in range(2):
            steps.set_epoch(epoch)
            for step in steps:
                seen.setdefault(tuple(step.input_id.tolist()), set()).add(id(step.adjs[0].csr))
                seen.setdefault("kept", []).append(step)  # so that no id is used twice
        kept = seen.pop("kept")
        assert len(kept) == 2 * len(seen)
        assert {len(ids) for ids in seen.values()} == {made}
    joined = read_steps(pack, layers=3, hag=True, per_step=2, shuffle=False, prefetch=0)
    assert joined[0].adjs[0].csr is not joined[0].adjs[0].csr


def test_inner_transposes_only_where_asked_for(pack):
    step = next(iter(read_steps(pack, layers=3, transposes="inner", hag=True, prefetch=0)))
    assert [adj.t_csr is None for adj in step.adjs] == [True, False, False]
    step = next(iter(read_steps(pack, layers=9, transposes="inner", hag=True, prefetch=0)))
    assert [adj.t_csr is None for adj in step.adjs] == [True] + [False] * 8
    step = next(iter(read_steps(pack, layers=2, transposes="none", hag=True, prefetch=0)))
    assert all(adj.t_csr is None for adj in step.adjs)


def test_every_record_covers_its_csr(pack):
    loops, sums = not pack.facts["weighted"], Counter()
    for record in Records.from_reader(pack):
        hag = hag_of(record)
        sums.update(
            {name: getattr(hag, name) for name in ("reads", "plain_reads", "adds", "plain_adds")}
        )
        ptr, columns = pattern(record.indptr, record.indices, loops=loops)
        n = record.num_nodes
        assert (cover(hag) != sp.csr_matrix((np.ones(len(columns)), columns, ptr), (n, n))).nnz == 0
    counted = pack.facts["hag"]
    assert counted["records"] == pack.facts["records"]
    assert counted["plain_reads"] > 1.2 * counted["reads"]
    assert counted == {"records": pack.facts["records"], **sums}


def test_records_without_one_join_those_with_one(tmp_path):
    pack = packed_with(tmp_path, ALWAYS)
    steps = read_steps(pack, layers=2, per_step=3, adj="norm", hag=True, shuffle=False, prefetch=0)
    parts = [steps.store[i] for i in range(3)]
    parts[1] = replace(parts[1], **columns_of(None, parts[1].indptr, parts[1].indices))
    from stockpot.stages.pack.join import join

    joined = join(parts, layers=2)
    expected = steps.assembler.adjs(steps.assembler.matrices(joined), symmetric=False)
    for ours, theirs in zip(steps.assembler.shared(parts, joined), expected, strict=True):
        torch.testing.assert_close(dense_of(ours.csr), dense_of(theirs.csr), rtol=2e-5, atol=1e-6)
    assert steps.assembler.shared([parts[1]], join([parts[1]], layers=2)) is None


def test_a_pack_without_sharing_has_no_trace_of_it(tmp_path):
    off = packed_with(tmp_path, Sharing())
    record = Records.from_reader(off)[0]
    assert record.hag_about is None
    assert "hag" not in Records.from_reader(off).meta
    assert "hag" not in off.facts


def test_the_same_bytes_for_any_number_of_threads(tmp_path):
    inputs = inputs_with_cliques(tmp_path)
    files = []
    for threads in (1, 3):
        root = tmp_path / f"threads-{threads}"
        run_stage(PACK, PackParams("train", 4, sharing=ALWAYS), inputs, root, threads=threads)
        files.append((root / "shard-00000.arrow").read_bytes())
    assert files[0] == files[1]


def test_a_hag_of_another_csr_is_found(pack):
    record = Records.from_reader(pack)[0]
    assert mismatch(record) is None
    about = record.hag_about.copy()
    about[0] ^= 1
    assert "expected a CSR with checksum" in mismatch(replace(record, hag_about=about))
    indices = record.hag_out_indices.copy()
    indices[0] = 10**6
    assert "outside" in mismatch(replace(record, hag_out_indices=indices))


def decided(inputs, root, **recipe):
    graph = {"graph": inputs["graph"], "records": inputs["records"]}
    values = {
        "hag.enabled": "auto",
        "hag.capacity": "auto",
        "graph.self_loops": True,
        "train.device": "cpu",
        "of": "records",
        **recipe,
    }
    return run_stage(STAGE, STAGE.resolve(values, {}), graph, root / "decision")


def test_rates_of_this_machine():
    rates = measured_rates("cpu")
    assert min(asdict(rates).values()) >= 0
    assert 0 < rates.seconds(Counts(10**6, 10**5, 4), 512) < 10


def test_auto_says_no_on_a_random_graph_and_yes_on_cliques(tmp_path, monkeypatch):
    rates = Rates(6e-10, 4e-12, 3e-9, 2e-11, 0.0)
    monkeypatch.setattr("stockpot.stages.hag.product_cost.measured_rates", lambda device: rates)
    no = decided(inputs_of(tmp_path / "no"), tmp_path / "no").facts
    assert not no["use"]
    assert "none of 6 records" in no["why"]
    assert sharing_of(no) == sharing_of(None) == Sharing()
    yes = decided(inputs_with_cliques(tmp_path / "yes"), tmp_path / "yes").facts
    assert yes["use"]
    assert yes["predicted_gain"] > 1.2
    made = sharing_of(yes)
    assert made.on
    assert (made.loops, made.capacity, made.least) == (True, -1.0, 1.2)
    assert len(made.rates) == 5
    forced = decided(
        inputs_of(tmp_path / "f"), tmp_path / "f", **{"hag.enabled": True, "hag.capacity": 0.5}
    ).facts
    assert (sharing_of(forced).least, sharing_of(forced).capacity) == (0.0, 0.5)


def test_a_record_keeps_a_hag_only_where_it_pays(tmp_path):
    record = Records.from_reader(packed_with(tmp_path, Sharing()))[0]
    shared, choice = with_hag(record, replace(ALWAYS, least=1.2))
    assert choice.predicted >= 1.2
    assert hag_of(shared).reads == choice.hag.reads
    none, choice = with_hag(record, replace(ALWAYS, least=100.0))
    assert choice.hag is None
    assert all(
        np.size(getattr(none, name)) == 0
        for name in columns_of(None, record.indptr, record.indices)
    )


def test_the_graph_as_a_whole(tmp_path):
    inputs = inputs_with_cliques(tmp_path)
    found = decided(inputs, tmp_path, **{"of": "graph", "hag.enabled": "always"})
    hag, loops = graph_hag(found)
    assert loops
    arrays = inputs["graph"].arrays
    check(hag, *pattern(arrays["indptr"], arrays["indices"], loops=True))
    assert found.facts["reads_ratio"] > 2


def test_weights_that_do_not_factor_are_refused_by_edge(tmp_path):
    inputs = inputs_with_cliques(tmp_path, weighted=True)
    inputs["graph"].arrays["weight"] = (
        np.random.default_rng(0).random(inputs["graph"].facts["nnz"]).astype(np.float32)
    )
    with pytest.raises(BadInput, match=r"edge \d+ -> \d+: its weight"):
        decided(inputs, tmp_path, **{"hag.enabled": "always"})
    kept = run_stage(
        PACK, PackParams("train", 4, sharing=replace(ALWAYS, least=1.2)), inputs, tmp_path / "pack"
    )
    assert kept.facts["hag"]["records"] == 0
    with pytest.raises(BadInput, match="whole graph carries no edge weights"):
        decided(
            inputs_with_cliques(tmp_path / "w", weighted=True),
            tmp_path,
            **{"hag.enabled": "always", "of": "graph"},
        )


@pytest.mark.parametrize("name", ["gcn", "sage", "gin"])
def test_soups_keep_first_sums_of_shared_steps(pack, name):
    from stockpot.stages.soup.kept_batches import first_layer_once, step_bytes
    from stockpot.stages.train.model import build_model

    config = {
        "model": name,
        "num_features": pack.facts["num_features"],
        "hidden": 8,
        "num_classes": 3,
        "layers": 3,
    }
    model = build_model({**config, "dropout": 0.0}, seed=1).eval()
    how = {"layers": 3, "adj": model.adj, "transposes": "all", "shuffle": False, "prefetch": 0}
    for step, plain in zip(
        read_steps(pack, hag=True, **how), read_steps(pack, hag=False, **how), strict=True
    ):
        kept = first_layer_once(model, step)
        assert isinstance(step.adjs[0].csr, HagMatrix)
        assert step_bytes(step) > step.x.nbytes + sum(
            a.plan_bytes for a in {b.csr for b in step.adjs}
        )
        grads = []
        for brought in (kept, step, plain):
            model.zero_grad()
            logits = model(brought.x, brought.adjs)
            logits.square().sum().backward()
            grads.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
        for kept_grad, grad, expected in zip(*grads, strict=True):
            torch.testing.assert_close(kept_grad, grad, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-3)
