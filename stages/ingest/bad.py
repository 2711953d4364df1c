"""How the checks that all sources share say what is wrong with a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stockpot.stages.errors import BadInput

__all__ = ["Bad"]


class Bad(Protocol):
    """`DataSet.bad`, handed to the checks that all sources share."""

    def __call__(self, name: str, text: str, fix: str | None = None) -> BadInput: ...
