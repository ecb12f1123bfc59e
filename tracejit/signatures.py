"""What the rows of ops say of operands, remembered by the operands' dtypes and shapes.

Asking a row anew costs as much as the rest of recording, and a program asks the same few
questions over and over. Sizes that vary are the exception: what is said of them holds for one
trace, and is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from tracejit import sizes
from tracejit.errors import InternalError, RangeError
from tracejit.graph.node import Node, constant
from tracejit.ops import OPS, Family
from tracejit.ops.dtypes import FLOAT32, bfloat16, is_bfloat16
from tracejit.ops.table import Array, Aval, DType, Op, promote

_KEPT = 1 << 14  # answers, of each kind


class Resolved:
    """What an op makes of its operands: ``row``, and the result's ``aval``.

    ``wanted`` are the dtypes that the loop of an elementwise op takes; ``narrowed`` says whether
    its result is then cast to bfloat16, and ``small``, once somebody has asked, whether NumPy
    computes it sooner than it could be recorded (``immediate.py``).
    """

    __slots__ = ("aval", "narrowed", "row", "small", "wanted")

    def __init__(self, row: Op, aval: Aval, wanted: tuple[DType, ...] = (), narrowed: bool = False):
        self.row = row
        self.aval = aval
        self.wanted = wanted
        self.narrowed = narrowed
        self.small: bool | None = None


_resolved: dict[Any, Resolved] = {}


def resolve(name: str, avals: tuple[Any, ...], attrs: Mapping[str, Any]) -> Resolved:
    """Return what elementwise op ``name`` makes of ``avals``, or weak Python types.

    Raises the errors of the op's row: of dtypes it does not take, of shapes that do not fit.
    """
    if sizes.families:
        return _asked(name, avals, attrs)
    signature = (name, avals, tuple(attrs.items())) if attrs else (name, avals)
    known = _resolved.get(signature)
    return _remember(signature, _asked(name, avals, attrs)) if known is None else known


def _remember(signature: Any, known: Resolved) -> Resolved:
    if len(_resolved) >= _KEPT:
        _resolved.clear()
    _resolved[signature] = known
    return known


def _asked(name: str, avals: tuple[Any, ...], attrs: Mapping[str, Any]) -> Resolved:
    row = OPS[name]
    if row.arity is not None and row.arity != len(avals):
        raise InternalError(f"{name} takes {row.arity} operands, got {len(avals)}")
    assert row.types is not None
    weak = [isinstance(a, type) for a in avals]
    dtypes = tuple([a if is_weak else a[0] for a, is_weak in zip(avals, weak, strict=True)])
    shapes = [() if is_weak else a[1] for a, is_weak in zip(avals, weak, strict=True)]
    narrowed = False
    if row.family not in _MOVED and any(is_bfloat16(d) for d in dtypes):
        narrowed = is_bfloat16(promote(dtypes))
        dtypes = tuple(FLOAT32 if is_bfloat16(d) else d for d in dtypes)
    wanted, _ = row.types(dtypes)
    aval = row.infer([Aval(d, s) for d, s in zip(wanted, shapes, strict=True)], attrs)
    return Resolved(row, aval, wanted, narrowed and aval.dtype == FLOAT32)


# Families whose rows copy elements, of any dtype.
_MOVED = frozenset({Family.MOVEMENT, Family.INDEXING})


def inferred(name: str, avals: tuple[Aval, ...], attrs: Mapping[str, Any]) -> Resolved:
    """Return what op ``name`` makes of operands that have the dtypes it takes."""
    if sizes.families:
        return _inferred(name, avals, attrs)
    signature = (name, avals, tuple(attrs.items()), None)  # not one of `resolve`
    known = _resolved.get(signature)
    return _remember(signature, _inferred(name, avals, attrs)) if known is None else known


def _inferred(name: str, avals: tuple[Aval, ...], attrs: Mapping[str, Any]) -> Resolved:
    row = OPS[name]
    if row.arity is not None and len(avals) != row.arity:
        raise InternalError(f"{name} takes {row.arity} operands, got {len(avals)}")
    return Resolved(row, row.infer(avals, attrs))


def as_bfloat16(value: Any) -> Any:
    """Return a Python scalar, or a size, as the bfloat16 that it is in an op of these."""
    return value if sizes.is_size(value) else float(np.asarray(value, bfloat16()))


def scalar(value: Any, dtype: DType) -> Node:
    """Return a Python scalar as a constant of ``dtype``; ``RangeError`` where it does not fit."""
    # 0.0 and -0.0 are equal keys, as are complex numbers that differ in the sign of a zero.
    if sizes.is_size(value):
        _check_range(value, dtype)
        return constant(value, dtype)
    if value and not isinstance(value, complex):
        return _cached_scalar(value, dtype)
    return constant(value, dtype)


def _check_range(value: Any, dtype: DType) -> None:
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if not int(bounds.min) <= value <= int(bounds.max):
            raise RangeError(
                f"Python integer {value} is out of bounds for {dtype}",
                hint=f"the range is {bounds.min} to {bounds.max}; cast the tensor first",
            )


def scalar_array(value: Any, dtype: DType) -> Array:
    """Return a Python scalar as a 0-d array of ``dtype``; ``RangeError`` where it does not fit."""
    if value and not isinstance(value, complex):
        return _cached_array(value, dtype)
    return np.asarray(value, dtype)


@lru_cache(maxsize=4096, typed=True)
def _cached_array(value: Any, dtype: DType) -> Array:
    return np.asarray(scalar(value, dtype).attrs["value"], dtype)


@lru_cache(maxsize=4096, typed=True)
def _cached_scalar(value: Any, dtype: DType) -> Node:
    _check_range(value, dtype)
    try:
        with np.errstate(over="ignore"):
            return constant(value, dtype)
    except OverflowError:
        raise RangeError(f"Python integer {value} is too large for {dtype}") from None
