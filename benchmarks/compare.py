"""Two runs against each other: what became slower, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import samples
from .implementations import split
from .results import Result, read
from .samples import Interval

# A change below this is of no interest even where it is certain.
TOLERANCE = 1.03


@dataclass(frozen=True)
class Change:
    """New time over old time of one of our implementations on one row.

    ``absolute`` compares the times themselves; ``relative`` the times over NumPy's in the same
    rounds, None where NumPy was not measured, or in another version.
    """

    row: str
    implementation: str
    absolute: Interval
    relative: Interval | None

    def _beyond(self, which: str) -> bool:
        """True where each interval lies beyond the tolerance on one side.

        Both count: a machine that is busier than it was slows the first, noise in NumPy's times
        moves the second.
        """
        intervals = [i for i in (self.absolute, self.relative) if i is not None]
        if which == "slower":
            return all(interval.low > TOLERANCE for interval in intervals)
        return all(interval.high < 1 / TOLERANCE for interval in intervals)

    @property
    def regression(self) -> bool:
        return self._beyond("slower")

    @property
    def improvement(self) -> bool:
        return self._beyond("faster")


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Return what keeps two runs from being compared as equals."""
    found: list[str] = []
    for key in ("processor", "isa", "threads", "python"):
        a, b = old["machine"].get(key), new["machine"].get(key)
        if a != b:
            found.append(f"{key}: {a} then, {b} now")
    return found


def compare(new: dict[str, Any], old: dict[str, Any]) -> list[Change]:
    """Return the change of each row that both runs have, for our implementations."""
    version = [
        document["implementations"].get("numpy", {}).get("version") for document in (new, old)
    ]
    control = version[0] is not None and version[0] == version[1]
    before = {row.name: row for row in read(old)}
    changes: list[Change] = []
    for row in read(new):
        if row.name in before:
            changes += _changes(row, before[row.name], control)
    return changes


def _changes(new: Result, old: Result, control: bool) -> list[Change]:
    changes: list[Change] = []
    for name, measured in new.timed.items():
        if split(name)[0] not in ("tracejit", "neuralscript") or name not in old.timed:
            continue
        rounds = measured.rounds, old.timed[name].rounds
        relative = None
        if control and "numpy" in new.timed and "numpy" in old.timed:
            controls = new.timed["numpy"].rounds, old.timed["numpy"].rounds
            relative = samples.change(*rounds, *controls)
        changes.append(Change(new.name, name, samples.change(*rounds), relative))
    return changes


def regressions(changes: Sequence[Change]) -> list[Change]:
    return [change for change in changes if change.regression]
