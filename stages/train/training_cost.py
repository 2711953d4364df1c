"""What a training is projected to read, write and hold, from facts alone."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stockpot.stages.exchange.cost_model import Rates, choice, predicted
from stockpot.stages.hag.planning import kept_bytes
from stockpot.stages.row_sizes import ROW_MODELS, linear_layers
from stockpot.stages.stage import Cost, Facts
from stockpot.stages.train.train_params import NAMES, Params, model_config, widest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PREFETCH",
    "TORCH_BYTES",
    "cost",
    "edge_floats",
    "parameter_bytes",
    "shared_how",
    "step_bytes",
]

TORCH_BYTES = 320 << 20  # torch, numba and their libraries in one process
PREFETCH = 2
"""Steps made ahead."""


def edge_floats(params: Params, facts: Facts) -> int:
    """4-byte values a layer holds for every edge: attention by head; messages and ids for a
    factory's model.
    """
    if (
        params.model == "sage-lstm"
    ):  # gates, their sum with the state's, their values, cells and states
        return 16 * max(int(facts["num_features"]), params.hidden)
    if params.model in NAMES:
        return params.heads
    return 3 * max(int(facts["num_features"]), params.hidden) // 2 + 8


def step_bytes(
    hidden: int, facts: Facts, *, per_step: int = 1, layers: int = 0, edge_floats: int = 0
) -> int:
    """Bytes of steps being loaded and of the activations on one, from the facts of a packed split.

    `layers` is 0 where nothing is kept for a backward pass.
    """
    rows, edges = per_step * int(facts["max_rows"]), per_step * int(facts["max_edges"])
    features, classes = int(facts["num_features"]), int(facts["num_classes"])
    # Features and ids; two CSR of i4 ids and f4 values, and the places of the entries where
    # attention is transposed.
    loaded = rows * (4 * features + 40) + (16 + 4 * bool(edge_floats)) * (edges + rows)
    # A layer keeps its aggregated input and what LayerNorm, ReLU and dropout remember; backward
    # holds two more.
    widths = max(features, hidden) * (6 * layers or 4) + classes * 4
    activations = 4 * rows * widths
    if edge_floats:
        # What a layer holds by edge, and a gradient of the same size; the heads of the last layer
        # stand side by side.
        activations += (
            4 * (edges + rows) * edge_floats * (layers + 2) + 12 * rows * classes * edge_floats
        )
    # In flight: one in use, those ready and one at work.
    return (2 + PREFETCH) * loaded + activations


def parameter_bytes(params: Params, facts: Facts) -> int:
    if params.model in ROW_MODELS:
        layers = linear_layers(model_config(params, facts))
        return 4 * sum(count * (a * b + b + 2 * a) for count, a, b in layers)
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
        step_bytes(
            widest(params),
            train,
            per_step=params.per_step,
            layers=params.layers,
            edge_floats=floats,
        ),
        step_bytes(widest(params), valid, edge_floats=floats),
    )
    weights = parameter_bytes(params, train)
    # Weights, gradients, two moments, the best weights, and one copy of all in a checkpoint being
    # written; the average.
    # Models of a tail, with their copies in a checkpoint being written.
    copies = 12 + 4 * bool(params.ema) + 3 * params.tail
    peak = TORCH_BYTES + step + copies * weights
    if params.ranks > 1:
        # A process for every rank; what they receive comes on top of what they own, at worst every
        # row for every rank.
        peak = params.ranks * (TORCH_BYTES + step + copies * weights)
    peak += params.ranks * sum(kept_bytes(split, params.layers) for split in (train, valid))
    peak += int(facts["loads"]["cache_bytes"]) if "loads" in facts else 0
    trained, validated = (
        int(split["bytes"]) + int(split.get("gather_bytes", 0)) for split in (train, valid)
    )
    epochs = params.epochs - params.warmup
    read = epochs * trained + -(-epochs // params.validate_every) * validated
    written = max(1, params.tail) * weights
    if params.ranks == 1 or "exchange" not in facts:
        return Cost(read, written, peak)
    return Cost(read, written, peak, note=shared_how(params, facts["exchange"], train)["why"])


def shared_how(params: Params, exchange: Facts, packed: Facts) -> dict[str, Any]:
    """How ranks train together, why, and what was predicted; see
    `stockpot.stages.exchange.cost_model.choice`.
    """
    config, bf16 = model_config(params, packed), params.precision == "bf16"
    found = predicted(exchange, packed, config, params.per_step, params.device, bf16=bf16)
    rates = Rates.of(params.storage_gbs, params.interconnect_gbs, params.device)
    return choice(params.exchange, found, rates, params.ranks, params.per_step)
