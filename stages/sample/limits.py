"""What can be sampled, in words a recipe's author can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["METHODS", "check", "check_kappa"]

METHODS = ("neighbor", "labor")


def check(method: str, fanouts: Sequence[int], importance_sampling: int, kappa: int | None) -> None:
    """Check a sampling's values; `kappa` None is without end.

    Raises
    ------
    BadInput
        A value is outside its range, or importances are asked of a method that has none.
    """
    if method not in METHODS:
        raise BadInput(
            f"batches.method: expected {' or '.join(METHODS)} to sample, found {method!r}"
        )
    if not fanouts or any(k < 1 and k != -1 for k in fanouts):
        raise BadInput(
            f"batches.fanouts: expected numbers of neighbours from 1, or -1 for all, found "
            f"{list(fanouts)}",
            fix="--set batches.fanouts=[10,10,10]",
        )
    check_kappa(kappa)
    if importance_sampling < -1:
        raise BadInput(
            "batches.importance_sampling: expected 0, a number of updates, or -1 for as many as it "
            "takes, "
            f"found {importance_sampling}",
            fix="--set batches.importance_sampling=0",
        )
    if importance_sampling and method != "labor":
        raise BadInput(
            f"batches.importance_sampling: expected 0 with method {method!r}, found "
            f"{importance_sampling}",
            fix="--set batches.importance_sampling=0, or --set batches.method=labor",
        )


def check_kappa(kappa: int | None) -> None:
    """Check `batches.kappa`; None is without end."""
    if kappa is not None and kappa < 1:
        raise BadInput(
            f"batches.kappa: expected at least 1 (independent batches) or inf (fixed neighbours), "
            f"found {kappa}",
            fix="--set batches.kappa=1",
        )
