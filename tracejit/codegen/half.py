"""float16 ↔ float32: an instruction from AVX2 on (F16C), a few integer operations below.

In registers a float16 is the i16 of its bits.
"""

from __future__ import annotations

from tracejit.codegen.builder import Builder, Value, const


def widened(b: Builder, bits: Value) -> Value:
    """Return a float16 as the float32 that equals it."""
    wide = bits.type.like("f32")
    if _converts(b):
        return b.convert(b.bitcast(bits, bits.type.like("f16")), wide)
    type = bits.type.like("i32")
    word = b.convert(bits, type, signed=False)
    magnitude = b.shl(b.and_(word, const(0x7FFF, type)), const(13, type))
    # The exponents' biases differ by 112; a product mends that, for subnormal numbers too.
    number = b.mul(b.bitcast(magnitude, wide), const(2.0**112, wide))
    special = b.compare("ge", magnitude, const(0x7C00 << 13, type))
    beyond = b.or_(magnitude, const(0x7F800000, type))
    magnitude = b.select(special, beyond, b.bitcast(number, type))
    sign = b.shl(b.and_(word, const(0x8000, type)), const(16, type))
    return b.bitcast(b.or_(magnitude, sign), wide)


def narrowed(b: Builder, value: Value) -> Value:
    """Return a float32 as float16, rounded to nearest even; subnormal numbers stay."""
    if _converts(b):
        narrow = b.convert(value, value.type.like("f16"))
        return b.bitcast(narrow, value.type.like("i16"))
    type = value.type.like("i32")
    bits = b.bitcast(value, type)
    magnitude = b.and_(bits, const(0x7FFFFFFF, type))
    odd = b.and_(b.lshr(magnitude, const(13, type)), const(1, type))
    rounded = b.add(b.add(magnitude, odd), const((-112 << 23) + 0xFFF, type))
    normal = b.lshr(rounded, const(13, type))
    # The last bit of a half plus 1/2 is worth what that of a subnormal float16 is.
    half = const(0.5, value.type)
    least = b.sub(
        b.bitcast(b.add(b.bitcast(magnitude, value.type), half), type), b.bitcast(half, type)
    )
    small = b.compare("lt", magnitude, const(113 << 23, type))
    large = b.compare("ge", magnitude, const(143 << 23, type))
    nan = b.compare("gt", magnitude, const(0x7F800000, type))
    beyond = b.select(nan, const(0x7E00, type), const(0x7C00, type))
    result = b.select(large, beyond, b.select(small, least, normal))
    sign = b.and_(b.lshr(bits, const(16, type)), const(0x8000, type))
    return b.convert(b.or_(result, sign), value.type.like("i16"))


def to_odd(b: Builder, value: Value) -> Value:
    """Return a float64 as float32, inexact ones as the neighbour whose last bit is 1.

    Rounded once more, to fewer bits, they give what one rounding does (S. Boldo, G. Melquiond,
    "When double rounding is odd", 2005).
    """
    nearest = b.convert(value, value.type.like("f32"))
    back = b.convert(nearest, value.type)
    type = value.type.like("i32")
    bits, one, zero = b.bitcast(nearest, type), const(1, type), const(0, type)
    above = b.compare("gt", b.abs(back), b.abs(value))
    inexact = b.compare("ne", back, value)
    truncated = b.sub(bits, b.select(above, one, zero))
    odd = b.or_(truncated, b.select(inexact, one, zero))
    return b.bitcast(odd, nearest.type)


def _converts(b: Builder) -> bool:
    return "f16c" in b.target.flags
