"""What the rows of ops say of operands, remembered by the operands' dtypes and shapes.

Asking a row anew costs as much as the rest of recording, and a program asks the same few
questions over and over. Sizes that vary are the exception: what is said of them holds for one
trace, and is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tracejit import sizes
from tracejit.errors import InternalError, Location, RangeError
from tracejit.graph.node import Node, constant, intern, make
from tracejit.ops import OPS, Family
from tracejit.ops.dtypes import FLOAT32, bfloat16, is_bfloat16
from tracejit.ops.table import Aval, DType, Op, promote

_KEPT = 1 << 14  # answers, of each kind


class Resolved(NamedTuple):
    """What an elementwise op makes of its operands."""

    row: Op
    wanted: tuple[DType, ...]
    """The dtypes its loop takes."""
    aval: Aval
    narrowed: bool
    """Whether the result is then cast to bfloat16."""


_resolved: dict[Any, Resolved] = {}


def resolve(name: str, avals: tuple[Any, ...], attrs: Mapping[str, Any]) -> Resolved:
    """Return what op ``name`` makes of ``avals``: dtypes, or weak Python types, and shapes in turn.

    Raises the errors of the op's row: of dtypes it does not take, of shapes that do not fit.
    """
    if sizes.families:
        return _asked(name, avals, attrs)
    signature = (name, avals, tuple(attrs.items()) if attrs else ())
    known = _resolved.get(signature)
    if known is None:
        known = _asked(name, avals, attrs)
        if len(_resolved) >= _KEPT:
            _resolved.clear()
        _resolved[signature] = known
    return known


def _asked(name: str, avals: tuple[Any, ...], attrs: Mapping[str, Any]) -> Resolved:
    row = OPS[name]
    if row.arity is not None and 2 * row.arity != len(avals):
        raise InternalError(f"{name} takes {row.arity} operands, got {len(avals) // 2}")
    assert row.types is not None
    dtypes, narrowed = avals[::2], False
    if row.family not in _MOVED and any(is_bfloat16(d) for d in dtypes):
        narrowed = is_bfloat16(promote(dtypes))
        dtypes = tuple(FLOAT32 if is_bfloat16(d) else d for d in dtypes)
    wanted, _ = row.types(dtypes)
    operands = [Aval(d, s) for d, s in zip(wanted, avals[1::2], strict=True)]
    aval = row.infer(operands, attrs)
    return Resolved(row, wanted, aval, narrowed and aval.dtype == FLOAT32)


# Families whose rows copy elements, of any dtype.
_MOVED = frozenset({Family.MOVEMENT, Family.INDEXING})

_avals: dict[Any, tuple[Op, Aval]] = {}


def made(
    name: str, operands: tuple[Node, ...], attrs: Mapping[str, Any], loc: Location | None
) -> Node:
    """Return ``make(name, operands, attrs, loc)``, and remember what it inferred."""
    if sizes.families:
        return make(name, operands, attrs, loc)
    signature = (name, tuple([n.aval for n in operands]), tuple(attrs.items()))
    known = _avals.get(signature)
    if known is not None:
        return intern(known[0], operands, attrs, known[1], loc)
    node = make(name, operands, attrs, loc)
    if len(_avals) >= _KEPT:
        _avals.clear()
    _avals[signature] = (node.op, node.aval)
    return node


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


@lru_cache(maxsize=4096, typed=True)
def _cached_scalar(value: Any, dtype: DType) -> Node:
    _check_range(value, dtype)
    try:
        with np.errstate(over="ignore"):
            return constant(value, dtype)
    except OverflowError:
        raise RangeError(f"Python integer {value} is too large for {dtype}") from None
