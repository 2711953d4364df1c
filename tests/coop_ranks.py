"""One process of several that train together, for tests: runs every case of a file and writes what
its rank found."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn import functional

from stockpot.stages.errors import Corrupt
from stockpot.stages.exchange.link_file import LinkReader
from stockpot.stages.loader.cooperative import CooperativeAssembly
from stockpot.stages.loader.independent import IndependentAssembly
from stockpot.stages.loader.records import Records
from stockpot.stages.processes.process_group import Team
from stockpot.stages.train import checkpoint, trainer
from stockpot.stages.train.evaluate import Score
from stockpot.stages.train.model import build_model
from stockpot.stages.train.stage import fitted
from stockpot.stages.train.state import state_digest
from stockpot.stages.train.train_params import Params
from stockpot.stages.train.trainer import _adam
from tests.loaders import assembled

MODELS = ("gcn", "sage", "gat")
CONFIG = {"hidden": 8, "num_classes": 4, "layers": 3, "dropout": 0.0, "heads": 2}


def model_of(name, features):
    rules = {
        "normalization": "sym" if name == "gcn" else "none",
        "mass": "none",
        "self_loops": name != "sage",
    }
    return build_model(
        {"model": name, "num_features": features, **CONFIG, **rules}, seed=3
    ).double()


def options(model):
    config = model.config
    return {
        "layers": 3,
        "adj": model.adj,
        "normalization": config["normalization"],
        "mass": config["mass"],
        "self_loops": config["self_loops"],
        "transposes": model.transposes,
        "dtype": torch.float64,
        "shuffle": False,
        "prefetch": 0,
    }


def loss_of(logits, y, labelled):
    return functional.cross_entropy(logits, y, ignore_index=-1, reduction="sum") / max(1, labelled)


def gradient(model):
    return torch.cat(
        [
            p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()).double()
            for p in model.parameters()
        ]
    )


def run_case(case, rank, group):
    """Loss and gradient of the first step, exchanged rows, outputs and parameters after three Adam
    steps."""
    ranks = case["ranks"]
    records = Records(case["packed"])
    links = LinkReader([Path(p) for p in case["links"]], np.array(case["first"]), ranks)
    model = model_of(case["model"], records.codec.num_features)
    shared = {
        "store_key": "0" * 32,
        "split": "train",
        "per_step": case["per_step"],
        **options(model),
    }
    if case["crossing"] is None:
        steps = assembled(records, lambda base: IndependentAssembly(base, ranks, rank), **shared)
    else:
        steps = assembled(
            records, lambda base: CooperativeAssembly(base, links, rank, case["crossing"]), **shared
        )
    team = Team(rank, ranks, group)
    adam = _adam(model, argparse(lr=1e-2, weight_decay=1e-3))
    found = {}
    for i, step in enumerate(steps):
        if i == 3:
            break
        logits = team.forward(model, step)
        loss = loss_of(logits, step.y, step.num_labelled)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        flat = gradient(model)
        total = loss.detach().reshape(1).clone()
        distributed.all_reduce(total, group=group)
        distributed.all_reduce(flat, group=group)
        if i == 0:
            found |= {
                "loss": total.numpy(),
                "grad": flat.numpy(),
                "ids": step.input_id.numpy(),
                "n_id": step.n_id.numpy(),
            }
            found |= {
                "logits": logits.detach().numpy(),
                "received": np.array(
                    [sum(layer.received) for layer in getattr(step, "layers", ())]
                ),
            }
        at = 0
        for p in model.parameters():
            p.grad = flat[at : at + p.numel()].view_as(p).clone()
            at += p.numel()
        adam.step()
    found["feature_bytes"] = np.array(steps.assembler.feature_bytes)
    found["params"] = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    return found


def argparse(**values):
    return type("Params", (), values)


def adjoint(rank, ranks, group):
    """<A x, y> and <x, A^T y> summed over ranks, for random uneven exchanges that leave ranks
    out."""
    from stockpot.stages.exchange.forward import exchange

    rng = np.random.default_rng(7)
    counts = rng.integers(0, 5, (ranks, ranks)) * (rng.random((ranks, ranks)) < 0.7)
    np.fill_diagonal(counts, 0)
    own = 6 * (rank != ranks - 1) + 1
    mine = np.random.default_rng(100 + rank)
    layer = type("Layer", (), {})()
    layer.send = torch.from_numpy(mine.integers(0, own, int(counts[rank].sum())))
    layer.sent, layer.received = counts[rank].tolist(), counts[:, rank].tolist()
    x = torch.from_numpy(mine.normal(size=(own, 3))).requires_grad_()
    y = torch.from_numpy(mine.normal(size=(sum(layer.received), 3)))
    out = exchange(x, layer, group)
    (out * y).sum().backward()
    both = torch.stack([(out.detach() * y).sum(), (x.detach() * x.grad).sum()])
    distributed.all_reduce(both, group=group)
    return both.numpy()


class Opened:
    """A reader that a rank opens anew: its manifest is what stands in its folder now."""

    def __init__(self, root, manifest):
        self.root, self.key, self.digest = Path(root), manifest["key"], manifest["digest"]

    @classmethod
    def at(cls, root):
        return cls(root, json.loads((root / "manifest.json").read_bytes()))


def sums(team, *, inputs, start):
    """Rank 0's sum over all ranks."""
    del inputs
    return team.total(Score(team.rank + start, 1, 0.5))[0]


