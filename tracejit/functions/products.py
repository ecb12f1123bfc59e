"""Products: matmul, dot, einsum and their relatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracejit.errors import ArgumentError, AxisError, ShapeError, ValueArgumentError
from tracejit.functions.arguments import (
    Axis,
    alias,
    as_dtype,
    as_index,
    fail,
    is_sequence,
    some_axes,
)
from tracejit.functions.creation import filled
from tracejit.functions.joining import concat
from tracejit.functions.movement import diagonal, matrix_transpose, moveaxis
from tracejit.functions.reductions import reduce
from tracejit.ops.table import promote
from tracejit.tensor import Tensor, apply, cast, lift, record

__all__ = [
    "addmm", "baddbmm", "bmm", "chain_matmul", "corrcoef", "cov", "cross", "dot", "einsum", "ger",
    "inner", "kron", "matmul", "matrix_power", "mm", "multi_dot", "mv", "norm", "outer",
    "tensordot", "vdot", "vecdot", "vecmat", "vector_norm",
]  # fmt: skip


def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return apply("reshape", (x,), shape=shape)


def matmul(x1: Any, x2: Any, /, *, dtype: Any = None) -> Tensor:
    """Return the matrix product ``x1 @ x2``: vectors are rows on the left, columns on the right.

    Leading axes broadcast; 0-d operands are a ``ShapeError``. With ``dtype`` the operands count as
    of that dtype, and so do the sums: bytes with int32 give exact products of bytes.
    """
    a, b = lift(x1), lift(x2)
    if dtype is not None:
        wanted = as_dtype(dtype)
        a, b = cast(a, wanted), cast(b, wanted)
    if not a.ndim or not b.ndim:
        raise fail(ShapeError, "matmul: an operand is 0-d", "write a * b")
    row, column = a.ndim == 1, b.ndim == 1
    if row or column:
        if a.shape[-1] != b.shape[0 if column else -2]:
            raise fail(ShapeError, f"matmul: shapes {a.shape} and {b.shape} do not fit")
        left = _shaped(a, (1, a.size)) if row else a
        right = _shaped(b, (b.size, 1)) if column else b
        product = record("matmul", (left, right))
        shape = product.shape[: -2 if row else -1] + (() if column else product.shape[-1:])
        return _shaped(product, shape)
    return record("matmul", (a, b))


mm = bmm = mv = matmul


def dot(x1: Any, x2: Any, /) -> Tensor:
    """Return ``numpy.dot``: the last axis of ``x1`` with the second last (or only) of ``x2``."""
    a, b = lift(x1), lift(x2)
    if not a.ndim or not b.ndim:
        return record("multiply", (a, b))
    if a.ndim <= 2 and b.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, ((-1,), (-2 if b.ndim > 1 else -1,)))


def inner(x1: Any, x2: Any, /) -> Tensor:
    """Return the products summed over both last axes."""
    a, b = lift(x1), lift(x2)
    if not a.ndim or not b.ndim:
        return record("multiply", (a, b))
    return tensordot(a, b, ((-1,), (-1,)))


def outer(x1: Any, x2: Any, /) -> Tensor:
    """Return every product of an element of ``x1`` and one of ``x2``, as a matrix."""
    return record("outer", (x1, x2))


ger = outer


def vdot(x1: Any, x2: Any, /) -> Tensor:
    """Return Σ conj(x1)·x2 over all elements."""
    a, b = lift(x1), lift(x2)
    return record("vecdot", (_shaped(a, (a.size,)), _shaped(b, (b.size,))))


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """Return Σ conj(x1)·x2 along an axis; the other axes broadcast."""
    a, b = lift(x1), lift(x2)
    if axis != -1:
        a, b = moveaxis(a, axis, -1), moveaxis(b, axis, -1)
    return record("vecdot", (a, b))


def baddbmm(x: Any, m1: Any, m2: Any, /, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Return beta · x + alpha · (m1 @ m2) for batches of matrices."""
    for matrices in (lift(m1), lift(m2)):
        if matrices.ndim != 3:
            raise fail(ShapeError, f"baddbmm: shape {matrices.shape} is not a batch of matrices")
    return addmm(x, m1, m2, beta=beta, alpha=alpha)


