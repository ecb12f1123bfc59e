"""Moves a tile of finished accumulators to C: edges, strided C, and the epilogue."""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Type, Value, const
from tracejit.codegen.contraction.blocking import RegisterBlock
from tracejit.codegen.contraction.spec import (
    POINTERS,
    GemmSpec,
    Place,
    RowFinish,
    TileFinish,
    epilogue_slot,
)


class _Finish(NamedTuple):
    """Parameters: the tile and C with C's strides; the tile's ``rows`` × ``columns`` that count;
    whether this is the first and the last k block; where the tile stands; the kernel's own."""

    tile: Value
    c: Value
    c_row: Value
    c_column: Value
    rows: Value
    columns: Value
    first: Value
    last: Value
    row: Value
    column: Value
    batch: Value
    ptrs: Value
    sizes: Value


_PARAMETERS: list[tuple[str, Type]] = [
    ("tile", PTR), ("c", PTR), ("cr", I64), ("cc", I64), ("rows", I64), ("columns", I64),
    ("first", I1), ("last", I1), ("row", I64), ("column", I64), ("batch", I64),
    ("ptrs", PTR), ("sizes", PTR),
]  # fmt: skip


def emit_finish(module: Module, name: str, spec: GemmSpec) -> None:
    """Define ``void name(_Finish…)``: C = tile, or C + tile after the first k block.

    The tile's rows are ``unit.columns`` apart. In the last k block the epilogue gets the sums.
    """
    unit = spec.unit(module.target)
    b = module.define(name, VOID, _PARAMETERS, linkage="internal", attributes="nounwind noinline")
    p = _Finish(*b.parameters)
    if spec.c == "last":
        p = p._replace(c_column=const(1, I64))
    if spec.epilogue is None:
        _rows(b, spec, unit, p, None)
    else:
        ptrs = b.element(p.ptrs, const(POINTERS, I64), PTR)
        sizes = b.element(p.sizes, const(epilogue_slot(spec), I64), I64)
        place = Place(p.row, p.column, p.batch, ptrs, sizes)
        finish = spec.epilogue.tile(b, place, unit.lanes)

        def last() -> list[Value]:
            _rows(b, spec, unit, p, finish)
            return []

        def partial() -> list[Value]:
            _rows(b, spec, unit, p, None)
            return []

        b.if_(p.last, last, partial)
    b.ret()


def _rows(
    b: Builder, spec: GemmSpec, unit: RegisterBlock, p: _Finish, finish: TileFinish | None
) -> None:
    """Write the loops over the tile's rows and vectors; without ``finish`` they go to C.

    Where there are registers for it a row takes its vectors together, since functions of an
    epilogue are long chains of operations; what is left goes by masked vectors.
    """
    count = unit.vectors if b.target.masks else 1
    step = count * unit.lanes
    whole = b.sub(p.columns, b.rem(p.columns, const(step, I64), signed=False))

    def row(i: Value, _: list[Value]) -> list[Value]:
        at_row = finish(i) if finish is not None else None

        def full(j: Value, _: list[Value]) -> list[Value]:
            _vectors(b, spec, unit, p, i, j, count, None, at_row)
            return []

        def edge(j: Value, _: list[Value]) -> list[Value]:
            index = I64.vector(unit.lanes)
            left = b.splat(b.sub(p.columns, j), unit.lanes)
            mask = b.compare("lt", b.lane_index(index), left)
            _vectors(b, spec, unit, p, i, j, 1, mask, at_row)
            return []

        b.loop(const(0, I64), whole, step, [], full)
        b.loop(whole, p.columns, unit.lanes, [], edge)
        return []

    b.loop(const(0, I64), p.rows, 1, [], row)


def _vectors(
    b: Builder, spec: GemmSpec, unit: RegisterBlock, p: _Finish, i: Value, j: Value,
    count: int, mask: Value | None, at_row: RowFinish | None,
) -> None:  # fmt: skip
    """Write what becomes of ``count`` vectors from column ``j`` of row ``i`` on."""
    type, vector = spec.type, spec.type.vector(unit.lanes)
    place = b.add(b.mul(i, const(unit.columns, I64)), j)
    offset = b.add(b.mul(i, p.c_row), b.mul(j, p.c_column))
    skipped = b.mul(const(unit.lanes, I64), p.c_column)
    addresses = [b.element(p.c, offset, type)]
    for _ in range(1, count):
        addresses.append(b.element(addresses[-1], skipped, type))
    values = [
        b.load(b.element(p.tile, b.add(place, const(n * unit.lanes, I64)), type), vector)
        for n in range(count)
    ]

    def add() -> list[Value]:
        return [
            b.add(_read(b, spec, p, address, vector, mask), value)
            for address, value in zip(addresses, values, strict=True)
        ]

    values = b.if_(p.first, lambda: values, add)
    if at_row is not None:
        if mask is not None:
            # Lanes beyond the edge hold what was there before: functions of it may be subnormal.
            values = [b.select(mask, v, const(0, vector)) for v in values]
        at_row(j, values, mask)
        return
    for address, value in zip(addresses, values, strict=True):
        write_vector(b, spec, p.c_column, address, value, mask)


def _lanes(b: Builder, c_column: Value, lanes: int) -> Value:
    """Return the offsets of a vector's lanes in a C whose columns are not contiguous."""
    index = I64.vector(lanes)
    return b.mul(b.lane_index(index), b.splat(c_column, lanes))


def _read(
    b: Builder, spec: GemmSpec, p: _Finish, address: Value, vector: Type, mask: Value | None
) -> Value:
    if spec.c != "last":
        return b.gather(address, _lanes(b, p.c_column, vector.lanes), vector, mask)
    return b.load(address, vector) if mask is None else b.masked_load(address, mask, vector)


def write_vector(
    b: Builder, spec: GemmSpec, c_column: Value, address: Value, value: Value, mask: Value | None
) -> None:
    """Store the lanes of ``mask`` (None: all) along a row of C, ``c_column`` elements apart."""
    if spec.c != "last":
        b.scatter(value, address, _lanes(b, c_column, value.type.lanes), mask)
    elif mask is None:
        b.store(value, address)
    else:
        b.masked_store(value, address, mask)
