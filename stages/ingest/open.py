"""Whatever a recipe's source names is opened as a `DataSet`; each kind is one function, imported
when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stockpot.stages.errors import Conflict

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from stockpot.stages.ingest.source_data import DataSet
    from stockpot.stages.stage import Reader

__all__ = ["open_dataset"]

_KINDS = {
    "npz": "stockpot.stages.ingest.sources.npz:open_npz_dataset",
    "files": "stockpot.stages.ingest.sources.files:open_files",
    "ogb": "stockpot.stages.ingest.sources.ogb:open_ogb",
    "pyg": "stockpot.stages.ingest.sources.pyg:open_pyg",
    "synthetic": "stockpot.stages.ingest.sources.synthetic:open_synthetic",
}
"""Kind of source -> "module:function"; the function takes the source's reader and returns a context
manager."""


def open_dataset(reader: Reader) -> AbstractContextManager[DataSet]:
    """Open the data set behind a source's reader, by its fact `kind` ("npz" where it has none).

    Raises
    ------
    Conflict
        This version opens no such kind.
    BadInput
        On entering: the data set cannot be read, or its counts are wrong.
    """
    kind = str(reader.facts.get("kind", "npz"))
    if kind not in _KINDS:
        raise Conflict(
            f"source kind {kind!r}: this worker opens {', '.join(sorted(_KINDS))}",
            fix="install the same stockpot on every worker, restart the workers and run again",
        )
    module, _, function = _KINDS[kind].partition(":")
    opened: AbstractContextManager[DataSet] = getattr(import_module(module), function)(reader)
    return opened
