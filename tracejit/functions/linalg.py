"""``tj.linalg``: matrix decompositions, and the array API's linear algebra names.

Decompositions run in LAPACK through NumPy; they take stacks of matrices. Integers become float64.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tracejit.errors import ValueArgumentError
from tracejit.functions import elementwise, movement, products, reductions
from tracejit.functions.arguments import Axis, fail, some_axes
from tracejit.functions.movement import matrix_transpose
from tracejit.functions.products import (
    cross,
    matmul,
    matrix_power,
    multi_dot,
    outer,
    tensordot,
    vecdot,
)
from tracejit.tensor import Tensor, apply, lift, record

__all__ = [
    "cholesky", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "inv",
    "lstsq", "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose",
    "multi_dot", "norm", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot",
    "trace", "vecdot", "vector_norm",
]  # fmt: skip


class QR(NamedTuple):
    Q: Tensor
    R: Tensor


class SVD(NamedTuple):
    U: Tensor
    S: Tensor
    Vh: Tensor


class Eigen(NamedTuple):
    eigenvalues: Tensor
    eigenvectors: Tensor


class SLogDet(NamedTuple):
    sign: Tensor
    logabsdet: Tensor


def inv(x: Any, /) -> Tensor:
    """Return the inverse of square matrices."""
    return record("inv", (x,))


def pinv(x: Any, /) -> Tensor:
    """Return the pseudo-inverse."""
    return record("pinv", (x,))


def det(x: Any, /) -> Tensor:
    """Return the determinant of square matrices."""
    return record("det", (x,))


def slogdet(x: Any, /) -> SLogDet:
    """Return the sign of the determinant and the logarithm of its magnitude."""
    return SLogDet(record("slogdet_sign", (x,)), record("slogdet_log", (x,)))


def cholesky(x: Any, /, *, upper: bool = False) -> Tensor:
    """Return L with x = L Lᴴ, or its conjugate transpose with ``upper``."""
    factor = record("cholesky", (x,))
    return movement.adjoint(factor) if upper else factor


def qr(x: Any, /, *, mode: str = "reduced") -> QR:
    """Return Q with orthonormal columns and upper triangular R, x = Q R."""
    if mode != "reduced":
        raise fail(ValueArgumentError, f"qr: mode {mode!r} is not 'reduced'")
    return QR(record("qr_q", (x,)), record("qr_r", (x,)))


def svd(x: Any, /, full_matrices: bool = False) -> SVD:
    """Return U, the singular values from the largest on, and Vᴴ: the reduced decomposition."""
    if full_matrices:
        raise fail(ValueArgumentError, "svd: only the reduced decomposition", "full_matrices=False")
    return SVD(record("svd_u", (x,)), record("svd_s", (x,)), record("svd_vh", (x,)))


def svdvals(x: Any, /) -> Tensor:
    """Return the singular values from the largest on."""
    return record("svd_s", (x,))


def eigh(x: Any, /) -> Eigen:
    """Return eigenvalues (rising) and eigenvectors of Hermitian matrices; reads the lower half."""
    return Eigen(record("eigvalsh", (x,)), record("eigvecsh", (x,)))


def eigvalsh(x: Any, /) -> Tensor:
    """Return the eigenvalues of Hermitian matrices, rising."""
    return record("eigvalsh", (x,))


def eig(x: Any, /) -> Eigen:
    """Return eigenvalues and eigenvectors, always complex."""
    return Eigen(record("eigvals", (x,)), record("eigvecs", (x,)))


def eigvals(x: Any, /) -> Tensor:
    """Return the eigenvalues, always complex."""
    return record("eigvals", (x,))


def matrix_rank(x: Any, /) -> Tensor:
    """Return the number of singular values that are not negligible."""
    return record("matrix_rank", (x,))


def solve(a: Any, b: Any, /) -> Tensor:
    """Return x with a x = b; ``b`` is one vector, or matrices of columns."""
    left, right = lift(a), lift(b)
    if right.ndim == 1:
        column = apply("reshape", (right,), shape=(right.size, 1))
        return movement.squeeze(record("solve", (left, column)), -1)
    return record("solve", (left, right))


def lstsq(a: Any, b: Any, /) -> Tensor:
    """Return the x of least |a x − b|."""
    left, right = lift(a), lift(b)
    if right.ndim == 1:
        column = apply("reshape", (right,), shape=(right.size, 1))
        return movement.squeeze(record("lstsq", (left, column)), -1)
    return record("lstsq", (left, right))


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """Return a norm of the matrices in the last two axes: 1, 2, inf, their negatives, fro, nuc."""
    result = record("matrix_norm", (x,), ord=ord)
    return movement.expand_dims(result, (-2, -1)) if keepdims else result


def vector_norm(
    x: Any, /, ord: float = 2, axis: Axis = None, keepdims: bool = False, *,
    dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return (Σ|x|^ord)^(1/ord) over ``axis``."""
    return reductions.reduce("norm", x, axis, keepdims, dim, keepdim, ord=ord)


def norm(
    x: Any, /, ord: Any = None, axis: Axis = None, keepdims: bool = False, *,
    dim: Axis = None, keepdim: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return ``numpy.linalg.norm``: of matrices over two axes, else of vectors."""
    value = lift(x)
    axis = axis if dim is None else dim
    keepdims = keepdims if keepdim is None else keepdim
    axes = some_axes("norm", axis, value.shape)
    matrix = len(axes) == 2 and ord is not None
    if not matrix or (ord in (1, -1, math.inf, -math.inf, "fro")):
        return products.norm(value, ord, axis, keepdims)
    result = matrix_norm(movement.moveaxis(value, axes, (-2, -1)), ord=ord)
    if not keepdims:
        return result
    for place in sorted(axes):
        result = movement.expand_dims(result, place)
    return result


def cond(x: Any, /, p: Any = None) -> Tensor:
    """Return the condition number: by default the ratio of extreme singular values."""
    value = lift(x)
    if p is None or p == 2:
        values = svdvals(value)
        return elementwise.divide(
            reductions.amax(values, axis=-1), reductions.amin(values, axis=-1)
        )
    return elementwise.multiply(matrix_norm(value, ord=p), matrix_norm(inv(value), ord=p))


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """Return a diagonal of the last two axes."""
    return movement.diagonal(x, offset, -2, -1)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """Return the sum of a diagonal of the last two axes."""
    return movement.trace(x, offset, -2, -1, dtype)
