"""Small ops on known values are computed at once: recording one takes longer than NumPy does.

A thread that traces nothing computes an op on a few thousand known elements by the reference of
its row, as the interpreter would later; what is larger, or depends on something not computed yet,
is recorded, fused and compiled. So a program on small tensors runs as it would under NumPy, with
no graph to build, look up and evaluate, and one on large tensors runs in few kernels.
``runtime/costs.py`` says what is small. Where the user wants kernels from the first call on
(``compile="now"``) or draws a program, everything is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracejit import gate
from tracejit.errors import UserError
from tracejit.graph.node import Node, data, intern, leaf, placeholder
from tracejit.ops.leaves import CONSTANT
from tracejit.ops.table import Array, Aval, DType
from tracejit.runtime import monitor, stance
from tracejit.runtime.interpreter import checked, quiet
from tracejit.signatures import Resolved, scalar_array
from tracejit.tracing import state


def permitted() -> bool:
    """Return whether this thread computes small ops at once."""
    if not gate.closed:  # nobody traces, records, or has replaced a setting
        prompt = stance.prompt
        return stance.settle() if prompt is None else prompt
    return state.trace is None and monitor.active is None and stance.mode_of(None) != "now"


def computed(known: Resolved, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Node | None:
    """Return a leaf with the value of a small op; None where an operand is not known.

    ``operands`` are nodes, and Python scalars where the op's row promotes. None, too, where the
    reference refuses the values: recorded, the op says so to whoever asks for its result.
    """
    if not (known.small if known.small is not None else _weigh(known, operands, attrs)):
        return None
    try:
        arrays = _arrays(operands, known.wanted)
        if arrays is None:
            return None
        result = quiet.run(known.row.reference, *arrays, **attrs)
    except UserError:
        raise
    except Exception:  # such as the singular matrix of an inverse
        return None
    return data(checked(known.row, result, known.aval))


def _arrays(operands: Sequence[Any], wanted: Sequence[DType]) -> list[Array] | None:
    """Return the values of operands in the dtypes ``wanted``, if any; None where one is not known.

    Raises RangeError.
    """
    arrays: list[Array] = []
    for position, operand in enumerate(operands):
        if operand.__class__ is not Node:
            arrays.append(scalar_array(operand, wanted[position]))
            continue
        array = operand.value
        if array is None:
            if operand.op is not CONSTANT:
                return None
            array = CONSTANT.reference(**operand.attrs)
        if wanted and array.dtype != wanted[position]:
            array = quiet.run(array.astype, wanted[position])
        arrays.append(array)
    return arrays


class Direct(NamedTuple):
    """What computes a small op from operands as they are: they have, or it gives them, the dtypes
    that the row wants."""

    function: Callable[..., Any]
    aval: Aval
    attrs: Mapping[str, Hashable]
    """Those of the leaf that holds the result."""


# By the op's name, its operands' avals, or weak types, and its attributes if there are some: the
# one look-up of the quickest way.
DIRECT: dict[Any, Direct] = {}
_KEPT = 1 << 14


def learn(
    name: str, avals: Sequence[Any], attrs: Mapping[str, Hashable], known: Resolved, result: Node
) -> None:
    """Remember what ``computed`` has done where the reference alone does it."""
    reference = known.row.reference
    if known.wanted and not isinstance(reference, np.ufunc):  # which casts as the row would
        for aval, dtype in zip(avals, known.wanted, strict=True):
            if isinstance(aval, type) or aval.dtype != dtype:
                return
    if len(DIRECT) >= _KEPT:
        DIRECT.clear()
    key = (name, *avals, tuple(attrs.items())) if attrs else (name, *avals)
    DIRECT[key] = Direct(reference, known.aval, result.attrs)


def computed_by(
    direct: Direct, values: Sequence[Any], attrs: Mapping[str, Hashable]
) -> Node | None:
    """Return a leaf with what ``direct`` gives on arrays and scalars; None where it raises."""
    function, aval, leaf_attrs = direct
    try:
        result = quiet.run(function, *values, **attrs)
    except Exception:  # such as an integer that the dtype cannot hold
        return None
    array = result if result.__class__ is np.ndarray else np.asarray(result)
    return leaf(array, aval, leaf_attrs)


def recalled(
    name: str, nodes: Sequence[Node], avals: Sequence[Aval], attrs: Mapping[str, Hashable]
) -> Node | None:
    """Return a leaf with the result of a learnt op on nodes; None where one is not known."""
    direct = DIRECT.get((name, *avals, tuple(attrs.items())) if attrs else (name, *avals))
    if direct is None:
        return None
    values = [node.value for node in nodes]
    return None if any(v is None for v in values) else computed_by(direct, values, attrs)


# Elements that are copied in the time that recording takes.
_PART = 1 << 14


def part_of(node: Node, key: Any) -> Node | None:
    """Return a leaf with a small part of a known value; None where it is large, or has none such.

    ``key`` is basic. The leaf shares the memory of the whole.
    """
    array = node.value
    if array is None or not permitted():
        return None
    try:
        found = array[key]
    except (IndexError, TypeError, ValueError):
        return None
    if found.size > _PART:
        return None
    return data(found if found.__class__ is np.ndarray else np.asarray(found, array.dtype))


def with_part(node: Node, key: Any, value: Any) -> Node | None:
    """Return a leaf with a small known value whose part at ``key`` is ``value``, else None.

    ``value`` is an array of the same dtype, or a Python scalar. None where NumPy refuses them.
    """
    array = node.value
    if array is None or array.size > _PART or not permitted():
        return None
    result = array.copy()
    try:
        quiet.run(result.__setitem__, key, value)
    except (IndexError, OverflowError, RuntimeError, TypeError, ValueError):
        return None
    return leaf(result, node.aval, node.attrs)


def _weigh(known: Resolved, operands: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    """Find out whether an op is small, and remember it."""
    from tracejit.runtime.costs import at_once

    shapes = [o.shape if o.__class__ is Node else () for o in operands]
    dtypes = known.wanted or [o.dtype for o in operands]
    leaves = [placeholder(i, *of) for i, of in enumerate(zip(dtypes, shapes, strict=True))]
    known.small = not known.narrowed and at_once(
        intern(known.row, tuple(leaves), attrs, known.aval, None)
    )
    return known.small
