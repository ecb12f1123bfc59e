"""Packs an operand that is computed from what is in memory: a prologue, or narrow integers.

Panels are those of ``pack.py``, each with the values of a kernel's expression, which the emitter of
loop kernels writes. Where memory is contiguous across a panel the values go straight to it;
otherwise they are computed along the depth, row by row beside the panel, and transposed into it.

An element may hold several narrow numbers that follow in the depth (``Dot``); beyond the depth
they are zero. Of a float32 that is split (``split``) there are three such elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.blocking import TILE
from tracejit.codegen.contraction.dot import multiply_add
from tracejit.codegen.contraction.pack import emit_pack, transpose
from tracejit.codegen.contraction.prologue import Dot, KernelPrologue
from tracejit.codegen.contraction.spec import GemmSpec, Layout, Side
from tracejit.codegen.contraction.split import (
    Range,
    close_range,
    empty_range,
    extend_range,
    open_range,
    pieces,
    scaled,
    wider_range,
)
from tracejit.codegen.contraction.tile import enter_batch
from tracejit.codegen.elementwise import splat_to
from tracejit.codegen.loops import KernelEmitter
from tracejit.codegen.scope import Scope, Vector
from tracejit.codegen.types import is_signed, register_type
from tracejit.schedule.product import reached

ZERO, ONE = const(0, I64), const(1, I64)

# Panels that take a row at a time: see pack._copy_groups.
_GROUP = 4
_PARTS: dict[Dot, str] = {"words": "i16", "bytes": "i8", "tiles": "i8", "pairs": "i16"}


# Where the value at some depth of a row goes.
Address = Callable[[Value], Value]


class Operand(NamedTuple):
    """One of the computed operands of a product, and which of its axes is contiguous."""

    prologue: KernelPrologue
    side: Side
    layout: Layout

    @property
    def position(self) -> int:
        found = self.prologue.a if self.side == "a" else self.prologue.b
        assert found is not None
        return found

    @property
    def tiled(self) -> bool:
        """Whether panels are made of tiles."""
        return self.side == "a" and self.prologue.tiled

    @property
    def across(self) -> int:
        """The kernel's axis across the panels."""
        return self.prologue.rows if self.side == "a" else self.prologue.columns


def emit_pack_computed(module: Module, name: str, spec: GemmSpec, operand: Operand) -> None:
    """Define ``void name(target, stage, first, extent, k, depth, batch, ptrs, sizes)``.

    ``extent`` rows of A (columns of B) from ``first`` on are computed, and ``depth`` elements of
    each from element ``k`` on. ``stage`` has room for one panel; ``ptrs`` and ``sizes`` are the
    kernel's own. For split numbers a flag follows, ``raw``: panels are to have the numbers.
    """
    if operand.layout == "depth" and not operand.tiled:
        unit = spec.unit(module.target)
        width = unit.rows if operand.side == "a" else unit.columns
        emit_pack(module, f"{name}.turn", spec.type, width, "depth")
    names = ("target", "stage", "first", "extent", "k", "depth", "batch", "ptrs", "sizes")
    raw = [("raw", I1)] if operand.prologue.pieces > 1 else []
    b = module.define(
        name,
        VOID,
        [*((n, PTR if n in ("target", "stage", "ptrs", "sizes") else I64) for n in names), *raw],
        linkage="internal",
        attributes="nounwind noinline",
    )
    _Evaluator(b, name, spec, operand).emit()
    b.ret()


