"""The few columns of a product behind the last whole vector, computed by themselves.

In a microkernel they take as long as a whole vector of columns. Where the rows of A are contiguous
they are dot products (``narrow``); where its columns are, they are rows of the transposed product:

    for rows of A, two vectors of them: for k: for column j: sums[j] += B[k, j] * A[rows…, k]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from tracejit.codegen.builder import I1, I64, Builder, Module, Value, const
from tracejit.codegen.contraction.blocking import RegisterBlock, most_few
from tracejit.codegen.contraction.frame import ONE, ZERO, advance
from tracejit.codegen.contraction.microkernel import MicroCall, MicroShape, emit_microkernel
from tracejit.codegen.contraction.narrow import emit_narrow, rows_at_once
from tracejit.codegen.contraction.spec import GemmSpec, Slot

if TYPE_CHECKING:
    from tracejit.codegen.contraction.panels import Block, Panels

# Columns that rows of the transposed product are at a time: fewer would wait for their sums.
_TURNED = 4


def emit_few(module: Module, name: str, spec: GemmSpec, unit: RegisterBlock) -> None:
    """Define the functions that ``few_columns`` calls."""
    if spec.few == "dots":
        emit_narrow(module, f"{name}.narrow", spec.type, unit)
    elif spec.few == "turned":
        shape = MicroShape(spec.type, _TURNED, unit.vectors, unit.lanes, 1, None)
        emit_microkernel(module, f"{name}.turned", shape)


def few_columns(panels: Panels, columns: Value) -> Few:
    """Begin what computes the last few of ``columns`` columns, from the first column tile on."""
    kinds = {"": Few, "dots": _Dots, "turned": _Turned}
    return kinds[panels.spec.few](panels, columns)


class Few:
    """No columns are computed by themselves."""

    def __init__(self, panels: Panels, columns: Value):
        self.panels = panels
        self.b: Builder = panels.b
        self.count = ZERO

    def begin(self, origin: Value, columns: Value, depth: Value) -> None:
        """Prepare for a depth block; the few are behind ``columns`` columns from ``origin`` on."""

    def compute(self, block: Block) -> None:
        """Compute the few columns behind those of a block."""


class _Some(Few, ABC):
    def __init__(self, panels: Panels, columns: Value):
        super().__init__(panels, columns)
        b, unit = self.b, panels.unit
        rest = b.rem(columns, const(unit.lanes, I64), signed=False)
        few = b.compare("le", rest, const(most_few(unit), I64))
        self.count = b.select(b.and_(self.pays(rest), few), rest, ZERO)

    @abstractmethod
    def pays(self, rest: Value) -> Value:
        """Return (i1) whether ``rest`` columns take less time by themselves."""

    @abstractmethod
    def rows(self, block: Block) -> None:
        """Compute them for the rows of a block."""

    def compute(self, block: Block) -> None:
        def some() -> list[Value]:
            self.rows(block)
            return []

        self.b.if_(self.b.compare("gt", self.count, ZERO), some)


class _Dots(_Some):
    """Dot products along the depth, two columns at a time."""

    def pays(self, rest: Value) -> Value:
        """A row takes for each column of a pair half a cycle for a vector of terms, and three for
        the sum of its lanes; copying the column takes a cycle for a term. With a vector of columns
        a row takes 5/8 cycles for a term. Measured in f32 and f64 from 4 to 128: what this chooses
        is 3 to 70 % faster. The size of tiles has no say in it, so that all give the same bits.
        """
        b, get, lanes = self.b, self.panels.loaded, self.panels.unit.lanes
        pairs = b.and_(b.add(rest, ONE), const(-2, I64))
        # In cycles, times twice the lanes.
        cost = b.mul(get[Slot.M], b.add(get[Slot.K], const(6 * lanes, I64)))
        if self.panels.spec.b != "first":
            cost = b.add(cost, b.mul(get[Slot.K], const(2 * lanes, I64)))
        other = b.mul(b.mul(get[Slot.M], get[Slot.K]), const(5 * lanes, I64))
        return b.compare("le", b.mul(b.mul(pairs, cost), const(4, I64)), other)

    def begin(self, origin: Value, columns: Value, depth: Value) -> None:
        """Find the columns contiguous along the depth, or copy them."""
        b, panels, get = self.b, self.panels, self.panels.loaded
        self.lines = panels.at(origin, (columns, Slot.B_COLUMN))
        self.line = get[Slot.B_COLUMN]
        if panels.spec.b == "first":
            return
        source, copy = self.lines, b.element(panels.work, get[Slot.WORK_A], panels.type)

        def row(k: Value, _: list[Value]) -> list[Value]:
            own, target = panels.at(source, (k, Slot.B_DEPTH)), b.element(copy, k, panels.type)

            def element(j: Value, _: list[Value]) -> list[Value]:
                value = b.load(panels.at(own, (j, Slot.B_COLUMN)), panels.type)
                b.store(value, b.element(target, b.mul(j, depth), panels.type))
                return []

            b.loop(ZERO, self.count, 1, [], element)
            return []

        some = b.compare("gt", self.count, ZERO)
        b.loop(ZERO, b.select(some, depth, ZERO), 1, [], row)
        self.lines, self.line = copy, depth

    def rows(self, block: Block) -> None:
        b, panels, j, unit = self.b, self.panels, block.columns, self.panels.unit
        whole = panels.writes_c(block)
        tile = unit.rows - unit.rows % rows_at_once(b.target.registers) or unit.rows
        height = b.select(whole, block.rows, const(tile, I64))
        tile_row = const(unit.columns, I64)

        def some(i: Value) -> Value:
            rows = panels.minimum(b.sub(block.rows, i), height)
            a = b.element(block.a, b.mul(i, block.a_row), panels.type)
            c = panels.at(block.c, (i, Slot.C_ROW), (j, Slot.C_COLUMN))
            panels.call(
                "narrow", a, block.a_row, self.lines, self.line, b.select(whole, c, panels.work),
                b.select(whole, panels.loaded[Slot.C_ROW], tile_row), rows, self.count,
                block.depth, b.and_(whole, b.not_(block.first)),
            )  # fmt: skip
            b.if_(b.not_(whole), lambda: panels.finish(block, c, i, j, rows, self.count))
            return height

        advance(b, ZERO, block.rows, some)


class _Turned(_Some):
    """Rows of the transposed product. Sums have the order that they have in other columns."""

    def pays(self, rest: Value) -> Value:
        """Four columns, or fewer with what is before them, take four cycles for a term of two
        vectors of rows, and two cycles for each of their elements to get to C; a vector of columns
        takes half a cycle for a term of a row."""
        b, get, unit = self.b, self.panels.loaded, self.panels.unit
        groups = b.div(
            b.add(get[Slot.M], const(unit.columns - 1, I64)), const(unit.columns, I64), signed=False
        )
        fours = b.div(b.add(rest, const(_TURNED - 1, I64)), const(_TURNED, I64), signed=False)
        terms = b.mul(b.mul(groups, fours), b.mul(get[Slot.K], const(8, I64)))
        cost = b.add(terms, b.mul(b.mul(get[Slot.M], rest), const(4, I64)))
        cheap = b.compare("le", cost, b.mul(get[Slot.M], get[Slot.K]))
        # There must be columns before them.
        return b.and_(cheap, b.compare("ge", get[Slot.N], const(2 * _TURNED, I64)))

    def begin(self, origin: Value, columns: Value, depth: Value) -> None:
        self.origin = origin

    def rows(self, block: Block) -> None:
        b, panels, get = self.b, self.panels, self.panels.loaded
        width, height = const(panels.unit.columns, I64), const(_TURNED, I64)
        end = b.add(block.columns, self.count)

        def group(done: Value, _: list[Value]) -> list[Value]:
            new = panels.minimum(b.sub(self.count, done), height)
            first = b.sub(b.sub(end, done), height)
            weights = panels.at(self.origin, (first, Slot.B_COLUMN))

            def some(i: Value, _: list[Value]) -> list[Value]:
                rows = panels.minimum(b.sub(block.rows, i), width)
                call = MicroCall(
                    weights, ONE, get[Slot.B_DEPTH], b.element(block.a, i, panels.type),
                    block.a_depth, panels.work, width, rows, block.depth, const(False, I1),
                )  # fmt: skip
                panels.call("turned", *call)
                self._turn(block, i, rows, first, new)
                return []

            b.loop(ZERO, block.rows, panels.unit.columns, [], some)
            return []

        b.loop(ZERO, self.count, _TURNED, [], group)

    def _turn(self, block: Block, i: Value, rows: Value, first: Value, new: Value) -> None:
        """Take the last ``new`` rows of the tile to C, where they are columns."""
        b, panels = self.b, self.panels
        known = b.sub(const(_TURNED, I64), new)
        base = panels.at(block.c, (i, Slot.C_ROW), (first, Slot.C_COLUMN))

        def row(r: Value, _: list[Value]) -> list[Value]:
            target = panels.at(base, (r, Slot.C_ROW))
            source = b.element(panels.work, r, panels.type)

            def element(j: Value, _: list[Value]) -> list[Value]:
                place = b.mul(j, const(panels.unit.columns, I64))
                value = b.load(b.element(source, place, panels.type), panels.type)
                cell = b.element(target, j, panels.type)

                def add() -> list[Value]:
                    return [b.add(b.load(cell, panels.type), value)]

                b.store(b.if_(block.first, lambda: [value], add)[0], cell)
                return []

            b.loop(known, const(_TURNED, I64), 1, [], element)
            return []

        b.loop(ZERO, rows, 1, [], row)
