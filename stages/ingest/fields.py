"""A name in a data set is taken, refused with the nearest name, or left out on purpose and said:
never passed over.

Names are those of PyG's and OGB's data sets and of the code that is usually written around them.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stockpot.stages.errors import BadInput

__all__ = ["ALIASES", "PARTS", "Fields", "Refuse", "nearest_name", "split_name", "take"]

PARTS = ("train", "valid", "test")
"""Parts of a split, as they are called here."""

ALIASES = {
    "edge_index": (),
    "edge_weight": ("edge_weights", "weight", "weights"),
    "num_nodes": ("num_nodes_list",),
    "x": (
        "feat",
        "feats",
        "feature",
        "features",
        "node_feat",
        "node_feats",
        "node_feature",
        "node_features",
    ),
    "x_data": (),
    "x_indices": (),
    "x_indptr": (),
    "x_shape": (),
    "y": ("label", "labels", "node_label", "node_labels"),
}
"""Name of an array in the npz format -> other names under which it is taken."""

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}

_SPLIT = re.compile(
    r"(?:split_?)?(?:(?P<before>idx|index|ids|nid|masks?)_?)?"
    r"(?P<part>training|train|validation|valid|val|dev|test)"
    r"(?:_?(?P<after>idxs?|index|indexes|indices|ids?|nids?|nodes?|masks?))?(?:_?split)?"
)
_PART_OF = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid"}
_DOCUMENTED = {f"{part}_{kind}" for part in PARTS for kind in ("idx", "masks")}
"""Names of splits that every version took."""

_LEFT_OUT = {
    *("edge_type", "edge_reltype", "edge_year", "edge_id", "e_id"),
    *(
        "node_id",
        "node_ids",
        "n_id",
        "input_id",
        "node_type",
        "node_year",
        "node_species",
        "node_tag",
    ),
    *("graph_id", "graph_label", "batch", "ptr", "pos", "mag_paper_id", "paper_id", "year"),
    *(
        "num_edges",
        "num_edges_list",
        "num_classes",
        "num_features",
        "num_node_features",
        "name",
        "vocab",
    ),
}
"""Usual names that describe a graph and are no part of what is learned from it here."""

_NO_EDGE_FEATURES = "features of edges are not available in this version"
_REFUSED = {
    "edge_attr": _NO_EDGE_FEATURES,
    "edge_attrs": _NO_EDGE_FEATURES,
    "edge_feat": _NO_EDGE_FEATURES,
    "edge_feats": _NO_EDGE_FEATURES,
    "edge_features": _NO_EDGE_FEATURES,
    "edge_time": "times of edges are not available in this version",
    "adj": "edges are given as edge_index (2, E)",
    "adj_t": "edges are given as edge_index (2, E)",
    "stopping_mask": "a split has three parts: train, valid, test",
    "stopping_masks": "a split has three parts: train, valid, test",
}


class Refuse(Protocol):
    """Makes the error about a name: what is wrong with it and, where the usual one does not do, the
    mend.
    """

    def __call__(self, name: str, text: str, fix: str | None = None) -> BadInput: ...


@dataclass(frozen=True)
class Fields:
    """What the names of a data set stand for.

    Attributes
    ----------
    given : name of the npz format -> the name in the data set.
    splits : "train", "valid", "test" -> the name in the data set; all three or none.
    kinds : "train", ... -> "idx" or "mask" as the name says, "" where its dtype tells.
    left_out : names that are left out on purpose, sorted.
    """

    given: Mapping[str, str]
    splits: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def reading(self) -> str:
        """What is taken now and earlier versions passed over, "" for nothing: it belongs into
        keys.
        """
        names = [f"{name}={given}" for name, given in sorted(self.given.items()) if given != name]
        names += [
            f"{part}={given}"
            for part, given in sorted(self.splits.items())
            if given not in _DOCUMENTED
        ]
        return ";".join(names)


def split_name(name: str) -> tuple[str, str] | None:
    """("train" | "valid" | "test", "idx" | "mask" | "") of a name like train_idx, idx_val,
    testmask; None of others.
    """
    found = _SPLIT.fullmatch(_plain(name))
    if found is None:
        return None
    said = found["before"] or found["after"] or ""
    kind = "mask" if said.startswith("mask") else "idx" if said else ""
    return _PART_OF.get(found["part"], found["part"]), kind


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name most like this one."""
    return difflib.get_close_matches(_plain(name), list(known), n=1, cutoff=0.0)[0]


def take(
    names: Iterable[str], refuse: Refuse, is_text: Callable[[str], bool], leave: str
) -> Fields:
    """What each name stands for.

    Parameters
    ----------
    refuse : makes the error about a name.
    is_text : whether an array holds strings: names of nodes, a vocabulary; asked of unknown names
        only.
    leave : how a name is left out, for the mend, with `{name}` for it.

    Raises
    ------
    BadInput
        A name is not understood, two names stand for the same array, or part of a split is missing.
    """
    given: dict[str, str] = {}
    splits: dict[str, str] = {}
    kinds: dict[str, str] = {}
    left_out = []
    for name in sorted(names):
        plain, part = _plain(name), split_name(name)
        if part is not None:
            beside = splits.setdefault(part[0], name)
            if beside != name:
                raise refuse(
                    beside,
                    f"expected each part of a split once, found also {name}",
                    _leave(leave, name),
                )
            kinds[part[0]] = part[1]
        elif plain in _CANONICAL:
            beside = given.setdefault(_CANONICAL[plain], name)
            if beside != name:
                what = _CANONICAL[plain]
                raise refuse(
                    beside, f"expected {what} once, found also {name}", _leave(leave, name)
                )
        elif plain in _REFUSED:
            mend = _leave(leave, name)
            if _REFUSED[plain] is _NO_EDGE_FEATURES:
                mend = f"where it is one weight an edge, name it edge_weight; else {mend}"
            raise refuse(name, f"expected no such array, found one: {_REFUSED[plain]}", mend)
        elif plain in _LEFT_OUT or is_text(name):
            left_out.append(name)
        else:
            near = nearest_name(name, [*_CANONICAL, *sorted(_DOCUMENTED)])
            text = f"expected a known name, found an unknown one; nearest is {near}"
            raise refuse(name, text, f"name it {near} where it is that; else {_leave(leave, name)}")
    _check_split(splits, kinds, refuse)
    return Fields(given, splits, kinds, tuple(left_out))


def _leave(leave: str, name: str) -> str:
    return leave.format(name=name)


def _check_split(splits: Mapping[str, str], kinds: Mapping[str, str], refuse: Refuse) -> None:
    if not splits:
        return
    beside = next(splits[part] for part in PARTS if part in splits)
    for part in PARTS:
        if part not in splits:
            word = "val" if "mask" in beside and part == "valid" else part
            wanted = beside.replace(_part_as_written(beside), word)
            raise refuse(
                wanted,
                f"expected this member beside {beside}, found none",
                "write all of train, valid and test, or none of them: dataset.split then draws a "
                "split",
            )
    if len(set(kinds.values())) > 1:
        first, other = (
            splits["train"],
            next(splits[part] for part in PARTS if kinds[part] != kinds["train"]),
        )
        raise refuse(
            other,
            f"expected either lists of ids or masks in all three parts, found {first} and {other}",
            "write all three alike, as train_idx, valid_idx, test_idx",
        )


def _part_as_written(name: str) -> str:
    """The word for the part in the name of a split, as written."""
    found = _SPLIT.fullmatch(_plain(name))
    return "" if found is None else name[found.start("part") : found.end("part")]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
