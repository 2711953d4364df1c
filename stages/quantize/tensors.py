"""Additive codes as torch decodes them, on any device: the same bits as `stages.quantize.codec.decode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from stages.quantize.codec import Codec

__all__ = ["code_ids", "decode_tensor"]


def code_ids(codec: Codec, codes: torch.Tensor) -> torch.Tensor:
    """i8[n, units], the codes of rows u1[n, row_bytes]."""
    unit = codec.lookup.unit
    if unit == 1:
        return codes.long()
    # uint16 and uint32 have few operations in torch: bytes are put together by hand.
    parts = codes.reshape(len(codes), -1, unit).long()
    return sum((parts[:, :, k] << (8 * k) for k in range(1, unit)), parts[:, :, 0])


def decode_tensor(codec: Codec, codes: torch.Tensor) -> torch.Tensor:
    """Feature rows f4[n, num_features] of codes u1[n, row_bytes], on their device.

    Preconditions: `codec` is additive, codes are inside its tables (checksums are verified where they are read).
    """
    lookup, ids = codec.lookup, code_ids(codec, codes)
    out = torch.zeros((len(codes), codec.num_features), dtype=torch.float32, device=codes.device)
    done = 0
    for u in range(len(lookup)):
        lo, hi = int(lookup.lo[u]), int(lookup.hi[u])
        rows = torch.from_numpy(lookup.table(u)).to(codes.device)[ids[:, u]]
        fresh = max(min(done, hi) - lo, 0)
        out[:, lo : lo + fresh] += rows[:, :fresh]
        out[:, lo + fresh : hi] = rows[:, fresh:]
        done = max(done, hi)
    return out
