"""The order in which records are trained on, so that steps in a row differ in their labels (arXiv
2212.09083).
"""

from stockpot.stages.order.stage import STAGE

__all__ = ["STAGE"]
