import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import torch

from stockpot import open_batches, open_model, open_records
from stockpot.execution.task import FINISH, Task, execute
from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.stage import Cost, Shard, Stage
from stockpot.store.keys import artifact_key
from tests.loaders import read_steps
from tests.memory import MemoryReader
from tests.packs import dense, packed

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch_geometric's import, of torch.jit
    from torch_geometric.data import Data
    from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv
    from torch_geometric.utils import trim_to_layer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("pack"), records={"outputs": 84, "records": 14})


@pytest.fixture(scope="module")
def pack(made):
    return made[0]


def ids(batches):
    return [tuple(b.input_id.tolist()) for b in batches]


def test_a_batch_is_data_for_pyg(made):
    pack, inputs = made
    a = dense(inputs["graph"])
    for batch in open_batches(pack, per_step=2):
        assert isinstance(batch, Data)
        n = batch.n_id.numpy()
        assert batch.num_nodes == len(n) == sum(batch.num_sampled_nodes)
        assert batch.y.dtype == torch.int64
        assert (
            len(batch.y)
            == len(batch.input_id)
            == batch.batch_size
            == batch.num_outputs_step
            == batch.num_sampled_nodes[0]
        )
        np.testing.assert_array_equal(
            batch.y.numpy(), inputs["graph"].arrays["y"][n[: batch.batch_size]]
        )
        adj = batch.adj_t.to_dense().numpy()
        assert set(np.unique(adj)) <= {0, 1}
        assert (adj <= (a[np.ix_(n, n)] != 0)).all()  # joined records have no edge between them
        assert not adj.diagonal().any()


LAYERS = {
    "plain": [
        lambda d: SAGEConv(d, 5),
        lambda d: GATConv(d, 5),
        lambda d: GINConv(torch.nn.Linear(d, 5)),
    ],
    "norm": [lambda d: GCNConv(d, 5, normalize=False)],
}


# PyG's attention builds a CSR tensor of its own, and torch then says that it does not check it.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("adj", "make"), [(adj, make) for adj, makes in LAYERS.items() for make in makes]
)
def test_pyg_layers_agree_on_csr_and_edges(pack, adj, make):
    torch.manual_seed(0)
    layer = make(7)
    csr = open_batches(pack, adj=adj, shuffle=False, per_step=3)
    edges = open_batches(pack, adj=adj, shuffle=False, per_step=3, as_="edge_index")
    for one, other in zip(csr, edges, strict=True):
        weight = (other.edge_weight,) if adj == "norm" else ()
        assert ("edge_weight" in other) == (adj == "norm")
        torch.testing.assert_close(
            layer(one.x, one.adj_t), layer(other.x, other.edge_index, *weight)
        )


@pytest.mark.parametrize("adj", ["norm", "mean", "plain", "plain+loops"])
def test_edges_carry_the_values_of_the_matrix_where_they_are_not_all_one(pack, adj):
    csr = open_batches(pack, adj=adj, shuffle=False, per_step=2)
    edges = open_batches(pack, adj=adj, shuffle=False, per_step=2, as_="edge_index")
    for one, other in zip(csr, edges, strict=True):
        assert ("edge_weight" in other) == (adj in ("norm", "mean"))
        found = torch.zeros(one.adj_t.shape)
        source, target = other.edge_index
        found[target, source] = (
            other.edge_weight if "edge_weight" in other else torch.ones(len(source))
        )
        assert torch.equal(found, one.adj_t.to_dense())


def test_normalisation_of_a_record_uses_whole_graph_degrees(made):
    """PyG's own normalisation where the record is the graph; here only a part of each neighbourhood
    is inside."""
    pack, inputs = made
    a = dense(inputs["graph"]) != 0
    batch = next(iter(open_batches(pack, adj="norm", shuffle=False)))
    n = batch.n_id.numpy()
    s = (a.sum(1) + 1.0)[n] ** -0.5
    expected = s[:, None] * (a[np.ix_(n, n)] + np.eye(len(n))) * s
    np.testing.assert_allclose(batch.adj_t.to_dense().numpy(), expected, rtol=1e-5)
    loops = next(iter(open_batches(pack, adj="plain+loops", shuffle=False)))
    assert (loops.adj_t.to_dense().diagonal() == 1).all()


