"""Multiplies the features by a matrix of the graph, once and again, and stores every product."""

from stockpot.stages.propagate.stage import STAGE

__all__ = ["STAGE"]
