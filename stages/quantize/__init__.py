"""Feature rows as bytes: raw fp32 or fp16, or binary columns without loss, decoded exactly as they were described."""

from stockpot.stages.quantize.stage import STAGE

__all__ = ["STAGE"]
