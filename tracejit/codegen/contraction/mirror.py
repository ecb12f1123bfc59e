"""The lower half of a symmetric product: panels of the upper one, turned.

A product of a matrix with its own transpose has C[i, j] = C[j, i] to the last bit: the same
products are added in the same order. So a column panel goes down to the diagonal only, and what
it has above its own square is stored to the left of that square as well::

    · · P          · · P     P: rows [0, c) of the panel that starts at column c
    · · P    →     · · P
    · · S          T T S     T: P turned

Panels start at multiples of their width, so every element is either computed or turned, never
both, whoever computes the panels and in whatever order.

Split numbers are an exception: part i of A by part j of B comes before j by i, so the lower half of
a square S differs in its last bits, and is overwritten with the upper one.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.contraction.blocking import register_block
from tracejit.codegen.contraction.spec import GemmSpec


def emit_square(module: Module, name: str, spec: GemmSpec) -> None:
    """Define ``void name(ptr square, i64 stride, i64 size)``, which mirrors a square in itself."""
    b = module.define(
        name,
        VOID,
        [("square", PTR), ("stride", I64), ("size", I64)],
        linkage="internal",
        attributes="nounwind noinline",
    )
    square, stride, size = b.parameters
    zero = const(0, I64)

    def at(row: Value, column: Value) -> Value:
        return b.element(square, b.add(b.mul(row, stride), column), spec.type)

    def down(i: Value, _: list[Value]) -> list[Value]:
        def across(j: Value, _: list[Value]) -> list[Value]:
            b.store(b.load(at(j, i), spec.type), at(i, j))
            return []

        b.loop(zero, i, 1, [], across)
        return []

    b.loop(zero, size, 1, [], down)
    b.ret()


def emit_mirror(module: Module, name: str, spec: GemmSpec) -> None:
    """Define ``void name(ptr from, ptr to, i64 stride, i64 rows, i64 columns)``.

    Squares of as many rows as a vector has lanes are turned in registers; at the edges they
    overlap. What is smaller than a square goes element by element.
    """
    lanes, type = register_block(module.target, spec.dtype).lanes, spec.type
    parameters = [("from", PTR), ("to", PTR), ("stride", I64), ("rows", I64), ("columns", I64)]
    b = module.define(
        name,
        VOID,
        parameters,
        linkage="internal",
        attributes="nounwind noinline",
        parameter_attributes=("noalias readonly", "noalias", "", "", ""),
    )
    source, target, stride, rows, columns = b.parameters
    vector, step, zero = type.vector(lanes), const(lanes, I64), const(0, I64)

    def at(base: Value, row: Value, column: Value) -> Value:
        return b.element(base, b.add(b.mul(row, stride), column), type)

    def squares() -> list[Value]:
        def across(j: Value, _: list[Value]) -> list[Value]:
            column = b.intrinsic("smin", I64, j, b.sub(columns, step))

            def down(i: Value, _: list[Value]) -> list[Value]:
                row = b.intrinsic("smin", I64, i, b.sub(rows, step))
                places = [const(n, I64) for n in range(lanes)]
                lines = [b.load(at(source, b.add(row, n), column), vector) for n in places]
                for n, turned in zip(places, b.transpose(lines), strict=True):
                    b.store(turned, at(target, b.add(column, n), row))
                return []

            b.loop(zero, rows, step, [], down)
            return []

        b.loop(zero, columns, step, [], across)
        return []

    def elements() -> list[Value]:
        def across(j: Value, _: list[Value]) -> list[Value]:
            def down(i: Value, _: list[Value]) -> list[Value]:
                b.store(b.load(at(source, i, j), type), at(target, j, i))
                return []

            b.loop(zero, rows, 1, [], down)
            return []

        b.loop(zero, columns, 1, [], across)
        return []

    least = b.intrinsic("smin", I64, rows, columns)
    b.if_(b.compare("ge", least, step), squares, elements)
    b.ret()
