"""The frame of every kernel of a product: run-time numbers, tiles and batch elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracejit.codegen.builder import I64, PTR, Builder, Type, Value, const
from tracejit.codegen.contraction.spec import (
    A_POINTER,
    B_POINTER,
    C_POINTER,
    WORK_POINTER,
    GemmSpec,
    Slot,
)

ZERO, ONE = const(0, I64), const(1, I64)

# Writes the work of one run: batch index, column tile, and the row tiles [low, high).
Run = Callable[[Value, Value, Value, Value], None]


class Frame:
    """What the kernels of a product share: their parameters and the loop over runs."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec):
        self.b = b
        self.name = name
        self.spec = spec
        self.unit = spec.unit(b.target)
        self.type: Type = spec.type
        self.ptrs, self.sizes, self.begin, self.end = b.parameters
        self.loaded = {slot: self.size(slot) for slot in Slot if slot is not Slot.BATCH}
        for slot, one in (
            (Slot.A_DEPTH, spec.a == "last"),
            (Slot.A_ROW, spec.a == "first"),
            (Slot.B_COLUMN, spec.b == "last"),
            (Slot.B_DEPTH, spec.b == "first"),
            (Slot.C_COLUMN, spec.c == "last"),
        ):
            if one:
                self.loaded[slot] = ONE
        self.work = self.pointer(WORK_POINTER)

    def size(self, slot: int) -> Value:
        return self.b.load(self.b.element(self.sizes, const(slot, I64), I64), I64)

    def pointer(self, index: int) -> Value:
        return self.b.load(self.b.element(self.ptrs, const(index, I64), PTR), PTR)

    def at(self, base: Value, *terms: tuple[Value, Slot]) -> Value:
        """Return ``base`` advanced by the sum of index · stride."""
        for index, slot in terms:
            base = self.b.element(base, self.b.mul(index, self.loaded[slot]), self.type)
        return base

    def call(self, function: str, *arguments: Value) -> None:
        spelled = ", ".join(f"{a.type} {a.text}" for a in arguments)
        self.b.effect(f"call void @{self.name}.{function}({spelled})")

    def minimum(self, x: Value, y: Value) -> Value:
        return self.b.intrinsic("smin", I64, x, y)

    def each_run(self, body: Run) -> None:
        """Cut [begin, end) into runs: row tiles of one column tile of one batch element."""
        b, height = self.b, self.loaded[Slot.TILES_M]
        first = b.div(self.begin, height, signed=False)
        stop = b.div(b.add(self.end, b.sub(height, ONE)), height, signed=False)

        def run(index: Value, _: list[Value]) -> list[Value]:
            base = b.mul(index, height)
            low = b.intrinsic("smax", I64, b.sub(self.begin, base), ZERO)
            high = self.minimum(b.sub(self.end, base), height)
            batch = b.div(index, self.loaded[Slot.TILES_N], signed=False)
            tile = b.sub(index, b.mul(batch, self.loaded[Slot.TILES_N]))
            body(batch, tile, low, high)
            return []

        b.loop(first, stop, 1, [], run)

    def batch_element(self, batch: Value, axes: int | None = None) -> list[Value]:
        """Return the addresses of A, B and C of one batch element, by the first ``axes`` axes."""
        bases = [self.pointer(i) for i in (A_POINTER, B_POINTER, C_POINTER)]
        count = self.spec.batch_axes if axes is None else axes
        slots = [Slot.BATCH + 4 * axis for axis in range(count)]
        return in_batch(self.b, bases, batch, slots, self.size, self.type)


def in_batch(
    b: Builder,
    bases: Sequence[Value],
    batch: Value,
    slots: Sequence[int],
    size: Callable[[int], Value],
    type_: Type,
) -> list[Value]:
    """Return the addresses of the operands ``bases`` in element ``batch`` of their batch.

    At the ``slots`` of ``size`` are the extent of a batch axis and the strides of each operand
    along it.
    """
    found = list(bases)
    rest = batch
    for axis, slot in reversed(list(enumerate(slots))):
        index = rest
        if axis:
            extent = size(slot)
            rest = b.div(rest, extent, signed=False)
            index = b.sub(index, b.mul(rest, extent))
        for i, base in enumerate(found):
            found[i] = b.element(base, b.mul(index, size(slot + 1 + i)), type_)
    return found


def advance(b: Builder, start: Value, stop: Value, body: Callable[[Value], Value]) -> None:
    """Write a loop from ``start`` to ``stop`` whose ``body(i)`` says how far the next step goes."""
    before, head, inside, done = b.current_block, *(b.label(x) for x in ("head", "body", "done"))
    b.jump(head)
    b.block(head)
    place = b.emit(I64, f"phi i64 [ {start.text}, %{before} ], [ %{head}.next, %{head}.latch ]")
    b.branch(b.compare("lt", place, stop), inside, done)
    b.block(inside)
    step = body(place)
    b.jump(f"{head}.latch")
    b.block(f"{head}.latch")
    b.effect(f"%{head}.next = add i64 {place.text}, {step.text}")
    b.jump(head)
    b.block(done)
