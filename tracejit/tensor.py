"""Tensor: the one traced value.

A tensor is a handle on a node of the dataflow graph. Operations record nodes; but for small ones on
known values (``immediate.py``) nothing runs until Python asks for a value (``numpy()``, ``item``,
``bool``, ``print``, DLPack), or has recorded a thousand ops without, and then the handle moves to a
``data`` leaf that holds the result. Outside a trace the leaves are data, inside they are
placeholders, and asking a value of a tensor that depends on one raises ``TraceError``.

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
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from tracejit import functions, gate
from tracejit.errors import (
    Location,
    OutOfMemory,
    ShapeError,
    UserError,
)
from tracejit.graph.graph import reachable
from tracejit.graph.node import Node, data, intern, make
from tracejit.immediate import DIRECT, computed, computed_by, learn, part_of, permitted, recalled
from tracejit.operators import OUTSIDE, Operators, Values
from tracejit.ops import OPS, Family
from tracejit.ops.dtypes import NAME, named, spelled
from tracejit.ops.table import Array, DType, Shape
from tracejit.runtime import stance
from tracejit.signatures import Resolved, as_bfloat16, inferred, resolve, scalar
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

_NOTHING: Mapping[str, Hashable] = {}
_WEAK: frozenset[type] = frozenset({int, float, complex})


class View:
    """How a view follows from its base: ``steps`` applied to ``base``, last read at ``seen``.

    Of ``base[key]`` with a basic ``key`` they are worked out when somebody wants them.
    """

    __slots__ = ("_steps", "base", "key", "root", "seen")

    def __init__(self, base: Tensor, steps: tuple[Step, ...] | None, key: Any = None):
        self.base = base
        self.root: Tensor = base if base._view is None else base._view.root
        self._steps = steps
        self.key = key
        self.seen: int = self.root._version

    @property
    def steps(self) -> tuple[Step, ...]:
        steps = self._steps
        if steps is None:
            steps = self._steps = functions.indexing.parse(self.base, self.key).steps
        return steps


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
        found = _at_once(name, (self, other), _NOTHING)
        if found is not None:
            return found
        if not _is_operand(other):
            return NotImplemented
        special = operator_function(name)
        return special(self, other) if special else _record(name, (self, other), _NOTHING)

    def _reflected(self, name: str, other: Any) -> Tensor:
        found = _at_once(name, (other, self), _NOTHING)
        if found is not None:
            return found
        if not _is_operand(other):
            return NotImplemented
        special = operator_function(name)
        return special(other, self) if special else _record(name, (other, self), _NOTHING)

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
        return _protocols().array_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        return _protocols().array_function(function, args, kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return _protocols().array_namespace(api_version)


@lru_cache(maxsize=1)
def _protocols() -> Any:
    """Return what understands NumPy's calls, loaded when there is one."""
    from tracejit import protocols

    return protocols


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

# Families whose values are not worth keeping once something that uses them is evaluated.
_RECOMPUTED = (Family.LEAF, Family.MOVEMENT)


def wrap(node: Node, trace: Trace | None = None) -> Tensor:
    """Return a new handle on ``node``; ``trace`` is the one whose arguments it depends on."""
    tensor: Tensor = _new(Tensor)
    tensor._node = node
    tensor._trace = trace
    tensor._birth = state.trace
    tensor._version = 0
    tensor._view = None
    if trace is None and node.value is None:
        keep(tensor, node)
    return tensor


def keep(tensor: Tensor, node: Node) -> None:
    """Keep the value of ``node`` for its handle ``tensor`` once something that uses it is run."""
    if node.op.family not in _RECOMPUTED:
        node.handle = ref(tensor)


