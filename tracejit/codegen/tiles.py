"""Tiles: the loops of kernels that read across the lines of memory.

A transposing kernel runs its two innermost parallel loops in square tiles, so that each line of
the cache that is read is used whole; full tiles of 4- and 8-byte elements are transposed in
registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracejit.codegen.access import load_values
from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.steps import vector_loop
from tracejit.ops.table import OPS, Fact
from tracejit.schedule.kernel import Apply, Load

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter

# Rows and columns of a tile in a transposing kernel: one cache line of float32.
TILE = 16
# Operations and strided loads of a body that a square of vectors is written out for.
SMALL_BODY, SQUARES = 6, 2


class TileLoop:
    """The two innermost parallel loops of a kernel, in square tiles; ``inner`` runs in lanes."""

    def __init__(self, emitter: KernelEmitter, scope: Scope, outer: int, inner: int):
        self.emitter = emitter
        self.b = emitter.b
        self.scope = scope
        self.outer, self.inner = outer, inner
        self.crossing = self._find_crossing()

    def write(self, start: Value, stop: Value) -> None:
        """Write the two loops; the rows run from ``start`` to ``stop``."""
        b, emitter = self.b, self.emitter
        columns = emitter.extents[self.inner]
        size = emitter.lanes if self.crossing else TILE

        def band(first: Value, carried: Values) -> Values:
            last = self._least(b.add(first, const(size, I64)), stop)
            return b.loop(const(0, I64), columns, size, [], lambda j, c: tile(first, last, j))

        def tile(first: Value, last: Value, left: Value) -> Values:
            right = self._least(b.add(left, const(size, I64)), columns)
            if not self.crossing:
                return rows(first, last, left, right)
            area = b.mul(b.sub(last, first), b.sub(right, left))
            return b.if_(
                b.compare("eq", area, const(size * size, I64)),
                lambda: self._square(first, left),
                lambda: rows(first, last, left, right),
            )

        def rows(first: Value, last: Value, left: Value, right: Value) -> Values:

            def row(index: Value, carried: Values) -> Values:
                inside = emitter.enter(self.scope, {self.outer: index}, None)

                def strip(vector: Vector, position: Value, state: Values) -> Values:
                    within = emitter.enter(inside, {self.inner: position}, vector)
                    emitter.block(emitter.kernel.block, within, ())
                    return []

                return vector_loop(emitter, self.inner, left, right, [], strip)

            return b.loop(first, last, 1, [], row)

        b.loop(start, stop, size, [], band)

    def _find_crossing(self) -> list[int]:
        """Return the loads that cross a tile, where squares of vectors serve the kernel.

        They are contiguous along ``outer`` and strided along ``inner``, the axis in lanes.
        """
        emitter = self.emitter
        applied = [e for e in emitter.exprs if isinstance(e, Apply)]
        if len(applied) > SMALL_BODY or any(OPS[e.op].has(Fact.EXPENSIVE) for e in applied):
            return []
        found: list[int] = []
        for position, expr in enumerate(emitter.exprs):
            if isinstance(expr, Load):
                access = emitter.kernel.accesses[expr.access]
                if access.strides[self.outer] == 1 and access.strides[self.inner] not in (0, 1):
                    found.append(position)
        return found if len(found) <= SQUARES else []

    def _square(self, first: Value, left: Value) -> Values:
        """Write a full tile: load along the outer axis, transpose in registers, row by row go on.

        Gathers would take an element a cycle; the shuffles take a quarter of that.
        """
        b, emitter = self.b, self.emitter
        scope, outer, inner, lanes = self.scope, self.outer, self.inner, emitter.lanes
        along, across = Vector(outer, lanes, 1), Vector(inner, lanes, 1)
        rows: dict[int, Values] = {}
        for position in self.crossing:
            load = emitter.exprs[position]
            assert isinstance(load, Load)
            columns: Values = []
            for number in range(lanes):
                place = {outer: first, inner: b.add(left, const(number, I64))}
                columns += load_values(emitter, load, emitter.enter(scope, place, along))
            rows[position] = b.transpose(columns)
        for number in range(lanes):
            place = {outer: b.add(first, const(number, I64)), inner: left}
            inside = emitter.enter(scope, place, across)
            inside.values.update({p: [rows[p][number]] for p in self.crossing})
            emitter.block(emitter.kernel.block, inside, ())
        return []

    def _least(self, x: Value, y: Value) -> Value:
        return self.b.select(self.b.compare("lt", x, y), x, y)