def test_trimmed_layers_give_the_same_outputs(pack):
    torch.manual_seed(0)
    first, second = GCNConv(7, 6, normalize=False), GCNConv(6, 5, normalize=False)
    whole = open_batches(pack, adj="norm", per_step=2)
    edges = open_batches(pack, adj="norm", per_step=2, as_="edge_index").layers(2)
    for full, trim, edge in zip(whole, whole.layers(2), edges, strict=True):
        expected = second(first(full.x, full.adj_t).relu(), full.adj_t)[: full.batch_size]
        x = trim.x
        assert len(trim.adjs) == 2
        for layer, adj in zip((first, second), trim.adjs, strict=True):
            assert adj.shape[1] == len(x)
            x = torch.sparse.mm(adj, layer.lin(x)) + layer.bias
            x = x.relu() if layer is first else x
        torch.testing.assert_close(x, expected)
        x, index, weight = edge.x, edge.edge_index, edge.edge_weight
        assert len(edge.num_sampled_edges) == 2
        for k, layer in enumerate((first, second)):
            x, index, weight = trim_to_layer(
                k, edge.num_sampled_nodes, edge.num_sampled_edges, x, index, weight
            )
            x = layer(x, index, weight)
            x = x.relu() if k == 0 else x
        torch.testing.assert_close(x[: edge.batch_size], expected)


def test_more_ranks_than_whole_steps_are_refused_before_a_file_is_opened(pack):
    with pytest.raises(
        BadInput,
        match=r"drop_last: .* 14 records an epoch for per_step 3 and world_size 5: no step",
    ):
        open_batches(pack, per_step=3, world_size=5, drop_last=True)
    batches = open_batches(pack, per_step=3, world_size=4, drop_last=True)
    assert batches.store._pid == -1
    assert len(batches) == 1


def test_state_and_defaults(pack):
    assert open_batches(pack).state_dict() == {
        "format": 1,
        "store_key": "1" * 32,
        "order_key": "shuffle",
        "split": "train",
        "seed": 0,
        "epoch": 0,
        "step": 0,
        "per_step": 1,
        "world_size": 1,
    }


def test_wrong_places_and_options_are_named(pack, tmp_path):
    with pytest.raises(Conflict, match="expected split valid, found train"):
        open_batches(pack, "valid")
    with pytest.raises(BadInput, match="expected a run folder, a store or a pack artifact"):
        open_batches(tmp_path)
    if not torch.cuda.is_available():
        for device in ("cuda", "cuda:1"):
            with pytest.raises(
                BadInput, match=f"device: {device}: this machine has 0 CUDA devices; fix: device="
            ):
                open_batches(pack, device=device)
        with pytest.raises(BadInput, match="pin_memory: pinning needs a CUDA device"):
            open_batches(pack, pin_memory=True)
    for device in ("gpu", "meta", 7.5):
        with pytest.raises(BadInput, match=f"device: expected cpu, cuda or cuda:N, found {device}"):
            open_batches(pack, device=device)
    with pytest.raises(BadInput, match="as_: expected csr"):
        open_batches(pack, as_="coo")
    with pytest.raises(BadInput, match="expected a pack artifact"):
        open_records(MemoryReader(facts={"split": "train"}, root=tmp_path))
    with pytest.raises(BadInput, match="expected the folder of a run"):
        open_model(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInput, match=r"run\.json: expected JSON"):
        open_batches(tmp_path)
    (tmp_path / "run.json").write_text('{"store": "x", "artifacts": {}, "format": 9}')
    with pytest.raises(BadInput, match="expected format 1, found 9"):
        open_batches(tmp_path)
    (tmp_path / "run.json").write_text('{"store": "x", "artifacts": {}}')
    with pytest.raises(BadInput, match="no artifact pack:train; it has nothing"):
        open_batches(tmp_path)


