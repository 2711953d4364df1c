"""What a run has built or found, as its report reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.planning.dag import Node

__all__ = ["Built"]


@dataclass(frozen=True)
class Built:
    """A committed artifact of a run: its node, where it is, and whether this run found it there."""

    node: Node
    manifest: Mapping[str, Any]
    cached: bool
    projected_bytes: int | None = None

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def facts(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.manifest["facts"]
        return facts

    def note(self, name: str) -> Any:
        """A figure noted by one of its shards, or None; see `Writer.note`."""
        for notes in self.manifest["notes"].values():
            if name in notes:
                return notes[name]
        return None
