"""Feature rows as bytes: fp32, fp16, lossless codes of sparse or binary columns, lossy codes."""

from stockpot.stages.quantize.stage import STAGE

__all__ = ["STAGE"]
