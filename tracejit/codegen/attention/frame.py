"""The frame of an attention kernel: what those who write parts of it share."""

from __future__ import annotations

import math
from typing import NamedTuple

from tracejit.codegen.attention.spec import (
    POINTERS,
    WORK_POINTER,
    AttentionSpec,
    Slot,
    statistics,
)
from tracejit.codegen.builder import I64, PTR, Builder, Type, Value, const

ZERO, ONE = const(0, I64), const(1, I64)


class Queries(NamedTuple):
    """A tile: of which batch element, its first query, and how many rows it has."""

    batch: Value
    first: Value
    rows: Value


class Keys(NamedTuple):
    """A block of keys: its first, how many a panel sees, and how many are packed."""

    first: Value
    seen: Value
    packed: Value


class Frame:
    """Parameters, run-time numbers and the workspace; scores stand at its begin."""

    def __init__(self, b: Builder, name: str, spec: AttentionSpec):
        self.b, self.name, self.spec = b, name, spec
        self.unit = spec.unit(b.target)
        self.type = Type(spec.dtype)
        self.vector = self.type.vector(self.unit.lanes)
        self.ptrs, self.sizes, self.begin, self.end = b.parameters
        self.get = {slot: self.size(slot) for slot in Slot if slot is not Slot.BATCH}
        self.work = self.pointer(WORK_POINTER)
        self.lowest = const(-math.inf, self.vector)
        # What the kernel's own expressions are given.
        self.own_ptrs = b.element(self.ptrs, const(POINTERS, I64), PTR)
        own = const(Slot.BATCH + 4 * len(spec.batch), I64)
        self.own_sizes = b.element(self.sizes, own, I64)

    def size(self, slot: int) -> Value:
        return self.b.load(self.b.element(self.sizes, const(slot, I64), I64), I64)

    def pointer(self, index: int) -> Value:
        return self.b.load(self.b.element(self.ptrs, const(index, I64), PTR), PTR)

    def place(self, slot: Slot, *offsets: Value) -> Value:
        """Return the address of an element of a part of the workspace."""
        at = self.get[slot]
        for offset in offsets:
            at = self.b.add(at, offset)
        return self.b.element(self.work, at, self.type)

    def score(self, row: Value, key: Value) -> Value:
        """Return the address of the score of a key for a row of the panel."""
        at = self.b.add(self.b.mul(row, const(self.spec.keys, I64)), key)
        return self.b.element(self.work, at, self.type)

    def result(self, row: Value, column: Value) -> Value:
        """Return the address of what a row of the tile has summed so far."""
        return self.place(Slot.WORK_RESULT, self.b.mul(row, self.get[Slot.WIDTH]), column)

    def statistic(self, slot: Slot, i: Value, r: Value) -> Value:
        """Return the address of a statistic of row ``r`` of the panel from row ``i`` on."""
        b, unit = self.b, self.unit
        panel = b.div(i, const(unit.rows, I64), signed=False)
        return self.place(slot, b.mul(panel, const(statistics(unit), I64)), r)

    def call(self, function: str, *arguments: Value) -> None:
        spelled = ", ".join(f"{a.type} {a.text}" for a in arguments)
        self.b.effect(f"call void @{self.name}.{function}({spelled})")

    def least(self, x: Value, y: Value) -> Value:
        return self.b.intrinsic("smin", I64, x, y)

    def round_up(self, count: Value, unit: int) -> Value:
        """Return the next multiple of a power of two."""
        return self.b.and_(self.b.add(count, const(unit - 1, I64)), const(-unit, I64))
