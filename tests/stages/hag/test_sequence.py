"""An LSTM over neighbours on shared prefixes: torch's LSTM row by row, torch_geometric's, and the
pipeline's steps."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stockpot.stages.hag.sequence import Sequences, read_order
from stockpot.stages.infer import full_graph
from stockpot.stages.infer.full_graph import full_graph_logits
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack.layers import adjacency
from stockpot.stages.pack.stage import Params as PackParams
from stockpot.stages.soup.kept_batches import step_bytes
from stockpot.stages.step import Adj
from stockpot.stages.train.convs import LSTMConv
from stockpot.stages.train.model import build_model
from tests.loaders import read_steps
from tests.memory import run_stage
from tests.packs import inputs_of


def row_by_row(lstm, x, indptr, indices, rank):
    """torch's LSTM over the neighbours of each row alone."""
    out = []
    for i in range(len(indptr) - 1):
        row = indices[indptr[i] : indptr[i + 1]]
        row = row[np.argsort(rank[row], kind="stable")]
        out.append(lstm(x[row][None])[0][0, -1] if len(row) else x.new_zeros(lstm.hidden_size))
    return torch.stack(out)


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 10**6))
def test_every_row_is_the_lstm_of_its_sequence(rows, cols, density, seed):
    rng = np.random.default_rng(seed)
    a = sp.csr_matrix(rng.random((rows, cols)) < density)
    rank = rng.permutation(cols)
    found = Sequences(a.indptr, a.indices, cols, rank)
    assert found.steps == sum(found.sizes) <= found.plain_steps == a.nnz
    lstm = nn.LSTM(4, 4, batch_first=True).double()
    x, y = (torch.from_numpy(rng.standard_normal((cols, 4))).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    gates = x @ lstm.weight_ih_l0.t() + lstm.bias_ih_l0 + lstm.bias_hh_l0
    ours, theirs = (
        found.lstm(gates, lstm.weight_hh_l0),
        row_by_row(lstm, y, a.indptr, a.indices, rank),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    if not a.nnz:
        assert not ours.any()
        return
    by = torch.from_numpy(rng.standard_normal(ours.shape))
    ours_by = torch.autograd.grad(
        (ours * by).sum(), [x, *lstm.parameters()], allow_unused=True, materialize_grads=True
    )
    their_by = torch.autograd.grad(
        (theirs * by).sum(), [y, *lstm.parameters()], allow_unused=True, materialize_grads=True
    )
    for mine, other in zip(ours_by, their_by, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_gradcheck():
    a = sp.csr_matrix(np.random.default_rng(0).random((5, 6)) < 0.5)
    found = Sequences(a.indptr, a.indices, 6, np.arange(6))
    gates, weight = torch.randn(6, 8, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(found.lstm, (gates.requires_grad_(), weight.requires_grad_()))


def test_twin_rows_are_read_once():
    found = Sequences(np.arange(9) * 4, np.tile(np.arange(4), 8), 4, np.arange(4))
    assert (found.steps, found.plain_steps) == (4, 32)


def test_rows_of_one_length_are_torch_geometrics_sage():
    pyg = pytest.importorskip("torch_geometric.nn")
    n, d, degree = 30, 6, 4
    rng = np.random.default_rng(0)
    neighbours = np.stack([np.sort(rng.permutation(n)[:degree]) for _ in range(n)])
    edges = torch.from_numpy(np.stack([neighbours.reshape(-1), np.repeat(np.arange(n), degree)]))

    # A class of its own: torch_geometric compiles a layer's code once a class, for the first
    # layer's aggregation, and a later SAGEConv of means would then fail on sparse matrices.
    class SAGEOfLSTM(pyg.SAGEConv):
        pass

    theirs, ours = SAGEOfLSTM(d, 5, aggr="lstm"), LSTMConv(d, 5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(n, d)
    adj = Adj(Sequences(np.arange(n + 1) * degree, neighbours.reshape(-1), n, np.arange(n)))
    torch.testing.assert_close(ours(x, adj), theirs(x, edges), rtol=1e-5, atol=1e-5)


def test_the_order_is_by_falling_degree_then_by_id():
    assert read_order(np.array([1, 3, 3, 2])).tolist() == [3, 0, 1, 2]
    assert read_order(np.array([1, 3, 3, 2]), np.array([7, 9, 4, 2])).tolist() == [3, 1, 0, 2]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return inputs_of(tmp_path_factory.mktemp("sequence"))


CONFIG = {"model": "sage-lstm", "hidden": 8, "layers": 2, "dropout": 0.0}


def model_of(inputs):
    facts = inputs["graph"].facts
    sizes = {"num_features": facts["num_features"], "num_classes": facts["num_classes"]}
    return build_model({**CONFIG, **sizes}, seed=0).eval()


def checked(sequences, plain, rank, model):
    """The same rows by torch's LSTM, one at a time."""
    lstm = model.convs[0].aggr_module["lstm"]
    x = torch.randn(plain.shape[1], lstm.input_size)
    gates = x @ lstm.weight_ih_l0.t() + lstm.bias_ih_l0 + lstm.bias_hh_l0
    pointer, columns = plain.crow_indices().numpy(), plain.col_indices().numpy()
    theirs = row_by_row(lstm, x, pointer, columns, rank)
    torch.testing.assert_close(
        sequences.lstm(gates, lstm.weight_hh_l0), theirs, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("per_step", [1, 3])
def test_steps_read_the_rows_of_their_records_in_the_order_of_the_graph(inputs, tmp_path, per_step):
    pack = run_stage(PACK, PackParams("train", 4), inputs, tmp_path / "pack")
    model, deg = model_of(inputs), np.diff(inputs["graph"].array("indptr"))
    how = {"layers": 2, "transposes": "none", "per_step": per_step, "shuffle": False, "prefetch": 0}
    for step, plain in zip(
        read_steps(pack, adj=model.adj, **how), read_steps(pack, adj="plain", **how), strict=True
    ):
        assert step_bytes(step) > step.x.nbytes
        assert torch.isfinite(model(step.x, step.adjs)).all()
        for ours, theirs in zip(step.adjs, plain.adjs, strict=True):
            ids = plain.n_id[: theirs.csr.shape[1]].numpy()
            checked(ours.csr, theirs.csr, read_order(deg[ids], ids), model)


def test_the_whole_graph_in_blocks(inputs, monkeypatch):
    model, graph = model_of(inputs), inputs["graph"]
    matrix = adjacency(
        graph.array("indptr"), graph.array("indices"), adj=model.adj, self_loops=False
    )
    x = torch.randn(matrix.shape[0], graph.facts["num_features"])
    rank = read_order(np.diff(matrix.indptr))
    whole = Adj(Sequences(matrix.indptr, matrix.indices, matrix.shape[1], rank))
    monkeypatch.setattr(full_graph, "SEQUENCE_ROWS", 64)
    with torch.no_grad():
        torch.testing.assert_close(
            full_graph_logits(model, matrix, x), model(x, whole), rtol=1e-5, atol=1e-5
        )
