"""Judges how many nodes an output's set needs at inference, by the trained model on validation
outputs.
"""

from stockpot.stages.reach.stage import STAGE

__all__ = ["STAGE"]
