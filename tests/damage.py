"""What a store and its runs hold, of every kind, and what becomes of whoever reads it back when one
file is damaged.

`build(folder)` makes it once, small; `targets(folder)` names every file that a command or a reader
reads back, with its readers; `strike` flips one bit or cuts, reads, and says whether the damage was
refused, harmless or silent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stockpot import open_batches, open_model
from stockpot.execution.task import FINISH, Task, execute, open_inputs
from stockpot.inspection.inspect_artifact import artifact_document
from stockpot.inspection.target import Target as Inspected
from stockpot.locate import artifact_of
from stockpot.planning.plan import BUILD, Planner
from stockpot.planning.recipe import load
from stockpot.planning.registry import STAGES
from stockpot.report.run_outputs import built_of, write_outputs
from stockpot.souping.ingredients import found
from stockpot.souping.souping import Asked, make
from stockpot.stages.errors import Corrupt, StockpotError
from stockpot.stages.loader.records import Records
from stockpot.stages.stage import Shard
from stockpot.stages.train import checkpoint
from stockpot.stages.train.state import read_state
from stockpot.store import reader
from stockpot.store.attempt import Attempt, clear_dead_attempts
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
from stockpot.store.keys import plain
from stockpot.store.run_folder import read_run
from stockpot.store.store import Store
from stockpot.store.verify import verify_artifact
from tests.graphs import write_npz, write_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = [
    "RUNS",
    "Struck",
    "Target",
    "as_json",
    "build",
    "put",
    "reads",
    "strike",
    "table",
    "targets",
]

RUNS = {
    "packed": (
        (
            '[features]\ncodec = "rq4"\nlayout = "packed"\n'
            '[hag]\nenabled = "always"\n[soup]\nmethod = "uniform"\n'
        ),
        {"ingredients": 2, "warmup": 1},
        (),
    ),
    "gathered": (
        (
            '[features]\ncodec = "sq4"\nlayout = "gather"\ntier_share = 0.3\ntier_bytes = 2\n'
            '[order]\nmethod = "overlap"\nwindow = 2\ncache = 0.9\n'
        ),
        {"ingredients": 1, "model": "sage"},
        (),
    ),
    "sampled": (
        '[features]\ncodec = "fp16"\n',
        {"ingredients": 1, "ranks": 2, "batches": 'method = "labor"\nfanouts = [4, 4]'},
        ("exchange", "order", "pack"),
    ),
    "cluster": (
        '[features]\ncodec = "fp32"\n[hag]\nenabled = "never"\n',
        {"ingredients": 1, "batches": 'method = "cluster"\nrounds = 2'},
        ("pack",),
    ),
}
"""Name -> (sections, changes of [train] and [batches], what is built: all where it is empty)."""


def build(folder: Path, names: Sequence[str] = tuple(RUNS)) -> None:
    """Build these runs in one store, a soup of models beside them, and work in progress."""
    for name in names:
        extra, changes, wanted = RUNS[name]
        changes = dict(changes)
        batches, model = changes.pop("batches", ""), changes.pop("model", "gcn")
        recipe = write_recipe(
            folder, name, model=model, epochs=2, nodes=160, features=8, extra=extra, outputs=24
        )
        text = recipe.read_text()
        text = text.replace("[batches]\n", f"[batches]\n{batches}\n") if batches else text
        for key, value in changes.items():
            line = f"{key} = 2\n" if key == "ingredients" else "[train]\n"
            text = text.replace(
                line,
                f"{key} = {value}\n" if key == "ingredients" else f"[train]\n{key} = {value}\n",
            )
        recipe.write_text(text)
        built(recipe, folder, wanted)
    if "packed" in names:
        make(
            Asked(
                [folder / "runs/packed"], out=folder / "souped", overrides=["soup.method=uniform"]
            ),
            lambda *_: None,
        )
    unfinished(folder)


def built(recipe: Path, folder: Path, wanted: Iterable[str]) -> None:
    """Build what is wanted of a recipe in this process, and write the run's folder."""
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    store, seen = Store(folder / "store"), Seen(runs / "seen.json")
    planner = Planner(load(recipe), store, StatCache(runs / "stat-cache.json"), seen)
    while ready := [p for p in planner.plan(wanted) if p.state == BUILD]:
        for p in ready:
            for task in tasks(store, p):
                execute(task)
    write_outputs(planner.recipe, store, runs, built_of(planner.plan(wanted), ()))
    seen.save()


