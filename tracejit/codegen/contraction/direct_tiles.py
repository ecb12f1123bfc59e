"""Convolutions of float32 in tile registers: no window is packed, the image is split once.

A tile of B has a pair of depths in each row, for 16 places. With pairs of channels and the planes
of ``planes`` these are 64 bytes in each of 16 planes, equally far apart; so every tap of a tile's
channels is the same tile at another offset. An image is split as products of float32 are
(``split``), once for each of its numbers and not for each window:

    [block of 32 channels][phase][part][pair][line][place]

and the weights ahead, for all threads, or where only one tile reads a row of them by that:

    [panel of 32 rows][block][tap][part][row][pair]

    for (batch, block of outermost places):    a run: the row tiles of [begin, end) in it
      split the lines of the planes that it reads
      for row tile: for row panel: for 32 places:
        for block: for tap: sums += weights · planes[tap + place …]
        sums → C, or the epilogue

Measured on one core against the best that packing could do, tiles of windows that are there
already: 390 GFLOP/s in place of 240 to 270, since taps find in the first-level cache what the tap
before has loaded.
"""

from __future__ import annotations

from collections.abc import Callable

from tracejit.codegen.builder import F32, I1, I32, I64, PTR, VOID, Builder, Module, Value, const
from tracejit.codegen.contraction import planes
from tracejit.codegen.contraction.amx import Columns, Sums, configure, ranged_sums, release
from tracejit.codegen.contraction.blocking import PARTS, TILE, TILES
from tracejit.codegen.contraction.direct import Direct, Lines, entry
from tracejit.codegen.contraction.frame import ONE, ZERO
from tracejit.codegen.contraction.panels import NO, micro_name
from tracejit.codegen.contraction.spec import PACKED_POINTER, GemmSpec, Slot
from tracejit.codegen.contraction.split import (
    Range,
    emit_exact,
    empty_range,
    pieces,
    scaled,
    store_range,
    wider_range,
)

YES = const(True, I1)
_HEIGHTS, _WIDTHS = (2 * TILE, TILE), (2, 1)
# Elements of a tile of the split weights, of one part and of all.
_PART = TILES.rows * TILE
_STEP = PARTS * _PART


def emit_parts(module: Module, name: str, spec: GemmSpec) -> None:
    """Define the functions that the kernel calls."""
    emit_exact(module, f"{name}.exact")
    for rows in _HEIGHTS:
        for vectors in _WIDTHS:
            _emit_sums(module, micro_name(name, rows, vectors), f"{name}.exact", rows, vectors)
    _emit_image(module, f"{name}.image", spec)
    _emit_weights(module, f"{name}.weights")


# -- sums ------------------------------------------------------------------------------------------


def _emit_sums(module: Module, name: str, exact: str, rows: int, vectors: int) -> None:
    """Define ``void name(a, planes, last_row, pitch, table, depth, c, c_row)``: the sums of a panel
    of weights at ``vectors`` · 16 places.

    ``planes`` is where the first of these finds tap 0 of phase 0, ``last_row`` has the range of the
    image, and planes are ``pitch`` elements apart.
    """
    names = ("a", "planes", "last_row", "pitch", "table", "depth", "c", "cr")
    b = module.define(
        name,
        VOID,
        [(n, I64 if n in ("pitch", "depth", "cr") else PTR) for n in names],
        linkage="internal",
        attributes="nounwind noinline",
    )
    a, image, last_row, pitch, table, depth, c, c_row = b.parameters
    taps = b.element(table, entry(b, table, planes.TAPS), I64)
    count = entry(b, table, planes.TAP_COUNT)
    phase_pitch = b.mul(pitch, const(PARTS * TILE, I64))
    block_pitch = b.mul(phase_pitch, entry(b, table, planes.PHASES))

    def depths(add: Callable[[Value, Columns], None]) -> None:
        def tap(t: Value, carried: list[Value]) -> list[Value]:
            weights, block = carried
            own = b.element(taps, b.mul(t, const(3, I64)), I64)
            phase = b.element(block, b.mul(entry(b, own, 1), phase_pitch), I32)
            add(weights, Columns(b.element(phase, entry(b, own, 2), I32), pitch))
            return [b.element(weights, const(_STEP, I64), I32), block]

        def block(_: Value, carried: list[Value]) -> list[Value]:
            weights, block = b.loop(ZERO, count, 1, carried, tap)
            return [weights, b.element(block, block_pitch, I32)]

        b.loop(ZERO, depth, b.mul(count, const(PARTS * TILE, I64)), [a, image], block)

    ranges = Range.of(b, a, depth), Range.at(b, last_row)
    sums = Sums(c, c_row, rows, vectors)
    ranged_sums(b, depths, ranges, sums, exact, const(rows, I64), [None] * vectors)
    b.ret()


