"""Warm-up: the epochs that all ingredients share, trained once; every ingredient starts from what
they end with.
"""

from stockpot.stages.warmup.stage import STAGE

__all__ = ["STAGE"]
