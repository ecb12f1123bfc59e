"""Tier 2: kernels whose sizes are constants, for signatures that are called often.

A ``Specialisation`` belongs to one program, which answers calls of exactly its sizes and strides:
the guard is the one that leads to the program (``codegen/entry.py``). Its life::

    COMPILING → TRIAL → SPECIALISED → (sizes become rare) → GENERIC, and again, later each time
                    ↘ REJECTED          FAILED

In the trial the calls themselves are measured, with the generic code and the specialised one by
turns; the specialised code stays only if it is faster. Both give the same bits, so a call may be
answered by either at any time, and by both in turn while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tracejit.codegen import llvm
from tracejit.codegen.specialise import specialise, structure
from tracejit.runtime import code as codes
from tracejit.runtime import events, perf, service, ticks
from tracejit.runtime.code import Code
from tracejit.runtime.costs import model
from tracejit.runtime.reasons import Reason
from tracejit.schedule.titles import kernel_title

if TYPE_CHECKING:
    from tracejit.runtime.calls import NativeCall
    from tracejit.runtime.executable import Executable
    from tracejit.runtime.tiers import Program

# The function's name in a kernel's module.
ENTRY = "kernel"
# What specialised code must gain, in the trial, to stay.
GAIN = 1.03
# A trial compares the shortest call of so many slices of time with each code, by turns.
SLICES = 7
# Timed calls in a slice, at least.
SLICE_CALLS = 6
# A trial that its program is not called enough for ends after so long, one that it is not called
# for at all sooner: others wait for their turn.
TRIAL_SECONDS, IDLE_SECONDS = 5.0, 0.5
# Specialised code is given back when, of so many calls of its function, fewer than one in RARE
# has its sizes.
WINDOW = 4096
RARE = 16
# Each time that happens it has to pay that much more before it is made again.
BACKOFF = 8


class Stage(Enum):
    """Where a specialisation is in its life."""

    GENERIC = "size-generic"
    COMPILING = "specialised code is being made"
    TRIAL = "specialised code is being measured"
    SPECIALISED = "specialised"
    REJECTED = "size-generic: specialised code was no faster"
    FAILED = "size-generic: specialised code could not be made"


class Specialisation:
    """The specialised code of one program. Driven by ``runtime/analysis.py``, on one thread.

    ``gain`` is the measured ratio of the times. ``guard_failures`` counts calls of the same
    function, with arrays of the same dtypes and ranks, that had other sizes. ``backoff`` is the
    factor by which it has to pay.
    """

    def __init__(self, program: Program, executable: Executable):
        self.function, self.title = program.name, program.title
        self.executable = executable
        self.stage = Stage.GENERIC
        self.gain: float | None = None
        self.reason: Reason | None = None
        self.retired = 0
        self.backoff = 1
        self.seconds = 0.0  # compiling
        self.guard_failures = 0
        self.calls_before = 0  # calls of the program when it was last given back
        self._tickets: list[service.Ticket] = []
        self._codes: list[Code] = []
        self._trial: _Trial | None = None
        self._window = (0, 0)  # calls with these sizes and others

    @property
    def active(self) -> bool:
        """Whether it is on its way: ``step`` moves it on."""
        return self.stage in (Stage.COMPILING, Stage.TRIAL)

    def start(self) -> None:
        """Ask for the code, in the background."""
        self._tickets = [request(call) for call in self.executable.calls]
        self.stage = Stage.COMPILING

    def step(self) -> None:
        """Go on where that is possible without waiting."""
        if self.stage is Stage.COMPILING and all(t.done() for t in self._tickets):
            self._begin_trial()
        elif self.stage is Stage.TRIAL:
            assert self._trial is not None
            if self._trial.step():
                self._decide(self._trial)

    def _begin_trial(self) -> None:
        tickets, self._tickets = self._tickets, []
        try:
            self._codes = [ticket.result() for ticket in tickets]
        except Exception as error:  # tier 1 goes on, and nobody is disturbed
            self._end(Stage.FAILED, Reason.NOT_SPECIALISED, f"{type(error).__name__}: {error}")
            return
        if perf.wanted():
            for call, code in zip(self.executable.calls, self._codes, strict=True):
                perf.note(code.loaded, f"tracejit {kernel_title(call.kernel)}, constant sizes")
        unique = {id(code): code for code in self._codes}.values()
        self.seconds = sum(code.seconds for code in unique)
        model.observe_special(self.executable.calls, self.seconds)
        self._trial = _Trial(self.executable, self._codes)
        self.stage = Stage.TRIAL

    def _decide(self, trial: _Trial) -> None:
        self._trial = None
        ratio = trial.ratio()
        if ratio is None:  # not called often enough to tell
            self._give_back()
            self.stage, self.backoff = Stage.GENERIC, self.backoff * 2
            return
        self.gain = ratio
        # The model's figure is what ``analysis.expected_saving`` makes this saving of.
        model.observe_saving(self.executable.calls, trial.saved_ns() * ratio)
        if ratio < GAIN:
            self._give_back()
            self._end(Stage.REJECTED, Reason.NOT_FASTER, f"{ratio:.2f} times as fast")
            return
        self.executable.use(self._codes)
        self.stage, self.reason, self._window = Stage.SPECIALISED, None, (0, 0)
        events.emit(
            "tiers", f"{self.title} runs specialised: {ratio:.2f} times as fast", self.seconds,
            function=self.function, tier=2, gain=ratio,
        )  # fmt: skip

    def abandon(self) -> None:
        """Stop what is on its way, as in a forked child; it may begin again."""
        self._trial, self._tickets = None, []
        self._give_back()
        self.stage = Stage.GENERIC

    def observe(self, own: int, others: int) -> None:
        """Take new calls of the program, and of the same function at other sizes."""
        if self.stage is not Stage.SPECIALISED:
            return
        self.guard_failures += others
        mine, failed = self._window[0] + own, self._window[1] + others
        self._window = (mine, failed)
        if mine + failed < WINDOW:
            return
        self._window = (0, 0)
        if mine * RARE < failed:
            self._retire()

    def _retire(self) -> None:
        self._give_back()
        self.retired += 1
        self.backoff *= BACKOFF
        self._end(Stage.GENERIC, Reason.SELDOM, f"{self.guard_failures} calls had others")

    def _give_back(self) -> None:
        """Run the generic code again, and let the specialised one be freed."""
        self.executable.use(())
        self.calls_before = self.executable.runs
        for code in self._codes:
            codes.cache.drop(code)
        self._codes = []

    def _end(self, stage: Stage, reason: Reason, detail: str) -> None:
        self.stage, self.reason = stage, reason
        events.emit(
            "tiers", f"{self.title} runs size-generic: {reason} ({detail})",
            function=self.function, tier=1, reason=str(reason),
        )  # fmt: skip


class _Trial:
    """Measures calls with the generic code and with the specialised one, by turns."""

    def __init__(self, executable: Executable, special: Sequence[Code]):
        self._executable = executable
        self._special = special
        self._least: tuple[list[int], list[int]] = ([], [])
        self._turn = 0
        self._until = time.monotonic() + TRIAL_SECONDS
        self._called = (0, 0.0)  # calls, and when there were fewer
        self._timed = 0
        self._settled = True
        self._open(0)

    def _open(self, turn: int) -> None:
        """Begin a slice with the generic code (0) or the specialised one (1)."""
        self._turn = turn
        self._executable.use(self._special if turn else ())
        self._begin()

    def _begin(self) -> None:
        counted = self._executable.counters()
        self._timed = counted.timed
        # A call that is running has begun with the other code.
        self._settled = counted.calls == counted.ended
        for form in self._executable.living_forms():
            form.watch_least()

    def step(self) -> bool:
        """End the slice if it has had its calls; return whether the trial is over."""
        if not self._settled:
            self._begin()
        counted = self._executable.counters()
        if counted.timed - self._timed >= SLICE_CALLS and counted.least is not None:
            self._least[self._turn].append(counted.least)
            if len(self._least[1]) >= SLICES:
                return True
            self._open(1 - self._turn)
        now = time.monotonic()
        if counted.calls != self._called[0]:
            self._called = (counted.calls, now)
        return now > self._until or now > self._called[1] + IDLE_SECONDS

    def ratio(self) -> float | None:
        """Return the generic time by the specialised one; None for a trial that was cut short."""
        generic, special = self._least
        if len(special) < SLICES:
            return None
        return float(np.median(generic) / max(np.median(special), 1))

    def saved_ns(self) -> float:
        """Return what a call saves."""
        generic, special = self._least
        saved = float(np.median(generic) - np.median(special))
        return saved * ticks.seconds_per_tick() * 1e9


def request(call: NativeCall) -> service.Ticket:
    """Ask for the code of a native call with its sizes as constants."""
    sizes: list[int] = call.sizes.tolist()
    trips = call.end if call.end <= call.grain else None
    generic = call.code
    return service.submit(
        structure(generic.key.structure, sizes, trips),
        partial(_emit, generic, sizes, trips),
        ENTRY,
        generic.target,
        llvm.SPECIALISED,
        service.Priority.IDLE,
    )


def _emit(generic: Code, sizes: Sequence[int], trips: int | None) -> str:
    return specialise(generic.text, ENTRY, sizes, trips)
