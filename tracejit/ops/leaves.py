"""Leaves of a graph: placeholders, arrays, constants, index ramps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from tracejit.errors import InternalError
from tracejit.ops.dtypes import named
from tracejit.ops.table import Array, Attrs, Aval, Family, Op, Shape, register


def _declared(operands: Sequence[Aval], attrs: Attrs) -> Aval:
    return Aval(named(attrs["dtype"]), cast(Shape, attrs.get("shape", ())))


def _no_reference(**attrs: Any) -> Array:
    raise InternalError("an input or data leaf has its value from outside")


def _constant(*, value: Any, dtype: str) -> Array:
    return np.asarray(value, dtype)


def _iota(*, shape: Shape, axis: int, dtype: str) -> Array:
    ramp = np.arange(shape[axis], dtype=dtype)
    index = tuple(slice(None) if i == axis else None for i in range(len(shape)))
    return np.broadcast_to(ramp[index], shape)


INPUT = register(Op("input", Family.LEAF, 0, _no_reference, _declared, doc="An argument."))
DATA = register(Op("data", Family.LEAF, 0, _no_reference, _declared, doc="A concrete array."))
CONSTANT = register(Op("constant", Family.LEAF, 0, _constant, _declared, doc="A 0-d constant."))
IOTA = register(
    Op("iota", Family.LEAF, 0, _iota, _declared, doc="The index along one axis: 0, 1, 2, …")
)
