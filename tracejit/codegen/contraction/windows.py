"""Packing of an operand whose axes are no walks of one stride: windows, several axes in one.

Element [k, n] of B is at depths[k] + rows[n // width] + n % width · step: so are the windows of a
convolution, where k counts channels and taps and n the places of an image (``Gather``). The
panels that the microkernel reads are filled from it block by block; the matrix itself, nine times
the image for 3×3 windows, is never there.

Places in one row of the image are neighbours in memory. A vector that lies within one is loaded
as it is (every second element for step 2), one that ends in the next row by two masked loads;
otherwise, and for other steps, it is gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracejit.codegen.builder import I32, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.gather import DEPTHS, ROWS, STEP, WIDTH


def emit_pack_windows(module: Module, name: str, type: Type, width: int, step: int) -> None:
    """Define ``void name(target, source, table, column, columns, total, k, depth)``.

    ``columns`` columns of B from ``column`` on (``total`` in all), depths k to k + ``depth``, go
    to panels of ``width``. The last vector of a panel may hold the last column several times.
    """
    names = ("target", "source", "table", "column", "columns", "total", "k", "depth")
    b = module.define(
        name,
        VOID,
        [(n, PTR if i < 3 else I64) for i, n in enumerate(names)],
        linkage="internal",
        attributes="nounwind noinline",
        parameter_attributes=("noalias", "noalias readonly", "noalias readonly", *[""] * 5),
    )
    _Packer(b, type, width, step).emit()
    b.ret()


class _Vector(NamedTuple):
    """A vector of columns: its place in the panels, its first column, and that one's row."""

    target: Value
    column: Value
    row: Value
    inside: Value


class _Packer:
    def __init__(self, b: Builder, type: Type, width: int, step: int):
        self.b = b
        self.type = type
        self.width = width
        self.known_step = step
        self.lanes = b.target.lanes(type.bits)
        self.target, self.source, table, self.column, self.columns, self.total, k, self.depth = (
            b.parameters
        )
        self.row_width = self._number(table, WIDTH)
        self.step = const(step, I64) if step else self._number(table, STEP)
        self.rows = b.element(table, const(ROWS, I64), I64)
        self.depths = b.element(b.element(table, self._number(table, DEPTHS), I64), k, I64)
        self.index = b.emit(PTR, f"alloca [{self.lanes} x i32], align 64")

    def _number(self, table: Value, place: int) -> Value:
        return self.b.load(self.b.element(table, const(place, I64), I64), I64)

    def emit(self) -> None:
        b, lanes, width = self.b, const(self.lanes, I64), const(self.width, I64)

        def vector(j: Value, _: list[Value]) -> list[Value]:
            panel = b.div(j, width, signed=False)
            first = b.mul(panel, width)
            # A panel is as deep as the block: its lanes follow those before it at each depth.
            place = b.add(b.mul(first, self.depth), b.sub(j, first))
            column = b.add(self.column, j)
            row = b.div(column, self.row_width, signed=False)
            inside = b.sub(column, b.mul(row, self.row_width))
            self._vector(_Vector(b.element(self.target, place, self.type), column, row, inside))
            return []

        b.loop(const(0, I64), self.columns, lanes, [], vector)

    def _vector(self, v: _Vector) -> None:
        b = self.b
        if not self.known_step:
            self._gathered(v)
            return
        whole = b.compare("le", b.add(v.inside, const(self.lanes, I64)), self.row_width)

        def within() -> list[Value]:
            start = b.element(self.source, self._offset(v.row, v.inside), self.type)
            self._each_depth(v.target, lambda depth: self._row(b.element(start, depth, self.type)))
            return []

        def across() -> list[Value]:
            if self.known_step == 1 and b.target.masks:
                self._two_rows(v)
            else:
                self._gathered(v)
            return []

        b.if_(whole, within, across)

    def _two_rows(self, v: _Vector) -> None:
        """Write a vector that ends in the next row, gathered where that row ends in it too."""
        b, lanes = self.b, const(self.lanes, I64)
        vector = self.type.vector(self.lanes)
        ahead = b.sub(self.row_width, v.inside)
        inside = b.compare("le", b.add(v.column, lanes), self.total)
        fits = b.and_(inside, b.compare("le", b.sub(lanes, ahead), self.row_width))

        def both() -> list[Value]:
            index = b.lane_index(I64.vector(self.lanes))
            mine = b.compare("lt", index, b.splat(ahead, self.lanes))
            first = b.element(self.source, self._offset(v.row, v.inside), self.type)
            following = self._offset(b.add(v.row, const(1, I64)), const(0, I64))
            second = b.element(self.source, b.sub(following, ahead), self.type)

            def read(depth: Value) -> Value:
                before = b.masked_load(b.element(first, depth, self.type), mine, vector)
                after = b.masked_load(b.element(second, depth, self.type), b.not_(mine), vector)
                return b.select(mine, before, after)

            self._each_depth(v.target, read)
            return []

        def many() -> list[Value]:
            self._gathered(v)
            return []

        b.if_(fits, both, many)

    def _offset(self, row: Value, inside: Value) -> Value:
        b = self.b
        first = b.load(b.element(self.rows, row, I64), I64)
        return b.add(first, b.mul(inside, self.step))

    def _row(self, address: Value) -> Value:
        """Return the vector whose first lane is at ``address``; nothing beyond is read."""
        b, lanes = self.b, self.lanes
        vector = self.type.vector(lanes)
        first = b.load(address, vector)
        if self.known_step == 1:
            return first
        second = b.load(b.element(address, const(lanes - 1, I64), self.type), vector)
        even = [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)]
        return b.shuffle(first, second, even)

    def _gathered(self, v: _Vector) -> None:
        b = self.b
        last = b.sub(self.total, const(1, I64))

        def lane(i: Value, carried: list[Value]) -> list[Value]:
            row, inside = carried
            offset = b.convert(self._offset(row, inside), I32)
            b.store(offset, b.element(self.index, i, I32))
            more = b.compare("lt", b.add(v.column, i), last)
            following = b.add(inside, const(1, I64))
            ends = b.compare("eq", following, self.row_width)
            wraps = b.and_(more, ends)
            stays = b.select(more, following, inside)
            return [
                b.add(row, b.convert(wraps, I64, signed=False)),
                b.select(wraps, const(0, I64), stays),
            ]

        b.loop(const(0, I64), const(self.lanes, I64), 1, [v.row, v.inside], lane)
        index = b.load(self.index, I32.vector(self.lanes))
        vector = self.type.vector(self.lanes)
        self._each_depth(
            v.target,
            lambda depth: b.gather(b.element(self.source, depth, self.type), index, vector),
        )

    def _each_depth(self, target: Value, read: Callable[[Value], Value]) -> None:
        """Write the loop that stores what ``read`` returns for the offset of each depth."""
        b = self.b
        bulk = b.and_(self.depth, const(-_UNROLL, I64))

        def step(count: int) -> Callable[[Value, list[Value]], list[Value]]:
            def body(k: Value, carried: list[Value]) -> list[Value]:
                (to,) = carried
                for i in range(count):
                    place = b.element(self.depths, b.add(k, const(i, I64)) if i else k, I64)
                    value = read(b.load(place, I64))
                    b.store(value, b.element(to, const(i * self.width, I64), self.type))
                return [b.element(to, const(count * self.width, I64), self.type)]

            return body

        (rest,) = b.loop(const(0, I64), bulk, _UNROLL, [target], step(_UNROLL))
        b.loop(bulk, self.depth, 1, [rest], step(1))


_UNROLL = 4
