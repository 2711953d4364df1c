"""Describes `train`: one ingredient, a pure function of the recipe's `[train]`, its index and the packed records."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stages.errors import BadInput
from stages.exchange.plan import MODES, Rates, choice, predicted
from stages.hag.params import kept_bytes
from stages.stage import Cost, Facts, Inputs, Reader, Shard, Stage, Writer, added
from stages.train.factory import source_digest
from stages.train.ranges import factor, varied_odds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stages.exchange.team import Team
    from stages.train.trainer import Result

__all__ = [
    "NAMES",
    "STAGE",
    "TORCH_BYTES",
    "Params",
    "checked_holdout",
    "cost",
    "edge_floats",
    "model_config",
    "parameter_bytes",
    "resolve",
    "resolved_device",
    "step_bytes",
    "trained",
]

NAMES = ("gcn", "sage", "gat", "gin", "sage-lstm")
"""Models of stockpot, `stages.train.model.MODELS`; any other name is package.module:factory."""

SHARED = ("gcn", "sage", "gat")
"""Models that several ranks train together."""

TORCH_BYTES = 320 << 20  # torch, numba and their libraries in one process
_PREFETCH = 2
_NOT_MODEL = (
    "index",
    "warmup",
    "ema",
    "norm",
    "precision",
    "holdout",
    "ranks",
    "exchange",
    "storage_gbs",
    "interconnect_gbs",
)
"""Of `Params`, what no factory is told: it is the same for the models of one soup, or of the training alone."""


@dataclass(frozen=True)
class Params:
    """The `[train]` section, every "auto" resolved, and how the reader normalises.

    Attributes
    ----------
    index : number of the ingredient: its batch order and dropout are drawn from seed + index, its start from seed.
    device : "cpu", "cuda" or "cuda:N".
    normalization, mass, self_loops : `[graph]` for gcn and a factory's model; "none", "none", False for models that
        read no values, but `self_loops` for gat.
    heads : attention heads of gat, handed to a factory; 0 for models without.
    source_digest : of the source file of a factory's module.
    warmup : the first epochs, trained once for all ingredients by stage `warmup`.
    ema : share of the averaged weights that a step keeps; 0: the weights are not averaged.
    norm : inside gin's convolutions: "batch"; nothing for other models.
    precision : of a training step's dense products: "fp32" or "bf16".
    holdout : share of the validation outputs that early stop does not look at: they are for souping.
    ranks : processes that train the model together.
    exchange : how: "cooperative", each reads and computes the rows it owns of every step; "independent", all rows of
        its own outputs; "auto", what `stages.exchange.plan` predicts to be faster.
    storage_gbs, interconnect_gbs : GB/s of a rank, for that prediction; an interconnect of 0 is that of the device.
    """

    model: str
    per_step: int
    layers: int
    hidden: int
    dropout: float
    lr: float
    weight_decay: float
    schedule: str
    epochs: int
    patience: int
    seed: int
    index: int
    device: str
    normalization: str
    mass: str
    self_loops: bool
    heads: int = added(0)
    source_digest: str = added("")
    warmup: int = added(0)
    ema: float = added(0.0)
    norm: str = added("")
    precision: str = added("fp32")
    holdout: float = added(0.0)
    ranks: int = added(1)
    exchange: str = added("auto")
    storage_gbs: float = added(1.0)
    interconnect_gbs: float = added(0.0)


def resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Parameters of ingredient `index`, its own learning rate, weight decay and dropout among them."""
    get = {name.removeprefix("train."): value for name, value in recipe.items()}
    model, ranks = str(get["model"]), int(get["ranks"])
    own = ":" in model
    if model not in NAMES and not own:
        raise BadInput(
            f"train.model: expected {', '.join(NAMES)} or package.module:factory, found {model!r}",
            fix="--set train.model=gcn",
        )
    if ranks > 1 and model not in SHARED:
        why = "its batch norm needs all rows of a step" if model == "gin" else "what it computes of a row is not known"
        raise BadInput(
            f"train.ranks: {ranks} ranks train {', '.join(SHARED)} together, found {model}: {why}",
            fix="--set train.ranks=1",
        )
    for name, least in (
        ("per_step", 1),
        ("layers", 1),
        ("hidden", 1),
        ("epochs", 1),
        ("patience", 1),
        ("seed", 0),
        ("heads", 1),
        ("warmup", 0),
        ("ranks", 1),
    ):
        if int(get[name]) < least:
            raise BadInput(f"train.{name}: expected at least {least}, found {get[name]}")
    for name, ok, expected in (
        ("dropout", 0 <= get["dropout"] < 1, "at least 0 and below 1"),
        ("lr", 0 < get["lr"] < float("inf"), "a number above 0"),
        ("weight_decay", 0 <= get["weight_decay"] < float("inf"), "a number, 0 or more"),
        ("warmup", get["warmup"] < get["epochs"], f"fewer than train.epochs ({get['epochs']})"),
        ("vary", 1 <= get["vary"] <= 10, "a factor from 1 to 10"),
        ("ema", 0 <= get["ema"] < 1, "at least 0 and below 1"),
        ("schedule", get["schedule"] in ("plateau", "cosine", "constant"), "plateau, cosine or constant"),
        ("precision", get["precision"] in ("fp32", "bf16"), "fp32 or bf16"),
        ("exchange", get["exchange"] in MODES, ", ".join(MODES)),
        ("storage_gbs", 0 < get["storage_gbs"] < float("inf"), "GB/s, a number above 0"),
        ("interconnect_gbs", 0 <= get["interconnect_gbs"] < float("inf"), "GB/s, or 0: that of the device"),
    ):
        if not ok:
            raise BadInput(f"train.{name}: expected {expected}, found {get[name]}")
    sampling = facts.get("train", {}).get("sampling")
    if sampling is not None and len(fanouts := sampling["fanouts"]) < int(get["layers"]):
        raise BadInput(
            f"batches.fanouts: expected {get['layers']}, one for each layer of the model, found {list(fanouts)}",
            fix=f"--set train.layers={len(fanouts)}",
        )
    hidden, heads = int(get["hidden"]), int(get["heads"])
    if model == "gat" and hidden % heads:
        raise BadInput(
            f"train.hidden: expected a multiple of train.heads ({heads}), its heads side by side, found {hidden}",
            fix=f"--set train.hidden={-(-hidden // heads) * heads}",
        )
    index, seed = int(recipe["index"]), int(get["seed"])
    by = {name: factor(float(get["vary"]), seed, index, name) for name in ("lr", "weight_decay", "dropout")}
    normalised = own or model == "gcn"  # a mean divides by the neighbours it has: nothing of [graph] changes it
    return Params(
        model=model,
        per_step=int(get["per_step"]),
        layers=int(get["layers"]),
        hidden=hidden,
        dropout=_rounded(float(get["dropout"]), varied_odds(float(get["dropout"]), by["dropout"])),
        lr=_rounded(float(get["lr"]), float(get["lr"]) * by["lr"]),
        weight_decay=_rounded(float(get["weight_decay"]), float(get["weight_decay"]) * by["weight_decay"]),
        schedule=str(get["schedule"]),
        epochs=int(get["epochs"]),
        patience=int(get["patience"]),
        seed=seed,
        index=index,
        device=resolved_device(str(get["device"])),
        normalization=str(recipe["graph.normalization"]) if normalised else "none",
        mass=str(recipe["graph.mass"]) if normalised else "none",
        self_loops=bool(recipe["graph.self_loops"]) if normalised or model == "gat" else False,
        heads=heads if own or model == "gat" else 0,
        source_digest=source_digest(model) if own else "",
        warmup=int(get["warmup"]),
        ema=float(get["ema"]),
        norm="batch" if model == "gin" else "",
        precision=str(get["precision"]),
        holdout=checked_holdout(float(recipe["soup.holdout"])),
        ranks=ranks,
        **_shared(get, ranks),
    )


