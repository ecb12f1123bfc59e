"""Rows that call NumPy's libraries: LAPACK, FFT, convolution. Opaque to the code generator.

A function with several results is several rows (``svd_u``, ``svd_s``, ``svd_vh``). A singular or
indefinite matrix raises NumPy's LinAlgError when the value is computed. Leading axes are batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.table import (
    FLOAT64,
    INT64,
    Array,
    Aval,
    DType,
    Fact,
    Family,
    Shape,
    ShapeRule,
    TypesRule,
    broadcast_shapes,
    check_axes,
    common_types,
    complex_dtype,
    real_dtype,
    row,
    without,
)

Ints = tuple[int, ...]


def _lapack_types(name: str, result: DType | Callable[[DType], DType] | None = None) -> TypesRule:
    """Return the rule of LAPACK routines: single or double, real or complex; float16 is single."""
    rule = common_types(name, kinds="fc", integers_become=FLOAT64, result=result)

    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        wanted, _ = rule(dtypes)
        return (
            rule((np.dtype(np.float32),) * len(wanted)) if wanted[0].char == "e" else rule(dtypes)
        )

    return types


def _library(
    name: str,
    reference: Callable[..., Any],
    types: TypesRule,
    shape: ShapeRule,
    doc: str,
    arity: int = 1,
) -> None:
    row(
        name,
        Family.LIBRARY,
        reference,
        arity=arity,
        types=types,
        shape=shape,
        facts=Fact.EXPENSIVE,
        doc=doc,
    )


# -- shapes of matrices ----------------------------------------------------------------------------


def _matrix(name: str, x: Aval) -> tuple[Shape, int, int]:
    if len(x.shape) < 2:
        raise ShapeError(f"{name} needs a matrix, got shape {x.shape}")
    return x.shape[:-2], x.shape[-2], x.shape[-1]


def _square(name: str, *tail: int) -> ShapeRule:
    """Return the rule for a square matrix; its result keeps the last axes named in ``tail``."""

    def shape(x: Aval, **_: Any) -> Shape:
        lead, rows, columns = _matrix(name, x)
        if rows != columns:
            raise ShapeError(f"{name} needs a square matrix, got shape {x.shape}")
        return (*lead, *(x.shape[i] for i in tail))

    return shape


def _factor(name: str, pattern: str) -> ShapeRule:
    """Return the rule of a factor; ``pattern`` has m, n or k = min(m, n) for each axis."""

    def shape(x: Aval, **_: Any) -> Shape:
        lead, m, n = _matrix(name, x)
        sizes = {"m": m, "n": n, "k": min(m, n)}
        return (*lead, *(sizes[c] for c in pattern))

    return shape


def _solve_shape(a: Aval, b: Aval) -> Shape:
    _square("solve")(a)
    lead, rows, columns = _matrix("solve", b)
    if rows != a.shape[-1]:
        raise ShapeError(f"solve: a matrix of shape {a.shape} and right sides of shape {b.shape}")
    return (*broadcast_shapes("solve", [a.shape[:-2], lead]), rows, columns)


def _lstsq_shape(a: Aval, b: Aval) -> Shape:
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[0]:
        raise ShapeError(f"lstsq: a matrix of shape {a.shape}, right sides of shape {b.shape}")
    return (a.shape[1], b.shape[1])


# -- linear algebra --------------------------------------------------------------------------------


def numpy_function(path: str, **settings: Any) -> Callable[..., Any]:
    """Return ``numpy.<path>``, looked up at the first call: numpy.fft and random load lazily."""
    names = path.split(".")

    def reference(*operands: Any, **attrs: Any) -> Any:
        function: Any = np
        for name in names:
            function = getattr(function, name)
        return function(*operands, **settings, **attrs)

    return reference


def _pick(path: str, index: int, **settings: Any) -> Callable[[Array], Any]:
    function = numpy_function(path, **settings)

    def reference(x: Array) -> Any:
        return function(x)[index]

    return reference


def _as_complex(function: Callable[[Array], Any]) -> Callable[[Array], Array]:
    """Return the function with a complex result: NumPy's dtype would depend on the values."""

    def reference(x: Array) -> Array:
        return np.asarray(function(x), complex_dtype(x.dtype))

    return reference


def _lstsq(a: Array, b: Array) -> Any:
    return np.linalg.lstsq(a, b, rcond=None)[0]


def _matrix_rank(x: Array) -> Array:
    return np.asarray(np.linalg.matrix_rank(x), np.int64)