# -- the image -------------------------------------------------------------------------------------


def _emit_image(module: Module, name: str, spec: GemmSpec) -> None:
    """Define ``void name(target, last_row, pitch, table, image, first, height, raw)``: split the
    lines that ``height`` outermost places from ``first`` on read, and store their range.

    ``raw``: planes are to have the numbers themselves.
    """
    assert spec.gather is not None
    names = ("target", "last_row", "pitch", "table", "image", "first", "height")
    b = module.define(
        name,
        VOID,
        [*((n, I64 if n in ("pitch", "first", "height") else PTR) for n in names), ("raw", I1)],
        linkage="internal",
        attributes="nounwind noinline",
    )
    target, last_row, pitch, table, image, first, height, raw = b.parameters
    lines = Lines(b, spec.type, spec.gather.step, table, image, first, height)
    phases, channels = (entry(b, table, n) for n in (planes.PHASES, planes.CHANNELS))
    width = entry(b, table, planes.PITCH)
    parts = [b.mul(const(n * TILE, I64), pitch) for n in range(PARTS)]

    def place(pair: Value, phase: Value) -> Value:
        """Return where the plane of a pair's first part is."""
        within = b.and_(pair, const(TILE - 1, I64))
        before = b.add(b.mul(b.lshr(pair, const(4, I64)), phases), phase)
        plane = b.add(b.mul(before, const(PARTS * TILE, I64)), within)
        return b.element(target, b.mul(plane, pitch), I32)

    def planes_of_pair(even: Value, odd: Value | None, found: list[Value]) -> list[Value]:
        def phase(p: Value, found: list[Value]) -> list[Value]:
            plane = place(b.lshr(even, const(1, I64)), p)

            def line(i: Value, found: list[Value]) -> list[Value]:
                start = b.element(plane, b.mul(i, width), I32)
                starts = [b.element(start, part, I32) for part in parts]
                pair = [even] if odd is None else [even, odd]
                reads = [lines.line(channel, p, i) for channel in pair]

                def vector(j: Value, found: list[Value]) -> list[Value]:
                    made = [read(j) for read in reads]
                    if odd is None:
                        made.append(const(0.0, made[0].type))
                    large = [scaled(b, value) for value in made]
                    for at, element in zip(starts, pieces(b, made, large, raw), strict=True):
                        b.store(element, b.element(at, j, I32))
                    return [wider_range(b, found[0], large)]

                return b.loop(ZERO, width, TILE, found, vector)

            return b.loop(ZERO, lines.count, 1, found, line)

        return b.loop(ZERO, phases, 1, found, phase)

    def none(pair: Value, _: list[Value]) -> list[Value]:
        def phase(p: Value, _: list[Value]) -> list[Value]:
            plane = place(pair, p)
            for part in parts:
                start = b.element(plane, part, I32)

                def zero(j: Value, _: list[Value], start: Value = start) -> list[Value]:
                    b.store(const(0, I32.vector(TILE)), b.element(start, j, I32))
                    return []

                b.loop(ZERO, pitch, TILE, [], zero)
            return []

        return b.loop(ZERO, phases, 1, [], phase)

    whole = b.and_(channels, const(-2, I64))
    start = [empty_range()]
    found = b.loop(ZERO, whole, 2, start, lambda c, f: planes_of_pair(c, b.add(c, ONE), f))
    found = b.loop(whole, channels, 1, found, lambda c, f: planes_of_pair(c, None, f))
    store_range(b, last_row, *found)
    # Weights that are not there are zero, and so must be what they are multiplied with.
    used = b.lshr(b.add(channels, ONE), const(1, I64))
    blocks = b.and_(b.add(used, const(TILE - 1, I64)), const(-TILE, I64))
    b.loop(used, blocks, 1, [], none)
    b.ret()


# -- the weights -----------------------------------------------------------------------------------


