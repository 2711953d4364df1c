"""Features are reduced to no more dimensions than they have; the reason stands in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from stockpot.stages.ingest.source_data import DataSet, Features

__all__ = ["check_reduce", "features_to_reduce"]


def check_reduce(reduce: int, nodes: int, columns: int) -> None:
    """Refuse `features.reduce` above what a matrix of that shape has."""
    if reduce > min(nodes, columns):
        raise BadInput(
            f"features.reduce: expected at most {min(nodes, columns)} for features of {nodes} "
            f"nodes and {columns} "
            f"columns, found {reduce}",
            fix="--set features.reduce=0 keeps all columns",
        )


def features_to_reduce(data: DataSet, reduce: int) -> Features | None:
    """The features of a data set, fit to be reduced where `reduce` says so; None where it has none.

    Raises
    ------
    BadInput
        There are none to reduce, or they have fewer columns.
    """
    features = data.features()
    if reduce and features is None:
        raise data.bad(
            "x", "expected features to reduce, found none", fix="--set features.reduce=0"
        )
    if reduce and features is not None:
        check_reduce(reduce, data.num_nodes, features.columns)
    return features
