"""What the measurements say: rows of the results file as times, ratios and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import samples
from .implementations import COPIES, PEERS, split
from .samples import Interval

# Rows of fewer bytes have no memory limit: the call is what a copy of them takes.
SMALL = 1 << 16


@dataclass(frozen=True)
class Measured:
    """One implementation's times of a row in seconds; ``rounds`` is empty where it has none."""

    name: str
    status: str
    detail: str
    rounds: list[list[float]]
    compile: float | None
    cold: float | None

    @property
    def least(self) -> float:
        return samples.least(self.rounds)

    @property
    def median(self) -> float:
        return samples.median(self.rounds)


@dataclass(frozen=True)
class Result:
    """One row of a results file."""

    name: str
    title: str
    group: str
    dtype: str
    bytes: int
    flops: float
    memory_bound: bool
    by: dict[str, Measured]
    peak: float | None  # flops a second on the run's threads

    @property
    def timed(self) -> dict[str, Measured]:
        return {name: m for name, m in self.by.items() if m.rounds and m.status == "ok"}

    @property
    def ours(self) -> Measured | None:
        return self.timed.get("tracejit")

    @property
    def peers(self) -> list[Measured]:
        """The peers that were timed, the fastest first."""
        found = [m for name, m in self.timed.items() if name in PEERS]
        return sorted(found, key=lambda m: m.least)

    def least_ratio(self, peer: Measured) -> float:
        """How many times faster tracejit's best sample is than the peer's."""
        assert self.ours is not None
        return peer.least / self.ours.least

    def ratio(self, peer: Measured) -> Interval:
        """The same of the medians, with its interval."""
        assert self.ours is not None
        return samples.ratio(peer.rounds, self.ours.rounds)

    @property
    def slower_than(self) -> list[str]:
        """The peers that beat tracejit, by the least or by the median time."""
        if self.ours is None:
            return []
        return [
            m.name for m in self.peers if self.least_ratio(m) < 1 or m.median < self.ours.median
        ]

    @property
    def memory_limit(self) -> float | None:
        """Seconds that moving the row's bytes took in the same rounds, at best.

        None for rows so small that the call itself is what the copy costs.
        """
        copies = [self.timed[name].least for name in COPIES if name in self.timed]
        return min(copies) if copies and self.bytes >= SMALL else None

    @property
    def limit(self) -> float | None:
        """The roofline: no faster than the memory, nor than the peak of multiply-adds."""
        limits = [self.memory_limit or 0.0, self.flops / self.peak if self.peak else 0.0]
        return max(limits) or None

    @property
    def share(self) -> float | None:
        """What part of the roofline tracejit reaches."""
        return self.limit / self.ours.least if self.limit and self.ours else None


def roof(figures: dict[str, float], what: str) -> float | None:
    """Return the best figure of a kind ("GB/s", "f32 GF/s"); one thread may beat many."""
    return max((v for name, v in figures.items() if what in name), default=None)


def read(document: dict[str, Any]) -> list[Result]:
    """Return the rows of a results file."""
    machine = document["machine"]
    figures: dict[str, float] = machine["figures"]
    results: list[Result] = []
    for row in document["rows"]:
        peak = roof(figures, f"{row['dtype']} GF/s")
        fields = {key: row[key] for key in ("name", "title", "group", "dtype", "bytes", "flops")}
        by = {
            name: Measured(
                name,
                found["status"],
                found.get("detail", ""),
                found.get("rounds", []),
                found.get("compile"),
                found.get("cold"),
            )
            for name, found in row["results"].items()
        }
        results.append(
            Result(
                **fields,
                memory_bound=row["memory_bound"],
                by=by,
                peak=peak * 1e9 if peak else None,
            )
        )
    return results


def best_ratios(rows: Sequence[Result]) -> list[float]:
    """Return least best peer / least tracejit of each row that has both."""
    return [row.least_ratio(row.peers[0]) for row in rows if row.ours and row.peers]


def levels(row: Result) -> list[Measured]:
    """Return tracejit's times on other instruction sets, as the run was asked for them."""
    return [m for name, m in row.timed.items() if split(name)[0] == "tracejit" and split(name)[1]]


def level_ratio(row: Result, number: int) -> float:
    """Return the time on ``levels(row)[number]`` over that on the level above it."""
    below = levels(row)[number]
    above = levels(row)[number - 1] if number else row.ours
    assert above is not None
    return below.least / above.least
