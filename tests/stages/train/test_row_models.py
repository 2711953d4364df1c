"""SGC and SIGN against torch_geometric and torch; that they see no edge; what is refused."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stockpot.planning.recipe import from_tables
from stockpot.stages.codec.coded_rows import Coded
from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.errors import BadInput
from stockpot.stages.exchange.cost_model import predicted, widths
from stockpot.stages.infer.full_graph import full_graph_logits
from stockpot.stages.loader.records import Records
from stockpot.stages.propagate import STAGE as PROPAGATE
from stockpot.stages.propagate.stage import Params as Products
from stockpot.stages.row_sizes import linear_layers, multiply_adds
from stockpot.stages.train.evaluate import open_steps
from stockpot.stages.train.model import build_model, load_model, save_model
from stockpot.stages.train.train_params import NAMES, SHARED, model_config, resolve, widest
from stockpot.stages.train.training_cost import parameter_bytes
from tests.memory import run_stage
from tests.packs import features, graph_reader, packed

BASE = {
    "num_features": 12, "num_classes": 4, "hidden": 6, "layers": 0, "head": 2, "hops": 2,
    "dropout": 0.5, "normalization": "none", "mass": "none", "self_loops": False,
}  # fmt: skip


def configured(model, **changes):
    return {"model": model, **BASE, **changes}


def rows(count=9, columns=12, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, columns))).float()


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_sgc_is_torch_geometrics_sgconv(tmp_path, hops, directed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import SGConv

    graph = graph_reader(nodes=80, degree=4, features=5, directed=directed)
    params = Products(hops, "norm", "sym", True, 5)
    products = run_stage(PROPAGATE, params, {"graph": graph}, tmp_path)
    ((_, stored),) = Features.of({"graph": graph, "propagated": products}).chunks()
    model = build_model(configured("sgc", num_features=5 * (hops + 1), hops=hops), seed=1).eval()
    theirs = SGConv(5, 4, K=hops).eval()
    assert {n: p.shape for n, p in theirs.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    theirs.load_state_dict(model.state_dict())
    target = np.repeat(np.arange(80), np.diff(graph.array("indptr")))
    edges = torch.from_numpy(np.stack([graph.array("indices"), target]).astype(np.int64))
    expected = theirs(torch.from_numpy(features(graph).copy()), edges)
    found = model(torch.from_numpy(np.ascontiguousarray(stored)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    hops=st.integers(1, 4),
    head=st.integers(1, 4),
    columns=st.integers(1, 5),
    hidden=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_sign_is_a_perceptron_of_the_maps_of_its_hops(hops, head, columns, hidden, seed):
    """Of torch's own layers, in float64, gradients included."""
    config = configured(
        "sign", hops=hops, head=head, hidden=hidden, num_features=columns * (hops + 1)
    )
    model = build_model(config, seed=seed).double().eval()
    x = rows(7, columns * (hops + 1), seed).double()
    first = nn.ModuleList(nn.Linear(columns, hidden) for _ in range(hops + 1)).double()
    for mine, own in zip(first, model.lins, strict=True):
        mine.load_state_dict(own.state_dict())
    parts: list[nn.Module] = []
    for norm, lin in zip(model.norms, model.head, strict=True):
        width = norm.weight.numel()
        parts += [nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, lin.out_features)]
        parts[-3].load_state_dict(norm.state_dict())
        parts[-1].load_state_dict(lin.state_dict())
    perceptron = nn.Sequential(*parts).double()
    expected = perceptron(
        torch.cat([lin(x[:, k * columns : (k + 1) * columns]) for k, lin in enumerate(first)], 1)
    )
    found = model(x, ())
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    theirs = [*first.parameters(), *perceptron.parameters()]
    shapes = sorted(tuple(p.shape) for p in theirs)
    assert shapes == sorted(tuple(p.shape) for p in model.parameters())
    torch.testing.assert_close(model.lins[0].weight.grad, first[0].weight.grad)
    torch.testing.assert_close(model.head[-1].bias.grad, perceptron[-1].bias.grad)
    assert multiply_adds(config) == sum(p.numel() for p in model.parameters() if p.dim() == 2)


def test_published_sign_is_one_linear_layer_after_the_hops():
    model = build_model(configured("sign", head=1), seed=0)
    assert [(lin.in_features, lin.out_features) for lin in model.lins] == [(4, 6)] * 3
    assert [(lin.in_features, lin.out_features) for lin in model.head] == [(18, 4)]
    assert linear_layers(model.config) == [(3, 4, 6), (1, 18, 4)]


def test_dropout_is_drawn_from_the_models_generator():
    model = build_model(configured("sign"), seed=0).train()

    def drawn(seed):
        model.generator = torch.Generator().manual_seed(seed)
        return model(rows())

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    model.eval()
    assert torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("model", ["sgc", "sign"])
def test_weights_are_drawn_evenly_within_one_over_the_root_of_the_columns(model):
    built = build_model(configured(model, num_features=3000, num_classes=40, hidden=30), seed=3)
    for part in built.modules():
        if isinstance(part, nn.Linear):
            bound = part.in_features**-0.5
            assert 0.99 * bound < part.weight.abs().max() <= bound
            assert part.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("model", ["sgc", "sign"])
