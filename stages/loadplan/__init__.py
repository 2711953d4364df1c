"""Which rows of the features to read for each record of an epoch, and where in a cache of fixed
size they go.
"""

from stockpot.stages.loadplan.stage import STAGE

__all__ = ["STAGE"]
