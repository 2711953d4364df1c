"""What a recipe builds: the stages, and one node per artifact with its inputs; describing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.names import is_lossy
from stockpot.stages.errors import BadInput
from stockpot.stages.hag.stage import enabled
from stockpot.stages.partition.blocks import BLOCKS, num_blocks
from stockpot.stages.sizing.stage import METHODS as SIZED

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.stages.stage import Stage

__all__ = ["NODES", "SOURCE", "SPLITS", "STAGES", "Node", "ancestors", "build", "needed", "select"]

STAGES: dict[str, Stage[Any]] = {
    name: import_module(f"stockpot.stages.{name}").STAGE
    for name in (
        "ingest",
        "split",
        "partition",
        "sizing",
        "influence",
        "sample",
        "order",
        "judge",
        "codebook",
        "quantize",
        "hag",
        "pack",
        "loadplan",
        "exchange",
        "warmup",
        "train",
        "soup",
        "infer",
        "codeloss",
    )
}
"""Every stage by name. A new stage is a new folder and one line here."""

OPTIONAL = ("judge", "codebook", "codeloss")
"""Stages that may find they have nothing to build, once the facts of their inputs are known."""
SAMPLED = ("neighbor", "labor")
SPLITS = ("train", "valid", "test")
SOURCE, NODES = "source", "nodes"
"""Inputs that are files of the user, not artifacts: the data set, and the node ids of `infer.split = FILE`."""


@dataclass(frozen=True)
class Node:
    """One artifact of a run.

    Attributes
    ----------
    id : "ingest", "influence:train", "train:0", ...
    stage : name in `STAGES`.
    inputs : role -> node id, or `SOURCE` / `NODES`.
    instance : values added to the recipe's for `Stage.resolve` ("split", "index").
    advice : role -> node id of artifacts whose facts only resolve parameters: not read, and no part of the key.
    """

    id: str
    stage: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    instance: Mapping[str, Any] = field(default_factory=dict)
    advice: Mapping[str, str] = field(default_factory=dict)

    @property
    def parents(self) -> tuple[str, ...]:
        """Node ids it needs, files of the user left out."""
        named = (*self.inputs.values(), *self.advice.values())
        return tuple(dict.fromkeys(i for i in named if i not in (SOURCE, NODES)))


def build(recipe: Recipe) -> list[Node]:
    """Nodes of a recipe in topological order.

    Raises
    ------
    BadInput
        A value that changes the DAG itself is outside what this version builds.
    """
    _supported(recipe)
    nodes = [
        _node("ingest", "ingest", {"source": SOURCE}),
        _node("split", "split", {"graph": "ingest"}),
        _node("partition", "partition", {"graph": "ingest"}),
    ]
    codes, judged = {"graph": "ingest"}, {}
    if recipe.features.codec == "auto":
        nodes.append(_node("judge", "judge", {"graph": "ingest", "split": "split"}))
        judged = {"judge": "judge"}
    if recipe.features.codec == "auto" or is_lossy(recipe.features.codec):
        exposed = {"split": "split"} if recipe.features.tier_share > 0 else {}
        nodes.append(_advised(_node("codebook", "codebook", {"graph": "ingest", **exposed}), judged))
        codes["codebook"] = "codebook"
    nodes.append(_advised(_node("quantize", "quantize", codes), judged))
    sampled = recipe.batches.method in SAMPLED
    made_by = "sample" if sampled else "influence"
    sharing = "never" if unshared(recipe) else enabled(recipe.hag.enabled)
    sized = {}
    if recipe.batches.method in SIZED and "auto" in _sizes(recipe):
        nodes.append(_node("sizing", "sizing", {"graph": "ingest", "split": "split"}))
        sized = {"sizing": "sizing"}
    own_outputs = recipe.infer.split != "test" or recipe.infer.top_k not in (0, recipe.batches.top_k)
    for split in (*SPLITS, "infer") if own_outputs else SPLITS:
        records: dict[str, str] = {"graph": "ingest", "split": "split"}
        if recipe.batches.method in ("batch", "cluster") or (sampled and recipe.batches.seeds == "community"):
            records["partition"] = "partition"
        if split == "infer" and recipe.infer.split not in ("test", "all"):
            records["nodes"] = NODES
        made = _node(f"{made_by}:{split}", made_by, records, split=split)
        nodes.append(replace(made, advice=MappingProxyType(sized)))
        if split == "train" and sharing != "never":
            nodes.append(_node("hag", "hag", {"graph": "ingest", "records": f"{made_by}:train"}, of="records"))
        if split == "train":
            nodes.append(_node("order", "order", {"records": f"{made_by}:train", "graph": "ingest"}))
        packed = {"graph": "ingest", "partition": "partition", "records": f"{made_by}:{split}", "codes": "quantize"}
        advice = {} if sharing == "never" else {"hag": "hag"}
        nodes.append(_advised(_node(f"pack:{split}", "pack", packed, split=split), advice))
    read = {"train": "pack:train", "valid": "pack:valid", "order": "order"}
    if recipe.order.cache != 0:
        planned = {"records": "pack:train", "order": "order", "graph": "ingest"}
        nodes.append(_node("loadplan", "loadplan", planned))
        read["loads"] = "loadplan"
    if recipe.train.ranks > 1:
        nodes.append(_node("exchange", "exchange", {"records": "pack:train"}))
        read["exchange"] = "exchange"
    if recipe.train.warmup > 0:
        nodes.append(replace(_node("warmup", "warmup", read), advice=MappingProxyType(sized)))
        read = {**read, "start": "warmup"}
    ingredients = {f"ingredient:{i}": f"train:{i}" for i in range(recipe.train.ingredients)}
    nodes += [
        replace(_node(f"train:{i}", "train", read, index=i), advice=MappingProxyType(sized))
        for i in range(recipe.train.ingredients)
    ]
    nodes.append(_node("soup", "soup", {"train": "pack:train", "valid": "pack:valid", **ingredients}))
    outputs = "pack:infer" if own_outputs else "pack:test"
    predict = {"outputs": outputs, "soup": "soup", **ingredients, "graph": "ingest", "codes": "quantize"}
    if sharing == "always" and recipe.infer.full_graph:
        # Where it is not asked for in any case, one pass over the graph does not repay the search.
        nodes.append(_node("hag:graph", "hag", {"graph": "ingest"}, of="graph"))
        predict["hag"] = "hag:graph"
    if recipe.train.ranks > 1 and recipe.train.exchange == "cooperative":
        nodes.append(_node("exchange:outputs", "exchange", {"records": outputs}))
        predict["exchange"] = "exchange:outputs"
    nodes.append(_node("infer", "infer", predict))
    if "codebook" in codes or recipe.features.codec == "fp16":
        asked = {"valid": "pack:valid", "soup": "soup", "graph": "ingest"}
        nodes.append(_advised(_node("codeloss", "codeloss", asked), {"codes": "quantize"}))
    return nodes


def _node(name: str, stage: str, inputs: Mapping[str, str], **instance: Any) -> Node:
    return Node(name, stage, MappingProxyType(dict(inputs)), MappingProxyType(instance))


def _sizes(recipe: Recipe) -> tuple[Any, ...]:
    """Values that stage `sizing` finds where they are "auto"."""
    batches = recipe.batches
    return batches.top_k, batches.outputs, batches.mix, recipe.graph.mass


def _advised(node: Node, advice: Mapping[str, str]) -> Node:
    return replace(node, advice=MappingProxyType(dict(advice)))


def _supported(recipe: Recipe) -> None:
    if enabled(recipe.hag.enabled) == "always" and (why := unshared(recipe)):
        raise BadInput(f"hag.enabled: shared partial sums cannot serve {why}", fix="--set hag.enabled=auto")
    if recipe.train.ranks > 1 and recipe.order.cache != 0:
        raise BadInput(
            f"order.cache: one process follows a load plan, found train.ranks = {recipe.train.ranks}",
            fix="--set order.cache=0",
        )
    parts = recipe.partition.parts
    most = num_blocks(BLOCKS if isinstance(parts, str) else int(parts))
    if recipe.train.ranks > most:
        raise BadInput(
            f"train.ranks: expected at most {most}, one a block of the packed records, found {recipe.train.ranks}",
            fix=f"--set train.ranks={most}",
        )


def unshared(recipe: Recipe) -> str:
    """Why no product of the recipe can be shared by a HAG; empty where it can."""
    if recipe.batches.method in SAMPLED:
        return f"batches.method {recipe.batches.method!r}: sampled rows are weighted one by one"
    model = recipe.train.model
    reasons = {
        "gat": "its weights differ by edge",
        "sage-lstm": "it reads neighbours in order, and steps through prefixes that rows share in any case",
    }
    why = "it is called with the edges, which it may weigh or drop" if ":" in model else reasons.get(model)
    return f"train.model {model!r}: {why}" if why else ""


def select(nodes: Sequence[Node], names: Iterable[str]) -> list[str]:
    """Node ids of the stages or nodes named ("train", "train:0"); all where none is named.

    Raises
    ------
    BadInput
        No stage and no node has that name.
    """
    names = list(names)
    if not names:
        return [node.id for node in nodes]
    for name in names:
        if not any(name in (node.id, node.stage) for node in nodes):
            stages = ", ".join(dict.fromkeys(node.stage for node in nodes))
            raise BadInput(f"stage {name}: not part of this recipe; expected one of {stages}")
    return [node.id for node in nodes if node.id in names or node.stage in names]


def needed(nodes: Sequence[Node], built: Container[str]) -> list[Node]:
    """The nodes without those of `OPTIONAL` that had nothing to do: all around them is built, but they are not."""
    read = {parent for node in nodes if node.id in built for parent in node.parents}
    asked = {parent for node in nodes for parent in node.parents}

    def had_nothing_to_do(node: Node) -> bool:
        return node.id in read if node.id in asked else all(parent in built for parent in node.parents)

    left_out = {n.id for n in nodes if n.stage in OPTIONAL and n.id not in built and had_nothing_to_do(n)}
    kept = {node.id for node in nodes} - left_out | {SOURCE, NODES}

    def among(roles: Mapping[str, str]) -> Mapping[str, str]:
        return MappingProxyType({role: name for role, name in roles.items() if name in kept})

    return [replace(n, inputs=among(n.inputs), advice=among(n.advice)) for n in nodes if n.id in kept]


def ancestors(nodes: Sequence[Node], ids: Iterable[str]) -> list[Node]:
    """The nodes `ids` and everything they are made from, in the order of `nodes`."""
    by_id = {node.id: node for node in nodes}
    wanted: set[str] = set()
    stack = list(ids)
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack.extend(by_id[node].parents)
    return [node for node in nodes if node.id in wanted]
