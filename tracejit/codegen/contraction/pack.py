"""Copies a block of an operand into panels, in the order in which the microkernel reads.

A panel is ``width`` rows of A (or columns of B) wide; its memory holds those ``width`` elements
for depth 0, then for depth 1, and so on. The last panel may be narrower than its memory: the
lanes beyond it hold anything, since the results that they lead to are never stored.
"""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.builder import I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.spec import Layout

_GROUP = 4


class _Panel(NamedTuple):
    """The panel being written: its memory, the element that becomes its first, and strides."""

    target: Value
    source: Value
    width_stride: Value
    depth_stride: Value
    depth: Value


def emit_pack(module: Module, name: str, type: Type, width: int, layout: Layout) -> None:
    """Define ``void name(target, source, width_stride, depth_stride, extent, depth)``.

    ``extent`` elements across (any number of panels) by ``depth`` are copied; strides in
    elements. Up to a vector beyond the last panel may be overwritten.
    """
    b = module.define(
        name,
        VOID,
        [("target", PTR), ("source", PTR), ("ws", I64), ("ds", I64), ("extent", I64), ("d", I64)],
        linkage="internal",
        attributes="nounwind noinline",
        parameter_attributes=("noalias", "noalias readonly", "", "", "", ""),
    )
    target, source, width_stride, depth_stride, extent, depth = b.parameters
    one = const(1, I64)
    if layout == "width":
        width_stride = one
    elif layout == "depth":
        depth_stride = one

    def body(first: Value, _: list[Value]) -> list[Value]:
        panel = _Panel(
            b.element(target, b.mul(first, depth), type),
            b.element(source, b.mul(first, width_stride), type),
            width_stride,
            depth_stride,
            depth,
        )
        left = b.sub(extent, first)

        def full() -> list[Value]:
            if layout == "width":
                _copy_rows(b, panel, type, width)
            elif layout == "depth":
                _copy_transposed(b, panel, type, width)
            else:
                _copy_depths(b, panel, type, width, const(0, I64))
            return []

        def edge() -> list[Value]:
            if layout == "width":
                _copy_masked(b, panel, type, width, left)
            else:
                _copy_elements(b, panel, type, width, left)
            return []

        b.if_(b.compare("ge", left, const(width, I64)), full, edge)
        return []

    start = const(0, I64)
    if layout == "width":
        start = _copy_groups(
            b, _Panel(target, source, one, depth_stride, depth), type, width, extent
        )
    b.loop(start, extent, width, [], body)
    b.ret()


def _at(b: Builder, panel: _Panel, type: Type, width: int, depth: Value) -> tuple[Value, Value]:
    """Return the addresses in panel and source of depth ``depth``."""
    return (
        b.element(panel.target, b.mul(depth, const(width, I64)), type),
        b.element(panel.source, b.mul(depth, panel.depth_stride), type),
    )


def _copy_rows(b: Builder, panel: _Panel, type: Type, width: int) -> None:
    """Contiguous across: one (possibly odd) vector a step, as LLVM splits it best."""

    def body(depth: Value, _: list[Value]) -> list[Value]:
        target, source = _at(b, panel, type, width, depth)
        b.store(b.load(source, type.vector(width)), target)
        return []

    b.loop(const(0, I64), panel.depth, 1, [], body)


def _copy_groups(b: Builder, block: _Panel, type: Type, width: int, extent: Value) -> Value:
    """Contiguous across: copy ``_GROUP`` panels at a time, return how far that went.

    A row of one panel is a cache line or less, and the next row may be a page away: taking
    several panels' worth of each row makes up for it (measured: twice as fast where rows are
    4 KiB apart and fall on the same cache sets).
    """
    span = width * _GROUP
    bulk = b.sub(extent, b.rem(extent, const(span, I64), signed=False))

    def body(first: Value, _: list[Value]) -> list[Value]:
        panels = [
            b.element(block.target, b.mul(b.add(first, const(i * width, I64)), block.depth), type)
            for i in range(_GROUP)
        ]
        source = block._replace(source=b.element(block.source, first, type))

        def row(depth: Value, _: list[Value]) -> list[Value]:
            from_ = _at(b, source, type, width, depth)[1]
            place = b.mul(depth, const(width, I64))
            for i, panel in enumerate(panels):
                value = b.load(b.element(from_, const(i * width, I64), type), type.vector(width))
                b.store(value, b.element(panel, place, type))
            return []

        b.loop(const(0, I64), block.depth, 1, [], row)
        return []

    b.loop(const(0, I64), bulk, span, [], body)
    return bulk


def _copy_masked(b: Builder, panel: _Panel, type: Type, width: int, left: Value) -> None:
    """Contiguous across, fewer than ``width`` are left: the rest of the panel becomes zero."""
    lanes = min(width, b.target.lanes(type.bits))
    vector, index = type.vector(lanes), I64.vector(lanes)
    starts = [min(start, width - lanes) for start in range(0, width, lanes)]
    masks = [
        b.compare("lt", b.add(b.lane_index(index), const(s, index)), b.splat(left, lanes))
        for s in starts
    ]

    def body(depth: Value, _: list[Value]) -> list[Value]:
        target, source = _at(b, panel, type, width, depth)
        for start, mask in zip(starts, masks, strict=True):
            place = const(start, I64)
            value = b.masked_load(b.element(source, place, type), mask, vector)
            b.store(value, b.element(target, place, type))
        return []

    b.loop(const(0, I64), panel.depth, 1, [], body)


