"""Teaches an MLP on propagated rows what the models say of every node: answers without the graph,
one row each.
"""

from stockpot.stages.student.stage import STAGE

__all__ = ["STAGE"]