def view(base: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """Return the view of ``base`` that movement ``steps`` (op name, attributes) lead to."""
    try:
        node = _walk(base.node, steps)
    except UserError as error:
        raise _placed(error) from None
    return _viewing(node, View(base, steps))


def part(base: Tensor, key: Any) -> Tensor | None:
    """Return the view ``base[key]`` if it is a small part of a known value, else None.

    ``key`` holds integers, slices, ``...`` and None, which are NumPy's to read.
    """
    node = part_of(base.node, key)
    return None if node is None else _viewing(node, View(base, None, key))


def _viewing(node: Node, link: View) -> Tensor:
    tensor: Tensor = _new(Tensor)
    tensor._node = node
    tensor._trace = None
    tensor._birth = state.trace
    tensor._version = 0
    tensor._view = link
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
    found = _at_once(name, operands, attrs)
    return _record(name, operands, attrs) if found is None else found


def _record(name: str, operands: Sequence[Any], attrs: Mapping[str, Hashable]) -> Tensor:
    """Record an elementwise op, or compute it if it is small, whatever has been learnt."""
    trace: Trace | None = None
    nodes: list[Any] = []  # and weak Python scalars
    avals: list[Any] = []
    for operand in operands:
        kind = operand.__class__
        if kind in _WEAK:
            nodes.append(operand)
            avals.append(kind)
            continue
        tensor: Tensor = operand if kind is Tensor else lift(operand)
        if tensor._view is None:
            source, node = tensor._trace, tensor._node
        else:
            source, node = tensor._view.root._trace, tensor.node
        if source is not None and (source is not trace or not source.active):
            trace = join(trace, source)
        nodes.append(node)
        avals.append(node.aval if kind is Tensor else tensor.weak or node.aval)
    try:
        known = resolve(name, tuple(avals), attrs)
        if trace is None and permitted():
            result = computed(known, nodes, attrs)
            if result is not None:
                learn(name, avals, attrs, known, result)
                return wrap(result)
        return _recorded(_noted(known, nodes, attrs), trace)
    except UserError as error:
        raise _placed(error) from None


def _at_once(name: str, operands: Sequence[Any], attrs: Mapping[str, Hashable]) -> Tensor | None:
    """Return an op's result on known values if it has been learnt that it is small, else None."""
    if gate.closed or not stance.prompt:
        return None
    key: list[Any] = [name]
    values: list[Any] = []
    for operand in operands:
        kind = operand.__class__
        if kind is Tensor:
            node = operand._node if operand._view is None else operand.node
            value = node.value
            if value is None:
                return None
            key.append(node.aval)
            values.append(value)
        elif kind in _WEAK:
            key.append(kind)
            values.append(operand)
        elif kind is np.ndarray:
            key.append((operand.dtype, operand.shape))
            values.append(operand)
        else:
            return None
    if attrs:
        key.append(tuple(attrs.items()))
    direct = DIRECT.get(tuple(key))
    node = None if direct is None else computed_by(direct, values, attrs)
    return None if node is None else wrap(node)


def _noted(known: Resolved, nodes: list[Any], attrs: Mapping[str, Hashable]) -> Node:
    """Return the node of an elementwise op, whose operands are cast to what its loop takes."""
    location = user_location()
    for position, node in enumerate(nodes):
        dtype = known.wanted[position]
        if node.__class__ is not Node:
            nodes[position] = scalar(as_bfloat16(node) if known.narrowed else node, dtype)
        elif node.dtype is not dtype and node.dtype != dtype:
            nodes[position] = make("cast", (node,), {"dtype": spelled(dtype)}, location)
    node = intern(known.row, tuple(nodes), attrs, known.aval, location)
    return make("cast", (node,), {"dtype": NAME}, location) if known.narrowed else node


def apply(name: str, operands: Sequence[Tensor], **attrs: Hashable) -> Tensor:
    """Record any op on tensors that already have the dtypes it takes."""
    found = _at_once(name, operands, attrs)
    if found is not None:
        return found
    trace: Trace | None = None
    for tensor in operands:
        source = tensor.traced_in
        if source is not None:
            trace = join(trace, source)
    try:
        return _recorded(emit(name, tuple([t.node for t in operands]), attrs), trace)
    except UserError as error:
        raise _placed(error) from None


def emit(name: str, nodes: tuple[Node, ...], attrs: Mapping[str, Hashable]) -> Node:
    """Return the node of any op on nodes; of a small one on known values a leaf with its value."""
    avals = tuple([n.aval for n in nodes])
    small = permitted()
    if small:
        result = recalled(name, nodes, avals, attrs)
        if result is not None:
            return result
    known = inferred(name, avals, attrs)
    if small:
        result = computed(known, nodes, attrs)
        if result is not None:
            learn(name, avals, attrs, known, result)
            return result
    return intern(known.row, nodes, attrs, known.aval, user_location())


def _recorded(node: Node, trace: Trace | None) -> Tensor:
    tensor = wrap(node, trace)
    if trace is None and node.value is None and state.trace is None:
        _pending.count += 1
        if _pending.count >= _LONG:
            _catch_up(tensor, node.loc)
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
    for name, attrs in steps:
        node = emit(name, (node,), attrs)
    return node


def _refresh(tensor: Tensor) -> None:
    """Bring a view, and the views between it and its root, to the root's current version."""
    stale: list[tuple[Tensor, View]] = []
    current = tensor
    while (link := current._view) is not None and link.seen != link.root._version:
        stale.append((current, link))
        current = link.base
    for current, link in reversed(stale):
        known = None if link.key is None else part_of(link.base._node, link.key)
        current._node = known or _walk(link.base._node, link.steps)
        link.seen = link.root._version


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
    known = tensor.node.value
    if known is not None:
        return known
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
    kept: list[Tensor] = []
    for node in nodes:
        if node.inputs and node.handle is not None and node is not target:
            handle: Tensor | None = node.handle()
            if handle is not None and handle._node is node:
                kept.append(handle)
    if any(handle._node.nbytes > _KEPT_BYTES for handle in kept):
        largest = max([n.nbytes for n in nodes if n is target or not n.inputs])
        limit = max(_KEPT_BYTES, largest)
        kept = [handle for handle in kept if handle._node.nbytes <= limit]
    handles = [root, *kept]
    try:
        arrays = demand.evaluate([h._node for h in handles], nodes)
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
from tracejit.writes import store  # noqa: E402
