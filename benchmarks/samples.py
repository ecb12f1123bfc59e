"""Samples of interleaved rounds, and intervals of their ratios.

A round is one turn of every implementation, in an order shuffled anew. What disturbs the machine
for a while disturbs a whole round, so the intervals come from drawing whole rounds again (the
bootstrap, Efron 1979), the same ones for both sides of a ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Rounds = Sequence[Sequence[float]]

RESAMPLES = 2000


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def least(rounds: Rounds) -> float:
    """Return the shortest sample: what the code takes undisturbed."""
    return min(min(samples) for samples in rounds)


def middles(rounds: Rounds) -> Array:
    """Return the median of each round."""
    return np.array([np.median(samples) for samples in rounds])


def median(rounds: Rounds) -> float:
    return float(np.median(middles(rounds)))


def _interval(value: float, drawn: Array) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _draws(rounds: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, rounds, (RESAMPLES, rounds))


def ratio(theirs: Rounds, ours: Rounds, seed: int = 0) -> Interval:
    """Return theirs / ours of the medians, from rounds that both took part in."""
    count = min(len(theirs), len(ours))
    a, b = middles(theirs[:count]), middles(ours[:count])
    draws = _draws(count, seed)
    drawn = np.median(a[draws], axis=1) / np.median(b[draws], axis=1)
    return _interval(float(np.median(a) / np.median(b)), drawn)


def change(
    new: Rounds,
    old: Rounds,
    new_control: Rounds | None = None,
    old_control: Rounds | None = None,
    seed: int = 0,
) -> Interval:
    """Return new / old of the medians of two runs, whose rounds have nothing in common.

    With controls, the time of something that did not change in the same rounds, each side is
    taken relative to its control: a machine that is slower today slows both.
    """

    def drawn(rounds: Rounds, control: Rounds | None, seed: int) -> tuple[float, Array]:
        count = len(rounds) if control is None else min(len(rounds), len(control))
        times = middles(rounds[:count])
        draws = _draws(count, seed)
        value, values = float(np.median(times)), np.median(times[draws], axis=1)
        if control is None:
            return value, values
        base = middles(control[:count])
        return value / float(np.median(base)), values / np.median(base[draws], axis=1)

    new_value, new_drawn = drawn(new, new_control, seed)
    old_value, old_drawn = drawn(old, old_control, seed + 1)
    return _interval(new_value / old_value, new_drawn / old_drawn)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; 1 of nothing."""
    return float(np.exp(np.mean(np.log(values)))) if values else 1.0
