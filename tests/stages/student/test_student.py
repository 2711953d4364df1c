"""The student: its teacher against dense float64, a lesson against torch's own, rows of new nodes
against a graph that has them, and what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from stockpot.stages.codec.node_rows import NodeRows
from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.propagate import STAGE as PROPAGATE
from stockpot.stages.propagate.stage import Params as PropagateParams
from stockpot.stages.quantize import STAGE as QUANTIZE
from stockpot.stages.quantize.stage import Params as QuantizeParams
from stockpot.stages.stage import Shard
from stockpot.stages.student import STAGE
from stockpot.stages.student.lesson import Lesson
from stockpot.stages.student.serving import Student
from stockpot.stages.student.stage import Params
from stockpot.stages.student.student_network import StudentNetwork, load_student, save_student
from stockpot.stages.student.student_rows import StudentRows, multiply_further
from stockpot.stages.student.teacher import teacher_probabilities
from stockpot.stages.student.teaching import predicted, taught, teaching_step
from stockpot.stages.train.model import build_model, load_model, save_model
from stockpot.stages.train.state import read_state
from tests.memory import MemoryReader, MemoryWriter, run_stage
from tests.packs import graph_reader
from tests.stages.steps import adj_of, community, weighted

SIZES = {"num_features": 8, "num_classes": 3, "hidden": 16, "layers": 2, "dropout": 0.0}
READ = {"normalization": "sym", "mass": "none", "self_loops": True, "heads": 4}
PARAMS = Params("ensemble", 0, False, 24, 3, 0.1, 0.05, "fp32", 5, "cpu")
LESSON = Lesson(hidden=24, epochs=3, dropout=0.1, noise=0.05, seed=5)


def graph_of(a, y):
    arrays = {"indptr": a.indptr.astype(np.int64), "indices": a.indices.astype(np.int32)}
    facts = {"num_nodes": a.shape[0], "nnz": a.nnz, "num_classes": 3}
    facts |= {"directed": False, "weighted": False}
    return MemoryReader(arrays | {"y": y.astype(np.int32)}, facts)


def codes_of(x, hops=1, adj="mean", digest="c" * 32, **products):
    """Codes of dense rows, as `quantize` writes them."""
    about = {"name": "fp32", "num_features": x.shape[1], "row_bytes": 4 * x.shape[1]}
    found = {"hops": hops, "adj": adj, "normalization": "none", "self_loops": False}
    facts = {
        "description": {**about, "index_bytes": None},
        "num_nodes": len(x),
        "num_features": x.shape[1],
        "code_bytes": x.nbytes,
        "propagated": {**found, "own_columns": x.shape[1] // (hops + 1), **products},
    }
    rows = np.ascontiguousarray(x, np.float32).view(np.uint8).reshape(len(x), -1)
    return MemoryReader({"codes": rows}, facts, digest=digest)


def ingredient(folder, seed, codes, **changes):
    """A model with random weights, whose records held `codes`."""
    folder.mkdir(parents=True)
    model = build_model({**SIZES, **READ, "model": "sage", **changes}, seed=seed)
    save_model(folder / "model.safetensors", model, {})
    found, packed = MemoryReader(facts={"num_parameters": 100}, root=folder), MemoryReader()
    found.parents["train"], packed.parents["codes"] = packed, codes
    return found


def inputs(root, y=None, **changes):
    a, x, labels = community(nodes=300)
    codes = codes_of(x)
    test = np.arange(2, 300, 4, dtype=np.int32)
    models = {f"ingredient:{i}": ingredient(root / str(i), i, codes, **changes) for i in range(2)}
    soup = root / "soup"
    soup.mkdir()
    other = build_model({**SIZES, **READ, "model": "sage", **changes}, seed=7)
    save_model(soup / "chosen.safetensors", other, {})
    return {
        "graph": graph_of(a, labels if y is None else y),
        "split": MemoryReader({"test": test}),
        "codes": codes,
        "soup": MemoryReader(root=soup),
        **models,
    }


@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
def test_the_teacher_is_the_mean_of_exact_inference(model):
    a, x, y = community()
    config = {**SIZES, **READ, "model": model}
    models = [build_model(config, seed=seed).eval() for seed in (1, 2)]
    found = teacher_probabilities(
        [(models[0], 3), (models[1], 1)], graph_of(a, y), torch.from_numpy(x)
    )
    degree = np.asarray(a.sum(1)).ravel()
    adj = adj_of(weighted(a, models[0].adj, degree), torch.float64)
    with torch.no_grad():
        one, two = (
            copy.deepcopy(m).double()(torch.from_numpy(x).double(), adj).softmax(1).numpy()
            for m in models
        )
    np.testing.assert_allclose(found, 0.75 * one + 0.25 * two, atol=2e-6)
    assert found.dtype == np.float32


def plain(student):
    """The same network of torch's own parts."""
    parts = [student.first, student.first_norm, nn.ReLU(), student.second, student.second_norm]
    return copy.deepcopy(nn.Sequential(*parts, nn.ReLU(), student.last))