class _Evaluator:
    """Writes the function: panels, their rows or columns, and vectors of these."""

    def __init__(self, b: Builder, name: str, spec: GemmSpec, operand: Operand):
        self.b, self.name, self.operand = b, name, operand
        self.target, self.stage, self.first, self.extent, k, self.depth, batch, ptrs, sizes = (
            b.parameters[:9]
        )
        self.raw = b.parameters[-1]
        prologue = operand.prologue
        unit = spec.unit(b.target)
        self.type = spec.type
        self.width = unit.rows if operand.side == "a" else unit.columns
        self.along = operand.layout == "depth"
        self.split = prologue.dot == "split"
        self.pieces = prologue.pieces
        self.tiled = operand.tiled
        self.group = prologue.group
        self.dot: Dot = prologue.dot
        self.part = Type(_PARTS.get(self.dot, spec.dtype))
        self.biased = operand.side == "a" and prologue.biased
        self.corrected = operand.side == "b" and prologue.biased
        self.dtype = prologue.kernel.exprs[operand.position].dtype
        lanes = self._lanes_along() if self.along else unit.lanes
        self.lanes = lanes
        # A vector that is wider than the panel runs into the next one, which must come later.
        self.strip = self.width * (1 if self.width % lanes or self.tiled else _GROUP)
        self.emitter = KernelEmitter(b, prologue.kernel, (ptrs, sizes, ZERO, ZERO), lanes)
        self.emitter.load_arguments()
        self.scope = enter_batch(self.emitter, prologue.batch, batch)
        self.emitter.prepare(self.scope, [operand.position])
        # The depths of the block, and how many elements hold depths only.
        pieces = const(self.pieces, I64)
        self.elements = b.div(self.depth, pieces, signed=False) if self.split else self.depth
        first = b.div(k, pieces, signed=False) if self.split else k
        self.start = b.mul(first, const(self.group, I64))
        left = b.sub(self.emitter.extents[prologue.depth], self.start)
        self.count = b.intrinsic("smin", I64, left, b.mul(self.elements, const(self.group, I64)))
        self.panel_depth = b.add(self.depth, const(spec.last_rows(operand.side), I64))

    def _lanes_along(self) -> int:
        """Return how many values of the widest type in between fill a register."""
        kernel = self.operand.prologue.kernel
        bits = [register_type(e.dtype).bits for e in reached(kernel, self.operand.position)]
        return self.b.target.lanes(max(self.part.bits, *bits))

    def emit(self) -> None:
        b = self.b
        if self.split and not self.along:
            b.loop(ZERO, self.extent, self.width, [], self._opened)
        if self.along:
            panel = self._panel_of_tiles if self.tiled else self._turned_panel
            b.loop(ZERO, self.extent, self.width, [], panel)
        elif self.tiled:
            b.loop(ZERO, self.extent, self.width, [], self._staged_panel)
        else:
            b.loop(ZERO, self.extent, self.strip, [], self._strip)
        if self.corrected:
            b.loop(ZERO, self.extent, self.width, [], self._correction)
        if self.split:
            b.loop(ZERO, self.extent, self.width, [], self._closed)

    def _panel(self, place: Value) -> Value:
        """Return the panel that starts with row (or column) ``place`` of the block."""
        return self.b.element(self.target, self.b.mul(place, self.panel_depth), self.type)

    def _last_row(self, place: Value) -> Value:
        """Return the row behind the panel of ``place``."""
        end = self.b.mul(self.depth, const(self.width, I64))
        return self.b.element(self._panel(place), end, self.type)

    def _opened(self, place: Value, _: list[Value]) -> list[Value]:
        open_range(self.b, self._last_row(place))
        return []

    def _closed(self, place: Value, _: list[Value]) -> list[Value]:
        """Close the range of a panel, which is packed anew where it is irregular."""
        b, last_row = self.b, self._last_row(place)
        close_range(b, last_row)

        def again() -> list[Value]:
            changed = {
                0: self._panel(place),
                2: b.add(self.first, place),
                3: b.intrinsic("smin", I64, b.sub(self.extent, place), const(self.width, I64)),
                9: const(True, I1),
            }
            values = [changed.get(i, p) for i, p in enumerate(b.parameters)]
            b.effect(f"call void @{self.name}({', '.join(f'{v.type} {v.text}' for v in values)})")
            return []

        irregular = Range.at(b, last_row).irregular(b)
        b.if_(b.and_(irregular, b.not_(self.raw)), again)
        return []

    def _place(self, depth: Value) -> Value:
        """Return where in a panel the first element of (grouped) ``depth`` is: pieces of split
        numbers follow each other by tiles."""
        if not self.split:
            return depth
        b = self.b
        whole = b.and_(depth, const(-TILE, I64))
        return b.add(depth, b.mul(whole, const(self.pieces - 1, I64)))

    # -- contiguous across the panels ----------------------------------------------------------

    def _strip(self, start: Value, _: list[Value]) -> list[Value]:
        """Compute some panels side by side, depth by depth: a cache line serves several."""
        b = self.b
        stop = b.intrinsic("smin", I64, b.add(start, const(self.strip, I64)), self.extent)
        whole = self._whole_elements()

        def full(depth: Value, _: list[Value]) -> list[Value]:
            rows = [self._row(depth, i) for i in range(self.group)]
            self._across(start, stop, depth, lambda v: [self._value(r, v) for r in rows])
            return []

        def rest(depth: Value, _: list[Value]) -> list[Value]:
            def parts(v: tuple[int, Value, Vector]) -> list[Value]:
                return [self._within(depth, i, v) for i in range(self.group)]

            self._across(start, stop, depth, parts)
            return []

        b.loop(ZERO, whole, 1, [], full)
        b.loop(whole, self.elements, 1, [], rest)
        return []

    def _whole_elements(self) -> Value:
        """Return how many elements have all their depths before the last one."""
        b = self.b
        if self.split:
            return b.and_(b.lshr(self.count, const(1, I64)), const(-TILE, I64))
        return b.div(self.count, const(self.group, I64), signed=False)

    def _depth(self, depth: Value, part: int) -> Value:
        """Return a depth that an element holds: its neighbours, or of split numbers those in the
        same place of two vectors."""
        b = self.b
        if self.split:
            whole = b.and_(depth, const(-TILE, I64))
            return b.add(b.add(depth, whole), const(part * TILE, I64))
        return b.add(b.mul(depth, const(self.group, I64)), const(part, I64))

    def _row(self, depth: Value, part: int) -> Scope:
        """Open the scope of one depth."""
        index = self.b.add(self.start, self._depth(depth, part))
        scope = self.emitter.enter(self.scope, {self.operand.prologue.depth: index}, None)
        self.emitter.prepare(scope, [self.operand.position])
        return scope

    def _within(self, depth: Value, part: int, v: tuple[int, Value, Vector]) -> Value:
        """Compute a vector of a depth that may lie beyond the last one."""
        b = self.b
        inside = b.compare("lt", self._depth(depth, part), self.count)
        zero = const(0, (self.type if self.split else self.part).vector(self.lanes))
        (value,) = b.if_(inside, lambda: [self._value(self._row(depth, part), v)], lambda: [zero])
        return value

    def _across(
        self, start: Value, stop: Value, depth: Value,
        parts: Callable[[tuple[int, Value, Vector]], list[Value]],
    ) -> None:  # fmt: skip
        """Write the elements of one depth to the panels from ``start`` up to ``stop``."""
        b, axis = self.b, self.operand.across

        def panel(place: Value, _: list[Value]) -> list[Value]:
            left = b.sub(stop, place)
            panel = self.stage if self.tiled else self._panel(place)
            row = b.element(panel, b.mul(self._place(depth), const(self.width, I64)), self.type)

            def vectors(known: int | None) -> list[Value]:
                all_large: list[Value] = []
                for v in range(0, self.width, self.lanes):
                    mask = None
                    if known is None or v + self.lanes > known:
                        limit = left if known is None else const(known, I64)
                        lane = b.lane_index(I64.vector(self.lanes))
                        here = b.splat(b.sub(limit, const(v, I64)), self.lanes)
                        mask = b.compare("lt", lane, here)
                    column = b.add(b.add(self.first, place), const(v, I64))
                    made = parts((v, column, Vector(axis, self.lanes, 1, mask)))
                    if self.split:
                        elements, large = self._split(made, mask)
                        all_large += large
                    else:
                        elements = [self._joined(made)]
                    for i, element in enumerate(elements):
                        at = const(i * TILE * self.width + v, I64)
                        b.store(element, b.element(row, at, self.type))
                if self.split:
                    extend_range(b, self._last_row(place), all_large)
                return []

            whole = b.compare("ge", left, const(self.width, I64))
            b.if_(whole, lambda: vectors(self.width), lambda: vectors(None))
            return []

        b.loop(start, stop, self.width, [], panel)

    def _split(
        self, values: Sequence[Value], *masks: Value | None
    ) -> tuple[list[Value], list[Value]]:
        """Return the elements for the numbers of two depths, and these scaled; what is not in the
        mask of either counts as zero."""
        b, zero = self.b, const(0.0, self.type.vector(self.lanes))
        pairs = zip(values, masks if len(masks) > 1 else masks * 2, strict=True)
        inside = [value if mask is None else b.select(mask, value, zero) for value, mask in pairs]
        large = [scaled(b, value) for value in inside]
        return pieces(b, inside, large, self.raw), large

    def _value(self, row: Scope, v: tuple[int, Value, Vector]) -> Value:
        _, column, vector = v
        return self._in(self.emitter.enter(row, {self.operand.across: column}, vector))

    def _in(self, scope: Scope) -> Value:
        """Compute the operand in a scope with lanes, as a part of an element."""
        b, position = self.b, self.operand.position
        self.emitter.prepare(scope, [position])
        value = splat_to(b, self.emitter.value(scope, position)[0], self.lanes)
        if self.dot != "none" and not self.split:
            value = b.convert(value, self.part.vector(self.lanes), signed=is_signed(self.dtype))
        if self.biased:
            value = b.xor(value, const(-128, value.type))
        return value

    def _joined(self, parts: list[Value]) -> Value:
        """Join the narrow numbers of an element, the first in its low bits."""
        b = self.b
        if len(parts) == 1:
            return parts[0]
        whole = const(0, Type(f"i{self.type.bits}", self.lanes))
        for i, part in enumerate(parts):
            wide = b.convert(part, whole.type, signed=False)
            wide = b.shl(wide, const(i * self.part.bits, whole.type)) if i else wide
            whole = b.or_(whole, wide) if i else wide
        return whole

    # -- contiguous along the depth ------------------------------------------------------------

    def _lines(self, place: Value, address: Callable[[Value], Address]) -> Value:
        """Compute the rows of one panel, row i to ``address(i)``; return how many there are."""
        b = self.b
        used = b.intrinsic("smin", I64, b.sub(self.extent, place), const(self.width, I64))

        def row(i: Value, found: list[Value]) -> list[Value]:
            index = b.add(self.first, b.add(place, i))
            scope = self.emitter.enter(self.scope, {self.operand.across: index}, None)
            self.emitter.prepare(scope, [self.operand.position])
            if self.split:
                return self._split_line(scope, address(i), found)
            self._line(scope, address(i))
            return []

        found = b.loop(ZERO, used, 1, [empty_range()] if self.split else [], row)
        for range_ in found:
            b.store(range_, self._last_row(place))
        return used

    def _turned_panel(self, place: Value, _: list[Value]) -> list[Value]:
        """Compute the rows of one panel, each contiguous, and transpose them."""
        b = self.b

        def address(i: Value) -> Address:
            row = b.element(self.stage, b.mul(i, self.depth), self.type)
            unit = self.type if self.split else self.part
            return lambda at: b.element(row, at, unit)

        used = self._lines(place, address)
        call = ", ".join(
            f"{v.type} {v.text}"
            for v in (self._panel(place), self.stage, self.depth, ONE, used, self.depth)
        )
        b.effect(f"call void @{self.name}.turn({call})")
        return []

    def _line(self, row: Scope, address: Address) -> None:
        """Compute one row along the depth; what follows it may be overwritten."""
        b, axis = self.b, self.operand.prologue.depth
        whole = b.and_(self.count, const(-self.lanes, I64))

        def vector(at: Value, mask: Value | None) -> None:
            along = Vector(axis, self.lanes, 1, mask)
            value = self._in(self.emitter.enter(row, {axis: b.add(self.start, at)}, along))
            b.store(value, address(at))

        def full(at: Value, _: list[Value]) -> list[Value]:
            vector(at, None)
            return []

        def rest(at: Value, _: list[Value]) -> list[Value]:
            lane = b.lane_index(I64.vector(self.lanes))
            vector(at, b.compare("lt", lane, b.splat(b.sub(self.count, at), self.lanes)))
            return []

        def clear(at: Value, _: list[Value]) -> list[Value]:
            b.store(const(0, self.part), address(at))
            return []

        b.loop(ZERO, whole, self.lanes, [], full)
        b.loop(whole, self.count, self.lanes, [], rest)
        if self.group > 1:
            end = b.mul(self.depth, const(self.group, I64))
            b.loop(self.count, end, 1, [], clear)

    def _split_line(self, row: Scope, address: Address, found: list[Value]) -> list[Value]:
        """Compute one row along the depth: of two vectors at a time a row of each tile. Return the
        range ``found`` with it taken in."""
        b, axis = self.b, self.operand.prologue.depth
        depths = TILE * self.group
        whole = b.and_(self.count, const(-depths, I64))

        def vectors(at: Value, masked: bool, found: Value) -> list[Value]:
            made, masks = list[Value](), list[Value | None]()
            for first in range(0, depths, self.lanes):
                here, mask = b.add(at, const(first, I64)), None
                if masked:
                    lane = b.lane_index(I64.vector(self.lanes))
                    mask = b.compare("lt", lane, b.splat(b.sub(self.count, here), self.lanes))
                along = Vector(axis, self.lanes, 1, mask)
                value = self._in(self.emitter.enter(row, {axis: b.add(self.start, here)}, along))
                made.append(value)
                masks.append(mask)
            elements, large = self._split(made, *masks)
            start = self._place(b.lshr(at, const(1, I64)))
            for i, element in enumerate(elements):
                b.store(element, address(b.add(start, const(i * TILE, I64))))
            return [wider_range(b, found, large)]

        found = b.loop(ZERO, whole, depths, found, lambda at, f: vectors(at, False, *f))
        end = b.mul(self.elements, const(self.group, I64))
        return b.loop(whole, end, depths, found, lambda at, f: vectors(at, True, *f))

    # -- tiles ---------------------------------------------------------------------------------

    def _panel_of_tiles(self, place: Value, _: list[Value]) -> list[Value]:
        """Compute the rows of one panel into its tiles: 32 rows of 16 elements one after another,
        for every 16 elements of the depth."""
        b, panel = self.b, self._panel(place)
        parts = TILE * self.type.bits // self.part.bits

        def address(i: Value) -> Address:
            row = b.element(panel, b.mul(i, const(TILE, I64)), self.type)
            if self.split:  # every sixteenth depth
                return lambda at: b.element(row, b.mul(at, const(self.width, I64)), self.type)

            def at(depth: Value) -> Value:
                within = b.and_(depth, const(parts - 1, I64))
                tiles = b.mul(b.sub(depth, within), const(self.width, I64))
                return b.element(row, b.add(tiles, within), self.part)

            return at

        self._lines(place, address)
        return []

    def _staged_panel(self, place: Value, _: list[Value]) -> list[Value]:
        """Compute one panel depth by depth beside its place, and transpose it into its tiles."""
        b = self.b
        self._strip(place, [])
        panel = self._panel(place)
        vector = self.type.vector(TILE)

        def tiles(depth: Value, _: list[Value]) -> list[Value]:
            block = b.mul(depth, const(self.width, I64))
            source, target = (b.element(x, block, self.type) for x in (self.stage, panel))
            for start in range(0, self.width, TILE):
                places = [const(i * self.width + start, I64) for i in range(TILE)]
                loaded = [b.load(b.element(source, p, self.type), vector) for p in places]
                for i, row in enumerate(transpose(b, loaded)):
                    b.store(row, b.element(target, const((start + i) * TILE, I64), self.type))
            return []

        b.loop(ZERO, self.depth, TILE, [], tiles)
        return []

    # -- the bias of A -------------------------------------------------------------------------

    def _correction(self, place: Value, _: list[Value]) -> list[Value]:
        """End a panel of B with -128 · Σ of its bytes: what the bias of A adds too much."""
        b = self.b
        lanes = b.target.lanes(self.type.bits)
        vector, panel = self.type.vector(lanes), self._panel(place)
        places = [const(v, I64) for v in range(0, self.width, lanes)]
        ones = const(0x01010101, vector)

        def add(depth: Value, sums: list[Value]) -> list[Value]:
            row = b.element(panel, b.mul(depth, const(self.width, I64)), self.type)
            loaded = [b.load(b.element(row, v, self.type), vector) for v in places]
            return [
                multiply_add(b, ones, y, z, self.dot) for y, z in zip(loaded, sums, strict=True)
            ]

        sums = b.loop(ZERO, self.depth, 1, [const(0, vector)] * len(places), add)
        last = b.element(panel, b.mul(self.depth, const(self.width, I64)), self.type)
        for v, total in zip(places, sums, strict=True):
            b.store(b.mul(total, const(-128, vector)), b.element(last, v, self.type))
        return []
