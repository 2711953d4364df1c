"""Every error a user can cause is a `StockpotError`; those about stored bytes also say what to set
aside.
"""

from __future__ import annotations

from stockpot.stages.errors import (
    BadInput,
    Conflict,
    Corrupt,
    Interrupted,
    NonDeterminism,
    OverBudget,
    StockpotError,
)

__all__ = [
    "BadInput",
    "Conflict",
    "Corrupt",
    "CorruptArtifact",
    "CorruptShard",
    "Interrupted",
    "NonDeterminism",
    "OverBudget",
    "StockpotError",
]


class CorruptArtifact(Corrupt):
    """Bytes of the committed artifact `stage`/`key` do not match: `Store.quarantine` it, then build
    again.
    """

    def __init__(
        self, message: str, *, fix: str | None = None, stage: str = "", key: str = ""
    ) -> None:
        super().__init__(message, fix=fix)
        self.stage = stage
        self.key = key

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (_rebuild_artifact, (self.message, self.fix, self.stage, self.key))


class CorruptShard(Corrupt):
    """Bytes of a published but uncommitted shard do not match: `Store.retract` it, then build it
    again.
    """

    def __init__(
        self, message: str, *, fix: str | None = None, key: str = "", shard: str = ""
    ) -> None:
        super().__init__(message, fix=fix)
        self.key = key
        self.shard = shard

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (_rebuild_shard, (self.message, self.fix, self.key, self.shard))


def _rebuild_artifact(message: str, fix: str | None, stage: str, key: str) -> CorruptArtifact:
    return CorruptArtifact(message, fix=fix, stage=stage, key=key)


def _rebuild_shard(message: str, fix: str | None, key: str, shard: str) -> CorruptShard:
    return CorruptShard(message, fix=fix, key=key, shard=shard)