for _name, _reference, _result, _shape, _doc in [
    ("inv", numpy_function("linalg.inv"), None, _square("inv", -2, -1), "The inverse matrix."),
    ("pinv", numpy_function("linalg.pinv"), None, _factor("pinv", "nm"), "The pseudo-inverse."),
    ("det", numpy_function("linalg.det"), None, _square("det"), "The determinant."),
    ("slogdet_sign", _pick("linalg.slogdet", 0), None, _square("slogdet"), "det x / |det x|."),
    ("slogdet_log", _pick("linalg.slogdet", 1), real_dtype, _square("slogdet"), "log |det x|."),
    (
        "cholesky", numpy_function("linalg.cholesky"), None, _square("cholesky", -2, -1),
        "Lower L with L Lᴴ = x; reads the lower triangle.",
    ),
    ("qr_q", _pick("linalg.qr", 0), None, _factor("qr", "mk"), "Q of the reduced x = Q R."),
    ("qr_r", _pick("linalg.qr", 1), None, _factor("qr", "kn"), "R of the reduced x = Q R."),
    (
        "svd_u", _pick("linalg.svd", 0, full_matrices=False), None, _factor("svd", "mk"),
        "Left singular vectors, reduced.",
    ),
    (
        "svd_s", numpy_function("linalg.svd", compute_uv=False), real_dtype, _factor("svd", "k"),
        "Singular values, largest first.",
    ),
    (
        "svd_vh", _pick("linalg.svd", 2, full_matrices=False), None, _factor("svd", "kn"),
        "Right singular vectors as rows, reduced.",
    ),
    (
        "eigvalsh", numpy_function("linalg.eigvalsh"), real_dtype, _square("eigvalsh", -1),
        "Eigenvalues of a Hermitian matrix, rising; reads the lower triangle.",
    ),
    (
        "eigvecsh", _pick("linalg.eigh", 1), None, _square("eigvecsh", -2, -1),
        "Eigenvectors of a Hermitian matrix as columns.",
    ),
    (
        "eigvals", _as_complex(numpy_function("linalg.eigvals")), complex_dtype,
        _square("eigvals", -1), "Eigenvalues, always complex.",
    ),
    (
        "eigvecs", _as_complex(_pick("linalg.eig", 1)), complex_dtype,
        _square("eigvecs", -2, -1), "Eigenvectors as columns, always complex.",
    ),
    (
        "matrix_rank", _matrix_rank, INT64, _factor("matrix_rank", ""),
        "How many singular values are above rounding error.",
    ),
]:  # fmt: skip
    _library(_name, _reference, _lapack_types(_name, _result), _shape, _doc)
_library(
    "solve", numpy_function("linalg.solve"), _lapack_types("solve"), _solve_shape,
    "x with a x = b, for right sides that are matrices.", arity=2,
)  # fmt: skip
_library(
    "lstsq", _lstsq, _lapack_types("lstsq"), _lstsq_shape,
    "x with the smallest |a x − b|.", arity=2,
)  # fmt: skip


def _matrix_norm_shape(x: Aval, *, ord: Any) -> Shape:
    lead, rows, columns = _matrix("matrix_norm", x)
    if ord not in (1, -1, 2, -2, math.inf, -math.inf, "fro", "nuc"):
        raise ValueArgumentError(f"matrix_norm: unknown order {ord!r}", hint="1, 2, inf, 'fro', …")
    if rows == 0 or columns == 0:
        raise ShapeError(f"matrix_norm: the empty matrix of shape {x.shape} has no norm")
    return lead


def _matrix_norm(x: Array, *, ord: Any) -> Array:
    return np.asarray(np.linalg.norm(x, ord=ord, axis=(-2, -1)))


_library(
    "matrix_norm", _matrix_norm, _lapack_types("matrix_norm", real_dtype), _matrix_norm_shape,
    "A matrix norm over the last two axes: 1, 2, inf, their negatives, 'fro', 'nuc'.",
)  # fmt: skip

# -- Fourier transforms ----------------------------------------------------------------------------


def _transform_shape(name: str, axis: int, x: Aval, n: int, result: int) -> Shape:
    check_axes(name, (axis,), x.shape)
    if n < 1 or x.shape[axis] == 0:
        raise ValueArgumentError(f"{name}: {n} points along axis {axis} of shape {x.shape}")
    return without(x.shape, axis, result)


def _fft_shape(name: str, points: Callable[[int], int]) -> ShapeRule:
    def shape(x: Aval, *, axis: int, n: int, norm: str = "backward") -> Shape:
        if norm not in ("backward", "ortho", "forward"):
            raise ValueArgumentError(f"{name}: norm {norm!r}", hint="backward, ortho or forward")
        return _transform_shape(name, axis, x, n, points(n))

    return shape


def _same(n: int) -> int:
    return n


def _half(n: int) -> int:
    return n // 2 + 1


def _fft_types(name: str, kinds: str, result: Callable[[DType], DType]) -> TypesRule:
    return _lapack_types(name, result) if "c" in kinds else _real_fft_types(name, result)


def _real_fft_types(name: str, result: Callable[[DType], DType]) -> TypesRule:
    return common_types(name, kinds="f", integers_become=FLOAT64, result=result)


for _name, _kinds, _dtype, _points, _doc in [
    ("fft", "fc", complex_dtype, _same, "The discrete Fourier transform along an axis."),
    ("ifft", "fc", complex_dtype, _same, "Its inverse."),
    ("rfft", "f", complex_dtype, _half, "The transform of real input, half the spectrum."),
    ("irfft", "fc", real_dtype, _same, "The inverse of rfft, with n real points."),
]:
    _library(
        _name,
        numpy_function(f"fft.{_name}"),
        _fft_types(_name, _kinds, _dtype),
        _fft_shape(_name, _points),
        _doc + " n points: longer input is cut, shorter filled with zeros.",
    )
