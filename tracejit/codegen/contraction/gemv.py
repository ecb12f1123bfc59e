"""Products with one row, c = a @ B, or a few: bound by reading B once, in the order of its memory.

Both kernels leave sums in the workspace, from where ``finish`` takes them to C. The depth is not
blocked: every sum is one chain (or a fixed few) over all of K.

A vector of 64 bytes that does not start on a cache line reads two, and arrays of NumPy rarely start
on one. So where lines of B are whole cache lines apart, its vectors start on one: the first has
lanes before the line's begin, which are masked off. Sums do not depend on that, to the last bit.
Measured for 512×512 f32 in the second-level cache, 16 bytes off: 6 µs in place of 11.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import I64, Builder, Value, const
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.frame import ONE, ZERO, Frame, advance
from tracejit.codegen.contraction.narrow import lane_sums
from tracejit.codegen.contraction.spec import Slot
from tracejit.codegen.prefetch import LINE

# Rows of B added at a time: as many streams as hardware prefetchers follow, and few enough
# passes over the sums. With several rows of C the factors of fewer fill the registers.
_STREAMS, _FEW_STREAMS = 8, 4


class Axpys(Frame):
    """B's rows are contiguous: C[i] += A[i, k] * B[k, :], for one row or a few, and for several k
    a pass over a column tile. The sums of a row are ``WORK_A`` elements apart from the next's."""

    def emit(self) -> None:
        """Take tiles of one batch element together, as many as have room for their sums: longer
        rows stream faster (measured on one thread: 2048×2048 f32 by 13 % for 8 KiB, not 4)."""
        b, get = self.b, self.loaded
        room = b.sub(get[Slot.WORK_A], const(self.unit.lanes, I64))
        most = b.div(room, get[Slot.TILE_N], signed=False)

        def run(index: Value) -> Value:
            batch = b.div(index, get[Slot.TILES_N], signed=False)
            tile = b.sub(index, b.mul(batch, get[Slot.TILES_N]))
            left = self.minimum(b.sub(get[Slot.TILES_N], tile), b.sub(self.end, index))
            count = self.minimum(left, most)
            start, stop = (b.mul(x, get[Slot.TILE_N]) for x in (tile, b.add(tile, count)))
            self._run(batch, start, self.minimum(stop, get[Slot.N]))
            return count

        advance(b, self.begin, self.end, run)

    def _run(self, batch: Value, column: Value, stop: Value) -> None:
        """Compute the columns from ``column`` to ``stop`` of a batch element."""
        b, get = self.b, self.loaded
        a, matrix, c = self.batch_element(batch)
        columns = b.sub(stop, column)
        matrix = self.at(matrix, (column, Slot.B_COLUMN))
        before = _before(self, matrix, Slot.B_DEPTH)
        self._sums(a, b.element(matrix, b.neg(before), self.type), before, b.add(before, columns))
        yes = const(True, ONE.type.like("i1"))

        def finish(row: Value, _: list[Value]) -> list[Value]:
            sums = b.element(self._sums_of(row), before, self.type)
            corner = self.at(c, (row, Slot.C_ROW), (column, Slot.C_COLUMN))
            self.call(
                "finish", sums, corner, get[Slot.C_ROW], get[Slot.C_COLUMN], ONE, columns, yes,
                yes, row, column, batch, self.ptrs, self.sizes,
            )  # fmt: skip
            return []

        b.loop(ZERO, self._height(), 1, [], finish)

    def _height(self) -> Value:
        return self.loaded[Slot.M] if self.spec.kind == "few_axpys" else ONE

    def _sums_of(self, row: Value) -> Value:
        return self.b.element(self.work, self.b.mul(row, self.loaded[Slot.WORK_A]), self.type)

    def _sums(self, a: Value, matrix: Value, start: Value, stop: Value) -> None:
        """Write A @ matrix[:, start:stop] to the workspace, from ``start`` on."""
        b, lanes = self.b, self.unit.lanes
        depth = self.loaded[Slot.K]
        padded = b.and_(b.add(stop, const(lanes - 1, I64)), const(-lanes, I64))
        streams = _FEW_STREAMS if self.spec.kind == "few_axpys" else _STREAMS

        def clear(row: Value, _: list[Value]) -> list[Value]:
            sums = self._sums_of(row)

            def vector(j: Value, _: list[Value]) -> list[Value]:
                b.store(const(0, self.type.vector(lanes)), b.element(sums, j, self.type))
                return []

            b.loop(ZERO, padded, lanes, [], vector)
            return []

        b.loop(ZERO, self._height(), 1, [], clear)
        bulk = b.and_(depth, const(-streams, I64))

        def several(k: Value, _: list[Value]) -> list[Value]:
            self._add_rows(a, matrix, k, streams, (start, stop))
            return []

        def single(k: Value, _: list[Value]) -> list[Value]:
            self._add_rows(a, matrix, k, 1, (start, stop))
            return []

        b.loop(ZERO, bulk, streams, [], several)
        b.loop(bulk, depth, 1, [], single)

    def _add_rows(
        self, a: Value, matrix: Value, k: Value, count: int, columns: tuple[Value, Value]
    ) -> None:
        """Add ``count`` rows of B from row ``k`` on to all rows of C, some of these at a time."""
        b, first = self.b, ZERO
        places = [b.add(k, const(i, I64)) for i in range(count)]
        rows = [self.at(matrix, (place, Slot.B_DEPTH)) for place in places]
        heights = (4, 2, 1) if b.target.registers >= 32 else (2, 1)
        for height in heights if self.spec.kind == "few_axpys" else (1,):

            def some(i: Value, _: list[Value], height: int = height) -> list[Value]:
                own = [b.add(i, const(r, I64)) for r in range(height)]
                factors = [
                    [self.at(a, (r, Slot.A_ROW), (place, Slot.A_DEPTH)) for place in places]
                    for r in own
                ]
                self._add(factors, rows, [self._sums_of(r) for r in own], columns)
                return []

            last = b.and_(self._height(), const(-height, I64))
            b.loop(first, last, height, [], some)
            first = last

    def _add(
        self,
        factors: Sequence[Sequence[Value]],
        rows: Sequence[Value],
        sums: Sequence[Value],
        columns: tuple[Value, Value],
    ) -> None:
        """Add to ``sums[i]`` all ``rows``, each times its number at ``factors[i]``."""
        b, lanes, vector = self.b, self.unit.lanes, self.type.vector(self.unit.lanes)
        spread = [[b.splat(b.load(f, self.type), lanes) for f in row] for row in factors]

        def step(j: Value, mask: Value | None) -> None:
            places = [b.element(line, j, self.type) for line in sums]
            totals = [b.load(place, vector) for place in places]
            for number, row in enumerate(rows):
                source = b.element(row, j, self.type)
                x = b.load(source, vector) if mask is None else b.masked_load(source, mask, vector)
                totals = [
                    multiply_add(b, own[number], x, total)
                    for own, total in zip(spread, totals, strict=True)
                ]
            for total, place in zip(totals, places, strict=True):
                b.store(total, place)

        def full(j: Value, _: list[Value]) -> list[Value]:
            step(j, None)
            return []

        def edge(j: Value, _: list[Value]) -> list[Value]:
            step(j, _lane_mask(b, b.sub(stop, j), lanes))
            return []

        start, stop = columns
        first = ZERO
        if _aligns(self):
            step(ZERO, _lanes_within(b, start, stop, lanes))
            first = const(lanes, I64)
        whole = b.intrinsic("smax", I64, b.and_(stop, const(-lanes, I64)), first)
        b.loop(first, whole, lanes, [], full)
        b.loop(whole, stop, lanes, [], edge)


