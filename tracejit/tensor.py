"""Tensor: the one traced value.

A tensor is a handle on a node of the dataflow graph. Operations record nodes; nothing runs until
Python asks for a value (``numpy()``, ``item``, ``bool``, ``print``, DLPack), or has recorded a
thousand ops without, and then the handle moves to a ``data`` leaf that holds the result. Outside a
trace the leaves are data, inside they are placeholders, and asking a value of a tensor that depends
on one raises ``TraceError``.

Nodes never change, handles do: an in-place operator or an assignment moves the handle to a new
node. A view (basic slice, reshape, transpose, …) is a handle with a base and the movement steps
that lead to it: it reads through its base, and a write to it becomes a functional update of the
base, so writes are seen through every view, as NumPy's are.
"""

# The functions of this module make and move handles: they share the class's slots.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from tracejit import functions
from tracejit.errors import (
    DTypeError,
    Location,
    OutOfMemory,
    ShapeError,
    TraceError,
    UserError,
    ValueArgumentError,
)
from tracejit.graph.graph import reachable
from tracejit.graph.node import Node, data, intern, make
from tracejit.operators import OUTSIDE, Operators, Values
from tracejit.ops import OPS, Family
from tracejit.ops.dtypes import NAME, named, spelled
from tracejit.ops.table import Array, DType, Shape
from tracejit.signatures import as_bfloat16, made, resolve, scalar
from tracejit.tracing import Trace, join, no_value, state, user_location

Step = tuple[str, Mapping[str, Hashable]]
"""One movement op on the way from a base to its view: the op's name and its attributes."""

# Operators that are more than one elementwise row, by the module of ``functions`` that has them.
_OPERATORS = {
    "matmul": "products",
    **dict.fromkeys(
        ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"), "elementwise"
    ),
}

MAX_RANK = 64  # NumPy's own limit

_WEAK: frozenset[type] = frozenset({int, float, complex})


class View:
    """How a view follows from its base: ``steps`` applied to ``base``, last read at ``seen``."""

    __slots__ = ("base", "root", "seen", "steps")

    def __init__(self, base: Tensor, steps: tuple[Step, ...]):
        self.base = base
        self.root: Tensor = base if base._view is None else base._view.root
        self.steps = steps
        self.seen: int = self.root._version


