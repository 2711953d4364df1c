"""How large records are: neighbours kept and outputs in a record, measured on the graph before
anything is packed.
"""

from stockpot.stages.sizing.stage import STAGE

__all__ = ["STAGE"]
