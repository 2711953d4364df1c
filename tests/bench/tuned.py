"""Influence batches and full batch, both sides tuned alike on validation, over splits that tuned
nothing.

    python -m tests.bench.tuned  # tunes on split seeds 100 to 102, confirms on 0 to 9
    python -m tests.bench.tuned --data wordnet-ball --patience 5 10 30 60

GCN of hidden width 64, one training a split. The cases are full batch, whose one record is the
graph, `node` and `batch`; each takes its learning rate and its patience from the same values.
`batch` takes its rate at the default `aux_ratio`, then the ratio and the patience at that rate. All
cases run the same trainer with the same schedule: a constant rate, most 200 epochs, and at least
1,500 steps, as `train.epochs` at "auto"; a patience of P is P epochs, and at least 5 P steps, as
`train.patience` at "auto" has them for P = 30. So a patience is as many steps for full batch, whose
epoch is one step, as for others whose epochs are short.

Patience is a stopping rule, so one training to the longest tells where a shorter one would have
ended. A longer one never has a lower best epoch on the outputs that it stops by; therefore a
setting is scored by cross-fitting: one half of the validation outputs stops the training and picks
the epoch, the other half scores it, then the other way round. A case takes the setting of best
mean score over the tuning splits, of equal ones the shortest patience. On the splits that confirm,
all of validation stops, as in any run, and test accuracy is that of the epoch it picks: in records
as the case has them, and with the whole graph as one record.

Rows go to runs/bench/tuned.json, curves and confirmed trainings to runs/bench/tuned: what is there
is not computed again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.bench.soup_bias import FOLDER as BALLS
from tests.bench.soup_bias import GRAPHS as SOUPED
from tests.bench.soup_bias import SHARED, Graph, _resolved, wordnet_ball
from tests.bench.soup_gains import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stockpot.stages.loader.steps import Steps
    from stockpot.stages.step import Step
    from stockpot.stages.train.evaluate import Score

FOLDER = Path("runs/bench/tuned")
OUT = Path("runs/bench/tuned.json")
RATES = (3e-3, 1e-2, 3e-2)
PATIENCE = (5, 10, 30)
RATIOS, RATIO = (1.0, 3.0, 9.0), 3.0
"""Values of `batches.aux_ratio`; the rate is taken at the default."""
EPOCHS, STEPS, STEPS_OF_PATIENCE = 200, 1500, 5
OUTPUTS = 256
"""Most outputs in a record of influence batches."""
MIX = 16
"""Clusters mixed into a record: what "auto" is for as many outputs."""
PHYSICS = Graph(
    "physics", f"npz:{SHARED / 'coauthor_physics.npz'}", 0.04, 0.02, 64, 2, 0, 0, 0, 0.5
)
GRAPHS = (*[graph for graph in SOUPED if graph.name != "citeseer"], PHYSICS)
MASS = {"computers": "row"}
"""`graph.mass` as "auto" finds it on the graph; "none" where it is not named."""
CASES = ("full", "node", "batch")


def packed(graph: Graph, seed: int, case: str, ratio: float, splits: Iterable[str]) -> Path:
    """Folder of a run that packed these splits as the case reads them, built in this process."""
    from tests.bench.inline import run as build

    FOLDER.mkdir(parents=True, exist_ok=True)
    if "ball" in graph.source and not (BALLS / "wordnet-ball.npz").exists():
        BALLS.mkdir(parents=True, exist_ok=True)
        wordnet_ball(BALLS / "wordnet-ball.npz")
    records = {
        "full": 'top_k = "all"\noutputs = 1000000\n',
        "node": f"top_k = {graph.top_k}\noutputs = {OUTPUTS}\nmix = {MIX}\n",
        "batch": f'method = "batch"\naux_ratio = {ratio}\noutputs = {OUTPUTS}\n',
    }[case]
    nodes = [*[f"pack:{split}" for split in splits], "order"]
    name = "-".join([graph.name, str(seed), case, f"{ratio:g}", str(len(nodes))])
    recipe = FOLDER / f"{name}.toml"
    recipe.write_text(
        f'[dataset]\nsource = "{graph.source}"\n'
        f"split = {{ train = {graph.train}, valid = {graph.valid}, seed = {seed} }}\n"
        f'[features]\nreduce = {graph.reduce}\ncodec = "fp32"\n'
        f'[graph]\nmass = "{MASS.get(graph.name, "none")}"\n'
        f"[batches]\n{records}"
        '[hag]\nenabled = "never"\n'
    )
    if not (FOLDER / name / "run.json").exists():
        build(recipe, (), FOLDER / "store", FOLDER, nodes)
    return FOLDER / name


def limits(patience: int, steps: int) -> tuple[int, int]:
    """(most epochs, epochs of patience) where an epoch has so many steps."""
    return (
        max(EPOCHS, -(-STEPS // steps)),
        max(patience, -(-STEPS_OF_PATIENCE * patience // steps)),
    )


def trained(graph: Graph, seed: int, run: Path, rate: float, patience: int):
    """The trainer's result, and (Score of either half of validation) of every epoch."""
    import torch

    from stockpot.locate import artifact_of
    from stockpot.planning.recipe import KEYS
    from stockpot.stages.loader.options import Delivery, Schedule, Source
    from stockpot.stages.train import trainer
    from stockpot.stages.train.evaluate import Score, open_steps, score
    from stockpot.stages.train.holdout import held_out
    from stockpot.stages.train.model import build_model
    from stockpot.stages.train.stage import STAGE
    from stockpot.stages.train.train_params import model_config

    torch.set_num_threads(1)
    roles = (("train", "pack:train"), ("valid", "pack:valid"), ("order", "order"))
    inputs = {role: artifact_of(run, node) for role, node in roles}
    facts = {role: reader.facts for role, reader in inputs.items()}
    epochs, waited = limits(patience, facts["train"]["records"])
    values = {key: found.default for key, found in KEYS.items()} | {
        "train.layers": graph.layers,
        "train.hidden": 64,
        "train.dropout": graph.dropout,
        "train.lr": rate,
        "train.schedule": "constant",
        "train.epochs": epochs,
        "train.patience": waited,
        "train.seed": 1000 * seed,
        "train.device": "cpu",
        "graph.mass": MASS.get(graph.name, "none"),
    }
    params = _resolved(STAGE, values, facts, 0)
    config = model_config(params, facts["train"])
    model, unread = build_model(config, params.seed), Delivery(0)
    source = Source.from_reader(inputs["train"], inputs["order"])
    train_steps = open_steps(source, model, Schedule(seed=params.seed), unread, training=True)
    valid_steps = list(open_steps(inputs["valid"], model, Schedule(shuffle=False), unread))
    halves: list[tuple[Score, Score]] = []
    plain_evaluate = trainer.evaluate

    @torch.no_grad()
    def recording(model, steps):
        """Score on all of validation, as the trainer asks; beside it those of its halves."""
        model.eval()
        found = [Score(), Score()]
        for step in steps:
            logits = model(step.x, step.adjs)
            second = torch.from_numpy(held_out(step.input_id.numpy(), 0.5))
            for i, mine in enumerate((~second, second)):
                found[i] += score(logits, torch.where(mine, step.y, -1))
        model.train()
        halves.append((found[0], found[1]))
        return found[0] + found[1]

    trainer.evaluate = recording
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = trainer.train(
                params, config, Held(train_steps), valid_steps, Path(folder), 1, lambda *_: None
            )
    finally:
        trainer.evaluate = plain_evaluate
    return result, halves


