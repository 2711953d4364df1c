"""Mini-batches as one contiguous, checksummed byte range each, in the order a reader needs them."""

from stockpot.stages.pack.stage import STAGE

__all__ = ["STAGE"]
