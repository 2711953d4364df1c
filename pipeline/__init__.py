"""stockpot: a large graph, once and offline, into stored mini-batches; models by streaming them,
souped into one.

What scripts import: `open_batches`, `open_records`, `open_model`, `open_student`, and
`HagAggregation` for models of torch_geometric. None imports Dask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.batches import open_batches, open_model, open_records, open_student
    from stockpot.stages.hag.module import HagAggregation

__all__ = ["HagAggregation", "open_batches", "open_model", "open_records", "open_student"]

_HOME = {"HagAggregation": "stockpot.stages.hag.module"}


def __getattr__(name: str) -> Any:
    # On first use: the command line imports this package too, and must not wait seconds for torch.
    if name in __all__:
        return getattr(import_module(_HOME.get(name, "stockpot.batches")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
