"""The engine: from a graph to values.

``compile_graph`` is the pipeline; read it top to bottom. Whoever needs an answer while it runs, or
where it fails, asks ``runtime/tiers.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import prod
from typing import cast

import numpy as np

from tracejit.codegen import attention, bands, contraction
from tracejit.codegen.lowered import lowers
from tracejit.codegen.target import Target
from tracejit.graph.graph import Graph
from tracejit.graph.passes import canonicalise
from tracejit.record import record, replace
from tracejit.runtime import cpu, memory, native, service
from tracejit.runtime.calls import NativeCall
from tracejit.runtime.code import Code
from tracejit.runtime.executable import Executable
from tracejit.runtime.stored import ENTRY
from tracejit.runtime.threads import available
from tracejit.schedule.arena import aligned
from tracejit.schedule.attention import visible_scores
from tracejit.schedule.grain import NEVER, SERIAL_NS, estimate_ns, grain
from tracejit.schedule.kernel import SCRATCH, Access, Contract, Kernel
from tracejit.schedule.merged import MAX_SIZE
from tracejit.schedule.product import batch_axes, is_gram, is_plain, left_access, right_access
from tracejit.schedule.schedule import (
    BandStep,
    ContractionStep,
    KernelStep,
    Layout,
    OpaqueStep,
    Schedule,
    make_schedule,
)
from tracejit.schedule.slabs import group_rows
from tracejit.sizes import hint

# Multiply-adds of a matrix product in a nanosecond, on one thread: as rough as grain.estimate_ns.
GEMM_PER_NS = 8


def plan_graph(graph: Graph, layouts: Sequence[Layout], *, fast_math: bool = False) -> Schedule:
    """Return the schedule of ``graph``: everything before code generation."""
    canonical = canonicalise(graph, fast_math=fast_math)
    return make_schedule(canonical, layouts, lowers)


def compile_graph(
    graph: Graph,
    layouts: Sequence[Layout],
    *,
    target: Target | None = None,
    fast_math: bool = False,
    level: int = 2,
) -> Executable:
    """Compile ``graph`` for inputs of the given layouts (None: C-contiguous; else strides)."""
    return compile_schedule(plan_graph(graph, layouts, fast_math=fast_math), target, level=level)


def compile_schedule(
    schedule: Schedule, target: Target | None = None, *, level: int = 2
) -> Executable:
    """Return the machine code of a schedule, ready to run."""
    target = target or cpu.target()
    ready = cached_schedule(schedule, target, level=level)
    return ready or begin(schedule, target, level=level).result()


@record(slots=True)
class Compilation:
    """Kernels of a schedule that have been asked for, ``awaited`` those that were nowhere."""

    schedule: Schedule
    target: Target
    tickets: dict[str, service.Ticket]
    awaited: list[str]
    started: float

    def result(self, end: float | None = None) -> Executable:
        """Wait for all of them, and return the executable.

        Raises TimeoutError where it is not there at ``end``, of ``time.perf_counter``.
        """
        for ticket in self.tickets.values():
            ticket.result(None if end is None else end - time.perf_counter())
        tickets = self.tickets
        stages = stages_of(self.schedule, self.target, lambda key, emit: tickets[key].result())
        fresh = sum(tickets[key].result().origin == "compiled" for key in self.awaited)
        seconds = time.perf_counter() - self.started if fresh else 0.0
        return Executable(self.schedule, stages, self.target, fresh=fresh, fresh_seconds=seconds)


def begin(schedule: Schedule, target: Target, *, level: int = 2) -> Compilation:
    """Have the kernels of a schedule compiled.

    Their IR is written here: LLVM, in a process of its own, works on the first meanwhile, and no
    other thread wants the interpreter for it.
    """
    started = time.perf_counter()
    # In the first process of all these are made while the emitters load.
    service.start_ahead()
    native.prepare()
    memory.prepare()
    # On this thread: the one that compiles is about to wait for its worker.
    from tracejit.codegen import emitters  # noqa: F401 # pyright: ignore[reportUnusedImport]

    # All are asked for before the first is waited for, so that several compile at a time.
    tickets = request(schedule, target, level=level, priority=service.Priority.NOW, write=True)
    awaited = [key for key, ticket in tickets.items() if not ticket.done()]
    return Compilation(schedule, target, tickets, awaited, started)


def request(
    schedule: Schedule,
    target: Target,
    *,
    level: int,
    priority: service.Priority,
    write: bool = False,
) -> dict[str, service.Ticket]:
    """Ask for the code of all kernels of a schedule; its sizes may be symbolic.

    With ``write`` their IR is written here, otherwise by the threads that compile.
    """
    tickets: dict[str, service.Ticket] = {}

    def ask(key: str, emit: Callable[[], str]) -> Code:
        if key not in tickets:
            tickets[key] = service.submit(key, emit, ENTRY, target, level, priority, write=write)
        return cast(Code, None)

    stages_of(schedule, target, ask)
    return tickets


def texts(schedule: Schedule, target: Target) -> dict[str, str]:
    """Return the IR of a schedule's kernels by structure."""
    written: dict[str, str] = {}

    def write(key: str, emit: Callable[[], str]) -> Code:
        if key not in written:
            written[key] = emit()
        return cast(Code, None)

    stages_of(schedule, target, write)
    return written


