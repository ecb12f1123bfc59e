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


class Direct(Frame):
    """Writes the body of the kernel; every method writes one level of the loop nest."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec):
        super().__init__(b, name, spec)
        assert spec.gather is not None
        self.gather = spec.gather
        self.lanes = self.unit.lanes
        self.vector = self.type.vector(self.lanes)
        # Positions in a line are as wide as its elements: their masks need no conversion.
        self.index = Type(f"i{self.type.bits}", self.lanes)
        self.table = b.element(self.sizes, self.loaded[Slot.TABLE], I64)
        self.number = {place: self._entry(const(place, I64)) for place in range(planes.FIRST_LINE)}
        self.planes = b.element(self.work, self.loaded[Slot.WORK_A], self.type)
        self.row_pitch = self._flat(self.loaded[Slot.TILE_N])

    def _entry(self, place: Value) -> Value:
        return self.b.load(self.b.element(self.table, place, I64), I64)

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
        self._fill(image, first, height)
        self._all_sums(a, self._flat(height))
        self._finish(c, batch, first, height)

    # -- planes --------------------------------------------------------------------------------

    def _fill(self, image: Value, first: Value, height: Value) -> None:
        """Copy the lines that places from ``first`` on read, to where those of place 0 would be."""
        b, number = self.b, self.number
        lines = number[planes.INNER_LINES]
        more = b.sub(number[planes.OUTER], number[planes.OUTER_PLACES])
        begin = b.mul(first, lines)
        count = b.mul(b.add(height, more), lines)
        all_lines = b.mul(number[planes.OUTER], lines)

        def plane(p: Value, _: list[Value]) -> list[Value]:
            entry = b.add(b.mul(p, all_lines), begin)
            target = b.element(self.planes, b.mul(p, number[planes.VOLUME]), self.type)

            def line(i: Value, _: list[Value]) -> list[Value]:
                at = b.add(number[planes.ROWS], b.mul(b.add(entry, i), const(3, I64)))
                offset, low, high = (self._entry(b.add(at, const(j, I64))) for j in range(3))
                start = b.element(target, b.mul(i, number[planes.PITCH]), self.type)
                self._line(b.element(image, offset, self.type), start, low, high)
                return []

            b.loop(ZERO, count, 1, [], line)
            return []

        b.loop(ZERO, number[planes.PLANES], 1, [], plane)

    def _line(self, source: Value, target: Value, low: Value, high: Value) -> None:
        """Copy elements ``low`` to ``high`` of a line, zeros around them; up to a vector beyond
        the line is overwritten."""
        b, lanes, step = self.b, self.lanes, self.gather.step
        stride = const(step, I64) if step else self.number[planes.STEP]
        length = b.sub(high, low)
        if step == 2:  # the last element's neighbour may lie beyond the image
            length = b.sub(b.mul(length, stride), ONE)
        length = b.splat(
            b.convert(b.intrinsic("smax", I64, length, ZERO), self.index.element), lanes
        )
        lane = b.lane_index(self.index)

        def there(position: Value) -> Value:
            """Return which of the elements from a position on are there."""
            shift = b.splat(b.convert(position, self.index.element), lanes)
            return b.compare("ult", b.add(lane, shift), length)

        def vector(j: Value, _: list[Value]) -> list[Value]:
            place = b.element(source, b.mul(j, stride), self.type)
            after = b.mul(b.sub(j, low), stride if step else ONE)
            if step == 1:
                value = b.masked_load(place, there(after), self.vector)
            elif step == 2:
                more = const(lanes, I64)
                halves = (
                    b.masked_load(place, there(after), self.vector),
                    b.masked_load(
                        b.element(place, more, self.type), there(b.add(after, more)), self.vector
                    ),
                )
                value = b.shuffle(*halves, range(0, 2 * lanes, 2))
            else:
                index = b.mul(b.lane_index(I64.vector(lanes)), b.splat(stride, lanes))
                value = b.gather(place, index, self.vector, there(after))
            b.store(value, b.element(target, j, self.type))
            return []

        b.loop(ZERO, self.number[planes.PITCH], lanes, [], vector)

    # -- sums ----------------------------------------------------------------------------------

    def _all_sums(self, a: Value, places: Value) -> None:
        """Leave the sums of all rows at ``places`` in the workspace, ``row_pitch`` apart."""
        b, rows = self.b, self.loaded[Slot.M]
        begin = ZERO
        for height, vectors in _shapes(b.target.registers):
            end = rows if height == 1 else b.and_(rows, const(-height, I64))

            def some(
                i: Value, _: list[Value], height: int = height, vectors: int = vectors
            ) -> list[Value]:
                self._row_sums(a, i, height, vectors, places)
                return []

            b.loop(begin, end, height, [], some)
            begin = end

    def _row_sums(self, a: Value, row: Value, height: int, vectors: int, places: Value) -> None:
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

    def _finish(self, c: Value, batch: Value, first: Value, height: Value) -> None:
        """Store the lines of places, or what the epilogue makes of them."""
        b, get, number, lanes = self.b, self.loaded, self.number, self.lanes
        finish = None
        if self.spec.epilogue is not None:
            ptrs = b.element(self.ptrs, const(POINTERS, I64), PTR)
            own = b.element(self.sizes, const(epilogue_slot(self.spec), I64), I64)
            place = Place(ZERO, ZERO, batch, ptrs, own)
            finish = self.spec.epilogue.tile(b, place, lanes)
        width = number[planes.WIDTH]
        whole = b.and_(width, const(-lanes, I64))
        left = b.splat(b.sub(width, whole), lanes)
        mask = b.compare("lt", b.lane_index(I64.vector(lanes)), left)

        def row(i: Value, _: list[Value]) -> list[Value]:
            at_row = None if finish is None else finish(i)
            sums = b.element(self.work, b.mul(i, self.row_pitch), self.type)
            c_row = self.at(c, (i, Slot.C_ROW))

            def outer(y: Value, _: list[Value]) -> list[Value]:
                base = b.mul(y, number[planes.OUTER_PITCH])
                above = b.mul(b.add(first, y), number[planes.LINES])

                def line(n: Value, _: list[Value]) -> list[Value]:
                    inside = self._entry(b.add(n, const(planes.FIRST_LINE, I64)))
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

        b.loop(ZERO, get[Slot.M], 1, [], row)

    def _write(
        self, value: Value, c_row: Value, column: Value, mask: Value | None,
        at_row: RowFinish | None,
    ) -> None:  # fmt: skip
        if at_row is not None:
            at_row(column, [value], mask)
        else:
            address = self.at(c_row, (column, Slot.C_COLUMN))
            write_vector(self.b, self.spec, self.loaded[Slot.C_COLUMN], address, value, mask)
