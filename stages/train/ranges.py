"""Ingredients differ a little in what they are trained with, each by its own draw: adding one
changes no other.
"""

from __future__ import annotations

import hashlib

__all__ = ["factor", "varied_odds"]


def factor(vary: float, seed: int, index: int, name: str) -> float:
    """Log-uniform in [1 / vary, vary], a function of its arguments; 1 for the first ingredient, the
    recipe as it is.

    Mild ranges around one good setting are what soups of one start gain from (DiWA, arXiv
    2205.09739, section 4).

    >>> factor(2.0, 0, 0, "lr"), factor(2.0, 0, 1, "lr") == factor(2.0, 0, 1, "lr")
    (1.0, True)
    """
    if index == 0 or vary == 1:
        return 1.0
    drawn = hashlib.blake2b(f"{seed}:{index}:{name}".encode(), digest_size=8).digest()
    return float(vary ** (2 * int.from_bytes(drawn, "big") / 2**64 - 1))


def varied_odds(share: float, by: float) -> float:
    """A share in [0, 1) whose odds share / (1 - share) are multiplied: it stays in [0, 1)."""
    return share * by / (1 - share + share * by)
