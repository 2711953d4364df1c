"""Every recipe key stands here once: its default, its type, its unit and the reason for it."""

# ruff: noqa: RUF009 - `key` makes a frozen field; nothing mutable is shared

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal

from stockpot.planning.recipe_range import Range, shown
from stockpot.stages.codec.names import MOST_STAGES
from stockpot.stages.partition.blocks import BLOCKS
from stockpot.stages.units import MOST_BYTES

__all__ = ["MOST_LIST", "SECTIONS", "Key", "keys", "section_types"]

SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, below=True)
INSIDE = Range(0, 1, above=True, below=True)
SEED = Range(0, 2**63 - 1)
MANY = Range(1, 10**6)
"""Numbers of neighbours, clusters, epochs: far above any use, far below what would never end."""
MOST_LIST = 64
"""Entries of the longest list a key takes."""

Auto = Literal["auto"]
Souping = Literal["auto", "best", "uniform", "greedy", "gis", "learned", "signed", "grid", "published", "partition"]


def key(default: Any, about: str, within: Range | None = None, *, mend: str = "") -> Any:
    """Field with its unit and reason, which `stockpot recipe --defaults` prints, and the numbers it takes.

    Parameters
    ----------
    within : range of a number, and of every number of a list; every key that takes numbers has one.
    mend : what an error says to do; empty: to take the default.
    """
    return field(default=default, metadata={"about": about, "within": within, "mend": mend})


@dataclass(frozen=True)
class Split:
    train: float = key(0.5, "share of the labelled nodes; used only where the dataset brings no split", INSIDE)
    valid: float = key(0.25, "share of the labelled nodes; the rest is test", INSIDE)
    seed: int = key(0, "seed of the split", SEED)


@dataclass(frozen=True)
class Dataset:
    source: str = key(
        "wordnet",
        "wordnet | npz: | files: | ogb: | pyg: | synthetic: ...; enters keys by its content",
        mend="--set dataset.source=npz:PATH, or another source that stockpot recipe --defaults names",
    )
    split: Split = key(Split(), "used only where the dataset brings none")
    split_index: int = key(0, "which of several published splits", Range(0, 10**6))


@dataclass(frozen=True)
class Graph:
    undirected: bool = key(True, "add the reverse of every edge; false keeps directions (and their transpose)")
    self_loops: bool = key(True, "every node also sees itself when values are normalised")
    normalization: Literal["sym", "rw", "none"] = key("sym", "sym | rw | none; applied by the reader, never stored")
    mass: Literal["auto", "none", "row"] = key(
        "auto", "none | row: correct rows for neighbours outside the record | auto: where records hold too few of them"
    )


@dataclass(frozen=True)
class Features:
    reduce: int = key(
        0, "dimensions; > 0: seeded truncated SVD in ingest, dense and much smaller; 0 keeps them", Range(0, 2**16)
    )
    codec: str = key(
        "auto",
        "auto | fp32 | fp16 | lossless | sqK (bits a column) | pqM opqM rqM (bytes a row) | bifeat-sqK | bifeat-vqW-K",
    )
    lossless_up_to: int | str = key(
        "2GB",
        'bytes of fp32 features, as "2GB" or a number, up to which codec = "auto" keeps them without loss',
        Range(0, MOST_BYTES),
    )
    max_accuracy_drop: float = key(
        0.002, "share of accuracy a codec chosen by auto may cost, as far as valid can tell", SHARE
    )
    tier_share: float = key(
        0.0, "share of the nodes, the most exposed (outputs, and hubs they read), whose codes get further stages", SHARE
    )
    tier_bytes: int = key(
        8, "bytes a row of these further stages, a residual code of what the codec leaves", Range(1, MOST_STAGES)
    )
    layout: Literal["auto", "packed", "gather"] = key(
        "auto", "packed: codes beside every row of a record | gather: once, read by node | auto: by their bytes"
    )


@dataclass(frozen=True)
class Partition:
    method: Literal["auto", "metis", "kaminpar", "stream"] = key(
        "auto", "auto | metis | kaminpar | stream (bounded memory); auto by edges: metis, from a million on kaminpar"
    )
    parts: int | Auto = key(
        "auto", "number of parts; auto from the number of nodes; ranks own whole blocks of them", Range(1, 10**7)
    )