def leaves(team, *, inputs, how):
    """Rank 1 ends without a word, by a signal or with an error, while rank 0 waits for it."""
    del inputs
    if team.rank == 1 and how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if team.rank == 1 and how == "corrupt":
        raise Corrupt("shard: a bit was flipped", fix="run it again")
    if team.rank == 1:
        raise RuntimeError("no room left")
    return team.total(Score())


class Killed(Exception):
    pass


def trainings(team, *, inputs, folder, jobs):
    """Train as each job says, by the trainer's own steps: {job: (weights, history)}, the same on
    every rank.

    Parameters
    ----------
    team : None where one process trains.
    folder : of the checkpoints, one after every step.
    jobs : name -> {"params": of the stage, "cut": (epoch, step) at which the training is ended,
        then started again, "warmup": whether the epochs of a warm-up are a training of their own}.
    """
    before = trainer._team_step, trainer.CHECKPOINT_EVERY_S, trainer.CHECKPOINT_AFTER_S
    trainer.CHECKPOINT_EVERY_S = trainer.CHECKPOINT_AFTER_S = 0.0
    found = {}
    try:
        for name, job in jobs.items():
            done = Path(folder) / name
            done.mkdir(parents=True, exist_ok=True)
            options = {
                "params": Params(**job["params"]),
                "folder": done,
                "threads": 1,
                "start": None,
                "warmup": None,
            }
            if job.get("cut"):
                trainer._team_step = ended_at(before[0], tuple(job["cut"]))
                with suppress(Killed):
                    fitted(team, inputs, **options)
                trainer._team_step = before[0]
                assert team.rank > 0 or (done / checkpoint.NEWEST).exists()
            if job.get("warmup"):
                fitted(team, inputs, **options | {"warmup": done / "start.safetensors"})
                if team is not None:
                    team.gathered(None)  # rank 0 has written it
                options |= {"start": done / "start.safetensors", "folder": done / "after"}
                options["folder"].mkdir(exist_ok=True)
            result = fitted(team, inputs, **options)
            digests = (
                [None] if team is None else team.gathered(state_digest(result.model.state_dict()))
            )
            assert len(set(digests)) == 1, "ranks end with other weights"
            found[name] = result.model.state_dict(), result.history
    finally:
        trainer._team_step, trainer.CHECKPOINT_EVERY_S, trainer.CHECKPOINT_AFTER_S = before
    return found


def ended_at(step, place):
    def ending(team, params, model, adam, what, epoch, index, **options):
        if (epoch, index) == place:
            raise Killed
        return step(team, params, model, adam, what, epoch, index, **options)

    return ending


def main(folder, rank, world):
    folder = Path(folder)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(str(folder / "store"), world),
        rank=rank,
        world_size=world,
    )
    groups = {n: distributed.new_group(list(range(n))) for n in range(1, world + 1)}
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        if rank < case["ranks"]:
            np.savez(folder / f"{name}.{rank}.npz", **run_case(case, rank, groups[case["ranks"]]))
    for n in range(2, world + 1):
        if rank < n:
            np.savez(folder / f"adjoint{n}.{rank}.npz", both=adjoint(rank, n, groups[n]))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
