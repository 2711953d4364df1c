"""Partition of the nodes into parts of equal size with few edges between them, and the blocks that
ranks own.
"""

from stockpot.stages.partition.stage import STAGE

__all__ = ["STAGE"]
