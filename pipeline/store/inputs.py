"""What a task reads: artifacts of its store, and a source outside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stockpot.stages.ingest.source import Source

__all__ = ["ArtifactInput", "SourceInput"]


@dataclass(frozen=True)
class ArtifactInput:
    """A committed artifact of the same store as input."""

    stage: str
    key: str


@dataclass(frozen=True)
class SourceInput:
    """A data set or file outside the store as input, with the digest the plan found."""

    source: Source
    digest: str
