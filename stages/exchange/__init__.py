"""Cooperative mini-batches: all ranks work on one batch, each row is read and computed by the one
rank that owns it.
"""

from stockpot.stages.exchange.stage import STAGE

__all__ = ["STAGE"]
