"""GNNs trained by streaming packed records: the same weights whether interrupted or not, on one machine class."""

from stages.train.stage import STAGE

__all__ = ["STAGE"]
