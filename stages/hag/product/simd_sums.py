"""Sums of rows held in vector registers until they are whole: what a loop over memory reads and
writes once a term.

numba's own loop adds each row to the result in memory, behind a check that the two do not overlap:
half as fast for rows of 16 floats. The tile widths are lanes of an LLVM vector, which LLVM cuts to
what the machine has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["sum_1", "sum_4", "sum_16", "sum_64"]


def _tile(lanes: int) -> Any:
    """Intrinsic: `out[at : at + lanes] = scale * (sum of right[c] x[c] over the first entries + sum
    of buffer[c])`.

    x, buffer and out are flat, `dim` apart from row to row; `at` is `row * dim + off` of the result
    and `off` the same column in each row read. Entries start..mid of `indices` are rows of x,
    mid..stop rows of the buffer.
    """

    @intrinsic
    def tile(
        typingctx: Any,  # noqa: ARG001
        x: Any,
        right: Any,
        buffer: Any,
        indices: Any,
        start: Any,
        mid: Any,
        stop: Any,
        dim: Any,
        off: Any,
        scale: Any,
        out: Any,
        at: Any,
    ) -> Any:
        signature = types.void(
            x, right, buffer, indices, start, mid, stop, dim, off, scale, out, at
        )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def data(i: int) -> Any:
                return cgutils.create_struct_proxy(signature.args[i])(
                    context, builder, args[i]
                ).data

            x, right, buffer, indices, out = (data(i) for i in (0, 1, 2, 3, 10))
            start, mid, stop, dim, off, scale, at = (args[i] for i in (4, 5, 6, 7, 8, 9, 11))
            real = context.get_value_type(signature.args[0].dtype)
            vector, word = ir.VectorType(real, lanes), ir.IntType(64)
            align = 4 if signature.args[0].dtype == types.float32 else 8
            flags = ("contract",)

            def spread(value: Any) -> Any:
                empty, zero = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
                one = builder.insert_element(empty, value, zero)
                return builder.shuffle_vector(
                    one, empty, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                )

            def row(base: Any, c: Any) -> Any:
                place = builder.gep(base, [builder.add(builder.mul(c, dim), off)])
                found = builder.load(builder.bitcast(place, vector.as_pointer()))
                found.align = align
                return found

            total = cgutils.alloca_once(builder, vector)
            builder.store(ir.Constant(vector, [0.0] * lanes), total)
            step = ir.Constant(word, 1)
            with cgutils.for_range_slice(builder, start, mid, step) as (k, _):
                c = builder.zext(builder.load(builder.gep(indices, [k])), word)
                term = builder.fmul(
                    spread(builder.load(builder.gep(right, [c]))), row(x, c), flags=flags
                )
                builder.store(builder.fadd(term, builder.load(total), flags=flags), total)
            with cgutils.for_range_slice(builder, mid, stop, step) as (k, _):
                c = builder.zext(builder.load(builder.gep(indices, [k])), word)
                builder.store(builder.fadd(row(buffer, c), builder.load(total)), total)
            place = builder.bitcast(builder.gep(out, [at]), vector.as_pointer())
            builder.store(builder.fmul(spread(scale), builder.load(total)), place).align = align
            return context.get_dummy_value()

        return signature, generate

    return tile


sum_64, sum_16, sum_4, sum_1 = (_tile(lanes) for lanes in (64, 16, 4, 1))