def _emit_weights(module: Module, name: str) -> None:
    """Define ``void name(target, source, a_row, a_depth, rows, depth, table, raw)``: split a panel
    of up to 32 rows of weights, with its range behind it; the others become zeros."""
    names = ("target", "source", "ar", "ad", "rows", "depth", "table")
    pointers = ("target", "source", "table")
    b = module.define(
        name,
        VOID,
        [*((n, PTR if n in pointers else I64) for n in names), ("raw", I1)],
        linkage="internal",
        attributes="nounwind noinline",
    )
    target, source, a_row, a_depth, rows, depth, table, raw = b.parameters
    offsets, blocks = _offsets_of_pairs(b, table, a_depth)
    taps = b.element(table, entry(b, table, planes.TAPS), I64)
    count = entry(b, table, planes.TAP_COUNT)
    vector, indices = F32.vector(TILE), I32.vector(TILE)

    def block(k: Value, found: list[Value]) -> list[Value]:
        halves: list[tuple[Value, Value]] = []
        for half in range(2):
            at = b.add(b.mul(k, const(2 * TILE, I64)), const(half * TILE, I64))
            index = b.load(b.element(offsets, at, I32), indices)
            halves.append((index, b.compare("ge", index, const(0, indices))))
        start = b.element(target, b.mul(b.mul(k, count), const(_STEP, I64)), I32)

        def row(r: Value, found: list[Value]) -> list[Value]:
            there = b.splat(b.compare("lt", r, rows), TILE)
            weights = b.element(source, b.mul(r, a_row), F32)

            def tap(t: Value, carried: list[Value]) -> list[Value]:
                place, *found = carried
                more = b.load(b.element(taps, b.mul(t, const(3, I64)), I64), I64)
                base = b.element(weights, b.mul(more, a_depth), F32)
                made = [b.gather(base, i, vector, b.and_(mask, there)) for i, mask in halves]
                large = [scaled(b, value) for value in made]
                for n, element in enumerate(pieces(b, made, large, raw)):
                    b.store(element, b.element(place, const(n * _PART, I64), I32))
                return [b.element(place, const(_STEP, I64), I32), wider_range(b, found[0], large)]

            first = b.element(start, b.mul(r, const(TILE, I64)), I32)
            return b.loop(ZERO, count, 1, [first, *found], tap)[1:]

        return b.loop(ZERO, const(TILES.rows, I64), 1, found, row)

    found = b.loop(ZERO, blocks, 1, [empty_range()], block)
    last_row = b.element(target, b.mul(depth, const(TILES.rows, I64)), I32)
    store_range(b, last_row, *found)

    def again() -> list[Value]:
        arguments = (*b.parameters[:-1], YES)
        b.effect(f"call void @{name}({', '.join(f'{v.type} {v.text}' for v in arguments)})")
        return []

    b.if_(b.and_(Range.at(b, last_row).irregular(b), b.not_(raw)), again)
    b.ret()


def _offsets_of_pairs(b: Builder, table: Value, a_depth: Value) -> tuple[Value, Value]:
    """Return where in a row of weights the first tap of each channel is, -1 of those that are not
    there: for each block of 32 channels the first of 16 pairs, then the second; and how many blocks
    there are."""
    channels = entry(b, table, planes.CHANNELS)
    blocks = b.lshr(b.add(channels, const(2 * TILE - 1, I64)), const(5, I64))
    room = b.mul(blocks, const(2 * TILE, I64))
    offsets = b.emit(PTR, f"alloca i32, i64 {room.text}, align 64")
    rows = b.element(table, entry(b, table, planes.CHANNEL_TABLE), I64)

    def channel(c: Value, _: list[Value]) -> list[Value]:
        block = b.and_(c, const(-2 * TILE, I64))
        within = b.sub(c, block)
        half = b.mul(b.and_(within, ONE), const(TILE, I64))
        place = b.add(block, b.add(half, b.lshr(within, const(1, I64))))
        own = b.intrinsic("smin", I64, c, b.sub(channels, ONE))
        first = b.load(b.element(rows, b.mul(own, const(3, I64)), I64), I64)
        known = b.compare("lt", c, channels)
        offset = b.select(known, b.mul(first, a_depth), const(-1, I64))
        b.store(b.convert(offset, I32), b.element(offsets, place, I32))
        return []

    b.loop(ZERO, room, 1, [], channel)
    return offsets, blocks


# -- the kernel ------------------------------------------------------------------------------------


