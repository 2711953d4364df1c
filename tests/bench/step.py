"""The training step of a recipe against its floor: what it spends above its products.

    python -m tests.bench.step                     # data/wordnet.toml, built in runs/bench/step
    python -m tests.bench.step --recipe data/x.toml --store STORE --runs RUNS --threads 1 2

The steps are the first of an epoch of the packed records, held in memory. The floor of a step is

- its dense products: every one that the step computes, in its shapes and types, into buffers that
  are there already;
- its sparse products: every one, by the faster of torch's kernel and ours, into such a buffer;
- one read and one write of each activation: a copy of what every layer gives its successor.

Step and floor run in turns, pass by pass over the same steps; each figure is the median of the
passes. One thread: CPU seconds. Several: seconds. "Scaling" is how many times faster so many
threads are than one. "With gradients" is the floor where the gradient of each activation is read
and written once, too.

The reader's lines: what making a batch costs above copying its fp32 feature rows from where they
are (a gather, where records hold none) into a buffer that is there already, CPU microseconds, by
`steps` (what training takes) and by `open_batches`; and how long a training waits for its reader.
Rows go to runs/bench/step.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stockpot import open_batches
from stockpot.execution.worker_process import tune_allocator
from stockpot.locate import artifact_of
from stockpot.planning.recipe import load
from stockpot.stages.kernels import layer_product, sparse_product
from stockpot.stages.loader.options import Delivery, Schedule, Source
from stockpot.stages.train import stage, trainer
from stockpot.stages.train.evaluate import open_steps, settings
from stockpot.stages.train.model import build_model
from stockpot.stages.train.train_params import model_config, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGET = 1.2
SCALING = 0.95
READER_US = 100
WAITING = 0.02
HERE = Path("runs/bench/step")
DENSE = {"aten::mm", "aten::addmm", "aten::addmm_"}
PARTS = {  # of torch's profile, operator -> part of a step
    **dict.fromkeys(DENSE, "dense products"),
    "_LayerProduct": "sparse products",
    "_LayerProductBackward": "sparse products",
    "aten::_sparse_mm_reduce_impl": "sparse products",
    "aten::native_layer_norm": "norm, ReLU, dropout",
    "aten::native_layer_norm_backward": "norm, ReLU, dropout",
    "aten::threshold_backward": "norm, ReLU, dropout",
    "aten::relu_": "norm, ReLU, dropout",
    "aten::clamp_min_": "norm, ReLU, dropout",
    "aten::random_": "norm, ReLU, dropout",
    "aten::ge_": "norm, ReLU, dropout",
    "_NormReluDropout": "norm, ReLU, dropout",
    "_NormReluDropoutBackward": "norm, ReLU, dropout",
    "_FusedNormReluDropout": "norm, ReLU, dropout",
    "_FusedNormReluDropoutBackward": "norm, ReLU, dropout",
    "_Spmm": "sparse products",
    "_SpmmBackward": "sparse products",
    "aten::copy_": "copies, fills, sums",
    "aten::fill_": "copies, fills, sums",
    "aten::zero_": "copies, fills, sums",
    "aten::add": "copies, fills, sums",
    "aten::add_": "copies, fills, sums",
    "aten::sum": "copies, fills, sums",
    "aten::_fused_adam_": "Adam",
}


class Products(TorchDispatchMode):
    """Notes every dense product: operands, as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.dense: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in DENSE and not any(isinstance(a, torch.Tensor) and a.is_sparse_csr for a in args):
            self.dense.append(tuple(args[-2:]))
        return func(*args, **(kwargs or {}))