@dataclass(frozen=True)
class Batches:
    method: Literal["node", "batch", "cluster", "random", "neighbor", "labor"] = key(
        "node",
        "node: PageRank of every output | batch: of parts | cluster, random: baselines | neighbor, labor: sampled",
    )
    alpha: float = key(0.25, "probability that a walk goes home: larger stays nearer", Range(0.001, 1, below=True))
    eps: float = key(
        2e-4,
        "PageRank mass per unit of degree left unpushed: smaller is more exact and slower",
        Range(1e-12, 1, below=True),
    )
    top_k: int | Literal["auto", "all"] = key(
        "auto",
        "nodes; most influential neighbours kept for every output | all | auto: what holds enough, as measured",
        MANY,
    )
    outputs: int | Auto = key(
        "auto",
        "most outputs in a record; auto: a few dozen records a split, fewer where these hold too little",
        Range(1, 2**31 - 1),
    )
    mix: int | Auto = key("auto", "influence clusters mixed into one record; more costs rows and gains accuracy", MANY)
    rounds: int = key(
        1, "sets of training batches, used in turn by epoch; each costs the bytes of one", Range(1, 10_000)
    )
    aux_ratio: float = key(
        3.0, "batch: nodes kept for a part, as a multiple of the mean size of a part", Range(0, 10**6, above=True)
    )
    aux_mass: float = key(
        0.0, "batch: > 0: instead, the fewest nodes that hold this share of a part's PageRank mass", SHARE
    )
    orientation: Literal["transpose", "reference"] = key(
        "transpose", "batch: transpose: mass that reaches a node from the part | reference: the published code's D^-1 A"
    )
    fanouts: tuple[int, ...] = key(
        (10, 10, 10),
        "sampled: neighbours of a node, a layer each from the outputs; -1: all",
        Range(1, 10**6, also=((-1, "all"),)),
    )
    kappa: int | Literal["inf"] = key(
        1, "sampled: batches over which random numbers drift to new ones; 1: independent | inf: fixed neighbours", MANY
    )
    importance_sampling: int = key(
        0,
        "labor: updates of the importances, fewer nodes each; -1: until it pays no more",
        Range(0, 1000, also=((-1, "as many as pay"),)),
    )
    layer_dependency: bool = key(default=False, about="sampled: all layers share their random numbers: fewer nodes")
    seeds: Literal["random", "community"] = key(
        "random", "sampled: outputs of a record drawn evenly | community: neighbours in the partition, far fewer rows"
    )


@dataclass(frozen=True)
class Order:
    method: Literal["label", "sample", "overlap", "shuffle"] = key(
        "label",
        "label: consecutive steps differ most in labels | sample: drawn by distance | overlap: share rows | shuffle",
    )
    window: int = key(
        2,
        "overlap: records that stay together where an epoch shuffles; more learn worse; 0: all, no shuffling",
        Range(0, 10**9),
    )
    mix: int = key(
        1, "overlap: windows walked side by side, a record of each in turn: steps of as many records are mixed", MANY
    )
    cache: float | str = key(
        0.0, 'load plan: rows cached, as a share of all nodes ("10%"), as rows (> 1) or bytes ("2GB")', Range(0, 10**12)
    )


@dataclass(frozen=True)
class Hag:
    enabled: Literal["auto", "always", "never"] | bool = key(
        "auto", "auto | always | never: share partial sums in records; auto where it is predicted to gain 1.2 x"
    )
    capacity: int | float | Auto = key(
        "auto", "most shared sums, as a share of a record's nodes; auto: all that pay", Range(0, 1000)
    )


@dataclass(frozen=True)
class Train:
    model: str = key("gcn", "gcn | sage | gat | gin | sage-lstm | package.module:factory, a model of your own")
    per_step: int = key(1, "records joined per training step: fewer, larger steps", MANY)
    layers: int = key(3, "message passing layers; records hold every hop they reach, whatever this is", Range(1, 1000))
    hidden: int = key(256, "width of the hidden layers; of gat, all its heads together", Range(1, 2**16))
    heads: int = key(4, "attention heads of gat, side by side in hidden layers, their mean in the last", Range(1, 1024))
    dropout: float = key(0.5, "share of hidden values dropped while training", BELOW_ONE)
    lr: float = key(1e-3, "Adam's learning rate", Range(1e-12, 1000))
    weight_decay: float = key(0.0, "L2 penalty of Adam", Range(0, 1000))
    schedule: Literal["plateau", "cosine", "constant"] = key("plateau", "plateau | cosine | constant learning rate")
    epochs: int | Auto = key("auto", "most epochs; auto: 200, more where these are fewer than 1,500 steps", MANY)
    keep: Literal["best", "last"] = key(
        "best", "best: weights of the best epoch on validation | last: of the last one; validation is for soups alone"
    )
    patience: int | Auto = key(
        "auto",
        "epochs without a better validation accuracy before training stops; auto: 30, and at least 150 steps",
        Range(1, 10**9),
    )
    ingredients: int = key(8, "models trained from one shared start, to be souped", Range(1, 1000))
    warmup: int = key(
        0,
        "epochs: the first of `epochs`, trained once for all ingredients, which then go their own ways",
        Range(0, 10**6),
    )
    vary: float = key(
        1.0, "largest factor on lr, weight_decay and the odds of dropout of all ingredients but the first", Range(1, 10)
    )
    ema: float = key(
        0.0, "share of the averaged weights a step keeps, e.g. 0.99; > 0: ingredients are such averages", BELOW_ONE
    )
    precision: Literal["fp32", "bf16"] = key("fp32", "fp32 | bf16: dense products of a training step in bfloat16")
    seed: int = key(0, "seed of the shared start; ingredient i draws its batches and dropout from seed + i", SEED)
    device: str = key("auto", "auto | cpu | cuda | cuda:N; auto is cuda where there is one")
    ranks: int = key(1, "processes that train one model together", Range(1, BLOCKS))
    exchange: Literal["auto", "cooperative", "independent"] = key(
        "auto", "cooperative: ranks send each other rows | independent: read all they need | auto: what takes less time"
    )
    storage_gbs: float = key(1.0, "GB/s that a rank reads from the store, for auto", Range(0, 10**6, above=True))
    interconnect_gbs: float = key(
        0.0, "GB/s that a rank sends to others, for auto; 0: 1 on CPUs, 50 on GPUs", Range(0, 10**6)
    )


