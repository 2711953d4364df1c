"""Asks the chosen model what the features' code costs it: on validation records with fp32 rows and with coded ones."""

from stages.codeloss.stage import STAGE

__all__ = ["STAGE"]
