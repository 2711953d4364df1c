"""Soups: one model averaged from ingredients of one start, by `auto` never worse on validation than
the best.
"""

from stockpot.stages.soup.stage import STAGE

__all__ = ["STAGE"]