@dataclass(frozen=True)
class Soup:
    method: Souping = key(
        "auto",
        "auto: best | uniform | greedy | gis | learned | signed, as validation says; grid | published | partition",
    )
    holdout: float = key(0.0, "share of valid kept from training's early stop for souping", BELOW_ONE)
    epochs: int | Auto = key("auto", "published, partition: steps of SGD; auto: 25, 50", MANY)
    rate: float | Auto = key(
        "auto",
        "published, partition: its first rate; auto: 10, 1; their authors tuned both",
        Range(0, 10**6, above=True),
    )
    period: int = key(4, "published, partition: epochs from one warm restart of the rate to the next", MANY)
    parts: int = key(32, "partition: K, parts of the validation records by METIS, equal in labelled outputs", MANY)
    drawn: int = key(4, "partition: R, parts that a step sees", MANY)


@dataclass(frozen=True)
class Infer:
    split: str = key("test", "test | all | a file of node ids (.npy or text)")
    top_k: int = key(0, "nodes kept for every output; 0: as in batches", Range(0, 10**6))
    full_graph: bool = key(True, "also exact inference on the whole graph, to compare with")


@dataclass(frozen=True)
class Resources:
    memory: int | str = key(
        "auto",
        'all tasks together, as "2GB" or bytes; auto: 80 % of what is free now, on a cluster what a worker may use',
        Range(1, MOST_BYTES),
    )
    workers: int | Auto = key(
        "auto", "processes; auto: cores, as far as the memory budget carries; all of a cluster", Range(1, 4096)
    )
    scheduler: str = key(
        "local",
        "local: processes of this machine | tcp://HOST:PORT of a Dask scheduler elsewhere, tls:// where it encrypts",
    )


SECTIONS: dict[str, type] = {
    "dataset": Dataset,
    "graph": Graph,
    "features": Features,
    "partition": Partition,
    "batches": Batches,
    "order": Order,
    "hag": Hag,
    "train": Train,
    "soup": Soup,
    "infer": Infer,
    "resources": Resources,
}


@dataclass(frozen=True)
class Key:
    """One recipe key: dotted name, type, default, unit and reason, the numbers it takes, and what mends a wrong one."""

    name: str
    type: Any
    default: Any
    about: str
    within: Range | None = None
    mend: str = ""

    @property
    def expected(self) -> str:
        """The type in words, as error messages say it."""
        return _words(self.type, "")

    @property
    def range(self) -> str:
        """Type and range in words, as messages about a value out of it say them."""
        return _words(self.type, "" if self.within is None else f" {self.within.words}")

    @property
    def line(self) -> str:
        """Unit, reason and range, as `stockpot recipe --defaults` prints them."""
        return self.about if self.within is None else f"{self.about}; {self.within.words}"

    @property
    def fix(self) -> str:
        """What to do where it has a value that it does not take."""
        value = shown(self.default).replace(" ", "").replace('"', "")
        return self.mend or f"--set {self.name}={value}, the default, or another value that it takes"


def _words(kind: Any, within: str) -> str:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in typing.get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(part, within) for part in typing.get_args(kind))
    if origin is tuple:
        return f"a list of {f'1 to {MOST_LIST} integers, each{within}' if within else 'integers'}"
    names = {int: f"an integer{within}", float: f"a number{within}", str: "a string", bool: "true or false"}
    return names.get(kind, "a table")


def section_types(cls: type) -> dict[str, Any]:
    """Field name -> evaluated type of a section's dataclass."""
    return typing.get_type_hints(cls)


@cache
def keys() -> dict[str, Key]:
    """All leaf keys by dotted name, in the order of the recipe."""
    found: dict[str, Key] = {}

    def walk(cls: type, prefix: str) -> None:
        hints = section_types(cls)
        for item in fields(cls):
            name = f"{prefix}.{item.name}"
            if is_dataclass(item.default):
                walk(type(item.default), name)
            else:
                found[name] = Key(name, hints[item.name], item.default, **item.metadata)

    for section, cls in SECTIONS.items():
        walk(cls, section)
    return found
