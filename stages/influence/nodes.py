"""Outputs a user lists in a file: sorted unique ids of the graph, or an error that names the file
and the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_nodes"]

_NPY = b"\x93NUMPY"


def read_nodes(path: Path, num_nodes: int) -> NDArray[np.int32]:
    """Node ids of a file: a one-dimensional integer `.npy`, or text with ids apart by spaces,
    commas or lines.

    Returns
    -------
    i4[n], sorted, each once

    Raises
    ------
    BadInput
        The file is neither, is empty, or holds an id outside the graph.
    """
    with open(path, "rb") as file:
        binary = file.read(len(_NPY)) == _NPY
    ids = _array(path) if binary else _text(path)
    if len(ids) == 0:
        raise BadInput(f"infer.split: {path}: expected at least one node id, found none")
    wrong = np.flatnonzero((ids < 0) | (ids >= num_nodes))
    if len(wrong):
        at = wrong[0]
        raise BadInput(
            f"infer.split: {path}: entry {at}: expected a node id from 0 to {num_nodes - 1}, found "
            f"{ids[at]}"
        )
    return np.unique(ids).astype(np.int32)


def _array(path: Path) -> NDArray[np.integer]:
    try:
        ids = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadInput(
            f"infer.split: {path}: expected a .npy file of node ids, cannot read it: {error}"
        ) from error
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise BadInput(
            f"infer.split: {path}: expected one dimension of integers, found {ids.dtype} of shape "
            f"{ids.shape}",
            fix="save the ids as numpy int64, shape (n,)",
        )
    return ids


def _text(path: Path) -> NDArray[np.integer]:
    try:
        words = path.read_text(encoding="utf-8").replace(",", " ").split()
    except UnicodeDecodeError as error:
        raise BadInput(
            f"infer.split: {path}: expected a .npy file or text of node ids, found neither"
        ) from error
    ids = []
    for i, word in enumerate(words):
        try:
            ids.append(int(word))
        except ValueError:
            raise BadInput(
                f"infer.split: {path}: entry {i}: expected a node id, found {word[:40]!r}"
            ) from None
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        raise BadInput(
            f"infer.split: {path}: expected node ids, found {max(ids, key=abs)}"
        ) from None
