"""The engine: from a graph to values.

``compile_graph`` is the pipeline; read it top to bottom. A graph that fails to compile still has
an answer: the caller warns once and interprets it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod

from tracejit import config
from tracejit.codegen import contraction, elementwise
from tracejit.codegen.builder import Module
from tracejit.codegen.loops import ENTRY, emit_kernel
from tracejit.codegen.target import Target
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.graph.passes import canonicalise
from tracejit.ops.table import Array
from tracejit.runtime import cpu
from tracejit.runtime.code import obtain
from tracejit.runtime.executable import Executable, NativeCall
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.grain import grain
from tracejit.schedule.kernel import SCRATCH, Kernel
from tracejit.schedule.schedule import (
    ContractionStep,
    KernelStep,
    Layout,
    OpaqueStep,
    Schedule,
    View,
    make_schedule,
)


def plan_graph(graph: Graph, layouts: Sequence[Layout], *, fast_math: bool = False) -> Schedule:
    """Return the schedule of ``graph``: everything before code generation."""
    canonical = canonicalise(graph, fast_math=fast_math)
    return make_schedule(canonical, layouts, elementwise.lowers)


def compile_graph(
    graph: Graph,
    layouts: Sequence[Layout],
    *,
    target: Target | None = None,
    fast_math: bool = False,
    level: int = 2,
) -> Executable:
    """Compile ``graph`` for inputs of the given layouts (None: C-contiguous; else strides)."""
    target = target or cpu.target()
    schedule = plan_graph(graph, layouts, fast_math=fast_math)
    stages: list[list[NativeCall] | OpaqueStep] = []
    for step in schedule.steps:
        if isinstance(step, OpaqueStep):
            stages.append(step)
            continue
        native = stages[-1] if stages else None
        if not isinstance(native, list):
            native = []
            stages.append(native)
        native.append(_native_call(step, schedule, target, level))
    return Executable(schedule, stages, target)


def _native_call(
    step: KernelStep | ContractionStep, schedule: Schedule, target: Target, level: int
) -> NativeCall:
    if isinstance(step, KernelStep):
        return _kernel_call(step.kernel, schedule, target, level)
    return _contraction_call(step, schedule, target, level)


def _kernel_call(kernel: Kernel, schedule: Schedule, target: Target, level: int) -> NativeCall:
    code = obtain(kernel.key, lambda: emit_kernel(kernel, target), ENTRY, target, level)
    pointers = [
        (a.buffer, a.offset * a.dtype.itemsize) for a in kernel.accesses if a.buffer != SCRATCH
    ]
    return NativeCall(code, pointers, kernel.sizes(), kernel.trip_count, grain(kernel))


def _contraction_call(
    step: ContractionStep, schedule: Schedule, target: Target, level: int
) -> NativeCall:
    problem = _gemm_problem(step)
    spec = contraction.classify(target, step.node.dtype, problem)
    arguments = contraction.gemm_arguments(spec, target, problem)

    def emit() -> str:
        module = Module(target)
        contraction.emit_gemm(module, ENTRY, spec)
        return module.text()

    code = obtain(f"gemm {spec}", emit, ENTRY, target, level)
    itemsize = step.node.dtype.itemsize
    views = (step.right, step.left) if arguments.swapped else (step.left, step.right)
    pointers = [(v.buffer, v.offset * itemsize) for v in (*views, step.result)]
    # The workspace follows the arena; its base is the entry after the last buffer's.
    pointers.append((len(schedule.buffers), 0))
    return NativeCall(
        code,
        pointers,
        arguments.sizes,
        contraction.tile_count(spec, target, problem),
        _tile_grain(problem),
        contraction.workspace_bytes(spec, target, problem),
    )


def _tile_grain(problem: contraction.GemmProblem) -> int:
    """Return how many tiles of a product make one chunk; small products stay whole."""
    small = prod(problem.batch) * problem.m * problem.n * problem.k < 1 << 18
    return 1 << 40 if small else 1


def _gemm_problem(step: ContractionStep) -> contraction.GemmProblem:
    """Return the matrix product of a ``matmul`` node; batch axes broadcast by stride 0."""
    *batch, m, n = step.result.shape
    k = step.left.shape[-1]

    def along(view: View) -> tuple[int, ...]:
        missing = len(batch) - (len(view.shape) - 2)
        own = [0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True)][:-2]
        return (0,) * missing + tuple(own)

    return contraction.GemmProblem(
        m,
        n,
        k,
        (step.left.strides[-2], step.left.strides[-1]),
        (step.right.strides[-2], step.right.strides[-1]),
        (step.result.strides[-2], step.result.strides[-1]),
        tuple(batch),
        along(step.left),
        along(step.right),
        along(step.result),
    )


def evaluate(nodes: Sequence[Node]) -> list[Array]:
    """Return the values of ``nodes``, whose leaves are all data."""
    graph = Graph((), nodes)
    if config.disable_jit():
        return run_graph(graph, ())
    try:
        executable = compile_graph(graph, ())
    except Exception as error:  # any failure of ours must not cost the user the answer
        warn_interpreted(error)
        return run_graph(graph, ())
    return executable.run(())


_warned: set[str] = set()


def warn_interpreted(error: Exception) -> None:
    """Say once for each kind of failure that a graph is interpreted instead of compiled."""
    what = f"{type(error).__name__}: {error}"
    if what not in _warned:
        _warned.add(what)
        warnings.warn(
            f"tracejit could not compile a graph and interprets it instead: {what}",
            RuntimeWarning,
            stacklevel=3,
        )
