"""Labels are classes or -1, and published splits are sorted, disjoint, non-empty sets of nodes."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.ingest.edges import check_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.ingest.dataset import Bad
    from stages.ingest.members import Members

__all__ = ["SPLITS", "check_disjoint", "check_labels", "check_list", "read_splits"]

SPLITS = ("train", "valid", "test")
_MOST_CLASSES = 1 << 16
_LISTS = tuple(f"{name}_idx" for name in SPLITS)
_MASKS = tuple(f"{name}_masks" for name in SPLITS)
_SPLIT_PREFIXES = ("train_", "valid_", "val_", "validation_", "test_")


def check_labels(bad: Bad, name: str, y: NDArray[Any], num_nodes: int) -> NDArray[np.int32]:
    """i4[N], a class from 0, or -1 where unlabelled (given as -1 or NaN); at least one node is labelled."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise bad(
            name,
            f"expected one class a node, found shape {y.shape}: multi-label targets are not available in this version",
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
            )
    elif y.dtype.kind not in "iub":
        raise bad(name, f"expected integer classes, found {y.dtype}")
    # Booleans have neither order nor sign in numpy's checks below.
    y = y.astype(np.int8) if y.dtype.kind == "b" else y
    if y.min() < -1 or y.max() >= _MOST_CLASSES:
        at = int(np.flatnonzero((y < -1) | (y >= _MOST_CLASSES))[0])
        raise bad(
            name, f"expected classes from 0 to {_MOST_CLASSES - 1}, or -1 for unlabelled, found {y[at]} at node {at}"
        )
    if y.max() < 0:
        raise bad(name, "expected at least one labelled node, found none")
    return y.astype(np.int32)


def read_splits(members: Members, num_nodes: int) -> list[dict[str, NDArray[np.int32]]]:
    """For each published split the sorted ids of train, valid and test; empty where the data set brings none."""
    _check_names(members)
    if _LISTS[0] in members:
        found = [
            {
                split: check_list(members.bad, name, members[name], num_nodes)
                for split, name in zip(SPLITS, _LISTS, strict=True)
            }
        ]
    elif _MASKS[0] in members:
        tables = [_table(members, name, num_nodes) for name in _MASKS]
        if len({len(table) for table in tables}) > 1:
            counts = ", ".join(str(len(table)) for table in tables)
            raise members.bad(_MASKS[0], f"expected as many splits in {', '.join(_MASKS)}, found {counts}")
        found = [
            {split: np.flatnonzero(table[s]).astype(np.int32) for split, table in zip(SPLITS, tables, strict=True)}
            for s in range(len(tables[0]))
        ]
    else:
        return []
    names = _LISTS if _LISTS[0] in members else _MASKS
    for number, split in enumerate(found):
        check_disjoint(
            members.bad, dict(zip(SPLITS, names, strict=True)), f" in split {number}" * (len(found) > 1), split
        )
    return found


def _check_names(members: Members) -> None:
    """Refuse half a split, two kinds at once, and what looks like a split under a name that would be ignored."""
    known = (*_LISTS, *_MASKS)
    for name in members.names():
        if name.startswith(_SPLIT_PREFIXES) and name not in known:
            nearest = (difflib.get_close_matches(name, known, n=1, cutoff=0.0) or [known[0]])[0]
            raise members.bad(name, f"expected one of {', '.join(known)}, found an unknown name; nearest is {nearest}")
    present = [name for name in known if name in members]
    for kind in (_LISTS, _MASKS):
        missing = [name for name in kind if name not in present]
        if 0 < len(missing) < len(kind):
            beside = next(name for name in kind if name in present)
            raise members.bad(missing[0], f"expected this member beside {beside}, found none")
    if len(present) > len(SPLITS):
        raise members.bad(_MASKS[0], f"expected either {_LISTS[0]} or {_MASKS[0]}, found both")


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


def _table(members: Members, name: str, num_nodes: int) -> NDArray[Any]:
    table = np.atleast_2d(members[name])
    if table.ndim != 2 or table.shape[1] != num_nodes or table.shape[0] == 0 or table.dtype.kind not in "biu":
        raise members.bad(
            name, f"expected booleans of shape (S, {num_nodes}), found shape {table.shape} of {table.dtype}"
        )
    if table.dtype.kind != "b" and not np.isin(table, (0, 1)).all():
        raise members.bad(name, f"expected booleans, 0 or 1, found {table[~np.isin(table, (0, 1))][0]}")
    return table


def check_disjoint(bad: Bad, names: dict[str, str], where: str, split: dict[str, NDArray[np.int32]]) -> None:
    """Refuse a split with an empty part or a node in two; `names` says the field behind each part."""
    for name, ids in split.items():
        if len(ids) == 0:
            raise bad(names[name], f"expected at least one node, found an empty split{where}")
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(split[first], split[second], assume_unique=True)
        if both.size:
            raise bad(
                names[second],
                f"expected no node of {names[first]}, found node {both[0]} in both{where}: splits overlap",
            )
