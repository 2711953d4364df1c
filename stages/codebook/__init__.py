"""Fits what a lossy codec encodes with: one pass for statistics and a sample, then training on the
sample.
"""

from stockpot.stages.codebook.stage import STAGE

__all__ = ["STAGE"]