class Tensor(Operators, Values):
    """An n-dimensional array of known dtype and shape whose value is computed on demand.

    ``Tensor(value, dtype=None)`` copies what ``tj.asarray`` takes.
    """

    # _node: the current node (of a view: as of version ``_view.seen`` of its root).
    # _trace: the trace whose arguments the value depends on. _birth: the trace that ran when the
    # handle was made; a handle from outside must not be changed inside. _version: counts moves.
    __slots__ = ("__weakref__", "_birth", "_node", "_trace", "_version", "_view")

    _node: Node
    _trace: Trace | None
    _birth: Trace | None
    _version: int
    _view: View | None

    def __init__(self, value: Any, dtype: Any = None):
        made = lift(value, dtype, copy=True)
        self._node, self._trace, self._birth = made.node, made.traced_in, state.trace
        self._version, self._view = 0, None

    if TYPE_CHECKING:  # functions/methods.py attaches the methods, under all their names

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...

    # -- what is known without a value

    @property
    def node(self) -> Node:
        """The node of the current value."""
        view = self._view
        if view is not None and view.seen != view.root._version:
            _refresh(self)
        return self._node

    @property
    def traced_in(self) -> Trace | None:
        """The trace whose arguments this value depends on; None where the value is known."""
        return self._trace if self._view is None else self._view.root._trace

    @property
    def shape(self) -> Shape:
        return self._node.shape

    @property
    def dtype(self) -> DType:
        return self._node.dtype

    @property
    def weak(self) -> type | None:
        """The Python type it promotes as: of traced Python scalars only (NEP 50)."""
        return None

    @property
    def ndim(self) -> int:
        return len(self._node.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._node.size

    @property
    def itemsize(self) -> int:
        return self._node.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._node.nbytes

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def base(self) -> Tensor | None:
        """The tensor this one is a view of, as NumPy's ``base``."""
        return None if self._view is None else self._view.root

    # -- copies

    def __copy__(self) -> Tensor:
        return wrap(self.node, self.traced_in)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return wrap(self.node, self.traced_in)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (value_of(self, "pickling"),)

    # -- operators

    def _value(self, wanted: str, hint: str) -> Array:
        return value_of(self, wanted, hint)

    def _unary(self, name: str) -> Tensor:
        return record(name, (self,))

    def _binary(self, name: str, other: Any) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        special = operator_function(name)
        return special(self, other) if special else record(name, (self, other))

    def _reflected(self, name: str, other: Any) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        special = operator_function(name)
        return special(other, self) if special else record(name, (other, self))

    def __pow__(self, other: Any) -> Tensor:
        simpler = _simple_power(other, self.dtype.kind)
        return self._unary(simpler) if simpler else self._binary("power", other)

    def _inplace(self, name: str, other: Any) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        result = self**other if name == "power" else self._binary(name, other)
        if self._is_numpy_scalar():
            return result
        if result.shape != self.shape:
            raise _error(
                ShapeError,
                f"{name}: the result's shape {result.shape} is not the target's {self.shape}",
                hint="an in-place operator cannot broadcast its left side",
            )
        store(self, result)
        return self

    def _is_numpy_scalar(self) -> bool:
        """Whether NumPy would have a scalar here: a 0-d result in traced NumPy code.

        ``total = x.sum(); total += 1`` binds a name anew there, and changes no other holder. A
        0-d array that was changed in place before stays an array.
        """
        computed = self._trace is not None and bool(self.node.inputs)
        return computed and self.shape == () and self._view is None and self._version == 0

    # -- protocols

    __array_priority__ = 1000  # before ndarray in mixed operators of old-style NumPy classes

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from tracejit import protocols

        return protocols.array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        from tracejit import protocols

        return protocols.array_function(function, args, kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        from tracejit import protocols

        return protocols.array_namespace(api_version)


def _simple_power(exponent: Any, kind: str) -> str | None:
    """Return the op that NumPy's ``**`` takes for a frequent Python exponent.

    It is more than a shortcut: bool ** 2 is int8 that way, and its last bits are NumPy's.
    """
    if exponent.__class__ is int:
        if exponent == 2:
            return "square"
    elif exponent.__class__ is not float:
        return None
    return _POWERS.get(exponent) if kind in "fc" else None


_POWERS = {2.0: "square", 1.0: "positive", 0.5: "sqrt", -1.0: "reciprocal"}
_new = object.__new__


def _error(kind: Callable[..., UserError], message: str, hint: str | None = None) -> UserError:
    return kind(message, hint=hint, loc=user_location())


def _unpickled(array: Array) -> Tensor:
    return wrap(data(array))


# -- making handles --------------------------------------------------------------------------------

# The handles whose values are worth keeping once something that uses them is evaluated.
_live: WeakValueDictionary[Node, Tensor] = WeakValueDictionary()
_RECOMPUTED = (Family.LEAF, Family.MOVEMENT)


def wrap(node: Node, trace: Trace | None = None) -> Tensor:
    """Return a new handle on ``node``; ``trace`` is the one whose arguments it depends on."""
    tensor: Tensor = _new(Tensor)
    tensor._node = node
    tensor._trace = trace
    tensor._birth = state.trace
    tensor._version = 0
    tensor._view = None
    if trace is None and node.op.family not in _RECOMPUTED:
        _live[node] = tensor
    return tensor


def view(base: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """Return the view of ``base`` that movement ``steps`` (op name, attributes) lead to."""
    try:
        node = _walk(base.node, steps)
    except UserError as error:
        raise _placed(error) from None
    tensor: Tensor = _new(Tensor)
    tensor._node = node
    tensor._trace = None
    tensor._birth = state.trace
    tensor._version = 0
    tensor._view = View(base, steps)
    return tensor


def lift(value: Any, dtype: Any = None, *, copy: bool | None = None) -> Tensor:
    """Return ``value`` (a tensor, an array, a scalar, nested lists of them) as a tensor."""
    if isinstance(value, Tensor) and dtype is None and not copy:
        return value
    return functions.creation.asarray(value, dtype=dtype, copy=copy)


def operator_function(name: str) -> Callable[..., Tensor] | None:
    """Return the function of an operator that is more than one elementwise row, else None."""
    module = _OPERATORS.get(name)
    return None if module is None else getattr(getattr(functions, module), name)


def _is_operand(value: Any) -> bool:
    """Return whether an operator takes ``value``: what it does not take is Python's to refuse."""
    return isinstance(
        value, (Tensor, int, float, complex, np.ndarray, np.generic, list, tuple)
    ) or hasattr(value, "__array__")


# -- recording -------------------------------------------------------------------------------------


def record(name: str, operands: Sequence[Any], **attrs: Hashable) -> Tensor:
    """Record an elementwise op: promote (NEP 50), insert casts, broadcast.

    Python ``int``, ``float`` and ``complex`` are weak: they take the dtype of the others. Raises
    ``DTypeError``, ``ShapeError``, and ``RangeError`` for a Python integer the dtype cannot hold.
    """
    trace: Trace | None = None
    nodes: list[Any] = []
    avals: list[Any] = []  # dtypes (or weak Python types) and shapes, in turn
    for operand in operands:
        kind = operand.__class__
        if kind in _WEAK:
            nodes.append(operand)
            avals.append(kind)
            avals.append(())
            continue
        tensor: Tensor = operand if kind is Tensor else lift(operand)
        if tensor._view is None:
            source, node = tensor._trace, tensor._node
        else:
            source, node = tensor._view.root._trace, tensor.node
        if source is not None and (source is not trace or not source.active):
            trace = join(trace, source)
        nodes.append(node)
        avals.append(node.dtype if kind is Tensor else tensor.weak or node.dtype)
        avals.append(node.shape)
    location = user_location()
    try:
        row, wanted, aval, narrowed = resolve(name, tuple(avals), attrs)
        for position, node in enumerate(nodes):
            dtype = wanted[position]
            if node.__class__ is not Node:
                nodes[position] = scalar(as_bfloat16(node) if narrowed else node, dtype)
            elif node.dtype is not dtype and node.dtype != dtype:
                nodes[position] = make("cast", (node,), {"dtype": spelled(dtype)}, location)
        node = intern(row, tuple(nodes), attrs, aval, location)
        if narrowed:
            node = make("cast", (node,), {"dtype": NAME}, location)
        return _recorded(node, trace, location)
    except UserError as error:
        raise _placed(error) from None


def apply(name: str, operands: Sequence[Tensor], **attrs: Hashable) -> Tensor:
    """Record any op on tensors that already have the dtypes it takes."""
    trace: Trace | None = None
    for tensor in operands:
        source = tensor.traced_in
        if source is not None:
            trace = join(trace, source)
    try:
        nodes = tuple(t.node for t in operands)
        location = user_location()
        return _recorded(made(name, nodes, attrs, location), trace, location)
    except UserError as error:
        raise _placed(error) from None


def _recorded(node: Node, trace: Trace | None, location: Location | None) -> Tensor:
    tensor = wrap(node, trace)
    if trace is None and state.trace is None:
        _pending.count += 1
        if _pending.count >= _LONG:
            _catch_up(tensor, location)
    return tensor


def cast(tensor: Tensor, dtype: Any) -> Tensor:
    """Return ``tensor`` as ``dtype``; ``tensor`` itself where it has it."""
    dtype = named(dtype)
    return tensor if tensor.dtype == dtype else apply("cast", (tensor,), dtype=spelled(dtype))


def _placed(error: UserError) -> UserError:
    if error.loc is None:
        error.loc = user_location()
    return error


# -- views -----------------------------------------------------------------------------------------


def _walk(node: Node, steps: tuple[Step, ...]) -> Node:
    if steps:
        location = user_location()
        for name, attrs in steps:
            node = made(name, (node,), attrs, location)
    return node


def _refresh(tensor: Tensor) -> None:
    """Bring a view, and the views between it and its root, to the root's current version."""
    stale: list[tuple[Tensor, View]] = []
    current = tensor
    while (link := current._view) is not None and link.seen != link.root._version:
        stale.append((current, link))
        current = link.base
    for current, link in reversed(stale):
        current._node = _walk(link.base._node, link.steps)
        link.seen = link.root._version


def write(tensor: Tensor, node: Node, trace: Trace | None) -> None:
    """Give ``tensor`` the value ``node`` (same dtype and shape); a view updates its base.

    Raises ``TraceError`` where a running trace would change a tensor made outside it: the
    change would happen once, while tracing, and not when the compiled function runs.
    """
    root = tensor if tensor._view is None else tensor._view.root
    running = state.trace
    if running is not None and root._birth is not running:
        raise _error(
            TraceError,
            f"{running.name} changes a tensor that was made outside it; "
            "the change would happen while tracing and never again",
            hint="change a copy (x = x.copy()), or return the new value",
        )
    if trace is not None:
        trace = join(root._trace, trace)
    location = user_location()
    written, value = tensor, node
    while (link := tensor._view) is not None:
        before = [link.base.node]
        for name, attrs in link.steps:
            before.append(make(name, (before[-1],), attrs, location))
        for (name, attrs), operand in zip(link.steps[::-1], before[-2::-1], strict=True):
            value = _INVERSE[name](operand, value, attrs)
        tensor = link.base
    root._node = value
    root._version += 1
    if trace is not None:
        root._trace = trace
    elif root._trace is None and value.op.family not in _RECOMPUTED:
        _live[value] = root
    if (link := written._view) is not None:
        written._node = node
        link.seen = root._version


def _unslice(before: Node, value: Node, attrs: Mapping[str, Hashable]) -> Node:
    return make("update_slice", (before, value), attrs, user_location())


def _unreshape(before: Node, value: Node, attrs: Mapping[str, Hashable]) -> Node:
    return make("reshape", (value,), {"shape": before.shape}, user_location())


def _unpermute(before: Node, value: Node, attrs: Mapping[str, Any]) -> Node:
    axes: tuple[int, ...] = attrs["axes"]
    inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return make("permute", (value,), {"axes": inverse}, user_location())


def _read_only(before: Node, value: Node, attrs: Mapping[str, Hashable]) -> Node:
    raise _error(
        ValueArgumentError,
        "this view repeats elements (broadcast, diagonal), so it is read-only",
        hint="assign to a copy: x = x.copy()",
    )


_INVERSE: dict[str, Callable[[Node, Node, Mapping[str, Any]], Node]] = {
    "slice": _unslice,
    "reshape": _unreshape,
    "permute": _unpermute,
    "broadcast_to": _read_only,
}


def store(tensor: Tensor, value: Tensor) -> None:
    """Write ``value`` (same shape) to ``tensor``, cast to its dtype by NumPy's same_kind rule."""
    if not np.can_cast(value.dtype, tensor.dtype, "same_kind"):
        raise _error(
            DTypeError,
            f"cannot store {value.dtype} in a tensor of {tensor.dtype} in place",
            hint=f"write x = x.astype('{value.dtype}') first, or drop the in-place form",
        )
    result = cast(value, tensor.dtype)
    write(tensor, result.node, result.traced_in)


# -- values on demand ------------------------------------------------------------------------------

# A live intermediate up to this size is always kept when a result that uses it is evaluated.
_KEPT_BYTES = 16 << 20


def value_of(tensor: Tensor, wanted: str, hint: str = OUTSIDE) -> Array:
    """Return the array of ``tensor``, evaluating it if need be; the array must not be changed.

    ``wanted`` names the request in the ``TraceError`` of a traced tensor. Raises ``OutOfMemory``.
    """
    root = tensor if tensor._view is None else tensor._view.root
    if root._trace is not None:
        raise no_value(root._trace, wanted, hint)
    if root._node.op.name != "data":
        _evaluate(root)
    chain: list[View] = []
    while (link := tensor._view) is not None:
        chain.append(link)
        tensor = link.base
    array = root._node.value
    assert array is not None
    for link in reversed(chain):
        for name, attrs in link.steps:
            array = OPS[name].reference(array, **attrs)
    return array


# Ops that a thread may record before what they make is computed without being asked for.
_LONG = 1000


class _Pending(threading.local):
    """How many ops this thread has recorded since it last computed something; where that was."""

    count = 0
    at: Location | None = None


_pending = _Pending()


def _catch_up(tensor: Tensor, location: Location | None) -> None:
    """Compute ``tensor`` if what it is made of has become long, as in a loop that reads nothing.

    At the same line as the time before: there a loop is at the same place of a later turn, so that
    the next stretch is a program that is known already.
    """
    if _pending.at not in (None, location) and _pending.count < 4 * _LONG:
        return
    _pending.count, _pending.at = 0, location
    if len(reachable((tensor.node,))) >= _LONG // 2:
        with suppress(OutOfMemory):  # it may never be asked for
            _evaluate(tensor)


def _evaluate(root: Tensor) -> None:
    """Compute ``root`` and move its handle to the result.

    Live handles on intermediates get their values in the same run, so that a loop that prints a
    figure of its state on each turn does not compute the state from the beginning each time.
    Intermediates larger than everything else at hand are left out: they may never be needed.
    """
    from tracejit.runtime import demand

    _pending.count = 0
    target = root._node
    nodes = reachable((target,))
    largest = max(n.nbytes for n in nodes if n is target or not n.inputs)
    limit = max(_KEPT_BYTES, largest)
    handles = [root]
    for node in nodes:
        if node.inputs and node is not target and node.nbytes <= limit:
            handle = _live.get(node)
            if handle is not None and handle._node is node:
                handles.append(handle)
    try:
        arrays = demand.evaluate([h._node for h in handles])
    except MemoryError as error:
        gib = target.nbytes / 2**30
        raise OutOfMemory(
            f"no memory for {target.dtype}{list(target.shape)} ({gib:,.1f} GiB): {error}",
            loc=target.loc,
        ) from None
    for handle, array in zip(handles, arrays, strict=True):
        handle._node = data(array, handle._node.loc)
        handle._version += 1


# Gives the class its methods; they need the class first.
from tracejit.functions import methods as methods  # noqa: E402
