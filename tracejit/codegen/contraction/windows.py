"""Packing of an operand whose axes are no walks of one stride: windows, several axes in one.

Element [k, n] of B is at depths[k] + rows[n // width] + n % width · step: so are the windows of a
convolution, where k counts channels and taps and n the places of an image (``Gather``). The
panels that the microkernel reads are filled from it block by block; the matrix itself, nine times
the image for 3×3 windows, is never there.

Places in one row of the image are neighbours in memory. A vector that lies within one is loaded
as it is (every second element for step 2); one that ends in the next row, or beyond an edge of the
image, by masked loads, which leave zeros where the image is padded: so the padded image is never
stored either. What lies in more than two rows, and other steps, is gathered. The masks of a vector
depend on the tap only. They are computed once, and all channels use them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracejit.codegen.builder import I32, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.gather import (
    DEPTHS,
    EDGE_EXTENT,
    EDGE_LARGEST,
    EDGE_LEAST,
    EDGE_START,
    EDGE_STEPS,
    EDGES,
    ROWS,
    STEP,
    WIDTH,
    GatherSpec,
)

_UNROLL = 4
ZERO, ONE = const(0, I64), const(1, I64)


def emit_pack_windows(
    module: Module, name: str, type: Type, width: int, gather: GatherSpec
) -> None:
    """Define ``void name(target, source, table, column, columns, total, k, depth)``.

    ``columns`` columns of B from ``column`` on (``total`` in all), depths k to k + ``depth``, go
    to panels of ``width``. Lanes beyond the last column become zeros.
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
    _Packer(b, type, width, gather).emit()
    b.ret()


class _Vector(NamedTuple):
    """A vector of columns: its place in the panels, its first column, and that one's row."""

    target: Value
    column: Value
    row: Value
    inside: Value


class _Lanes(NamedTuple):
    """The columns of a vector (vectors of i32): how many rows on each one is, -1 beyond the last
    column; its offset; and for each edge where it stands. ``rows`` (i64) is how many rows on the
    last one is."""

    row: Value
    offset: Value
    places: list[Value]
    rows: Value