# Columns dotted at a time with one row; with four where registers are few.
_COLUMNS, _FEW_COLUMNS = 4, 2
# Chains of sums that hide the latency of a multiply-add.
_CHAINS = 8


class Dots(Frame):
    """B's columns are contiguous: C[i, j] = A[i] · B[:, j], for one row or a few.

    Sums of ``unit.columns`` columns at a time are left in the workspace.
    """

    def emit(self) -> None:
        self.each_run(self._run)

    def _run(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get, unit = self.b, self.loaded, self.unit
        a, matrix, c = self.batch_element(batch)
        if self.spec.a != "last":
            a = self._contiguous(a)
        start = b.mul(tile, get[Slot.TILE_N])
        stop = self.minimum(b.add(start, get[Slot.TILE_N]), get[Slot.N])
        self.before = _before(self, matrix, Slot.B_COLUMN)
        yes = const(True, ONE.type.like("i1"))

        def columns(column: Value, _: list[Value]) -> list[Value]:
            count = self.minimum(b.sub(stop, column), const(unit.columns, I64))
            panel = self.at(matrix, (column, Slot.B_COLUMN))

            def rows(row: Value, _: list[Value]) -> list[Value]:
                height = self.minimum(b.sub(get[Slot.M], row), const(unit.rows, I64))
                self._sums(self.at(a, (row, Slot.A_ROW)), height, panel, count)
                corner = self.at(c, (row, Slot.C_ROW), (column, Slot.C_COLUMN))
                self.call(
                    "finish", self.work, corner, get[Slot.C_ROW], get[Slot.C_COLUMN], height,
                    count, yes, yes, row, column, batch, self.ptrs, self.sizes,
                )  # fmt: skip
                return []

            b.loop(ZERO, get[Slot.M], unit.rows, [], rows)
            return []

        b.loop(start, stop, unit.columns, [], columns)

    def _contiguous(self, a: Value) -> Value:
        """Copy a strided row to the workspace."""
        b = self.b
        copy = b.element(self.work, self.loaded[Slot.WORK_A], self.type)

        def body(k: Value, _: list[Value]) -> list[Value]:
            value = b.load(self.at(a, (k, Slot.A_DEPTH)), self.type)
            b.store(value, b.element(copy, k, self.type))
            return []

        b.loop(ZERO, self.loaded[Slot.K], 1, [], body)
        return copy

    def _sums(self, a: Value, rows: Value, matrix: Value, columns: Value) -> None:
        """Write the products of rows and columns, blocks of some at a time."""
        b = self.b
        first = ZERO
        for height in (4, 2, 1) if self.spec.kind == "few_dots" else (1,):
            width = _FEW_COLUMNS if height == 4 and b.target.registers < 32 else _COLUMNS
            bulk = b.and_(columns, const(-width, I64))

            def block(i: Value, _: list[Value], height: int = height, width: int = width,
                      bulk: Value = bulk) -> list[Value]:  # fmt: skip
                def some(j: Value, width: int) -> list[Value]:
                    self._block(a, matrix, i, j, (height, width))
                    return []

                b.loop(ZERO, bulk, width, [], lambda j, _: some(j, width))
                b.loop(bulk, columns, 1, [], lambda j, _: some(j, 1))
                return []

            last = b.and_(rows, const(-height, I64))
            b.loop(first, last, height, [], block)
            first = last

    def _block(self, a: Value, matrix: Value, i: Value, j: Value, shape: tuple[int, int]) -> None:
        """Dot some rows from row ``i`` on with some columns from column ``j`` on."""
        b, lanes, depth = self.b, self.unit.lanes, self.loaded[Slot.K]
        (height, width), vector = shape, self.type.vector(lanes)
        back = b.neg(self.before)

        def line(base: Value, index: Value, stride: Slot) -> Value:
            return b.element(self.at(base, (index, stride)), back, self.type)

        rows = [line(a, b.add(i, const(r, I64)), Slot.A_ROW) for r in range(height)]
        columns = [line(matrix, b.add(j, const(v, I64)), Slot.B_COLUMN) for v in range(width)]
        cells = height * width
        chains = max(1, min(2, _CHAINS // cells))

        def step(k: Value, sums: list[Value], count: int, mask: Value | None) -> list[Value]:
            """Add ``count`` vectors of terms; the next one's chain comes first in the result."""
            following = list(sums)
            for chain in range(count):
                place = b.add(k, const(chain * lanes, I64))
                ys = [self._vector(column, place, mask) for column in columns]
                for r, row in enumerate(rows):
                    x = self._vector(row, place, mask)
                    for v, y in enumerate(ys):
                        at = (chain * height + r) * width + v
                        following[at] = multiply_add(b, x, y, sums[at])
            return following[count * cells :] + following[: count * cells]

        sums = [const(0, vector)] * (chains * cells)
        first, stop = ZERO, b.add(self.before, depth)
        if _aligns(self):
            sums = step(ZERO, sums, 1, _lanes_within(b, self.before, stop, lanes))
            first = const(lanes, I64)
        stop = b.intrinsic("smax", I64, stop, first)
        stride = chains * lanes
        bulk = b.add(first, b.and_(b.sub(stop, first), const(-stride, I64)))
        whole = b.and_(stop, const(-lanes, I64))
        sums = b.loop(first, bulk, stride, sums, lambda k, s: step(k, s, chains, None))
        if chains > 1:
            sums = b.loop(bulk, whole, lanes, sums, lambda k, s: step(k, s, 1, None))
        sums = b.loop(
            whole, stop, lanes, sums,
            lambda k, s: step(k, s, 1, _lane_mask(b, b.sub(stop, k), lanes)),
        )  # fmt: skip
        # Wherever the first chain and lane were, the sum of all has the same bits.
        totals = sums[:cells]
        for chain in range(1, chains):
            pairs = zip(totals, sums[chain * cells : (chain + 1) * cells], strict=True)
            totals = [b.add(x, y) for x, y in pairs]
        self._store(totals, i, j, width)

    def _store(self, vectors: list[Value], i: Value, j: Value, width: int) -> None:
        """Sum each vector's lanes, and write the sums to the workspace, ``width`` to a row."""
        b = self.b
        together = min(len(vectors), self.unit.lanes)
        stretch = min(width, together)
        for first in range(0, len(vectors), together):
            group = vectors[first : first + together]
            sums = lane_sums(b, group) if together > 1 else b.fold(group[0], b.add)
            for at in range(0, together, stretch):
                row, column = divmod(first + at, width)
                lanes = range(at, at + stretch)
                part = b.shuffle(sums, None, lanes) if stretch > 1 else b.extract(sums, at)
                place = b.mul(b.add(i, const(row, I64)), const(self.unit.columns, I64))
                place = b.add(place, b.add(j, const(column, I64)))
                b.store(part, b.element(self.work, place, self.type))

    def _vector(self, base: Value, place: Value, mask: Value | None) -> Value:
        b, vector = self.b, self.type.vector(self.unit.lanes)
        address = b.element(base, place, self.type)
        return b.load(address, vector) if mask is None else b.masked_load(address, mask, vector)


def _aligns(frame: Frame) -> bool:
    """Whether vectors of B may start before it: a misplaced one always reads two cache lines."""
    return frame.b.target.masks and frame.unit.lanes * frame.type.bits == 8 * LINE


def _before(frame: Frame, matrix: Value, stride: Slot) -> Value:
    """Return how many elements before ``matrix`` a cache line begins, and so before each of the
    lines that are ``stride`` apart; 0 where these differ, or masks would cost more."""
    b, size = frame.b, frame.type.bits // 8
    if not _aligns(frame):
        return ZERO
    within = b.and_(b.address(matrix), const(LINE - 1, I64))
    apart = b.and_(frame.loaded[stride], const(LINE // size - 1, I64))
    same = b.compare("eq", apart, ZERO)
    return b.select(same, b.lshr(within, const(size.bit_length() - 1, I64)), ZERO)


def _lanes_within(b: Builder, start: Value, stop: Value, lanes: int) -> Value:
    """Return the mask of the lanes from ``start`` on, up to ``stop``."""
    early = _lane_mask(b, start, lanes)
    return b.and_(b.not_(early), _lane_mask(b, stop, lanes))


def _lane_mask(b: Builder, left: Value, lanes: int) -> Value:
    """Return the mask of the first ``left`` lanes."""
    index = I64.vector(lanes)
    return b.compare("lt", b.lane_index(index), b.splat(left, lanes))
