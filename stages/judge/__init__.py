"""Judges lossy codes of features by short trainings of the recipe's model on records of a sample of
the graph.
"""

from stockpot.stages.judge.stage import STAGE

__all__ = ["STAGE"]
