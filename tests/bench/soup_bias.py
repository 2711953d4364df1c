"""What it costs that one validation set picks the ingredients' epochs and the soup, over new
splits.

    python -m tests.bench.soup_bias --train  # 20 seeds on three graphs, kept in runs/bench
    python -m tests.bench.soup_bias             # soups of what is trained, and the table

Every seed draws a split of its own and trains ingredients of one warm-up once. Three sets of
ingredients come from these trainings: "best", each at its best epoch on validation; "holdout", at
its best epoch on one half of validation, the soup made and chosen on the other half; "last", each
at its last epoch, validation untouched until souping (arXiv 2503.11612). Selection accuracy is what
the choice was made by, cross-fitted; bias is that less the accuracy on the test records, less the
same difference of the last-epoch ingredients, whose weights no validation output has touched: so it
is no matter of which outputs are validation. Rows go to runs/bench/soup-bias/GRAPH.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path("runs/bench/soup-bias")
SHARED = Path("../shared/data")
NODES = ("pack:train", "pack:valid", "pack:test", "order")
VARIANTS = ("best", "holdout", "last")
HOLDOUT = 0.5
OUTPUTS = 256
"""Most outputs in a record."""
BALL = 10_000
"""Nodes of the WordNet subsample: the first ones of a breadth-first walk."""


@dataclass(frozen=True)
class Graph:
    """A graph and how its ingredients are trained.

    Attributes
    ----------
    train, valid : shares of the nodes, drawn anew by seed; the rest is test.
    warmup, epochs : shared epochs, and all of them.
    """

    name: str
    source: str
    train: float
    valid: float
    reduce: int
    layers: int
    warmup: int
    epochs: int
    lr: float
    dropout: float
    top_k: int = 16


GRAPHS = (
    Graph(
        "citeseer", f"npz:{SHARED / 'citeseer_planetoid.npz'}", 0.1, 0.15, 128, 2, 10, 50, 1e-2, 0.5
    ),
    Graph(
        "computers",
        f"npz:{SHARED / 'amazon_computers.npz'}",
        0.1,
        0.05,
        128,
        2,
        10,
        30,
        1e-2,
        0.2,
        32,
    ),
    Graph(
        "wordnet-ball", f"npz:{FOLDER / 'wordnet-ball.npz'}", 0.3, 0.1, 128, 3, 10, 30, 1e-2, 0.2
    ),
)
INGREDIENTS = 6
SIMPLE = ("best", "uniform", "greedy")
"""What is chosen from: the methods that cost little, since it is the ingredients that differ."""


def wordnet_ball(path: Path) -> None:
    """Write the subgraph of the first `BALL` nodes of a breadth-first walk from node 0, without its
    split."""
    import scipy.sparse as sp
    from scipy.sparse.csgraph import breadth_first_order

    with np.load("data/wordnet.npz") as z:
        whole = {name: z[name] for name in z.files}
    n = int(whole["num_nodes"])
    source, target = whole["edge_index"]
    a = sp.csr_matrix((np.ones(len(source), np.int8), (source, target)), (n, n))
    nodes = np.sort(breadth_first_order(a, 0, directed=False, return_predecessors=False)[:BALL])
    new = np.full(n, -1)
    new[nodes] = np.arange(len(nodes))
    inside = (new[source] >= 0) & (new[target] >= 0)
    shape = tuple(whole["x_shape"])
    x = sp.csr_matrix((whole["x_data"], whole["x_indices"], whole["x_indptr"]), shape)[nodes]
    np.savez_compressed(
        path,
        edge_index=np.stack([new[source[inside]], new[target[inside]]]).astype(np.int32),
        num_nodes=len(nodes),
        y=whole["y"][nodes],
        x_data=x.data,
        x_indices=x.indices,
        x_indptr=x.indptr,
        x_shape=np.array(x.shape),
    )


def packed(graph: Graph, seed: int) -> Path:
    """Folder of a run that packed a split of its own, built in this process."""
    from tests.bench.inline import run as build

    FOLDER.mkdir(parents=True, exist_ok=True)
    if "ball" in graph.source and not (FOLDER / "wordnet-ball.npz").exists():
        wordnet_ball(FOLDER / "wordnet-ball.npz")
    recipe = FOLDER / f"{graph.name}-{seed}.toml"
    recipe.write_text(
        f'[dataset]\nsource = "{graph.source}"\n'
        f"split = {{ train = {graph.train}, valid = {graph.valid}, seed = {seed} }}\n"
        f'[features]\nreduce = {graph.reduce}\ncodec = "fp32"\n'
        f'[graph]\nmass = "none"\n[batches]\ntop_k = {graph.top_k}\noutputs = {OUTPUTS}\n'
        '[hag]\nenabled = "never"\n'
    )
    run = FOLDER / recipe.stem
    if (run / "run.json").exists():
        return run
    build(recipe, (), FOLDER / "store", FOLDER, NODES)
    return run


def train(
    graph: Graph, seed: int, changed: Mapping[str, object] | None = None, root: Path | None = None
) -> Path:
    """Folder of the three sets of ingredients of one seed; trained where it is not there.

    `changed` are recipe values other than the graph's, of ingredients in a folder `root` of their
    own.
    """
    import tempfile

    import torch

    from stockpot.locate import artifact_of
    from stockpot.planning.recipe import KEYS
    from stockpot.stages.train import trainer
    from stockpot.stages.train.evaluate import Score, score
    from stockpot.stages.train.holdout import held_out
    from stockpot.stages.train.model import save_model
    from stockpot.stages.train.stage import STAGE, fitted
    from stockpot.stages.warmup import STAGE as WARMUP
    from tests.memory import run_stage

    root = root or FOLDER / "models" / f"{graph.name}-{seed}"
    if (root / "done").exists():
        return root
    run = packed(graph, seed)
    torch.set_num_threads(1)
    roles = (("train", "pack:train"), ("valid", "pack:valid"), ("order", "order"))
    inputs = {role: artifact_of(run, node) for role, node in roles}
    facts = {role: reader.facts for role, reader in inputs.items()}
    values = {key: found.default for key, found in KEYS.items()} | {
        "train.layers": graph.layers,
        "train.hidden": 64,
        "train.dropout": graph.dropout,
        "train.lr": graph.lr,
        "train.schedule": "constant",
        "train.epochs": graph.epochs,
        "train.patience": graph.epochs,
        "train.warmup": graph.warmup,
        "train.vary": 2.0,
        "train.seed": 1000 * seed,
        "train.device": "cpu",
        **(changed or {}),
    }
    seen: list[tuple[Score, Score, dict]] = []
    plain_evaluate = trainer.evaluate

    @torch.no_grad()
    def recording(model, steps):
        """Score on all of validation, as the trainer asks; beside it that of the visible half, and
        the weights."""
        model.eval()
        whole = half = Score()
        for step in steps:
            logits = model(step.x, step.adjs)
            visible = ~torch.from_numpy(held_out(step.input_id.numpy(), HOLDOUT))
            whole += score(logits, step.y)
            half += score(logits, torch.where(visible, step.y, -1))
        model.train()
        seen.append(
            (whole, half, {name: v.detach().clone() for name, v in model.state_dict().items()})
        )
        return whole

    trainer.evaluate = recording
    with tempfile.TemporaryDirectory() as folder:
        start = run_stage(
            WARMUP, _resolved(WARMUP, values, facts, 0), inputs, Path(folder) / "start"
        )
        for i in range(INGREDIENTS):
            params = _resolved(STAGE, values, facts, i)
            seen.clear()
            scratch = Path(folder) / f"{i}"
            scratch.mkdir()
            result = fitted(
                None,
                inputs,
                params=params,
                folder=scratch,
                threads=1,
                start=start.path("start.safetensors"),
                warmup=None,
            )
            picked = {
                "best": max(range(len(seen)), key=lambda e: seen[e][0].rank),
                "holdout": max(range(len(seen)), key=lambda e: seen[e][1].rank),
                "last": len(seen) - 1,
            }
            for name, epoch in picked.items():
                result.model.load_state_dict(seen[epoch][2])
                path = root / name / f"{i}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_model(
                    path,
                    result.model,
                    {"init_digest": result.init_digest, "inputs": {}, "epoch": epoch},
                )
    trainer.evaluate = plain_evaluate
    (root / "done").touch()
    return root


def _resolved(stage, values, facts, index):
    return stage.resolve({k: values[k] for k in stage.reads} | {"index": index}, facts)


def souped(
    graph: Graph,
    seed: int,
    variant: str,
    root: Path | None = None,
    methods_of: tuple[str, ...] = SIMPLE,
) -> dict:
    """The soup chosen from one set of ingredients: what it was chosen by, and what it is worth on
    the test records."""
    import torch

    from stockpot.locate import artifact_of
    from stockpot.stages.loader.options import Schedule
    from stockpot.stages.soup import cross_fit as kitchen
    from stockpot.stages.soup.kept_batches import Batches
    from stockpot.stages.soup.scorer import Scorer
    from stockpot.stages.soup.stack import Stack
    from stockpot.stages.train.evaluate import evaluate, open_steps
    from stockpot.stages.train.holdout import Outputs
    from stockpot.stages.train.model import build_model
    from stockpot.stages.train.state import read_state

    torch.set_num_threads(1)
    root, run = root or FOLDER / "models" / f"{graph.name}-{seed}", FOLDER / f"{graph.name}-{seed}"
    states = [read_state(root / variant / f"{i}.safetensors") for i in range(INGREDIENTS)]
    model = build_model(states[0][1]["config"])
    stack = Stack([state for state, _ in states], model)
    steps = open_steps(
        artifact_of(run, "pack:valid"), model, Schedule(shuffle=False), training=True
    )
    if variant == "holdout":
        steps = Outputs(steps, HOLDOUT, held=True)
    scorer = Scorer(model, stack, Batches(model, steps, 1 << 28))
    kitchen.AUTO = methods_of
    started = time.process_time()
    cooked = kitchen.cook(scorer)
    seconds = time.process_time() - started
    tests = list(open_steps(artifact_of(run, "pack:test"), model, Schedule(shuffle=False)))

    def test(alpha) -> float:
        scorer.put(alpha)
        return evaluate(model, tests).accuracy

    methods = cooked.facts["methods"]
    singles = [test(stack.pick(i)) for i in range(INGREDIENTS)]
    tested = {name: test(made.alpha) for name, made in cooked.soups.items()}
    return {
        "graph": graph.name,
        "seed": seed,
        "variant": variant,
        "chosen": cooked.chosen,
        "selection": methods[cooked.chosen]["cross_fitted_accuracy"],
        "valid": methods[cooked.chosen]["valid_accuracy"],
        "test": tested[cooked.chosen],
        "tests": tested,
        "methods": {
            name: {k: v for k, v in m.items() if k != "alpha"} for name, m in methods.items()
        },
        "single_valid": float(
            np.mean([one["valid_accuracy"] for one in cooked.facts["ingredients"]])
        ),
        "single_test": float(np.mean(singles)),
        "reference": reference(graph, seed, variant, root),
        "labelled": cooked.facts["labelled"],
        "epochs": [metadata["epoch"] for _, metadata in states],
        "seconds": seconds,
    }


def reference(graph: Graph, seed: int, variant: str, root: Path | None = None) -> float:
    """Mean accuracy of the last-epoch ingredients, picked by nothing, on the outputs a variant's
    soup is chosen by."""
    from stockpot.locate import artifact_of
    from stockpot.stages.loader.options import Schedule
    from stockpot.stages.train.evaluate import evaluate, open_steps
    from stockpot.stages.train.holdout import Outputs
    from stockpot.stages.train.model import load_model

    root, run = root or FOLDER / "models" / f"{graph.name}-{seed}", FOLDER / f"{graph.name}-{seed}"
    models = [load_model(root / "last" / f"{i}.safetensors") for i in range(INGREDIENTS)]
    steps = open_steps(artifact_of(run, "pack:valid"), models[0], Schedule(shuffle=False))
    steps = list(Outputs(steps, HOLDOUT, held=True) if variant == "holdout" else steps)
    return float(np.mean([evaluate(model, steps).accuracy for model in models]))


def table(rows: list[dict]) -> str:
    """Means over seeds with standard errors, in points; test accuracy also as the difference from
    "best" by seed."""
    lines = [
        (
            "| graph | ingredients | seeds | selection | own | test | bias, selection | bias, own "
            "| test less best |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def said(values: list[float], sign: str = "") -> str:
        error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return f"{100 * np.mean(values):{sign}.2f} ± {100 * error:.2f}"

    for name in dict.fromkeys(row["graph"] for row in rows):
        of = {(row["seed"], row["variant"]): row for row in rows if row["graph"] == name}
        for variant in VARIANTS:
            every = [row for (_, kind), row in of.items() if kind == variant]
            against = [row["test"] - of[row["seed"], "best"]["test"] for row in every]
            chance = [row["reference"] - of[row["seed"], "last"]["single_test"] for row in every]
            columns = [
                said([row["selection"] for row in every]),
                said([row["valid"] for row in every]),
                said([row["test"] for row in every]),
                said(
                    [
                        row["selection"] - row["test"] - c
                        for row, c in zip(every, chance, strict=True)
                    ],
                    "+",
                ),
                said(
                    [row["valid"] - row["test"] - c for row, c in zip(every, chance, strict=True)],
                    "+",
                ),
                said(against, "+"),
            ]
            lines.append(f"| {name} | {variant} | {len(every)} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", action="store_true", help="train what is missing, nothing else")
    parser.add_argument("--data", nargs="*", default=[g.name for g in GRAPHS])
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(20)))
    args = parser.parse_args()
    graphs = [g for g in GRAPHS if g.name in args.data]
    rows: list[dict] = []
    for graph in graphs:
        out = FOLDER / f"{graph.name}.json"
        mine = json.loads(out.read_text()) if out.exists() else []
        for row in mine:
            if "reference" not in row:
                row["reference"] = reference(graph, row["seed"], row["variant"])
        known = {(row["seed"], row["variant"]) for row in mine}
        for seed in args.seeds:
            started = time.process_time()
            if args.train:
                train(graph, seed)
            elif (FOLDER / "models" / f"{graph.name}-{seed}" / "done").exists():
                mine += [souped(graph, seed, v) for v in VARIANTS if (seed, v) not in known]
                out.write_text(json.dumps(mine, indent=1))
            print(
                f"{graph.name} seed {seed}: {time.process_time() - started:.1f} CPU s", flush=True
            )
        rows += mine
    if rows and not args.train:
        print(table(rows))


if __name__ == "__main__":
    main()
