"""`make bench-cuda` on the CPU: batches on a device are those of the loader and of the sampler,
accuracies those of a direct evaluation, and rows say what was not measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stockpot.stages.train.evaluate import evaluate
from stockpot.stages.train.model import build_model, load_model
from tests.bench import cuda, training_build, training_graphs
from tests.bench.cuda_batches import Drawn, Fed, Records, inference_steps
from tests.bench.cuda_side import DeviceSide, Here, predicting, scored
from tests.bench.inline import run
from tests.bench.test_training_batches import CONFIG, Everyone, graph_of

CPU = ["--device", "cpu", "--small", "--epochs", "2"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(folder, results) of the whole benchmark, no peer installed."""
    folder = tmp_path_factory.mktemp("cuda")
    patch = pytest.MonkeyPatch()

    def child(module, job):
        """The records are built in this process, once, whose kernels are compiled."""
        asked = json.loads(Path(job).read_text())
        store = folder / "stores" / Path(asked["recipe"]).stem
        seconds = training_build.built(Path(asked["recipe"]), asked["sets"], store, folder)
        return [json.dumps({"seconds": seconds})]

    patch.setattr(training_graphs, "child", child)
    words = [*CPU, "--folder", str(folder), "--out", str(folder / "out.json")]
    threads = torch.get_num_threads()
    try:
        assert cuda.main(words) == 0
    finally:
        patch.undo()
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    return folder, json.loads((folder / "out.json").read_text())


@pytest.fixture(scope="module")
def job(built):
    """A job of our side on the records of that benchmark."""
    folder, _ = built
    args = cuda.parsed([*CPU, "--folder", str(folder)])
    args.resident = 1 << 30
    case = cuda.DeviceCase(cuda.graphs(args)[0], args, cuda.Budget(1e9))
    records = case.built("propagated", "features.propagate=2")
    return case.job("stockpot", records, 3, epochs=2)


def same(one, other):
    """Whether two batches hold the same numbers."""
    for a, b in zip(one, other, strict=True):
        assert len(a[1]) == len(b[1])
        torch.testing.assert_close(a[0], b[0], rtol=0, atol=0)
        torch.testing.assert_close(a[2], b[2], rtol=0, atol=0)
        for x, y in zip(a[1], b[1], strict=True):
            for mine, its in ((x.csr, y.csr), (x.t_csr, y.t_csr)):
                assert (mine is None) == (its is None)
                if mine is not None:
                    assert mine.shape == its.shape
                    for part in ("crow_indices", "col_indices", "values"):
                        assert torch.equal(getattr(mine, part)(), getattr(its, part)())


def test_without_a_gpu_one_line_says_what_the_cpu_does(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--device cpu" in error


def test_rows_of_peers_that_are_not_installed_say_so_and_ours_are_measured(built):
    _, found = built
    missing = [row for row in found["rows"] if "missing" in row]
    assert {row["peer"] for row in missing} == {cuda.DGL, cuda.BOLT}
    assert [row["target"] for row in missing if row["peer"] == cuda.DGL] == [18, 17, 130, 130]
    assert all(row["met"] is None and "not installed" in row["missing"] for row in missing)
    rows = [row for row in found["rows"] if row["what"].startswith("an epoch, against")]
    assert {(row["peer"], row["precision"]) for row in rows} == {
        (peer, precision) for peer in (cuda.FULL, cuda.LOADER) for precision in ("fp32", "bf16")
    }
    for row in rows:
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["peer_value"] / row["ours"])
        assert (row["unit"], row["target"], row["met"]) == ("wall s", None, None)
        assert row["by_hand"]
    assert {"machine", "commit", "device", "torch", "spent"} <= set(found)
    assert found["left_out"] == []


def test_records_that_are_prepared_are_found_built(built, monkeypatch, tmp_path):
    folder, _ = built

    def child(*words):
        raise AssertionError("they are built again")

    monkeypatch.setattr(training_graphs, "child", child)
    out = tmp_path / "out.json"
    words = [*CPU, "--prepare", "--folder", str(folder), "--out", str(out)]
    threads = torch.get_num_threads()
    assert cuda.main(words) == 0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    assert json.loads(out.read_text())["rows"] == []
    assert "the records alone" in json.loads(out.read_text())["left_out"][0]


