"""Products with one row, c = a @ B, or a few: bound by reading B once, in the order of its memory.

Both kernels leave sums in the workspace, from where ``finish`` takes them to C. The depth is not
blocked: every sum is one chain (or a fixed few) over all of K.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, Builder, Value, const
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.frame import ONE, ZERO, Frame
from tracejit.codegen.contraction.narrow import lane_sums
from tracejit.codegen.contraction.spec import Slot

# Rows of B added at a time: as many streams as hardware prefetchers follow, and few enough
# passes over the sums.
_STREAMS = 8


class Axpys(Frame):
    """B's rows are contiguous: c += a[k] * B[k, :], several k a pass over a column tile."""

    def emit(self) -> None:
        self.each_run(self._run)

    def _run(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        a, matrix, c = self.batch_element(batch)
        column = b.mul(tile, get[Slot.TILE_N])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])
        self._sums(a, self.at(matrix, (column, Slot.B_COLUMN)), columns)
        yes = const(True, ONE.type.like("i1"))
        self.call(
            "finish", self.work, self.at(c, (column, Slot.C_COLUMN)), get[Slot.C_ROW],
            get[Slot.C_COLUMN], ONE, columns, yes, yes, ZERO, column, batch, self.ptrs, self.sizes,
        )  # fmt: skip

    def _sums(self, a: Value, matrix: Value, columns: Value) -> None:
        """Write a @ matrix[:, :columns] to the workspace."""
        b, lanes = self.b, self.unit.lanes
        depth = self.loaded[Slot.K]
        padded = b.and_(b.add(columns, const(lanes - 1, I64)), const(-lanes, I64))

        def clear(j: Value, _: list[Value]) -> list[Value]:
            b.store(const(0, self.type.vector(lanes)), b.element(self.work, j, self.type))
            return []

        b.loop(ZERO, padded, lanes, [], clear)
        bulk = b.and_(depth, const(-_STREAMS, I64))

        def several(k: Value, _: list[Value]) -> list[Value]:
            self._add_rows(a, matrix, k, _STREAMS, columns)
            return []

        def single(k: Value, _: list[Value]) -> list[Value]:
            self._add_rows(a, matrix, k, 1, columns)
            return []

        b.loop(ZERO, bulk, _STREAMS, [], several)
        b.loop(bulk, depth, 1, [], single)

    def _add_rows(self, a: Value, matrix: Value, k: Value, count: int, columns: Value) -> None:
        """Add ``count`` rows of B from row ``k`` on, each times its element of ``a``."""
        b, lanes, vector = self.b, self.unit.lanes, self.type.vector(self.unit.lanes)
        factors: list[Value] = []
        rows: list[Value] = []
        for i in range(count):
            place = b.add(k, const(i, I64))
            factors.append(b.splat(b.load(self.at(a, (place, Slot.A_DEPTH)), self.type), lanes))
            rows.append(self.at(matrix, (place, Slot.B_DEPTH)))

        def step(j: Value, mask: Value | None) -> None:
            place = b.element(self.work, j, self.type)
            total = b.load(place, vector)
            for row, factor in zip(rows, factors, strict=True):
                source = b.element(row, j, self.type)
                x = b.load(source, vector) if mask is None else b.masked_load(source, mask, vector)
                total = multiply_add(b, factor, x, total)
            b.store(total, place)

        whole = b.and_(columns, const(-lanes, I64))

        def full(j: Value, _: list[Value]) -> list[Value]:
            step(j, None)
            return []

        def edge(j: Value, _: list[Value]) -> list[Value]:
            step(j, _lane_mask(b, b.sub(columns, j), lanes))
            return []

        b.loop(ZERO, whole, lanes, [], full)
        b.loop(whole, columns, lanes, [], edge)


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
        rows = [self.at(a, (b.add(i, const(r, I64)), Slot.A_ROW)) for r in range(height)]
        columns = [self.at(matrix, (b.add(j, const(v, I64)), Slot.B_COLUMN)) for v in range(width)]
        chains = max(1, min(2, _CHAINS // (height * width)))

        def step(k: Value, sums: list[Value], chains: int, mask: Value | None) -> list[Value]:
            following = list(sums)
            for chain in range(chains):
                place = b.add(k, const(chain * lanes, I64))
                ys = [self._vector(column, place, mask) for column in columns]
                for r, row in enumerate(rows):
                    x = self._vector(row, place, mask)
                    for v, y in enumerate(ys):
                        at = (chain * height + r) * width + v
                        following[at] = multiply_add(b, x, y, sums[at])
            return following

        stride = chains * lanes
        bulk, whole = (b.and_(depth, const(-unit, I64)) for unit in (stride, lanes))
        sums = [const(0, vector)] * (chains * height * width)
        sums = b.loop(ZERO, bulk, stride, sums, lambda k, s: step(k, s, chains, None))
        if chains > 1:
            sums = b.loop(bulk, whole, lanes, sums, lambda k, s: step(k, s, 1, None))
        sums = b.loop(
            whole, depth, lanes, sums,
            lambda k, s: step(k, s, 1, _lane_mask(b, b.sub(depth, k), lanes)),
        )  # fmt: skip
        cells = height * width
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


def _lane_mask(b: Builder, left: Value, lanes: int) -> Value:
    """Return the mask of the first ``left`` lanes."""
    index = I64.vector(lanes)
    return b.compare("lt", b.lane_index(index), b.splat(left, lanes))