def pack_steps(pack, adj):
    return read_steps(pack, layers=2, adj=adj)


@dataclass(frozen=True)
class NoParams:
    pass


def committed(monkeypatch, root, name, source):
    """Commit the arrays and files of a memory reader as an artifact of stage `name`; its key."""

    def run(_params, _inputs, _shard, writer):
        for array, values in source.arrays.items():
            writer.array(array, values)
        for file in source.names() if source.root else ():
            writer.path(file).write_bytes(source.path(file).read_bytes())
        return {}

    stage = Stage(
        name=name,
        version=1,
        exact=True,
        params=NoParams,
        roles=(),
        reads=(),
        resolve=lambda _v, _f: NoParams(),
        shards=lambda _p, _i: [Shard("all")],
        run=run,
        finish=lambda _p, _i, _o, _w: dict(source.facts),
        cost=lambda _p, _f: Cost(0, 0, 0),
    )
    registry = ModuleType("stockpot.planning.registry")
    registry.STAGES = {name: stage}
    monkeypatch.setitem(sys.modules, "stockpot.planning.registry", registry)
    key = artifact_key(name, 1, NoParams(), [])
    for shard in (Shard("all"), Shard(FINISH)):
        execute(Task(str(root), name, name, key, {}, {}, shard, ("all",), True, 1))
    return key


@pytest.fixture
def run(pack, tmp_path, monkeypatch):
    """Folder of a run with a packed split and an order."""
    store, folder = tmp_path / "store", tmp_path / "runs" / "tiny"
    tour = np.random.default_rng(0).permutation(14).astype(np.int32)
    order = MemoryReader({"tour": tour}, {"method": "label"})
    keys = {
        "pack": committed(monkeypatch, store, "pack", pack),
        "order": committed(monkeypatch, store, "order", order),
    }
    document = {
        "format": 1,
        "store": str(store),
        "artifacts": {
            "pack:train": {"stage": "pack", "key": keys["pack"]},
            "order": {"stage": "order", "key": keys["order"]},
        },
        "recipe": {
            "graph": {"normalization": "rw", "mass": "row", "self_loops": False},
            "train": {"per_step": 4},
        },
    }
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(document))
    return folder, store, keys


def test_a_mass_of_auto_is_what_sizing_found(run, monkeypatch):
    folder, store, _ = run
    document = json.loads((folder / "run.json").read_text())
    document["recipe"]["graph"]["mass"] = "auto"
    (folder / "run.json").write_text(json.dumps(document))
    assert open_batches(folder).form.weights.mass == "none"  # records whose sizes were all named
    key = committed(monkeypatch, store, "sizing", MemoryReader({}, {"mass": "row"}))
    document["artifacts"]["sizing"] = {"stage": "sizing", "key": key}
    (folder / "run.json").write_text(json.dumps(document))
    assert open_batches(folder).form.weights.mass == "row"
    assert open_batches(folder, mass="none").form.weights.mass == "none"


def test_a_run_brings_its_order_and_recipe(run, pack):
    folder, store, keys = run
    batches = open_batches(folder, adj="norm")
    state = batches.state_dict()
    assert (state["store_key"], state["order_key"], state["per_step"]) == (
        keys["pack"],
        keys["order"],
        4,
    )
    weights = batches.form.weights
    assert (weights.normalization, weights.mass, weights.self_loops) == ("rw", "row", False)
    assert len(ids(batches)) == 4
    assert len(open_records(folder)) == 14
    for where in (store, store / "objects" / "pack" / keys["pack"]):
        assert open_batches(where).state_dict() | {"store_key": 0} == open_batches(
            pack
        ).state_dict() | {"store_key": 0}
    with pytest.raises(BadInput, match="expected one packed valid split in this store, found 0"):
        open_batches(store, "valid")
    with pytest.raises(BadInput, match="expected an artifact of stage pack"):
        open_batches(store / "objects" / "order" / keys["order"])
    with pytest.raises(BadInput, match="no artifact soup"):
        open_model(folder)


