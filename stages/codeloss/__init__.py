"""Asks the chosen model what the features' code costs it: on validation records with fp32 rows and
with coded ones.
"""

from stockpot.stages.codeloss.stage import STAGE

__all__ = ["STAGE"]
