"""Facts of artifacts not built yet, from counts alone, so that what cannot fit is refused before
anything runs.

Every guess errs on the large side. Facts that are exact are marked: an error they lead to is the
user's, now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LARGEST", "Guess", "Known", "known"]

LARGEST = 1.5
"""Largest record against the mean, as guesses have it."""


class Guess(dict[str, Any]):
    """Facts of which only `sure` are exact; `touched` tells whether anything else was read."""

    def __init__(
        self, values: Mapping[str, Any], sure: frozenset[str] | set[str] = frozenset()
    ) -> None:
        super().__init__(values)
        self.sure = frozenset(sure)
        self.touched = False

    def __getitem__(self, name: str) -> Any:
        self.touched |= name not in self.sure
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.touched |= name not in self.sure
        return super().get(name, default)

    def items(self) -> Any:
        self.touched = True
        return super().items()

    def values(self) -> Any:
        self.touched = True
        return super().values()


@dataclass(frozen=True)
class Known:
    """What `Planning.guess` may use.

    Attributes
    ----------
    values : the recipe's flat values and those of the node ("split", "index").
    params : resolved parameters of the node; perhaps of another version, or a fake's.
    facts : facts of its inputs by role; of "source" its counts
        (`stockpot.stages.ingest.source_counts`).
    """

    values: Mapping[str, Any]
    params: Any
    facts: Mapping[str, Mapping[str, Any]]

    def param(self, name: str, default: Any) -> Any:
        return getattr(self.params, name, default)

    @property
    def rounds(self) -> dict[str, Any]:
        """Rounds of the input "records", where there are several."""
        records = self.facts["records"]
        return {"rounds": records["rounds"]} if "rounds" in records else {}


def known(values: Mapping[str, Any], params: Any, facts: Mapping[str, Mapping[str, Any]]) -> Known:
    """The same as `Known`, of copies whose reading does not count as touching a guess."""
    return Known(values, params, {role: dict(_plain(f)) for role, f in facts.items()})


def _plain(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in facts:
        yield name, dict.__getitem__(facts, name) if isinstance(facts, dict) else facts[name]
