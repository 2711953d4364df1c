"""Decides which nodes are trained, validated and tested on: a published split, or a seeded one."""

from stockpot.stages.split.stage import STAGE

__all__ = ["STAGE"]
