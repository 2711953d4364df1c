import numpy as np
import pyarrow as pa
import pytest
import torch

from stockpot.stages.errors import Corrupt
from stockpot.stages.hag.sequence import Sequences, read_order
from stockpot.stages.infer import STAGE, full_graph
from stockpot.stages.infer.official import official_score
from stockpot.stages.infer.predict import predict, write_predictions
from stockpot.stages.infer.stage import Params
from stockpot.stages.soup import STAGE as SOUP
from stockpot.stages.soup.stage import Params as SoupParams
from stockpot.stages.stage import Shard
from stockpot.stages.step import Adj
from stockpot.stages.train.model import build_model, load_model
from stockpot.stages.train.train_params import NAMES
from tests.memory import MemoryReader, MemoryWriter, run_stage
from tests.stages.soup.test_soup import trained
from tests.stages.steps import adj_of, community, packs, weighted
from tests.stages.train.test_train import CONFIG


def graph_readers(graph):
    a, x, y = graph
    nodes, columns = x.shape
    arrays = {
        "indptr": a.indptr.astype(np.int64),
        "indices": a.indices.astype(np.int32),
        "y": y.astype(np.int32),
    }
    facts = {"num_nodes": nodes, "nnz": a.nnz, "directed": False, "weighted": False}
    description = {
        "name": "fp32",
        "num_features": columns,
        "row_bytes": 4 * columns,
        "index_bytes": None,
    }
    codes = {"codes": np.ascontiguousarray(x).view(np.uint8).reshape(nodes, -1)}
    about = {
        "description": description,
        "num_nodes": nodes,
        "num_features": columns,
        "code_bytes": 4 * columns * nodes,
    }
    return {"graph": MemoryReader(arrays, facts), "codes": MemoryReader(codes, about)}


def inputs(root, count=2, data=None, **changes):
    data = data or packs()
    singles = trained(root / "train", data, count, **changes)
    soup = run_stage(SOUP, SoupParams("auto"), {"valid": data["valid"], **singles}, root / "soup")
    return {"outputs": data["test"], "soup": soup, **singles, **graph_readers(data["test"].graph)}


def read(reader):
    with pa.OSFile(str(reader.path("predictions.arrow"))) as source:
        return pa.ipc.open_file(source).read_all()


@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
def test_predictions_and_accuracies(tmp_path, model):
    given = inputs(tmp_path, model=model, heads=4 * (model == "gat"))
    found = run_stage(STAGE, Params(full_graph=True), given, tmp_path / "infer")
    table = read(found)
    assert table.schema.names == ["n_id", "label", "probabilities"]
    assert table.schema.types == [pa.int64(), pa.int32(), pa.list_(pa.float32(), 3)]
    n_id, label = table["n_id"].to_numpy(), table["label"].to_numpy()
    assert (n_id == given["outputs"].outputs).all()
    probabilities = np.array(table["probabilities"].to_pylist())
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == label).all()
    a, x, y = given["outputs"].graph
    known = y[n_id] >= 0
    assert 0 < known.sum() < len(known)
    facts = found.facts
    assert facts["num_outputs"] == len(n_id)
    assert facts["test_accuracy"] == pytest.approx((label[known] == y[n_id][known]).mean())
    methods = given["soup"].facts["methods"]
    assert facts["results"].keys() == {"ingredient:0", "ingredient:1", "ensemble", *methods}
    assert facts["results"][facts["chosen"]] == facts["test_accuracy"]
    # These records hold all an output can see, so influence-batched inference is exact.
    assert facts["full_graph_test_accuracy"] == pytest.approx(facts["test_accuracy"])
    chosen = load_model(given["soup"].path("chosen.safetensors"))
    with torch.no_grad():
        logits = chosen(
            torch.from_numpy(x), adj_of(weighted(a, chosen.adj, np.asarray(a.sum(1)).ravel()))
        )
    np.testing.assert_allclose(probabilities, torch.softmax(logits, 1).numpy()[n_id], atol=1e-5)
    predicted = []
    for i in range(2):
        single = load_model(given[f"ingredient:{i}"].path("model.safetensors"))
        with torch.no_grad():
            adj = adj_of(weighted(a, single.adj, np.asarray(a.sum(1)).ravel()))
            predicted.append(single(torch.from_numpy(x), adj).softmax(1).numpy()[n_id])
    mean = (np.mean(predicted, 0).argmax(1) == y[n_id])[known].mean()
    assert facts["results"]["ensemble"] == pytest.approx(mean)
    best = max((0, 1), key=lambda i: given[f"ingredient:{i}"].facts["valid_accuracy"])
    if facts["results"][f"ingredient:{best}"] == facts["test_accuracy"] and "gain" not in facts:
        assert facts["chosen"] in ("best", given["soup"].facts["chosen"])
    else:
        right = [(p.argmax(1) == y[n_id])[known] for p in (probabilities, predicted[best])]
        difference = right[0].astype(float) - right[1]
        assert facts["gain"] == {
            "over": f"ingredient:{best}",
            "accuracy": pytest.approx(difference.mean()),
            "error": pytest.approx(difference.std() / len(difference) ** 0.5),
        }
    member = given["soup"].facts["methods"]["best"]["members"][0]
    assert facts["results"]["best"] == facts["results"][f"ingredient:{member}"]


