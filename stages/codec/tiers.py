"""What a recipe asks of tiers: which share of the nodes has further stages, and of how many
bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["tier_of"]


def tier_of(recipe: Mapping[str, Any], num_nodes: int) -> tuple[str, int]:
    """(residual code of further stages, number of exposed nodes); ("", 0) where none are asked
    for.
    """
    share, size = (
        float(recipe.get("features.tier_share", 0.0)),
        int(recipe.get("features.tier_bytes", 1)),
    )
    rows = math.ceil(share * num_nodes)
    return (f"rq{size}", rows) if rows else ("", 0)