def test_points_of_the_curves_are_in_order_and_full_batch_has_an_epoch_a_step(built):
    _, found = built
    curves = found["curves"]["small 50 %, fp32"]
    assert set(curves) == {"ours", "ours, x", cuda.LOADER, cuda.FULL}
    for curve in curves.values():
        seconds = [point["seconds"] for point in curve]
        assert seconds == sorted(seconds)
    assert len(curves[cuda.FULL]) == cuda.FULL_TIMES * 2 // 5
    # The same training, whose steps come another way.
    for mine, its in zip(curves["ours"], curves[cuda.LOADER], strict=True):
        assert (mine["valid"], mine["test"]) == (its["valid"], its["test"])


def test_resident_steps_are_those_that_the_loader_delivers(job):
    model = build_model(job["config"], seed=0)
    kept = Records(job, model, None, None)
    brought = Records(job | {"resident": 0}, model, None, None)
    assert kept.train_steps.kept is not None
    assert kept.train_steps.bytes > 0
    assert brought.train_steps.kept is None
    orders = set()
    for epoch in range(3):
        brought.train_steps.steps.set_epoch(epoch)
        delivered = [(step.x, step.adjs, step.y) for step in brought.train_steps.steps]
        resident = list(kept.train(epoch))
        same(resident, delivered)
        same(list(brought.train(epoch)), delivered)
        orders.add(tuple(float(x.sum()) for x, _, _ in resident))
    assert len(orders) > 1  # epochs differ in their order
    same(list(kept.valid()), list(brought.valid()))


def test_records_that_do_not_fit_are_brought_by_the_loader(job):
    model = build_model(job["config"], seed=0)
    whole = Records(job, model, None, None).train_steps.bytes
    part = Records(job | {"resident": whole - 1}, model, None, None)
    assert part.train_steps.kept is None
    assert part.valid_steps.bytes <= whole - 1


