"""How many nodes are kept for every output of inference, by hits of one model on the same
outputs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.judge.paired import loss_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DOUBLINGS", "MOST", "SetSize", "candidates", "choose"]

DOUBLINGS = 3
"""Sizes that are tried are the training's, twice that, and so on."""
MOST = 256
"""Nodes that "auto" keeps for an output at most, unless training keeps more."""


@dataclass(frozen=True)
class SetSize:
    """A row of the table.

    Attributes
    ----------
    top_k : nodes kept for every output.
    accuracy : of the model on the sampled validation outputs.
    rows : of all records of these outputs.
    behind, error : accuracy below that of the best size, paired, and its standard error; 0 for
        the best.
    """

    top_k: int
    accuracy: float
    rows: int
    behind: float
    error: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def candidates(base: int, nodes: int) -> list[int]:
    """Sizes to try, ascending: `base`, and its doubles up to `MOST` and the graph.

    >>> candidates(8, 1000)
    [8, 16, 32, 64]
    >>> candidates(16, 40)
    [16, 32, 40]
    """
    sizes = [base]
    for _ in range(DOUBLINGS):
        more = min(2 * sizes[-1], max(MOST, base), nodes)
        if more <= sizes[-1]:
            break
        sizes.append(more)
    return sizes


def choose(
    hits: Mapping[int, NDArray[np.bool_]], rows: Mapping[int, int]
) -> tuple[int, list[SetSize], str]:
    """The size to take, the table by ascending size, and the reason in words.

    The smallest size is taken that is not more than a standard error behind the most accurate
    one.

    Parameters
    ----------
    hits : size -> b1[outputs], the same outputs in the same order for every size.
    rows : size -> rows of all records.
    """
    accuracy = {size: float(np.mean(right)) for size, right in hits.items()}
    best = max(hits, key=lambda size: (accuracy[size], -size))
    table = []
    for size in sorted(hits):
        loss = loss_of([hits[best]], [hits[size]])
        error = 0.0 if size == best else loss.error
        table.append(SetSize(size, accuracy[size], rows[size], loss.mean, error))
    taken = next(row for row in table if row.behind <= row.error)
    if taken.top_k == best:
        return best, table, "the most accurate one, and all smaller ones are behind"
    words = (
        f"{100 * taken.behind:.2f} ± {100 * taken.error:.2f} points behind {best} nodes, which "
        f"read {rows[best] / rows[taken.top_k]:.1f} times the rows"
    )
    return taken.top_k, table, words
