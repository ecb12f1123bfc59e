"""Products with one row, c = a @ B: bound by reading B once, in the order of its memory.

Both kernels leave the sums of a column tile in the workspace, from where ``finish`` takes them
to C. The depth is not blocked: every sum is one chain (or a fixed few) over all of K.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from tracejit.codegen.builder import I64, Builder, Value, const
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.frame import ONE, ZERO, Frame
from tracejit.codegen.contraction.spec import Slot


class _OneRow(Frame, ABC):
    """The loop over column tiles; a subclass computes the sums of one."""

    def emit(self) -> None:
        self.each_run(self._run)

    def _run(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        a, matrix, c = self.batch_element(batch)
        column = b.mul(tile, get[Slot.TILE_N])
        columns = self.minimum(b.sub(get[Slot.N], column), get[Slot.TILE_N])
        self.sums(a, self.at(matrix, (column, Slot.B_COLUMN)), columns)
        yes = const(True, ONE.type.like("i1"))
        self.call(
            "finish", self.work, self.at(c, (column, Slot.C_COLUMN)), get[Slot.C_ROW],
            get[Slot.C_COLUMN], ONE, columns, yes, yes, ZERO, column, batch, self.ptrs, self.sizes,
        )  # fmt: skip

    @abstractmethod
    def sums(self, a: Value, matrix: Value, columns: Value) -> None:
        """Write a @ matrix[:, :columns] to the workspace."""


# Rows of B added at a time: as many streams as hardware prefetchers follow, and few enough
# passes over the sums.
_STREAMS = 8


class Axpys(_OneRow):
    """B's rows are contiguous: c += a[k] * B[k, :], several k a pass."""

    def sums(self, a: Value, matrix: Value, columns: Value) -> None:
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


# Columns dotted at a time, and accumulators of each: eight chains hide the latency.
_COLUMNS, _CHAINS = 4, 2


class Dots(_OneRow):
    """B's columns are contiguous: c[j] = a · B[:, j], several j at a time."""

    def sums(self, a: Value, matrix: Value, columns: Value) -> None:
        b = self.b
        if self.spec.a != "last":
            a = self._contiguous(a)
        bulk = b.and_(columns, const(-_COLUMNS, I64))

        def several(j: Value, _: list[Value]) -> list[Value]:
            self._dot(a, matrix, j, _COLUMNS)
            return []

        def single(j: Value, _: list[Value]) -> list[Value]:
            self._dot(a, matrix, j, 1)
            return []

        b.loop(ZERO, bulk, _COLUMNS, [], several)
        b.loop(bulk, columns, 1, [], single)

    def _contiguous(self, a: Value) -> Value:
        """Copy a strided ``a`` to the workspace."""
        b = self.b
        copy = b.element(self.work, self.loaded[Slot.WORK_A], self.type)

        def body(k: Value, _: list[Value]) -> list[Value]:
            value = b.load(self.at(a, (k, Slot.A_DEPTH)), self.type)
            b.store(value, b.element(copy, k, self.type))
            return []

        b.loop(ZERO, self.loaded[Slot.K], 1, [], body)
        return copy

    def _dot(self, a: Value, matrix: Value, j: Value, count: int) -> None:
        """Dot ``a`` with ``count`` columns from column ``j`` on."""
        b, lanes, depth = self.b, self.unit.lanes, self.loaded[Slot.K]
        vector = self.type.vector(lanes)
        columns = [self.at(matrix, (b.add(j, const(i, I64)), Slot.B_COLUMN)) for i in range(count)]

        def step(k: Value, sums: list[Value], chains: int, mask: Value | None) -> list[Value]:
            following = list(sums)
            for chain in range(chains):
                place = b.add(k, const(chain * lanes, I64))
                x = self._vector(a, place, mask)
                for i, column in enumerate(columns):
                    at = i * _CHAINS + chain
                    y = self._vector(column, place, mask)
                    following[at] = multiply_add(b, x, y, sums[at])
            return following

        stride = _CHAINS * lanes
        pairs, whole = (b.and_(depth, const(-unit, I64)) for unit in (stride, lanes))
        sums = [const(0, vector)] * (count * _CHAINS)
        sums = b.loop(ZERO, pairs, stride, sums, lambda k, s: step(k, s, _CHAINS, None))
        sums = b.loop(pairs, whole, lanes, sums, lambda k, s: step(k, s, 1, None))
        sums = b.loop(
            whole, depth, lanes, sums,
            lambda k, s: step(k, s, 1, _lane_mask(b, b.sub(depth, k), lanes)),
        )  # fmt: skip
        for i in range(count):
            total = sums[i * _CHAINS]
            for chain in range(1, _CHAINS):
                total = b.add(total, sums[i * _CHAINS + chain])
            place = b.element(self.work, b.add(j, const(i, I64)), self.type)
            b.store(b.fold(total, b.add), place)

    def _vector(self, base: Value, place: Value, mask: Value | None) -> Value:
        b, vector = self.b, self.type.vector(self.unit.lanes)
        address = b.element(base, place, self.type)
        return b.load(address, vector) if mask is None else b.masked_load(address, mask, vector)


def _lane_mask(b: Builder, left: Value, lanes: int) -> Value:
    """Return the mask of the first ``left`` lanes."""
    index = I64.vector(lanes)
    return b.compare("lt", b.lane_index(index), b.splat(left, lanes))
