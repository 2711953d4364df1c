"""What a source hands to `ingest`: counts first, then edges and feature rows in bounded blocks,
never all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from stockpot.stages.errors import BadInput
    from stockpot.stages.ingest.features import SparseRows

__all__ = ["DataSet", "EdgeBlock", "Features"]


@dataclass(frozen=True)
class EdgeBlock:
    """Stored edges that follow each other: `source`, `target` i4[n], checked ids; `weight` f4[n],
    finite, or None.
    """

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: NDArray[np.float32] | None = None


class Features(Protocol):
    """Feature rows, read in blocks.

    Attributes
    ----------
    columns : D, at least 1.
    sparse : whether `rows` gives `SparseRows` (sorted unique columns, no stored zeros) or f4[n, D].
    """

    columns: int
    sparse: bool

    def rows(self, start: int, stop: int) -> NDArray[np.float32] | SparseRows:
        """Rows `start:stop`, finite; may be called again and in any order.

        Raises
        ------
        BadInput
            A value is not a finite number; names node and column.
        """
        ...


class DataSet(Protocol):
    """An opened data set. Whatever is wrong with it is a `BadInput` that names file, field and
    node, edge or row.

    Attributes
    ----------
    num_nodes : N, at least 1, below 2^31.
    num_edges : E, stored edges, at least 1.
    weighted : whether edges carry weights.
    left_out : names in it that are left out on purpose.
    """

    num_nodes: int
    num_edges: int
    weighted: bool
    left_out: tuple[str, ...]

    def edges(self, most: int) -> Iterator[EdgeBlock]:
        """All stored edges in order, at most `most` in a block; may be called again and gives the
        same edges.
        """
        ...

    def features(self) -> Features | None:
        """The features, None where the data set brings none."""
        ...

    def labels(self) -> NDArray[np.int32]:
        """i4[N], a class from 0, or -1 where unlabelled."""
        ...

    def splits(self) -> list[dict[str, NDArray[np.int32]]]:
        """For each published split the sorted, disjoint, non-empty ids of train, valid and test."""
        ...

    def write_node_ids(self, path: Callable[[str], Path]) -> None:
        """Where nodes have names, keep the mapping: `path("node_ids.arrow")` is a payload file to
        be written.
        """
        ...

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        """Error about field `name` of this data set, naming its file."""
        ...
