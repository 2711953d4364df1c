"""Influence batches: which outputs share a record, and which nodes matter most to them (arXiv
2212.09083).
"""

from stockpot.stages.influence.stage import STAGE

__all__ = ["STAGE"]
