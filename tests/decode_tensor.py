"""Codes as torch decodes them, on any device: the same bits as
`stockpot.stages.codec.format.decode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stockpot.stages.codec.format import EXACT
from stockpot.stages.errors import BadInput

if TYPE_CHECKING:
    from stockpot.stages.codec.format import Codec

__all__ = ["code_ids", "decode_tensor"]


def code_ids(codec: Codec, codes: torch.Tensor) -> torch.Tensor:
    """i8[n, units], the codes of rows u1[n, row_bytes]."""
    unit = codec.lookup.unit
    if unit == 1:
        return codes.long()
    return _whole(codes.reshape(len(codes), -1, unit))


def _whole(parts: torch.Tensor) -> torch.Tensor:
    """i8[...] of little-endian u1[..., width]: wider unsigned types have few operations in
    torch."""
    parts = parts.long()
    return sum((parts[..., k] << (8 * k) for k in range(1, parts.shape[-1])), parts[..., 0])


def decode_tensor(
    codec: Codec, codes: torch.Tensor, code_indptr: torch.Tensor | None = None
) -> torch.Tensor:
    """Feature rows f4[n, num_features] of codes u1[n, row_bytes], on their device.

    Preconditions: codes are inside their tables or rows (checksums are verified where they are
    read).

    Parameters
    ----------
    codes : contiguous; u1[total] where rows vary in length.
    code_indptr : i8[n + 1], first byte of each row, where rows vary in length.
    """
    if codec.name in EXACT:
        return _exact(codec, codes, code_indptr)
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


def _exact(codec: Codec, codes: torch.Tensor, code_indptr: torch.Tensor | None) -> torch.Tensor:
    if codec.name in ("fp32", "fp16"):
        return codes.view(torch.float32 if codec.name == "fp32" else torch.float16).float()
    if codec.name == "lossless-bits":
        places = torch.arange(8, device=codes.device, dtype=torch.uint8)
        return ((codes[:, :, None] >> places) & 1).flatten(1)[:, : codec.num_features].float()
    if code_indptr is None:
        raise BadInput("codes of varying length: expected code_indptr beside them, found none")
    width, index = codec.entry_bytes, int(codec.index_bytes or 0)
    counts = (code_indptr[1:] - code_indptr[:-1]) // width
    row = torch.repeat_interleave(torch.arange(len(counts), device=codes.device), counts)
    # Entry k of a row: its value is the k-th of the row, its id the k-th behind all values.
    k = torch.arange(len(row), device=codes.device) - torch.repeat_interleave(
        torch.cumsum(counts, 0) - counts, counts
    )
    start, values = code_indptr[:-1][row], torch.ones(len(row), device=codes.device)
    if codec.name == "lossless-values":
        at = (start + 4 * k)[:, None] + torch.arange(4, device=codes.device)
        values = codes[at].contiguous().view(torch.float32)[:, 0]
        start = start + 4 * counts[row]
    ids = _whole(codes[(start + index * k)[:, None] + torch.arange(index, device=codes.device)])
    out = torch.zeros((len(counts), codec.num_features), device=codes.device)
    out[row, ids] = values
    return out
