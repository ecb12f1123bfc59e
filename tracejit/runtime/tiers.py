"""Tiers: one graph, and the forms it runs in while better ones are made.

A ``Program`` is a graph for inputs of given layouts. ``run(arrays)`` always answers: by NumPy, op
by op, until kernels are ready, then by the kernels. The forms differ in rounding as the levels do
(``docs/numerics.md``), never in dtype, shape or meaning.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Literal

from tracejit import config
from tracejit.errors import UserError
from tracejit.graph.graph import Graph
from tracejit.graph.text import type_text
from tracejit.ops.table import Array
from tracejit.runtime import (
    analysis,
    background,
    blas,
    cache,
    cpu,
    events,
    inside,
    monitor,
    service,
    spans,
    stance,
    stored,
    turns,
)
from tracejit.runtime.analysis import Activity, Family
from tracejit.runtime.costs import model
from tracejit.runtime.interpreter import Interpreter
from tracejit.runtime.loader import NoMemory
from tracejit.runtime.reasons import Reason
from tracejit.runtime.specialise import Specialisation, Stage
from tracejit.runtime.stance import Mode
from tracejit.runtime.stored import Problem
from tracejit.runtime.workers import WorkerCrashed
from tracejit.schedule.titles import time_text

if TYPE_CHECKING:
    from tracejit.runtime.engine import Compilation
    from tracejit.runtime.executable import Executable
    from tracejit.schedule.schedule import Layout, Schedule

Wanted = Mode | Literal["cached"] | None
Run = Callable[[Sequence[Array]], list[Array]]

# Planning that takes less is done before the first answer, so that cached kernels serve at once.
PLAN_AT_ONCE_S = 1.5e-3
# From this estimate on kernels are looked for on disk before the first answer of a process: its
# first plan takes 3 ms, and loading the runtime 2 (measured).
FIRST_LOOK_S = 0.02
# What a first call may take: so many times the interpreter's time, and so many seconds more.
FIRST_FACTOR, FIRST_MORE_S = 1.15, 2e-3
# Waiting must promise to take half of interpreting: estimates are rough. Where kernels take longer
# than so many times what was expected, and than a first call may be late, NumPy begins.
WAIT_FACTOR, PATIENCE = 0.5, 2.0
# Kernels that are expected before the first answer are made beside it: they may take over between
# two ops. Others come after it: beside them it would take up to twice as long (measured), where
# something else has the other cores up to four times.
RACE_FACTOR = 1.0
# What is later than estimated is expected to take this share of what it has taken so far.
OVERDUE = 0.25
# Interpreted runs whose ops are timed one by one, for the cost model.
OBSERVED_RUNS = 2


class State(Enum):
    """What has become of a program's kernels."""

    INTERPRETED = "interpreted"
    WAITING = "waiting for the compiler"
    COMPILED = "compiled"
    FAILED = "failed"