def _shared(get: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """How several ranks train together; nothing of it is said of one."""
    if ranks == 1:
        return {}
    return {
        "exchange": str(get["exchange"]),
        "storage_gbs": float(get["storage_gbs"]),
        "interconnect_gbs": float(get["interconnect_gbs"]),
    }


def _rounded(asked: float, varied: float) -> float:
    """`asked` untouched where it is not varied, else to four digits, so that what was trained can be read and typed."""
    return asked if abs(varied - asked) <= 1e-12 * abs(asked) else float(f"{varied:.4g}")


def checked_holdout(share: float) -> float:
    """`soup.holdout`, a share in [0, 1).

    Raises
    ------
    BadInput
        It is none.
    """
    if not 0 <= share < 1:
        raise BadInput(
            f"soup.holdout: expected a share of the validation split, 0 or more and below 1, found {share:g}",
            fix="--set soup.holdout=0.5",
        )
    return share


def resolved_device(asked: str) -> str:
    """`train.device` as "cpu", "cuda" or "cuda:N".

    Raises
    ------
    BadInput
        There is no such device, or no CUDA here.
    """
    if asked == "auto":
        return "cuda" if _has_cuda() else "cpu"
    kind, _, number = asked.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdigit())):
        raise BadInput(
            f"train.device: expected auto, cpu, cuda or cuda:N, found {asked!r}", fix="--set train.device=auto"
        )
    if kind == "cuda" and not _has_cuda():
        raise BadInput(f"train.device: {asked!r}: this machine or its torch has no CUDA", fix="--set train.device=cpu")
    return asked


