"""Accumulators: how a reduction starts, takes a value, merges partial results, and ends.

Float sums run in blocks: within a block plain accumulators, one per vector of the unrolled body;
between blocks a compensated sum (Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur
Summation endlicher Summen"). The error is that of a block of a few hundred elements however long
the data, at most NumPy's pairwise sum's, and the order is fixed, so the bits do not depend on
threads or chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tracejit.codegen.builder import I32, Builder, Type, Value, const
from tracejit.codegen.types import DType, cast, is_signed, nonzero, register_type

State = list[Value]


class Reducer(Protocol):
    """One reduction's accumulator. A state is a fixed number of values of equal lanes."""

    def start(self, lanes: int) -> State:
        """Return the neutral state."""
        ...

    def update(self, b: Builder, state: State, value: Value, position: Value) -> State:
        """Take one value (``position`` is its i32 index in the reduced axes)."""
        ...

    def merge(self, b: Builder, left: State, right: State) -> State:
        """Combine two states."""
        ...

    def finish(self, b: Builder, state: State) -> Value:
        """Return the result of a state."""
        ...


class Sum:
    """Integer sums (wrapping), and the blocks of float sums."""

    def __init__(self, source: DType, result: DType):
        self.source, self.result = source, result
        self.compensated = result.kind == "f"

    def start(self, lanes: int) -> State:
        # −0.0 is the neutral element of floating addition: −0.0 + x = x for every x.
        zero = -0.0 if self.compensated else 0
        return [const(zero, register_type(self.result, lanes))]

    def update(self, b: Builder, state: State, value: Value, position: Value) -> State:
        return [b.add(state[0], cast(b, value, self.source, self.result))]

    def merge(self, b: Builder, left: State, right: State) -> State:
        return [b.add(left[0], right[0])]

    def finish(self, b: Builder, state: State) -> Value:
        return state[0]


class Compensated:
    """The state between blocks of a float sum: the sum and what rounding has lost so far."""

    def __init__(self, dtype: DType):
        self.dtype = dtype

    def start(self, lanes: int) -> State:
        type = register_type(self.dtype, lanes)
        return [const(-0.0, type), const(-0.0, type)]

    def begin(self, block: Value) -> State:
        """Return what ``absorb`` makes of a first block."""
        return [block, const(0, block.type)]

    def absorb(self, b: Builder, state: State, block: Value) -> State:
        total, lost = state
        result = b.add(total, block)
        # Knuth's two-sum: exact whichever is larger, no branch.
        part = b.sub(result, total)
        error = b.add(b.sub(total, b.sub(result, part)), b.sub(block, part))
        return [result, b.add(lost, error)]

    def finish(self, b: Builder, state: State) -> Value:
        total, lost = state
        corrected = b.add(total, lost)
        # With an infinity the two-sum's error is NaN; the sum alone is right then.
        finite = b.compare("ord", lost, lost)
        return b.select(finite, corrected, total)


class Product:
    def __init__(self, source: DType, result: DType):
        self.source, self.result = source, result

    def start(self, lanes: int) -> State:
        return [const(1, register_type(self.result, lanes))]

    def update(self, b: Builder, state: State, value: Value, position: Value) -> State:
        return [b.mul(state[0], cast(b, value, self.source, self.result))]

    def merge(self, b: Builder, left: State, right: State) -> State:
        return [b.mul(left[0], right[0])]

    def finish(self, b: Builder, state: State) -> Value:
        return state[0]


def lowest(dtype: DType) -> float | int:
    """Return the value below which nothing lies."""
    if dtype.kind == "f":
        return float("-inf")
    return 0 if dtype.kind in "bu" else int(np.iinfo(dtype).min)


def highest(dtype: DType) -> float | int:
    if dtype.kind == "f":
        return float("inf")
    return 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)


def _first_wins(b: Builder, greater: bool, dtype: DType, left: Value, right: Value) -> Value:
    """Return i1: ``left`` is strictly beyond ``right``."""
    predicate = "gt" if greater else "lt"
    if dtype.kind in "ub":
        predicate = "u" + predicate
    return b.compare(predicate, left, right)