def test_a_store_that_moved_is_found_beside_its_run_or_where_it_is_said_to_be(run, tmp_path):
    folder, store, _ = run
    expected = ids(open_batches(folder))
    assert json.loads((folder / "run.json").read_text())["store"] == str(store)
    elsewhere = tmp_path / "moved" / "both"  # the run and its store, as far apart as they were
    (elsewhere / "runs").mkdir(parents=True)
    folder = folder.rename(elsewhere / "runs" / "tiny")
    pot = store.rename(elsewhere / "store")
    assert ids(open_batches(folder)) == expected
    assert len(open_records(folder)) == 14
    other = pot.rename(tmp_path / "pot")
    with pytest.raises(
        BadInput,
        match=rf"run\.json: expected its store in {store}, found none there; fix: store=DIR",
    ):
        open_batches(folder)
    assert ids(open_batches(folder, store=other)) == expected
    assert len(open_records(folder, store=str(other))) == 14
    with pytest.raises(BadInput, match=f"expected its store in {tmp_path}/none, found none there"):
        open_batches(folder, store=tmp_path / "none")
    with pytest.raises(BadInput, match="expected the folder of a run where store="):
        open_batches(other, store=other)


def test_another_store_that_is_called_alike_is_not_taken_for_the_runs(run):
    folder, _, _ = run
    path = folder / "run.json"
    document = json.loads(path.read_text())
    for entry in document["artifacts"].values():
        entry["digest"] = "0" * 32
    path.write_text(json.dumps(document | {"store": "/gone/store"}))
    with pytest.raises(Conflict, match="another store than the run's; fix: store=DIR"):
        open_batches(folder)


@pytest.mark.parametrize("model", ["gcn", "sage"])
def test_the_chosen_model_is_ready_for_use(pack, tmp_path, monkeypatch, model):
    from stockpot.stages.train.model import build_model, save_model

    config = {
        "model": model,
        "num_features": 7,
        "hidden": 8,
        "num_classes": 4,
        "layers": 2,
        "dropout": 0.5,
    }
    model = build_model(config, seed=0)
    (tmp_path / "soup").mkdir()
    save_model(tmp_path / "soup" / "chosen.safetensors", model, {})
    key = committed(monkeypatch, tmp_path / "store", "soup", MemoryReader(root=tmp_path / "soup"))
    artifacts = {"soup": {"stage": "soup", "key": key}}
    (tmp_path / "run.json").write_text(
        json.dumps({"store": str(tmp_path / "store"), "artifacts": artifacts})
    )
    found = open_model(tmp_path)
    assert not found.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in found.state_dict().items())
    # Whole records, trimmed ones and the trainer's own steps give the same outputs, and the same
    # gradient.
    batches = open_batches(pack, adj=found.adj)
    for batch, trim, step in zip(
        batches, batches.layers(2), pack_steps(pack, found.adj), strict=True
    ):
        with torch.no_grad():
            expected = model.eval()(step.x, step.adjs)
            torch.testing.assert_close(found(batch.x, batch.adj_t)[: batch.batch_size], expected)
            torch.testing.assert_close(found(trim.x, trim.adjs), expected)
    grads = []
    for x, adj in ((step.x, step.adjs), (trim.x, trim.adjs)):
        found.zero_grad()
        found(x, adj).square().sum().backward()
        grads.append(next(found.parameters()).grad.clone())
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import stockpot", ("torch", "pyarrow", "numba", "dask", "zarr")),
        (
            "import stockpot.stages.pack, stockpot.stages.quantize",
            ("torch", "pyarrow", "numba", "dask", "zarr"),
        ),
        ("import stockpot.stages.loader.steps", ("torch_geometric", "dask", "distributed")),
        ("from stockpot import open_batches", ("dask", "distributed", "torch_geometric")),
    ],
)
def test_imports_stay_light(code, absent):
    probe = f"import sys; {code}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
