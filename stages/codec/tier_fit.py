"""Trains the further stages of a code on what it leaves of the nodes that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.codec.coder import Coder, units
from stockpot.stages.codec.exposure import exposed, exposure
from stockpot.stages.codec.fit import fit
from stockpot.stages.codec.format import decode
from stockpot.stages.codec.residual_tier import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stockpot.stages.codec.feature_blocks import Features
    from stockpot.stages.stage import Inputs

__all__ = ["exposed_rows", "fit_tier"]

SPLITS = ("train", "valid", "test")


def exposed_rows(inputs: Inputs, count: int) -> NDArray[np.integer[Any]]:
    """Ids of the `count` nodes most exposed, ascending, as wide as the ids of the graph's records.

    Outputs of all splits count alike: a model is asked about test nodes as it was trained on
    others, and one trained on finer rows than it is asked about would be judged on what it never
    saw.
    """
    graph, split = inputs["graph"], inputs["split"]
    outputs = np.unique(np.concatenate([np.asarray(split.array(name)) for name in SPLITS]))
    found = exposed(exposure(graph.array("indptr"), graph.array("indices"), outputs), count)
    return found.astype(np.int32 if int(graph.facts["num_nodes"]) < 1 << 31 else np.int64)


def fit_tier(
    name: str,
    rows: NDArray[np.integer[Any]],
    features: Features,
    base: str,
    fitted: Mapping[str, NDArray[Any]],
    sample: NDArray[np.float32],
    most: int,
    seed: int,
) -> dict[str, NDArray[Any]]:
    """Arrays a tier is encoded with (`stockpot.stages.codec.residual_tier`), `tier_rows` among
    them.

    Parameters
    ----------
    name : a residual code. rows : ascending ids of the nodes that have it.
    base, fitted : codec of all rows and what its coder encodes with; its tables are recalibrated on
        `sample`.
    most : rows it is trained on, at most: every k-th of `rows`.
    """
    coder = Coder(base, fitted)
    codec = coder.codec(coder.encode(sample)[1])[0]
    mine = rows[:: -(-len(rows) // most)]
    x = features.rows(mine)
    left = x - decode(codec, coder.encode(x)[0])
    shift = left.mean(0, dtype=np.float64).astype(np.float32)
    # Any row may leave more than those of the sample; the sums of a residual code enter no table.
    reach = 2 * np.abs(left - shift).max(0)
    arrays = fit(name, left, shift, seed + 1) | {"shift": shift, "scale": units(reach, len(rows))}
    return {PREFIX + key: values for key, values in arrays.items()} | {"tier_rows": rows}
