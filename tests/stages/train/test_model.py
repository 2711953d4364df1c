import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.kernels.sparse_product import dropout_mask, norm_relu_dropout, spmm
from stockpot.stages.step import Adj
from stockpot.stages.train.convs import GATConv, GCNConv, GINConv, SAGEConv
from stockpot.stages.train.model import build_model, load_model, save_model
from stockpot.stages.train.state import read_state, state_digest, write_state
from tests.stages.steps import Pack, adj_of, community, packs, weighted

CONFIG = {
    "num_features": 8,
    "num_classes": 3,
    "hidden": 16,
    "layers": 3,
    "dropout": 0.5,
    "heads": 4,
}
KINDS = ["gcn", "sage", "gin", "gat", "gat-last"]


def pair(kind, dims, heads=3):
    """(our convolution, torch_geometric's, the matrix both read) of a kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric import nn
    i, o = dims
    if kind == "gcn":
        return GCNConv(i, o), nn.GCNConv(i, o, normalize=False), "norm"
    if kind == "sage":
        return SAGEConv(i, o), nn.SAGEConv(i, o), "mean"
    if kind == "gin":
        mlp = torch.nn.Sequential(
            torch.nn.Linear(i, o), torch.nn.BatchNorm1d(o), torch.nn.ReLU(), torch.nn.Linear(o, o)
        )
        return GINConv(i, o), nn.GINConv(mlp, train_eps=True), "plain"
    concat = kind == "gat"
    width = o if concat else 3 * o
    peer = nn.GATConv(i, o // heads if concat else o, heads, concat=concat, add_self_loops=False)
    assert peer.lin.weight.shape[0] == width
    return GATConv(i, o, heads, concat=concat), peer, "plain+loops"


def random_graph(nodes, edges, seed):
    rng = np.random.default_rng(seed)
    a = sp.csr_matrix(
        (np.ones(edges), (rng.integers(0, nodes, edges), rng.integers(0, nodes, edges))),
        (nodes, nodes),
    )
    a.data[:] = 1
    a.setdiag(0)
    a.eliminate_zeros()
    return a.tocsr()


def edges_of(matrix):
    coo = matrix.tocoo()
    return torch.from_numpy(np.stack([coo.col, coo.row]).astype(np.int64)), torch.from_numpy(
        coo.data
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(0, 90),
    st.sampled_from([(3, 6), (15, 3)]),
    st.sampled_from(KINDS),
    st.booleans(),
    st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_convolutions_equal_torch_geometric(nodes, edges, dims, kind, diagonal, seed):
    torch.manual_seed(seed)
    a = random_graph(nodes, edges, seed)
    ours, theirs, adj = pair(kind, dims)
    ours.double().reset_parameters()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    theirs.double().load_state_dict(ours.state_dict())
    adj = (
        "plain" if kind.startswith("gat") and not diagonal else adj
    )  # rows without neighbours then
    matrix = weighted(a, adj, np.asarray(a.sum(1)).ravel())
    if nodes == 1:  # torch's BatchNorm refuses a single row in training
        theirs.eval()
    x = torch.randn(nodes, dims[0], dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    edge_index, weight = edges_of(a if kind == "sage" else matrix)
    mine = ours(ours.project(x), adj_of(matrix, torch.float64))
    peer = theirs(z, edge_index, weight) if kind == "gcn" else theirs(z, edge_index)
    torch.testing.assert_close(mine, peer, rtol=1e-9, atol=1e-11)
    g = torch.randn_like(mine)
    mine.backward(g)
    peer.backward(g)
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-9, atol=1e-11)
    for (name, p), (other, q) in zip(
        sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True
    ):
        assert name == other
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_follow_torch_geometric(kind):
    torch.manual_seed(0)
    ours, theirs, _ = pair(kind, (200, 300))
    ours.reset_parameters()
    for (name, p), (other, q) in zip(
        sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True
    ):
        assert name == other
        assert p.shape == q.shape
        assert abs(p.abs().max() - q.abs().max()) <= 0.04 * q.abs().max()
        assert abs(p.std(correction=0) - q.std(correction=0)) <= 0.1 * q.std(correction=0) + 1e-12


@pytest.mark.parametrize("kind", ["gcn", "sage", "gin", "gat"])
def test_trimmed_records_equal_the_whole_graph(kind):
    graph = community()
    a, x, _ = graph
    model = build_model({**CONFIG, "model": kind}, seed=1).eval()
    whole = model(torch.from_numpy(x), adj_of(weighted(a, model.adj, np.asarray(a.sum(1)).ravel())))
    outputs = np.arange(0, 240, 7)
    for step in Pack(graph, outputs, per_record=10).batches(layers=3, adj=model.adj, shuffle=False):
        torch.testing.assert_close(
            model(step.x, step.adjs), whole[step.n_id[: step.batch_size]], rtol=1e-4, atol=2e-5
        )


def test_features_get_no_gradient_and_no_transposed_product():
    a, x, _ = community()
    adj = adj_of(weighted(a, "mean", None))
    x = torch.from_numpy(x)
    assert spmm(adj.csr, None, x).grad_fn is None  # a missing transpose is never touched
    y = spmm(adj.csr, adj.t_csr, x.requires_grad_())
    y.sum().backward()
    torch.testing.assert_close(x.grad, (adj.t_csr @ torch.ones_like(y)))


def test_wrong_number_of_layers_is_refused():
    step = packs()["train"].step(np.arange(5), 2, "norm", True)
    with pytest.raises(ValueError, match="the model has 3 layers, the step brings 2 matrices"):
        build_model({**CONFIG, "model": "gcn"})(step.x, step.adjs)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_its_expectation(p):
    mask = dropout_mask((501, 203), round(256 * p), torch.Generator().manual_seed(3), "cpu")
    assert set(mask.unique().tolist()) == {0, 1}
    kept = 1 - round(256 * p) / 256
    assert abs(mask.double().mean() - kept) < 4 * (kept * (1 - kept) / mask.numel()) ** 0.5
    ones = torch.ones(501, 203)
    out = norm_relu_dropout(
        ones, torch.ones(203), torch.ones(203), 1e-5, p, torch.Generator().manual_seed(3)
    )
    assert torch.equal(out, (mask / kept).float())


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_fused_norm_relu_dropout_has_the_gradients_of_its_parts(p):
    torch.manual_seed(0)
    x, g = torch.randn(40, 24, dtype=torch.float64), torch.randn(40, 24, dtype=torch.float64)
    weight, bias = torch.randn(24, dtype=torch.float64), torch.randn(24, dtype=torch.float64)
    mine = [t.clone().requires_grad_() for t in (x, weight, bias)]
    plain = [t.clone().requires_grad_() for t in (x, weight, bias)]
    out = norm_relu_dropout(*mine, 1e-5, p, torch.Generator().manual_seed(7))
    out.backward(g)
    threshold = round(256 * p)
    mask = dropout_mask((40, 24), threshold, torch.Generator().manual_seed(7), "cpu") * (
        256 / (256 - threshold)
    )
    expected = (
        torch.nn.functional.layer_norm(plain[0], [24], plain[1], plain[2], 1e-5).relu() * mask
    )
    expected.backward(g)
    torch.testing.assert_close(out, expected)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_evaluation_is_deterministic_and_training_is_drawn_from_the_generator():
    step = packs()["train"].step(np.arange(9), 3, "norm", True)
    model = build_model({**CONFIG, "model": "gcn"}, seed=0)
    model.generator = torch.Generator().manual_seed(5)
    first, second = model(step.x, step.adjs), model(step.x, step.adjs)
    model.generator.manual_seed(5)
    assert not torch.equal(first, second)
    assert torch.equal(first, model(step.x, step.adjs))
    model.eval()
    assert torch.equal(model(step.x, step.adjs), model(step.x, step.adjs))


def test_one_seed_is_one_start_and_leaves_torch_alone():
    before = torch.random.get_rng_state()
    a, b, c = (build_model({**CONFIG, "model": "sage"}, seed=s) for s in (4, 4, 5))
    assert torch.equal(before, torch.random.get_rng_state())
    assert (
        state_digest(a.state_dict()) == state_digest(b.state_dict()) != state_digest(c.state_dict())
    )


def test_other_models_are_refused_by_name():
    with pytest.raises(
        BadInput,
        match=r"gin, sage-lstm, sgc, sign or package.module:factory, found 'mlp'",
    ):
        build_model({**CONFIG, "model": "mlp"})


@pytest.mark.parametrize("kind", ["gcn", "sage", "gin", "gat"])
def test_a_gradient_without_transposes_is_an_error(kind):
    model = build_model({**CONFIG, "model": kind}, seed=0)
    step = packs()["train"].step(np.arange(5), 3, model.adj, True)
    bare = [Adj(adj.csr) for adj in step.adjs]
    with torch.no_grad():
        model.eval()(step.x, bare)
    with pytest.raises(ValueError, match="these steps bring none"):
        model.train()(step.x, bare)


@pytest.mark.parametrize("kind", ["gcn", "sage", "gin", "gat"])
@pytest.mark.parametrize("features", [8, 40])
def test_the_transposes_a_model_names_are_enough(kind, features):
    """Without the first one where the model says "inner"; the gradients are those of all of
    them."""
    model = build_model({**CONFIG, "num_features": features, "model": kind}, seed=0).eval()
    assert model.transposes == {"gat": "places"}.get(kind, "inner" if features == 8 else "all")
    step = packs(features=features)["train"].step(np.arange(40), 3, model.adj, True)
    grads = []
    for first in (
        step.adjs[0],
        Adj(step.adjs[0].csr) if model.transposes == "inner" else step.adjs[0],
    ):
        model.zero_grad()
        model(step.x, [first, *step.adjs[1:]]).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_a_model_file_holds_all_it_needs_and_equal_models_have_equal_bytes(tmp_path):
    model = build_model({**CONFIG, "model": "sage", "normalization": "none"}, seed=2)
    save_model(tmp_path / "a.safetensors", model, {"seed": 2})
    save_model(tmp_path / "b.safetensors", model, {"seed": 2})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    back = load_model(tmp_path / "a.safetensors")
    assert not back.training
    assert back.config == model.config
    assert state_digest(back.state_dict()) == state_digest(model.state_dict())


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "m.safetensors"
    write_state(path, {"w": torch.arange(1000.0)}, {"a": 1})
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(
        {"flip": bytes(data), "truncate": data[:-8], "empty": b"", "text": b"hello" * 100}[damage]
    )
    with pytest.raises(Corrupt, match=r"m\.safetensors"):
        read_state(path)


def test_describing_the_stages_imports_no_torch():
    code = """
import sys, stockpot.stages.train, stockpot.stages.soup, stockpot.stages.infer
print({"torch", "numba", "scipy", "zarr"} & set(sys.modules))
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "set()"