class Program:
    """A graph for inputs of the given layouts, and the forms it runs in.

    ``mode`` says when kernels are made, as ``jit`` has it, under the stance in force; with "cached"
    they must be in memory already. ``run`` takes the arrays and returns results that nobody else
    holds; it may change at any time.
    ``executable`` is None while NumPy answers. ``failure`` says why it stays so. ``specialisation``
    is there once kernels with constant sizes were asked for, ``family`` if the program is one of
    several of a function.
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_compilation",
        "_interpreter",
        "_job",
        "_leaves",
        "_lock",
        "_making",
        "_schedule",
        "activity",
        "compiled_kernels",
        "executable",
        "failure",
        "family",
        "fast_math",
        "graph",
        "interpreted_ns",
        "interpreted_runs",
        "layouts",
        "level",
        "mode",
        "name",
        "run",
        "seconds",
        "specialisation",
        "state",
    )

    def __init__(
        self,
        graph: Graph,
        layouts: Sequence[Layout],
        mode: Wanted,
        *,
        name: str = "a graph",
        fast_math: bool = False,
        level: int | None = None,
    ):
        self.name = name
        self.graph = graph
        self.layouts = tuple(layouts)
        # The process's "never" is the program's; any other default is asked for at each decision.
        own: Mode | None = mode if mode != "cached" else None
        never = config.disable_jit() or (own is None and config.compile_mode() == "never")
        self.mode: Mode | None = "never" if never else own
        self.fast_math = fast_math
        self.level = config.optimize() if level is None else level
        self.state = State.INTERPRETED
        self.executable: Executable | None = None
        self.failure: Exception | None = None
        self.seconds = 0.0  # planning and compiling
        self.compiled_kernels = 0  # that were in no cache
        self.interpreted_runs = 0
        self.interpreted_ns = 0
        self.activity = Activity()
        self.family: Family | None = None
        self.specialisation: Specialisation | None = None
        self.run: Run = self.interpret if graph.outputs else _nothing
        self._interpreter: Interpreter | None = None
        self._leaves = {id(node.value) for node in graph.nodes if node.value is not None}
        self._job: background.Job | None = None
        self._asked = 0.0  # when the job was submitted
        self._schedule: Schedule | None = None
        self._compilation: Compilation | None = None
        self._lock = threading.Lock()
        self._making = threading.Lock()
        if not graph.outputs:
            self.mode = "never"
        elif mode == "cached":
            self.compile(cached_only=True)
        else:
            self._start(stance.mode_of(mode))

    def _start(self, mode: Mode) -> None:
        """Make the kernels at once where ``mode`` says so, or where they are at hand."""
        if mode == "now":
            self.compile()
        elif mode == "auto" and self._compiling_takes(WAIT_FACTOR):
            self.compile(limit=self._patience())
            self.request()  # it goes on beside the interpreter
        elif mode == "auto" and self._looking_pays():
            self.compile(cached_only=True)

    # -- running -----------------------------------------------------------------------------------

    def interpret(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the results by NumPy; ask for kernels where that has not been done."""
        if not self.settled and stance.mode_of(self.mode) == "now":
            self.compile()
            return self.run(arrays)
        if not (self.settled or stance.interpreting):
            if self._job is None:
                self._ask_ahead()
            elif self._wait_instead():
                return self.run(arrays)
        interpreter = self._interpreter
        if interpreter is None:
            interpreter = self._interpreter = Interpreter(self.graph)
        observe = model.observe_op if self.interpreted_runs < OBSERVED_RUNS else None
        if spans.active is not None:
            observe = spans.observer(observe)
        started = time.perf_counter_ns()
        with blas.sharing() if self.state is State.WAITING else contextlib.nullcontext():
            results = interpreter.run(arrays, observe, self._superseded)
        if results is None:
            return self.run(arrays)
        elapsed = max(0, time.perf_counter_ns() - started)  # clocks of guests may jump
        self.interpreted_runs += 1
        self.interpreted_ns += elapsed
        inside.took(elapsed * 1e-9, inside.spent())
        if monitor.active is not None:
            monitor.active.interpreted += elapsed * 1e-9
            nodes = len(self.graph.nodes)
            spans.add(f"interpret {self.name}", "interpret", started * 1e-9, nodes=nodes)
        if not self.settled and not stance.interpreting:
            self.request()
            turns.give()
        taken = self._leaves.union(map(id, arrays))
        return [r if r.flags.owndata and id(r) not in taken else r.copy() for r in results]

    def _superseded(self) -> bool:
        return self.executable is not None and not stance.interpreting

    def _ask_ahead(self) -> None:
        """Begin before NumPy answers where the kernels are expected before that."""
        if self._compiling_takes(RACE_FACTOR):
            self.request()

    def _wait_instead(self) -> bool:
        """Wait for the kernels where they promise to be there before NumPy's answer would be.

        So what compiles is slowed down by nobody, and a call takes twice as long as NumPy's at
        most. True where the kernels are there.
        """
        if stance.mode_of(self.mode) != "auto" or not self.interpreted_runs:
            return False
        seconds = 1e-9 * self.interpreted_ns / self.interpreted_runs
        passed = time.monotonic() - self._asked
        left = max(model.compile_s(self.graph) - passed, OVERDUE * passed)
        if left < seconds:
            self.wait(2 * seconds)
        return self.executable is not None

    @property
    def title(self) -> str:
        """Its name and the types of its inputs, for people."""
        return f"{self.name}({', '.join(type_text(n.dtype, n.shape) for n in self.graph.inputs)})"

    def origins(self) -> dict[str, int]:
        """Return the number of distinct kernels by where they came from."""
        if self.executable is None:
            return {}
        codes = {id(code): code for code in self.executable.codes}.values()
        fresh = self.compiled_kernels
        disk = sum(code.origin == "disk" for code in codes)
        return {
            "compiled for it": fresh,
            "from the cache on disk": disk,
            "compiled before in this process": max(0, len(codes) - fresh - disk),
        }

    @property
    def tier(self) -> int:
        """0 where NumPy interprets, 1 where kernels run, 2 where these are specialised."""
        if self.executable is None:
            return 0
        special = self.specialisation
        return 2 if special is not None and special.stage is Stage.SPECIALISED else 1

    @property
    def calls(self) -> int:
        """How often it has answered."""
        executable = self.executable
        return self.interpreted_runs + (0 if executable is None else executable.runs)

    @property
    def reason(self) -> Reason | None:
        """Why NumPy answers; None where kernels do."""
        if self.state is State.FAILED:
            return _why_failed(self.failure)
        if not self.graph.outputs:
            return Reason.NOTHING
        if stance.interpreting:
            return Reason.STANCE
        if self.executable is not None:
            return None
        if config.disable_jit():
            return Reason.DISABLED
        if self.mode == "never":
            return Reason.MODE
        if self.state is State.WAITING:
            return Reason.PENDING
        return Reason.NOT_WORTH

    @property
    def kernels(self) -> int:
        """The number of distinct kernels that run."""
        return 0 if self.executable is None else self.executable.kernels

    @property
    def compile_seconds(self) -> float:
        """What planning and compiling it took, specialised code included."""
        special = self.specialisation
        return self.seconds + (0.0 if special is None else special.seconds)

    @property
    def guard_failures(self) -> int:
        """Calls at other sizes while code with constant ones was there."""
        if self.specialisation is None:
            return 0
        analysis.update(self)
        return self.specialisation.guard_failures

    @property
    def settled(self) -> bool:
        """Whether ``run`` stays what it is."""
        return self.mode == "never" or self.state in (State.COMPILED, State.FAILED)

    # -- compiling ---------------------------------------------------------------------------------

    def request(self) -> None:
        """Have the kernels made in the background; the more it is called, the sooner."""
        if self.settled:
            return
        with self._lock:
            job = self._job
            if job is not None and not background.lost(job):
                job.priority += self.saving_ns()
                return
            self._asked = time.monotonic()
            self._job = job = background.Job(self._compile_quietly, self.saving_ns())
            self.state = State.WAITING
        background.submit(job)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for kernels that were asked for; return whether none is outstanding any more."""
        job = self._job
        if job is None or self.settled or background.lost(job):
            return True
        return job.done.wait(timeout)

    def compile(self, *, cached_only: bool = False, limit: float | None = None) -> None:
        """Make the kernels and run them from now on; with ``cached_only``, only if all are at hand.

        After ``limit`` seconds of it nothing has changed, but that the kernels have been asked for.
        Raises UserError; any other failure is warned of once and leaves the interpreter in place.
        """
        with self._making:
            if self.settled:
                return
            started = time.perf_counter()
            try:
                self._make(cached_only, None if limit is None else started + limit)
            except TimeoutError:
                pass
            except UserError as error:
                self._fail(error)
                raise
            except Exception as error:  # any failure of ours must not cost the user the answer
                self._fail(error)
                warn_interpreted(error)
            finally:
                seconds = max(0.0, time.perf_counter() - started)
                self.seconds += seconds
            self._tell(seconds)

    def _tell(self, seconds: float) -> None:
        if self.failure is not None:
            message = f"{self.title} stays interpreted: {self.failure}"
        elif self.executable is not None:
            kernels = ", ".join(f"{n} {where}" for where, n in self.origins().items() if n)
            message = f"{self.title} runs compiled after {time_text(seconds)}; kernels: {kernels}"
        else:
            return
        reason = self.reason
        events.emit(
            "tiers", message, seconds, function=self.name, tier=self.tier, kernels=self.kernels,
            compiled=self.compiled_kernels, reason=None if reason is None else str(reason),
        )  # fmt: skip

    def _make(self, cached_only: bool, end: float | None) -> None:
        if not (_started or cache.disk().exists()):
            service.start_ahead()  # while planning and code generation are loaded
        target = cpu.target()
        problem = Problem(self.graph, self.layouts, target, self.level, self.fast_math)
        schedule = self._schedule
        found = None if schedule is not None else stored.restore(problem)
        if found is not None:
            self._adopt(found)
            return
        from tracejit.runtime import engine  # and with it all that plans

        if schedule is None:
            started = time.perf_counter()
            schedule = engine.plan_graph(self.graph, self.layouts, fast_math=self.fast_math)
            if spans.active is not None:
                spans.add(f"plan {self.name}", "plan", started, steps=len(schedule.steps))
            if _started:  # the first plan of a process loads the passes
                model.observe_plan(self.graph, time.perf_counter() - started, len(schedule.steps))
            self._schedule = schedule
        executable = None
        if self._compilation is None:
            executable = engine.cached_schedule(schedule, target, level=self.level)
            if executable is None and not cached_only:
                self._compilation = engine.begin(schedule, target, level=self.level)
        if self._compilation is not None:
            executable = self._compilation.result(end)
        if executable is not None:
            self._adopt(executable)
            if executable.fresh or all(code.origin == "disk" for code in executable.codes):
                stored.keep(problem, executable)  # the next process will need it first

    def _adopt(self, executable: Executable) -> None:
        global _started
        from tracejit.runtime import entry

        _started = True
        self.compiled_kernels += executable.fresh
        if executable.fresh:
            kernels = {id(call.code): call.kernel for call in executable.calls}
            known = executable.fresh == len(kernels)
            model.observe_kernels(kernels.values() if known else (), executable.fresh_seconds)
        executable.name = self.name
        self.executable = executable
        # Last, and one assignment: a call sees either form whole.
        self.run = executable.run
        self.state = State.COMPILED
        self._interpreter = self._schedule = self._compilation = None
        analysis.watch(self)
        entry.expect()

    def _compile_quietly(self) -> None:
        # The interpreter raises the same, at a call, where the user sees it.
        with contextlib.suppress(UserError):
            self.compile()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.state = State.FAILED

    # -- deciding ----------------------------------------------------------------------------------

    def _compiling_takes(self, share: float) -> bool:
        """Whether compiling promises to take less than a ``share`` of interpreting."""
        return model.compile_s(self.graph) < share * 1e-9 * model.interpreter_ns(self.graph)

    def _patience(self) -> float:
        """Return how many seconds a first call waits for kernels that promise to be quicker."""
        late = _lateness(1e-9 * model.interpreter_ns(self.graph))
        return max(late, PATIENCE * model.compile_s(self.graph))

    def _looking_pays(self) -> bool:
        """Whether planning, to see if the kernels are at hand, takes little of the first call."""
        if _started:
            return model.plan_s(self.graph) < PLAN_AT_ONCE_S
        seconds = 1e-9 * model.interpreter_ns(self.graph)
        return seconds > FIRST_LOOK_S and cache.disk().exists()

    def saving_ns(self) -> float:
        """Return what kernels would save at each call."""
        if self.interpreted_runs:
            interpreted = self.interpreted_ns / self.interpreted_runs
        else:
            interpreted = model.interpreter_ns(self.graph)
        return max(0.0, interpreted - model.kernel_ns(self.graph))


def _lateness(seconds: float) -> float:
    """Return how much longer a first call may take than the interpreter alone."""
    return (FIRST_FACTOR - 1.0) * seconds + FIRST_MORE_S


def _why_failed(error: Exception | None) -> Reason:
    match error:
        case WorkerCrashed():
            return Reason.WORKER_CRASH
        case NoMemory() | MemoryError():
            return Reason.MEMORY
        case UserError():
            return Reason.MISTAKE
        case _:
            return Reason.COMPILE_ERROR


def _nothing(arrays: Sequence[Array]) -> list[Array]:
    return []


# Whether this process has run a kernel: then the compiler is loaded, and planning is quick.
_started = False


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
