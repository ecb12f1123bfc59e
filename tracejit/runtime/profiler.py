"""The profiler: where the time of jitted functions goes, and what would pay.

Nothing is sampled and nothing runs on a caller's path for it. Native entries count and time their
calls themselves, programs count what the interpreter does for them, and a report reads both.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tracejit.runtime import events, ticks
from tracejit.runtime.costs import model

if TYPE_CHECKING:
    from tracejit.runtime.tiers import Program

subscribe = events.subscribe
# A function is hot once it has taken this share of all time measured.
HOT_SHARE = 0.1


@dataclass(frozen=True)
class SignatureProfile:
    """One signature: ``seconds`` are those of native and interpreted calls, inclusive.

    ``expected_saving`` is what kernels would save at each call, by the cost model, where it is
    still interpreted.
    """

    arguments: str
    tier: int
    state: str
    native_calls: int
    interpreted_calls: int
    seconds: float
    compile_seconds: float
    expected_saving: float = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class FunctionProfile:
    """One jitted function; ``calls`` are all, whoever answered them."""

    name: str
    calls: int
    seconds: float
    compile_seconds: float
    guard_failures: dict[str, int]
    sizes: dict[str, list[int]]
    signatures: list[SignatureProfile] = field(default_factory=list[SignatureProfile])


class Profiled(Protocol):
    """What registers here: a jitted function."""

    def profile(self) -> FunctionProfile: ...


_functions: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


def register(function: Profiled) -> None:
    """Let reports have ``function`` while it lives."""
    with _lock:
        _functions.add(function)


def signature_profile(
    program: Program, arguments: str, native_calls: int, native_ticks: int
) -> SignatureProfile:
    """Return what is known of one program, with what its native forms have counted."""
    seconds = program.interpreted_ns * 1e-9
    if native_ticks:
        seconds += native_ticks * ticks.seconds_per_tick()
    return SignatureProfile(
        arguments=arguments,
        tier=program.tier,
        state=program.state.value,
        native_calls=native_calls,
        interpreted_calls=program.interpreted_runs,
        seconds=seconds,
        compile_seconds=program.seconds,
        expected_saving=0.0 if program.tier else program.saving_ns() * 1e-9,
        failure=None if program.failure is None else str(program.failure),
    )


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
        """Return the signatures that are interpreted, by what compiling them would save a call."""
        found = [(f.name, s) for f in self.functions for s in f.signatures if s.tier == 0]
        return sorted(found, key=lambda pair: -pair[1].expected_saving * pair[1].interpreted_calls)

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
                    f"{s.compile_seconds * 1e3:.1f}",
                )  # fmt: skip

    def __str__(self) -> str:
        head = (
            "function", "arguments", "tier", "state", "native", "NumPy", "ms", "µs a call",
            "compile ms",
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
        for name in ("native calls", "NumPy calls", "ms", "µs a call", "compile ms"):
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
        "compile_seconds_per_kernel": model.kernel_s,
        "kernels_per_node": model.kernels_per_node,
        "kernel_scale": model.kernel_scale,
    }