def test_steps_are_those_of_torch_on_the_divergence():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((40, 6), generator=generator)
    targets = torch.randn((40, 5), generator=generator).softmax(1)
    student = StudentNetwork(6, 16, 5).train()
    peer = plain(student).double()
    adam, other = (torch.optim.Adam(net.parameters(), lr=1e-2) for net in (student, peer))
    entropy = -float((targets * targets.log()).sum(1).mean())
    for _ in range(4):
        loss = teaching_step(student, adam, rows, targets, "fp32")
        other.zero_grad()
        divergence = functional.kl_div(
            peer(rows.double()).log_softmax(1), targets.double(), reduction="batchmean"
        )
        divergence.backward()
        other.step()
        assert loss == pytest.approx(float(divergence.detach()) + entropy, rel=1e-5)
    for mine, its in zip(student.parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(mine.detach(), its.detach(), rtol=1e-4, atol=1e-5)


def test_it_predicts_as_a_plain_network_on_dense_rows():
    rng = np.random.default_rng(0)
    x = (5.0 + 3.0 * rng.normal(size=(70, 6))).astype(np.float32)
    targets = rng.dirichlet(np.ones(4), 70).astype(np.float32)
    student = taught(x, targets, np.arange(70), LESSON)
    with torch.no_grad():
        expected = plain(student).double()(torch.from_numpy(x).double()).softmax(1).numpy()
    np.testing.assert_allclose(predicted(student, x), expected, atol=1e-5)


def test_standard_rows_are_taken_into_the_first_map():
    generator = torch.Generator().manual_seed(1)
    x = 3 + 2 * torch.randn((50, 6), generator=generator)
    shift, scale = x.mean(0), 1 / x.std(0)
    student = StudentNetwork(6, 8, 3).eval()
    with torch.no_grad():
        expected = student((x - shift) * scale)
        student.read_plain(shift, scale)
        torch.testing.assert_close(student(x), expected, rtol=1e-4, atol=1e-5)


def test_nothing_of_a_node_that_is_not_taught_is_read():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    targets = rng.dirichlet(np.ones(4), 60).astype(np.float32)
    ids = np.delete(np.arange(60), [3, 30, 59])
    one = taught(x, targets, ids, LESSON)
    x[[3, 30, 59]], targets[[3, 30, 59]] = np.nan, np.nan
    two = taught(x, targets, ids, LESSON)
    for mine, its in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_rows_are_wider_by_products_of_the_stored_ones(tmp_path):
    given = inputs(tmp_path / "in")
    params = replace(PARAMS, hops=3, neighbours=True, epochs=1)
    found = run_stage(STAGE, params, given, tmp_path / "out")
    x, g = NodeRows(given["codes"]).all(), given["graph"]
    a = np.zeros((300, 300))
    rows = np.repeat(np.arange(300), np.diff(g.array("indptr")))
    a[rows, g.array("indices")] = 1
    mean = a / np.maximum(a.sum(1, keepdims=True), 1)
    last, expected = x[:, 4:].astype(np.float64), [x.astype(np.float64)]
    for _ in range(3):
        last = mean @ last
        expected.append(last)
    models = [(load_model(given[f"ingredient:{i}"].path("model.safetensors")), 1) for i in range(2)]
    told = teacher_probabilities(models, g, torch.from_numpy(x))
    np.testing.assert_array_equal(found.array("told"), told)
    expected.append(mean @ told)
    ids = np.array([299, 0, 7, 7])
    wide = StudentRows(found, given["codes"]).of(ids)
    np.testing.assert_allclose(wide, np.concatenate(expected, 1)[ids], atol=1e-6)
    student = Student(found, given["codes"], g)
    assert student(ids).shape == (4, 3)
    assert found.facts["num_features"] == 8 + 3 * 4 + 3
    # As a new node its neighbours say of it what they say of it in the graph.
    node = int(np.diff(g.array("indptr")).argmax())
    near = np.flatnonzero(a[node])
    row = student.new_rows(x[[node], :4], [near])
    np.testing.assert_allclose(row[0, -3:], (mean @ told)[node], atol=1e-6)
    assert (student.new_rows(x[[node], :4], [[]])[0, 4:] == 0).all()


@pytest.mark.parametrize(("hops", "neighbours"), [(0, False), (2, True)])
def test_the_stage_teaches_two_and_says_what_they_are_worth(tmp_path, hops, neighbours):
    given = inputs(tmp_path / "in")
    params = replace(PARAMS, hops=hops, neighbours=neighbours)
    found = run_stage(STAGE, params, given, tmp_path / "out")
    stored, y = NodeRows(given["codes"]).all(), given["graph"].array("y")
    x = StudentRows(found, given["codes"]).of(np.arange(300))
    test, everyone = given["split"].array("test"), np.arange(300)
    models = [(load_model(given[f"ingredient:{i}"].path("model.safetensors")), 1) for i in range(2)]
    targets = teacher_probabilities(models, given["graph"], torch.from_numpy(stored))
    labelled = y[test] >= 0
    right = (targets[test].argmax(1) == y[test])[labelled].mean()
    assert found.facts["teacher_test_accuracy"] == pytest.approx(right)
    for file, ids, fact, agree in (
        ("student", everyone, "taught_test_accuracy", "taught_agreement"),
        ("kept-out", np.delete(everyone, test), "test_accuracy", "agreement"),
    ):
        network, about = load_student(found.path(f"{file}.safetensors"))
        assert about == {"codes": "c" * 32, "teacher": "ensemble", "taught": len(ids)}
        expected = taught(x, targets, ids, LESSON)
        for name, values in expected.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], values)
        label = predicted(network, x[test]).argmax(1)
        assert found.facts[fact] == pytest.approx((label == y[test])[labelled].mean())
        assert found.facts[agree] == pytest.approx((label == targets[test].argmax(1)).mean())
    assert found.facts["num_parameters"] == sum(p.numel() for p in network.parameters())
    assert found.facts["kept_out"] == len(test)


