"""What a recipe says of graph and reader is what training, souping and inference compute with: a
dense oracle.

Whole runs of one epoch on small graphs, against float64 matrices made from the source's own edges.
Only which nodes a record holds is taken from the store. A third of the nodes have no label.
"""

import gc
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import stockpot.stages.infer.full_graph
from stockpot import open_records
from stockpot.stages.train import trainer
from stockpot.stages.train.model import build_model, load_model
from tests.graphs import community_arrays
from tests.runs import run_here

NODES, LAYERS, CLASSES = 240, 2, 4
SPLITS = ("train", "valid", "test")
RECIPE = """
[dataset]
source = "npz:{npz}"
[graph]
undirected = {undirected}
normalization = "{normalization}"
mass = "{mass}"
self_loops = {self_loops}
[features]
codec = "fp32"
propagate = {propagate}
propagate_by = "{by}"
[partition]
method = "stream"
parts = 4
[batches]
method = "{method}"
outputs = 40
top_k = 4
mix = 2
[hag]
enabled = "never"
[train]
model = "{model}"
layers = 2
hidden = 8
heads = 2
dropout = 0.0
lr = 1.0
schedule = "constant"
per_step = 64
epochs = 1
ingredients = 1
device = "cpu"
"""


@dataclass(frozen=True)
class Case:
    """The keys of one run; `weighted` is the source's doing."""

    undirected: bool
    weighted: bool
    normalization: str = "sym"
    mass: str = "none"
    self_loops: bool = True
    model: str = "gcn"
    propagate: int = 0
    method: str = "node"
    by: str = "auto"

    @property
    def stored(self):
        """Whether the last product is what the first layer would aggregate."""
        return self.propagate and self.model in ("gcn", "sage") and self.by == "auto"

    def __str__(self):
        graph = ("undirected" if self.undirected else "directed") + "-weighted" * self.weighted
        hops = f"-{self.propagate}-hops" * bool(self.propagate)
        reader = f"{self.normalization}-{self.mass}" + "-loops" * self.self_loops
        rows = "-rows" * (self.method == "propagate")
        return f"{graph}-{self.model}-{reader}{hops}{rows}" + f"-{self.by}" * (self.by != "auto")


