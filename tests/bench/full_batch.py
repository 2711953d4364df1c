"""Full-batch training of stockpot's own models: the whole graph is one record. The accuracy every
table compares with.

    python -m tests.bench.full_batch runs/wordnet --model gcn --seeds 0
    python -m tests.bench.full_batch runs/computers --model sage --seeds 0 1 2 --patience 60

Graph, features and split come from the store of a run, model and optimiser from its recipe. An
epoch is one step, so patience is counted in more of them: the epoch of the best validation accuracy
counts, ties by lower validation loss. One JSON line a seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional

from stockpot.stages.pack.layers import adjacency
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.step import Adj
from stockpot.stages.train.model import MODELS, build_model
from stockpot.store.store import Store

CURVE_EVERY = 20
"""Epochs from one value of a row's `valid_curve`, validation accuracy, to the next."""


def load(run: Path):
    """Graph, features f4[N, D], labels and the three node lists a run trained from, out of its
    store; its recipe."""
    described = json.loads((run / "run.json").read_text())
    store = Store(described["store"])

    def artifact(node: str):
        entry = described["artifacts"][node]
        return store.open(entry["stage"], entry["key"])

    graph, split = artifact("ingest"), artifact("split")
    if graph.has("x"):
        x = np.array(graph.array("x"))
    else:
        indptr, indices = graph.array("x_indptr"), graph.array("x_indices")
        data = graph.array("x_data") if graph.has("x_data") else np.ones(len(indices), np.float32)
        x = sp.csr_matrix(
            (data, indices, indptr), shape=(len(indptr) - 1, graph.facts["num_features"])
        ).toarray()
    lists = [np.array(split.array(name), np.int64) for name in ("train", "valid", "test")]
    return (
        graph,
        x.astype(np.float32),
        np.array(graph.array("y"), np.int64),
        lists,
        described["recipe"],
    )


def matrix(graph, kind: str) -> Adj:
    """The matrix `kind` of the whole graph, its transpose and where the transpose's entries come
    from."""
    whole = adjacency(graph.array("indptr"), graph.array("indices"), adj=kind)
    turned, places = whole.turned()

    def csr(m):
        parts = (torch.from_numpy(np.array(v)) for v in (m.indptr, m.indices, m.values))
        return torch.sparse_csr_tensor(*parts, size=m.shape)

    return Adj(csr(whole), csr(turned), torch.from_numpy(places))


def configured(args, x: torch.Tensor, y: torch.Tensor) -> dict:
    config = {
        "model": args.model, "num_features": x.shape[1], "num_classes": int(y.max()) + 1,
        "hidden": args.hidden, "layers": args.layers, "dropout": args.dropout,
    }  # fmt: skip
    return config | ({"heads": args.heads} if args.model == "gat" else {})


def train(
    adj: Adj, x: torch.Tensor, y: torch.Tensor, split: list[torch.Tensor], args, seed: int
) -> dict:
    started = time.perf_counter()
    config = configured(args, x, y)
    model = build_model(config, seed=seed)
    model.generator = torch.Generator().manual_seed(seed)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": args.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=args.lr, fused=True)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=30, factor=0.33, min_lr=1e-4
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    train_ids, valid_ids, test_ids = split
    best, best_epoch = (-1.0, 0.0), -1
    result: dict = {}
    curve: list[float] = []
    for epoch in range(args.epochs):
        model.train()
        loss = functional.cross_entropy(model(x, adj)[train_ids], y[train_ids])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(x, adj)
            right = logits.argmax(1) == y
            valid_loss = functional.cross_entropy(logits[valid_ids], y[valid_ids]).item()
        accuracy = right[valid_ids].double().mean().item()
        if (epoch + 1) % CURVE_EVERY == 0:
            curve.append(round(accuracy, 4))
        if (accuracy, -valid_loss) > best:
            best, best_epoch = (accuracy, -valid_loss), epoch
            result = {
                "valid_accuracy": accuracy,
                "test_accuracy": right[test_ids].double().mean().item(),
            }
        if args.schedule == "plateau":
            plateau.step(valid_loss)
        elif args.schedule == "cosine":
            cosine.step()
        if epoch - best_epoch >= args.patience:
            break
    return {
        **result,
        "epochs": epoch + 1,
        "best_epoch": best_epoch,
        "valid_curve": curve,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, help="folder of a run; its graph, split and [train] are used"
    )
    parser.add_argument(
        "--model", choices=[name for name in MODELS if name not in ROW_MODELS], default=None
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--schedule", choices=["plateau", "cosine", "constant"], default="plateau")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--patience", type=int, default=100)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    graph, x, y, lists, recipe = load(args.run)
    for name in ("layers", "hidden", "heads", "dropout", "weight_decay"):
        setattr(args, name, recipe["train"].get(name, 4))  # runs from before `heads` have none
    args.model, args.lr = args.model or recipe["train"]["model"], args.lr or recipe["train"]["lr"]
    tensors = torch.from_numpy(x), torch.from_numpy(y), [torch.from_numpy(ids) for ids in lists]
    adj = matrix(graph, build_model(configured(args, *tensors[:2])).adj)
    for seed in args.seeds:
        row = train(adj, *tensors, args, seed)
        settings = {"lr": args.lr, "schedule": args.schedule, "patience": args.patience}
        print(
            json.dumps(
                {"run": str(args.run), "model": args.model, "seed": seed, **row, **settings}
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
