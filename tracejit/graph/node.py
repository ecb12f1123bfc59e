"""Nodes: the immutable, hash-consed values of the dataflow graph.

A node is an op applied to nodes under attributes, with the dtype and shape that the op's row
infers. Equal nodes are one object, so common subexpressions are shared while tracing and
identity is equality. ``serial`` rises with creation, and operands exist before their users, so
sorting by ``serial`` is a topological order; no walk over a graph recurses.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tracejit import sizes
from tracejit.errors import InternalError, Location
from tracejit.ops.dtypes import spelled
from tracejit.ops.leaves import DATA
from tracejit.ops.table import OPS, Array, Aval, DType, Fact, Op, Shape

_NO_ATTRS: Mapping[str, Hashable] = {}


class Node:
    """One value of the graph. Make nodes with ``make`` and the leaf functions below.

    ``op``, ``inputs``, ``attrs`` define it; ``dtype`` and ``shape``, together ``aval``, are
    inferred; ``loc`` is the user's line that first asked for it; ``value`` is the array of a
    ``data`` leaf. The others have an ``identity``, what tells the node from others of its op and
    operands, and a ``handle``, the tensor that wants its value (``tensor.keep``).
    """

    __slots__ = (
        "__weakref__", "attrs", "aval", "dtype", "handle", "identity", "inputs", "loc", "op",
        "serial", "shape", "value",
    )  # fmt: skip

    op: Op
    inputs: tuple[Node, ...]
    attrs: Mapping[str, Hashable]
    aval: Aval
    dtype: DType
    shape: Shape
    loc: Location | None
    serial: int
    value: Array | None
    identity: Hashable
    handle: weakref.ref[Any] | None

    def __repr__(self) -> str:
        return f"<%{self.serial} {self.op.name} {self.dtype}{list(self.shape)}>"

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


_serials = itertools.count()
_lock = threading.Lock()


class _Entry(weakref.ref[Node]):
    """A node in the table of interned nodes; the table forgets it when nothing else holds it."""

    __slots__ = ("key",)

    key: Any


# A WeakValueDictionary would do, at twice the cost of a node.
_interned: dict[Any, _Entry] = {}


def _forget(entry: weakref.ref[Node]) -> None:
    assert isinstance(entry, _Entry)
    if _interned.get(entry.key) is entry:
        del _interned[entry.key]


def _find(key: Any) -> Node | None:
    entry = _interned.get(key)
    return None if entry is None else entry()


def _insert(key: Any, node: Node) -> Node:
    """Enter ``node``, or return the equal one that another thread has entered first."""
    entry = _Entry(node, _forget)
    entry.key = key
    with _lock:
        found = _find(key)
        if found is not None:
            return found
        _interned[key] = entry
    return node


def _new(
    op: Op,
    inputs: tuple[Node, ...],
    attrs: Mapping[str, Hashable],
    aval: Aval,
    loc: Location | None,
    identity: Hashable = None,
) -> Node:
    node = object.__new__(Node)
    node.op = op
    node.inputs = inputs
    node.attrs = attrs
    node.aval = aval
    node.dtype, node.shape = aval
    node.loc = loc
    node.serial = next(_serials)
    node.value = None
    node.identity = identity
    node.handle = None
    return node


def make(
    op: Op | str,
    inputs: Sequence[Node] = (),
    attrs: Mapping[str, Hashable] | None = None,
    loc: Location | None = None,
) -> Node:
    """Return the node for ``op(*inputs, **attrs)``, an existing one where there is an equal one.

    Raises the op's typed error where dtypes or shapes do not fit.
    """
    row = OPS[op] if isinstance(op, str) else op
    operands = tuple(inputs)
    attrs = attrs or _NO_ATTRS
    if row.arity is not None and len(operands) != row.arity:
        raise InternalError(f"{row.name} takes {row.arity} operands, got {len(operands)}")
    key = _key(row, operands, attrs)
    found = _find(key)
    if found is not None:
        return found
    node = _new(row, operands, attrs, row.infer([n.aval for n in operands], attrs), loc, key[2])
    return node if row.has(Fact.IMPURE) else _insert(key, node)


def intern(
    row: Op,
    operands: tuple[Node, ...],
    attrs: Mapping[str, Hashable],
    aval: Aval,
    loc: Location | None,
) -> Node:
    """Return ``make(row, operands, attrs, loc)`` for a caller who knows what it infers."""
    key = _key(row, operands, attrs)
    found = _find(key)
    if found is not None:
        return found
    node = _new(row, operands, attrs, aval, loc, key[2])
    return node if row.has(Fact.IMPURE) else _insert(key, node)


def _key(row: Op, operands: tuple[Node, ...], attrs: Mapping[str, Hashable]) -> Any:
    # Operands are compared by identity: they are interned themselves.
    listed = tuple(sorted(attrs.items())) if attrs else ()
    return row, operands, sizes.frozen(listed) if sizes.families else listed


def constant(value: Any, dtype: Any, loc: Location | None = None) -> Node:
    """Return the 0-d constant of ``dtype``; keyed by its bits, so −0.0 and NaN stay themselves."""
    dtype = np.dtype(dtype)
    if sizes.is_size(value):
        attrs = {"value": value, "dtype": spelled(dtype)}
        return _new(OPS["constant"], (), attrs, Aval(dtype, ()), loc)
    scalar = np.asarray(value).astype(dtype)
    key = ("constant", dtype.str, scalar.tobytes())
    found = _find(key)
    if found is not None:
        return found
    attrs = {"value": scalar.item(), "dtype": spelled(dtype)}
    return _insert(key, _new(OPS["constant"], (), attrs, Aval(dtype, ()), loc, key))


def placeholder(
    index: int, dtype: Any, shape: Shape, name: str = "", loc: Location | None = None
) -> Node:
    """Return argument number ``index`` of a graph. Each call makes a new node."""
    dtype = np.dtype(dtype)
    attrs = {"index": index, "dtype": spelled(dtype), "shape": shape, "name": name or f"arg{index}"}
    return _new(OPS["input"], (), attrs, Aval(dtype, shape), loc)


@lru_cache(maxsize=4096)
def _leaf(dtype: DType, shape: Shape) -> tuple[Aval, Mapping[str, Hashable]]:
    """Return what all leaves of a dtype and a shape have in common."""
    return Aval(dtype, shape), {"dtype": spelled(dtype), "shape": shape}


def data(array: Array, loc: Location | None = None) -> Node:
    """Return a leaf that holds ``array`` (not copied; it must not change any more)."""
    return leaf(array, *_leaf(array.dtype, array.shape), loc)


def leaf(
    array: Array, aval: Aval, attrs: Mapping[str, Hashable], loc: Location | None = None
) -> Node:
    """Return ``data(array, loc)`` for a caller who has another leaf's ``aval`` and ``attrs``."""
    node = _new(DATA, (), attrs, aval, loc)
    node.value = array
    return node


def iota(shape: Shape, axis: int, dtype: Any = np.int64, loc: Location | None = None) -> Node:
    """Return the index along ``axis`` of ``shape``."""
    return make("iota", (), {"shape": shape, "axis": axis, "dtype": spelled(np.dtype(dtype))}, loc)
