"""Dtypes and what is known of them; the constants of the array API."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from tracejit.errors import DTypeError
from tracejit.functions.arguments import (
    as_dtype,
    fail,
    is_array,
    is_tuple,
)
from tracejit.ops.dtypes import is_bfloat16
from tracejit.ops.table import DType, promote
from tracejit.tensor import Tensor

__all__ = [
    "bool",
    "bool_",
    "can_cast",
    "complex64",
    "complex128",
    "double",
    "e",
    "euler_gamma",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "half",
    "iinfo",
    "inf",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "iscomplexobj",
    "isdtype",
    "isrealobj",
    "isscalar",
    "issubdtype",
    "long",
    "nan",
    "ndim",
    "newaxis",
    "pi",
    "promote_types",
    "result_type",
    "shape",
    "short",
    "size",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]  # fmt: skip

_PYTHON = frozenset((builtins.bool, builtins.int, builtins.float, complex))

bool = bool_ = np.dtype(np.bool_)
int8, int16, int32, int64 = (np.dtype(f"int{n}") for n in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (np.dtype(f"uint{n}") for n in (8, 16, 32, 64))
float16 = half = np.dtype(np.float16)
float32 = float = np.dtype(np.float32)  # PyTorch's names
short, int, long = int16, int32, int64
float64 = double = np.dtype(np.float64)
complex64, complex128 = np.dtype(np.complex64), np.dtype(np.complex128)

pi, e, inf, nan, euler_gamma = np.pi, np.e, np.inf, np.nan, np.euler_gamma
newaxis = None


def _dtype(value: Any) -> DType:
    return value.dtype if isinstance(value, Tensor) or is_array(value) else as_dtype(value)


def finfo(type: Any, /) -> Any:
    """Return the limits of a floating dtype (or of a tensor's)."""
    dtype = _dtype(type)
    if is_bfloat16(dtype):
        from importlib import import_module

        return import_module("ml_dtypes").finfo(dtype)
    if dtype.kind not in "fc":
        raise fail(DTypeError, f"finfo: {dtype} is not a floating dtype", "iinfo has integers")
    return np.finfo(dtype)


def iinfo(type: Any, /) -> Any:
    """Return the limits of an integer dtype (or of a tensor's)."""
    dtype = _dtype(type)
    if dtype.kind not in "iu":
        raise fail(DTypeError, f"iinfo: {dtype} is not an integer dtype", "finfo has floats")
    return np.iinfo(dtype)


def result_type(*operands: Any) -> DType:
    """Return the dtype that tensors, dtypes and Python scalars promote to (NEP 50)."""
    if not operands:
        raise fail(DTypeError, "result_type needs at least one operand")
    kinds: list[Any] = [
        builtins.type(x) if builtins.type(x) in _PYTHON else _dtype(x) for x in operands
    ]
    return promote(kinds)


def promote_types(type1: Any, type2: Any, /) -> DType:
    """Return the smallest dtype to which both cast safely."""
    return promote((_dtype(type1), _dtype(type2)))


def can_cast(from_: Any, to: Any, /, casting: Any = "safe") -> builtins.bool:
    """Return whether a cast is allowed under the rule ``casting``."""
    return np.can_cast(_dtype(from_), _dtype(to), casting)


_KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu",
    "real floating": "f", "complex floating": "c", "numeric": "iufc",
}  # fmt: skip


def isdtype(dtype: Any, kind: Any, /) -> builtins.bool:
    """Return whether a dtype is of a kind: a dtype, a kind's name, or a tuple of them."""
    if is_tuple(kind):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        found = _dtype(dtype)
        return ("f" if is_bfloat16(found) else found.kind) in _KINDS[kind]
    return _dtype(dtype) == as_dtype(kind)


def issubdtype(type1: Any, type2: Any, /) -> builtins.bool:
    """Return ``numpy.issubdtype``."""
    return np.issubdtype(type1, type2)


def iscomplexobj(x: Any, /) -> builtins.bool:
    """Return whether the dtype is complex."""
    return _dtype(x).kind == "c" if hasattr(x, "dtype") else np.iscomplexobj(x)


def isrealobj(x: Any, /) -> builtins.bool:
    """Return whether the dtype is not complex."""
    return not iscomplexobj(x)


def isscalar(x: Any, /) -> builtins.bool:
    """Return whether ``x`` is a Python or NumPy scalar."""
    return np.isscalar(x)


def shape(x: Any, /) -> tuple[builtins.int, ...]:
    """Return the shape of an array-like."""
    return x.shape if isinstance(x, Tensor) else np.shape(x)


def ndim(x: Any, /) -> builtins.int:
    """Return the number of axes of an array-like."""
    return len(shape(x))


def size(x: Any, /, axis: builtins.int | None = None) -> builtins.int:
    """Return the number of elements, or the size along an axis."""
    return builtins.int(np.prod(shape(x))) if axis is None else shape(x)[axis]