def test_seconds_are_those_of_the_chosen_model_alone(tmp_path, monkeypatch):
    """A slow model among the others, slow loading and slow writing are no part of
    `infer.seconds`."""
    import time

    from stockpot.stages.infer import predict as module
    from stockpot.stages.train import model as models

    def slow(kind, original):
        def call(*args, **options):
            asked.append(kind)
            clock[0] += 100.0
            return original(*args, **options)

        return call

    asked, clock = [], [0.0]
    given = inputs(tmp_path)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(models, "load_model", slow("load", models.load_model))
    monkeypatch.setattr(module, "predict", slow("predict", module.predict))
    monkeypatch.setattr(module, "write_predictions", slow("write", module.write_predictions))
    writer = MemoryWriter(tmp_path / "infer")
    facts = STAGE.run(Params(full_graph=True), given, Shard("predictions"), writer)
    loaded = 100.0 * asked.count("load")
    assert asked[-3:] == ["predict", "predict", "write"]
    assert writer.notes == {
        "load_seconds": loaded,
        "seconds": 100.0,
        "all_models_seconds": 100.0,
        "write_seconds": 100.0,
        "full_graph_seconds": 0.0,
    }
    assert not [name for name in facts if "seconds" in name]  # times are in no digest


def test_the_official_evaluator_is_not_asked_about_outputs_without_a_label():
    y, predicted = np.array([0, 3, -1, 5]), np.array([0, 1, 7, 5])
    found = official_score("ogbn-arxiv", y, predicted)
    assert found == {"data": "ogbn-arxiv", "metric": "acc", "value": pytest.approx(2 / 3)}
    assert official_score("ogbn-arxiv", np.full(2, -1), np.zeros(2, int)) is None


def test_the_chosen_model_is_held_against_another_output_by_output():
    models = {
        name: build_model({**CONFIG, "model": "gcn"}, seed=i).eval() for i, name in enumerate("ab")
    }
    pack = packs()["test"]
    steps = [pack.step(group, 3, "norm", True) for group in pack.groups]
    right = {name: [] for name in models}
    for one in steps:
        for name, model in models.items():
            with torch.no_grad():
                hits = model(one.x, one.adjs).argmax(1) == one.y
            right[name].append(hits[one.y >= 0].double())
    difference = torch.cat(right["b"]) - torch.cat(right["a"])
    assert difference.abs().sum() > 2
    found, _ = predict(models, "b", steps, len(pack.outputs), 3, lambda *_: None, against="a")
    gain, error = found.gain()
    assert gain == pytest.approx(float(difference.mean()))
    assert error == pytest.approx(float(difference.std(correction=0)) / len(difference) ** 0.5)
    alone, _ = predict(models, "b", steps, len(pack.outputs), 3, lambda *_: None)
    assert alone.won.tolist() == [0, 0]