class Trained:
    """The recipe's model on the first steps of its packed records."""

    def __init__(self, recipe: Path, where: Path, count: int) -> None:
        self.values = load(recipe).values()
        self.packed, order = artifact_of(where, "pack:train"), artifact_of(where, "order")
        facts = {"train": self.packed.facts, "order": order.facts}
        recipe_values = {key: self.values[key] for key in stage.STAGE.reads if key in self.values}
        self.params = resolve({**recipe_values, "index": 0}, facts)
        self.model = build_model(model_config(self.params, self.packed.facts), self.params.seed)
        self.model.generator = torch.Generator().manual_seed(0)
        self.model.train()
        self.adam = trainer._adam(self.model, self.params)
        self.source = Source.from_reader(self.packed, order)
        self.all_steps = self.reading()
        self.steps = [
            step for _, step in zip(range(count), self.reading(shuffle=True), strict=False)
        ]

    def reading(self, *, shuffle: bool = False, prefetch: int = 0) -> Any:
        """Steps as training takes them."""
        return open_steps(
            self.source,
            self.model,
            Schedule(self.params.per_step, shuffle=shuffle),
            Delivery(prefetch),
            training=True,
        )

    def epoch(self, precision: str) -> None:
        """The trainer's own step, over all held steps."""
        for i, step in enumerate(self.steps):
            trainer._step(self.model, self.adam, step, 1, i, precision)

    def floor(self, precision: str) -> dict[str, Callable[[], None]]:
        """What each part of the floor does over all held steps."""
        dense: list[Any] = []
        sparse: list[Any] = []
        own = sparse_product.product

        def noted(csr: Any, x: torch.Tensor) -> torch.Tensor:
            sparse.append((csr, x))
            return own(csr, x)

        activations: list[tuple[int, int]] = []
        hidden = self.model._hidden

        def layer(out: torch.Tensor, *rest: Any) -> torch.Tensor:
            activations.append(tuple(out.shape))
            return hidden(out, *rest)

        layer_product.product = sparse_product.product = noted
        self.model._hidden = layer
        try:
            for i, step in enumerate(self.steps):
                with Products() as seen:
                    trainer._step(self.model, self.adam, step, 1, i, precision)
                dense += [(tuple(a.shape), a.stride(), tuple(b.shape), b.stride(), a.dtype)
                          for a, b in seen.dense]  # fmt: skip
        finally:
            layer_product.product = sparse_product.product = own
            del self.model._hidden
        return {
            "dense": dense_replay(dense),
            "sparse": sparse_replay([(csr, tuple(x.shape)) for csr, x in sparse]),
            "touch": copies(activations),
        }