def _copy_elements(b: Builder, panel: _Panel, type: Type, width: int, used: Value) -> None:
    """Any strides, ``used`` lanes of the panel: one element at a time."""

    def lane(place: Value, _: list[Value]) -> list[Value]:
        target = b.element(panel.target, place, type)
        source = b.element(panel.source, b.mul(place, panel.width_stride), type)
        shifted = panel._replace(target=target, source=source)

        def body(depth: Value, _: list[Value]) -> list[Value]:
            to, from_ = _at(b, shifted, type, width, depth)
            b.store(b.load(from_, type), to)
            return []

        b.loop(const(0, I64), panel.depth, 1, [], body)
        return []

    b.loop(const(0, I64), used, 1, [], lane)


def _copy_depths(b: Builder, panel: _Panel, type: Type, width: int, start: Value) -> None:
    """Any strides, a whole panel from depth ``start`` on: an element at a time, as they are stored.

    Lane by lane comes back to each line of the panel (measured: strided products take 1.3 times
    as long).
    """
    places = [b.mul(const(lane, I64), panel.width_stride) for lane in range(width)]

    def body(depth: Value, _: list[Value]) -> list[Value]:
        target, source = _at(b, panel, type, width, depth)
        for lane, place in enumerate(places):
            value = b.load(b.element(source, place, type), type)
            b.store(value, b.element(target, const(lane, I64), type))
        return []

    b.loop(start, panel.depth, 1, [], body)


def _copy_transposed(b: Builder, panel: _Panel, type: Type, width: int) -> None:
    """Contiguous along: square blocks of a vector's lanes are transposed in registers."""
    lanes = b.target.lanes(type.bits)
    bulk = b.and_(panel.depth, const(-lanes, I64))
    for start in range(0, width, lanes):
        _transpose_strip(b, panel, type, width, start, bulk)

    _copy_depths(b, panel, type, width, bulk)


def _transpose_strip(
    b: Builder, panel: _Panel, type: Type, width: int, start: int, stop: Value
) -> None:
    """Copy depths [0, stop) of at most one vector of lanes, from lane ``start`` on.

    A strip narrower than a vector that is the whole panel is stored with whole vectors: the
    surplus lanes fall where the next depth, or the next panel, is about to be written.
    """
    lanes = b.target.lanes(type.bits)
    count = min(lanes, width - start)
    vector = type.vector(lanes)
    rows = [
        b.element(panel.source, b.mul(const(start + i, I64), panel.width_stride), type)
        for i in range(count)
    ]
    stored = count if start else lanes

    def body(depth: Value, _: list[Value]) -> list[Value]:
        loaded = [b.load(b.element(row, depth, type), vector) for row in rows]
        loaded += [Value("poison", vector)] * (lanes - count)
        to = b.element(panel.target, b.mul(depth, const(width, I64)), type)
        for i, column in enumerate(transpose(b, loaded)):
            value = _first_lanes(b, column, stored)
            b.store(value, b.element(to, const(i * width + start, I64), type))
        return []

    b.loop(const(0, I64), stop, lanes, [], body)


def _first_lanes(b: Builder, value: Value, count: int) -> Value:
    if count == value.type.lanes:
        return value
    return b.shuffle(value, None, range(count)) if count > 1 else b.extract(value, 0)


def transpose(b: Builder, rows: list[Value]) -> list[Value]:
    """Return the columns of a square block of vectors (the lanes are a power of two).

    Inside 128-bit groups by the unpack instructions, between groups by exchanging blocks; every
    shuffle is one instruction on SSE, AVX and AVX-512 (3·8 for 8×8 floats).
    """
    lanes = rows[0].type.lanes
    group = min(lanes, max(1, 128 // rows[0].type.bits))
    rows = list(rows)
    if group == 4:
        for i in range(0, lanes, 4):
            rows[i : i + 4] = _transpose_quads(b, rows[i : i + 4])
    distance = group if group == 4 else 1
    while distance < lanes:
        for i in range(lanes):
            if not i & distance:
                rows[i], rows[i + distance] = _exchange(b, rows[i], rows[i + distance], distance)
        distance *= 2
    return rows


def _transpose_quads(b: Builder, rows: list[Value]) -> list[Value]:
    """Transpose the 4×4 blocks of four vectors: unpack elements, then pairs."""
    lanes = rows[0].type.lanes

    def pick(x: Value, y: Value, pattern: tuple[int, int, int, int]) -> Value:
        picked = [
            base + (lane if lane < 4 else lane - 4 + lanes)
            for base in range(0, lanes, 4)
            for lane in pattern
        ]
        return b.shuffle(x, y, picked)

    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    ab, cd = (pick(rows[0], rows[1], p) for p in (low, high))
    ef, gh = (pick(rows[2], rows[3], p) for p in (low, high))
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)
    return [pick(ab, ef, first), pick(ab, ef, second), pick(cd, gh, first), pick(cd, gh, second)]


def _exchange(b: Builder, x: Value, y: Value, size: int) -> tuple[Value, Value]:
    """Exchange every odd block of ``size`` lanes of ``x`` with the even one of ``y``."""
    lanes = x.type.lanes
    even = [i if not i & size else lanes + i - size for i in range(lanes)]
    odd = [i + size if not i & size else lanes + i for i in range(lanes)]
    return b.shuffle(x, y, even), b.shuffle(x, y, odd)