CASES = [
    *(
        Case(undirected, weighted, normalization, mass, self_loops)
        for undirected, weighted in ((True, False), (True, True), (False, True))
        for normalization, mass, self_loops in (
            ("sym", "row", False),
            ("rw", "none", True),
            ("rw", "row", True),
            ("none", "row", True),
            ("none", "none", False),
        )
    ),
    Case(undirected=True, weighted=True),
    Case(undirected=False, weighted=False),
    Case(undirected=False, weighted=True, model="sage"),
    Case(undirected=False, weighted=False, model="gat"),
    Case(undirected=True, weighted=False, model="gat", self_loops=False),
    Case(undirected=True, weighted=True, mass="row", propagate=2),
    Case(undirected=False, weighted=True, normalization="rw", self_loops=False, propagate=1),
    Case(undirected=True, weighted=True, model="sage", propagate=1),
    Case(undirected=False, weighted=False, model="sage", propagate=3),
    Case(undirected=True, weighted=False, model="gat", propagate=2),
    Case(undirected=True, weighted=True, model="sgc", propagate=2, method="propagate"),
    Case(undirected=False, weighted=True, normalization="rw", model="sgc", propagate=1),
    Case(undirected=False, weighted=True, model="sign", propagate=2, method="propagate"),
    Case(undirected=True, weighted=False, model="sign", propagate=3, method="propagate"),
    Case(undirected=True, weighted=False, model="sign", propagate=1),
    Case(undirected=True, weighted=True, propagate=2, by="ppr"),
    Case(undirected=False, weighted=False, model="sage", propagate=1, by="norm"),
    Case(undirected=True, weighted=True, model="sign", propagate=3, method="propagate", by="ppr"),
    Case(undirected=False, weighted=True, normalization="rw", model="sgc", propagate=2, by="ppr"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder whose store all cases share, and the two sources."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(3)
    arrays = community_arrays(NODES, CLASSES, degree=7, features=6, seed=2)
    arrays["y"][rng.random(NODES) < 1 / 3] = -1
    parts = np.split(rng.permutation(NODES), [NODES // 2, 3 * NODES // 4])
    arrays |= {f"{name}_idx": np.sort(ids) for name, ids in zip(SPLITS, parts, strict=True)}
    np.savez(folder / "plain.npz", **arrays)
    weight = rng.uniform(0.25, 3.0, arrays["edge_index"].shape[1]).astype(np.float32)
    np.savez(folder / "weighted.npz", **arrays, edge_weight=weight)
    return folder


class Oracle:
    """Dense matrices of a case from the edges of its source, row = destination; models in
    float64."""

    def __init__(self, case, source):
        self.case = case
        data = np.load(source)
        s, t = data["edge_index"]
        w = data["edge_weight"].astype(np.float64) if case.weighted else np.ones(s.size)
        a = np.zeros((NODES, NODES))
        np.add.at(a, (t, s), w)
        np.fill_diagonal(a, 0)
        self.a = a + a.T if case.undirected else a
        if not case.weighted:
            self.a = (self.a > 0).astype(float)
        self.x, self.y = torch.from_numpy(data["x"]).double(), torch.from_numpy(data["y"])
        normalised = case.by in ("norm", "ppr") or case.model in ("gcn", "sgc")
        alpha = 0.25 if case.by == "ppr" else 0.0
        hops = [self.x]
        for _ in range(case.propagate):
            kind = "gcn" if normalised else "sage"
            matrix = torch.from_numpy(self.matrix(np.arange(NODES), kind, mass="none"))
            hops.append((1 - alpha) * (matrix @ hops[-1]) + alpha * self.x)
        self.x = torch.cat(hops, 1)

    def matrix(self, ids, model=None, mass=None):
        """What the model multiplies by in the record of these nodes."""
        case, a = self.case, self.a[np.ix_(ids, ids)]
        model, mass = model or case.model, mass or case.mass
        eye = np.eye(len(ids))
        if model == "gat":
            return (a > 0) + eye * case.self_loops
        if model == "sage":
            pattern = (a > 0).astype(float)
            return pattern / np.maximum(pattern.sum(1, keepdims=True), 1)
        full = self.a.sum(1)[ids] + case.self_loops
        inverse = np.divide(1, full, out=np.zeros_like(full), where=full > 0)
        if case.normalization == "sym":
            left = right = np.sqrt(inverse)
        else:
            left, right = (
                inverse if case.normalization == "rw" else np.ones(len(ids)),
                np.ones(len(ids)),
            )
        if mass == "row":
            inside = a.sum(1) + case.self_loops
            left = left * np.divide(full, inside, out=np.zeros_like(full), where=inside > 0)
        return left[:, None] * (a + eye * case.self_loops) * right

    def logits(self, model, ids):
        """Of all these nodes."""
        if self.case.model in ("sgc", "sign"):
            return self.of_rows(model, self.x[ids])
        m, x = torch.from_numpy(np.asarray(self.matrix(ids), np.float64)), self.x[ids]
        convs, norms = list(model.convs), list(model.norms)
        assert bool(self.case.stored) == (model.stored is not None)
        if self.case.stored:
            # The first layer reads its aggregation where it is stored: of the whole graph.
            width = x.shape[1] // (self.case.propagate + 1)
            conv, own, near = model.stored.conv, x[:, :-width], x[:, width:]
            x = (
                conv.lin(near) + conv.bias
                if self.case.model == "gcn"
                else conv.lin_l(near) + conv.lin_r(own)
            )
            x = functional.layer_norm(x, x.shape[1:], *model.stored_norm.parameters()).relu()
        assert len(convs) + (model.stored is not None) == LAYERS
        for i, conv in enumerate(convs):
            if self.case.model == "gcn":
                x = m @ conv.lin(x) + conv.bias
            elif self.case.model == "sage":
                x = conv.lin_l(m @ x) + conv.lin_r(x)
            else:
                x = self.attended(conv, m, x)
            if i + 1 < len(convs):
                norm = norms[i]
                x = functional.layer_norm(x, x.shape[1:], norm.weight, norm.bias, norm.eps).relu()
        return x

    def of_rows(self, model, x):
        """SGC or SIGN of rows that hold all hops; every dropout is off."""
        hops = x.split(x.shape[1] // (self.case.propagate + 1), 1)
        if self.case.model == "sgc":
            return model.lin(hops[-1])
        assert len(model.head) == LAYERS
        x = torch.cat([lin(hop) for lin, hop in zip(model.lins, hops, strict=True)], 1)
        for norm, lin in zip(model.norms, model.head, strict=True):
            x = lin(functional.layer_norm(x, x.shape[1:], norm.weight, norm.bias, norm.eps).relu())
        return x

    @staticmethod
    def attended(conv, m, x):
        z = conv.lin(x).view(len(x), conv.heads, -1)
        score = (z * conv.att_dst).sum(-1)[:, None] + (z * conv.att_src).sum(-1)[
            None
        ]  # row, column, head
        score = functional.leaky_relu(score, 0.2).masked_fill((m == 0)[:, :, None], -torch.inf)
        share = torch.nan_to_num(torch.softmax(score, 1))
        out = torch.einsum("ijh,jhd->ihd", share, z)
        return (out.flatten(1) if conv.concat else out.mean(1)) + conv.bias

    def outputs(self, model, pack):
        """(ids, logits) of the outputs of all records of a packed split."""
        found = []
        for record in open_records(pack, pack.facts["split"]):
            n = int(record.num_sampled_nodes[0])
            ids = record.n_id.copy()
            found.append((ids[:n], self.logits(model, ids)[:n]))
        return np.concatenate([ids for ids, _ in found]), torch.cat([logits for _, logits in found])

    def score(self, ids, logits):
        """(mean loss, accuracy) over the labelled ones."""
        y = self.y[ids]
        known = y >= 0
        assert 0 < known.sum() < len(ids)
        loss = functional.cross_entropy(logits[known], y[known])
        return loss, (logits.argmax(1) == y)[known].double().mean().item()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_souping_and_inference_follow_the_recipe(runs, monkeypatch, case):
    npz = runs / ("weighted.npz" if case.weighted else "plain.npz")
    recipe = runs / f"{case}.toml"
    values = {
        name: json.dumps(value) if isinstance(value, bool) else value
        for name, value in vars(case).items()
    }
    recipe.write_text(RECIPE.format(npz=npz, **values))
    whole = []
    exact = stockpot.stages.infer.full_graph.full_graph_logits
    monkeypatch.setattr(
        stockpot.stages.infer.full_graph,
        "full_graph_logits",
        lambda *a: whole.append(exact(*a)) or whole[-1],
    )
    # One step of plain descent at rate 1: what it takes off the weights is the gradient.
    monkeypatch.setattr(
        trainer, "_adam", lambda model, params: torch.optim.SGD(model.parameters(), lr=params.lr)
    )
    store = run_here(recipe, runs)
    # every task collects garbage first, and what the first one imported need not be walked again
    gc.freeze()
    artifacts = json.loads((runs / str(case) / "summary.json").read_text())["artifacts"]
    packs, oracle = (
        {split: store.open("pack", artifacts[f"pack:{split}"]["key"]) for split in SPLITS},
        Oracle(case, npz),
    )

    trained = store.open("train", artifacts["train:0"]["key"])
    model = load_model(trained.path("model.safetensors"))
    start = build_model(model.config, seed=0).double()
    ids, logits = oracle.outputs(start, packs["train"])
    loss, accuracy = oracle.score(ids, logits)
    row = json.loads(trained.path("history.json").read_text())[0]
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(accuracy)
    gradient = torch.autograd.grad(loss, list(start.parameters()))
    assert max(float(g.abs().max()) for g in gradient) > 1e-2
    for before, after, expected in zip(
        start.parameters(), model.parameters(), gradient, strict=True
    ):
        torch.testing.assert_close(before - after.double(), expected, rtol=1e-4, atol=1e-6)

    with torch.no_grad():
        double = model.double()
        loss, accuracy = oracle.score(*oracle.outputs(double, packs["valid"]))
        assert row["valid_loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert row["valid_accuracy"] == pytest.approx(accuracy)
        soup = store.open("soup", artifacts["soup"]["key"])
        assert soup.facts["methods"][soup.facts["chosen"]]["valid_accuracy"] == pytest.approx(
            accuracy
        )

        ids, logits = oracle.outputs(double, packs["test"])
        infer = store.open("infer", artifacts["infer"]["key"])
        assert infer.facts["test_accuracy"] == pytest.approx(oracle.score(ids, logits)[1])
        table = pa.ipc.open_file(infer.path("predictions.arrow")).read_all()
        order = np.argsort(ids)
        assert table["n_id"].to_pylist() == ids[order].tolist()
        expected = torch.softmax(logits, 1).numpy()[order]
        np.testing.assert_allclose(
            np.array(table["probabilities"].to_pylist()), expected, atol=1e-5
        )

        dense = oracle.logits(double, np.arange(NODES))
        np.testing.assert_allclose(whole[-1].numpy(), dense.numpy(), rtol=1e-4, atol=1e-4)
        assert infer.facts["full_graph_test_accuracy"] == pytest.approx(
            oracle.score(ids, dense[ids])[1]
        )