class Held:
    """Training steps in their order of every epoch, each read once: no time goes into reading."""

    def __init__(self, steps: Steps) -> None:
        self.steps, self.made = steps, {}

    def __len__(self) -> int:
        return len(self.steps)

    def __getattr__(self, name: str):
        return getattr(self.steps, name)

    def __iter__(self) -> Iterator[Step]:
        for taken in self.steps.plan(self.steps.epoch):
            if taken[0] not in self.made:
                self.made[taken[0]] = self.steps.make(taken)
            yield self.made[taken[0]]


def curve(graph: Graph, seed: int, case: str, ratio: float, rate: float, longest: int) -> dict:
    """What a patience at least so long saw of validation, epoch by epoch."""
    path = FOLDER / "curves" / f"{graph.name}-{seed}-{case}-{ratio:g}-{rate:g}.json"
    if not path.exists() or json.loads(path.read_text()).get("patience", 60) < longest:
        run = packed(graph, seed, case, ratio, ("train", "valid"))
        started = time.process_time()
        _, halves = trained(graph, seed, run, rate, longest)
        row = {
            "patience": longest,
            "steps": records(run),
            "cpu_seconds": time.process_time() - started,
            "halves": [[[one.accuracy, one.loss] for one in pair] for pair in halves],
            "labelled": [one.labelled for one in halves[0]],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
    return json.loads(path.read_text())


def records(run: Path) -> int:
    """Training records, which are the steps of an epoch."""
    from stockpot.locate import artifact_of

    return int(artifact_of(run, "pack:train").facts["records"])


def ended(ranks: list[tuple[float, float]], patience: int) -> tuple[int, int]:
    """(best epoch, epochs run) where a training stops once so many epochs are no better."""
    best = 0
    for epoch, rank in enumerate(ranks):
        if rank > ranks[best]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch + 1
    return best, len(ranks)


def scored(row: dict, patience: int) -> tuple[float, float]:
    """(accuracy of either half at the epoch that the other half picks, over both; steps taken)."""
    _, waited = limits(patience, row["steps"])
    correct = steps = 0.0
    for stops in (0, 1):
        ranks = [(pair[stops][0], -pair[stops][1]) for pair in row["halves"]]
        best, epochs = ended(ranks, waited)
        other = 1 - stops
        correct += row["halves"][best][other][0] * row["labelled"][other]
        steps += epochs * row["steps"] / 2
    return correct / sum(row["labelled"]), steps


def tuned(graph: Graph, case: str, seeds: list[int], waits: list[int]) -> list[dict]:
    """Every setting of a case that was looked at with its scores, best first."""
    table = settings(graph, case, RATIO if case == "batch" else 0.0, RATES, seeds, waits)
    if case == "batch":
        rate = ranked(table)[0]["rate"]
        for ratio in (ratio for ratio in RATIOS if ratio != RATIO):
            table += settings(graph, case, ratio, (rate,), seeds, waits)
    return ranked(table)


def ranked(table: list[dict]) -> list[dict]:
    return sorted(table, key=lambda line: (-line["valid"], line["patience"]))


def settings(
    graph: Graph,
    case: str,
    ratio: float,
    rates: Iterable[float],
    seeds: list[int],
    waits: list[int],
) -> list[dict]:
    """Scores of these rates with every patience."""
    table = []
    for rate in rates:
        rows = [curve(graph, seed, case, ratio, rate, max(waits)) for seed in seeds]
        for patience in waits:
            found = [scored(row, patience) for row in rows]
            table.append(
                {
                    "ratio": ratio,
                    "rate": rate,
                    "patience": patience,
                    "valid": float(np.mean([accuracy for accuracy, _ in found])),
                    "valids": [accuracy for accuracy, _ in found],
                    "steps": float(np.mean([steps for _, steps in found])),
                }
            )
            print(f"{graph.name} {case}: {table[-1]}", flush=True)
    return table


def confirmed(graph: Graph, seed: int, case: str, setting: dict) -> dict:
    """Test accuracy of one training by a setting, in the case's records and on the whole graph."""
    from stockpot.locate import artifact_of
    from stockpot.stages.loader.options import Schedule
    from stockpot.stages.train.evaluate import evaluate, open_steps

    ratio, rate, patience = setting["ratio"], setting["rate"], setting["patience"]
    name = f"{graph.name}-{seed}-{case}-{ratio:g}-{rate:g}-{patience}"
    path = FOLDER / "confirmed" / f"{name}.json"
    if not path.exists():
        splits = ("train", "valid", "test")
        run = packed(graph, seed, case, ratio, splits)
        whole = packed(graph, seed, "full", 0.0, splits)
        started = time.process_time()
        result, _ = trained(graph, seed, run, rate, patience)
        seconds = time.process_time() - started
        batched, exact = (
            evaluate(
                result.model,
                open_steps(artifact_of(folder, "pack:test"), result.model, Schedule(shuffle=False)),
            ).accuracy
            for folder in (run, whole)
        )
        row = {
            "seed": seed,
            "valid": result.best["accuracy"],
            "test": batched,
            "test_full_graph": exact,
            "records": records(run),
            "epochs": len(result.history),
            "best_epoch": result.best["epoch"],
            "cpu_seconds": seconds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
    return json.loads(path.read_text())


def line(graph: Graph, case: str, setting: dict, rows: list[dict], full: list[dict]) -> str:
    def less(name: str) -> str:
        pairs = zip(rows, full, strict=True)
        return "" if case == "full" else said([one[name] - of["test"] for one, of in pairs], "+")

    chosen = ([f"{setting['ratio']:g}"] if case == "batch" else []) + [
        f"{setting['rate']:g}",
        f"{setting['patience']}",
    ]
    cells = [
        graph.name,
        case,
        ", ".join(chosen),
        f"{100 * setting['valid']:.2f}",
        said([row["test"] for row in rows]),
        less("test"),
        "" if case == "full" else said([row["test_full_graph"] for row in rows]),
        less("test_full_graph"),
        f"{np.mean([row['epochs'] * row['records'] for row in rows]):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="*", default=[graph.name for graph in GRAPHS])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--tune", nargs="*", type=int, default=[100, 101, 102], help="split seeds")
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=list(range(10)), help="split seeds that confirm"
    )
    parser.add_argument("--patience", nargs="*", type=int, default=list(PATIENCE), help="epochs")
    args = parser.parse_args()
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    lines = [
        (
            "| graph | case | (aux_ratio,) rate, patience | valid | test, batched | less full "
            "batch | test, full graph | less full batch | steps |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for graph in sorted(
        (graph for graph in GRAPHS if graph.name in args.data),
        key=lambda graph: args.data.index(graph.name),
    ):
        full: list[dict] = []
        for case in ["full", *[case for case in args.cases if case != "full"]]:
            table = tuned(graph, case, args.tune, args.patience)
            rows = [confirmed(graph, seed, case, table[0]) for seed in args.seeds]
            full = full or rows
            results.setdefault(graph.name, {})[case] = {"tuning": table, "confirmed": rows}
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(results, indent=1))
            lines.append(line(graph, case, table[0], rows, full))
            print(lines[-1], flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
