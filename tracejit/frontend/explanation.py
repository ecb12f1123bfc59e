"""``explain``: who answers a call of a jitted function, why, and what became of its ops.

Everything is read off the function's signatures and the schedule; nothing is compiled for it, and
the function keeps no trace of having been asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, cast

from tracejit import config
from tracejit.codegen.lowered import lowers
from tracejit.errors import ArgumentError
from tracejit.frontend.compiled import Compiled
from tracejit.frontend.jitted import Jitted
from tracejit.frontend.signature import signature_text
from tracejit.graph.node import Node
from tracejit.runtime import cpu, engine, profiler, stance, tuning
from tracejit.runtime.costs import model
from tracejit.runtime.reasons import Reason
from tracejit.runtime.specialise import Stage
from tracejit.runtime.tiers import Program, State
from tracejit.schedule.kernel import SCRATCH, Access, Kernel
from tracejit.schedule.native import why_opaque
from tracejit.schedule.schedule import (
    ContractionStep,
    KernelStep,
    OpaqueStep,
    Schedule,
    Step,
    kernels_of,
    reads,
    touched,
)
from tracejit.schedule.steps import step_kind, step_name
from tracejit.schedule.titles import size_text, time_text


@dataclass(frozen=True)
class StepReport:
    """One step of the schedule. ``kind``: loop, rows (a loop that reduces), band, matrix, NumPy.

    ``ops`` are the ops computed in it, repeated ones counted; ``bytes`` what it reads and writes
    of stored values, each place once. ``reason`` says why a NumPy step is no kernel.
    """

    kind: str
    ops: str
    fused: int
    lines: tuple[str, ...]
    bytes: int
    reason: str | None = None


@dataclass(frozen=True)
class StoredReport:
    """A value that is stored between steps, and why it is."""

    op: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    line: str | None
    reason: str


@dataclass(frozen=True)
class Explanation:
    """What ``explain`` returns: print it, read its fields, or take ``as_dict()``.

    ``tier`` is 0 where NumPy answers, 1 where kernels do, 2 where these are specialised on their
    sizes; ``state`` is one of ``State``'s values, or "not called yet". ``reason`` is the entry of
    ``runtime/reasons.py`` for tier 0. ``why`` says why that tier answers, ``traced`` why this
    signature was traced. ``retraces`` counts the function's signatures by that reason,
    ``guard_failures`` calls that compiled code did not answer, or not as they came, by theirs.
    ``measured`` says what calls of this signature have taken.
    ``arena_bytes`` is what the values between kernels take, ``unfused_bytes`` what they would, each
    for itself. ``sizes`` says how further sizes of the arguments are answered; ``blocking`` how
    matrix products are cut, where ``tracejit tune`` has found a faster way than the rules.
    """

    function: str
    arguments: str
    tier: int
    state: str
    why: str
    traced: str
    retraces: dict[str, int]
    seconds: float
    kernels: dict[str, int]
    reason: str | None = None
    steps: list[StepReport] = field(default_factory=list[StepReport])
    stored: list[StoredReport] = field(default_factory=list[StoredReport])
    arena_bytes: int = 0
    unfused_bytes: int = 0
    sizes: str = ""
    blocking: str = ""
    guard_failures: dict[str, int] = field(default_factory=dict[str, int])
    measured: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.function}({self.arguments})"
        yield f"  tier {self.tier}, {self.state}: {self.why}"
        if self.measured:
            yield f"  measured: {self.measured}"
        yield f"  traced: {self.traced}"
        if self.retraces:
            yield f"  traced again so far: {_counts(self.retraces)}"
        if self.guard_failures:
            yield f"  guards that failed so far: {_counts(self.guard_failures)}"
        if self.sizes:
            yield f"  other sizes: {self.sizes}"
        if not self.steps:
            return
        yield "  steps:" if self.tier else "  steps, once compiled:"
        for number, step in enumerate(self.steps):
            lines = f", from {_places(step.lines)}" if step.lines else ""
            yield f"    {number} {step.kind}: {step.ops} ({size_text(step.bytes)}{lines})"
            if step.reason:
                yield f"      not in a kernel: {step.reason}"
        for value in self.stored:
            line = f" at {_places([value.line])}" if value.line else ""
            what = f"{value.op} {value.dtype}{list(value.shape)}{line}"
            yield f"  stored: {what} ({size_text(value.bytes)}): {value.reason}"
        yield (
            f"  memory between steps: {size_text(self.arena_bytes)}; "
            f"{size_text(self.unfused_bytes)} without fusion"
        )
        if self.blocking:
            yield f"  products: cut as `tracejit tune` measured: {self.blocking}"


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} ×{n}" for reason, n in reasons.items())


def _places(lines: Sequence[str]) -> str:
    """Return source lines for people, those of a file together: ``model.py:3, 4``."""
    files: dict[str, list[str]] = {}
    for line in lines:
        file, _, number = line.rpartition(":")
        files.setdefault(Path(file).name, []).append(number)
    return "; ".join(f"{file}:{', '.join(numbers)}" for file, numbers in files.items())


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Say who answers ``function(*args, **kwargs)`` and why, what fused, and what did not.

    ``function`` is jitted. For arguments that it was not called with it is traced, which runs the
    Python function once on placeholders; its signatures and counts stay as they are. Raises
    ArgumentError for other functions, and what tracing raises.
    """
    jitted, args = _unbound(function, args)
    compiled = jitted.form(*args, **kwargs)
    called = compiled is not None
    if compiled is None:
        compiled, new = jitted.preview(*args, **kwargs)
        why = "the first call with such arguments will trace it"
        tier, state, traced = 0, "not called yet", f"not yet; it would be for a {new}"
        if jitted.served(*args, **kwargs):
            tier, state = 1, "compiled for many sizes"
            traced = "with symbols for the sizes that vary"
            why = "kernels answer, by a plan for ranges of sizes; this signature on its own has:"
        elif new is None:
            traced = "not yet; it would be the first signature"
    else:
        tier, state, why = _tier(jitted, compiled, args, kwargs)
        traced = "the function's first signature"
        if compiled.why is not None:
            reason, detail = compiled.why
            traced = f"{reason}: {detail or reason.sentence}"
    failures = {Reason(reason): n for reason, n in jitted.stats()["guard_failures"].items()}
    program = compiled.program
    schedule = _schedule(program)
    return Explanation(
        function=jitted.__name__,
        arguments=signature_text(compiled.keys),
        tier=tier,
        state=state,
        why=why,
        traced=traced,
        retraces={str(reason): n for reason, n in failures.items() if reason.traces},
        guard_failures={str(reason): n for reason, n in failures.items() if not reason.traces},
        seconds=program.seconds + compiled.tracing,
        kernels=program.origins(),
        reason=None if program.reason is None or not called else str(program.reason),
        steps=[] if schedule is None else [_step(s, schedule) for s in schedule.steps],
        stored=[] if schedule is None else list(_stored(schedule)),
        arena_bytes=0 if schedule is None else schedule.arena.nbytes,
        unfused_bytes=0 if schedule is None else schedule.intermediates,
        sizes=jitted.sizes(),
        blocking="" if schedule is None else _blocking(program, schedule),
        measured=_measured(program),
    )


