"""The innermost loop: a block of C in registers, one rank-1 update a step.

    for k: for r: for v: acc[r][v] += A[r, k] * B[k, v]

A step is ``vectors`` loads of B, ``rows`` broadcast loads of A and their product many
multiply-adds. The loop is not unrolled, since its bookkeeping fits beside them (measured: twice
as long gains nothing, four times spills and halves the speed). C is touched only after it. Terms
are added in the order of k whatever the block's shape, so an element of C has the same bits in
every block that may compute it.
"""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.builder import I1, I64, PTR, VOID, Builder, Module, Type, Value, const


class MicroShape(NamedTuple):
    """One microkernel: its accumulators, and the strides of A known at compile time (or None)."""

    type: Type
    rows: int
    vectors: int
    lanes: int
    a_row: int | None
    a_depth: int | None


class MicroCall(NamedTuple):
    """Arguments of a microkernel: addresses, strides in elements, the depth, and whether the
    block is added to what C holds (else C is only written)."""

    a: Value
    a_row: Value
    a_depth: Value
    b: Value
    b_depth: Value
    c: Value
    c_row: Value
    depth: Value
    accumulate: Value


def multiply_add(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """``x*y + z``, fused for floats where the target has it; integers wrap around."""
    return b.fma(x, y, z) if x.type.is_float else b.add(b.mul(x, y), z)


def emit_microkernel(module: Module, name: str, shape: MicroShape) -> None:
    """Define ``void name(MicroCall…)``; C's columns are contiguous."""
    parameters = [
        ("a", PTR), ("ar", I64), ("ad", I64), ("b", PTR), ("bd", I64),
        ("c", PTR), ("cr", I64), ("depth", I64), ("accumulate", I1),
    ]  # fmt: skip
    b = module.define(
        name,
        VOID,
        parameters,
        linkage="internal",
        attributes="nounwind noinline",
        parameter_attributes=(
            "noalias readonly", "", "", "noalias readonly", "", "noalias", "", "", "",
        ),
    )  # fmt: skip
    call = MicroCall(*b.parameters)
    if shape.a_row is not None:
        call = call._replace(a_row=const(shape.a_row, I64))
    if shape.a_depth is not None:
        call = call._replace(a_depth=const(shape.a_depth, I64))
    _prefetch(b, shape, call)
    _store(b, shape, call, _accumulate(b, shape, call))
    b.ret()


def _prefetch(b: Builder, shape: MicroShape, call: MicroCall) -> None:
    """Fetch the rows of C while the loop runs; it is only touched when all sums are there."""
    last = const(shape.vectors * shape.lanes - 1, I64)
    for row in _multiples(b, call.c_row, shape.rows):
        start = b.element(call.c, row, shape.type)
        b.prefetch(start)
        b.prefetch(b.element(start, last, shape.type))


def _multiples(b: Builder, stride: Value, count: int) -> list[Value]:
    """Return 0, stride, 2·stride, … (literals where the stride is one)."""
    if stride.is_literal:
        return [const(i * int(stride.text), I64) for i in range(count)]
    return [const(0, I64), stride, *(b.mul(const(i, I64), stride) for i in range(2, count))][:count]


def _accumulate(b: Builder, shape: MicroShape, call: MicroCall) -> list[Value]:
    type, vector = shape.type, shape.type.vector(shape.lanes)
    offsets = _multiples(b, call.a_row, shape.rows)

    def body(_: Value, carried: list[Value]) -> list[Value]:
        a, b_row, *sums = carried
        columns = [
            b.load(b.element(b_row, const(v * shape.lanes, I64), type), vector)
            for v in range(shape.vectors)
        ]
        following: list[Value] = []
        for r in range(shape.rows):
            x = b.splat(b.load(b.element(a, offsets[r], type), type), shape.lanes)
            for v, column in enumerate(columns):
                following.append(multiply_add(b, x, column, sums[r * shape.vectors + v]))
        return [b.element(a, call.a_depth, type), b.element(b_row, call.b_depth, type), *following]

    zeros = [const(0, vector)] * (shape.rows * shape.vectors)
    return b.loop(const(0, I64), call.depth, 1, [call.a, call.b, *zeros], body)[2:]


def _store(b: Builder, shape: MicroShape, call: MicroCall, sums: list[Value]) -> None:
    vector = shape.type.vector(shape.lanes)
    rows = _multiples(b, call.c_row, shape.rows)
    places = [
        b.element(b.element(call.c, row, shape.type), const(v * shape.lanes, I64), shape.type)
        for row in rows
        for v in range(shape.vectors)
    ]

    def add() -> list[Value]:
        for value, place in zip(sums, places, strict=True):
            b.store(b.add(b.load(place, vector), value), place)
        return []

    def write() -> list[Value]:
        for value, place in zip(sums, places, strict=True):
            b.store(value, place)
        return []

    b.if_(call.accumulate, add, write)
