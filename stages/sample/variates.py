"""One random number for every (key, vertex), computed where it is needed: the same for any thread,
shard and rank.

Batches depend on each other by variates that drift (Balin et al., arXiv 2310.12403, section
"Dependent batches"): two independent normals of a vertex are turned into each other along a quarter
circle, so each variate stays exactly uniform, and those of consecutive batches correlate by cos(pi
/ (2 kappa)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import uint64

from stockpot.stages.kernels.compiled import njit
from stockpot.stages.kernels.splitmix import GOLDEN, MASK, mixed64
from stockpot.stages.kernels.splitmix_kernel import mix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Drift", "drift", "edge_key", "inverse_normal", "key", "uniform", "uniforms", "variate"]


@dataclass(frozen=True)
class Drift:
    """Keys of a batch's variates: n = cos * N(first) + sin * N(second), r = Phi(n).

    Attributes
    ----------
    first, second : 64-bit keys, one pair a layer; `sin` = 0 reads the first alone.
    cos, sin : of the batch's phase.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    cos: float
    sin: float


def key(*parts: int) -> int:
    """A 64-bit key from integers: splitmix64 chained over them.

    >>> key(0, 1) != key(1, 0)
    True
    """
    state = 0
    for part in parts:
        state = mixed64((state + part * GOLDEN + GOLDEN) & MASK)
    return state


def drift(
    seed: int, batch: int, kappa: int | None, layers: int, *, layer_dependency: bool = False
) -> Drift:
    """Keys and phase of one batch.

    Parameters
    ----------
    seed : of all variates.
    batch : number of the batch, from 0, in the order of generation.
    kappa : batches from one pair of independent variates to the next, at least 1; None: one set of
        variates for ever.
    layers : key pairs.
    layer_dependency : all layers share one.

    Batch i has group g = i // kappa and phase f = (i mod kappa) / kappa, and turns from the group's
    variates to those of the next: cos(pi f / 2), sin(pi f / 2).

    >>> drift(0, 5, 4, 1).first == drift(0, 4, 4, 1).first == drift(0, 3, 4, 1).second
    True
    """
    group, step = (0, 0) if kappa is None else divmod(batch, kappa)
    phase = 0.0 if kappa is None else math.pi * step / (2 * kappa)
    levels = [0 if layer_dependency else layer for layer in range(layers)]
    return Drift(
        tuple(key(seed, group, level) for level in levels),
        tuple(key(seed, group + 1, level) for level in levels),
        math.cos(phase),
        math.sin(phase) if step else 0.0,
    )


@njit(cache=True, nogil=True)
def edge_key(key: int, row: int) -> int:
    """Key of the edges into `row`: u8, for variates by edge."""
    return mix64(uint64(key) + uint64(row + 1) * uint64(GOLDEN))


@njit(cache=True, nogil=True)
def uniform(key: int, vertex: int) -> float:
    """Uniform in (0, 1) of a vertex under a key (u8): splitmix64 (Steele et al. 2014), entry
    `vertex` of its stream.

    An odd multiple of 2^-53, so neither 0 nor 1 and symmetric about a half.
    """
    bits = mix64(uint64(key) + uint64(vertex + 1) * uint64(GOLDEN))
    return ((bits >> uint64(12)) * 2.0 + 1.0) * 1.1102230246251565e-16


@njit(cache=True, nogil=True)
def uniforms(key: int, vertices: NDArray[np.int32], out: NDArray[np.float64]) -> None:
    """`uniform` of vertices i4[n] into the first n entries of `out`: a loop the compiler takes
    eight at a time.
    """
    start = uint64(key) + uint64(GOLDEN)
    for j in range(vertices.size):
        bits = mix64(start + uint64(vertices[j]) * uint64(GOLDEN))
        out[j] = (np.int64(bits >> uint64(12)) * 2.0 + 1.0) * 1.1102230246251565e-16


@njit(cache=True, nogil=True)
def variate(first: int, second: int, cos: float, sin: float, vertex: int) -> float:
    """The uniform of a vertex in a drifting batch, see `Drift`. Keys u8. Without drift it is
    `uniform(first, vertex)`: Phi(N) is the uniform that N was made from.
    """
    u = uniform(first, vertex)
    if sin == 0.0:
        return u
    n = cos * inverse_normal(u) + sin * inverse_normal(uniform(second, vertex))
    return 0.5 * math.erfc(-n * 0.7071067811865476)


@njit(cache=True, nogil=True)
def inverse_normal(u: float) -> float:
    """Standard normal quantile of u in (0, 1), to about 1e-16 relative: Wichura's AS 241, PPND16
    (1988).
    """
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        a = 2509.0809287301226727 * r + 33430.575583588128105
        a = (a * r + 67265.770927008700853) * r + 45921.953931549871457
        a = (a * r + 13731.693765509461125) * r + 1971.5909503065514427
        a = (a * r + 133.14166789178437745) * r + 3.387132872796366608
        b = 5226.495278852545925 * r + 28729.085735721942674
        b = (b * r + 39307.89580009271061) * r + 21213.794301586595867
        b = (b * r + 5394.1960214247511077) * r + 687.1870074920579083
        b = (b * r + 42.313330701600911252) * r + 1.0
        return q * a / b
    r = math.sqrt(-math.log(min(u, 1.0 - u)))
    if r <= 5.0:
        r -= 1.6
        a = 7.7454501427834140764e-4 * r + 0.0227238449892691845833
        a = (a * r + 0.24178072517745061177) * r + 1.27045825245236838258
        a = (a * r + 3.64784832476320460504) * r + 5.7694972214606914055
        a = (a * r + 4.6303378461565452959) * r + 1.42343711074968357734
        b = 1.05075007164441684324e-9 * r + 5.475938084995344946e-4
        b = (b * r + 0.0151986665636164571966) * r + 0.14810397642748007459
        b = (b * r + 0.68976733498510000455) * r + 1.6763848301838038494
        b = (b * r + 2.05319162663775882187) * r + 1.0
    else:
        r -= 5.0
        a = 2.01033439929228813265e-7 * r + 2.71155556874348757815e-5
        a = (a * r + 0.0012426609473880784386) * r + 0.026532189526576123093
        a = (a * r + 0.29656057182850489123) * r + 1.7848265399172913358
        a = (a * r + 5.4637849111641143699) * r + 6.6579046435011037772
        b = 2.04426310338993978564e-15 * r + 1.4215117583164458887e-7
        b = (b * r + 1.8463183175100546818e-5) * r + 7.868691311456132591e-4
        b = (b * r + 0.0148753612908506148525) * r + 0.13692988092273580531
        b = (b * r + 0.59983220655588793769) * r + 1.0
    return a / b if q > 0 else -a / b
