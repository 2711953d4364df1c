"""What a recipe asks of tiers: which share of the nodes has further stages, and of how many bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stages.errors import BadInput
from stages.quantize.names import MOST_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["tier_of"]


def tier_of(recipe: Mapping[str, Any], num_nodes: int) -> tuple[str, int]:
    """(residual code of further stages, number of exposed nodes); ("", 0) where none are asked for.

    Raises
    ------
    BadInput
        The share is no share, or there are too many bytes.
    """
    share, size = float(recipe.get("features.tier_share", 0.0)), int(recipe.get("features.tier_bytes", 1))
    if not 0 <= share <= 1:
        raise BadInput(
            f"features.tier_share: expected a share from 0 to 1, found {share}", fix="--set features.tier_share=0.05"
        )
    if not 1 <= size <= MOST_STAGES:
        raise BadInput(
            f"features.tier_bytes: expected 1 to {MOST_STAGES} bytes, found {size}", fix="--set features.tier_bytes=8"
        )
    rows = math.ceil(share * num_nodes)
    return (f"rq{size}", rows) if rows else ("", 0)