def tasks(store: Store, planned: Any) -> list[Task]:
    """All tasks of one planned node."""
    stage = STAGES[planned.node.stage]
    shards = stage.shards(planned.params, open_inputs(store, planned.inputs))
    names = tuple(shard.name for shard in shards)
    return [
        Task(
            str(store.root),
            planned.node.id,
            stage.name,
            planned.key,
            plain(planned.params),
            planned.inputs,
            shard,
            names,
            stage.exact,
            1,
        )
        for shard in [*shards, Shard(FINISH)]
    ]


def unfinished(folder: Path) -> None:
    """Leave a published shard, an attempt under way with its progress, and a checkpoint."""
    store = Store(folder / "store")
    other = write_recipe(folder, "other", nodes=60, features=4, extra="")
    write_npz(folder / "other.npz", nodes=60, features=4, seed=7)
    planner = Planner(load(other), store, StatCache(None), Seen(None))
    while planned := [p for p in planner.plan(["ingest"]) if p.state == BUILD]:
        execute(tasks(store, planned[0])[0])
        Attempt(store.work(planned[0].key), "late").progress(1, 1, "under way")
        break
    model, adam = trained()
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    (folder / "scratch").mkdir()
    progress = checkpoint.Progress(epoch=1, history=[{"epoch": 0, "loss": 0.5}], rate=0.1)
    checkpoint.save(
        folder / "scratch", {"model": "gcn"}, progress, model, adam, {"best": model.state_dict()}
    )


def trained() -> tuple[Any, Any]:
    """A small network with an optimiser that has made a step."""
    from stockpot.stages.train.model import build_model

    sizes = {"num_features": 4, "hidden": 4, "num_classes": 2, "layers": 2, "dropout": 0.0}
    model = build_model({"model": "gcn", **sizes}, seed=1)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    return model, adam


# --- what was read, as one digest


def digest(*parts: Any) -> str:
    """Of arrays, tensors, bytes, text and JSON, nested."""
    found = hashlib.blake2b(digest_size=16)

    def take(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            part = part.to_dense() if part.layout != torch.strided else part
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, bytes):
            found.update(part)
        elif isinstance(part, dict):
            for name in sorted(part):
                found.update(str(name).encode())
                take(part[name])
        elif isinstance(part, list | tuple):
            found.update(b"[")
            for item in part:
                take(item)
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            take(vars(part))
        else:
            found.update(repr(part).encode())

    take(parts)
    return found.hexdigest()