def test_labels_are_for_the_figures_alone(tmp_path):
    """What the graph says of classes reaches no student: of valid and test nodes nothing may."""
    states = []
    for name, y in (("a", None), ("b", np.full(300, -1))):
        given = inputs(tmp_path / name, y)
        found = run_stage(STAGE, PARAMS, given, tmp_path / f"{name}-out")
        states.append(read_state(found.path("student.safetensors"))[0])
        assert (found.facts["test_accuracy"] is None) == (name == "b")
    assert all(torch.equal(values, states[1][name]) for name, values in states[0].items())


def test_a_soup_teaches_alone(tmp_path):
    given = inputs(tmp_path / "in")
    found = run_stage(
        STAGE, Params("soup", 0, False, 24, 3, 0.1, 0.05, "fp32", 5, "cpu"), given, tmp_path / "out"
    )
    x = NodeRows(given["codes"]).all()
    soup = load_model(given["soup"].path("chosen.safetensors"))
    targets = teacher_probabilities([(soup, 1)], given["graph"], torch.from_numpy(x))
    expected = taught(x, targets, np.arange(300), LESSON)
    network, _ = load_student(found.path("student.safetensors"))
    torch.testing.assert_close(network.first.weight, expected.first.weight)


def recipe(**changes):
    values = {
        "teacher": "auto",
        "hops": 1,
        "neighbours": True,
        "hidden": 64,
        "epochs": 7,
        "dropout": 0.1,
        "noise": 0.0,
    }
    found = {f"student.{name}": value for name, value in {**values, **changes}.items()}
    return found | {"train.precision": "bf16", "train.seed": 3, "train.device": "cpu"}


