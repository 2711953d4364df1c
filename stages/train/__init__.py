"""GNNs trained by streaming packed records: the same weights whether interrupted or not, on one
machine class.
"""

from stockpot.stages.train.stage import STAGE

__all__ = ["STAGE"]
