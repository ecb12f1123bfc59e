"""Rows and strips: squares of short rows are turned in registers, where a strip has them in lanes.

A strip (schedule/pack.py) has element k of all its rows side by side. To bring rows there, and rows
of results back, a vector is loaded from each of as many rows as there are lanes, the square is
transposed, and vectors of columns are stored. Gathers would take a load for each element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, Value, const
from tracejit.codegen.scope import Scope, Values, Vector
from tracejit.codegen.steps import vector_steps
from tracejit.codegen.types import memory_type

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter


class Turn:
    """Copies between access ``rows``, contiguous along axis ``inner``, and access ``strip``.

    The vector of ``scope`` is whole: the last rows of all, which fill no square, are the caller's.
    """

    def __init__(self, emitter: KernelEmitter, rows: int, strip: int, inner: int, scope: Scope):
        assert scope.vector is not None
        self.emitter, self.b = emitter, emitter.b
        self.rows, self.inner = rows, inner
        self.scope, self.vector = scope, scope.vector
        self.strip = scope.pointers[strip]
        self.column_step = emitter.strides[strip][inner]
        self.type = memory_type(emitter.kernel.accesses[rows].dtype, self.vector.lanes)

    def pack(self, results: list[int]) -> None:
        """Copy rows to the strip. The rows of the next strip are fetched from memory meanwhile, and
        those of this strip in the accesses ``results``, which will be stored."""

        def square(part: int, column: Value, mask: Value | None) -> None:
            found: Values = []
            for number in self._numbers(part):
                place = self._row(self.rows, number, column)
                if mask is None:
                    found.append(self.b.load(place, self.type))
                else:
                    found.append(self.b.masked_load(place, mask, self.type))
                ahead = number + self.vector.unroll * self.vector.lanes
                self.b.prefetch(self._row(self.rows, ahead, column))
                for access in results:
                    self.b.prefetch(self._row(access, number, column))
            for lane, value in enumerate(self.b.transpose(found)):
                self.b.store(value, self._side_by_side(part, lane, column))

        self._squares(square)

    def unpack(self, *, stream: bool) -> None:
        """Copy the strip to rows; ``stream`` them past the caches if all of them are aligned."""
        b, nbytes = self.b, self.type.lanes * self.type.bits // 8

        def write(stream: bool) -> Values:
            def square(part: int, column: Value, mask: Value | None) -> None:
                lanes = range(self.vector.lanes)
                columns = [b.load(self._side_by_side(part, n, column), self.type) for n in lanes]
                turned = b.transpose(columns)
                for number, value in zip(self._numbers(part), turned, strict=True):
                    place = self._row(self.rows, number, column)
                    if mask is not None:
                        b.masked_store(value, place, mask)
                    else:
                        b.store(value, place, align=nbytes if stream else None, stream=stream)

            self._squares(square)
            return []

        if not stream or nbytes * 8 != b.target.vector_bits:
            write(False)
            return
        step = b.mul(
            self.emitter.strides[self.rows][self.vector.axis], const(self.type.bits // 8, I64)
        )
        ends = b.or_(b.address(self.scope.pointers[self.rows]), step)
        aligned = b.compare("eq", b.and_(ends, const(nbytes - 1, I64)), const(0, I64))
        b.if_(aligned, lambda: write(True), lambda: write(False))

    def _squares(self, square: Callable[[int, Value, Value | None], None]) -> None:
        """Write all squares; columns that the last of them have beyond the row's end, which a mask
        leaves out, only exist in the strip."""

        def step(along: Vector, column: Value, carried: Values) -> Values:
            for part in range(self.vector.unroll):
                square(part, column, along.mask)
            return []

        along = Vector(self.inner, self.vector.lanes, 1)
        stop = self.emitter.extents[self.inner]
        vector_steps(self.emitter, [along], const(0, I64), stop, stop, [], step)

    def _numbers(self, part: int) -> range:
        """Return the numbers of the rows of one square, from the strip's first row on."""
        lanes = self.vector.lanes
        return range(part * lanes, (part + 1) * lanes)

    def _row(self, access: int, number: int, column: Value) -> Value:
        step = self.emitter.strides[access][self.vector.axis]
        ahead = self.b.add(self.b.mul(step, const(number, I64)), column)
        type = memory_type(self.emitter.kernel.accesses[access].dtype)
        return self.b.element(self.scope.pointers[access], ahead, type)

    def _side_by_side(self, part: int, lane: int, column: Value) -> Value:
        ahead = self.b.mul(self.column_step, self.b.add(column, const(lane, I64)))
        first = const(part * self.vector.lanes, I64)
        return self.b.element(self.strip, self.b.add(ahead, first), self.type)
