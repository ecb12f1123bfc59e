"""A batch of products so small that their sizes and strides are in the code.

    for element of the batch:
      for rows that have registers for their sums:
        for k: for row: sums[row] += A[row, k] * B[k, …]

With sizes as run-time numbers a product of 6×6 by 6×6 takes a hundred cycles, most of them to get
into loops and out. Written out it takes some twenty-five. Where the columns of B are not side by
side its rows are put together from single elements, unless few rows of A need them: then each sum
is a scalar.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import I1, I64, Builder, Value, const
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.frame import ONE, ZERO, Frame
from tracejit.codegen.contraction.spec import GemmSpec, Slot, TinyShape

# Bytes of an operand from which on the next product's is fetched.
_LARGE = 512
# Multiply-adds of vectors that are written out; more are a loop over the depth.
_UNROLLED = 128


class Tiny(Frame):
    """Writes the body of the kernel. A run is part of the innermost batch axis."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec):
        super().__init__(b, name, spec)
        assert spec.tiny is not None
        self.shape: TinyShape = spec.tiny
        self.widths = spec.tiny.widths(b.target, spec.dtype)

    def emit(self) -> None:
        self.each_run(self._run)

    def _run(self, outer: Value, tile: Value, low: Value, high: Value) -> None:
        b, inner = self.b, self.spec.batch_axes - 1
        bases = self.batch_element(outer, inner)
        strides = [self.size(Slot.BATCH + 4 * inner + 1 + i) for i in range(3)]

        def one(i: Value, _: list[Value]) -> list[Value]:
            self._fetch(bases, strides, b.add(i, ONE))
            places = [
                b.element(base, b.mul(i, stride), self.type)
                for base, stride in zip(bases, strides, strict=True)
            ]
            self._product(*places)
            return []

        b.loop(low, high, 1, [], one)

    def _fetch(self, bases: list[Value], strides: list[Value], i: Value) -> None:
        """Fetch what the product ``i`` reads, if its operand is large and dense.

        Hardware follows smaller ones (measured: 16×16 from the third-level cache take 0.90 to 0.93
        of the time, 12×12 in float32 0.89; 8×8 in float32 would take 1.27).
        """
        b, shape, item = self.b, self.shape, self.type.bits // 8
        operands = ((shape.m, shape.k, shape.a), (shape.k, shape.n, shape.b))
        for number, (rows, columns, steps) in enumerate(operands):
            size = rows * columns * item
            if size < _LARGE or sorted(steps) not in ([1, rows], [1, columns]):
                continue
            place = b.element(bases[number], b.mul(i, strides[number]), self.type)
            for byte in range(0, size, 64):
                b.prefetch(b.offset(place, const(byte, I64)))

    def _product(self, a: Value, b: Value, c: Value) -> None:
        most = 24 if self.b.target.registers >= 32 else 10
        height = max(1, most // len(self.widths))
        for first in range(0, self.shape.m, height):
            rows = range(first, min(first + height, self.shape.m))
            self._store(c, rows, self._sums(a, b, rows))

    def _sums(self, a: Value, b: Value, rows: Sequence[int]) -> list[Value]:
        """Return the sums of some rows, the vectors of a row side by side."""
        builder, shape = self.b, self.shape
        zeros = [const(0, self.type.vector(width)) for width in self.widths] * len(rows)

        def step(a: Value, b: Value, sums: list[Value]) -> list[Value]:
            columns, following = self._row(b), list[Value]()
            for i, row in enumerate(rows):
                x = builder.load(self._at(a, row * shape.a[0]), self.type)
                for v, column in enumerate(columns):
                    y = builder.splat(x, column.type.lanes)
                    total = sums[i * len(columns) + v]
                    following.append(multiply_add(builder, y, column, total))
            return following

        if len(zeros) * shape.k > _UNROLLED:

            def at_depth(k: Value, sums: list[Value]) -> list[Value]:
                steps = [builder.mul(k, const(s, I64)) for s in (shape.a[1], shape.b[0])]
                places = [
                    builder.element(base, s, self.type)
                    for base, s in zip((a, b), steps, strict=True)
                ]
                return step(places[0], places[1], sums)

            return builder.loop(ZERO, const(shape.k, I64), 1, zeros, at_depth)
        sums = zeros
        for k in range(shape.k):
            sums = step(self._at(a, k * shape.a[1]), self._at(b, k * shape.b[0]), sums)
        return sums

    def _row(self, row: Value) -> list[Value]:
        """Load a row of B."""
        b, found, column = self.b, list[Value](), 0
        for width in self.widths:
            left = min(width, self.shape.n - column)
            place, vector = self._at(row, column * self.shape.b[1]), self.type.vector(width)
            if width == 1:
                found.append(b.load(place, self.type))
            elif self.shape.b[1] != 1:
                value = const(0, vector)
                for lane in range(left):
                    element = b.load(self._at(place, lane * self.shape.b[1]), self.type)
                    value = b.insert(value, element, lane)
                found.append(value)
            elif left < width:
                found.append(b.masked_load(place, _first(left, width), vector))
            else:
                found.append(b.load(place, vector))
            column += width
        return found

    def _store(self, c: Value, rows: Sequence[int], sums: list[Value]) -> None:
        b, places = self.b, [(row, v) for row in rows for v in range(len(self.widths))]
        for (row, v), value in zip(places, sums, strict=True):
            column, width = sum(self.widths[:v]), self.widths[v]
            left = min(width, self.shape.n - column)
            place = self._at(c, row * self.shape.c[0] + column)
            if left < width:
                b.masked_store(value, place, _first(left, width))
            else:
                b.store(value, place)

    def _at(self, base: Value, offset: int) -> Value:
        return self.b.element(base, const(offset, I64), self.type) if offset else base


def _first(count: int, lanes: int) -> Value:
    """Return the constant mask of the first ``count`` lanes."""
    type = I1.vector(lanes)
    return Value(f"<{', '.join(f'i1 {int(i < count)}' for i in range(lanes))}>", type)