def test_equal_ingredients_count_each_in_the_mean_of_all_and_one_alone_has_none(tmp_path):
    """Two copies of one model and one of another: a mean of three, though two are asked."""
    models = {
        name: build_model({**CONFIG, "model": "gcn"}, seed=i).eval() for i, name in enumerate("ab")
    }
    pack = packs()["test"]
    steps = [pack.step(group, 3, "norm", True) for group in pack.groups]
    outputs = len(pack.outputs)
    right, labelled, loss = 0, 0, 0.0
    for one in steps:
        with torch.no_grad():
            mean = (
                sum(
                    n * models[name](one.x, one.adjs).softmax(1) for name, n in (("a", 2), ("b", 1))
                )
                / 3
            )
        right += int((mean.argmax(1) == one.y).sum())
        known = one.y >= 0
        labelled += int(known.sum())
        loss -= float(mean[known, one.y[known]].log().sum())
    _, scores = predict(models, "a", steps, outputs, 3, lambda *_: None, None, {"a": 2, "b": 1})
    assert (scores["ensemble"].correct, scores["ensemble"].labelled) == (right, labelled)
    assert scores["ensemble"].loss_sum == pytest.approx(loss, rel=1e-5)
    _, scores = predict(models, "a", steps, outputs, 3, lambda *_: None)
    assert scores.keys() == {"a", "b"}
    alone = run_stage(
        STAGE, Params(full_graph=False), inputs(tmp_path, count=1), tmp_path / "infer"
    )
    assert "ensemble" not in alone.facts["results"]


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("rows", [7, 100, 10_000])
def test_blocks_of_rows_give_the_whole_graph(kind, rows, monkeypatch):
    from stockpot.stages.pack.layers import adjacency

    monkeypatch.setattr(full_graph, "BLOCK_ROWS", rows)
    monkeypatch.setattr(full_graph, "SEQUENCE_ROWS", rows)
    a, x, _ = community(seed=3)
    rows_alone = {"hops": 1, "head": 2}  # what sgc and sign are told
    model = build_model({**CONFIG, **rows_alone, "model": kind}, seed=1).eval()
    matrix = adjacency(a.indptr.astype(np.int64), a.indices, adj=model.adj)
    calls = []
    found = full_graph.full_graph_logits(
        model, matrix, torch.from_numpy(x), lambda *at: calls.append(at)
    )
    with torch.no_grad():
        degree = np.asarray(a.sum(1)).ravel()
        adj = adj_of(weighted(a, model.adj, degree))
        if kind == "sage-lstm":
            adj = Adj(Sequences(a.indptr, a.indices, len(degree), read_order(degree)))
        whole = model(torch.from_numpy(x), adj)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert calls[-1][0] == calls[-1][1] == len(calls)


def test_variable_rows_decode_block_by_block(monkeypatch):
    import scipy.sparse as sp

    from stockpot.stages.codec import node_rows

    monkeypatch.setattr(node_rows, "_DECODE_ROWS", 11)
    x = sp.random(60, 30, 0.2, format="csr", rng=np.random.default_rng(0))
    x.data[:] = 1
    x.sort_indices()
    description = {
        "name": "lossless-sparse",
        "num_features": 30,
        "row_bytes": None,
        "index_bytes": 2,
    }
    arrays = {
        "codes": x.indices.astype("<u2").view(np.uint8),
        "code_indptr": 2 * x.indptr.astype(np.int64),
    }
    codes = MemoryReader(arrays, {"description": description, "num_nodes": 60})
    rows = node_rows.NodeRows(codes)
    assert (rows.all() == x.toarray()).all()
    ids = np.array([59, 0, 7, 7])
    assert (rows.of(ids) == x[ids].toarray()).all()


