"""Look-ups in tables that fit registers: a permutation by run-time indices, one instruction.

AVX-512 permutes sixteen floats or doubles, or thirty-two floats, AVX2 eight floats. The table is a
register or a cache line, and no lane waits for a gather. Scalars and other widths are padded or
split.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Type, Value, const
from tracejit.codegen.math import avx512

# Entries of AVX-512's tables, and of AVX2's.
LONG, SHORT = 16, 8


def lengths(b: Builder, kind: str) -> tuple[int, ...]:
    """Return how many values of ``kind`` (f32, f64) the target looks up at once, most first."""
    if avx512.available(b):
        return (2 * LONG, LONG) if kind == "f32" else (LONG,)
    return (SHORT,) if kind == "f32" and "avx2" in b.target.flags else ()


def lookup(b: Builder, table: Sequence[float], index: Value) -> Value:
    """Return table[index mod its length] per lane, as floats of the width of ``index``.

    The length is one of ``lengths``.
    """
    if len(table) == SHORT:
        return _of_eight(b, table, index)
    return avx512.on_registers(b, lambda parts: _of_sixteen(b, table, parts[0]), index)


def _of_eight(b: Builder, table: Sequence[float], index: Value) -> Value:
    """AVX2's permutation, of eight lanes exactly."""
    lanes = index.type.lanes
    if lanes > SHORT:
        parts = [
            _of_eight(b, table, b.shuffle(index, None, range(start, start + lanes // 2)))
            for start in (0, lanes // 2)
        ]
        return b.shuffle(parts[0], parts[1], range(lanes))
    if lanes == 1:
        return b.extract(_of_eight(b, table, b.splat(index, SHORT)), 0)
    if lanes < SHORT:
        found = _of_eight(b, table, b.shuffle(index, None, [i % lanes for i in range(SHORT)]))
        return b.shuffle(found, None, range(lanes))
    type = index.type.like("f32")
    return b.call("llvm.x86.avx2.permps", type, _literal(table, type), index)


def _of_sixteen(b: Builder, table: Sequence[float], index: Value) -> Value:
    """AVX-512's permutations, of one register or of two."""
    type = index.type.like("f32" if index.type.bits == 32 else "f64")
    if len(table) == 2 * LONG:
        return _of_thirty_two(b, table, index, type)
    if type.lanes == LONG:
        return b.call("llvm.x86.avx512.permvar.sf.512", type, _literal(table, type), index)
    if type.lanes == LONG // 2:
        name = "ps.256" if type.kind == "f32" else "pd.512"
        halves = [_literal(table[i : i + type.lanes], type) for i in (0, type.lanes)]
        return b.call(f"llvm.x86.avx512.vpermi2var.{name}", type, halves[0], index, halves[1])
    # Narrower registers: as the first lanes of one that is wide enough.
    wide = [i % type.lanes for i in range(LONG // 2)]
    found = _of_sixteen(b, table, b.shuffle(index, None, wide))
    return b.shuffle(found, None, range(type.lanes))


def _of_thirty_two(b: Builder, table: Sequence[float], index: Value, type: Type) -> Value:
    """The permutation of two registers of sixteen floats; narrower ones are its first lanes."""
    if type.lanes < LONG:
        wide = b.shuffle(index, None, [i % type.lanes for i in range(LONG)])
        found = _of_thirty_two(b, table, wide, type.vector(LONG))
        return b.shuffle(found, None, range(type.lanes))
    halves = [_literal(table[i : i + LONG], type) for i in (0, LONG)]
    return b.call("llvm.x86.avx512.vpermi2var.ps.512", type, halves[0], index, halves[1])


def _literal(values: Sequence[float], type: Type) -> Value:
    """Return a literal vector of these elements."""
    body = ", ".join(f"{type.element} {const(v, type.element).text}" for v in values)
    return Value(f"<{body}>", type)