@contextmanager
def fresh() -> Iterator[None]:
    """As in a new process: nothing was checked before, and a warning is a refusal said aloud."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("stockpot")
    reader._verified._seen.clear()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
    if said:
        raise Corrupt(said[0])


# --- readers


def payload(store: Store, stage: str, key: str) -> str:
    """Everything of an artifact, as stages and `inspect` read it."""
    opened = store.open(stage, key)
    names = opened.names()
    arrays = {name[: -len("/zarr.json")] for name in names if name.endswith("/zarr.json")}
    files = [name for name in names if not any(name.startswith(f"{array}/") for array in arrays)]
    parts: list[Any] = [opened.facts, opened.manifest, artifact_document(Inspected("x", opened))]
    parts += [opened.array(name) for name in sorted(arrays)]
    stems = {name.removesuffix(".index.arrow") for name in files if name.endswith(".index.arrow")}
    indexed = [name for name in files if name.removesuffix(".arrow") in stems]
    parts += [opened.path(name).read_bytes() for name in files if name not in indexed]
    if indexed:
        records = Records.from_reader(opened)
        parts += [[records.meta, vars(records.stored(i))] for i in range(len(records))]
    return digest(parts)


def checked(store: Store, stage: str, key: str) -> str:
    """`verify`: it must find any damage at all."""
    if findings := verify_artifact(store, stage, key):
        raise Corrupt(findings[0].message)
    return "sound"


def steps(run: Path, split: str) -> str:
    """Two epochs of training steps."""
    options: dict[str, Any] = {"layers": 2} if run.name == "sampled" else {}
    batches = open_batches(run, split, adj="norm", prefetch=0, **options)
    found = []
    for _ in range(2):
        found += [digest(b.x, b.y, b.n_id, b.adjs if "adjs" in b else b.adj_t) for b in batches]
    return digest(found)


def whole_run(run: Path) -> str:
    """What `run.json` says, and all that it opens is."""
    document = read_run(run)
    return digest(
        document, [artifact_of(run, name).digest for name in sorted(document["artifacts"])]
    )


def models(where: Path) -> str:
    """Files of models as `stockpot soup` reads them."""
    return digest(
        [(one.label, one.own, one.metadata, read_state(one.path)) for one in found([where])]
    )


def resumed(folder: Path) -> str:
    """A checkpoint, as the trainer goes on from it."""
    model, adam = trained()
    progress, kept, words = checkpoint.load(folder, {"model": "gcn"}, model, adam, mend=False)
    if words:
        raise Corrupt(words[0])
    assert progress is not None
    return digest(asdict(progress), kept, model.state_dict(), adam.state_dict()["state"])


def in_work(store: Store, key: str) -> str:
    """Published shards and progress of an artifact under way; whether a living attempt is left
    alone."""
    work = store.work(key)
    clear_dead_attempts(work, "late")
    state = store.work_in_progress(key)
    if len(state["progress"]) < len(list(work.root.glob("progress/*.json"))):
        raise Corrupt("a damaged progress is not shown")
    parts = []
    for shard in state["shards"]:
        opened = store.published(key, shard)
        assert opened is not None
        parts += [[opened.facts, name, opened.path(name).read_bytes()] for name in opened.names()]
    alive = sorted(path.name for path in work.root.glob("attempt-*"))
    return digest(state, parts, alive)


@dataclass(frozen=True)
class Target:
    """One file, what it is, and who reads it."""

    kind: str
    path: Path
    readers: tuple[Callable[[], str], ...]


def targets(folder: Path) -> list[Target]:
    """Every file that is read back."""
    store, runs = Store(folder / "store"), folder / "runs"
    by_key: dict[tuple[str, str], list[Path]] = {}
    for run in sorted(path.parent for path in runs.glob("*/run.json")):
        for entry in read_run(run)["artifacts"].values():
            by_key.setdefault((entry["stage"], entry["key"]), []).append(run)
    found_: list[Target] = []
    for stage, key in store.artifacts():
        readers = [
            lambda s=stage, k=key: payload(store, s, k),
            lambda s=stage, k=key: checked(store, s, k),
        ]
        for run in by_key.get((stage, key), [])[:1]:
            readers += consumers(store, stage, key, run)
        paths = sorted(path for path in store.folder(stage, key).rglob("*") if path.is_file())
        found_ += [Target(kind_of(stage, path), path, tuple(readers)) for path in paths]
    for run in sorted(path.parent for path in runs.glob("*/run.json")):
        opens = (lambda r=run: whole_run(r), lambda r=run: steps(r, "train"))
        found_ += [Target("run.json", run / "run.json", opens)]
    source = next(path for name in RUNS if (path := folder / f"{name}.npz").exists())
    cache = runs / "stat-cache.json"
    found_.append(Target("stat-cache.json", cache, (lambda: StatCache(cache).digest(source),)))
    found_.append(
        Target(
            "seen.json", runs / "seen.json", (lambda: digest(Seen(runs / "seen.json")._entries),)
        )
    )
    souped, scratch = folder / "souped", folder / "scratch"
    found_ += [
        Target("soup outside a run", path, (lambda: models(souped),))
        for path in sorted(souped.glob("*.safetensors"))
    ]
    found_ += [
        Target("checkpoint", path, (lambda: resumed(scratch),))
        for path in sorted(scratch.iterdir())
    ]
    for work in sorted((folder / "store/work").iterdir()):
        paths = sorted(p for p in work.rglob("*") if p.is_file() and p.name != "entry.json")
        read = (lambda k=work.name: in_work(store, k),)
        found_ += [Target(f"work: {work_kind(path)}", path, read) for path in paths]
    return found_


def consumers(store: Store, stage: str, key: str, run: Path) -> list[Callable[[], str]]:
    """Who else reads an artifact of a run than its stages."""
    if stage == "pack":
        split = store.open(stage, key).facts["split"]
        return [lambda: steps(run, split)]
    if stage in ("order", "loadplan", "quantize"):
        return [lambda: steps(run, "train")]
    if stage == "soup":
        return [lambda: digest(open_model(run).state_dict())]
    return [lambda: models(run)] if stage == "train" else []


def kind_of(stage: str, path: Path) -> str:
    """Kind of a payload file, for the table."""
    if path.name in ("manifest.json", "facts.json", "history.json"):
        return path.name
    if path.name == "zarr.json":
        return "zarr metadata"
    if "c" in path.parent.parts[-3:] or path.name == "c":
        return "zarr chunk"
    what = ".index.arrow" if path.name.endswith(".index.arrow") else path.suffix
    return f"{stage}: *{what}"


def work_kind(path: Path) -> str:
    if path.parent.name in ("shards", "progress"):
        return f"{path.parent.name}/*.json"
    return path.name if path.name == "owner.json" else "payload of a shard"


@dataclass
class Struck:
    """What became of one damaged file: "refused", "same" or "silent"; or "untyped", with the
    error."""

    outcome: str
    word: str = ""


def reads(target: Target) -> list[str]:
    """What every reader gives, or "!" where it refuses, or the error that is none of ours."""
    found = []
    for read in target.readers:
        try:
            with fresh():
                value = read()
            found.append(value)
        except StockpotError:
            found.append("!")
        except Exception as error:
            found.append(f"? {type(error).__name__}: {error}")
    return found


def strike(target: Target, sound: list[str], rng: np.random.Generator) -> Struck:
    """Damage one file, read, and put it back; `sound` is what its readers gave before."""
    data = target.path.read_bytes()
    if rng.random() < 0.15 or not data:
        at = int(rng.choice([0, max(0, len(data) - 1), int(rng.integers(0, max(1, len(data))))]))
        how, damaged = f"cut at {at} of {len(data)}", data[:at]
    else:
        at, bit = int(rng.integers(len(data))), int(rng.integers(8))
        how, damaged = (
            f"bit {bit} of byte {at} of {len(data)}",
            data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :],
        )
    if damaged == data:
        return Struck("same")
    put(target.path, damaged)
    try:
        found = reads(target)
    finally:
        put(target.path, data)
    word = f"{target.path}: {how}"
    for now, before in zip(found, sound, strict=True):
        if now.startswith("?"):
            return Struck("untyped", f"{word}: {now[2:]}")
        if now not in ("!", before):
            return Struck("silent", word)
    return Struck("refused" if "!" in found else "same", word)


def put(path: Path, data: bytes) -> None:
    """Another file under the same name: what is mapped of the one before stays as it was."""
    partial = path.with_name(f".{path.name}.struck")
    partial.write_bytes(data)
    partial.replace(path)


def table(counts: dict[str, Counter[str]]) -> str:
    """Markdown: a row a kind of file."""
    lines = [
        "| file | flips and cuts | refused | same result | untyped | silent |",
        "|---|---|---|---|---|---|",
    ]
    for kind in sorted(counts):
        c = counts[kind]
        cells = [c.total(), c["refused"], c["same"], c["untyped"], c["silent"]]
        lines.append(f"| {kind} | " + " | ".join(f"{n:,}" for n in cells) + " |")
    total = sum(counts.values(), Counter())
    cells = [total.total(), total["refused"], total["same"], total["untyped"], total["silent"]]
    return "\n".join([*lines, "| all | " + " | ".join(f"{n:,}" for n in cells) + " |"])


def as_json(counts: dict[str, Counter[str]]) -> str:
    return json.dumps(
        {kind: dict(found) for kind, found in counts.items()}, indent=1, sort_keys=True
    )