def test_full_graph_can_be_left_out_and_unlabelled_outputs_have_no_accuracy(tmp_path):
    given = inputs(tmp_path, count=1)
    a, x, y = given["outputs"].graph
    given["outputs"].graph = (a, x, np.full_like(y, -1))
    found = run_stage(STAGE, Params(full_graph=False), given, tmp_path / "infer")
    assert found.facts["full_graph_test_accuracy"] is None
    assert found.facts["test_accuracy"] is None
    assert set(found.facts["results"].values()) == {None}
    assert len(read(found)) == found.facts["num_outputs"]


def test_an_output_in_no_record_is_corrupt():
    data = packs()["test"]
    model = build_model({**CONFIG, "model": "gcn"}, seed=1).eval()
    steps = data.batches(layers=3, adj="norm", shuffle=False)
    del steps.steps[1]
    with pytest.raises(Corrupt, match="found 20 in none"):
        predict({"best": model}, "best", steps, len(data.outputs), 3, lambda *_: None)


def test_predictions_are_by_id_whatever_order_records_and_outputs_come_in(tmp_path):
    data = packs()["test"]
    model = build_model({**CONFIG, "model": "gcn"}, seed=1).eval()
    steps = data.batches(layers=3, adj="norm", shuffle=False)
    tables = []
    turned = [data.step(group[::-1], 3, "norm", self_loops=True) for group in data.groups]
    for name, order in (("one", steps.steps), ("other", steps.steps[::-1]), ("turned", turned)):
        steps.steps = order
        found, scores = predict(
            {"best": model}, "best", steps, len(data.outputs), 3, lambda *_: None
        )
        np.testing.assert_array_equal(found.n_id, data.outputs)
        np.testing.assert_array_equal(found.y, data.graph[2][data.outputs])
        assert 0 < scores["best"].labelled < len(data.outputs)
        write_predictions(tmp_path / name, found)
        tables.append((tmp_path / name).read_bytes())
    assert tables[0] == tables[1]
    columns = [pa.ipc.open_file(table).read_all() for table in tables]
    assert columns[2]["n_id"].equals(columns[0]["n_id"])
    probabilities = [np.stack(table["probabilities"].to_numpy()) for table in columns]
    np.testing.assert_allclose(probabilities[2], probabilities[0], rtol=0, atol=1e-6)
    drawn = np.random.default_rng(0).permutation(
        len(found.n_id)
    )  # as outputs that a user listed in an order of his
    found.n_id, found.probabilities = found.n_id[drawn], found.probabilities[drawn]
    write_predictions(tmp_path / "drawn", found)
    assert (tmp_path / "drawn").read_bytes() == tables[-1]


RECIPE = {
    "dataset.source": "wordnet",
    "infer.split": "test",
    "infer.by": "records",
    "infer.full_graph": False,
    "train.device": "cpu",
    "train.ranks": 1,
    "train.exchange": "auto",
}


def test_projection_counts_the_whole_graph_only_where_it_is_used(tmp_path):
    data = packs()
    facts = {role: r.facts for role, r in graph_readers(data["test"].graph).items()}
    facts |= {
        "outputs": data["test"].facts,
        "soup": {},
        "ingredient:0": {"num_parameters": 500, "hidden": 16},
    }
    with_graph, without = (
        STAGE.cost(Params(full_graph=True), facts),
        STAGE.cost(Params(full_graph=False), facts),
    )
    assert with_graph.peak > without.peak
    assert with_graph.read > without.read
    # Smaller records are no help where it is the whole graph that takes the memory.
    assert (with_graph.mend, without.mend) == ("--set infer.full_graph=false", "")
    assert STAGE.resolve(RECIPE, {}) == Params(full_graph=False)
    shared = {**RECIPE, "train.ranks": 2, "train.exchange": "cooperative"}
    together = STAGE.resolve(shared, {})
    assert together == Params(full_graph=False, ranks=2, exchange="cooperative")
    assert STAGE.cost(together, facts).peak > without.peak
