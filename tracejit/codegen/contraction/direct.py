"""Convolutions with few outputs for each input, depthwise ones above all: nothing is packed.

A panel of windows pays where many rows of weights read it. Here a few do, and so the products are
of the image itself, kept in the workspace as ``planes`` describes:

    for (batch, block of outermost places):    a tile
      copy the lines of the planes that it reads, zeros where the image is padded
      for a few rows: for vectors of places:
        for k: sums += weight[row, k] · planes[taps[k] + place …]
      sums → C, or the epilogue

The places count through whole lines of a plane. What is computed between the end of a line of
places and the next one is not stored; so small images fill the vectors too.
"""

from __future__ import annotations

from collections.abc import Callable

from tracejit.codegen.builder import I64, PTR, Builder, Type, Value, const
from tracejit.codegen.contraction import planes
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.finish import write_vector
from tracejit.codegen.contraction.frame import ONE, ZERO, Frame
from tracejit.codegen.contraction.spec import (
    POINTERS,
    GemmSpec,
    Place,
    RowFinish,
    Slot,
    epilogue_slot,
)


def _shapes(registers: int) -> list[tuple[int, int]]:
    """Return how many rows are summed at a time, most first, and on how many vectors: a load of a
    vector serves all rows, and sums of eight vectors hide the latency of a multiply-add."""
    return [(4, 6), (2, 8), (1, 8)] if registers >= 32 else [(4, 2), (2, 4), (1, 8)]


class Lines:
    """Reads the lines of the planes of an image that places from ``first`` on need, ``height``
    outermost ones of them: zeros where the image is padded, up to a vector beyond a line."""

    def __init__(
        self, b: Builder, type: Type, step: int, table: Value, image: Value, first: Value,
        height: Value,
    ):  # fmt: skip
        self.b, self.type, self.step, self.table, self.image = b, type, step, table, image
        self.lanes = b.target.lanes(type.bits)
        self.vector = type.vector(self.lanes)
        # Positions in a line are as wide as its elements: their masks need no conversion.
        self.index = Type(f"i{type.bits}", self.lanes)
        self.stride = const(step, I64) if step else entry(b, table, planes.STEP)
        outer, places, inner = (
            entry(b, table, n) for n in (planes.OUTER, planes.OUTER_PLACES, planes.INNER_LINES)
        )
        self.begin = b.mul(first, inner)
        self.count = b.mul(b.add(height, b.sub(outer, places)), inner)
        self.all_lines = b.mul(outer, inner)
        self.rows = b.element(table, entry(b, table, planes.ROWS), I64)
        self.channels = b.element(table, entry(b, table, planes.CHANNEL_TABLE), I64)

    def line(self, channel: Value, phase: Value, i: Value) -> Callable[[Value], Value]:
        """Return what reads the vector at some place of line ``i``."""
        b = self.b
        own = b.element(self.channels, b.mul(channel, const(3, I64)), I64)
        row = b.add(entry(b, own, 2), b.add(b.mul(phase, self.all_lines), b.add(self.begin, i)))
        row = b.element(self.rows, b.mul(row, const(3, I64)), I64)
        offset, low, high = (entry(b, row, n) for n in range(3))
        source = b.element(self.image, b.add(entry(b, own, 1), offset), self.type)
        length = b.sub(high, low)
        if self.step == 2:  # the last element's neighbour may lie beyond the image
            length = b.sub(b.mul(length, self.stride), ONE)
        length = b.convert(b.intrinsic("smax", I64, length, ZERO), self.index.element)
        length = b.splat(length, self.lanes)
        return lambda j: self._vector(source, j, b.sub(j, low), length)

    def _vector(self, source: Value, j: Value, after: Value, length: Value) -> Value:
        """Read from element ``j`` on, ``after`` the first that is there."""
        b, lanes = self.b, self.lanes
        lane = b.lane_index(self.index)

        def there(position: Value) -> Value:
            """Return which of the elements from a position on are there."""
            shift = b.splat(b.convert(position, self.index.element), lanes)
            return b.compare("ult", b.add(lane, shift), length)

        place = b.element(source, b.mul(j, self.stride), self.type)
        if not self.step:
            index = b.mul(b.lane_index(I64.vector(lanes)), b.splat(self.stride, lanes))
            return b.gather(place, index, self.vector, there(after))
        if self.step == 1:
            return b.masked_load(place, there(after), self.vector)
        after, more = b.mul(after, self.stride), const(lanes, I64)
        further = b.element(place, more, self.type)
        halves = (
            b.masked_load(place, there(after), self.vector),
            b.masked_load(further, there(b.add(after, more)), self.vector),
        )
        return b.shuffle(*halves, range(0, 2 * lanes, 2))


