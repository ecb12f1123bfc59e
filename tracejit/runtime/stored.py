"""Plans on disk: a process that finds one neither plans nor loads what plans.

A plan is what a graph comes down to for one processor: buffers, outputs, the size of the arena, and
native calls, with the structures of their code. It is kept beside the code (``cache.py``: one
checked file each, dropped where it is damaged, and no pickle), under a name that holds the graph's
text, the layouts of its inputs, the target, the level, how many CPUs there are, and the text of
whatever decides a plan. So a new process traces a function, finds its plan, and loads its code.

Graphs that hold arrays, and those with steps for NumPy, are planned each time. What only people ask
for (the schedule, what fused, source lines) and what specialises code is planned again when
somebody asks (``Planned``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from tracejit.codegen.target import Target
from tracejit.errors import InternalError, UnsupportedError
from tracejit.graph.graph import Graph
from tracejit.graph.text import to_text
from tracejit.ops.dtypes import named, spelled
from tracejit.runtime import cache, service, spans
from tracejit.runtime.calls import NativeCall
from tracejit.runtime.code import Code
from tracejit.runtime.executable import Executable
from tracejit.runtime.threads import available
from tracejit.schedule.buffers import Buffer, OpaqueStep, Placement, View
from tracejit.schedule.titles import ops_text

if TYPE_CHECKING:
    from tracejit.schedule.kernel import Kernel
    from tracejit.schedule.schedule import Layout, Schedule

# The name of the function in a kernel's code.
ENTRY = "kernel"
# Stands where the entries of code have their function's name.
_PLAN = "plan"
_FORMAT = 1
# Graphs with more nodes and plans with more constants are planned each time.
_MAX_NODES = 20_000
_MAX_BYTES = 1 << 16


class Problem(NamedTuple):
    """What is planned: a graph for inputs of given layouts, for a processor, at a level."""

    graph: Graph
    layouts: Sequence[Layout]
    target: Target
    level: int
    fast_math: bool

    def name(self) -> str | None:
        """Return the name of its entry; None where its plan is not kept."""
        nodes = self.graph.nodes
        if len(nodes) > _MAX_NODES or any(node.value is not None for node in nodes):
            return None
        try:
            text = to_text(self.graph, locations=False)
        except UnsupportedError:
            return None
        about = f"{_FORMAT} {self.layouts} {self.fast_math} {available()} {np.__version__}"
        return cache.name_of(f"plan {about}\n{text}", self.target, self.level)


class Frame(NamedTuple):
    """A ``Placement`` that came from disk."""

    buffers: tuple[Buffer, ...]
    outputs: tuple[View, ...]
    arena_bytes: int


class Planned:
    """The plan of a problem, made when somebody asks what its code was made of."""

    def __init__(self, problem: Problem):
        self._problem = problem
        self._lock = threading.RLock()
        self._made: tuple[Schedule, list[NativeCall], dict[str, Callable[[], str]]] | None = None

    def _plan(self) -> tuple[Schedule, list[NativeCall], dict[str, Callable[[], str]]]:
        with self._lock:
            if self._made is None:
                from tracejit.runtime import engine

                problem, emitters = self._problem, dict[str, Callable[[], str]]()

                def note(structure: str, emit: Callable[[], str]) -> Code:
                    emitters[structure] = emit
                    return cast(Code, None)

                schedule = engine.plan_graph(
                    problem.graph, problem.layouts, fast_math=problem.fast_math
                )
                stages = engine.stages_of(schedule, problem.target, note)
                calls = [c for stage in stages if not isinstance(stage, OpaqueStep) for c in stage]
                self._made = schedule, calls, emitters
            return self._made

    def schedule(self) -> Schedule:
        """Return the schedule."""
        return self._plan()[0]

    def kernel(self, number: int) -> Kernel:
        """Return what the code of a native call was made from."""
        calls = self._plan()[1]
        if number >= len(calls):
            raise self._mismatch()
        return calls[number].kernel

    def text(self, structure: str) -> str:
        """Return the LLVM IR of a structure."""
        emit = self._plan()[2].get(structure)
        if emit is None:
            raise self._mismatch()
        return emit()

    def _mismatch(self) -> InternalError:
        nodes = self._problem.graph.nodes
        title = ops_text(node.op.name for node in nodes if node.inputs)
        return InternalError(
            f"the plan on disk of {title} is not what is planned for it now",
            hint="`tracejit cache clear` removes it, and the next process plans anew",
        )


# -- keeping ---------------------------------------------------------------------------------------


def keep(problem: Problem, executable: Executable) -> None:
    """Write the plan of ``executable``, where one is kept of such problems."""
    name = problem.name()
    data = _encode(executable.placement, executable.calls) if executable.calls else None
    if name is None or data is None:
        return
    label = f"the plan of {ops_text(n.op.name for n in problem.graph.nodes if n.inputs)}"
    cache.disk().store(name, cache.Entry(data, _PLAN, problem.target.name, label[:200], 0.0))


def _encode(frame: Placement, calls: Sequence[NativeCall]) -> bytes | None:
    """Return the text of a plan: lines of words, then the structures of the code.

    None where it holds arrays that are large, or not contiguous.
    """
    values = [b.value for b in frame.buffers if b.value is not None]
    if sum(v.nbytes for v in values) > _MAX_BYTES or not all(v.flags.c_contiguous for v in values):
        return None
    structures = list(dict.fromkeys(call.code.key.structure for call in calls))
    lines = [f"{len(frame.buffers)} {len(frame.outputs)} {frame.arena_bytes}"]
    for b in frame.buffers:
        value = "-" if b.value is None else f"={b.value.tobytes().hex()}"
        host = -1 if b.host is None else b.host
        lines.append(
            f"{b.kind} {spelled(b.dtype)} {_listed(b.shape)} {b.number} {b.offset} {host} {value}"
        )
    for view in frame.outputs:
        lines.append(
            f"{view.buffer} {view.offset} {_listed(view.strides)} {_listed(view.shape)} "
            f"{spelled(view.dtype)}"
        )
    for call in calls:
        flat = [number for pointer in call.pointers for number in pointer]
        loops = [f"{kind}:{count}" for kind, count in call.loops]
        lines.append(
            f"{structures.index(call.code.key.structure)} {call.end} {call.grain} "
            f"{call.workspace} {call.ns} {call.private} {call.shared} {int(call.again)} "
            f"{_listed(flat)} {_listed(call.numbers)} {','.join(loops) or '-'}"
        )
    return "\0".join(["\n".join(lines), *structures]).encode()


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(int(number)) for number in numbers) or "-"


# -- finding ---------------------------------------------------------------------------------------


def restore(problem: Problem) -> Executable | None:
    """Return the executable of a problem whose plan and code are on disk (the latter, or in
    memory); None for any other."""
    started = time.perf_counter()
    name = problem.name()
    entry = None if name is None else cache.disk().load(name)
    if name is None or entry is None or entry.symbol != _PLAN:
        return None
    planned = Planned(problem)
    try:
        frame, calls = _decode(entry.image.decode(), problem, planned)
    except (ValueError, IndexError, TypeError):  # whole, and yet no plan of ours
        cache.disk().drop(name)
        return None
    except _Missing:
        return None
    if spans.active is not None:
        spans.add(f"load {entry.label}", "load", started)
    return Executable(frame, [calls], problem.target, planned=planned.schedule)


class _Missing(Exception):
    """Code that a plan needs is nowhere."""


def _decode(text: str, problem: Problem, planned: Planned) -> tuple[Frame, list[NativeCall]]:
    """Return what a text says. Raises ValueError and its like where that makes no sense."""
    plan, *structures = text.split("\0")
    rows = [line.split(" ") for line in plan.split("\n")]
    buffers, outputs, arena = map(int, rows[0])
    body = rows[1:]
    frame = Frame(
        tuple(_buffer(*row) for row in body[:buffers]),
        tuple(_view(*row) for row in body[buffers : buffers + outputs]),
        arena,
    )
    codes = [_code(structure, problem, planned) for structure in structures]
    calls = [
        _call(number, codes, planned, *row) for number, row in enumerate(body[buffers + outputs :])
    ]
    return frame, calls


def _buffer(
    kind: str, dtype: str, shape: str, number: str, offset: str, host: str, value: str
) -> Buffer:
    of, sizes = named(dtype), _numbers(shape)
    array = None
    if kind == "faults":
        array = np.zeros(sizes, of)
    elif value != "-":
        array = np.frombuffer(bytes.fromhex(value[1:]), of).reshape(sizes)
    place = None if int(host) < 0 else int(host)
    return Buffer(kind, of, sizes, None, int(number), int(offset), array, place)


def _view(buffer: str, offset: str, strides: str, shape: str, dtype: str) -> View:
    return View(int(buffer), int(offset), _numbers(strides), _numbers(shape), named(dtype))


def _code(structure: str, problem: Problem, planned: Planned) -> Code:
    emit = partial(planned.text, structure)
    code = service.find(structure, emit, ENTRY, problem.target, problem.level)
    if code is None:
        raise _Missing
    return code


def _call(
    number: int, codes: Sequence[Code], planned: Planned, code: str, *words: str
) -> NativeCall:
    end, grain, workspace, ns, private, shared, again = map(int, words[:7])
    flat, sizes, loops = words[7:]
    pointers = iter(_numbers(flat))
    call = NativeCall(
        codes[int(code)],
        list(zip(pointers, pointers, strict=True)),
        _numbers(sizes),
        end,
        grain,
        workspace,
        ns,
        private,
        shared=shared,
        kernel=partial(planned.kernel, number),
        again=bool(again),
    )
    entered = [] if loops == "-" else [loop.split(":") for loop in loops.split(",")]
    call.loops = tuple((kind, int(count)) for kind, count in entered)
    return call


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(map(int, text.split(",")))
