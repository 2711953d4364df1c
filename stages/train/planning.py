"""What train takes from a recipe: section `train`, a node for each ingredient, and the size of a
model.
"""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stockpot.stages.guess import Guess, Known
from stockpot.stages.node import node
from stockpot.stages.partition.blocks import BLOCKS
from stockpot.stages.recipe_key import BELOW_ONE, MANY, SEED, Auto, key
from stockpot.stages.stage import Planning
from stockpot.stages.train.train_params import EPOCHS, Params, widest
from stockpot.stages.train.training_cost import edge_floats, parameter_bytes
from stockpot.stages.value_range import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.node import Node, Nodes, Values

__all__ = ["PLANNING", "advised", "ingredients", "trainings"]


@dataclass(frozen=True)
class Train:
    model: str = key(
        "gcn",
        "gcn | sage | gat | gin | sage-lstm | sgc, sign: of rows alone, with features.propagate | "
        "package.module:factory, a model of your own",
    )
    per_step: int = key(1, "records joined per training step: fewer, larger steps", MANY)
    layers: int = key(
        3,
        "message passing layers; of sign, linear layers after those of the hops; records hold "
        "every hop they reach",
        Range(1, 1000),
    )
    hidden: int = key(
        256, "width of the hidden layers; of gat, all its heads together", Range(1, 2**16)
    )
    heads: int = key(
        4,
        "attention heads of gat, side by side in hidden layers, their mean in the last",
        Range(1, 1024),
    )
    dropout: float = key(0.5, "share of hidden values dropped while training", BELOW_ONE)
    lr: float = key(1e-3, "Adam's learning rate", Range(1e-12, 1000))
    weight_decay: float = key(0.0, "L2 penalty of Adam", Range(0, 1000))
    schedule: Literal["plateau", "cosine", "constant"] = key(
        "plateau", "plateau | cosine | constant learning rate"
    )
    epochs: int | Auto = key(
        "auto", "most epochs; auto: 200, more where these are fewer than 1,500 steps", MANY
    )
    keep: Literal["best", "last"] = key(
        "best",
        "best: weights of the best epoch on validation | last: of the last one; validation is for "
        "soups alone",
    )
    patience: int | Auto = key(
        "auto",
        "epochs without a better validation accuracy before training stops; auto: 30, and at least "
        "150 steps",
        Range(1, 10**9),
    )
    ingredients: int | Literal["tail"] = key(
        8,
        "models trained from one shared start, to be souped | tail: of the last epochs of one "
        "training, which runs them all: no early stop, no keep",
        Range(1, 1000),
    )
    warmup: int = key(
        0,
        "epochs: the first of `epochs`, trained once for all ingredients, which then go their own "
        "ways",
        Range(0, 10**6),
    )
    vary: float = key(
        1.0,
        "largest factor on lr, weight_decay and the odds of dropout of all ingredients but the "
        "first",
        Range(1, 10),
    )
    ema: float = key(
        0.0,
        "share of the averaged weights a step keeps, e.g. 0.99; > 0: ingredients are such averages",
        BELOW_ONE,
    )
    precision: Literal["fp32", "bf16", "auto"] = key(
        "fp32",
        "fp32 | bf16: dense products of a training step in bfloat16 | auto: the faster one, "
        "measured once for all that share the store",
    )
    validate: float | Auto = key(
        "auto",
        "share of the row-passes spent on validation, of all records every few epochs; 1: every "
        "epoch; auto: 0.5, and at least 5 validations within the patience, 10 in a training",
        Range(0, 1, above=True),
    )
    seed: int = key(
        0,
        "seed of the shared start; ingredient i draws its batches and dropout from seed + i",
        SEED,
    )
    device: str = key("auto", "auto | cpu | cuda | cuda:N; auto is cuda where there is one")
    ranks: int = key(1, "processes that train one model together", Range(1, BLOCKS))
    exchange: Literal["auto", "cooperative", "independent"] = key(
        "auto",
        "cooperative: ranks send each other rows | independent: read all they need | auto: what "
        "takes less time",
    )
    storage_gbs: float = key(
        1.0, "GB/s that a rank reads from the store, for auto", Range(0, 10**6, above=True)
    )
    interconnect_gbs: float = key(
        0.0, "GB/s that a rank sends to others, for auto; 0: 1 on CPUs, 50 on GPUs", Range(0, 10**6)
    )


def trained_on(made: Nodes) -> dict[str, str]:
    """Inputs of every training: packed records, their order, and what a load plan or ranks need."""
    more = {
        role: name
        for role, name in (("loads", "loadplan"), ("exchange", "exchange"))
        if name in made
    }
    return {"train": "pack:train", "valid": "pack:valid", "order": "order", **more}


def advised(made: Nodes) -> dict[str, str]:
    """Advice to every training: what "auto" of sizes and of the precision is."""
    return {name: name for name in ("sizing", "calibrate") if name in made}


def ingredients(values: Values) -> dict[str, str]:
    """Role -> node of every training, as whoever reads all ingredients names them."""
    return {f"ingredient:{i}": f"train:{i}" for i in range(trainings(values))}


def trainings(values: Values) -> int:
    """Trainings of a recipe: one for each ingredient, or one whose tail they are."""
    asked = values["train.ingredients"]
    return 1 if asked == "tail" else int(asked)


def _nodes(values: Values, made: Nodes) -> Iterator[Node]:
    start = {"start": "warmup"} if "warmup" in made else {}
    for i in range(trainings(values)):
        yield node(f"train:{i}", {**trained_on(made), **start}, advised(made), index=i)


def guess(known: Known) -> Guess | None:
    """Of a model, ingredient or warm-up: its parameters and what its steps hold."""
    packed = known.facts["train"]
    hidden, layers = int(known.values["train.hidden"]), int(known.values["train.layers"])
    widths = [packed["num_features"], *[hidden] * max(0, layers - 1), packed["num_classes"]]
    weights = sum(2 * (a + 3) * b for a, b in itertools.pairwise(widths))
    if isinstance(known.params, Params) and known.params.hops:
        hidden = widest(known.params)
        weights = parameter_bytes(known.params, packed) // 4
    return Guess(
        {
            "seed": int(known.values["train.seed"]) + int(known.values.get("index", 0)),
            "epochs": known.param("epochs", EPOCHS),
            "best_epoch": 0,
            "valid_accuracy": 0.0,
            "valid_loss": 0.0,
            "layers": layers,
            "hidden": hidden,
            "num_parameters": weights,
            "init_digest": "",
            "edge_floats": edge_floats(known.params, packed)
            if isinstance(known.params, Params)
            else 0,
            "sequential": isinstance(known.params, Params) and known.params.model == "sage-lstm",
            **(
                {"models": [{"epoch": epoch} for epoch in known.params.tail_epochs]}
                if isinstance(known.params, Params) and known.params.tail
                else {}
            ),
        }
    )


PLANNING = Planning(_nodes, {"train": Train}, guess)
