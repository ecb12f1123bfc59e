"""The profiler: where the time of jitted functions goes, and what would pay.

Nothing runs on a caller's path for it. Native entries count their calls and time a sample of them
themselves, programs count what the interpreter does for them, and a report reads both. In the
background ``runtime/analysis.py`` reads the counters, for rates and for what would pay.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tracejit.runtime import analysis, entry, events, ticks
from tracejit.runtime.costs import model
from tracejit.runtime.specialise import Stage

if TYPE_CHECKING:
    from tracejit.runtime.entry import NativeForm
    from tracejit.runtime.tiers import Program

subscribe = events.subscribe
# Runs in Python for which the time inside them is measured: the first ones, then one of so many.
_SAMPLED_RUNS = 16
# A function is hot once it has taken this share of all time measured.
HOT_SHARE = 0.1


@dataclass(frozen=True)
class SignatureProfile:
    """One signature: the ``seconds`` of native and interpreted calls; ``rate`` is calls a second.

    ``expected_saving`` is what the next tier would save at each call, in seconds and by the cost
    model: kernels where NumPy answers, constant sizes where kernels do. ``specialised`` says what
    has become of the latter, ``gain`` the measured ratio of the times. ``reason`` is why NumPy
    answers, or why kernels are not specialised any more.
    """

    arguments: str
    tier: int
    state: str
    native_calls: int
    interpreted_calls: int
    seconds: float
    compile_seconds: float
    rate: float = 0.0
    expected_saving: float = 0.0
    specialised: str | None = None
    gain: float | None = None
    reason: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class FunctionProfile:
    """One jitted function; ``calls`` are all, whoever answered them, ``rate`` those a second.

    ``seconds`` are inclusive. Without the jitted functions that it calls while it runs as a Python
    function, it took ``exclusive_seconds``; calls inside a trace are part of its own kernels.
    """

    name: str
    calls: int
    seconds: float
    exclusive_seconds: float
    rate: float
    compile_seconds: float
    guard_failures: dict[str, int]
    sizes: dict[str, list[int]]
    signatures: list[SignatureProfile] = field(default_factory=list[SignatureProfile])


class Profiled(Protocol):
    """What registers here: a jitted function."""

    def profile(self) -> FunctionProfile: ...

    def exclusive_seconds(self) -> float: ...


_functions: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


def register(function: Profiled) -> None:
    """Let reports have ``function`` while it lives."""
    with _lock:
        _functions.add(function)


def signature_profile(program: Program, arguments: str) -> SignatureProfile:
    """Return what is known of one program, with what its native forms have counted."""
    executable, special = program.executable, program.specialisation
    counted = entry.total(()) if executable is None else executable.counters()
    saving = program.saving_ns() * 1e-9 if not program.tier else 0.0
    if program.tier == 1 and (special is None or special.stage is Stage.GENERIC):
        saving = analysis.expected_saving(program)
    reason = program.reason or (None if special is None else special.reason)
    return SignatureProfile(
        arguments=arguments,
        tier=program.tier,
        state=program.state.value,
        native_calls=counted.calls,
        interpreted_calls=program.interpreted_runs,
        seconds=_seconds(program),
        compile_seconds=program.compile_seconds,
        rate=program.activity.rate,
        expected_saving=saving,
        specialised=None if special is None else special.stage.value,
        gain=None if special is None else special.gain,
        reason=None if reason is None else str(reason),
        failure=None if program.failure is None else str(program.failure),
    )


def forms_profile(forms: Sequence[NativeForm], arguments: str) -> SignatureProfile:
    """Return what is known of native forms for many sizes, which share kernels of tier 1."""
    counted = entry.total([form.counters() for form in forms])
    return SignatureProfile(
        arguments=arguments,
        tier=1,
        state="compiled for many sizes",
        native_calls=counted.calls,
        interpreted_calls=0,
        seconds=max(counted.ticks * ticks.seconds_per_tick(), 0.0) if counted.ticks else 0.0,
        compile_seconds=0.0,
    )


def seconds_of(programs: Iterable[Program]) -> float:
    """Return the time of all calls that these programs have answered."""
    return sum(map(_seconds, programs))


def _seconds(program: Program) -> float:
    """Return the time of all calls that the interpreter and native code have answered."""
    executable = program.executable
    ns = program.interpreted_ns
    if executable is None:
        return ns * 1e-9
    taken = executable.counters().ticks
    native = taken * ticks.seconds_per_tick() if taken else 0.0
    return (ns + executable.stretches_ns) * 1e-9 + max(native, 0.0)


class PythonTime:
    """The time of a function's runs in Python, and how much of it jitted functions took inside.

    The latter is measured for some runs only: it reads the counters of every function. Other
    threads that call jitted functions meanwhile make it too large.
    """

    __slots__ = ("_inside", "_sampled", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sampled = 0.0
        self._inside = 0.0

    @property
    def exclusive(self) -> float:
        """The seconds without what jitted functions took inside."""
        share = self._inside / self._sampled if self._sampled else 0.0
        return self.seconds * (1.0 - share)

    def add(self, seconds: float, inside: float | None) -> None:
        """Take one run; ``inside`` is None where it was not measured."""
        seconds = max(seconds, 0.0)
        self.seconds += seconds
        if inside is not None:
            self._sampled += seconds
            self._inside += min(max(inside, 0.0), seconds)


class python_timer:  # noqa: N801 - a stop watch
    """Times one run in Python from now on. ``number`` says which of the function's runs it is."""

    __slots__ = ("_before", "_started")

    def __init__(self, number: int):
        sampled = number <= _SAMPLED_RUNS or number % _SAMPLED_RUNS == 0
        self._before = _all_seconds() if sampled else None
        self._started = time.perf_counter()

    def stop(self, total: PythonTime) -> None:
        """Add the run to ``total``."""
        elapsed = time.perf_counter() - self._started
        inside = None if self._before is None else _all_seconds() - self._before
        total.add(elapsed, inside)


