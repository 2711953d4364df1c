"""Judges how often features are multiplied by the graph, by short trainings of the recipe's model
on records of a sample of the graph.
"""

from stockpot.stages.hops.stage import STAGE

__all__ = ["STAGE"]
