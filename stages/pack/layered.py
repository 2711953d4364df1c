"""Columns of sampled records: in form "layers" a CSR for each layer, in form "nodes" one that
serves all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stockpot.stages.pack.record import Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.pack.record import Record

__all__ = ["check", "column", "depth", "is_layered", "layers_of", "prefixes", "types_of"]

KINDS = ("indptr", "indices", "edge_w", "weight")
_NAME = re.compile(rf"({'|'.join(KINDS)})_([0-9]+)")


def is_layered(name: str) -> bool:
    """Whether a column is `kind_l`, of the l-th layer from the outputs."""
    return _NAME.fullmatch(name) is not None


def depth(meta: Mapping[str, Any]) -> int:
    """Sampled layers of a file's records; 0 where its edges are no sample."""
    return len(meta["sampling"]["fanouts"]) if "sampling" in meta else 0


def types_of(meta: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """Columns of the layers of form "layers", none of any other.

    `edge_w_l` is there where sampling makes it differ from 1 (weighted graphs, importances),
    `weight_l` where the graph is weighted.
    """
    found: dict[str, pa.DataType] = {}
    for layer in range(depth(meta) if meta["form"] == "layers" else 0):
        found |= {f"indptr_{layer}": pa.int32(), f"indices_{layer}": pa.int32()}
        if meta["weighted"] or meta["sampling"]["importance_sampling"]:
            found[f"edge_w_{layer}"] = pa.float32()
        if meta["weighted"]:
            found[f"weight_{layer}"] = pa.float32()
    return found


def column(record: Record, name: str) -> Any:
    """Array `name` of a record, or `kind_l` of its layer l."""
    match = _NAME.fullmatch(name)
    if match is None or record.layers is None:
        return getattr(record, name)
    return getattr(record.layers[int(match[2])], match[1])


def layers_of(found: dict[str, Any], sampled: int) -> dict[str, Any]:
    """Arguments of a `Record` from its columns by name: `kind_l` become `layers`.

    Raises
    ------
    KeyError
        A column is missing.
    """
    if "indptr" in found:
        layers = prefixes(found["indptr"], found["indices"], found["num_sampled_nodes"])
        return {**found, "layers": layers}
    layers = tuple(
        Layer(
            found.pop(f"indptr_{layer}"),
            found.pop(f"indices_{layer}"),
            found.pop(f"edge_w_{layer}", None),
            found.pop(f"weight_{layer}", None),
        )
        for layer in range(sampled)
    )
    nothing = np.zeros(0, np.int32)
    return {**found, "indptr": nothing, "indices": nothing, "layers": layers}


def prefixes(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    num_sampled_nodes: NDArray[np.integer[Any]],
) -> tuple[Layer, ...]:
    """Layers that are prefixes of one CSR, whose rows of the last hop are empty: views."""
    rows = np.cumsum(num_sampled_nodes[:-1])
    return tuple(Layer(indptr[: n + 1], indices[: indptr[n]]) for n in rows.tolist())


def check(record: Record) -> dict[str, tuple[int, int]]:
    """Counts of each layer that must agree, as (expected, found) by name."""
    checks: dict[str, tuple[int, int]] = {}
    rows = np.cumsum(record.num_sampled_nodes)
    for layer, one in enumerate(record.layers or ()):
        m = one.indices.size
        checks[f"row pointers of layer {layer}"] = int(rows[layer]) + 1, one.indptr.size
        checks[f"edges of layer {layer} by row pointer"] = m, int(one.indptr[-1])
        for name, values in (("edge_w", one.edge_w), ("weight", one.weight)):
            if values is not None:
                checks[f"{name} of layer {layer}"] = m, values.size
    return checks
