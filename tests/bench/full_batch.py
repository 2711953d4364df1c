"""Full-batch training of stockpot's own models: the whole graph is one record. The accuracy every table compares with.

    python -m tests.bench.full_batch data/wordnet.toml --model gcn --seeds 0
    python -m tests.bench.full_batch ../shared/data/amazon_computers.npz --model sage --seeds 0 1 2
    python -m tests.bench.full_batch ../shared/data/coauthor_physics.npz --reduce 128 --schedule cosine --epochs 300

Same models, optimiser, split and features as `stockpot run`; its own early stop: the epoch of the best validation
accuracy counts, ties by lower validation loss. One JSON line a seed.
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

from stages.step import Adj
from stages.train.model import build_model


def load(source: Path, reduce: int, split: dict, split_index: int = 0):
    """Symmetric 0/1 CSR without loops, features f4[N, D], labels, and the three sorted node lists of the split."""
    with np.load(source) as z:
        n = int(z["num_nodes"])
        tail, head = z["edge_index"].astype(np.int64)
        y = z["y"].astype(np.int64)
        if "x" in z:
            x = z["x"].astype(np.float32)
        else:
            x = sp.csr_matrix(
                (z["x_data"].astype(np.float32), z["x_indices"], z["x_indptr"]), shape=tuple(z["x_shape"])
            )
        lists = [z[f"{name}_idx"] for name in ("train", "valid", "test") if f"{name}_idx" in z]
        if not lists and "train_masks" in z:
            lists = [np.flatnonzero(z[f"{name}_masks"][split_index]) for name in ("train", "valid", "test")]
    a = sp.coo_matrix(
        (np.ones(2 * len(tail), np.float32), (np.r_[head, tail], np.r_[tail, head])), shape=(n, n)
    ).tocsr()
    a.setdiag(0)
    a.eliminate_zeros()
    a.data[:] = 1
    if reduce:
        from scipy.sparse.linalg import svds

        u, s, _ = svds(x.astype(np.float64) if sp.issparse(x) else x, k=reduce, random_state=0)
        x = (u * s).astype(np.float32)
    elif sp.issparse(x):
        x = x.toarray()
    if not lists:
        labelled = np.random.default_rng(split["seed"]).permutation(np.flatnonzero(y >= 0))
        first, second = round(split["train"] * len(labelled)), round((split["train"] + split["valid"]) * len(labelled))
        lists = np.split(labelled, [first, second])
    return a, x, y, [np.sort(ids) for ids in lists]


def matrix(a: sp.csr_matrix, kind: str) -> Adj:
    """`norm`: D^-1/2 (A + I) D^-1/2; `mean`: D^-1 A."""
    degree = np.diff(a.indptr).astype(np.float32)
    if kind == "norm":
        s = sp.diags(1 / np.sqrt(degree + 1))
        a = s @ (a + sp.identity(a.shape[0], dtype=np.float32, format="csr")) @ s
    else:
        a = sp.diags(1 / np.maximum(degree, 1)) @ a

    def csr(m):
        m = m.tocsr().astype(np.float32)
        m.sort_indices()
        parts = (torch.from_numpy(v) for v in (m.indptr.astype(np.int32), m.indices.astype(np.int32), m.data))
        return torch.sparse_csr_tensor(*parts, size=m.shape)

    return Adj(csr(a), csr(a.T))


def train(adj: Adj, x: torch.Tensor, y: torch.Tensor, split: list[torch.Tensor], args, seed: int) -> dict:
    started = time.perf_counter()
    config = {
        "model": args.model, "num_features": x.shape[1], "num_classes": int(y.max()) + 1,
        "hidden": args.hidden, "layers": args.layers, "dropout": args.dropout,
    }  # fmt: skip
    model = build_model(config, seed=seed)
    model.generator = torch.Generator().manual_seed(seed)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.Adam(groups, lr=args.lr, fused=True)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", factor=0.33, patience=30, min_lr=1e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    train_ids, valid_ids, test_ids = split
    best, best_epoch = (-1.0, 0.0), -1
    result: dict = {}
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
        if (accuracy, -valid_loss) > best:
            best, best_epoch = (accuracy, -valid_loss), epoch
            result = {"valid_accuracy": accuracy, "test_accuracy": right[test_ids].double().mean().item()}
        if args.schedule == "plateau":
            plateau.step(valid_loss)
        elif args.schedule == "cosine":
            cosine.step()
        if epoch - best_epoch >= args.patience:
            break
    return {**result, "epochs": epoch + 1, "best_epoch": best_epoch, "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, help="a recipe (its dataset, features.reduce and model shape) or an npz file"
    )
    parser.add_argument("--model", choices=["gcn", "sage"], default="gcn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--reduce", type=int, default=0)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--schedule", choices=["plateau", "cosine", "constant"], default="plateau")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--patience", type=int, default=100)
    args = parser.parse_args()
    source, split, split_index = args.data, {"train": 0.5, "valid": 0.25, "seed": 0}, 0
    torch.set_flush_denormal(True)
    a, x, y, lists = load(source, args.reduce, split, split_index)
    adj = matrix(a, "norm" if args.model == "gcn" else "mean")
    tensors = torch.from_numpy(x), torch.from_numpy(y), [torch.from_numpy(ids) for ids in lists]
    for seed in args.seeds:
        row = train(adj, *tensors, args, seed)
        shape = {"layers": args.layers, "hidden": args.hidden, "lr": args.lr, "schedule": args.schedule}
        print(json.dumps({"data": str(args.data), "model": args.model, "seed": seed, **row, **shape}), flush=True)


if __name__ == "__main__":
    main()
