"""What a run has built or found, as its stages speak of it in `summary.json`, the report and
remarks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.stages.node import Node, Values

__all__ = ["NOTICEABLE", "RECORDS", "TOLERANCE", "Block", "Built", "View", "pick", "sentence"]


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


@dataclass(frozen=True)
class View:
    """A run as a stage sees it when it speaks.

    Attributes
    ----------
    values : the recipe, dotted key -> value.
    built : node id -> its committed artifact; what is not built is not there.
    read : node id -> what `Reporting.read` found in its files, for the report.
    """

    values: Values
    built: Mapping[str, Built]
    read: Mapping[str, Any] = field(default_factory=dict)

    def facts(self, node: str) -> Mapping[str, Any]:
        """Facts of an artifact; empty where it is not built."""
        return self.built[node].facts if node in self.built else {}

    def of(self, *stages: str) -> Sequence[Built]:
        """The committed artifacts of the stages named."""
        return [b for b in self.built.values() if b.node.stage in stages]


@dataclass(frozen=True)
class Block:
    """A piece of the report.

    Attributes
    ----------
    section : title of the section it stands in; sections follow each other in the order of the
        stages.
    body : HTML.
    sentence : it stands below the tables and charts of its section.
    """

    section: str
    body: str
    sentence: bool = False


def pick(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The facts of these names, None where there is none."""
    return {name: facts.get(name) for name in names}


NOTICEABLE = 0.01
"""Share of accuracy from which a remark says that two figures disagree."""
TOLERANCE = 1e-9
"""Rounding that is no reason for a remark."""
RECORDS = "Mini-batch records"
"""Section of the report on records and what they hold."""


def sentence(text: str, section: str = RECORDS) -> Block:
    """A sentence of a section, HTML."""
    return Block(section, f"<p>{text}</p>", sentence=True)