def test_auto_asks_all_where_there_are_several():
    codes = {"propagated": {"hops": 1}}
    one = {"graph": {"num_nodes": 3000}, "codes": codes, "ingredient:0": {}}
    two = {**one, "ingredient:1": {}}
    assert STAGE.resolve(recipe(), two) == Params(
        "ensemble", 1, True, 64, 7, 0.1, 0.0, "bf16", 3, "cpu"
    )
    assert STAGE.resolve(recipe(), one).teacher == "soup"
    assert STAGE.resolve(recipe(teacher="soup"), two).teacher == "soup"


def test_few_nodes_are_gone_over_more_often():
    for nodes, epochs in ((1, 1500), (3000, 500), (1024 * 38, 40), (10**6, 40)):
        facts = {"graph": {"num_nodes": nodes}, "codes": {"propagated": {}}, "ingredient:0": {}}
        assert STAGE.resolve(recipe(epochs="auto"), facts).epochs == epochs


def test_where_no_hop_was_found_to_pay_there_is_no_student():
    facts = {"graph": {"num_nodes": 100}, "codes": {}, "ingredient:0": {}}
    with pytest.raises(BadInput, match=r"found none: .*auto.*fix: --set features.propagate=2"):
        STAGE.resolve(recipe(), facts)


def test_models_of_other_features_are_refused(tmp_path):
    given = inputs(tmp_path / "a")
    given["ingredient:1"].parents["train"].parents["codes"] = MemoryReader(digest="d" * 32)
    with pytest.raises(BadInput, match=r"ingredient:1 was trained on other features") as error:
        STAGE.run(PARAMS, given, Shard("all"), MemoryWriter(tmp_path / "out"))
    assert "c" * 32 in str(error.value)
    assert "d" * 32 in str(error.value)
    assert "fix: stockpot run RECIPE" in str(error.value)
    given = inputs(tmp_path / "b", num_features=6)
    with pytest.raises(BadInput, match=r"rows of 8 columns, found a model of 6; fix: stockpot run"):
        STAGE.run(PARAMS, given, Shard("all"), MemoryWriter(tmp_path / "out2"))


def served(root, g, rows, products, digest="c" * 32):
    """A student with random weights of some rows."""
    root.mkdir(parents=True, exist_ok=True)
    network = StudentNetwork(rows.shape[1], 8, 3)
    save_student(root / "student.safetensors", network, {"codes": "c" * 32})
    return Student(MemoryReader(root=root), codes_of(rows, digest=digest, **products), g)


def test_a_student_of_other_codes_is_not_served(tmp_path):
    a, x, y = community()
    with pytest.raises(Conflict, match=r"on other features.*found d+; fix: stockpot run RECIPE"):
        served(tmp_path, graph_of(a, y), x, {"hops": 1}, digest="d" * 32)


def test_ids_are_nodes(tmp_path):
    a, x, y = community()
    student = served(tmp_path, graph_of(a, y), x, {"hops": 1})
    ids = [5, 0, 239, 5]
    np.testing.assert_allclose(
        student(ids), predicted(student.network, x)[ids], rtol=1e-5, atol=1e-7
    )
    assert student([]).shape == (0, 3)
    for wrong in ([240], [-1], [0.5], [[1, 2]], ["a"]):
        with pytest.raises(BadInput, match="ids: expected"):
            student(wrong)
    new = np.zeros((1, 4), np.float32)
    for x_new, near, weight, said in (
        (new, [[240]], None, "from 0 to 239, found 240"),
        (new, [[1, 1]], None, "each once"),
        (new, [[1], [2]], None, "expected 2 rows"),
        (new + np.nan, [[1]], None, "finite"),
        (new, [[1]], [[1.0]], "graph has none"),
    ):
        with pytest.raises(BadInput, match=said):
            student.new(x_new, near, weight)


