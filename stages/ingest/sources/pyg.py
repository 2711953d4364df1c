"""A data set of torch_geometric, processed anew from its raw files: never downloaded, never from a
stale cache.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.gathered import Gathered, Part
from stockpot.stages.ingest.sources.npz import NpzDataSet
from stockpot.stages.ingest.sources.pyg_source import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from stockpot.stages.ingest.sources.pyg_source import Named
    from stockpot.stages.stage import Reader

__all__ = ["open_pyg"]

_MASKS = {
    "train_masks": ("train_mask",),
    "valid_masks": ("val_mask", "valid_mask"),
    "test_masks": ("test_mask",),
}


@contextmanager
def open_pyg(reader: Reader) -> Iterator[NpzDataSet]:
    """Open a data set of torch_geometric; all of it is in memory, as torch_geometric holds it.

    torch_geometric is given a folder of its own that links to the raw files, so that what it
    processed before plays no part: the content is that of the digested files.
    """
    text, root = str(reader.facts["text"]), Path(str(reader.facts["root"]))
    named = parse(text)
    files = {name: reader.path(name) for name in reader.names()}
    with tempfile.TemporaryDirectory(prefix="stockpot-pyg-") as folder:
        for name, path in files.items():
            link = Path(folder) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        graph = _load(text, named, root, folder, embedded=not files)
    with ExitStack() as stack:
        yield NpzDataSet(
            _Tensors(text, _arrays(text, named, graph), _left_out(named, graph), stack)
        )


class _Tensors(Gathered):
    """Arrays of torch_geometric under the names of `npz:`."""

    def __init__(
        self,
        text: str,
        arrays: Mapping[str, NDArray[Any]],
        left_out: tuple[str, ...],
        stack: ExitStack,
    ) -> None:
        self._text = text
        super().__init__(
            Path(text),
            {name: Part(Path(text), values=values) for name, values in arrays.items()},
            stack,
        )
        self.fields = replace(self.fields, left_out=left_out)

    def bad(self, name: str, text: str, fix: str | None = None) -> BadInput:
        return BadInput(
            f"{self._text}: {name}: {text}", fix=fix or "correct it in a copy, written as npz:"
        )


def _load(text: str, named: Named, root: Path, folder: str, *, embedded: bool) -> Any:
    """The only graph of the data set."""
    with warnings.catch_warnings(action="ignore"):  # torch's, about what torch_geometric uses
        from torch_geometric import datasets

    cls = getattr(datasets, named.cls)

    def download(self: Any) -> None:
        missing = [
            os.path.relpath(path, folder) for path in self.raw_paths if not Path(path).exists()
        ]
        raise BadInput(
            f"{text}: missing in {root}: {', '.join(missing) or 'raw files'}",
            fix=f"move {root} away, then stockpot fetch RECIPE",
        )

    # Without the network: what is not there is said, not fetched.
    offline = (
        cls
        if embedded
        else type(cls.__name__, (cls,), {"download": download, "__module__": cls.__module__})
    )
    try:
        # "Processing...", and what torch, scipy and numpy say to torch_geometric.
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            dataset = offline(**named.arguments) if embedded else offline(folder, **named.arguments)
            count = len(dataset)
            graph = dataset[0] if count else None
    except BadInput:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            f"{text}: torch_geometric cannot read it: {said}",
            fix=f"move {root} away, then stockpot fetch RECIPE",
        ) from error
    if count != 1:
        raise BadInput(
            f"{text}: expected one graph, found {count}: data sets of several graphs are not "
            f"available in this version",
            fix="choose a data set for node classification",
        )
    return graph


def _left_out(named: Named, graph: Any) -> tuple[str, ...]:
    """Attributes of the graph that are not taken, sorted."""
    masks = [field for fields in _MASKS.values() for field in fields] if named.splits else []
    taken = {"edge_index", "num_nodes", "y", "x", "edge_weight", *masks}
    # The store of a graph is no dict: it cannot be iterated.
    return tuple(sorted(name for name in graph.keys() if name not in taken))  # noqa: SIM118


def _arrays(text: str, named: Named, graph: Any) -> dict[str, NDArray[Any]]:
    """The arrays of the npz format."""
    if hasattr(graph, "node_types"):
        raise BadInput(
            f"{text}: heterogeneous graphs are not available in this version",
            fix="choose a graph of one node type",
        )
    for field in ("edge_index", "y"):
        if getattr(graph, field, None) is None:
            raise BadInput(
                f"{text}: expected {field}, found {', '.join(sorted(graph.keys()))}",
                fix="choose a data set for node classification",
            )
    arrays = {
        "edge_index": graph.edge_index.numpy(),
        "num_nodes": np.array([graph.num_nodes]),
        "y": graph.y.numpy(),
        **_features(text, graph),
    }
    if getattr(graph, "edge_weight", None) is not None:
        arrays["edge_weight"] = graph.edge_weight.numpy()
    return {**arrays, **(_masks(text, graph) if named.splits else {})}


def _features(text: str, graph: Any) -> dict[str, NDArray[Any]]:
    import torch

    x = getattr(graph, "x", None)
    if x is None:
        return {}
    if hasattr(x, "to_torch_sparse_csr_tensor"):
        x = x.to_torch_sparse_csr_tensor()
    if not isinstance(x, torch.Tensor):
        raise BadInput(
            f"{text}: x: expected a tensor, found {type(x).__name__}", fix="choose another data set"
        )
    if x.layout == torch.strided:
        return {"x": x.numpy()}
    if x.layout == torch.sparse_coo:
        x = x.coalesce()
        rows, columns = x.indices().numpy()
        counts = np.bincount(rows, minlength=x.shape[0])
        return _csr(x, np.concatenate([[0], np.cumsum(counts)]), columns, x.values().numpy())
    return _csr(x, x.crow_indices().numpy(), x.col_indices().numpy(), x.values().numpy())


def _csr(
    x: Any, indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    return {"x_indptr": indptr, "x_indices": indices, "x_data": data, "x_shape": np.array(x.shape)}


def _masks(text: str, graph: Any) -> dict[str, NDArray[Any]]:
    """Masks (S, N) of published splits, from (N,) or (N, S); one of a single split serves all
    others.
    """
    found = {}
    for name, fields in _MASKS.items():
        field = next((field for field in fields if getattr(graph, field, None) is not None), None)
        if field is not None:
            mask = getattr(graph, field).numpy()
            found[name] = mask[None, :] if mask.ndim == 1 else mask.T
    if found and len(found) < len(_MASKS):
        missing = next(fields[0] for name, fields in _MASKS.items() if name not in found)
        raise BadInput(
            f"{text}: expected train_mask, val_mask and test_mask, found no {missing}",
            fix=f"set dataset.source to {_without_splits(text)}: dataset.split draws a split",
        )
    most = max((len(mask) for mask in found.values()), default=1)
    return {
        name: np.repeat(mask, most, axis=0) if len(mask) == 1 else mask
        for name, mask in found.items()
    }


def _without_splits(text: str) -> str:
    front, at, root = text.partition("@")
    return f"{front}{'&' if '?' in front else '?'}splits=none{at}{root}"