def tensordot(x1: Any, x2: Any, /, axes: Any = 2, *, dims: Any = None) -> Tensor:
    """Return the products summed over ``axes``: the last n with the first n, or two lists."""
    axes = alias(axes, dims, "axes", "dims", 2)
    a, b = lift(x1), lift(x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise fail(AxisError, f"tensordot: {axes} axes of shapes {a.shape} and {b.shape}")
        left: Axis = tuple(range(a.ndim - axes, a.ndim))
        right: Axis = tuple(range(axes))
    else:
        left, right = axes
    axes_a, axes_b = some_axes("tensordot", left, a.shape), some_axes("tensordot", right, b.shape)
    if len(axes_a) != len(axes_b):
        raise fail(ShapeError, f"tensordot: {len(axes_a)} axes against {len(axes_b)}")
    return record("tensordot", (a, b), axes_a=axes_a, axes_b=axes_b)


def einsum(subscripts: Any, /, *operands: Any, optimize: Any = False) -> Tensor:
    """Return summed products by subscripts, ``einsum("ij,jk->ik", a, b)``; "..." broadcasts.

    The order of contraction is always chosen by cost; ``optimize`` is accepted and changes nothing.
    """
    if not isinstance(subscripts, str):
        raise fail(
            ArgumentError, "einsum takes its subscripts as text", "einsum('ij,jk->ik', a, b)"
        )
    if len(operands) == 1 and is_sequence(operands[0]):
        operands = tuple(operands[0])
    if not operands:
        raise fail(ValueArgumentError, "einsum: no operands")
    return record("einsum", [lift(x) for x in operands], subscripts=subscripts)


def kron(x1: Any, x2: Any, /) -> Tensor:
    """Return the Kronecker product."""
    return record("kron", (x1, x2))


def cross(x1: Any, x2: Any, /, *, axis: int = -1, dim: int | None = None) -> Tensor:
    """Return the vector product along an axis of size 3."""
    a, b = lift(x1), lift(x2)
    place = axis if dim is None else dim
    if place == -1:
        return record("cross", (a, b))
    turned = record("cross", (moveaxis(a, place, -1), moveaxis(b, place, -1)))
    return moveaxis(turned, -1, place)


def multi_dot(arrays: Sequence[Any], /) -> Tensor:
    """Return the matrix product of a chain, in the order of least work."""
    values = [lift(a) for a in arrays]
    if len(values) < 2:
        raise fail(ValueArgumentError, "multi_dot takes at least two arrays")
    first, last = values[0].ndim == 1, values[-1].ndim == 1
    if first:
        values[0] = _shaped(values[0], (1, values[0].size))
    if last:
        values[-1] = _shaped(values[-1], (values[-1].size, 1))
    if any(v.ndim != 2 for v in values):
        raise fail(ShapeError, "multi_dot takes matrices, and vectors at the ends")
    product = _chain(values)
    shape = product.shape[1 if first else 0 : 1 if last else 2]
    return _shaped(product, shape) if first or last else product


chain_matmul = multi_dot


def _chain(values: list[Tensor]) -> Tensor:
    # The matrix-chain dynamic program (Godbole 1973): cost[i, j] for the product of values i … j.
    n = len(values)
    sizes = [values[0].shape[0], *(v.shape[1] for v in values)]
    cost = {(i, i): 0 for i in range(n)}
    cut: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j], cut[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return values[i]
        return record("matmul", (product(i, cut[i, j]), product(cut[i, j] + 1, j)))

    return product(0, n - 1)


def matrix_power(x: Any, n: int, /) -> Tensor:
    """Return a square matrix to an integer power."""
    return record("matrix_power", (x,), n=as_index(n, "the exponent"))


def norm(
    x: Any, /, ord: Any = None, axis: Axis = None, keepdims: bool = False,
    *, p: Any = None, dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return vector norms over ``axis``; Frobenius over two axes; ``ord`` as in NumPy.

    Matrix norms of order 1, −1 and ±∞ are sums; order 2 of a matrix needs singular values and is
    in ``tj.linalg``.
    """
    value = lift(x)
    order = alias(ord, p, "ord", "p")
    where = alias(axis, dim, "axis", "dim")
    keep = bool(alias(keepdims, keepdim, "keepdims", "keepdim", False))
    axes = some_axes("norm", where, value.shape)
    if order is None or order == "fro":
        return reduce("norm", value, axes, keep, None, None, ord=2)
    if isinstance(order, str):
        raise fail(ValueArgumentError, f"norm: order {order!r} is not 'fro' or a number")
    matrix = len(axes) == 2 and (where is not None or value.ndim == 2) and p is None
    if not matrix:
        if len(axes) > 2 and where is None and ord is not None:
            raise fail(ValueArgumentError, f"norm: order {order} of a tensor of rank {value.ndim}")
        return reduce("norm", value, axes, keep, None, None, ord=order)
    if abs(order) not in (1, math.inf):
        raise fail(
            ValueArgumentError,
            f"norm: matrices have no order {order} here",
            "flatten for a vector norm; orders 1, -1, inf, -inf and 'fro' work",
        )
    rows, columns = axes
    added = rows if abs(order) == 1 else columns
    sums = reduce("sum", record("absolute", (value,)), added, True, None, None)
    best = reduce("max" if order > 0 else "min", sums, axes, True, None, None)
    if keep:
        return best
    return _shaped(best, tuple(n for i, n in enumerate(value.shape) if i not in axes))


vector_norm = norm


def addmm(x: Any, m1: Any, m2: Any, /, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """Return beta · x + alpha · (m1 @ m2)."""
    product = matmul(m1, m2)
    scaled = product if alpha == 1 else record("multiply", (product, alpha))
    return record("add", (x if beta == 1 else record("multiply", (x, beta)), scaled))


def cov(
    x: Any, y: Any = None, /, rowvar: bool = True, bias: bool = False, ddof: int | None = None,
    *, correction: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the covariance matrix of variables in rows (or columns), observations across.

    ``y`` holds further variables. Sums of products are divided by the number of observations less
    ``ddof`` (PyTorch's ``correction``): 1, or 0 with ``bias``. Computed in float64 (complex128) at
    least, as NumPy does.
    """
    parts = [_variables(part, rowvar) for part in ((x,) if y is None else (x, y))]
    if len({part.shape[1] for part in parts}) != 1:
        raise fail(ShapeError, f"cov: observations of {[part.shape[1] for part in parts]}")
    rows = parts[0] if len(parts) == 1 else concat(parts, 0)
    dtype = promote((rows.dtype, np.dtype(np.float64)))
    rows = record("multiply", (rows, filled((), 1, dtype)))
    centred = record("subtract", (rows, reduce("mean", rows, 1, True, None, None)))
    turned = matrix_transpose(record("conjugate", (centred,)))
    if ddof is None:
        ddof = (0 if bias else 1) if correction is None else correction
    freedom = max(rows.shape[1] - ddof, 0)
    result = record("divide", (record("matmul", (centred, turned)), freedom))
    return _shaped(result, ()) if result.size == 1 else result


def _variables(x: Any, rowvar: bool) -> Tensor:
    value = lift(x)
    if value.ndim > 2:
        raise fail(ShapeError, f"cov takes at most two axes; the shape is {value.shape}")
    if value.ndim < 2:
        return _shaped(value, (1, value.size))
    return value if rowvar else matrix_transpose(value)


def corrcoef(x: Any, y: Any = None, /, rowvar: bool = True) -> Tensor:
    """Return the correlation coefficients of variables in rows (or columns)."""
    covariance = cov(x, y, rowvar)
    if covariance.ndim == 0:
        return record("divide", (covariance, covariance))
    spread = record("sqrt", (record("real", (diagonal(covariance),)),))
    scaled = record("divide", (covariance, _shaped(spread, (*spread.shape, 1))))
    scaled = record("divide", (scaled, spread))
    if scaled.dtype.kind == "c":
        return scaled
    return record("clip", (scaled, -1, 1))


def vecmat(x1: Any, x2: Any, /) -> Tensor:
    """Return the products conj(x1) @ x2 of vectors along the last axis with matrices."""
    row = lift(x1)
    if row.ndim == 0:
        raise fail(ShapeError, "vecmat: the first operand needs an axis", "use tj.multiply")
    rows = _shaped(record("conjugate", (row,)), (*row.shape[:-1], 1, row.shape[-1]))
    result = matmul(rows, x2)
    return _shaped(result, (*result.shape[:-2], result.shape[-1]))
