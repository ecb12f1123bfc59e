"""Evaluation on demand: the values of recorded nodes, through programs that are kept by structure.

A loop at program level records the same operations on other data each time round, and should plan
and compile them once. A structure is interpreted until that has cost about what compiling it would,
so that a line typed once answers at once; then its kernels are made, in the background unless
waiting for them is quicker than interpreting once more.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from tracejit import config
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.graph.text import type_text
from tracejit.ops.leaves import CONSTANT
from tracejit.ops.table import Array
from tracejit.runtime import monitor, registry, spans, stance, turns
from tracejit.runtime.costs import model
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.titles import ops_text

if TYPE_CHECKING:
    from tracejit.runtime.report import FunctionProfile
    from tracejit.runtime.tiers import Program

# Structures kept; the one used longest ago goes first.
_MAX_PROGRAMS = 256
# Interpreting costs nothing else, compiling in the background a core's time as well.
COMPILE_NS = 2e6
# A program, or the nanoseconds spent interpreting so far.
_programs: OrderedDict[Any, Program | float] = OrderedDict()
_lock = threading.Lock()
# What reports and events call it.
NAME = "tensors on demand"


def evaluate(outputs: Sequence[Node], nodes: list[Node]) -> list[Array]:
    """Return the values of ``outputs``, whose leaves are all data. Do not write to them.

    ``nodes`` are what they need, in topological order.
    """
    mode = stance.mode_of(None)
    if mode == "never":
        values, seconds = _interpret(Graph((), outputs, nodes))
        _usage.count(None, seconds)
        return values
    key, leaves = _structure(outputs, nodes)
    program = _found(key)
    graph: Graph | None = None
    if program is None:
        key, leaves = _generalised(key, leaves, outputs, nodes)
        graph = Graph((), outputs, nodes)
        program = _found(key) or _program(key, graph, leaves, mode)
    if program is not None and program.executable is not None:
        return program.run([_value(leaf) for leaf in leaves])
    graph = graph or Graph((), outputs, nodes)
    # The program's graph has inputs in place of data; interpreting this one is the same.
    values, seconds = _interpret(graph)
    _usage.count(program, seconds)
    if program is not None:
        program.request()
        turns.give()
    return values


def _interpret(graph: Graph) -> tuple[list[Array], float]:
    """Return the values, and the seconds that they took."""
    started = time.perf_counter()
    values = run_graph(graph, ())
    seconds = max(0.0, time.perf_counter() - started)
    if monitor.active is not None:
        monitor.active.interpreted += seconds
        spans.add(f"interpret {NAME}", "interpret", started, nodes=len(graph.nodes))
    return values, seconds


class _Usage:
    """What evaluation on demand has cost, for the profiler's reports."""

    def __init__(self) -> None:
        self.calls = 0  # of structures that no program was made for
        self.seconds = 0.0
        registry.register(self)

    def count(self, program: Program | None, seconds: float) -> None:
        """Take one interpreted run; concurrent ones may lose one another."""
        if program is None:
            self.calls += 1
            self.seconds += seconds
        else:
            program.interpreted_runs += 1
            program.interpreted_ns += round(seconds * 1e9)

    def profile(self) -> FunctionProfile:
        """Return the structures as signatures of one function."""
        from tracejit.runtime import profiler
        from tracejit.runtime.reasons import Reason
        from tracejit.runtime.report import FunctionProfile, SignatureProfile

        with _lock:
            programs = [p for p in _programs.values() if not isinstance(p, (int, float))]
        signatures = [profiler.signature_profile(p, _text(p.graph)) for p in programs]
        rare = SignatureProfile(
            "expressions that have cost little",
            tier=0,
            state="interpreted",
            native_calls=0,
            interpreted_calls=self.calls,
            seconds=self.seconds,
            compile_seconds=0.0,
            interpreted_seconds=self.seconds,
            reason=str(Reason.NOT_WORTH),
        )
        signatures += [rare] if self.calls else []
        seconds = sum(s.seconds for s in signatures)
        return FunctionProfile(
            name=NAME,
            calls=sum(s.calls for s in signatures),
            seconds=seconds,
            exclusive_seconds=seconds,
            rate=sum(s.rate or 0.0 for s in signatures),
            compile_seconds=sum(s.compile_seconds for s in signatures),
            guard_failures={},
            sizes={},
            signatures=signatures,
        )


def _text(graph: Graph) -> str:
    """Return the ops of an expression and the types of its data."""
    types = ", ".join(type_text(n.dtype, n.shape) for n in graph.inputs)
    return f"{ops_text(n.op.name for n in graph.nodes if n.inputs)}: {types}"


_usage = _Usage()


def _found(key: Any) -> Program | None:
    """Return the program of a structure if it has one."""
    with _lock:
        found = _programs.get(key)
        if found is None or isinstance(found, (int, float)):
            return None
        _programs.move_to_end(key)
        return found