def _has_cuda() -> bool:
    """Whether there is a GPU and a torch built for it; torch itself is not imported: that takes 2 s."""
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("torch")
    folders = list(found.submodule_search_locations or []) if found is not None else []
    built = any((Path(folder) / "lib" / "libtorch_cuda.so").exists() for folder in folders)
    return built and Path("/dev/nvidia0").exists()


def _shards(params: Params, inputs: Inputs) -> Sequence[Shard]:
    return [Shard("ingredient", 0, params.epochs)]


def _run(params: Params, inputs: Inputs, shard: Shard, writer: Writer) -> dict[str, Any]:
    start = inputs["start"].path("start.safetensors") if params.warmup else None
    return trained(params, inputs, writer, start=start)


def trained(
    params: Params, inputs: Inputs, writer: Writer, *, start: Path | None = None, warmup: Path | None = None
) -> dict[str, Any]:
    """Train on packed records, write `model.safetensors` and `history.json`, return the facts; see `trainer.train`."""
    from stages.train.model import save_model

    packed = inputs["train"].facts
    folder, threads = writer.scratch(), max(1, writer.threads // params.ranks)
    options: dict[str, Any] = {"params": params, "folder": folder, "threads": threads, "start": start, "warmup": warmup}
    if params.ranks == 1:
        result = fitted(None, inputs, writer.progress, **options)
    else:
        from stages.exchange.team import led

        with led(params.ranks, fitted, inputs, device=params.device, **options) as team:
            result = fitted(team, inputs, writer.progress, **options)
    identity = {role: inputs[role].digest for role in sorted(inputs)}
    facts: dict[str, Any] = {
        "seed": params.seed + params.index,
        "index": params.index,
        "epochs": len(result.history),
        "best_epoch": int(result.best["epoch"]),
        "valid_accuracy": float(result.best["accuracy"]),
        "valid_loss": float(result.best["loss"]),
        "layers": params.layers,
        "hidden": params.hidden,
        "num_parameters": sum(p.numel() for p in result.model.parameters()),
        "init_digest": result.init_digest,
    }
    if params.model not in ("gcn", "sage"):
        facts["edge_floats"] = edge_floats(params, packed)
    if params.model == "sage-lstm":
        facts["sequential"] = True
    if params.ranks > 1:
        facts["shared"] = {"ranks": params.ranks, **shared_how(params, result.model, inputs)}
        writer.note("exchange", facts["shared"]["why"])
    save_model(writer.path("model.safetensors"), result.model, {**facts, "inputs": identity})
    writer.path("history.json").write_text(json.dumps(result.history, indent=1, sort_keys=True) + "\n")
    writer.note("seconds", result.seconds)
    writer.note("seconds_per_epoch", result.seconds / max(1, len(result.history)))
    writer.note("remarks", result.words)
    return facts


def fitted(
    team: Team | None,
    inputs: Inputs,
    report: Callable[[int, int, str], None] | None = None,
    *,
    params: Params,
    folder: Path,
    threads: int,
    start: Path | None,
    warmup: Path | None,
) -> Result:
    """Train on packed records, alone or as one rank of a team; see `trainer.train`."""
    from stages.train.evaluate import open_steps
    from stages.train.holdout import Outputs
    from stages.train.model import build_model
    from stages.train.trainer import train

    config = model_config(params, inputs["train"].facts)
    model = build_model(config, params.seed)
    if team is not None and params.device != "cpu":
        params = replace(params, device=f"cuda:{team.rank}")
    share: dict[str, Any] = {}
    if team is not None and shared_how(params, model, inputs)["mode"] == "cooperative":
        share = {"exchange": inputs["exchange"], "rank": team.rank}
    elif team is not None:
        share = {"ranks": team.size, "rank": team.rank}
    train_steps = open_steps(
        inputs["train"],
        model,
        training=True,
        per_step=params.per_step,
        order=inputs.get("order"),
        **({"loads": inputs["loads"]} if "loads" in inputs else {}),
        shuffle=True,
        seed=params.seed + params.index,
        prefetch=_PREFETCH,
        device=params.device,
        **share,
    )
    part: dict[str, Any] = {} if team is None else {"rank": team.rank, "world_size": team.size}
    valid_steps = open_steps(inputs["valid"], model, shuffle=False, prefetch=_PREFETCH, device=params.device, **part)
    if params.holdout:
        valid_steps = Outputs(valid_steps, params.holdout, held=False)
    return train(
        params,
        config,
        train_steps,
        valid_steps,
        folder,
        threads,
        report or _unheard,
        {role: inputs[role].digest for role in sorted(inputs)},
        start=start,
        warmup=warmup,
        team=team,
    )


def shared_how(params: Params, model: Any, inputs: Inputs) -> dict[str, Any]:
    """How ranks train together, why, and what was predicted; see `stages.exchange.plan.choice`."""
    found = predicted(inputs["exchange"].facts, inputs["train"].facts, model, params.per_step, params.device)
    rates = Rates.of(params.storage_gbs, params.interconnect_gbs, params.device)
    return choice(params.exchange, found, rates, params.ranks, params.per_step)


def _unheard(done: int, total: int, text: str) -> None:
    """Progress of a rank that nobody listens to."""


def model_config(params: Params, packed: Facts) -> dict[str, Any]:
    """For `build_model`: what the model is made of, and for a factory all of `[train]` but the ingredient's number."""
    config: dict[str, Any] = {
        "model": params.model,
        "num_features": int(packed["num_features"]),
        "num_classes": int(packed["num_classes"]),
        "hidden": params.hidden,
        "layers": params.layers,
        "dropout": params.dropout,
        "normalization": params.normalization,
        "mass": params.mass,
        "self_loops": params.self_loops,
    }
    if params.heads:
        config["heads"] = params.heads
    if params.model not in NAMES:
        config |= {name: value for name, value in asdict(params).items() if name not in {*config, *_NOT_MODEL}}
    return config


def _finish(params: Params, inputs: Inputs, shards: Mapping[str, Reader], writer: Writer) -> dict[str, Any]:
    return dict(shards["ingredient"].facts)


def edge_floats(params: Params, facts: Facts) -> int:
    """4-byte values a layer holds for every edge: attention by head; messages and ids for a factory's model."""
    if params.model == "sage-lstm":  # gates, their sum with the state's, their values, cells and states
        return 16 * max(int(facts["num_features"]), params.hidden)
    if params.model in NAMES:
        return params.heads
    return 3 * max(int(facts["num_features"]), params.hidden) // 2 + 8


def step_bytes(hidden: int, facts: Facts, *, per_step: int = 1, layers: int = 0, edge_floats: int = 0) -> int:
    """Bytes of steps being loaded and of the activations on one, from the facts of a packed split.

    `layers` is 0 where nothing is kept for a backward pass.
    """
    rows, edges = per_step * int(facts["max_rows"]), per_step * int(facts["max_edges"])
    features, classes = int(facts["num_features"]), int(facts["num_classes"])
    # Features and ids; two CSR of i4 ids and f4 values, and the places of the entries where attention is transposed.
    loaded = rows * (4 * features + 40) + (16 + 4 * bool(edge_floats)) * (edges + rows)
    # A layer keeps its aggregated input and what LayerNorm, ReLU and dropout remember; backward holds two more.
    widths = max(features, hidden) * (6 * layers or 4) + classes * 4
    activations = 4 * rows * widths
    if edge_floats:
        # What a layer holds by edge, and a gradient of the same size; the heads of the last layer stand side by side.
        activations += 4 * (edges + rows) * edge_floats * (layers + 2) + 12 * rows * classes * edge_floats
    # In flight: one in use, those ready and one at work.
    return (2 + _PREFETCH) * loaded + activations


def parameter_bytes(params: Params, facts: Facts) -> int:
    features, classes = int(facts["num_features"]), int(facts["num_classes"])
    dims = [features, *[params.hidden] * (params.layers - 1), classes]
    # Matrices of a layer; 4 is a guess.
    each = {"gcn": 1, "sage": 2, "gat": 1, "gin": 2, "sage-lstm": 10}.get(params.model, 4)
    matrices = sum(each * max(a, b) * b + 6 * b for a, b in pairwise(dims))
    return 4 * (matrices + params.heads * (dims[-2] + 4) * classes)


def cost(params: Params, facts: Mapping[str, Facts]) -> Cost:
    """Projection of one training; of a warm-up too, which holds no more."""
    train, valid = facts["train"], facts["valid"]
    floats = edge_floats(params, train)
    step = max(
        step_bytes(params.hidden, train, per_step=params.per_step, layers=params.layers, edge_floats=floats),
        step_bytes(params.hidden, valid, edge_floats=floats),
    )
    weights = parameter_bytes(params, train)
    # Weights, gradients, two moments, the best weights, and one copy of all in a checkpoint being written; the average.
    peak = TORCH_BYTES + step + (12 + 4 * bool(params.ema)) * weights
    if params.ranks > 1:
        # A process for every rank; what they receive comes on top of what they own, at worst every row for every rank.
        peak = params.ranks * (TORCH_BYTES + step + (12 + 4 * bool(params.ema)) * weights)
    peak += params.ranks * sum(kept_bytes(split, params.layers) for split in (train, valid))
    peak += int(facts["loads"]["cache_bytes"]) if "loads" in facts else 0
    read = sum(int(split["bytes"]) + int(split.get("gather_bytes", 0)) for split in (train, valid))
    return Cost((params.epochs - params.warmup) * read, weights, peak)


STAGE = Stage(
    name="train",
    version=1,
    exact=False,
    params=Params,
    roles=("train", "valid", "order", "start", "exchange", "loads"),
    reads=(
        "train.model",
        "train.per_step",
        "train.layers",
        "train.hidden",
        "train.heads",
        "train.dropout",
        "train.lr",
        "train.weight_decay",
        "train.schedule",
        "train.epochs",
        "train.patience",
        "train.warmup",
        "train.vary",
        "train.ema",
        "train.precision",
        "train.seed",
        "train.device",
        "train.ranks",
        "train.exchange",
        "train.storage_gbs",
        "train.interconnect_gbs",
        "graph.normalization",
        "graph.mass",
        "graph.self_loops",
        "soup.holdout",
    ),
    resolve=resolve,
    shards=_shards,
    run=_run,
    finish=_finish,
    cost=cost,
)
