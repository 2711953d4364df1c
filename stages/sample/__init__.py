"""Sampled batches: neighbour sampling and LABOR, independent or dependent, the same on any
machine.
"""

from stockpot.stages.sample.stage import STAGE

__all__ = ["STAGE"]
