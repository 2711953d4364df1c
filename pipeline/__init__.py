"""How work is run, and how its results are read: `open_batches`, `open_records`, `open_model`; none imports Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stockpot.batches import open_batches, open_model, open_records

__all__ = ["open_batches", "open_model", "open_records"]


def __getattr__(name: str) -> Any:
    # On first use: the command line imports this package too, and must not wait seconds for torch.
    if name in __all__:
        from stockpot import batches

        return getattr(batches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
