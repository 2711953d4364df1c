"""Measures once whether dense products are faster in bfloat16, for `train.precision = "auto"`."""

from stockpot.stages.calibrate.stage import STAGE

__all__ = ["STAGE"]
