"""Facts of artifacts not built yet, from counts alone, so that what cannot fit is refused before anything runs.

Every estimate errs on the large side. Facts that are exact are marked: an error they lead to is the user's, now.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.format import EXACT, describe
from stockpot.stages.codec.names import parse
from stockpot.stages.influence.batch_params import TOP_K, most_outputs
from stockpot.stages.partition.blocks import num_blocks
from stockpot.stages.sample.sampling_params import Params as SampleParams
from stockpot.stages.sample.stage import reach
from stockpot.stages.train.cost import edge_floats
from stockpot.stages.train.train_params import EPOCHS
from stockpot.stages.train.train_params import Params as TrainParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Guess", "estimate"]

_REPLICATION = 6.0
_LARGEST = 1.5  # largest record against the mean


class Guess(dict[str, Any]):
    """Facts of which only `sure` are exact; `touched` tells whether anything else was read."""

    def __init__(self, values: Mapping[str, Any], sure: frozenset[str] | set[str] = frozenset()) -> None:
        super().__init__(values)
        self.sure = frozenset(sure)
        self.touched = False

    def __getitem__(self, name: str) -> Any:
        self.touched |= name not in self.sure
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.touched |= name not in self.sure
        return super().get(name, default)

    def items(self) -> Any:
        self.touched = True
        return super().items()

    def values(self) -> Any:
        self.touched = True
        return super().values()


def estimate(
    stage: str, values: Mapping[str, Any], params: Any, facts: Mapping[str, Mapping[str, Any]]
) -> Guess | None:
    """Facts a node's artifact will have, or None where its inputs' facts are unknown.

    Parameters
    ----------
    values : the recipe's flat values and those of the node ("split", "index").
    params : resolved parameters.
    facts : facts of the inputs by role; of "source" its counts (`stockpot.planning.counts`).
    """
    rule = _RULES.get(stage)
    # The rules read with dict's own methods, so that they do not count as touching a guess.
    return None if rule is None else rule(_Known(values, params, {role: dict(_plain(f)) for role, f in facts.items()}))


def _plain(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in facts:
        yield name, dict.__getitem__(facts, name) if isinstance(facts, dict) else facts[name]


@dataclass(frozen=True)
class _Known:
    """What a rule may use: the recipe's values, the node's parameters, plain facts of its inputs."""

    values: Mapping[str, Any]
    params: Any
    facts: dict[str, dict[str, Any]]

    def param(self, name: str, default: Any) -> Any:
        return getattr(self.params, name, default)


def _ingest(known: _Known) -> Guess | None:
    source = known.facts["source"]
    if "num_nodes" not in source:
        return None
    nodes, edges = source["num_nodes"], source["num_edges_stored"]
    undirected = bool(known.values["graph.undirected"])
    reduce = int(known.values["features.reduce"])
    kind, columns, nnz = source["features"], source["num_features"], source["x_nnz"]
    if reduce:
        kind, columns, nnz = "dense", reduce, nodes * reduce
    return Guess(
        {
            "num_nodes": nodes,
            "num_edges_stored": edges,
            "nnz": 2 * edges if undirected else edges,
            "self_loops_dropped": 0,
            "duplicates_merged": 0,
            "isolated_nodes": 0,
            "num_features": columns,
            "num_classes": source["num_classes"],
            "unlabelled": nodes - source.get("labelled", nodes),
            "published_splits": source["published_splits"],
            "splits": source["splits"],
            "directed": not undirected,
            "weighted": source.get("weighted", False),
            "features": kind,
            "binary": source["binary"] and not reduce,
            "x_nnz": nnz,
            "max_degree": min(nodes, edges),
        },
        {"num_nodes", "num_edges_stored", "num_features", "features", "published_splits"}.difference(
            source.get("estimated", ())
        ),
    )


def _split(known: _Known) -> Guess | None:
    graph = known.facts["graph"]
    counts = graph.get("splits")
    if counts is None:
        labelled = graph["num_nodes"] - graph["unlabelled"]
        train, valid = float(known.values["dataset.split.train"]), float(known.values["dataset.split.valid"])
        shares = {"train": train, "valid": valid, "test": max(0.0, 1.0 - train - valid)}
        counts = {name: max(1, math.ceil(share * labelled)) for name, share in shares.items()}
    return Guess({**counts, "origin": "seeded", "num_nodes": graph["num_nodes"]})


def _partition(known: _Known) -> Guess | None:
    graph = known.facts["graph"]
    parts = known.param("parts", 64)
    sizes = {"parts": parts, "edge_cut": 0.5, "balance": 1.1, "num_nodes": graph["num_nodes"]}
    return Guess({**sizes, "method": known.param("method", "metis")})


def _sizing(known: _Known) -> Guess | None:
    """As automatic sizes are where many small records hold enough; a dense graph gets fewer and larger ones."""
    counts, asked = known.facts["split"], known.values["batches.top_k"]
    splits = {
        name: {"top_k": TOP_K if asked == "auto" else asked, "outputs": most_outputs("auto", int(counts[name]), name)}
        for name in ("train", "valid", "test")
    }
    return Guess({"splits": splits, "mass": "none"})


def _influence(known: _Known) -> Guess | None:
    nodes, split = known.facts["graph"]["num_nodes"], known.values["split"]
    source = known.values["infer.split"] if split == "infer" else split
    outputs = int(known.facts["split"].get(source, nodes))
    records = max(1, math.ceil(outputs / max(1, known.param("outputs", 1024))))
    rows = min(math.ceil(outputs * min(_REPLICATION, known.param("top_k", TOP_K) + 1)), records * nodes)
    if known.param("whole", False):
        rows = records * nodes
    if known.values["batches.method"] in ("batch", "cluster"):
        share = 24 if known.param("mass", 0.0) else 2 * max(1.0, known.param("ratio", 0.0))
        rows = max(rows, math.ceil(share * nodes))
    if (mix := known.param("mix", 0)) and known.values["batches.method"] == "batch":
        records = max(records, math.ceil(known.facts["partition"]["parts"] / mix))
    rounds = known.param("rounds", 1)
    rows, records = rounds * min(rows, records * nodes), rounds * records
    return Guess(
        ({"rounds": rounds} if rounds > 1 else {})
        | {
            "split": split,
            "method": known.values["batches.method"],
            "records": records,
            "outputs": outputs,
            "rows": rows,
            "max_rows": min(nodes, math.ceil(_LARGEST * rows / records)),
            "replication": rows / max(1, outputs * rounds),
            "captured": None,
            "num_nodes": nodes,
        }
    )


def _sample(known: _Known) -> Guess | None:
    params, graph, split = known.params, known.facts["graph"], known.values["split"]
    if not isinstance(params, SampleParams):
        return None
    nodes = graph["num_nodes"]
    outputs = int(known.facts["split"].get(params.source, nodes))
    records = params.rounds * -(-outputs // params.outputs)
    rows, edges = reach(params, nodes, graph["nnz"])
    asked = {
        name: getattr(params, name) for name in ("method", "importance_sampling", "layer_dependency", "kappa", "seed")
    }
    return Guess(
        ({"rounds": params.rounds} if params.rounds > 1 else {})
        | {
            "split": split,
            "method": params.method,
            "sampling": {**asked, "fanouts": list(params.fanouts), "sequential": False},
            "records": records,
            "outputs": outputs,
            "rows": records * rows,
            "max_rows": rows,
            "edges": records * edges,
            "max_edges": edges,
            "replication": records * rows / max(1, outputs * params.rounds),
            "captured": None,
            "num_nodes": nodes,
        },
        {"sampling"},
    )


def _order(known: _Known) -> Guess | None:
    records = known.facts["records"]["records"]
    lengths = {"tour_length": None, "random_length": None}
    shape = {"window": known.param("window", 0), "mix": known.param("mix", 1)}
    return Guess({"method": known.values["order.method"], "records": records, **lengths, **shape, **_rounds(known)})


def _judge(known: _Known) -> Guess | None:
    return Guess({"codec": known.param("exact", "fp32"), "row_passes": known.param("rows", 0)})


def _codebook(known: _Known) -> Guess | None:
    graph = known.facts["graph"]
    sizes = {"num_nodes": graph["num_nodes"], "num_features": graph["num_features"]}
    return Guess({"codec": known.param("codec", "") or "fp32", "sample": known.param("sample", 0), **sizes})


def _quantize(known: _Known) -> Guess | None:
    graph = known.facts["graph"]
    nodes, columns, codec = graph["num_nodes"], graph["num_features"], known.param("codec", "fp32")
    row_bytes = describe(codec, columns).row_bytes
    entry = 8 if codec == "lossless-values" else 4
    tables = 0 if codec in EXACT else parse(codec).table_bytes(columns)
    code_bytes = entry * graph["x_nnz"] + 8 * nodes if row_bytes is None else nodes * row_bytes
    found = {}
    if (tier := known.param("tier", "")) and known.param("tier_rows", 0):
        size, rows = parse(tier).row_bytes(columns), known.param("tier_rows", 0)
        tables += parse(tier).table_bytes(columns)
        code_bytes += rows * (size + (4 if nodes < 1 << 31 else 8))
        found = {"tier": {"codec": tier, "rows": rows, "row_bytes": size, "error_left": 0.0}}
    return Guess(
        found
        | {
            "codec": codec,
            "row_bytes": row_bytes,
            "table_bytes": tables,
            "code_bytes": code_bytes,
            "compression_ratio": 4.0 * nodes * columns / max(1, code_bytes + tables),
            "nmse": 0.0,
            "nmse_aggregated": None,
            "num_nodes": nodes,
            "num_features": columns,
        },
        {"codec", "nmse"} if codec in EXACT and codec != "fp16" and "judge" not in known.facts else frozenset(),
    )


def _hag(known: _Known) -> Guess | None:
    asked = known.param("mode", "auto") == "always"
    return Guess({"use": False, "of": known.values["of"], "why": "asked for" if asked else "not looked at yet"})


def _pack(known: _Known) -> Guess | None:
    graph, records, codes = known.facts["graph"], known.facts["records"], known.facts["codes"]
    rows, count = records["rows"], max(1, records["records"])
    degree = graph["nnz"] / max(1, graph["num_nodes"])
    edges = min(math.ceil(rows * degree), count * graph["nnz"])
    sampling = {}
    if "sampling" in records:
        edges, sampling = records["edges"], {"sampling": records["sampling"]}
    code_bytes = codes["code_bytes"] / max(1, graph["num_nodes"]) * rows
    gathered = {"gather_bytes": math.ceil(code_bytes)} if known.param("gather", False) else {}
    code_bytes = 0 if gathered else code_bytes
    edge_bytes = 12 if sampling else 4 * (1 + bool(graph["directed"]) + bool(graph["weighted"]))
    return Guess(
        {
            "split": known.values["split"],
            "records": count,
            "rows": rows,
            "edges": edges,
            "outputs": records["outputs"] * records.get("rounds", 1),
            "replication": records["replication"],
            "dropped_nodes": 0,
            "bytes": math.ceil(code_bytes + 16 * rows + edge_bytes * edges),
            "num_classes": graph["num_classes"],
            "num_features": graph["num_features"],
            "max_rows": min(graph["num_nodes"], math.ceil(_LARGEST * rows / count)),
            "max_edges": records["max_edges"] if sampling else min(graph["nnz"], math.ceil(_LARGEST * edges / count)),
            "hops": 16,
            "shards": 1,
            "codec": codes["codec"],
            "K": num_blocks(int(known.facts["partition"]["parts"])),
            "directed": graph["directed"],
            "weighted": graph["weighted"],
            "task": "multiclass",
            **gathered,
            **sampling,
            **_rounds(known),
        },
        {"sampling"},
    )


def _loadplan(known: _Known) -> Guess | None:
    packed, epochs = known.facts["records"], known.param("epochs", 1)
    rows, cache = packed["rows"] // packed.get("rounds", 1), known.param("cache", 0)
    return Guess(
        {
            "split": packed["split"],
            "order": known.facts["order"]["method"],
            "cache": cache,
            "cache_bytes": 4 * cache * packed["num_features"],
            "rounds": packed.get("rounds", 1),
            "epochs": epochs,
            "rows": [rows] * epochs,
            "read": [rows] * epochs,
        }
    )


def _exchange(known: _Known) -> Guess | None:
    packed, ranks = known.facts["records"], int(known.values["train.ranks"])
    rows = packed["rows"]
    return Guess(
        {
            "ranks": ranks,
            "split": packed["split"],
            "records_of_shards": [packed["records"]],
            "rows": [rows // ranks] * ranks,
            "row_bytes": None,
            "received": [rows * (ranks - 1) // 2],
            "together": {"rows": [rows], "edges": [packed["edges"]], "features": [packed["bytes"]]},
            "alone": {
                "rows": [rows * ranks],
                "edges": [packed["edges"] * ranks],
                "features": [packed["bytes"] * ranks],
            },
        }
    )


def _rounds(known: _Known) -> dict[str, Any]:
    """Rounds of the records, where there are several."""
    records = known.facts["records"]
    return {"rounds": records["rounds"]} if "rounds" in records else {}


def _train(known: _Known) -> Guess | None:
    packed = known.facts["train"]
    hidden, layers = int(known.values["train.hidden"]), int(known.values["train.layers"])
    widths = [packed["num_features"], *[hidden] * max(0, layers - 1), packed["num_classes"]]
    weights = sum(2 * (a + 3) * b for a, b in itertools.pairwise(widths))
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
            "edge_floats": edge_floats(known.params, packed) if isinstance(known.params, TrainParams) else 0,
            "sequential": isinstance(known.params, TrainParams) and known.params.model == "sage-lstm",
        }
    )


def _soup(known: _Known) -> Guess | None:
    parameters = max((f.get("num_parameters", 0) for f in known.facts.values()), default=0)
    return Guess({"chosen": "best", "methods": {}, "num_parameters": parameters})


def _codeloss(known: _Known) -> Guess | None:
    return Guess({"codec": known.param("codec", ""), "accuracy_drop": None})


_RULES: dict[str, Callable[[_Known], Guess | None]] = {
    "ingest": _ingest,
    "split": _split,
    "partition": _partition,
    "sizing": _sizing,
    "influence": _influence,
    "sample": _sample,
    "order": _order,
    "judge": _judge,
    "codebook": _codebook,
    "quantize": _quantize,
    "hag": _hag,
    "pack": _pack,
    "loadplan": _loadplan,
    "exchange": _exchange,
    "train": _train,
    "warmup": _train,
    "soup": _soup,
    "codeloss": _codeloss,
}
