"""Predictions of the chosen model for every output, and exact full-graph inference to compare
with.
"""

from stockpot.stages.infer.stage import STAGE

__all__ = ["STAGE"]