def cached_schedule(schedule: Schedule, target: Target, *, level: int = 2) -> Executable | None:
    """Return ``compile_schedule(…)`` where nothing has to be compiled for it, else None."""

    try:
        return Executable(schedule, stages_of(schedule, target, _finder(target, level)), target)
    except _NotAtHand:
        return None


def cached_stages(
    schedule: Schedule, target: Target, *, level: int = 2
) -> list[list[NativeCall] | OpaqueStep] | None:
    """Return what a schedule runs, if nothing has to be compiled for it; sizes may be symbolic."""

    try:
        return stages_of(schedule, target, _finder(target, level))
    except _NotAtHand:
        return None


class _NotAtHand(Exception):
    """A kernel would have to be compiled."""


def _finder(target: Target, level: int) -> Obtain:
    def find(key: str, emit: Callable[[], str]) -> Code:
        code = service.find(key, emit, ENTRY, target, level)
        if code is None:
            raise _NotAtHand
        return code

    return find


# Returns the code of a structure, which the second argument emits.
Obtain = Callable[[str, Callable[[], str]], Code]


Plan = (
    Kernel | bands.BandSpec | contraction.GemmSpec | contraction.SlabSpec | attention.AttentionSpec
)


def _emit(plan: Plan, target: Target) -> str:
    # Imported here: emitters take longer to load than anything else, and cached code needs none.
    from tracejit.codegen import emitters

    return emitters.emit(plan, ENTRY, target)


def stages_of(
    schedule: Schedule, target: Target, obtain: Obtain
) -> list[list[NativeCall] | OpaqueStep]:
    """Return what a schedule runs; ``obtain`` gets the code of each structure."""
    stages: list[list[NativeCall] | OpaqueStep] = []
    for step in schedule.steps:
        if isinstance(step, OpaqueStep):
            stages.append(step)
            continue
        if not stages or isinstance(stages[-1], OpaqueStep):
            stages.append([])
        calls = cast(list[NativeCall], stages[-1])
        for call in _native_calls(step, schedule, target, obtain):
            call.pointers = tuple((schedule.memory(b), offset) for b, offset in call.pointers)
            calls.append(call)
    return stages


def _native_calls(
    step: KernelStep | BandStep | ContractionStep,
    schedule: Schedule,
    target: Target,
    obtain: Obtain,
) -> list[NativeCall]:
    if isinstance(step, KernelStep):
        return _kernel_calls(step.kernel, target, obtain)
    workspace = len(schedule.buffers)
    if isinstance(step, BandStep):
        return [_band_call(step, workspace, target, obtain)]
    if step.kernel.attend is not None:
        return _attention_calls(step.kernel, workspace, target, obtain)
    return _contraction_calls(step, workspace, target, obtain)


def _kernel_calls(kernel: Kernel, target: Target, obtain: Obtain) -> list[NativeCall]:
    """Return the call of ``kernel``; before one whose threads take turns, that which resets it."""
    code = obtain(kernel.key, lambda: _emit(kernel, target))
    pointers = [
        (a.buffer, a.offset * a.dtype.itemsize) for a in kernel.accesses if a.buffer != SCRATCH
    ]
    calls = [
        NativeCall(
            code,
            pointers,
            kernel.sizes(),
            kernel.trip_count,
            grain(kernel),
            ns=estimate_ns(kernel),
            kernel=kernel,
            again=kernel.chain is not None,
        )
    ]
    if kernel.chain is not None:
        reset = NativeCall(code, pointers, kernel.sizes(resets=True), 1, NEVER, ns=1, kernel=kernel)
        calls.insert(0, reset)
    return calls


def _band_call(step: BandStep, workspace: int, target: Target, obtain: Obtain) -> NativeCall:
    """Return the call of a band; ``workspace`` is the number of the buffer after the last."""
    band = step.band
    call = bands.bind_band(band, workspace)
    spec = call.spec
    return NativeCall(
        obtain(f"band {spec.key}", lambda: _emit(spec, target)),
        call.pointers,
        call.sizes,
        band.blocks,
        1,
        band.nbytes,
        sum(map(estimate_ns, band.kernels)),
        bands.WINDOW_POINTER,
        kernel=step.kernel,
    )


