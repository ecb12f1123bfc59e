"""Analysis in the background: how often programs are called, and what would pay.

Native calls only count. Every quarter of a second, and more seldom while nothing happens, a thread
reads the counters of all programs that run compiled. It keeps their rates, tells the cost model
what kernels take, and has the program specialised from which most is expected
(``runtime/specialise.py``), one at a time. Callers never wait for it: reading counters takes about
two microseconds a program.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Protocol

from tracejit import config
from tracejit.record import field, record
from tracejit.runtime import stance, ticks
from tracejit.runtime.costs import model
from tracejit.runtime.specialise import Specialisation, Stage

if TYPE_CHECKING:
    from tracejit.runtime.executable import Executable
    from tracejit.runtime.tiers import Program

# Between two looks: while a specialisation is measured, usually, and where nothing is called.
TRIAL_S, PAUSE_S, IDLE_S = 0.02, 0.25, 8.0
# Weight of the rate of a usual look.
_NEWEST = 0.5
# Calls before the cost model hears of a program's kernels; then whenever they have doubled.
_FIRST_CALLS = 16
# What constant sizes must be expected to gain of a call's time: smaller gains are hard to measure.
_LEAST_SHARE = 0.05
# Specialised code is for callers that leave the choice of LLVM's level to us.
_LEAST_LEVEL = 2


class Counted(Protocol):
    """Something that answers calls."""

    @property
    def calls(self) -> int:
        """How many it has answered."""
        ...


class Family:
    """The programs of one function that differ in the sizes and strides of arrays only.

    ``plans`` answer ranges of such sizes.
    """

    def __init__(self) -> None:
        self._programs: list[weakref.ref[Program]] = []
        self.plans: list[Counted] = []

    def add(self, program: Program) -> None:
        """Take one more member."""
        self._programs.append(weakref.ref(program))
        program.family = self

    def others(self, program: Program) -> int:
        """Return how often the members that live have been called, without ``program``."""
        members = (reference() for reference in tuple(self._programs))
        ranged = sum(plan.calls for plan in tuple(self.plans))
        return ranged + sum(m.calls for m in members if m is not None and m is not program)


@record(slots=True)
class Activity:
    """What the last look at a program saw: its calls, those of its family beside it, its rate.

    The rate at the first look is the mean since the program was made.
    """

    calls: int = 0
    others: int = 0
    at: float = field(default_factory=time.monotonic)
    rate: float | None = None
    observe_at: int = _FIRST_CALLS

    def follow(self, calls: int) -> int:
        """Take the number of calls so far; return how many are new."""
        own, now = calls - self.calls, time.monotonic()
        elapsed, self.calls = now - self.at, calls
        if elapsed > 0:
            newest = own / elapsed
            # A look that comes soon after another says less.
            weight = 1 - (1 - _NEWEST) ** (elapsed / PAUSE_S)
            old = newest if self.rate is None else self.rate
            self.rate = old + weight * (newest - old)
            self.at = now
        return own


class Watcher(Protocol):
    """Something that is looked at whenever programs are."""

    def look(self, specialise: bool) -> int:
        """Return how many calls there were since the last look, beside those of programs."""
        ...


class Analyst:
    """The programs that run compiled, and the thread that looks at them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._programs: list[weakref.ref[Program]] = []
        self.watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._current: Specialisation | None = None

    def adopt(self, program: Program) -> None:
        """Look at ``program`` whenever there is a look."""
        self._programs.append(weakref.ref(program))

    def watch(self, program: Program) -> None:
        """Look at ``program`` from now on, while it lives."""
        self.adopt(program)
        if self._thread is not None:
            return
        with self.lock:
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._work, name="tracejit-analysis", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads, or the process ends
                    thread.start()
                    self._thread = thread

    def _work(self) -> None:
        pause = PAUSE_S
        while not self._stopping:
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping:
                return
            called = self.analyse()
            if self._current is not None:
                pause = TRIAL_S
            else:
                pause = PAUSE_S if called else min(2 * pause, IDLE_S)

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    # -- one look ----------------------------------------------------------------------------------

    def analyse(self) -> int:
        """Look at every program once; return how many calls there were since the last look."""
        with self.lock:
            current = self._current
            if current is not None:
                current.step()
                if not current.active:
                    self._current = None
            programs = self.programs()
            called = sum(_look(program) for program in programs)
            called += sum(watcher.look(wanted()) for watcher in list(self.watchers))
            if self._current is None and called and wanted():
                self._current = self._specialise()
        return called

    def _specialise(self) -> Specialisation | None:
        """Begin with the program that specialised code is expected to save most for, if any."""
        found = [(value, program) for program in self.programs() if (value := worth(program)) > 0]
        if not found:
            return None
        _, program = max(found, key=lambda pair: pair[0])
        executable = program.executable
        assert executable is not None
        special = program.specialisation
        if special is None or special.executable is not executable:
            special = Specialisation(program, executable)
        special.start()
        program.specialisation = special
        return special

    def programs(self) -> list[Program]:
        """Return the programs that are looked at; forget those that have died."""
        found: list[Program] = []
        for reference in tuple(self._programs):
            program = reference()
            if program is None:
                self._programs.remove(reference)
            else:
                found.append(program)
        return found


