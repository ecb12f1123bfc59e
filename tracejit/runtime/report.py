"""Reports of the profiler: what functions and signatures have cost, as table, plain values or JSON.

Two reports can be compared: ``report.regressions(before)`` names what has become slower, where
``before`` is an earlier report or the file that its JSON was written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tracejit.errors import ValueArgumentError
from tracejit.record import as_dict, field, record
from tracejit.schedule.titles import time_text

# A function is hot once it has taken this share of all time measured.
HOT_SHARE = 0.1
# Native calls of both sides before their times are compared, and what counts as slower: times of
# short calls swing by a tenth on a machine that does something else as well.
COMPARED_CALLS, SLOWER = 16, 1.25
# The table has so many candidates; ``Report.candidates`` has all.
_SHOWN = 5


@record(frozen=True)
class SignatureProfile:
    """One signature: calls that kernels answered, and those that NumPy did; times in seconds.

    ``seconds`` is the time of all these calls, ``interpreted_seconds`` NumPy's part of it,
    ``least_seconds`` the shortest call that kernels answered, where calls are timed natively.
    ``rate`` is calls a second of late, None where nobody follows it. ``expected_saving`` is what
    the next tier would save at each call by the cost model: kernels where NumPy answers, constant
    sizes where kernels do. ``specialised`` says what has become of the latter, ``gain`` the
    measured ratio of the times. ``reason`` is why NumPy answers, or why kernels are not specialised
    any more.
    """

    arguments: str
    tier: int
    state: str
    native_calls: int
    interpreted_calls: int
    seconds: float
    compile_seconds: float
    interpreted_seconds: float = 0.0
    least_seconds: float | None = None
    rate: float | None = None
    expected_saving: float = 0.0
    specialised: str | None = None
    gain: float | None = None
    reason: str | None = None
    failure: str | None = None

    @property
    def calls(self) -> int:
        """All calls, whoever answered."""
        return self.native_calls + self.interpreted_calls


@record(frozen=True)
class FunctionProfile:
    """One jitted function; ``calls`` are all, whoever answered them, ``rate`` those a second.

    ``seconds`` are inclusive; ``python_seconds`` of them are ``python_calls`` runs of the Python
    function itself (arguments that overlap). Without the jitted functions that it calls then, it
    took ``exclusive_seconds``; calls inside a trace are part of its own kernels.
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
    python_calls: int = 0
    python_seconds: float = 0.0


class Candidate(NamedTuple):
    """A signature that the next tier would make faster; ``saved`` seconds by its calls so far."""

    function: str
    signature: SignatureProfile
    saved: float

    def __str__(self) -> str:
        found = self.signature
        return (
            f"{self.function}({found.arguments}) by tier {found.tier + 1}: "
            f"{time_text(found.expected_saving)} a call, "
            f"{time_text(self.saved)} over {found.calls:,} call{'s' * (found.calls != 1)}"
        )


class Regression(NamedTuple):
    """A signature whose calls have become slower; ``before`` and ``now`` are seconds a call."""

    function: str
    arguments: str
    before: float
    now: float

    def __str__(self) -> str:
        return (
            f"{self.function}({self.arguments}): {time_text(self.now)} a call, "
            f"{time_text(self.before)} before ({self.now / self.before:.2f} times)"
        )


