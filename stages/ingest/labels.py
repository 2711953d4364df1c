"""Labels are classes or -1, and published splits are sorted, disjoint, non-empty sets of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.edges import check_ids
from stockpot.stages.ingest.fields import PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.stages.ingest.bad import Bad
    from stockpot.stages.ingest.members import Members

__all__ = ["SPLITS", "check_disjoint", "check_labels", "check_list", "read_splits"]

SPLITS = PARTS
_MOST_CLASSES = 1 << 16
_NUMBER = "number the classes: numpy.unique(y, return_inverse=True)[1], then -1 where unlabelled"


def check_labels(bad: Bad, name: str, y: NDArray[Any], num_nodes: int) -> NDArray[np.int32]:
    """i4[N], a class from 0, or -1 where unlabelled (given as -1 or NaN); at least one node is
    labelled.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise bad(
            name,
            f"expected one class a node, found shape {y.shape}: multi-label targets are not "
            f"available in this version",
            "of one-hot rows take y.argmax(1), else choose one column",
        )
    if len(y) != num_nodes:
        raise bad(name, f"expected {num_nodes} labels, one a node, found {len(y)}")
    if y.dtype.kind == "f":
        y = np.where(np.isnan(y), -1, y)
        whole = y == np.trunc(y)  # inf is whole here and out of range below
        if not whole.all():
            at = int(np.flatnonzero(~whole)[0])
            raise bad(
                name,
                f"expected integer classes, found {y[at]} at node {at}: "
                "regression targets are not available in this version",
                "deal the targets into classes, numbered from 0",
            )
    elif y.dtype.kind not in "iub":
        raise bad(name, f"expected integer classes, found {y.dtype}", _NUMBER)
    # Booleans have neither order nor sign in numpy's checks below.
    y = y.astype(np.int8) if y.dtype.kind == "b" else y
    if y.min() < -1 or y.max() >= _MOST_CLASSES:
        at = int(np.flatnonzero((y < -1) | (y >= _MOST_CLASSES))[0])
        raise bad(
            name,
            f"expected classes from 0 to {_MOST_CLASSES - 1}, or -1 for unlabelled, found {y[at]} "
            f"at node {at}",
            _NUMBER,
        )
    if y.max() < 0:
        raise bad(name, "expected at least one labelled node, found none")
    return y.astype(np.int32)


def read_splits(members: Members, num_nodes: int) -> list[dict[str, NDArray[np.int32]]]:
    """For each published split the sorted ids of train, valid and test; empty where the data set
    brings none.

    Lists of ids are one split. Masks are (N,), or of several splits (S, N) or, as PyG has them, (N,
    S); one (N,) beside several serves them all.
    """
    names = members.fields.splits
    if not names:
        return []
    parts = {part: members[names[part]] for part in SPLITS}
    masks = {part: _is_mask(members.fields.kinds[part], values) for part, values in parts.items()}
    if len(set(masks.values())) > 1:
        text = ", ".join(f"{names[part]} of {values.dtype}" for part, values in parts.items())
        raise members.bad(
            names["test"], f"expected lists of ids or masks in all three parts, found {text}"
        )
    if not masks["train"]:
        found = [
            {part: check_list(members.bad, names[part], parts[part], num_nodes) for part in SPLITS}
        ]
    else:
        tables = {part: _table(members, names[part], parts[part], num_nodes) for part in SPLITS}
        most = max(map(len, tables.values()))
        shared = {
            part: np.repeat(table, most, axis=0)
            for part, table in tables.items()
            if parts[part].ndim == 1
        }
        tables |= shared
        if len({len(table) for table in tables.values()}) > 1:
            counts = ", ".join(str(len(tables[part])) for part in SPLITS)
            listed = ", ".join(names[part] for part in SPLITS)
            raise members.bad(
                names["train"], f"expected as many splits in {listed}, found {counts}"
            )
        found = [
            {part: np.flatnonzero(table[s]).astype(np.int32) for part, table in tables.items()}
            for s in range(most)
        ]
    for number, split in enumerate(found):
        check_disjoint(members.bad, dict(names), f" in split {number}" * (len(found) > 1), split)
    return found


def _is_mask(kind: str, values: NDArray[Any]) -> bool:
    return kind == "mask" or (kind == "" and values.dtype.kind == "b")


def check_list(bad: Bad, name: str, values: NDArray[Any], num_nodes: int) -> NDArray[np.int32]:
    """Ids of one part of a split as sorted i4, each there once."""
    if values.ndim != 1:
        raise bad(name, f"expected a list of node ids, found shape {values.shape}")
    if values.size == 0:
        return np.empty(0, np.int32)
    ids = np.sort(check_ids(bad, name, values, num_nodes, "position"))
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if twice.size:
        raise bad(name, f"expected each node once, found node {ids[twice[0]]} twice")
    return ids


def _table(members: Members, name: str, values: NDArray[Any], num_nodes: int) -> NDArray[Any]:
    """Masks as (S, N). Where N = S, `train_masks` and the like have a row a split, other names a
    column.
    """
    table = np.atleast_2d(values)
    by_row = table.ndim == 2 and table.shape[1] == num_nodes
    by_column = table.ndim == 2 and values.ndim == 2 and table.shape[0] == num_nodes
    if by_column and not (by_row and name in (f"{part}_masks" for part in SPLITS)):
        table, by_row = table.T, True
    if not by_row or 0 in table.shape or table.dtype.kind not in "biu":
        expected = f"({num_nodes},), (S, {num_nodes}) or ({num_nodes}, S)"
        raise members.bad(
            name,
            f"expected booleans of shape {expected}, found shape {values.shape} of {values.dtype}",
        )
    if table.dtype.kind != "b" and not np.isin(table, (0, 1)).all():
        raise members.bad(
            name, f"expected booleans, 0 or 1, found {table[~np.isin(table, (0, 1))][0]}"
        )
    return table


def check_disjoint(
    bad: Bad, names: dict[str, str], where: str, split: dict[str, NDArray[np.int32]]
) -> None:
    """Refuse a split with an empty part or a node in two; `names` says the field behind each
    part.
    """
    for name, ids in split.items():
        if len(ids) == 0:
            raise bad(names[name], f"expected at least one node, found an empty split{where}")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(split[first], split[second], assume_unique=True)
        if both.size:
            raise bad(
                names[second],
                f"expected no node of {names[first]}, found node {both[0]} in both{where}: splits "
                f"overlap",
            )