def test_accuracies_are_those_of_a_direct_evaluation(job):
    side = DeviceSide(job)
    side.turn()
    judged = side.judged()
    own = side.validate()
    model = side.model.eval()
    direct = evaluate(model, side.batches.valid_steps.steps)
    assert (own.correct, own.labelled) == (direct.correct, direct.labelled)
    assert own.loss_sum == pytest.approx(direct.loss_sum, rel=1e-5)
    # The layers in numpy: the mean over neighbours as a dense matrix.
    n = len(side.graph["y"])
    dense = np.zeros((n, n))
    dense[np.repeat(np.arange(n), np.diff(side.graph["indptr"])), side.graph["indices"]] = 1
    dense /= np.maximum(dense.sum(1, keepdims=True), 1)
    h = side.x.numpy().astype(np.float64)
    weights = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}

    def normed(h, name):
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
        return np.maximum(h * weights[f"{name}.weight"] + weights[f"{name}.bias"], 0)

    x = h[:, : 2 * (h.shape[1] // 3)]  # [x, Mx] of the stored [x, Mx, MMx]
    h = (
        dense @ x @ weights["stored.conv.lin_l.weight"].T + weights["stored.conv.lin_l.bias"]
        + x @ weights["stored.conv.lin_r.weight"].T
    )  # fmt: skip
    h = normed(h, "stored_norm")
    last = len(model.convs) - 1
    for i in range(last + 1):
        h = (
            dense @ h @ weights[f"convs.{i}.lin_l.weight"].T + weights[f"convs.{i}.lin_l.bias"]
            + h @ weights[f"convs.{i}.lin_r.weight"].T
        )  # fmt: skip
        h = normed(h, f"norms.{i}") if i < last else h
    right = h.argmax(1) == side.graph["y"]
    for name in ("valid", "test"):
        assert abs(right[side.graph[name]].mean() - judged[name]) <= 1 / len(side.graph[name])


def test_a_loss_that_is_no_number_ends_the_epoch(job):
    side = DeviceSide(job)
    side.seen(torch.tensor(float("nan")))
    with torch.no_grad():
        next(side.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="the loss is nan"):
        side.train()


class Neighbours(Drawn):
    """Draws all neighbours: no peer is needed."""

    @staticmethod
    def opened(job, model, graph):
        return Everyone(job | {"arrays": graph}, model, graph, None)


class AllFed(Fed):
    drawn = Neighbours


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than the cores there are
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_fed_to_the_device_are_the_sampler_s(tmp_path, workers):
    graph = graph_of()
    np.savez(tmp_path / "graph.npz", **graph)
    x = torch.randn(40, 5)
    model = build_model(CONFIG, seed=0)
    asked = {"kind": "all", "graph": str(tmp_path / "graph.npz"), "batch": 7, "seed": 0,
             "device": "cpu", "workers": workers, "arrays": graph}  # fmt: skip
    fed, direct = AllFed(asked, model, graph, x), Everyone(asked, model, graph, x)
    assert fed.outside < 0  # what it took to open the sampler is given back
    for epoch in range(2):
        same(list(fed.train(epoch)), list(direct.train(epoch)))
    found, wanted = list(fed.valid()), list(direct.valid())
    same(found, wanted)
    steps = [SimpleNamespace(x=x, adjs=adjs, y=y) for x, adjs, y in wanted]
    score = scored(model.eval(), found)
    assert (score.correct, score.labelled) == (evaluate(model, steps).correct, 10)


def test_a_sampler_that_is_open_is_opened_once_and_costs_its_side_nothing(
    tmp_path, monkeypatch, job
):
    opened = []

    class Counted(AllFed):
        def __init__(self, *words):
            opened.append(1)
            super().__init__(*words)

    monkeypatch.setitem(DeviceSide.kinds, "all", Counted)
    with np.load(job["graph"]) as z:
        graph = {name: z[name] for name in z.files}
    columns = np.load(job["features"]).shape[1]
    config = CONFIG | {"num_features": columns, "num_classes": int(graph["y"].max()) + 1}
    side = Here("peer", job | {"kind": "all", "config": config, "batch": 200, "workers": 0})
    assert len(opened) == 1
    assert side.seconds >= 0
    side.epoch()
    assert side.side.clock() == pytest.approx(side.side.now(), abs=0.1)
    assert 0 < side.epoch_seconds[0] <= side.train_seconds


def test_a_side_predicts_the_same_from_resident_and_delivered_records(built, job, tmp_path):
    folder, _ = built
    recipe = folder / "infer.toml"
    recipe.write_text((folder / "small-50-propagated.toml").read_text())
    with np.load(job["graph"]) as z:
        ids = z["test"]
    np.save(tmp_path / "ids.npy", ids)
    model = ("batches.top_k=4", "train.hidden=32", "train.model=sage", "train.layers=3")
    which = f"infer.split={tmp_path / 'ids.npy'}", "infer.top_k=64"
    sets = [*model, "features.propagate=2", *which]
    run(recipe, sets, folder / "stores" / "small-50-propagated", folder, ["pack:infer"])
    trained = Here("train", job)
    trained.epoch()
    assert trained.seconds > trained.train_seconds > 0
    assert trained.ask(f"save {tmp_path / 'model.safetensors'}") == {"saved": True}
    base = job | {"weights": str(tmp_path / "model.safetensors"), "run": str(folder / "infer"),
                  "ids": str(tmp_path / "ids.npy")}  # fmt: skip
    found = {kind: predicting(base | {"kind": kind})() for kind in ("records", "streamed", "full")}
    assert found["records"] == found["streamed"]
    assert found["records"].labelled == found["full"].labelled == len(ids)
    assert found["full"].accuracy == pytest.approx(trained.curve[-1].test, abs=1 / len(ids))
    model = load_model(Path(base["weights"])).eval()
    steps = inference_steps(folder / "infer", model, "cpu", 0).steps
    assert evaluate(model, steps).correct == found["records"].correct
    asked = Here("infer", base | {"kind": "records"}, "tests.bench.inference_child").ask()
    assert asked["accuracy"] == found["records"].accuracy
    assert asked["seconds"] > 0


def test_a_budget_says_in_words_what_it_left_out(capsys):
    now = [0.0]
    budget = cuda.Budget(100, clock=lambda: now[0])
    assert budget.enough("epochs", 60)
    now[0] = 70.0
    assert not budget.enough("inference", 60)
    assert budget.left_out == [
        "inference: 30 s of the budget of 100 s were left, about 60 s are needed"
    ]
    assert "left out: inference" in capsys.readouterr().out
    assert not budget.over()
    now[0] = 95.0
    assert budget.over()


def test_a_training_that_the_budget_ends_still_has_rows_of_its_epochs(job, built):
    folder, _ = built
    args = cuda.parsed([*CPU, "--folder", str(folder)])
    args.resident = 1 << 30
    budget = cuda.Budget(5.0)  # less than is kept at its end: one epoch each
    case = cuda.DeviceCase(cuda.graphs(args)[0], args, budget)
    case.built("plain")
    case.built("propagated", "features.propagate=2")
    budget.began -= 10.0
    with pytest.raises(cuda.OutOfTimeError):
        case.alone({})
    case.chosen(peer=False)
    rows = list(cuda.training_rows(case, "fp32", {}, {}))
    assert all(row["n"] == 1 for row in rows)
    assert [row["what"].split(",")[0] for row in rows[:2]] == ["an epoch", "an epoch"]
    assert any("ended by the budget" in words for words in budget.left_out)