def wanted() -> bool:
    """Whether anything is to be specialised: the stance and the environment allow it."""
    return config.specialise() and stance.current() in ("default", "now", "background")


def _look(program: Program) -> int:
    """Bring a program's rate and specialisation and the costs up to date; return new calls."""
    seen, around = program.activity, 0
    if program.family is not None:  # members that die take their calls along
        around = max(seen.others, program.family.others(program))
    others, seen.others = around - seen.others, around
    own = seen.follow(program.calls)
    executable = program.executable
    if executable is None:
        return own
    executable.release()
    if program.specialisation is not None:
        program.specialisation.observe(own, others)
    if seen.calls >= seen.observe_at:
        seen.observe_at = 2 * seen.calls
        spent = call_ns(executable)
        if spent:
            model.observe_run(program.graph, spent)
    return own


def call_ns(executable: Executable) -> float:
    """Return what a native call takes on average, in nanoseconds; 0.0 where none was timed."""
    counted = executable.counters()
    if not counted.timed:
        return 0.0
    return counted.timed_ticks / counted.timed * ticks.seconds_per_tick() * 1e9


def expected_saving(program: Program) -> float:
    """Return the seconds that constant sizes would save at each call; 0.0 where too little."""
    executable = program.executable
    if executable is None or not executable.calls:
        return 0.0
    spent, entering = call_ns(executable), model.special_saving_ns(executable.calls)
    if not spent:
        return 0.0
    # What entering loops takes is part of what was measured, however much the model makes of it.
    saving = spent * entering / (spent + entering)
    return saving * 1e-9 if saving >= _LEAST_SHARE * spent else 0.0


def worth(program: Program) -> float:
    """Return the share of time that specialising ``program`` would save, 0.0 where it is not to be.

    It is where it would have paid for the calls so far: as many are expected to come.
    """
    special = program.specialisation
    if program.level < _LEAST_LEVEL or program.mode == "never":
        return 0.0
    if special is not None and special.stage is not Stage.GENERIC:
        return 0.0
    saving = expected_saving(program)
    executable = program.executable
    if not saving or executable is None:
        return 0.0
    before, backoff = (0, 1) if special is None else (special.calls_before, special.backoff)
    calls = executable.runs - before
    pays = saving * calls >= backoff * model.special_s(executable.calls)
    return saving * (program.activity.rate or 0.0) if pays else 0.0


_analyst = Analyst()


def watch(program: Program) -> None:
    """Look at ``program`` from now on, while it lives."""
    _analyst.watch(program)


def watch_also(watcher: Watcher) -> None:
    """Look at ``watcher`` from now on, while it lives and some program is looked at."""
    with _analyst.lock:
        _analyst.watchers.add(watcher)


def analyse() -> int:
    """Look at every program now; return how many calls there were since the last look."""
    return _analyst.analyse()


def update(program: Program) -> None:
    """Count what has come since the last look, for a report."""
    with _analyst.lock:
        _look(program)


def _in_child() -> None:
    """Go on without the thread: the next program that is compiled starts one."""
    global _analyst
    before, _analyst = _analyst, Analyst()
    for program in before.programs():
        special = program.specialisation
        if special is not None and special.active:
            special.abandon()
        _analyst.adopt(program)
    for watcher in list(before.watchers):
        _analyst.watchers.add(watcher)


atexit.register(lambda: _analyst.stop())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _analyst.lock.acquire(),
        after_in_parent=lambda: _analyst.lock.release(),
        after_in_child=_in_child,
    )