def _contraction_calls(
    step: ContractionStep, workspace: int, target: Target, obtain: Obtain
) -> list[NativeCall]:
    """Return the calls of a product; ``workspace`` is the number of the buffer after the last."""
    kernel = step.kernel
    contract = cast(Contract, kernel.contract)
    problem, accesses = _gemm_problem(kernel, target)
    _, turned = contraction.canonical(problem, fold=False)
    epilogue = None if is_plain(kernel) else _epilogue(kernel, swapped=turned)
    prologue = contraction.find_prologue(kernel, target, swapped=turned)
    if prologue is not None:
        problem = prologue.grouped(problem)
    slabs = step.reader is not None
    if step.reader is not None:
        problem = replace(problem, group=group_rows(kernel, step.reader))
    spec = contraction.classify(target, contract.dtype, problem, epilogue, prologue, slabs=slabs)
    _, swapped = contraction.canonical(problem, fold=spec.folds)
    if swapped:
        accesses[0], accesses[1] = accesses[1], accesses[0]
    private = aligned(contraction.workspace_bytes(spec, target, problem))
    slab = private
    if step.reader is not None:
        private += aligned(contraction.slab_bytes(spec, target, problem))
    own: list[int] = []
    if epilogue is not None or prologue is not None:
        accesses += kernel.accesses
        own = kernel.sizes()
    pointers = [(a.buffer, a.offset * a.dtype.itemsize) for a in accesses]
    pointers.insert(contraction.WORK_POINTER, (workspace, 0))
    pointers.insert(contraction.PACKED_POINTER, (workspace, available() * private))
    stages = contraction.stages(spec, target, problem, available())
    sizes = [contraction.with_table((*stage.sizes, *own), problem) for stage in stages]
    ns = prod((*problem.batch, problem.m, problem.n, problem.k)) // GEMM_PER_NS
    if step.reader is None:
        code = obtain(f"gemm {spec.key}", lambda: _emit(spec, target))
    else:
        partial = kernel.accesses[contract.partial]
        row = kernel.extents[contract.columns] * partial.dtype.itemsize
        rows = (row, problem.group)
        call = contraction.bind_slabs(spec, pointers, step.reader, partial.buffer, rows)
        pointers, ns = call.pointers, ns + estimate_ns(step.reader)
        sizes = [call.sizes(s, slab) for s in sizes]
        code = obtain(f"slabs {call.spec.key}", lambda: _emit(call.spec, target))
    return [
        NativeCall(
            code,
            pointers,
            numbers,
            stage.tiles,
            stage.grain,
            private,
            ns // len(stages),
            contraction.WORK_POINTER,
            shared=contraction.packed_bytes(spec, target, problem),
            kernel=kernel,
            reader=step.reader,
            again=number > 0,
        )
        for number, (stage, numbers) in enumerate(zip(stages, sizes, strict=True))
    ]


def _attention_calls(
    kernel: Kernel, workspace: int, target: Target, obtain: Obtain
) -> list[NativeCall]:
    """Return the call of an attention kernel; ``workspace`` as above."""
    call = attention.bind(kernel, target, visible=visible_scores(kernel))
    spec = call.spec
    code = obtain(f"attention {spec.key}", lambda: _emit(spec, target))
    accesses = [*call.operands, *kernel.accesses]
    pointers = [(a.buffer, a.offset * a.dtype.itemsize) for a in accesses]
    pointers.insert(attention.WORK_POINTER, (workspace, 0))
    ns = int(hint(call.flops)) // (2 * GEMM_PER_NS)
    grain = 1 if call.flops > 2 * GEMM_PER_NS * SERIAL_NS else NEVER
    return [
        NativeCall(
            code,
            pointers,
            call.sizes,
            call.tiles,
            grain,
            call.nbytes,
            ns,
            attention.WORK_POINTER,
            kernel=kernel,
        )
    ]


def _gemm_problem(kernel: Kernel, target: Target) -> tuple[contraction.GemmProblem, list[Access]]:
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
        None
        if contract.gather is None
        else contraction.gather_of(
            contract.gather,
            kernel.extents[m],
            target if _splits(contract, kernel.extents[k], a.strides[k], target) else None,
        ),
        is_gram(kernel),
    )
    return problem, [a, b, c]


def _splits(contract: Contract, depth: int, step: int, target: Target) -> bool:
    """Whether a product of windows may be one of split float32s: its weights are read at 32-bit
    offsets in a row."""
    return target.tiles and contract.dtype == np.float32 and depth * abs(step) < MAX_SIZE


def _epilogue(kernel: Kernel, *, swapped: bool) -> contraction.KernelEpilogue:
    contract = cast(Contract, kernel.contract)
    rows, columns = contract.rows, contract.columns
    if swapped:
        rows, columns = columns, rows
    return contraction.KernelEpilogue(kernel, tuple(batch_axes(kernel)), rows, columns)
