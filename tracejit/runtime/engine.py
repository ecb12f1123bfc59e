"""The engine: from a graph to values.

``compile_graph`` is the pipeline; read it top to bottom. A graph that fails to compile still has
an answer: the caller warns once and interprets it.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import Any, cast

from tracejit import config
from tracejit.codegen import attention, contraction, elementwise
from tracejit.codegen.builder import Module
from tracejit.codegen.loops import ENTRY, emit_kernel
from tracejit.codegen.target import Target
from tracejit.errors import UserError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.graph.passes import canonicalise
from tracejit.ops.table import Array
from tracejit.runtime import cpu, monitor
from tracejit.runtime.executable import Executable, NativeCall
from tracejit.runtime.interpreter import run_graph
from tracejit.runtime.service import obtain
from tracejit.runtime.threads import available
from tracejit.schedule.attention import visible_scores
from tracejit.schedule.grain import NEVER, SERIAL_NS, estimate_ns, grain
from tracejit.schedule.kernel import SCRATCH, Access, Contract, Kernel
from tracejit.schedule.merged import offsets
from tracejit.schedule.native import cost as native_cost
from tracejit.schedule.product import batch_axes, is_plain, left_access, right_access
from tracejit.schedule.schedule import (
    ContractionStep,
    KernelStep,
    Layout,
    OpaqueStep,
    Schedule,
    make_schedule,
)

# The first pass over a long scan takes about 0.7 of the second's time (measured), and both are
# bound by memory: two threads that share them are no faster than one that needs the second only.
TWO_PASS_THREADS = 4
# Multiply-adds of a matrix product in a nanosecond, on one thread: for rough estimates.
GEMM_PER_NS = 20


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
        if not stages or isinstance(stages[-1], OpaqueStep):
            stages.append([])
        calls = cast(list[NativeCall], stages[-1])
        calls += _native_calls(step, schedule, target, level)
    return Executable(schedule, stages, target)


def _native_calls(
    step: KernelStep | ContractionStep, schedule: Schedule, target: Target, level: int
) -> list[NativeCall]:
    if isinstance(step, KernelStep):
        return _kernel_calls(step.kernel, target, level)
    call = _contraction_call if step.kernel.attend is None else _attention_call
    return [call(step.kernel, len(schedule.buffers), target, level)]


def _kernel_calls(kernel: Kernel, target: Target, level: int) -> list[NativeCall]:
    """Return the call of ``kernel``; two where a first pass takes the totals of a scan."""
    code = obtain(kernel.key, lambda: emit_kernel(kernel, target), ENTRY, target, level)
    pointers = [
        (a.buffer, a.offset * a.dtype.itemsize) for a in kernel.accesses if a.buffer != SCRATCH
    ]
    ns = estimate_ns(kernel)
    if kernel.totals is None:
        return [NativeCall(code, pointers, kernel.sizes(), kernel.trip_count, grain(kernel), ns=ns)]
    # With all blocks in one chunk the first pass does nothing; the bits are the same.
    size = grain(kernel) if available() >= TWO_PASS_THREADS else NEVER
    return [
        NativeCall(code, pointers, kernel.sizes(totals=first), kernel.trip_count, size, ns=ns)
        for first in (True, False)
    ]


def _contraction_call(kernel: Kernel, workspace: int, target: Target, level: int) -> NativeCall:
    """Return the call of a product; ``workspace`` is the number of the buffer after the last."""
    contract = cast(Contract, kernel.contract)
    problem, accesses = _gemm_problem(kernel)
    epilogue = None if is_plain(kernel) else _epilogue(kernel, problem)
    spec = contraction.classify(target, contract.dtype, problem, epilogue)
    arguments = contraction.gemm_arguments(spec, target, problem)

    def emit() -> str:
        module = Module(target)
        contraction.emit_gemm(module, ENTRY, spec)
        return module.text()

    code = obtain(f"gemm {spec.key}", emit, ENTRY, target, level)
    if arguments.swapped:
        accesses[0], accesses[1] = accesses[1], accesses[0]
    sizes = arguments.sizes
    pointers = [(a.buffer, a.offset * a.dtype.itemsize) for a in accesses]
    pointers.insert(contraction.WORK_POINTER, (workspace, 0))
    if epilogue is not None:
        pointers += [(a.buffer, a.offset * a.dtype.itemsize) for a in kernel.accesses]
        sizes = (*sizes, *kernel.sizes())
    return NativeCall(
        code,
        pointers,
        contraction.with_table(sizes, problem),
        contraction.tile_count(spec, target, problem),
        contraction.tile_grain(spec, target, problem, available()),
        contraction.workspace_bytes(spec, target, problem),
        prod((*problem.batch, problem.m, problem.n, problem.k)) / GEMM_PER_NS,
        contraction.WORK_POINTER,
    )


def _attention_call(kernel: Kernel, workspace: int, target: Target, level: int) -> NativeCall:
    """Return the call of an attention kernel; ``workspace`` as above."""
    call = attention.bind(kernel, target, visible=visible_scores(kernel))
    spec = call.spec

    def emit() -> str:
        module = Module(target)
        attention.emit_attention(module, ENTRY, spec)
        return module.text()

    code = obtain(f"attention {spec.key}", emit, ENTRY, target, level)
    accesses = [*call.operands, *kernel.accesses]
    pointers = [(a.buffer, a.offset * a.dtype.itemsize) for a in accesses]
    pointers.insert(attention.WORK_POINTER, (workspace, 0))
    ns = call.flops / 2 / GEMM_PER_NS
    grain = 1 if ns > SERIAL_NS else NEVER
    return NativeCall(
        code, pointers, call.sizes, call.tiles, grain, call.nbytes, ns, attention.WORK_POINTER
    )


def _gemm_problem(kernel: Kernel) -> tuple[contraction.GemmProblem, list[Access]]:
    """Return the matrix product of a kernel, and its A, B and C."""
    contract = cast(Contract, kernel.contract)
    m, n, k = contract.rows, contract.columns, contract.over
    a, b, c = left_access(kernel), right_access(kernel), kernel.accesses[contract.partial]
    batch = batch_axes(kernel)

    def pick(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in batch)

    problem = contraction.GemmProblem(
        kernel.extents[m],
        kernel.extents[n],
        kernel.extents[k],
        (a.strides[m], a.strides[k]),
        (b.strides[k], b.strides[n]),
        (c.strides[m], c.strides[n]),
        pick(kernel.extents),
        pick(a.strides),
        pick(b.strides),
        pick(c.strides),
        _gather(contract),
    )
    return problem, [a, b, c]


def _epilogue(kernel: Kernel, problem: contraction.GemmProblem) -> contraction.KernelEpilogue:
    contract = cast(Contract, kernel.contract)
    _, swapped = contraction.canonical(problem, fold=False)
    rows, columns = contract.rows, contract.columns
    if swapped:
        rows, columns = columns, rows
    return contraction.KernelEpilogue(kernel, tuple(batch_axes(kernel)), rows, columns)


def _gather(contract: Contract) -> contraction.Gather | None:
    """Return where the elements of a right operand without strides are."""
    if contract.gather is None:
        return None
    depths, columns = contract.gather
    *rows, last = columns
    return contraction.Gather(tuple(offsets(depths)), tuple(offsets(rows)), *last)


# Graphs that were evaluated on demand, by structure: a loop at program level records the same
# operations on other data each time round, and should plan and compile them once.
# A structure is interpreted until that has cost about what compiling it would (a number in place
# of the executable counts it), so that a line typed once answers at once.
_MAX_PLANS = 256
COMPILE_NS = 2e6
_plans: OrderedDict[Any, Executable | float] = OrderedDict()
_plans_lock = threading.Lock()


def evaluate(nodes: Sequence[Node]) -> list[Array]:
    """Return the values of ``nodes``, whose leaves are all data."""
    graph = Graph((), nodes)
    if config.disable_jit():
        return _interpret(graph)
    key, leaves = _structure(graph)
    try:
        executable = _planned(key, graph, leaves)
        if executable is None:
            return _interpret(graph)
    except UserError:
        raise
    except Exception as error:  # any failure of ours must not cost the user the answer
        warn_interpreted(error)
        return run_graph(graph, ())
    return executable.run([cast(Array, leaf.value) for leaf in leaves])


def _interpret(graph: Graph) -> list[Array]:
    started = time.perf_counter()
    values = run_graph(graph, ())
    if monitor.active is not None:
        monitor.active.interpreted += time.perf_counter() - started
    return values


def _planned(key: Any, graph: Graph, leaves: Sequence[Node]) -> Executable | None:
    """Return the compiled form, or None while interpreting is cheaper than compiling."""
    with _plans_lock:
        found = _plans.get(key)
        if found is not None:
            _plans.move_to_end(key)
            if isinstance(found, Executable):
                return found
        spent = (found or 0.0) + interpreter_ns(graph)
        wanted = monitor.active is not None and monitor.active.everything
        if spent < COMPILE_NS and not wanted:
            _remember_plan(key, spent)
            return None
    executable = compile_graph(_lifted(graph, leaves), [layout_of(_value(n)) for n in leaves])
    with _plans_lock:
        _remember_plan(key, executable)
    return executable


def _remember_plan(key: Any, plan: Executable | float) -> None:
    _plans[key] = plan
    if len(_plans) > _MAX_PLANS:
        _plans.popitem(last=False)


def interpreter_ns(graph: Graph) -> float:
    """Return a rough time of one interpreted run: about 1 µs an op and 1 ns an element."""
    compute = [n for n in graph.nodes if n.inputs]
    return 1e3 * len(compute) + 1.0 * sum(n.size * (1 + native_cost(n) // 4) for n in compute)


def _value(leaf: Node) -> Array:
    return cast(Array, leaf.value)


def layout_of(array: Array) -> Layout:
    """Return None for a C-contiguous array, else its strides in elements."""
    if array.flags.c_contiguous:
        return None
    return tuple(s // array.itemsize for s in array.strides)


def _structure(graph: Graph) -> tuple[Any, list[Node]]:
    """Return a key that graphs with equal structure share, and the data leaves in order."""
    position: dict[Node, int] = {}
    leaves: list[Node] = []
    parts: list[Any] = [cpu.target().name]
    for number, node in enumerate(graph.nodes):
        position[node] = number
        if node.value is not None:
            leaves.append(node)
            parts.append((node.dtype, node.shape, layout_of(node.value)))
        else:
            attrs = tuple(sorted(node.attrs.items())) if node.attrs else ()
            # repr tells −0.0 from 0.0 and 1 from True, which compare equal.
            exact = repr(attrs) if node.op.name == "constant" else attrs
            parts.append((node.op.name, exact, tuple([position[i] for i in node.inputs])))
    parts.append(tuple(position[o] for o in graph.outputs))
    return tuple(parts), leaves


def _lifted(graph: Graph, leaves: Sequence[Node]) -> Graph:
    """Return ``graph`` with its data leaves as inputs."""
    inputs = [placeholder(i, n.dtype, n.shape) for i, n in enumerate(leaves)]
    image = dict(zip(leaves, inputs, strict=True))
    lifted = graph.rewrite(lambda node, operands: image.get(node))
    return Graph(inputs, lifted.outputs)


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
