"""One signature of a jitted function: traced, and called.

``compile_signature`` runs the Python function once on placeholders and turns what it returned
and what it changed into a graph plus a plan: for each returned leaf, and each argument written
in place, where its value comes from.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from operator import is_not
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import numpy as np

from tracejit.errors import IntoArrayError, TraceError, ValueArgumentError
from tracejit.frontend.creation import as_tensors
from tracejit.frontend.difference import Why
from tracejit.frontend.effects import check_effects, outer_bindings
from tracejit.frontend.names import definition, name_of, parameter
from tracejit.frontend.scalars import ScalarTensor, WeakScalar
from tracejit.frontend.signature import ArrayKey, is_array, leaf_key, runs_in_place
from tracejit.frontend.trees import (
    LEAF,
    Spec,
    Tree,
    flatten,
    is_foreign_array,
    paths,
    statics,
    unflatten,
)
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, data, placeholder
from tracejit.ops.table import Array, DType
from tracejit.record import record, replace
from tracejit.runtime import spans, stance
from tracejit.runtime.reasons import Reason
from tracejit.runtime.tiers import Program, Run, Wanted
from tracejit.tensor import Tensor, value_of, wrap
from tracejit.tracing import Trace, user_location
from tracejit.writes import write

if TYPE_CHECKING:
    from tracejit.runtime.executable import Executable


@record(frozen=True, slots=True)
class Source:
    """Where a value comes from: result number ``index`` of the run, argument leaf number
    ``index`` ("argument": the caller's very object; "copy": its value), or a constant.

    ``fresh`` is False where an earlier returned leaf took the result already; ``weak`` marks a
    Python scalar.
    """

    kind: str
    index: int = 0
    value: Any = None
    fresh: bool = True
    weak: bool = False


class Recorded(NamedTuple):
    """One run of a function on placeholders."""

    graph: Graph
    sources: list[Source]
    tree: Tree
    writes: list[tuple[int, Source]]


class Answer:
    """How arguments go into runs of what was recorded, and how their results come out.

    ``keys`` is the leaves' part of the signature. ``guard_failures`` counts calls that kernels
    could not answer as they came.
    """

    __slots__ = ("guard_failures", "keys", "sources", "tree", "writes")

    def __init__(self, traced: Recorded, keys: Sequence[Any]):
        self.sources = traced.sources
        self.tree = traced.tree
        self.writes = traced.writes
        self.keys = tuple(keys)
        self.guard_failures: Counter[Reason] = Counter()

    def answer(
        self,
        run: Run,
        leaves: Sequence[Any],
        plain: Callable[[Any, Any], Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Return what the function returns for these argument leaves, by ``run`` of the arrays.

        ``plain(args, kwargs)`` runs the Python function itself, for arguments that overlap what
        it writes.
        """
        arrays = [as_array(leaf, key) for leaf, key in zip(leaves, self.keys, strict=True)]
        if any(map(is_not, arrays, leaves)):
            copies = sum(a is not b and is_array(b) for a, b in zip(arrays, leaves, strict=True))
            self.guard_failures[Reason.ALIGNMENT] += bool(copies)
        if self.writes and self._overlap(leaves, arrays):
            self.guard_failures[Reason.ALIASING] += 1
            return plain(args, kwargs)
        results = run(arrays)
        # Every value is read before any argument is overwritten: a swap reads both.
        written = [self._value(source, results, arrays) for _, source in self.writes]
        tensors = any(isinstance(leaf, Tensor) for leaf in leaves)
        returned: list[Any] = []
        for source in self.sources:
            if source.kind == "argument":
                returned.append(leaves[source.index])
            elif source.kind == "again":
                returned.append(returned[source.index])
            elif source.kind == "static":
                returned.append(source.value)
            else:
                array = self._value(source, results, arrays)
                returned.append(_finish(array, tensors, source.weak))
        for (index, _), value in zip(self.writes, written, strict=True):
            self._write_back(leaves[index], value, index)
        return returned[0] if self.tree is LEAF else unflatten(self.tree, returned)

    def _write_back(self, leaf: Any, value: Array, index: int) -> None:
        if isinstance(leaf, Tensor):
            write(leaf, data(value), None)
            return
        if not leaf.flags.writeable:
            self.guard_failures[Reason.READ_ONLY] += 1
            raise ValueArgumentError(
                f"argument array {index} is read-only, and the function assigns to it",
                hint="pass a copy, or return the new value instead of assigning",
            )
        np.copyto(leaf, value)

    def _value(self, source: Source, results: Sequence[Array], arrays: Sequence[Array]) -> Array:
        """Return an array that nobody else holds."""
        if source.kind == "result":
            result = results[source.index]
            return result if source.fresh else result.copy()
        return (arrays[source.index] if source.kind == "copy" else source.value).copy()

    def leaves_to_python(self, leaves: Sequence[Any]) -> bool:
        """Return whether a call with these leaves runs the Python function, as ``call`` has it."""
        if not self.writes or any(isinstance(leaf, Spec) for leaf in leaves):
            return False
        arrays = [as_array(leaf, key) for leaf, key in zip(leaves, self.keys, strict=True)]
        return self._overlap(leaves, arrays)

    def _overlap(self, leaves: Sequence[Any], arrays: Sequence[Array]) -> bool:
        """True where an argument that is written shares memory with another argument."""
        for index, _ in self.writes:
            for other, array in enumerate(arrays):
                if other == index or not isinstance(leaves[other], (np.ndarray, Tensor)):
                    continue
                if np.may_share_memory(arrays[index], array):
                    return True
        return False


class Compiled(Answer):
    """One signature and its program.

    ``simple`` says that the function returns one fresh array and changes nothing, so that a call
    is a run of the program. ``tracing`` is what recording it took, in seconds. ``why`` says why
    no earlier signature of the function fitted; None for its first. ``entered`` is set when calls
    that are like its first have been given to a native entry, if that can take them.
    """

    __slots__ = ("entered", "graph", "program", "simple", "tracing", "why")

    def __init__(
        self,
        traced: Recorded,
        keys: Sequence[Any],
        tracing: float,
        mode: Wanted,
        *,
        name: str,
        fast_math: bool,
        level: int | None,
    ):
        super().__init__(traced, keys)
        self.graph = traced.graph
        self.tracing = tracing
        self.why: Why | None = None
        self.entered = False
        layouts = [key.layout if isinstance(key, ArrayKey) else None for key in self.keys]
        self.program = Program(
            self.graph, layouts, mode, name=name, fast_math=fast_math, level=level
        )
        first = self.sources[0] if self.sources else Source("none")
        self.simple = (
            traced.tree == LEAF
            and not traced.writes
            and first.kind == "result"
            and self.graph.outputs[first.index].shape != ()
        )

    @property
    def executable(self) -> Executable | None:
        """The engine's compiled form; None while NumPy interprets the graph."""
        return self.program.executable

    def call(
        self,
        leaves: Sequence[Any],
        plain: Callable[[Any, Any], Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Return what the function returns for these argument leaves; the others as above."""
        program = self.program
        run = program.interpret if stance.interpreting else program.run
        return self.answer(run, leaves, plain, args, kwargs)


def as_array(leaf: Any, key: Any) -> Array:
    """Return the ndarray that the run reads for an argument leaf."""
    if isinstance(leaf, Tensor):
        leaf = value_of(leaf, "an argument")
    if not is_array(leaf):
        return np.asarray(leaf, complex if key is complex else float if key is float else None)
    dtype, _, layout = key
    if layout is None and not (leaf.flags.c_contiguous and runs_in_place(leaf)):
        return leaf.astype(dtype, order="C", copy=True)
    return leaf


def _finish(array: Array, tensors: bool, weak: bool) -> Any:
    """Return a result as NumPy would: scalars for 0-d; as a Tensor where an argument is one."""
    if weak:
        return array.item()
    if tensors:
        return wrap(data(array))
    return array[()] if array.ndim == 0 else array


# -- tracing ---------------------------------------------------------------------------------------


def compile_signature(
    function: Callable[..., Any],
    leaves: Sequence[Any],
    tree: Tree,
    *,
    mode: Wanted,
    fast_math: bool = False,
    level: int | None = None,
) -> Compiled:
    """Trace ``function`` on arguments like ``leaves`` in ``tree`` (of ``(args, kwargs)``).

    ``mode`` says when it is compiled, ``level`` how hard LLVM tries. Raises the function's own
    errors, and TraceError for what a trace cannot do.
    """
    name = name_of(function)
    keys = [leaf_key(leaf, name) for leaf in leaves]
    start = time.perf_counter()
    traced = trace_function(function, leaves, keys, tree)
    tracing = max(0.0, time.perf_counter() - start)
    if spans.active is not None:
        spans.add(f"trace {name}", "trace", start, nodes=len(traced.graph.nodes))
    return Compiled(traced, keys, tracing, mode, name=name, fast_math=fast_math, level=level)


def trace_function(
    function: Callable[..., Any], leaves: Sequence[Any], keys: Sequence[Any], tree: Tree
) -> Recorded:
    """Run ``function`` on placeholders and read off its graph.

    A function that puts traced values into NumPy's arrays runs again, with tensors in their place.
    """
    code: CodeType | None = getattr(function, "__code__", None)
    if code in _need_tensors:
        with as_tensors():
            return _record(function, leaves, keys, tree)
    try:
        return _record(function, leaves, keys, tree)
    except IntoArrayError as error:
        first = error
    try:
        with as_tensors():
            recorded = _record(function, leaves, keys, tree)
    except TraceError:
        raise
    except Exception:
        raise first from None
    if code is not None:
        _need_tensors.add(code)
    return recorded


# Functions whose traces needed ``as_tensors``.
_need_tensors: WeakSet[CodeType] = WeakSet()


def _record(
    function: Callable[..., Any], leaves: Sequence[Any], keys: Sequence[Any], tree: Tree
) -> Recorded:
    labels = [parameter(function, path) for path in paths(tree)]
    with Trace(name_of(function), definition(function)) as trace:
        inputs = [
            _placeholder(index, key, label)
            for index, (key, label) in enumerate(zip(keys, labels, strict=True))
        ]
        handles = [
            _handle(node, leaf, key, trace)
            for node, leaf, key in zip(inputs, leaves, keys, strict=True)
        ]
        args, kwargs = unflatten(tree, handles)
        bindings = outer_bindings(function)
        result = _called(function, args, kwargs)
        check_effects(function, trace, tree, handles, (args, kwargs), result, bindings)
        returned, result_tree = flatten(result)
        _refuse_selections(result_tree)
        collector = _Collector(inputs, handles, trace)
        sources = [collector.returned(leaf) for leaf in returned]
        writes = [
            (index, collector.source(handle.node))
            for index, (handle, node, leaf) in enumerate(zip(handles, inputs, leaves, strict=True))
            if handle.node is not node and isinstance(leaf, (np.ndarray, Tensor, Spec))
        ]
    sources = [_evaluated(source) for source in sources]
    writes = [(index, _evaluated(source)) for index, source in writes]
    return Recorded(Graph(inputs, collector.outputs), sources, result_tree, writes)


def _refuse_selections(result: Tree) -> None:
    """Raise ``TraceError`` where a result is the elements under a mask, which have no shape."""
    found = [value for _, value in statics(result) if is_foreign_array(value.__class__)]
    if found:
        from tracejit.functions.selection import Selection

        for value in found:
            if isinstance(value, Selection):
                value.refuse(value.made_at)


def _called(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call ``function``; where NumPy hides that it met a traced value, say so."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        if isinstance(error.__cause__, TraceError):
            raise error.__cause__ from None
        raise


def _placeholder(index: int, key: Any, label: str) -> Node:
    if isinstance(key, ArrayKey):
        return placeholder(index, key[0], key[1], label, user_location())
    dtype: DType = np.dtype(key if key in (float, complex) else key[1])
    return placeholder(index, dtype, (), label, user_location())


def _handle(node: Node, leaf: Any, key: Any, trace: Trace) -> Tensor:
    if key is float or key is complex:
        return WeakScalar.of(node, trace)
    return ScalarTensor.of(node, trace) if isinstance(leaf, np.generic) else wrap(node, trace)


class _Collector:
    """Gathers the outputs of a trace, each node once."""

    def __init__(self, inputs: Sequence[Node], handles: Sequence[Tensor], trace: Trace):
        self.inputs = {node: i for i, node in enumerate(inputs)}
        self.handles = {id(handle): i for i, handle in enumerate(handles)}
        self.trace = trace
        self.outputs: list[Node] = []
        self.index: dict[Node, int] = {}
        self.taken: set[int] = set()
        self.returned_before: dict[int, int] = {}
        self.position = 0
        self.alive: list[Any] = []  # ids stay distinct while their objects live

    def returned(self, leaf: Any) -> Source:
        """Return the source of one returned leaf."""
        position, self.position = self.position, self.position + 1
        self.alive.append(leaf)
        if id(leaf) in self.handles:
            return Source("argument", self.handles[id(leaf)])
        if not isinstance(leaf, Tensor):
            if not is_array(leaf):
                return Source("static", value=leaf)
            again = self._seen(leaf, position)
            return again or Source("constant", value=leaf.copy())
        again = self._seen(leaf, position)
        if again is not None:
            return again
        if leaf.traced_in is None:
            return Source("constant", value=leaf)
        source = replace(self.source(leaf.node), weak=isinstance(leaf, WeakScalar))
        if source.kind == "result":
            source = replace(source, fresh=source.index not in self.taken)
            self.taken.add(source.index)
        return source

    def _seen(self, leaf: Any, position: int) -> Source | None:
        """Return the source of an object that was returned before."""
        first = self.returned_before.setdefault(id(leaf), position)
        return None if first == position else Source("again", first)

    def source(self, node: Node) -> Source:
        """Return where the value of ``node`` comes from, making it an output if need be."""
        if node in self.inputs:
            return Source("copy", self.inputs[node])
        if not node.inputs:
            return Source("constant", value=wrap(node))
        if node not in self.index:
            self.index[node] = len(self.outputs)
            self.outputs.append(node)
        return Source("result", self.index[node])


def _evaluated(source: Source) -> Source:
    """Return ``source`` with the value of a constant tensor, computed after the trace."""
    if source.kind != "constant" or not isinstance(source.value, Tensor):
        return source
    if source.value.traced_in is not None:
        raise TraceError("a tensor of another trace was returned", loc=user_location())
    return replace(source, value=np.array(value_of(source.value, "the result")))