class _Packer:
    def __init__(self, b: Builder, type: Type, width: int, gather: GatherSpec):
        self.b = b
        self.type = type
        self.width = width
        self.spec = gather
        self.lanes = b.target.lanes(type.bits)
        self.vector = type.vector(self.lanes)
        self.target, self.source, table, *numbers = b.parameters
        self.column, self.columns, self.total, self.k, self.depth = numbers
        self.row_width = self._number(table, WIDTH)
        self.step = const(gather.step, I64) if gather.step else self._number(table, STEP)
        self.rows = b.element(table, const(ROWS, I64), I64)
        self.depths = b.element(b.element(table, self._number(table, DEPTHS), I64), self.k, I64)
        self.edges = b.element(table, self._number(table, EDGES), I64)
        # Without edges the masks are the same for all depths.
        self.taps = self._number(self.edges, 0) if gather.edges else ONE
        self.scratch = [self._alloca(I32.vector(self.lanes)) for _ in range(2 + gather.edges)]
        self.masks = self._alloca(Type(f"i{8 * self._record}"), self.taps)

    def _alloca(self, type: Type, count: Value = ONE) -> Value:
        return self.b.emit(PTR, f"alloca {type}, i64 {count.text}, align 64")

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

        b.loop(ZERO, self.columns, lanes, [], vector)

    def _vector(self, v: _Vector) -> None:
        if self.spec.step:
            whole = self._whole(v)
            self._either(whole, lambda: self._plain(v), lambda: self._masked(v))
        else:
            self._masked(v)

    def _whole(self, v: _Vector) -> Value:
        """Return (i1) whether the vector lies in one row, and no tap reaches beyond an edge."""
        b, lanes = self.b, const(self.lanes, I64)
        whole = b.compare("le", b.add(v.inside, lanes), self.row_width)
        if not self.spec.edges:
            return whole
        extents = self._extents()
        position = self._position(v.column, extents)
        within = b.compare("le", b.add(position[-1], lanes), extents[-1])
        whole = b.and_(whole, within)
        for edge in range(self.spec.edges):
            extent = self._edge(edge, EDGE_EXTENT)
            first = self._place(edge, position)
            across = b.mul(
                self._edge(edge, EDGE_STEPS + self.spec.axes - 1), const(self.lanes - 1, I64)
            )
            for place in (first, b.add(first, across)):
                for tap in (EDGE_LEAST, EDGE_LARGEST):
                    there = b.compare("ult", b.add(place, self._edge(edge, tap)), extent)
                    whole = b.and_(whole, there)
        return whole

    def _either(
        self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None]
    ) -> None:
        def arm(write: Callable[[], None]) -> Callable[[], list[Value]]:
            def body() -> list[Value]:
                write()
                return []

            return body

        self.b.if_(condition, arm(then), arm(otherwise))

    # -- the columns of a vector ---------------------------------------------------------------

    def _lanes(self, v: _Vector) -> _Lanes:
        """Count through the columns of a vector; the last column of all stands for those after."""
        b = self.b
        last = b.sub(self.total, ONE)
        rows, offsets, *places = self.scratch
        extents = self._extents()

        def lane(i: Value, carried: list[Value]) -> list[Value]:
            row, inside, *position = carried
            column = b.add(v.column, i)
            ahead = b.select(b.compare("le", column, last), b.sub(row, v.row), const(-1, I64))
            self._put(ahead, rows, i)
            self._put(self._offset(row, inside), offsets, i)
            for edge, place in enumerate(places):
                self._put(self._place(edge, position), place, i)
            more = b.compare("lt", column, last)
            inside, wraps = self._count(inside, self.row_width, more)
            row = b.add(row, b.convert(wraps, I64, signed=False))
            for axis in reversed(range(len(extents))):
                position[axis], more = self._count(position[axis], extents[axis], more)
            return [row, inside, *position]

        first = self._position(v.column, extents)
        row, *_ = b.loop(
            ZERO, const(self.lanes, I64), 1, [v.row, v.inside, *first], lane
        )  # fmt: skip
        read = [b.load(s, I32.vector(self.lanes)) for s in self.scratch]
        return _Lanes(read[0], read[1], read[2:], b.sub(row, v.row))

    def _extents(self) -> list[Value]:
        """Return the extents of the axes that the columns count through."""
        return [self._number(self.edges, 1 + i) for i in range(self.spec.axes)]

    def _put(self, value: Value, array: Value, i: Value) -> None:
        self.b.store(self.b.convert(value, I32), self.b.element(array, i, I32))

    def _count(self, position: Value, extent: Value, more: Value) -> tuple[Value, Value]:
        """Advance where ``more``; return the position, and whether it has begun anew."""
        b = self.b
        following = b.add(position, b.convert(more, I64, signed=False))
        wraps = b.compare("eq", following, extent)
        return b.select(wraps, ZERO, following), wraps

    def _position(self, column: Value, extents: list[Value]) -> list[Value]:
        """Return where a column is along the axes of the columns."""
        b = self.b
        found: list[Value] = []
        for extent in reversed(extents):
            outer = b.div(column, extent, signed=False)
            found.append(b.sub(column, b.mul(outer, extent)))
            column = outer
        return found[::-1]

    def _edge(self, edge: int, place: int) -> Value:
        size = EDGE_STEPS + self.spec.axes
        return self._number(self.edges, 1 + self.spec.axes + edge * size + place)

    def _place(self, edge: int, position: list[Value]) -> Value:
        b = self.b
        place = self._edge(edge, EDGE_START)
        for axis, at in enumerate(position):
            place = b.add(place, b.mul(at, self._edge(edge, EDGE_STEPS + axis)))
        return place

    def _offset(self, row: Value, inside: Value) -> Value:
        b = self.b
        first = b.load(b.element(self.rows, row, I64), I64)
        return b.add(first, b.mul(inside, self.step))

    # -- masks ---------------------------------------------------------------------------------

    @property
    def _word(self) -> Type:
        """How a mask is kept: bits where the target has masks, elsewhere lanes of ones."""
        if self.b.target.masks:
            return Type(f"i{self.lanes}")
        return Type(f"i{self.type.bits}", self.lanes)

    @property
    def _parts(self) -> int:
        """Masks of a tap: of all lanes, and of the vectors loaded for the first and second row."""
        return 1 + 2 * self.spec.step

    @property
    def _record(self) -> int:
        """Bytes of the masks of a tap."""
        return self._parts * self._word.lanes * self._word.bits // 8

    def _mask_at(self, tap: Value, part: int) -> Value:
        b = self.b
        place = b.mul(tap, const(self._record, I64))
        return b.offset(b.offset(self.masks, place), const(part * self._record // self._parts, I64))

    def _write_masks(self, lanes: _Lanes) -> None:
        """Write the masks of every tap."""
        b = self.b
        zeros, ones = (const(i, lanes.row.type) for i in (0, 1))
        rows = [b.compare("ge", lanes.row, zeros)]
        if self.spec.step:
            rows += [b.compare("eq", lanes.row, which) for which in (zeros, ones)]
        extents = [
            b.splat(b.convert(self._edge(e, EDGE_EXTENT), I32), self.lanes)
            for e in range(self.spec.edges)
        ]
        numbers = 1 + self.spec.axes + self.spec.edges * (EDGE_STEPS + self.spec.axes)

        def tap(t: Value, _: list[Value]) -> list[Value]:
            masks = list(rows)
            for edge, (place, extent) in enumerate(zip(lanes.places, extents, strict=True)):
                number = b.add(t, b.mul(self.taps, const(edge, I64)))
                shift = b.load(
                    b.element(b.element(self.edges, const(numbers, I64), I64), number, I64), I64
                )
                moved = b.add(place, b.splat(b.convert(shift, I32), self.lanes))
                there = b.compare("ult", moved, extent)
                masks = [b.and_(mask, there) for mask in masks]
            kept = masks[:1]
            for mask in masks[1:]:
                kept += self._spread(mask)
            for part, mask in enumerate(kept):
                self._store_mask(mask, self._mask_at(t, part))
            return []

        b.loop(ZERO, self.taps, 1, [], tap)

    def _spread(self, mask: Value) -> list[Value]:
        """Return the masks of the vectors that ``_row`` loads."""
        if self.spec.step == 1:
            return [mask]
        b, lanes = self.b, self.lanes
        none, half = const(False, mask.type), lanes // 2
        even = [i // 2 if i % 2 == 0 else lanes for i in range(lanes)]
        odd = [half + i // 2 if i % 2 else lanes for i in range(lanes)]
        return [b.shuffle(mask, none, even), b.shuffle(mask, none, odd)]

    def _store_mask(self, mask: Value, place: Value) -> None:
        b, word = self.b, self._word
        kept = b.bitcast(mask, word) if b.target.masks else b.emit(
            word, f"sext {mask.type} {mask.text} to {word}"
        )  # fmt: skip
        b.store(kept, place)

    def _load_mask(self, tap: Value, part: int) -> Value:
        b = self.b
        word = b.load(self._mask_at(tap, part), self._word)
        if b.target.masks:
            return b.bitcast(word, Type("i1", self.lanes))
        return b.compare("lt", word, const(0, word.type))

    # -- reading -------------------------------------------------------------------------------

    def _plain(self, v: _Vector) -> None:
        b = self.b
        start = b.element(self.source, self._offset(v.row, v.inside), self.type)
        self._each_depth(v.target, lambda depth, _: self._row(b.element(start, depth, self.type)))

    def _masked(self, v: _Vector) -> None:
        b = self.b
        lanes = self._lanes(v)
        self._write_masks(lanes)
        if not self.spec.step:
            self._gathered(v, lanes)
            return

        def several() -> None:
            two = b.compare("eq", lanes.rows, ONE)
            self._either(two, lambda: self._two_rows(v, lanes), lambda: self._gathered(v, lanes))

        single = b.compare("eq", lanes.rows, ZERO)
        self._either(single, lambda: self._one_row(v), several)

    def _one_row(self, v: _Vector) -> None:
        b = self.b
        start = b.element(self.source, self._offset(v.row, v.inside), self.type)

        def read(depth: Value, tap: Value) -> Value:
            return self._row(b.element(start, depth, self.type), (tap, 1))

        self._each_depth(v.target, read)

    def _two_rows(self, v: _Vector, lanes: _Lanes) -> None:
        b = self.b
        first = b.element(self.source, self._offset(v.row, v.inside), self.type)
        following = self._offset(b.add(v.row, ONE), ZERO)
        ahead = b.mul(b.sub(self.row_width, v.inside), self.step)
        second = b.element(self.source, b.sub(following, ahead), self.type)
        after = b.compare("eq", lanes.row, const(1, lanes.row.type))

        def read(depth: Value, tap: Value) -> Value:
            one, two = (
                self._row(b.element(start, depth, self.type), (tap, part))
                for start, part in ((first, 1), (second, 1 + self.spec.step))
            )
            return b.select(after, two, one)

        self._each_depth(v.target, read)

    def _row(self, address: Value, masked: tuple[Value, int] | None = None) -> Value:
        """Return the vector whose first lane is at ``address``; nothing beyond is read.

        ``masked`` is a tap, and which of its masks is the first to use.
        """
        b, lanes = self.b, self.lanes

        def load(number: int) -> Value:
            place = b.element(address, const(number * (lanes - 1), I64), self.type)
            if masked is None:
                return b.load(place, self.vector)
            tap, part = masked
            return b.masked_load(place, self._load_mask(tap, part + number), self.vector)

        if self.spec.step == 1:
            return load(0)
        even = [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)]
        return b.shuffle(load(0), load(1), even)

    def _gathered(self, v: _Vector, lanes: _Lanes) -> None:
        b = self.b

        def read(depth: Value, tap: Value) -> Value:
            base = b.element(self.source, depth, self.type)
            return b.gather(base, lanes.offset, self.vector, self._load_mask(tap, 0))

        self._each_depth(v.target, read)

    def _each_depth(self, target: Value, read: Callable[[Value, Value], Value]) -> None:
        """Write the loop that stores what ``read`` returns for the offset and tap of each depth."""
        b = self.b
        bulk = b.and_(self.depth, const(-_UNROLL, I64))

        def step(count: int) -> Callable[[Value, list[Value]], list[Value]]:
            def body(k: Value, carried: list[Value]) -> list[Value]:
                to, tap = carried
                for i in range(count):
                    place = b.element(self.depths, b.add(k, const(i, I64)) if i else k, I64)
                    value = read(b.load(place, I64), tap)
                    b.store(value, b.element(to, const(i * self.width, I64), self.type))
                    if self.spec.edges:
                        following = b.add(tap, ONE)
                        again = b.compare("eq", following, self.taps)
                        tap = b.select(again, ZERO, following)
                return [b.element(to, const(count * self.width, I64), self.type), tap]

            return body

        first = b.rem(self.k, self.taps, signed=False) if self.spec.edges else ZERO
        carried = b.loop(ZERO, bulk, _UNROLL, [target, first], step(_UNROLL))
        b.loop(bulk, self.depth, 1, carried, step(1))