def _all_seconds() -> float:
    """Return the exclusive time of all functions so far."""
    with _lock:
        alive = list(_functions)
    return sum(function.exclusive_seconds() for function in alive)


@dataclass(frozen=True)
class Report:
    """What the functions alive have cost so far, the most expensive first."""

    functions: list[FunctionProfile]

    @property
    def seconds(self) -> float:
        """The time measured in all of them."""
        return sum(f.seconds for f in self.functions)

    @property
    def hot(self) -> list[str]:
        """The names of the functions that take a tenth of the time or more."""
        return [f.name for f in self.functions if f.seconds >= HOT_SHARE * self.seconds > 0]

    def candidates(self) -> list[tuple[str, SignatureProfile]]:
        """Return the signatures that the next tier would make faster, by what that saves in all."""
        found = [(f.name, s) for f in self.functions for s in f.signatures if s.expected_saving > 0]

        def saved(pair: tuple[str, SignatureProfile]) -> float:
            signature = pair[1]
            calls = signature.native_calls + signature.interpreted_calls
            return signature.expected_saving * calls

        return sorted(found, key=saved, reverse=True)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"seconds": self.seconds, "functions": [asdict(f) for f in self.functions]}

    def as_json(self) -> str:
        """Return JSON."""
        import json

        return json.dumps(self.as_dict(), indent=1)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the lines of the table: a line a signature."""
        for f in self.functions:
            for s in f.signatures:
                calls = s.native_calls + s.interpreted_calls
                each = s.seconds / calls * 1e6 if calls else 0.0
                yield (
                    f.name, s.arguments, str(s.tier), s.state, str(s.native_calls),
                    str(s.interpreted_calls), f"{s.seconds * 1e3:.2f}", f"{each:.1f}",
                    f"{s.compile_seconds * 1e3:.1f}", f"{s.rate:.0f}",
                )  # fmt: skip

    def __str__(self) -> str:
        head = (
            "function", "arguments", "tier", "state", "native", "NumPy", "ms", "µs a call",
            "compile ms", "calls/s",
        )  # fmt: skip
        lines = [head, *self.rows()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def table(self) -> None:
        """Print the table in the terminal."""
        from rich.console import Console
        from rich.table import Table

        table = Table("function", "arguments", "tier", "state", title="tracejit")
        for name in ("native calls", "NumPy calls", "ms", "µs a call", "compile ms", "calls/s"):
            table.add_column(name, justify="right")
        for row in self.rows():
            table.add_row(*row)
        Console().print(table)


def report() -> Report:
    """Return what every jitted function that is alive has cost so far."""
    with _lock:
        alive = list(_functions)
    found = [function.profile() for function in alive]
    return Report(sorted((f for f in found if f.calls), key=lambda f: -f.seconds))


def costs() -> dict[str, float]:
    """Return the cost model's present figures: seconds to plan a node, to compile a kernel, …"""
    return {
        "plan_seconds_per_node": model.plan_node_s,
        "compile_seconds_per_kernel": model.kernel_s["loop"],
        "compile_seconds_per_product": model.kernel_s["product"],
        "kernels_per_node": model.kernels_per_node,
        "kernel_scale": model.kernel_scale,
        "loop_entry_seconds": model.entry_ns["loop"] * 1e-9,
        "product_tile_seconds": model.entry_ns["product"] * 1e-9,
    }
