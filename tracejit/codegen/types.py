"""NumPy dtypes as LLVM types: booleans are i1 in registers and one byte in memory; floats of
16 bits are the i16 of their bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracejit.codegen import half
from tracejit.codegen.builder import I8, Builder, Type, Value, const
from tracejit.ops.dtypes import FLOAT32, is_bfloat16, is_half

DType = np.dtype[Any]
BOOL = np.dtype(bool)


def register_type(dtype: DType, lanes: int = 1) -> Type:
    """Return the type of a value in a register."""
    if dtype.kind == "b":
        return Type("i1", lanes)
    if is_half(dtype):
        return Type("i16", lanes)
    return Type(f"{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}", lanes)


def memory_type(dtype: DType, lanes: int = 1) -> Type:
    """Return the type of a value in memory."""
    return Type("i8", lanes) if dtype.kind == "b" else register_type(dtype, lanes)


def is_signed(dtype: DType) -> bool:
    return dtype.kind in "if"


def from_memory(b: Builder, value: Value, dtype: DType) -> Value:
    if dtype.kind != "b":
        return value
    return b.compare("ne", value, const(0, value.type))


def to_memory(b: Builder, value: Value, dtype: DType) -> Value:
    return (
        b.convert(value, I8.vector(value.type.lanes), signed=False) if dtype.kind == "b" else value
    )


def nonzero(b: Builder, value: Value) -> Value:
    """Return i1: value ≠ 0 (NaN counts as true, as in NumPy)."""
    if value.type.kind == "i1":
        return value
    return b.compare("ne", value, const(0, value.type))


def _widened(b: Builder, value: Value) -> Value:
    """Return a bfloat16 as the float32 whose upper half it is."""
    bits = value.type.like("i32")
    wide = b.shl(b.convert(value, bits, signed=False), const(16, bits))
    return b.bitcast(wide, value.type.like("f32"))


def _narrowed(b: Builder, value: Value) -> Value:
    """Return a float32 as bfloat16, rounded to nearest even; a NaN keeps its sign only.

    ``vcvtneps2bf16`` would do it, but for subnormal numbers, which it flushes to zero.
    """
    type = value.type.like("i32")
    bits, sixteen = b.bitcast(value, type), const(16, type)
    odd = b.and_(b.lshr(bits, sixteen), const(1, type))
    rounded = b.add(bits, b.add(odd, const(0x7FFF, type)))
    nan = b.or_(b.and_(bits, const(-(1 << 31), type)), const(0x7FC00000, type))
    chosen = b.select(b.compare("uno", value, value), nan, rounded)
    return b.convert(b.lshr(chosen, sixteen), value.type.like("i16"))


def cast(b: Builder, value: Value, source: DType, result: DType) -> Value:
    """Convert with NumPy's rules. Out-of-range float → integer gives what x86 gives."""
    if source == result:
        return value
    if is_bfloat16(source):
        return cast(b, _widened(b, value), FLOAT32, result)
    if is_bfloat16(result):
        return _narrowed(b, cast(b, value, source, FLOAT32))
    if is_half(source):
        return cast(b, half.widened(b, value), FLOAT32, result)
    if is_half(result):
        odd = source.kind == "f" and source.itemsize == 8
        return half.narrowed(b, half.to_odd(b, value) if odd else cast(b, value, source, FLOAT32))
    if result.kind == "b":
        return nonzero(b, value)
    wanted = register_type(result, value.type.lanes)
    if source.kind == "b" and result.kind == "f":
        # One masked move; LLVM would widen the mask to integers, and convert those.
        return b.select(value, const(1, wanted), const(0, wanted))
    if source.kind == "f" and result.kind in "iu" and result.str[1:] != "u8":
        # C converts through a wider signed integer and keeps the low bits.
        step = "i64" if result.itemsize == 8 or result.str[1:] == "u4" else "i32"
        return b.convert(b.convert(value, value.type.like(step)), wanted)
    signed = is_signed(result if source.kind == "f" else source)
    return b.convert(value, wanted, signed=signed)