@record(frozen=True)
class Report:
    """What the functions alive have cost so far, the most expensive first."""

    functions: list[FunctionProfile]

    @property
    def seconds(self) -> float:
        """The time measured in all of them, of those that call each other once."""
        return sum(f.exclusive_seconds for f in self.functions)

    @property
    def hot(self) -> list[str]:
        """The names of the functions that take a tenth of the time or more."""
        return [f.name for f in self.functions if f.seconds >= HOT_SHARE * self.seconds > 0]

    def candidates(self) -> list[Candidate]:
        """Return the signatures that the next tier would make faster, by what that saves in all."""
        found = [
            Candidate(f.name, s, s.expected_saving * s.calls)
            for f in self.functions
            for s in f.signatures
            if s.expected_saving > 0 and s.calls
        ]
        return sorted(found, key=lambda candidate: -candidate.saved)

    def regressions(
        self, before: Report | Mapping[str, Any] | str | Path, slower: float = SLOWER
    ) -> list[Regression]:
        """Return the signatures whose kernels take ``slower`` times as long as before, or more.

        ``before`` is a report, its ``as_dict()``, or a file with its ``as_json()``. The shortest
        calls are compared where both sides have them, the means otherwise, of signatures that
        kernels have answered ``COMPARED_CALLS`` times on both sides. The worst comes first. Raises
        OSError for a file that cannot be read, ValueArgumentError for what is no report.
        """
        old = {(name, s.arguments): s for name, s in _signatures(_plain(before))}
        found: list[Regression] = []
        for name, new in _signatures(self.as_dict()):
            times = _compared(old.get((name, new.arguments)), new)
            if times is not None and times[1] >= slower * times[0]:
                found.append(Regression(name, new.arguments, *times))
        return sorted(found, key=lambda regression: regression.before / regression.now)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"seconds": self.seconds, "functions": [as_dict(f) for f in self.functions]}

    def as_json(self) -> str:
        """Return JSON."""
        import json

        return json.dumps(self.as_dict(), indent=1)

    def __str__(self) -> str:
        lines = [tuple(_COLUMNS), *self._rows()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = (
            "  ".join(
                cell.ljust(width) if head in _TEXTS else cell.rjust(width)
                for head, cell, width in zip(_COLUMNS, line, widths, strict=True)
            ).rstrip()
            for line in lines
        )
        return "\n".join([*table, *self._below()])

    def table(self) -> None:
        """Print the report in the terminal, in colours."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        if not console.is_terminal:
            console.print(Text(str(self)), soft_wrap=True)
            return
        table = Table(header_style="bold", box=None, pad_edge=False)
        for head in _COLUMNS:
            if head in _TEXTS:
                table.add_column(head, overflow="fold", min_width=16)
            else:
                table.add_column(head, justify="right", no_wrap=True)
        for row in self._rows():
            table.add_row(*map(Text, row))
        console.print(table)
        for line in self._below():
            console.print(Text(line))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the cells of the table: a line a signature, one for runs of the Python function."""
        whole = self.seconds
        for f in self.functions:
            for s in sorted((s for s in f.signatures if s.calls), key=lambda s: -s.seconds):
                yield (
                    f"{f.name}({s.arguments})", str(s.tier), f"{s.calls:,}",
                    f"{s.interpreted_calls:,}", *_share(s.seconds, whole),
                    _each(s.seconds - s.interpreted_seconds, s.native_calls),
                    _each(s.interpreted_seconds, s.interpreted_calls),
                    _each(s.compile_seconds, 1), "" if s.rate is None else f"{s.rate:,.0f}",
                    _state(s),
                )  # fmt: skip
            if f.python_calls:
                own = max(f.exclusive_seconds - sum(s.seconds for s in f.signatures), 0.0)
                yield (
                    f"{f.name}(…)", "", f"{f.python_calls:,}", f"{f.python_calls:,}",
                    *_share(own, whole), "", _each(own, f.python_calls), "", "",
                    "the Python function itself",
                )  # fmt: skip

    def _below(self) -> Iterator[str]:
        """Yield the lines below the table: sums, and what would pay."""
        count = len(self.functions)
        compiling = sum(f.compile_seconds for f in self.functions)
        yield (
            f"{time_text(self.seconds)} in {count} function{'s' * (count != 1)}; "
            f"tracing and compiling {time_text(compiling)}"
        )
        for candidate in self.candidates()[:_SHOWN]:
            yield f"would gain: {candidate}"


_COLUMNS = (
    "call", "tier", "calls", "by NumPy", "time", "share", "a call", "in NumPy", "compiling",
    "calls/s", "state",
)  # fmt: skip
_TEXTS = ("call", "state")


def _share(seconds: float, whole: float) -> tuple[str, str]:
    """Return a time, and what share of the whole it is."""
    return time_text(seconds), f"{seconds / whole:.0%}" if whole else ""


def _each(seconds: float, calls: int) -> str:
    return time_text(seconds / calls) if calls and seconds else ""


def _state(signature: SignatureProfile) -> str:
    """Return who answers a signature's calls, and why not somebody quicker."""
    if not signature.tier:
        known = signature.state != "interpreted" or signature.reason is None
        return signature.state if known else f"interpreted: {signature.reason}"
    if signature.gain is not None:
        return f"{signature.specialised} ({signature.gain:.2f} times as fast)"
    return signature.specialised or signature.state


def _plain(report: Report | Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(report, Report):
        return report.as_dict()
    if isinstance(report, Mapping):
        return report
    import json

    try:
        return json.loads(Path(report).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueArgumentError(f"{report} is not JSON: {error}") from None


def _signatures(report: Mapping[str, Any]) -> list[tuple[str, SignatureProfile]]:
    """Return the functions' names and the signatures of a report as plain values."""
    try:
        return [
            (function["name"], SignatureProfile(**signature))
            for function in report["functions"]
            for signature in function["signatures"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueArgumentError(
            f"this is no report of the profiler: {error!r}",
            hint="tj.profiler.report().as_json() writes one",
        ) from None


def _compared(old: SignatureProfile | None, new: SignatureProfile) -> tuple[float, float] | None:
    """Return what a call took and takes; None where there is too little to compare."""
    if old is None or min(old.native_calls, new.native_calls) < COMPARED_CALLS:
        return None
    if old.least_seconds and new.least_seconds:
        return old.least_seconds, new.least_seconds
    before, now = ((s.seconds - s.interpreted_seconds) / s.native_calls for s in (old, new))
    return (before, now) if before > 0 else None
