"""What a lossy codec encodes with, trained on a sample; arrays by name, as `stages.quantize.coder` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.quantize.names import parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["fit"]


def fit(name: str, sample: NDArray[np.float32], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Arrays that `Coder` encodes with: of `sqK`, `levels` f4[D, 2^K].

    Parameters
    ----------
    name : a lossy codec.
    sample : f4[n, D], finite, n >= 1, all rows or rows that represent them.
    """
    from stages.codebook.lloyd import lloyd_max

    del seed
    return {"levels": lloyd_max(sample, 2 ** parse(name).bits)}