def _program(key: Any, graph: Graph, leaves: Sequence[Node], mode: stance.Mode) -> Program | None:
    """Return a program for a structure, or None while interpreting is cheaper than making it."""
    with _lock:
        before = _programs.get(key, 0.0)
        spent = model.interpreter_ns(graph) + (before if isinstance(before, (int, float)) else 0.0)
        drawn = monitor.active is not None and monitor.active.everything
        if spent < COMPILE_NS and not drawn and not config.stress_compile():
            _remember(key, spent)
            return None
    layouts = [layout_of(_value(n)) for n in leaves]
    from tracejit.runtime.tiers import Program  # a line that is typed once needs no compiler

    program = Program(_lifted(graph, leaves), layouts, mode, name=NAME)
    with _lock:
        _remember(key, program)
    return program


def _remember(key: Any, entry: Program | float) -> None:
    _programs[key] = entry
    if len(_programs) > _MAX_PROGRAMS:
        _programs.popitem(last=False)


def clear() -> None:
    """Forget all programs."""
    with _lock:
        _programs.clear()
        _seen.clear()
        _usage.calls, _usage.seconds = 0, 0.0


def _value(leaf: Node) -> Array:
    value = leaf.value
    return CONSTANT.reference(**leaf.attrs) if value is None else value


def layout_of(array: Array) -> tuple[int, ...] | None:
    """Return None for a C-contiguous array, else its strides in elements."""
    if array.flags.c_contiguous:
        return None
    return tuple(s // array.itemsize for s in array.strides)


def _structure(
    outputs: Sequence[Node], nodes: Sequence[Node], lifted: Collection[Node] = ()
) -> tuple[Any, list[Node]]:
    """Return a key that expressions of equal structure share, and the data leaves in order.

    Constants that are ``lifted`` are leaves like data: expressions that differ in them are equal.
    """
    position: dict[Node, int] = {}
    leaves: list[Node] = []
    parts: list[Any] = [config.settings()]
    for node in nodes:
        position[node] = len(position)
        if node.value is not None:
            leaves.append(node)
            parts.append(node.aval)
            parts.append(layout_of(node.value))
        elif node in lifted:
            leaves.append(node)
            parts.append(node.aval)
            parts.append(None)
        else:
            parts.append(node.op)
            parts.append(node.identity)
            parts.append(tuple([position[i] for i in node.inputs]))
    parts.append(tuple([position[o] for o in outputs]))
    return tuple(parts), leaves


# Ops that take as long whether a float that they read is a constant or not.
_INDIFFERENT = frozenset(
    ("add", "subtract", "multiply", "divide", "maximum", "minimum", "where", "clip", "equal",
     "not_equal", "less", "less_equal", "greater", "greater_equal")
)  # fmt: skip


class _Seen:
    """The constants of the first expression of a structure, and which have been others since."""

    __slots__ = ("identities", "varying")

    def __init__(self, identities: list[Hashable]):
        self.identities = identities
        self.varying: frozenset[int] = frozenset()


# By structures in which those constants are lifted that may be.
_seen: OrderedDict[Any, _Seen] = OrderedDict()


def _generalised(
    key: Any, leaves: list[Node], outputs: Sequence[Node], nodes: Sequence[Node]
) -> tuple[Any, list[Node]]:
    """Return the key and the leaves of an expression for a program that serves others as well.

    ``x / (i + 1)`` has another constant on each turn of a loop, and should be one program: float
    constants that have been seen to vary become inputs. The others stay what they are, which
    spares the kernel a load and lets the passes simplify.
    """
    constants = [n for n in nodes if n.op is CONSTANT and n.dtype.kind == "f"]
    if constants:
        fixed = {i for n in nodes if n.op.name not in _INDIFFERENT for i in n.inputs}
        constants = [n for n in constants if n not in fixed and n not in outputs]
    if not constants:
        return key, leaves
    identities = [n.identity for n in constants]
    general, _ = _structure(outputs, nodes, frozenset(constants))
    with _lock:
        seen = _seen.get(general)
        if seen is None:
            _seen[general] = _Seen(identities)
            if len(_seen) > _MAX_PROGRAMS:
                _seen.popitem(last=False)
            return key, leaves
        _seen.move_to_end(general)
        if seen.identities != identities:
            pairs = zip(seen.identities, identities, strict=True)
            seen.varying |= {place for place, (a, b) in enumerate(pairs) if a != b}
        varying = seen.varying
    if not varying:
        return key, leaves
    return _structure(outputs, nodes, frozenset([constants[place] for place in varying]))


def _lifted(graph: Graph, leaves: Sequence[Node]) -> Graph:
    """Return ``graph`` with its data leaves as inputs."""
    inputs = [placeholder(i, n.dtype, n.shape) for i, n in enumerate(leaves)]
    image = dict(zip(leaves, inputs, strict=True))
    lifted = graph.rewrite(lambda node, operands: image.get(node))
    return Graph(inputs, lifted.outputs)