class Extremum:
    """max and min. Floats carry a second value that holds a NaN once one was seen."""

    def __init__(self, dtype: DType, greatest: bool):
        self.dtype, self.greatest = dtype, greatest

    def start(self, lanes: int) -> State:
        type = register_type(self.dtype, lanes)
        first = const(lowest(self.dtype) if self.greatest else highest(self.dtype), type)
        return [first, const(0, type)] if self.dtype.kind == "f" else [first]

    def update(self, b: Builder, state: State, value: Value, position: Value) -> State:
        beyond = _first_wins(b, self.greatest, self.dtype, state[0], value)
        best = b.select(beyond, state[0], value)
        if self.dtype.kind != "f":
            return [best]
        return [best, b.select(b.compare("uno", value, value), value, state[1])]

    def merge(self, b: Builder, left: State, right: State) -> State:
        beyond = _first_wins(b, self.greatest, self.dtype, left[0], right[0])
        best = b.select(beyond, left[0], right[0])
        if self.dtype.kind != "f":
            return [best]
        return [best, b.select(b.compare("uno", right[1], right[1]), right[1], left[1])]

    def finish(self, b: Builder, state: State) -> Value:
        if self.dtype.kind != "f":
            return state[0]
        return b.select(b.compare("uno", state[1], state[1]), state[1], state[0])


class ArgExtremum:
    """argmax and argmin: the first position of the extremum; the first NaN wins, as in NumPy.

    ``ordered``: each state sees all positions from 0 on, in order.
    """

    def __init__(self, source: DType, result: DType, greatest: bool, ordered: bool):
        self.source, self.result, self.greatest = source, result, greatest
        self.ordered = ordered

    def start(self, lanes: int) -> State:
        type = register_type(self.source, lanes)
        first = lowest(self.source) if self.greatest else highest(self.source)
        # Ordered, position 0 is right for a row of nothing but the neutral element.
        return [const(first, type), const(0 if self.ordered else 2**31 - 1, I32.vector(lanes))]

    def update(self, b: Builder, state: State, value: Value, position: Value) -> State:
        if not self.ordered:
            return self.merge(b, state, [value, position])
        best, place = state
        if value.type.is_float:
            # A NaN takes the place of any number, and nothing takes its.
            beyond = b.compare("ugt" if self.greatest else "ult", value, best)
            take = b.and_(beyond, b.compare("ord", best, best))
        else:
            take = _first_wins(b, self.greatest, self.source, value, best)
        return [b.select(take, value, best), b.select(take, position, place)]

    def merge(self, b: Builder, left: State, right: State) -> State:
        (a, i), (c, j) = left, right
        better = _first_wins(b, self.greatest, self.source, c, a)
        same = b.compare("eq", c, a)
        if a.type.is_float:
            new_nan, old_nan = b.compare("uno", c, c), b.compare("uno", a, a)
            better = b.and_(b.or_(better, new_nan), b.not_(old_nan))
            same = b.or_(same, b.and_(new_nan, old_nan))
        take = b.or_(better, b.and_(same, b.compare("lt", j, i)))
        return [b.select(take, c, a), b.select(take, j, i)]

    def finish(self, b: Builder, state: State) -> Value:
        wanted = register_type(self.result, state[1].type.lanes)
        return b.convert(state[1], wanted)


class Truth:
    """any and all."""

    def __init__(self, any_: bool):
        self.any = any_

    def start(self, lanes: int) -> State:
        return [const(not self.any, Type("i1", lanes))]

    def update(self, b: Builder, state: State, value: Value, position: Value) -> State:
        return self.merge(b, state, [nonzero(b, value)])

    def merge(self, b: Builder, left: State, right: State) -> State:
        return [(b.or_ if self.any else b.and_)(left[0], right[0])]

    def finish(self, b: Builder, state: State) -> Value:
        return state[0]


def reducer(op: str, source: DType, result: DType, *, ordered: bool = False) -> Reducer:
    """Return the accumulator of reduction ``op``.

    ``ordered``: each state sees all positions from 0 on, in order.
    """
    match op:
        case "sum":
            return Sum(source, result)
        case "prod":
            return Product(source, result)
        case "max" | "min":
            return Extremum(source, op == "max")
        case "argmax" | "argmin":
            return ArgExtremum(source, result, op == "argmax", ordered)
        case "any" | "all":
            return Truth(op == "any")
        case _:
            raise AssertionError(f"no accumulator for {op}")


def fold_lanes(b: Builder, accumulator: Reducer, state: State) -> State:
    """Merge the lanes of a vector state into a scalar state by a fixed tree."""
    lanes = state[0].type.lanes
    while lanes > 1:
        lanes //= 2
        left, right = _halves(b, state, lanes)
        state = accumulator.merge(b, left, right)
    return state


def _halves(b: Builder, state: Sequence[Value], lanes: int) -> tuple[State, State]:
    if lanes == 1:
        return [b.extract(v, 0) for v in state], [b.extract(v, 1) for v in state]
    low = [b.shuffle(v, None, range(lanes)) for v in state]
    high = [b.shuffle(v, None, range(lanes, 2 * lanes)) for v in state]
    return low, high


__all__ = ["Compensated", "Reducer", "State", "Sum", "fold_lanes", "is_signed", "reducer"]
