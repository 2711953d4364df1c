"""Redundancy-free aggregation: partial sums that several rows share, searched once per fixed graph.

Source: arXiv 1906.03707.
"""

from stockpot.stages.hag.stage import STAGE

__all__ = ["STAGE"]