class DirectTiles(Direct):
    """Writes both stages of the kernel: a number says which one a call is."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec):
        super().__init__(b, name, spec)
        self.packed = self.pointer(PACKED_POINTER)
        self.last_row = self.planes
        self.planes = b.element(self.planes, const(TILES.columns, I64), self.type)
        self.depth = self.loaded[Slot.BLOCK_K]
        self.panel_depth = b.add(self.depth, ONE)  # its range stands behind it
        number = self.number
        more = b.sub(number[planes.OUTER], number[planes.OUTER_PLACES])
        lines = b.add(self.loaded[Slot.TILE_N], more)
        elements = b.add(b.mul(lines, number[planes.OUTER_PITCH]), const(3 * TILE - 1, I64))
        odd = b.or_(b.lshr(elements, const(4, I64)), ONE)
        self.pitch = b.mul(odd, const(TILE, I64))  # Planes.pair_pitch

    def emit(self) -> None:
        b = self.b

        def compute() -> list[Value]:
            configure(b, self.name)
            super(DirectTiles, self).emit()
            release(b)
            return []

        packing = b.compare("ne", self.loaded[Slot.PACKING], ZERO)
        b.if_(packing, lambda: b.loop(self.begin, self.end, 1, [], self._pack_strip), compute)

    def _panel(self, element: Value, row: Value) -> Value:
        """Return where the weights of a batch element from ``row`` on are."""
        b, get = self.b, self.loaded
        start = b.mul(b.rem(element, get[Slot.ALONE], signed=False), get[Slot.PACKED])
        return b.element(self.packed, b.add(start, b.mul(row, self.panel_depth)), self.type)

    def _pack_strip(self, index: Value, _: list[Value]) -> list[Value]:
        """Split some panels of weights."""
        b, get = self.b, self.loaded
        batch = b.div(index, get[Slot.STRIPS], signed=False)
        first = b.mul(b.sub(index, b.mul(batch, get[Slot.STRIPS])), get[Slot.STRIP])
        end = self.minimum(b.add(first, get[Slot.STRIP]), get[Slot.M])
        a, *_ = self.batch_element(b.add(batch, get[Slot.FIRST_BATCH]))

        def panel(row: Value, _: list[Value]) -> list[Value]:
            self._split_panel(self._panel(batch, row), a, row)
            return []

        return b.loop(first, end, TILES.rows, [], panel)

    def _split_panel(self, target: Value, a: Value, row: Value) -> None:
        b, get = self.b, self.loaded
        rows = self.minimum(b.sub(get[Slot.M], row), const(TILES.rows, I64))
        strides = get[Slot.A_ROW], get[Slot.A_DEPTH]
        source = self.at(a, (row, Slot.A_ROW))
        self.call("weights", target, source, *strides, rows, self.depth, self.table, NO)

    def _run(self, batch: Value, tile: Value, low: Value, high: Value) -> None:
        b, get = self.b, self.loaded
        element = b.add(batch, get[Slot.FIRST_BATCH])
        a, image, c = self.batch_element(element)
        first = b.mul(tile, get[Slot.TILE_N])
        height = self.minimum(b.sub(self.number[planes.OUTER_PLACES], first), get[Slot.TILE_N])
        self.fill(image, first, height)

        def row_tile(part: Value, _: list[Value]) -> list[Value]:
            row = b.mul(part, get[Slot.TILE_M])
            rows = self.minimum(b.sub(get[Slot.M], row), get[Slot.TILE_M])
            self._panels(batch, a, row, rows, self._flat(height))
            self.finish(c, element, row, rows, first, height)
            return []

        b.loop(low, high, 1, [], row_tile)

    def fill(self, image: Value, first: Value, height: Value) -> None:
        """Split the image; where it is irregular, leave its numbers."""
        b = self.b

        def split(raw: Value) -> list[Value]:
            to = self.planes, self.last_row, self.pitch, self.table
            self.call("image", *to, image, first, height, raw)
            return []

        split(NO)
        b.if_(Range.at(b, self.last_row).irregular(b), lambda: split(YES))

    def _panels(self, batch: Value, a: Value, first: Value, rows: Value, places: Value) -> None:
        """Leave the sums of ``rows`` rows from ``first`` on at ``places`` in the workspace,
        ``row_pitch`` apart."""
        b, get = self.b, self.loaded
        alone = b.compare("eq", get[Slot.PACKED], ZERO)
        here = b.element(self.work, get[Slot.WORK_B], self.type)

        def panel(i: Value, _: list[Value]) -> list[Value]:
            row = b.add(first, i)

            def split() -> list[Value]:
                self._split_panel(here, a, row)
                return [here]

            (weights,) = b.if_(alone, split, lambda: [self._panel(batch, row)])
            low = b.compare("le", b.sub(rows, i), const(TILE, I64))

            def columns(width: int, begin: Value, end: Value) -> None:
                high_name, low_name = (micro_name(self.name, h, width) for h in _HEIGHTS)
                function = b.select(low, Value(f"@{low_name}", PTR), Value(f"@{high_name}", PTR))

                def block(j: Value, _: list[Value]) -> list[Value]:
                    place = b.add(b.mul(i, self.row_pitch), j)
                    arguments = (
                        weights, b.element(self.planes, j, self.type), self.last_row, self.pitch,
                        self.table, self.depth, b.element(self.work, place, self.type),
                        self.row_pitch,
                    )  # fmt: skip
                    spelled = ", ".join(f"{v.type} {v.text}" for v in arguments)
                    b.effect(f"call void {function.text}({spelled})")
                    return []

                b.loop(begin, end, width * TILE, [], block)

            whole = b.and_(places, const(-2 * TILE, I64))
            columns(2, ZERO, whole)
            columns(1, whole, places)
            return []

        b.loop(ZERO, rows, TILES.rows, [], panel)
