"""Reads a data set once, checks all of it, and stores it as the one graph everything else is made
from.
"""

from stockpot.stages.ingest.stage import STAGE

__all__ = ["STAGE"]
