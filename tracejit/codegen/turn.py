"""Rows and strips: squares of short rows are turned in registers, where a strip has them in lanes.

A strip (schedule/pack.py) has element k of all its rows side by side. To bring rows there, and rows
of results back, a vector is loaded from each of as many rows as there are lanes, the square is
transposed, and vectors of columns are stored. Gathers would take a load for each element.

Squares are long, so each way is a function of the module, which strips of any width call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tracejit.codegen.builder import I64, VOID, Builder, Value, const
from tracejit.codegen.scope import Scope
from tracejit.codegen.types import memory_type

if TYPE_CHECKING:
    from tracejit.codegen.loops import KernelEmitter

# Writes one square: its first row, that row's first column, and a mask of the columns that exist.
Square = Callable[[Value, Value, Value | None], None]


class Turn:
    """Copies between access ``rows``, contiguous along axis ``inner``, and access ``strip``.

    The vector of ``scope`` is whole: the last rows of all, which fill no square, are the caller's.
    """

    def __init__(self, emitter: KernelEmitter, rows: int, strip: int, inner: int, scope: Scope):
        assert scope.vector is not None
        self.emitter, self.scope, self.vector = emitter, scope, scope.vector
        self.rows, self.strip, self.inner = rows, strip, inner
        self.type = memory_type(emitter.kernel.accesses[rows].dtype, self.vector.lanes)
        self.nbytes = self.type.bits // 8

    def pack(self, results: list[int]) -> None:
        """Copy rows to the strip. The rows of the next strip are fetched from memory meanwhile, and
        those of this strip in the accesses ``results``, which will be stored."""

        def write(turned: Turned) -> None:
            b, lanes = turned.b, self.vector.lanes
            ahead = b.mul(b.mul(turned.squares, const(lanes, I64)), turned.steps[0])

            def square(row: Value, column: Value, mask: Value | None) -> None:
                places = turned.rows(0, row, column)
                found = [
                    b.load(place, self.type) if mask is None
                    else b.masked_load(place, mask, self.type)
                    for place in places
                ]  # fmt: skip
                for place in turned.places(b.offset(places[0], ahead), turned.steps[0]):
                    b.prefetch(place)
                for other in range(1, len(turned.pointers)):
                    for place in turned.rows(other, row, column):
                        b.prefetch(place)
                columns = turned.side_by_side(row, column)
                for place, value in zip(columns, b.transpose(found), strict=True):
                    b.store(value, place)

            turned.each(square)

        self._call("pack", [self.rows, *results], write)

    def unpack(self, *, stream: bool) -> None:
        """Copy the strip to rows; ``stream`` them past the caches if all of them are aligned."""
        b, whole = self.emitter.b, self.type.lanes * self.nbytes

        def write(turned: Turned, stream: bool) -> None:
            b = turned.b

            def square(row: Value, column: Value, mask: Value | None) -> None:
                found = [b.load(place, self.type) for place in turned.side_by_side(row, column)]
                rows = turned.rows(0, row, column)
                for place, value in zip(rows, b.transpose(found), strict=True):
                    if mask is not None:
                        b.masked_store(value, place, mask)
                    else:
                        b.store(value, place, align=whole if stream else None, stream=stream)

            turned.each(square)

        def call(stream: bool) -> list[Value]:
            name = "stream" if stream else "unpack"
            self._call(name, [self.rows], lambda turned: write(turned, stream))
            return []

        if not stream or whole * 8 != b.target.vector_bits:
            call(False)
            return
        ends = b.or_(b.address(self.scope.pointers[self.rows]), self._step(self.rows))
        aligned = b.compare("eq", b.and_(ends, const(whole - 1, I64)), const(0, I64))
        b.if_(aligned, lambda: call(True), lambda: call(False))

    def _step(self, access: int) -> Value:
        """Return the bytes from one row of ``access`` to the next."""
        itemsize = self.emitter.kernel.accesses[access].dtype.itemsize
        stride = self.emitter.strides[access][self.vector.axis]
        return self.emitter.b.mul(stride, const(itemsize, I64))

    def _call(self, name: str, accesses: list[int], write: Callable[[Turned], None]) -> None:
        """Call the function of the module that ``write`` writes, on the rows of ``accesses``."""
        b, emitter = self.emitter.b, self.emitter
        pointers = [self.scope.pointers[access] for access in accesses]
        itemsizes = [emitter.kernel.accesses[access].dtype.itemsize for access in accesses]
        name = ".".join([name, self.type.suffix, *map(str, itemsizes)])
        steps = [self._step(access) for access in accesses]
        column_step = b.mul(emitter.strides[self.strip][self.inner], const(self.nbytes, I64))
        strip = self.scope.pointers[self.strip]
        columns, squares = emitter.extents[self.inner], const(self.vector.unroll, I64)
        arguments = [*pointers, *steps, strip, column_step, columns, squares]
        if not b.module.defines(name):
            parameters = [(f"a{n}", a.type) for n, a in enumerate(arguments)]
            function = b.module.define(name, VOID, parameters, linkage="internal")
            write(Turned(function, self.type.lanes, self.nbytes, itemsizes))
            function.ret()
        b.effect(f"call void @{name}({', '.join(f'{a.type} {a.text}' for a in arguments)})")


class Turned:
    """The body of a function that turns squares; its parameters are as ``Turn._call`` has them.

    ``itemsizes`` are those of the accesses whose rows it walks along; the first is turned.
    """

    def __init__(self, b: Builder, lanes: int, nbytes: int, itemsizes: Sequence[int]):
        self.b, self.lanes, self.nbytes, self.itemsizes = b, lanes, nbytes, itemsizes
        count = len(itemsizes)
        self.pointers, self.steps = b.parameters[:count], b.parameters[count : 2 * count]
        self.strip, self.column_step, self.columns, self.squares = b.parameters[2 * count :]

    def each(self, square: Square) -> None:
        """Write all squares; columns that the last of them have beyond the row's end, which a mask
        leaves out, only exist in the strip."""
        b, zero, lanes = self.b, const(0, I64), const(self.lanes, I64)
        whole = b.sub(self.columns, b.rem(self.columns, lanes))
        lane = b.lane_index(I64.vector(self.lanes))
        left = b.splat(b.sub(self.columns, whole), self.lanes)
        mask = b.compare("lt", lane, left)
        some = b.compare("lt", whole, self.columns)

        def rows(number: Value, _: list[Value]) -> list[Value]:
            b.loop(zero, whole, self.lanes, [], lambda c, _: square(number, c, None) or [])
            b.if_(some, lambda: square(number, whole, mask) or [])
            return []

        b.loop(zero, b.mul(self.squares, lanes), self.lanes, [], rows)

    def rows(self, access: int, row: Value, column: Value) -> list[Value]:
        """Return the addresses of a square's rows."""
        b, step = self.b, self.steps[access]
        first = b.offset(self.pointers[access], b.mul(row, step))
        ahead = b.mul(column, const(self.itemsizes[access], I64))
        return self.places(b.offset(first, ahead), step)

    def side_by_side(self, row: Value, column: Value) -> list[Value]:
        """Return the addresses of its columns in the strip."""
        b = self.b
        first = b.offset(self.strip, b.mul(column, self.column_step))
        return self.places(b.offset(first, b.mul(row, const(self.nbytes, I64))), self.column_step)

    def places(self, first: Value, step: Value) -> list[Value]:
        """Return an address for each lane, ``step`` bytes apart."""
        found = [first]
        while len(found) < self.lanes:
            found.append(self.b.offset(found[-1], step))
        return found