def entry(b: Builder, table: Value, place: int) -> Value:
    """Return a number of a table."""
    return b.load(b.element(table, const(place, I64), I64), I64)


class Direct(Frame):
    """Writes the body of the kernel; every method writes one level of the loop nest."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec):
        super().__init__(b, name, spec)
        assert spec.gather is not None
        self.gather = spec.gather
        self.lanes = self.unit.lanes
        self.vector = self.type.vector(self.lanes)
        self.table = b.element(self.sizes, self.loaded[Slot.TABLE], I64)
        self.number = {n: entry(b, self.table, n) for n in range(planes.FIRST_LINE)}
        self.planes = b.element(self.work, self.loaded[Slot.WORK_A], self.type)
        self.row_pitch = self._flat(self.loaded[Slot.TILE_N])

    def _flat(self, height: Value) -> Value:
        """Return how many places there are to compute from the first line to the last, whole
        vectors of them."""
        b, number = self.b, self.number
        before = b.mul(b.sub(height, ONE), number[planes.OUTER_PITCH])
        exact = b.add(before, number[planes.SPAN])
        return b.and_(b.add(exact, const(self.lanes - 1, I64)), const(-self.lanes, I64))

    def emit(self) -> None:
        self.each_run(self._run)

    def _run(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        a, image, c = self.batch_element(batch)
        first = b.mul(tile, get[Slot.TILE_N])
        height = self.minimum(b.sub(self.number[planes.OUTER_PLACES], first), get[Slot.TILE_N])
        self.fill(image, first, height)
        self.row_sums(a, get[Slot.M], self._flat(height))
        self.finish(c, batch, ZERO, get[Slot.M], first, height)

    # -- planes --------------------------------------------------------------------------------

    def fill(self, image: Value, first: Value, height: Value) -> None:
        """Copy the lines that places from ``first`` on read, to where those of place 0 would be."""
        b, number = self.b, self.number
        lines = Lines(b, self.type, self.gather.step, self.table, image, first, height)

        def channel(c: Value, _: list[Value]) -> list[Value]:
            def phase(p: Value, _: list[Value]) -> list[Value]:
                plane = b.add(b.mul(c, number[planes.PHASES]), p)
                target = b.element(self.planes, b.mul(plane, number[planes.VOLUME]), self.type)

                def line(i: Value, _: list[Value]) -> list[Value]:
                    start = b.element(target, b.mul(i, number[planes.PITCH]), self.type)
                    read = lines.line(c, p, i)

                    def vector(j: Value, _: list[Value]) -> list[Value]:
                        b.store(read(j), b.element(start, j, self.type))
                        return []

                    b.loop(ZERO, number[planes.PITCH], self.lanes, [], vector)
                    return []

                b.loop(ZERO, lines.count, 1, [], line)
                return []

            b.loop(ZERO, number[planes.PHASES], 1, [], phase)
            return []

        b.loop(ZERO, number[planes.CHANNELS], 1, [], channel)

    # -- sums ----------------------------------------------------------------------------------

    def row_sums(self, a: Value, rows: Value, places: Value) -> None:
        """Leave the sums of all rows at ``places`` in the workspace, ``row_pitch`` apart."""
        b, begin = self.b, ZERO
        for height, vectors in _shapes(b.target.registers):
            end = rows if height == 1 else b.and_(rows, const(-height, I64))

            def some(
                i: Value, _: list[Value], height: int = height, vectors: int = vectors
            ) -> list[Value]:
                self._some_rows(a, i, height, vectors, places)
                return []

            b.loop(begin, end, height, [], some)
            begin = end

    def _some_rows(self, a: Value, row: Value, height: int, vectors: int, places: Value) -> None:
        """Sum ``height`` rows from ``row`` on; many vectors at a time while there are so many."""
        b, begin = self.b, ZERO
        weights = [self.at(a, (b.add(row, const(r, I64)), Slot.A_ROW)) for r in range(height)]
        results = [
            b.element(self.work, b.mul(b.add(row, const(r, I64)), self.row_pitch), self.type)
            for r in range(height)
        ]
        while vectors:
            step = vectors * self.lanes
            end = b.sub(places, b.rem(b.sub(places, begin), const(step, I64), signed=False))

            def some(j: Value, _: list[Value], vectors: int = vectors) -> list[Value]:
                self._sums(weights, results, j, vectors)
                return []

            b.loop(begin, end, step, [], some)
            begin, vectors = end, vectors // 2

    def _sums(self, weights: list[Value], results: list[Value], place: Value, vectors: int) -> None:
        b, get = self.b, self.loaded
        source = b.element(self.planes, place, self.type)
        taps = b.element(self.table, self.number[planes.TAPS], I64)
        parts = [const(v * self.lanes, I64) for v in range(vectors)]

        def step(k: Value, sums: list[Value]) -> list[Value]:
            tap = b.element(source, b.load(b.element(taps, k, I64), I64), self.type)
            values = [b.load(b.element(tap, part, self.type), self.vector) for part in parts]
            following: list[Value] = []
            for r, row in enumerate(weights):
                weight = b.splat(b.load(self.at(row, (k, Slot.A_DEPTH)), self.type), self.lanes)
                for v, value in enumerate(values):
                    total = sums[r * vectors + v]
                    following.append(multiply_add(b, weight, value, total))
            return following

        zeros = [const(0, self.vector)] * (len(weights) * vectors)
        sums = b.loop(ZERO, get[Slot.K], 1, zeros, step)
        for r, result in enumerate(results):
            line = b.element(result, place, self.type)
            for v, part in enumerate(parts):
                b.store(sums[r * vectors + v], b.element(line, part, self.type))

    # -- results -------------------------------------------------------------------------------

    def finish(
        self, c: Value, batch: Value, top: Value, rows: Value, first: Value, height: Value
    ) -> None:
        """Store the lines of places of ``rows`` rows from ``top`` on, or what the epilogue makes of
        them."""
        b, number, lanes = self.b, self.number, self.lanes
        finish = None
        if self.spec.epilogue is not None:
            ptrs = b.element(self.ptrs, const(POINTERS, I64), PTR)
            own = b.element(self.sizes, const(epilogue_slot(self.spec), I64), I64)
            place = Place(top, ZERO, batch, ptrs, own)
            finish = self.spec.epilogue.tile(b, place, lanes)
        width = number[planes.WIDTH]
        whole = b.and_(width, const(-lanes, I64))
        left = b.splat(b.sub(width, whole), lanes)
        mask = b.compare("lt", b.lane_index(I64.vector(lanes)), left)

        def row(i: Value, _: list[Value]) -> list[Value]:
            at_row = None if finish is None else finish(i)
            sums = b.element(self.work, b.mul(i, self.row_pitch), self.type)
            c_row = self.at(c, (b.add(top, i), Slot.C_ROW))

            def outer(y: Value, _: list[Value]) -> list[Value]:
                base = b.mul(y, number[planes.OUTER_PITCH])
                above = b.mul(b.add(first, y), number[planes.LINES])

                def line(n: Value, _: list[Value]) -> list[Value]:
                    place = b.add(n, const(planes.FIRST_LINE, I64))
                    inside = b.load(b.element(self.table, place, I64), I64)
                    source = b.element(sums, b.add(base, inside), self.type)
                    column = b.mul(b.add(above, n), width)

                    def vector(j: Value, mask: Value | None) -> list[Value]:
                        value = b.load(b.element(source, j, self.type), self.vector)
                        self._write(value, c_row, b.add(column, j), mask, at_row)
                        return []

                    b.loop(ZERO, whole, lanes, [], lambda j, _: vector(j, None))
                    b.loop(whole, width, lanes, [], lambda j, _: vector(j, mask))
                    return []

                b.loop(ZERO, number[planes.LINES], 1, [], line)
                return []

            b.loop(ZERO, height, 1, [], outer)
            return []

        b.loop(ZERO, rows, 1, [], row)

    def _write(
        self, value: Value, c_row: Value, column: Value, mask: Value | None,
        at_row: RowFinish | None,
    ) -> None:  # fmt: skip
        if at_row is not None:
            at_row(column, [value], mask)
        else:
            address = self.at(c_row, (column, Slot.C_COLUMN))
            write_vector(self.b, self.spec, self.loaded[Slot.C_COLUMN], address, value, mask)