def wide(g, root, hops, adj, normalization, self_loops, alpha):
    """Propagated codes of a graph by the stages themselves."""
    columns = g.facts["num_features"]
    params = PropagateParams(hops, adj, normalization, self_loops, columns, alpha)
    products = run_stage(PROPAGATE, params, {"graph": g}, root / "p")
    codes = run_stage(
        QUANTIZE, QuantizeParams("fp32"), {"graph": g, "propagated": products}, root / "q"
    )
    codes.digest = "c" * 32
    return codes


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    hops=st.integers(1, 3),
    adj=st.sampled_from(["mean", "norm"]),
    normalization=st.sampled_from(["sym", "rw", "none"]),
    self_loops=st.booleans(),
    directed=st.booleans(),
    weighted_edges=st.booleans(),
    alone=st.booleans(),
    more=st.integers(0, 2),
    alpha=st.sampled_from([0.0, 0.3]),
)
def test_rows_of_a_new_node_are_those_of_a_graph_that_has_it(
    tmp_path_factory,
    seed,
    hops,
    adj,
    normalization,
    self_loops,
    directed,
    weighted_edges,
    alone,
    more,
    alpha,
):
    """Of the whole graph's last node: cut off, then described as a new one by its neighbours. The
    first hop is exact; all are where no edge leads back from it."""
    import scipy.sparse as sp

    root = tmp_path_factory.mktemp("new")
    g = graph_reader(
        nodes=50, degree=4, features=5, seed=seed, directed=directed, weighted=weighted_edges
    )
    n = 50
    values = g.arrays["weight"] if weighted_edges else np.ones(g.facts["nnz"], np.float32)
    a = sp.csr_array((values, g.arrays["indices"], g.arrays["indptr"]), (n, n)).tolil()
    if directed:
        a[:, n - 1] = 0  # nobody hears of it
    if alone:
        a[n - 1, :] = 0
        a[:, n - 1] = 0
    a = a.tocsr()
    a.eliminate_zeros()
    a.sort_indices()

    def reader(matrix, x):
        arrays = {"indptr": matrix.indptr.astype(np.int64), "x": x}
        arrays["indices"] = matrix.indices.astype(np.int32)
        if weighted_edges:
            arrays["weight"] = matrix.data.astype(np.float32)
        facts = {**g.facts, "num_nodes": len(x), "nnz": matrix.nnz}
        return MemoryReader(arrays, facts)

    x = g.arrays["x"]
    how = (adj, normalization if adj == "norm" else "none", self_loops and adj == "norm", alpha)
    exact = NodeRows(wide(reader(a, x), root / "whole", hops + more, *how)).of(np.array([n - 1]))
    small = a[: n - 1, : n - 1].tocsr()
    cut = reader(small, x[: n - 1].copy())
    codes = wide(cut, root / "cut", hops, *how)
    network = StudentNetwork(exact.shape[1], 8, 3)
    save_student(root / "student.safetensors", network, {"codes": "c" * 32})
    further = np.zeros((n - 1, 5 * more), np.float32)
    if more:
        rows = NodeRows(codes).all()
        multiply_further(rows, more, codes.facts["propagated"], cut, 1, further)
    arrays = {"more": further} if more else {}
    student = Student(MemoryReader(arrays, root=root), codes, cut)
    row = slice(a.indptr[n - 1], a.indptr[n])
    near = a.indices[row].astype(np.int64)
    weight = [a.data[row]] if weighted_edges else None
    found = student.new_rows(x[n - 1 :], [near], weight)
    columns = found.shape[1] if directed or alone else 10
    np.testing.assert_allclose(
        found[:, :columns], exact[:, :columns], rtol=2e-5, atol=2e-5 * np.abs(exact).max()
    )
    assert found.shape == exact.shape
    np.testing.assert_allclose(
        student.new(x[n - 1 :], [near], weight), predicted(network, found), atol=1e-6
    )
    both = student.new_rows(x[[n - 1, n - 1]], [near, near], weight and weight * 2)
    np.testing.assert_array_equal(both, np.repeat(found, 2, 0))


def test_an_altered_student_is_refused(tmp_path):
    from stockpot.stages.errors import Corrupt

    path = tmp_path / "student.safetensors"
    save_student(path, StudentNetwork(4, 8, 3), {})
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(Corrupt):
        load_student(path)
    model = build_model({**SIZES, **READ, "model": "sage"}, seed=0)
    save_model(path, model, {})
    with pytest.raises(Corrupt, match="student's tensors"):
        load_student(path)