def _blocking(program: Program, schedule: Schedule) -> str:
    if not any(isinstance(step, ContractionStep) for step in schedule.steps):
        return ""
    target = cpu.target() if program.executable is None else program.executable.target
    return tuning.described(target.blocking)


def _unbound(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Jitted, tuple[Any, ...]]:
    """Return the jitted function, and the arguments with the object that a method is bound to."""
    inner = getattr(function, "__func__", None)
    if isinstance(inner, Jitted):
        return inner, (cast(Any, function).__self__, *args)
    if not isinstance(function, Jitted):
        raise ArgumentError(
            f"explain got a {type(function).__name__}, which is not a jitted function",
            hint="explain(tj.jit(f), x) shows what f would be",
        )
    return function, args


# -- who answers -----------------------------------------------------------------------------------


def _tier(
    function: Jitted, compiled: Compiled, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, str, str]:
    """Return the tier, the state and the reason for a signature that is known."""
    program = compiled.program
    if not compiled.graph.outputs:
        return 0, program.state.value, "it returns no computed array, so there is nothing to run"
    if compiled.leaves_to_python(function.leaves(*args, **kwargs)):
        why = "the Python function itself runs: an argument it writes shares another one's memory"
        return 0, program.state.value, why
    if program.state is State.FAILED:
        return 0, program.state.value, f"compiling failed: {program.failure}"
    if stance.interpreting:
        return 0, program.state.value, 'set_stance("never") is in force'
    if program.executable is not None:
        return program.tier, program.state.value, _compiled(program)
    return 0, program.state.value, _interpreted(program)


def _compiled(program: Program) -> str:
    found = ", ".join(f"{n} {where}" for where, n in program.origins().items() if n)
    took = f"planning and compiling took {time_text(program.seconds)}"
    return f"kernels answer: {found}; {took}{_specialised(program)}"


def _measured(program: Program) -> str:
    """Return what calls have taken by kernels and by NumPy, as far as they were measured."""
    found = profiler.signature_profile(program, "")
    native = found.seconds - found.interpreted_seconds
    parts: list[str] = []
    if found.native_calls and native:
        parts.append(f"a call takes {time_text(native / found.native_calls)} by kernels")
    if found.interpreted_calls:
        each = found.interpreted_seconds / found.interpreted_calls
        parts.append(f"a call takes {time_text(each)} by NumPy")
    return ", ".join(parts)


