"""Running programs in kernels alone, on the instruction set in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracejit.graph.graph import Graph
from tracejit.graph.node import placeholder
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.schedule.steps import OpaqueStep
from tracejit.tensor import wrap


def run_native(graph: Graph, values: Sequence[Array]) -> list[Array]:
    """Return the outputs, which no step of the schedule may take from NumPy."""
    schedule = engine.plan_graph(graph, [layout_of(v) for v in values])
    opaque = [s.node.op.name for s in schedule.steps if isinstance(s, OpaqueStep)]
    assert not opaque, f"through NumPy: {', '.join(opaque)}"
    return engine.compile_schedule(schedule, cpu.target()).run(values)


def native(f: Callable[..., Any], *values: Array) -> Array:
    """Return what ``f``, a function of tensors, makes of the arrays."""
    nodes = [placeholder(i, v.dtype, v.shape) for i, v in enumerate(values)]
    return run_native(Graph(nodes, [f(*(wrap(n) for n in nodes)).node]), values)[0]
