"""Resolved parameters of `train`: every "auto" of `[train]` decided, one ingredient's own values
drawn.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.errors import BadInput
from stockpot.stages.order.epoch_order import walks_tour
from stockpot.stages.row_sizes import ROW_MODELS
from stockpot.stages.stage import Facts, added
from stockpot.stages.train.devices import resolved_device
from stockpot.stages.train.factory import source_digest
from stockpot.stages.train.ranges import factor, varied_odds

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "NAMES",
    "SHARED",
    "Params",
    "checked_holdout",
    "model_config",
    "resolve",
    "resolved_mass",
    "resolved_precision",
    "tail_of",
    "validate_every",
    "widest",
]

NAMES = ("gcn", "sage", "gat", "gin", "sage-lstm", *ROW_MODELS)
"""Models of stockpot, `stockpot.stages.train.model.MODELS`; any other name is
package.module:factory."""

SHARED = ("gcn", "sage", "gat", *ROW_MODELS)
"""Models that several ranks train together."""

EPOCHS, PATIENCE = 200, 30
"""Epochs of a training, and those it waits for a better one, where an epoch has several steps."""
STEPS, WAIT = 1500, 150
"""Steps that these come to at least: where a record is the graph, an epoch is one step."""
VALIDATE = 0.5
"""Share of the row-passes that `train.validate = "auto"` spends on validation."""
TAIL, TAIL_MODELS = 0.75, 8
"""The last share of a training's epochs whose weights are ingredients where `train.ingredients =
"tail"`, and the most of them, evenly spaced."""
PER_PATIENCE, PER_TRAINING = 5, 10
"""Validations that "auto" leaves within the patience, and in a training, whatever their share: an
early stop that looks less often stops late, and picks from too few epochs."""

_NOT_MODEL = (
    "index",
    "warmup",
    "ema",
    "norm",
    "precision",
    "holdout",
    "keep",
    "ranks",
    "exchange",
    "storage_gbs",
    "interconnect_gbs",
    "tour",
    "stored",
    "validate_every",
    "tail",
    "tail_every",
    "hops",
)
"""Of `Params`, what no factory is told: it is the same for the models of one soup, or of the
training alone."""


@dataclass(frozen=True)
class Params:
    """The `[train]` section, every "auto" resolved, and how the reader normalises.

    Attributes
    ----------
    index : number of the ingredient: its batch order and dropout are drawn from seed + index, its
        start from seed.
    device : "cpu", "cuda" or "cuda:N".
    normalization, mass, self_loops : `[graph]` for gcn and a factory's model; "none", "none", False
        for models that read no values, but `self_loops` for gat.
    heads : attention heads of gat, handed to a factory; 0 for models without.
    source_digest : of the source file of a factory's module.
    warmup : the first epochs, trained once for all ingredients by stage `warmup`.
    ema : share of the averaged weights that a step keeps; 0: the weights are not averaged.
    norm : inside gin's convolutions: "batch"; nothing for other models.
    precision : of a training step's dense products: "fp32" or "bf16".
    keep : whose weights the model has: of the "best" epoch on validation or, no early stop, of the
        "last".
    holdout : share of the validation outputs that early stop does not look at: they are for
        souping.
    ranks : processes that train the model together.
    exchange : how: "cooperative", each reads and computes the rows it owns of every step;
        "independent", all rows of its own outputs; "auto", what
        `stockpot.stages.exchange.cost_model` predicts to be faster.
    storage_gbs, interconnect_gbs : GB/s of a rank, for that prediction; an interconnect of 0 is
        that of the device.
    stored : hops of the propagated features whose last one stands for the first layer: it is
        exactly that layer's aggregation, so that layer reads no edge. 0: all layers do.
    hops : of the propagated features, of sgc and sign, whose steps read no edge; `layers` is what
        `stockpot.stages.row_sizes` calls the head then. 0: other models.
    tour : how epochs walk the tour of an order that has one: "drawn", each from a record of its own
        and in a direction of its own; "fixed", all alike: as a load plan has it.
    tail, tail_every : models kept of the last epochs of this one training, and epochs from one to
        the next, the last epoch's being the last. 0: one model, as `keep` says.
    validate_every : epochs from one validation to the next; the last epoch has one in any case.
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
    keep: str = added("best")
    stored: int = added(0)
    tour: str = added("fixed")
    hops: int = added(0)
    validate_every: int = added(1)
    tail: int = added(0)
    tail_every: int = added(0)

    @property
    def tail_epochs(self) -> tuple[int, ...]:
        """Epochs, from 0, whose weights are kept as ingredients, ascending; none without a tail."""
        last = self.epochs - 1
        return tuple(last - self.tail_every * i for i in reversed(range(self.tail)))


def resolve(recipe: Mapping[str, Any], facts: Mapping[str, Facts]) -> Params:
    """Parameters of ingredient `index`, its own learning rate, weight decay and dropout among
    them.
    """
    get = {name.removeprefix("train."): value for name, value in recipe.items()}
    model, ranks = str(get["model"]), int(get["ranks"])
    own = ":" in model
    if model not in NAMES and not own:
        raise BadInput(
            f"train.model: expected {', '.join(NAMES)} or package.module:factory, found {model!r}",
            fix="--set train.model=gcn",
        )
    if ranks > 1 and model not in SHARED:
        why = (
            "its batch norm needs all rows of a step"
            if model == "gin"
            else "what it computes of a row is not known"
        )
        raise BadInput(
            f"train.ranks: {ranks} ranks train {', '.join(SHARED)} together, found {model}: {why}",
            fix="--set train.ranks=1",
        )
    if get["warmup"] >= (least := EPOCHS if get["epochs"] == "auto" else get["epochs"]):
        raise BadInput(
            f"train.warmup: expected fewer than train.epochs ({least}), found {get['warmup']}",
            fix=f"--set train.warmup={least // 2}",
        )
    whole = get["ingredients"] == "tail"
    if whole and least - get["warmup"] < 2:
        raise BadInput(
            f"train.ingredients: a tail is two epochs at least, after those of the warm-up, found "
            f"train.epochs {least} and train.warmup {get['warmup']}",
            fix=f"--set train.epochs={get['warmup'] + 2}",
        )
    stored = stored_hops(model, int(get["layers"]), recipe, facts.get("train", {}))
    hops = row_hops(model, facts.get("train", {}))
    sampling = facts.get("train", {}).get("sampling")
    needed = 0 if hops else int(get["layers"]) - (stored > 0)
    if sampling is not None and len(fanouts := sampling["fanouts"]) < needed:
        raise BadInput(
            f"batches.fanouts: expected {needed}, one for each layer of the model"
            f"{' that reads edges' if stored else ''}, found {list(fanouts)}",
            fix=f"--set train.layers={len(fanouts) + (stored > 0)}",
        )
    hidden, heads = int(get["hidden"]), int(get["heads"])
    if model == "gat" and hidden % heads:
        raise BadInput(
            f"train.hidden: expected a multiple of train.heads ({heads}), its heads side by side, "
            f"found {hidden}",
            fix=f"--set train.hidden={-(-hidden // heads) * heads}",
        )
    if model == "sgc":  # one linear map
        get |= {"layers": 1, "hidden": 0, "dropout": 0.0}
        hidden = 0
    index, seed = int(recipe["index"]), int(get["seed"])
    by = {
        name: factor(float(get["vary"]), seed, index, name)
        for name in ("lr", "weight_decay", "dropout")
    }
    holdout, device = (
        checked_holdout(float(recipe["soup.holdout"])),
        resolved_device(str(get["device"]), ranks),
    )
    digest = source_digest(model) if own else ""
    steps = (
        steps_of(facts["train"], int(get["per_step"]))
        if "auto" in (get["epochs"], get["patience"])
        else 1
    )
    epochs = max(EPOCHS, -(-STEPS // steps)) if get["epochs"] == "auto" else int(get["epochs"])
    patience = (
        max(PATIENCE, -(-WAIT // steps)) if get["patience"] == "auto" else int(get["patience"])
    )
    tail, tail_every = tail_of(epochs, int(get["warmup"])) if whole else (0, 0)
    normalised = (
        own or model == "gcn"
    )  # a mean divides by the neighbours it has: nothing of [graph] changes it
    return Params(
        model=model,
        per_step=int(get["per_step"]),
        layers=int(get["layers"]),
        hidden=hidden,
        dropout=_rounded(float(get["dropout"]), varied_odds(float(get["dropout"]), by["dropout"])),
        lr=_rounded(float(get["lr"]), float(get["lr"]) * by["lr"]),
        weight_decay=_rounded(
            float(get["weight_decay"]), float(get["weight_decay"]) * by["weight_decay"]
        ),
        schedule=str(get["schedule"]),
        epochs=epochs,
        patience=patience,
        seed=seed,
        index=index,
        device=device,
        normalization=str(recipe["graph.normalization"]) if normalised else "none",
        mass=resolved_mass(str(recipe["graph.mass"]), facts.get("sizing"))
        if normalised
        else "none",
        self_loops=bool(recipe["graph.self_loops"]) if normalised or model == "gat" else False,
        heads=heads if own or model == "gat" else 0,
        source_digest=digest,
        warmup=int(get["warmup"]),
        ema=float(get["ema"]),
        norm="batch" if model == "gin" else "",
        precision=resolved_precision(str(get["precision"]), facts),
        holdout=holdout,
        keep="last" if whole else str(get["keep"]),
        stored=stored,
        ranks=ranks,
        **_shared(get, ranks),
        tour=_tour(facts),
        validate_every=validate_every(
            get["validate"], facts, epochs - int(get["warmup"]), patience
        ),
        tail=tail,
        tail_every=tail_every,
        hops=hops,
    )


def row_hops(model: str, packed: Facts) -> int:
    """Hops of the features that a model of rows reads; 0 for a model that reads edges.

    Raises
    ------
    BadInput
        The features are not multiplied, or the model reads edges and the records have none.
    """
    if model not in ROW_MODELS:
        if packed.get("edgeless"):
            raise BadInput(
                f"batches.method: its records have no edges, and train.model {model!r} reads some: "
                f"expected a method other than propagate, or {' or '.join(ROW_MODELS)}",
                fix="--set batches.method=node, or --set train.model=sign",
            )
        return 0
    products = packed.get("propagated")
    if products is None:
        raise BadInput(
            f"features.propagate: train.model {model!r} reads features that are multiplied by the "
            f"graph's matrix: expected 1 hop or more, found 0",
            fix="--set features.propagate=3",
        )
    return int(products["hops"])


def stored_hops(model: str, layers: int, recipe: Mapping[str, Any], packed: Facts) -> int:
    """Hops of the propagated features where the last of them is what the first layer of the model
    would compute: same matrix, and nothing random before it. 0 where it is not, as where PageRank
    mixes the features into each product, or where that layer is the only one.
    """
    found = packed.get("propagated")
    if found is None or layers < 2 or found.get("alpha"):
        return 0
    own: dict[str, Any] = {"adj": "mean"} if model == "sage" else {}
    if model == "gcn":
        own = {
            "adj": "norm",
            "normalization": str(recipe["graph.normalization"]),
            "self_loops": bool(recipe["graph.self_loops"]),
        }
    same = own and all(found[name] == value for name, value in own.items())
    return int(found["hops"]) if same else 0


def steps_of(packed: Facts, per_step: int) -> int:
    """Training steps of an epoch over a packed split."""
    return -(-int(packed["records"]) // (int(packed.get("rounds", 1)) * per_step))


def validate_every(
    asked: float | str, facts: Mapping[str, Facts], epochs: int, patience: int
) -> int:
    """Epochs from one validation to the next, so that validation is at most the share `asked` of
    all rows that go through a training step or an evaluation. 1 where every epoch's fits.

    Every validation is of all records, so an epoch is picked by what is reported of it. "auto" is
    `VALIDATE`, but keeps `PER_PATIENCE` validations within the patience and `PER_TRAINING` in
    `epochs`.
    """
    if "valid" not in facts or asked == 1:
        return 1
    trained, validated = (
        facts[split]["rows"] / int(facts[split].get("rounds", 1)) for split in ("train", "valid")
    )
    share = VALIDATE if asked == "auto" else float(asked)
    every = math.ceil(validated * (1 - share) / (share * max(1.0, trained)))
    if asked == "auto":
        every = min(every, patience // PER_PATIENCE, epochs // PER_TRAINING)
    return max(1, min(every, epochs))


def tail_of(epochs: int, warmup: int) -> tuple[int, int]:
    """Models of a tail and epochs from one to the next, of a training of `epochs`, those of a
    warm-up among them.

    >>> tail_of(20, 0), tail_of(44, 0), tail_of(20, 18)
    ((7, 2), (6, 5), (2, 1))
    """
    long = max(2, min(epochs - warmup, math.floor(TAIL * epochs)))
    every = -(-long // TAIL_MODELS)
    return long // every, every


def resolved_precision(asked: str, facts: Mapping[str, Facts]) -> str:
    """`train.precision`: "auto" is what stage `calibrate` measured to be faster."""
    return str(facts["calibrate"]["precision"]) if asked == "auto" else asked


def resolved_mass(asked: str, sizing: Facts | None) -> str:
    """`graph.mass`: "auto" is what stage `sizing` found, "none" where records are of a kind that it
    does not size.
    """
    if asked != "auto":
        return asked
    return "none" if sizing is None else str(sizing["mass"])


def _tour(facts: Mapping[str, Facts]) -> str:
    """Whether an epoch's way along the tour is its own; "fixed" also where the order has no
    tour.
    """
    return (
        "drawn"
        if "order" in facts and walks_tour(facts["order"]) and "loads" not in facts
        else "fixed"
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
    """`asked` untouched where it is not varied, else to four digits, so that what was trained can
    be read and typed.
    """
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
            f"soup.holdout: expected a share of the validation split, 0 or more and below 1, found "
            f"{share:g}",
            fix="--set soup.holdout=0.5",
        )
    return share


def widest(params: Params) -> int:
    """Columns of the widest hidden layer."""
    return params.hidden * (params.hops + 1)


def model_config(params: Params, packed: Facts) -> dict[str, Any]:
    """For `build_model`: what the model is made of, and for a factory all of `[train]` but the
    ingredient's number.
    """
    config: dict[str, Any] = {
        "model": params.model,
        "num_features": int(packed["num_features"]),
        "num_classes": int(packed["num_classes"]),
        "hidden": params.hidden,
        "layers": params.layers - (params.stored > 0),
        "dropout": params.dropout,
        "normalization": params.normalization,
        "mass": params.mass,
        "self_loops": params.self_loops,
    }
    if params.heads:
        config["heads"] = params.heads
    if params.stored:
        config["stored"] = params.stored
    if params.hops:
        config |= {"layers": 0, "head": params.layers, "hops": params.hops}
    if params.model not in NAMES:
        config |= {
            name: value
            for name, value in asdict(params).items()
            if name not in {*config, *_NOT_MODEL}
        }
    return config
