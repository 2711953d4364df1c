"""Sections of `make bench-coop` on several ranks: rows and bytes read, exchanged and computed,
together and apart."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.pipeline import stockpot, with_features

GRAPHS = {
    "arxiv": "ogbn_arxiv_nofeat",
    "flickr": "flickr_saint_nofeat",
    "computers": "amazon_computers",
}
FEATURES = 64
FORMS = {
    "influence": 'method = "node"',
    "LABOR-0": 'method = "labor"\nfanouts = [10, 10]\noutputs = 1024',
}
RANKS = (1, 2, 4)
WITHIN = 0.02
MODEL = {"model": "sage", "hidden": 64, "layers": 2, "dropout": 0.5}
RULES = {"normalization": "none", "mass": "none", "self_loops": False}


def sides(found: object, args) -> list[dict]:
    """One training epoch of a 2-layer SAGE: what ranks read, send and compute in both modes, and
    what was predicted."""
    del found
    from stockpot.locate import artifact_of

    rows = []
    print(
        "| graph | batches | ranks | mode | rows read | feature MB, predicted | all MB read | rows "
        "sent "
        "| sent MB, predicted | rows computed | s an epoch |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, file in GRAPHS.items():
        if not (args.data / f"{file}.npz").exists() or name not in (args.graphs or GRAPHS):
            continue
        for form, batches in FORMS.items():
            with tempfile.TemporaryDirectory() as folder:
                recipe = _recipe(Path(folder), args.data / f"{file}.npz", batches)
                for ranks in RANKS:
                    run = _built(Path(folder), recipe, ranks)
                    inputs = {"train": artifact_of(run, "pack:train")}
                    if ranks > 1:
                        inputs["exchange"] = artifact_of(run, "exchange")
                    rows += _measured(name, form, ranks, inputs, args.runs)
    return rows


def _recipe(folder: Path, source: Path, batches: str) -> Path:
    """A recipe of one graph, with random features where it has none."""
    file = with_features(source, folder).resolve()
    text = f'[dataset]\nsource = "npz:{file}"\n[features]\nreduce = {FEATURES}\ncodec = "fp32"\n'
    recipe = folder / "bench.toml"
    recipe.write_text(
        f'{text}[batches]\n{batches}\n[hag]\nenabled = "never"\n[train]\nlayers = '
        f"{MODEL['layers']}\n"
    )
    return recipe


def _built(folder: Path, recipe: Path, ranks: int) -> Path:
    """Folder of the run."""
    runs = folder / f"runs{ranks}"
    targets = ["exchange"] if ranks > 1 else ["pack"]
    where = ["--store", str(folder / "store"), "--runs", str(runs)]
    stockpot("run", str(recipe), *targets, "--set", f"train.ranks={ranks}", *where)
    return runs / "bench"


def _measured(name: str, form: str, ranks: int, inputs: dict, runs: int) -> list[dict]:
    from stockpot.stages.exchange.cost_model import predicted
    from stockpot.stages.processes.process_group import led

    packed = inputs["train"].facts
    config = {
        **MODEL,
        **RULES,
        "num_features": packed["num_features"],
        "num_classes": packed["num_classes"],
    }
    rows: list[dict] = []
    for mode in ("independent", "cooperative") if ranks > 1 else ("one process",):
        options = {"config": config, "mode": mode, "runs": runs}
        if ranks == 1:
            found = epochs(None, inputs=inputs, **options)
        else:
            with led(ranks, epochs, inputs, device="cpu", **options) as team:
                found = epochs(team, inputs=inputs, **options)
        total = {
            key: sum(one[key] for one in found)
            for key in ("rows", "features", "sent", "rows_sent", "computed")
        }
        seconds = statistics.median(np.max([one["seconds"] for one in found], axis=0))
        plan = {} if ranks == 1 else predicted(inputs["exchange"].facts, packed, config, 1)
        planned = plan.get(mode)
        row = {
            "what": f"one epoch, {mode}",
            "dataset": f"{name}, {form}",
            "ranks": ranks,
            **total,
            "ours": seconds,
            "unit": "s",
            "threads": 1,
            "n": runs,
        }
        said = ["", ""]
        if planned is not None:
            row |= {"predicted_features": planned.features, "predicted_sent": planned.interconnect}
            off = [
                abs(total[key] / max(1, expected) - 1) if expected else float(total[key] > 0)
                for key, expected in (
                    ("features", planned.features),
                    ("sent", planned.interconnect),
                )
            ]
            row |= {"off": max(off), "target": WITHIN, "met": max(off) <= WITHIN}
            said = [f", {planned.features / 1e6:.2f}", f", {planned.interconnect / 1e6:.2f}"]
            row |= {"storage": planned.storage, "work": planned.work}
        if rows:  # both modes of these ranks, by bytes of features read
            row |= {"peer": "independent", "peer_value": rows[0]["features"]}
            row["ratio"] = rows[0]["features"] / max(1, total["features"])
        rows.append(row)
        stored = "" if planned is None else f"{planned.storage / 1e6:.2f}"
        print(
            f"| {name} | {form} | {ranks} | {mode} | {total['rows']:,} | "
            f"{total['features'] / 1e6:.2f}{said[0]} | "
            f"{stored} | {total['rows_sent']:,} | {total['sent'] / 1e6:.2f}{said[1]} | "
            f"{total['computed']:,} | "
            f"{seconds:.2f} |",
            flush=True,
        )
    return rows


def epochs(team, *, inputs: dict, config: dict, mode: str, runs: int) -> list[dict]:
    """What each rank reads and sends in one epoch, and seconds of each of some."""
    import torch
    from torch.nn import functional

    from stockpot.stages.exchange.forward import sent
    from stockpot.stages.loader.options import RankPart, Schedule
    from stockpot.stages.train.evaluate import open_steps
    from stockpot.stages.train.model import build_model

    torch.set_num_threads(1)
    model = build_model(config, seed=0)
    exchange = inputs["exchange"] if mode == "cooperative" else None
    member = None if team is None else RankPart(team.rank, team.size, exchange)
    steps = open_steps(
        inputs["train"], model, Schedule(shuffle=False), training=True, member=member
    )
    seconds, rows, rows_sent, computed, before = [], 0, 0, 0, 0
    for turn in range(runs + 1):
        if turn == 1:  # what is compiled and mapped is by now
            rows, rows_sent, computed, sent.bytes = 0, 0, 0, 0
            before = getattr(steps.assembler, "feature_bytes", 0)
        started = time.perf_counter()
        for step in steps:
            logits = model(step.x, step.adjs) if team is None else team.forward(model, step)
            loss = functional.cross_entropy(logits, step.y, ignore_index=-1, reduction="sum")
            model.zero_grad(set_to_none=True)
            loss.backward()
            if team is not None:
                team.add_gradients(model)
            rows += step.n_id.numel()
            layers = step.layers if mode == "cooperative" else ()
            rows_sent += sum(sum(layer.sent) for layer in layers)
            computed += sum(adj.csr.shape[0] for adj in ([x.adj for x in layers] or step.adjs))
        seconds.append(time.perf_counter() - started)
    features = getattr(steps.assembler, "feature_bytes", 0) - before
    if team is None:
        features = rows * 4 * config["num_features"]
    counts = {
        "rows": rows,
        "features": features,
        "sent": sent.bytes,
        "rows_sent": rows_sent,
        "computed": computed,
    }
    mine = {**{name: count // runs for name, count in counts.items()}, "seconds": seconds[1:]}
    return [mine] if team is None else team.gathered(mine)


MAG240M = {
    "growth": (
        425.0,
        100.0,
    ),  # input rows a seed of LABOR-0, three layers of fanout 10, at 2^10 and 2^16 seeds
    "seeds": (1 << 10, 1 << 16),
    "per_rank": 1024,
    "train_nodes": 1_112_392,
    "features": 768,
    "hidden": 1024,
    "classes": 153,
    "fanout": 10,
}
"""Published (arXiv 2310.12403, figure of work by batch size, read off; section 4): rows between are
interpolated."""
MACHINES = {
    "4 ranks": {"ranks": 4, "storage_gbs": 8.0, "interconnect_gbs": 300.0, "device": "cuda"},
    "8 ranks": {"ranks": 8, "storage_gbs": 8.0, "interconnect_gbs": 300.0, "device": "cuda"},
    "8 ranks, 10 Gbit/s between them": {
        "ranks": 8,
        "storage_gbs": 8.0,
        "interconnect_gbs": 1.25,
        "device": "cuda",
    },
}
"""GB/s of a rank: half of PCIe 4's 16 lanes from the host's memory, NVLink 3 each way; or
Ethernet."""
ROW_BYTES = {"fp16": 2 * 768, "30 times smaller than fp32": 4 * 768 // 30}


def projection(found: object, args) -> list[dict]:
    """MAG240M on several accelerators by the cost model and published growth: nothing of it is
    measured."""
    del found, args
    from stockpot.stages.exchange.cost_model import Rates, choice, predicted

    config = {
        "model": "sage", "layers": 3, "dropout": 0.0, **RULES, "num_features": MAG240M["features"],
        "hidden": MAG240M["hidden"], "num_classes": MAG240M["classes"],
    }  # fmt: skip
    rows = []
    print(
        "| MAG240M, projected | row | GB read, alone / together | GB sent | s, alone / together | "
        "chosen |"
    )
    print("|---|---|---|---|---|---|")
    for machine, about in MACHINES.items():
        for codec, row_bytes in ROW_BYTES.items():
            facts = _published(about["ranks"], row_bytes)
            traffic = predicted(
                facts, {"weighted": False, "records": 1}, config, 1, about["device"]
            )
            rates = Rates.of(about["storage_gbs"], about["interconnect_gbs"], about["device"])
            made = choice("auto", traffic, rates, about["ranks"], 1)
            alone, together = (made["predicted"][mode] for mode in ("independent", "cooperative"))
            rows.append(
                {
                    "what": f"MAG240M projected, {machine}, {codec}",
                    "dataset": "mag240m",
                    "ours": together["seconds"],
                    "peer": "independent",
                    "peer_value": alone["seconds"],
                    "unit": "s",
                    "threads": None,
                    "n": 0,
                    "ratio": alone["seconds"] / together["seconds"],
                    "target": None,
                    "met": None,
                    **made,
                }
            )
            print(
                f"| {machine} | {codec} | {alone['storage'] / 1e9:.0f} / "
                f"{together['storage'] / 1e9:.0f} | "
                f"{together['interconnect'] / 1e9:.0f} | {alone['seconds']:.1f} / "
                f"{together['seconds']:.1f} | "
                f"{made['mode']} |"
            )
    return rows


def _published(ranks: int, row_bytes: int) -> dict:
    """Facts of an epoch of LABOR-0 batches, from the published rows a seed; rows of hops between
    grow geometrically."""
    steps = MAG240M["train_nodes"] / (ranks * MAG240M["per_rank"])

    def growth(seeds: float) -> float:
        at = np.interp(np.log2(seeds), np.log2(MAG240M["seeds"]), np.log(MAG240M["growth"]))
        return float(np.exp(at))

    def reads(seeds: int, times: int) -> dict:
        rows = [seeds * growth(seeds) ** (d / 3) for d in range(4)]
        edges = np.cumsum([0.0, *(MAG240M["fanout"] * n for n in rows[:3])])
        count = [steps * times * n for n in rows]
        return {
            "rows": [int(n) for n in count],
            "edges": [int(steps * times * n) for n in edges],
            "features": [int(n * row_bytes) for n in count],
        }

    alone, together = reads(MAG240M["per_rank"], ranks), reads(ranks * MAG240M["per_rank"], 1)
    # A rank needs at most what it would need alone; of random owners all but a share of 1 / ranks
    # is another's.
    received = [int((ranks - 1) / ranks * n) for n in alone["rows"][1:]]
    return {
        "ranks": ranks,
        "row_bytes": row_bytes,
        "received": received,
        "alone": alone,
        "together": together,
    }
