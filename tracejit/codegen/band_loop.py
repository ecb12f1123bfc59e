"""The loop over the blocks of a band: each of its kernels for the rows that the block needs.

    for block of [begin, end):
      lead all pointers into windows to the block's rows
      for part of the band:  its kernel over [(a + before)·unit, (b + after)·unit)

The kernels are the functions that they are by themselves. Pointers into a window are moved so far
back that the window's first row is where the row of that number would be.
"""

from __future__ import annotations

from tracejit.codegen.bands import BandSpec, Head, PartWord, PointerWord
from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.loops import define_kernel

_ZERO = const(0, I64)


def emit_band(module: Module, name: str, spec: BandSpec) -> None:
    """Define kernel ``void name(ptr ptrs, ptr sizes, i64 begin, i64 end)`` for ``spec``.

    It computes blocks [begin, end).
    """
    functions = [f"{name}.part{number}" for number in range(len(spec.kernels))]
    for kernel, function in zip(spec.kernels, functions, strict=True):
        define_kernel(module, kernel, function, linkage="internal")
    b = module.define(name, VOID, [("ptrs", PTR), ("sizes", PTR), ("begin", I64), ("end", I64)])
    ptrs, sizes, begin, end = b.parameters

    def word(table: Value, index: int) -> Value:
        return b.load(b.element(table, const(index, I64), I64), I64)

    def row(table: Value, number: Value, words: int) -> Value:
        return b.element(table, b.mul(number, const(words, I64)), I64)

    height, rows = word(sizes, Head.HEIGHT), word(sizes, Head.ROWS)
    parts, pointers = word(sizes, Head.PARTS), word(sizes, Head.POINTERS)
    part_table = b.element(sizes, const(Head.HEAD_WORDS, I64), I64)
    pointer_table = row(part_table, parts, PartWord.PART_WORDS)
    own = b.emit(PTR, f"alloca ptr, i64 {pointers.text}, align 64")
    codes = b.emit(PTR, f"alloca ptr, i64 {len(functions)}, align 64")
    for number, function in enumerate(functions):
        b.store(Value(f"@{function}", PTR), b.element(codes, const(number, I64), PTR))

    def block(index: Value, _: list[Value]) -> list[Value]:
        first = b.mul(index, height)
        last = b.intrinsic("smin", I64, b.add(first, height), rows)

        def lead(number: Value, _: list[Value]) -> list[Value]:
            entry = row(pointer_table, number, PointerWord.POINTER_WORDS)
            source = b.load(b.element(ptrs, word(entry, PointerWord.SOURCE), PTR), PTR)
            back = b.mul(first, word(entry, PointerWord.STEP))
            moved = b.offset(source, b.sub(word(entry, PointerWord.START), back))
            b.store(moved, b.element(own, number, PTR))
            return []

        def run(number: Value, _: list[Value]) -> list[Value]:
            entry = row(part_table, number, PartWord.PART_WORDS)
            unit, trips = word(entry, PartWord.UNIT), word(entry, PartWord.TRIPS)
            start = b.mul(b.add(first, word(entry, PartWord.BEFORE)), unit)
            stop = b.mul(b.add(last, word(entry, PartWord.AFTER)), unit)
            start = b.intrinsic("smax", I64, start, _ZERO)
            stop = b.intrinsic("smin", I64, stop, trips)

            def call() -> list[Value]:
                code = b.load(b.element(codes, word(entry, PartWord.KERNEL), PTR), PTR)
                mine = b.element(own, word(entry, PartWord.FIRST), PTR)
                numbers = b.element(sizes, word(entry, PartWord.SIZES_AT), I64)
                arguments = (mine, numbers, start, stop)
                spelled = ", ".join(f"{a.type} {a.text}" for a in arguments)
                b.effect(f"call void {code.text}({spelled})")
                return []

            b.if_(b.compare("lt", start, stop), call)
            return []

        b.loop(_ZERO, pointers, 1, [], lead)
        b.loop(_ZERO, parts, 1, [], run)
        return []

    b.loop(begin, end, 1, [], block)
    b.ret()