def _specialised(program: Program) -> str:
    """Return what has become of kernels with constant sizes; nothing where none were wanted."""
    special = program.specialisation
    if special is None:
        return ""
    match special.stage:
        case Stage.SPECIALISED:
            return f"; their sizes are constants, which made calls {special.gain:.2f} times as fast"
        case Stage.REJECTED:
            return f"; constant sizes were measured: calls {special.gain:.2f} times as fast"
        case Stage.COMPILING | Stage.TRIAL:
            return f"; {special.stage.value}"
        case _ if special.reason is not None:
            return f"; {special.reason}: {special.reason.sentence}"
        case _:
            return ""


def _interpreted(program: Program) -> str:
    """Return why NumPy answers a program that has not failed."""
    mode = stance.mode_of(program.mode)
    if mode == "never":
        if config.disable_jit():
            return "TRACEJIT_DISABLE_JIT is set"
        return 'the function has compile="never"' if program.mode == "never" else "it is not jitted"
    if program.state is State.WAITING:
        return "its kernels are being made in the background, or wait for their turn"
    compiling = model.compile_s(program.graph) * 1e3
    interpreting = model.interpreter_ns(program.graph) * 1e-6
    return (
        f"no kernels were asked for yet (mode {mode}): making them is expected to take "
        f"{compiling:.1f} ms, one run in NumPy {interpreting:.3f} ms"
    )


# -- what fused ------------------------------------------------------------------------------------


def _schedule(program: Program) -> Schedule | None:
    """Return the schedule that runs, or would run; None where there is none."""
    if program.executable is not None:
        return program.executable.schedule
    if not program.graph.outputs:
        return None
    try:
        return engine.plan_graph(program.graph, program.layouts, fast_math=program.fast_math)
    except Exception:  # what made the program fail: ``why`` has it
        if program.state is State.FAILED:
            return None
        raise


def _step(step: Step, schedule: Schedule) -> StepReport:
    kind, ops = step_kind(step), step_name(step)
    if isinstance(step, OpaqueStep):
        node = step.node
        nbytes = node.nbytes + sum(prod(v.shape) * v.dtype.itemsize for v in step.operands)
        lines = () if node.loc is None else (str(node.loc),)
        return StepReport(kind, ops, 1, lines, nbytes, why_opaque(node, lowers))
    nbytes = sum(_traffic(kernel, schedule) for kernel in kernels_of(step))
    return StepReport(kind, ops, step.kernel.ops, step.kernel.lines, nbytes)


def _traffic(kernel: Kernel, schedule: Schedule) -> int:
    """Return the bytes of stored values that a kernel touches: of each access, what it covers.

    Slabs stay in the cache.
    """
    gathers = kernel.contract is not None and kernel.contract.gather is not None
    total = 0
    for access in kernel.accesses:
        if access.buffer == SCRATCH or schedule.buffers[access.buffer].kind == "slab":
            continue
        buffer = schedule.buffers[access.buffer].nbytes
        total += buffer if gathers else min(buffer, _covered(access, kernel.extents))
    return total


def _covered(access: Access, extents: Sequence[int]) -> int:
    sizes = (n for n, stride in zip(extents, access.strides, strict=True) if stride != 0)
    return prod(sizes) * access.dtype.itemsize


def _stored(schedule: Schedule) -> Iterator[StoredReport]:
    """Yield the values that are stored between steps: written by one and read by a later one."""
    for number, buffer in enumerate(schedule.buffers):
        if buffer.kind in ("input", "data", "slab"):
            continue
        readers = [s for s in schedule.steps if number in reads(s)]
        node = buffer.node
        if not readers or node is None:
            continue
        writers = [s for s in schedule.steps if number in touched(s) - reads(s)]
        yield StoredReport(
            op=node.op.name,
            dtype=str(node.dtype),
            shape=node.shape,
            bytes=buffer.nbytes,
            line=None if node.loc is None else str(node.loc),
            reason=_why_stored(buffer.kind, node, writers, readers),
        )


def _why_stored(kind: str, node: Node, writers: Sequence[Step], readers: Sequence[Step]) -> str:
    """Return the first reason that the schedule shows."""
    if any(isinstance(s, OpaqueStep) for s in writers):
        return "NumPy computes it"
    if any(isinstance(s, OpaqueStep) for s in readers):
        return "NumPy reads it"
    if kind == "output":
        return "it is a result"
    if any(isinstance(s, ContractionStep) and _is_operand(s, node) for s in readers):
        return "a matrix product reads it, whose operands are in memory"
    if len(readers) > 1:
        return f"{len(readers)} kernels read it"
    if any(isinstance(s, ContractionStep) for s in writers):
        return "a matrix product computes it, and its reader cannot be the epilogue"
    if all(isinstance(s, KernelStep) and s in writers for s in readers):
        return "threads share it within one kernel"
    return "its one reader runs other loops, or would compute it more than once"


def _is_operand(step: ContractionStep, node: Node) -> bool:
    return any(operand is node for n in step.nodes if n.op.name == "matmul" for operand in n.inputs)