def strided(shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor laid out as an operand was; a transposed one stays transposed."""
    if stride[0] < stride[1] or (stride[0] == 1 and shape[1] > 1):
        return torch.randn(shape[1], shape[0]).to(dtype).t()
    return torch.randn(shape).to(dtype)


def dense_replay(products: list[Any]) -> Callable[[], None]:
    """Every dense product again, one buffer for each operand of a shape."""
    held: dict[Any, torch.Tensor] = {}

    def buffer(key: Any, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in held:
            held[key] = make()
        return held[key]

    calls = []
    for a_shape, a_stride, b_shape, b_stride, dtype in products:
        a = buffer(
            ("a", a_shape, a_stride, dtype), lambda s=a_shape, t=a_stride, d=dtype: strided(s, t, d)
        )
        b = buffer(
            ("b", b_shape, b_stride, dtype), lambda s=b_shape, t=b_stride, d=dtype: strided(s, t, d)
        )
        shape = (a_shape[0], b_shape[1])
        calls.append(
            (a, b, buffer(("out", shape, dtype), lambda s=shape, d=dtype: torch.empty(s, dtype=d)))
        )

    def replay() -> None:
        for a, b, out in calls:
            torch.mm(a, b, out=out)

    return replay


def sparse_replay(products: list[Any]) -> Callable[[], None]:
    """Every sparse product again, each by the kernel that is faster for it."""
    held: dict[Any, torch.Tensor] = {}
    calls: list[Callable[[], Any]] = []
    for csr, shape in products:
        x = held.setdefault(shape, torch.randn(shape))
        ways = [lambda c=csr, v=x: torch.sparse.mm(c, v, "sum")]
        ways += [lambda c=csr, v=x, w=way: w(c, v) for way in KERNELS]
        taken = []
        for way in ways:
            way()
            taken.append(min(timed(way, time.process_time) for _ in range(3)))
        calls.append(ways[taken.index(min(taken))])

    def replay() -> None:
        for call in calls:
            call()

    return replay


KERNELS: list[Callable[[Any, torch.Tensor], torch.Tensor]] = []
"""Our own kernels of a plain CSR tensor."""


def copies(shapes: list[tuple[int, int]]) -> Callable[[], None]:
    """One read and one write of each activation."""
    held = {s: (torch.randn(s), torch.empty(s)) for s in set(shapes)}

    def replay() -> None:
        for shape in shapes:
            source, target = held[shape]
            target.copy_(source)

    return replay


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def turns(
    calls: dict[str, Callable[[], None]], runs: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each, in turns, after a first one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 1):
        for name, call in calls.items():
            seconds = timed(call, clock)
            if turn:
                taken[name].append(seconds)
    return {name: statistics.median(found) for name, found in taken.items()}


def profile(trained: Trained, precision: str) -> dict[str, float]:
    """Share of each part of a step, of the time inside torch's operators, by torch's profiler."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with profiled(activities=[ProfilerActivity.CPU]) as seen:
        trained.epoch(precision)
    shares: dict[str, float] = {}
    for event in seen.key_averages():
        part = PARTS.get(event.key.removeprefix("autograd::engine::evaluate_function: "), "rest")
        shares[part] = shares.get(part, 0.0) + event.self_cpu_time_total
    total = sum(shares.values())
    return {part: value / total for part, value in sorted(shares.items(), key=lambda p: -p[1])}


def measured(trained: Trained, threads: list[int], runs: int) -> Iterator[dict[str, Any]]:
    """Rows of every precision and number of threads."""
    count = len(trained.steps)
    alone: dict[str, dict[str, float]] = {}
    for precision in ("fp32", "bf16"):
        with settings(1):
            floor = trained.floor(precision)
        for number in threads:
            with settings(number):
                clock = time.process_time if number == 1 else time.perf_counter
                calls = {"step": lambda p=precision: trained.epoch(p), **floor}
                found = {k: 1e3 * v / count for k, v in turns(calls, runs, clock).items()}
                walls = (
                    {k: 1e3 * v / count for k, v in turns(calls, runs, time.perf_counter).items()}
                    if number == 1 and len(threads) > 1
                    else found
                )
            least = found["dense"] + found["sparse"] + found["touch"]
            unit = "CPU ms" if number == 1 else "ms"
            yield row(
                f"training step, {precision}", found["step"], "floor", least, unit, number, runs,
                least / found["step"], 1 / TARGET, parts_ms=found,
                with_gradients=(least + found["touch"]) / found["step"],
            )  # fmt: skip
            if number == 1:
                alone[precision] = walls
            else:
                before = alone[precision]
                ours = before["step"] / found["step"]
                peer = (before["dense"] + before["sparse"]) / (found["dense"] + found["sparse"])
                yield row(
                    f"scaling of a step, {precision}", ours, "its products", peer, "times", number,
                    runs, ours / peer, SCALING,
                )  # fmt: skip


def reader(trained: Trained, where: Path, runs: int) -> Iterator[dict[str, Any]]:
    """What a batch costs beside the copy of its rows, and how long a training waits for it."""
    batches = len(trained.all_steps)
    ids = [step.n_id.numpy() for step in trained.reading()]
    columns = trained.packed.facts["num_features"]
    gathered = trained.source.records.gathers
    file = trained.packed.parent("codes").array("codes") if gathered else None
    rows = file if file is not None else np.ones((max(map(len, ids)), 4 * columns), np.uint8)
    out = np.empty((max(map(len, ids)), 4 * columns), np.uint8)

    def copy() -> None:
        for nodes in ids:
            if gathered:
                np.take(rows, nodes, axis=0, out=out[: len(nodes)], mode="clip")
            else:
                np.copyto(out[: len(nodes)], rows[: len(nodes)])

    ways = {"steps": trained.reading()}
    ways["open_batches"] = open_batches(where, adj="norm", shuffle=False, prefetch=0)

    def through(loader: Any) -> Callable[[], None]:
        def read() -> None:
            for _ in loader:
                pass

        return read

    with settings(1):
        calls = {"copy": copy, **{name: through(loader) for name, loader in ways.items()}}
        found = {k: 1e6 * v / batches for k, v in turns(calls, runs, time.process_time).items()}
        for name in ways:
            above = found[name] - found["copy"]
            yield row(
                f"reader of {name}, above the copy", above, "limit", READER_US, "CPU us a batch", 1,
                runs, READER_US / above, 1.0, copy_us=found["copy"],
            )  # fmt: skip
        waits = [waiting(trained) for _ in range(runs)]
    share = statistics.median(waits)
    yield row(
        "training waits for its reader", share, "limit", WAITING, "of an epoch", 1, runs,
        WAITING / share if share else None, 1.0,
    )  # fmt: skip


def waiting(trained: Trained) -> float:
    """Share of an epoch that the trainer waits for its prefetching loader."""
    steps = iter(trained.reading(shuffle=True, prefetch=2))
    waited, start = 0.0, time.perf_counter()
    i = 0
    while True:
        before = time.perf_counter()
        step = next(steps, None)
        waited += time.perf_counter() - before if i else 0.0  # the first is read by nobody before
        if step is None:
            return waited / (time.perf_counter() - start)
        trainer._step(trained.model, trained.adam, step, 1, i, "fp32")
        i += 1


def row(what: str, ours: float, peer: str, peer_value: float, unit: str, threads: int, n: int,
        ratio: float | None, target: float | None, **more: Any) -> dict[str, Any]:  # fmt: skip
    met = None if ratio is None or target is None else bool(ratio >= target)
    return {"what": what, "ours": ours, "peer": peer, "peer_value": peer_value, "unit": unit,
            "threads": threads, "n": n, "ratio": ratio, "target": target, "met": met,
            **more}  # fmt: skip


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=Path("data/wordnet.toml"))
    parser.add_argument("--store", type=Path, default=HERE / "store")
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=["step", "reader"], default=["step", "reader"])
    args = parser.parse_args()
    where = args.runs / args.recipe.stem
    if not (where / "run.json").exists():
        command = ["run", str(args.recipe), "pack", "order"]
        places = ["--store", str(args.store), "--runs", str(args.runs)]
        subprocess.run([sys.executable, "-m", "stockpot.cli", *command, *places], check=True)
    tune_allocator()
    trained = Trained(args.recipe, where, args.steps)
    mean = sum(s.x.shape[0] for s in trained.steps) / len(trained.steps)
    columns = trained.steps[0].x.shape[1]
    print(f"{len(trained.steps)} steps of {mean:,.0f} rows of {columns} features")
    rows: list[dict[str, Any]] = []
    if "step" in args.only:
        with settings(1):
            for precision in ("fp32", "bf16"):
                trained.epoch(precision)
                parts = profile(trained, precision)
                text = ", ".join(f"{part} {100 * share:.1f} %" for part, share in parts.items())
                print(f"{precision}: {text}")
    found = []
    found += [measured(trained, args.threads, args.passes)] if "step" in args.only else []
    found += [reader(trained, where, args.passes)] if "reader" in args.only else []
    print("| what | threads | ours | peer | peer's | unit | ratio | target |\n|" + "---|" * 8)
    for line in (line for lines in found for line in lines):
        ratio = "" if line["ratio"] is None else f"{line['ratio']:.3f}"
        print(
            f"| {line['what']} | {line['threads']} | {line['ours']:.4g} | {line['peer']} | "
            f"{line['peer_value']:.4g} | {line['unit']} | {ratio} | {line['target']:.3f} |",
            flush=True,
        )
        if "parts_ms" in line:
            print("  ", {k: round(v, 2) for k, v in line["parts_ms"].items()},
                  f"with gradients {line['with_gradients']:.3f}", flush=True)  # fmt: skip
        rows.append({"dataset": args.recipe.stem, **line})
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/step.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