def test_a_stored_model_is_the_same(tmp_path, model):
    built = build_model(configured(model), seed=2).eval()
    save_model(tmp_path / "model.safetensors", built, {})
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again(rows()), built(rows()))


@pytest.mark.parametrize("model", ["sgc", "sign"])
@pytest.mark.parametrize("codec", ["fp32", "pq4"])
def test_outputs_of_records_are_rows_of_the_whole_graph(tmp_path, model, codec):
    """Of records with edges, too, which such a model does not read; codes are multiplied by SGC and
    decoded for SIGN."""
    reader, inputs = packed(tmp_path, codec=codec, nodes=400, features=32)
    config = configured(model, num_features=32, hops=1)
    built = build_model(config, seed=0).eval()
    every = inputs["codes"]
    from stockpot.stages.codec.node_rows import NodeRows

    whole = full_graph_logits(built, None, torch.from_numpy(NodeRows(every).all()))
    records = Records.from_reader(reader)
    assert sum(records.num_edges) > 0
    with torch.no_grad():
        for step in open_steps(reader, built, training=True):
            assert step.adjs == ()
            assert isinstance(step.x, Coded) == (codec == "pq4" and model == "sgc")
            found = built(step.x, step.adjs)
            torch.testing.assert_close(found, whole[step.n_id], rtol=1e-4, atol=1e-5)


def test_a_graph_larger_than_a_block_is_one_pass_over_its_rows(monkeypatch):
    from stockpot.stages.infer import full_graph

    monkeypatch.setattr(full_graph, "BLOCK_ROWS", 4)
    built, heard = build_model(configured("sign"), seed=0).eval(), []
    found = full_graph_logits(built, None, rows(), lambda *said: heard.append(said[:2]))
    torch.testing.assert_close(found, built(rows()))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def asked(model, packed_facts, **changes):
    values = {**from_tables("rows", {}).values(), "train.model": model, "index": 0}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    facts = {"records": 4, "num_features": 12, "num_classes": 4, **packed_facts}
    return resolve(values, {"train": facts})


PRODUCTS = {"hops": 2, "adj": "mean", "normalization": "none", "self_loops": False}


@pytest.mark.parametrize("model", ["sgc", "sign"])
def test_parameters_of_a_row_model(model):
    params = asked(model, {"propagated": PRODUCTS, "edgeless": True}, train__layers=2)
    config = model_config(params, {"num_features": 12, "num_classes": 4})
    built = build_model(config, seed=0)
    assert config["layers"] == 0
    assert params.hops == config["hops"] == 2
    if model == "sgc":
        assert (params.layers, params.hidden, params.dropout) == (1, 0, 0.0)
    else:
        assert widest(params) == 3 * params.hidden
    assert (params.normalization, params.mass, params.self_loops) == ("none", "none", False)
    numbers = sum(p.numel() for p in built.parameters())
    size = parameter_bytes(params, {"num_features": 12, "num_classes": 4})
    assert 4 * numbers <= size <= 8 * numbers
    # What another model reads is in no key of this one's.
    same = asked(
        model,
        {"propagated": PRODUCTS, "edgeless": True},
        train__layers=2, train__heads=7, graph__mass="row", graph__normalization="rw",
    )  # fmt: skip
    assert same == params


def test_features_that_are_not_multiplied_are_refused():
    with pytest.raises(BadInput, match=r"features.propagate: .*'sign'.* expected 1 hop") as error:
        asked("sign", {})
    assert error.value.fix == "--set features.propagate=3"


@pytest.mark.parametrize("model", [n for n in NAMES if n not in ("sgc", "sign")])
def test_models_that_read_edges_are_refused_where_records_have_none(model):
    with pytest.raises(BadInput, match=r"batches.method: its records have no edges") as error:
        asked(model, {"propagated": PRODUCTS, "edgeless": True})
    assert "--set batches.method=node" in error.value.fix
    assert asked(model, {"propagated": PRODUCTS}).hops == 0


def test_fewer_fanouts_than_layers_are_enough_for_a_model_without_any():
    sampling = {"fanouts": [5]}
    found = asked("sign", {"propagated": PRODUCTS, "sampling": sampling}, train__layers=4)
    assert found.layers == 4


def test_what_ranks_are_predicted_to_do_is_rows_alone():
    """Nothing crosses, and the work is that of the model's weights for each row."""
    assert {"sgc", "sign"} < set(SHARED)
    config = configured("sign")
    assert widths(config) == []
    reads = {"rows": [60, 99], "edges": [0, 50], "features": [480, 800]}
    exchange = {"ranks": 2, "row_bytes": 8, "received": [7, 9], "together": reads, "alone": reads}
    facts = {"records": 6, "weighted": False}
    for mode, found in predicted(exchange, facts, config, 2).items():
        assert found.interconnect == 0, mode
        assert found.features == 480
        assert found.storage == 480 + 8 * 60
        assert found.work == 3 * 60 * multiply_adds(config)
