"""Runs rate control inside `codebook`: figures of the codec that was asked for, or of all candidates and the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.codebook.fit import fit
from stages.codebook.rate import Measure
from stages.codebook.rate_choice import choose
from stages.codebook.rate_sizes import most_outputs
from stages.quantize.codec import EXACT
from stages.quantize.features import Features
from stages.quantize.names import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.codebook.rate_choice import Candidate
    from stages.codebook.stage import Params
    from stages.stage import Inputs

__all__ = ["rate"]

_TRIAL_ROWS = 16_384
"""Rows a candidate is trained on; the one that is chosen is trained again, on the whole sample."""
_HALF_MAX = 65504.0
_Arrays = dict[str, NDArray[Any]]


def rate(
    params: Params,
    inputs: Inputs,
    sample: NDArray[np.float32],
    shift: NDArray[np.float32],
    scale: NDArray[np.float64],
    largest: float,
    progress: Callable[[int, int, str], None],
) -> tuple[str, _Arrays, dict[str, Any]]:
    """Choose a codec where none was asked for, and measure.

    Parameters
    ----------
    sample : f4[n, D], what codecs are trained on.
    shift, scale : of `stages.quantize.coder.Coder`.
    largest : absolute value of the features.

    Returns
    -------
    The codec's name; the arrays its coder encodes with, none where it is exact; facts: `nmse_aggregated`,
    `nmse_by_depth`, `sensitivity`, and of a choice `rate` (the table) and `reason`.
    """
    graph = inputs["graph"]
    features, units = Features.from_reader(graph), _Arrays(shift=shift, scale=scale)
    if params.codec:
        fitted = fit(params.codec, sample, shift, params.seed) | units
        measure = Measure(graph, features, *_any_nodes(features, params.seed), judged=False, seed=params.seed)
        found = measure.candidate(params.codec, fitted)
        return params.codec, fitted, _facts(measure, found.nmse_aggregated, found.nmse_by_depth)
    split = inputs["split"]
    parts = [np.asarray(split.array(name)) for name in ("train", "valid")]
    measure = Measure(graph, features, *parts, judged=True, seed=params.seed)
    step = max(1, len(sample) // _TRIAL_ROWS)
    names = [name for name in params.candidates if name != "fp16" or largest <= _HALF_MAX]
    table: list[Candidate] = []
    failed = set()
    for done, name in enumerate(names):
        if name not in EXACT and parse(name).family in failed:
            continue
        progress(done, len(names), name)
        trial = {} if name in EXACT else fit(name, sample[::step], shift, params.seed) | units
        table.append(measure.candidate(name, trial))
        if (table[-1].drop_bound or 0.0) > params.max_drop:
            failed.add(table[-1].family)
    chosen, reason = choose(table, params.max_drop)
    fitted = {} if chosen.codec in EXACT else fit(chosen.codec, sample, shift, params.seed) | units
    facts = _facts(measure, chosen.nmse_aggregated, chosen.nmse_by_depth)
    facts |= {"rate": [c.to_json() for c in table], "reason": reason, "judged_on": measure.judged_on}
    return chosen.codec, fitted, facts


def _facts(measure: Measure, aggregated: float, by_depth: tuple[float, ...]) -> dict[str, Any]:
    return {
        "nmse_aggregated": aggregated,
        "nmse_by_depth": list(by_depth),
        "sensitivity": measure.sensitivity(),
        "measured_rows": len(measure.sample.n_id),
        "measured_outputs": len(measure.sample.outputs),
    }


def _any_nodes(features: Features, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nodes to measure errors at, in two parts as a split is: no label is asked for."""
    most = most_outputs(features.num_features)
    if features.num_rows <= most:
        ids = np.arange(features.num_rows)
    else:
        ids = np.unique(np.random.default_rng((seed, 2)).integers(0, features.num_rows, most))
    return ids[::2], ids[1::2]
