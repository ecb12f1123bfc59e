"""What only AVX-512 has: powers of two, mantissas and exponents, estimates of 1/x and 1/√x.

These instructions take subnormals, infinities and NaN in their stride, which saves a function its
range checks. They work on whole registers; scalars and other widths are padded or split, so that
a lane's result is the same in every width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracejit.codegen.builder import I32, Builder, Type, Value, const

# getmant: mantissas in [3/4, 3/2) or in [1, 2), NaN for negative numbers.
_AROUND_ONE, _FROM_ONE = 0b1011, 0b1000
# scalef and others: "the current rounding mode".
_CURRENT = 4
# reduce: to no binary places, rounded down, without exceptions.
_ABOVE_FLOOR = 0b1001


def available(b: Builder) -> bool:
    """Whether the target has these instructions, on registers of every width."""
    return {"avx512f", "avx512dq", "avx512vl"} <= b.target.flags


def is_register(type: Type) -> bool:
    """Whether vectors of this type fill one register."""
    return type.lanes > 1 and type.lanes * type.bits in (128, 256, 512)


def on_registers(b: Builder, op: Callable[[Sequence[Value]], Value], *values: Value) -> Value:
    """Return ``op(values)`` by registers: narrower values are repeated, wider ones are split."""
    type = values[0].type
    lanes, bits = type.lanes, type.lanes * type.bits
    if is_register(type):
        return op(values)
    if lanes == 1:
        return b.extract(op([b.splat(v, 128 // bits) for v in values]), 0)
    if bits < 128:
        places = [i % lanes for i in range(lanes * 128 // bits)]
        widened = op([b.shuffle(v, None, places) for v in values])
        return b.shuffle(widened, None, range(lanes))
    half = lanes // 2
    low, high = (
        on_registers(b, op, *(b.shuffle(v, None, range(s, s + half)) for v in values))
        for s in (0, half)
    )
    return b.shuffle(low, high, range(lanes))


def _masked(b: Builder, name: str, x: Value, *others: Value, lanes: Value | None = None) -> Value:
    """Call ``llvm.x86.avx512.mask.<name>``; with ``lanes``, the others are 0."""
    type = x.type
    width, code = type.lanes * type.bits, "ps" if type.kind == "f32" else "pd"
    bits = Type(f"i{max(8, type.lanes)}")
    mask = const(-1, bits) if lanes is None else b.mask_bits(lanes, bits)
    # The 512-bit forms also take the rounding mode.
    mode = [const(_CURRENT, I32)] if width == 512 else []
    arguments = [x, *others, Value("zeroinitializer", type), mask, *mode]
    return b.call(f"llvm.x86.avx512.mask.{name}.{code}.{width}", type, *arguments)


def scalef(b: Builder, x: Value, n: Value) -> Value:
    """Return x * 2^floor(n), rounded once."""
    return on_registers(b, lambda parts: _masked(b, "scalef", *parts), x, n)


def scalef_or_zero(b: Builder, x: Value, n: Value, least: float) -> Value:
    """Return x * 2^floor(n), rounded once, and +0 where n is below ``least``.

    For results that round to 0 the instruction asks microcode for help, which takes as long as 20
    exponentials; lanes that are not computed do not ask. (Subnormal results still do.)
    """

    def op(parts: Sequence[Value]) -> Value:
        some = b.compare("uge", parts[1], const(least, parts[1].type))  # or NaN
        return _masked(b, "scalef", *parts, lanes=some)

    return on_registers(b, op, x, n)


def exponent(b: Builder, x: Value) -> Value:
    """Return floor(log2 |x|): -inf for 0, inf for ±inf, NaN for NaN."""
    return on_registers(b, lambda parts: _masked(b, "getexp", *parts), x)


def fraction(b: Builder, x: Value) -> Value:
    """Return x - floor(x), exactly, for finite x."""
    code = const(_ABOVE_FLOOR, I32)
    return on_registers(b, lambda parts: _masked(b, "reduce", *parts, code), x)


def mantissa(b: Builder, x: Value) -> Value:
    """Return x times a power of two in [3/4, 3/2); ±1 for ±0, 1 for inf, NaN for NaN and x < 0."""
    return _mantissa(b, x, _AROUND_ONE)


def significand(b: Builder, x: Value) -> Value:
    """Return x 2^-exponent(x), in [1, 2); the rest as ``mantissa``."""
    return _mantissa(b, x, _FROM_ONE)


def _mantissa(b: Builder, x: Value, mode: int) -> Value:
    code = const(mode, I32)
    return on_registers(b, lambda parts: _masked(b, "getmant", *parts, code), x)


def inverse_root(b: Builder, x: Value) -> Value:
    """Return an estimate of 1/√x, its relative error at most 2^-14, for positive normal x."""
    return _estimate(b, "rsqrt14", x)


def inverse(b: Builder, x: Value) -> Value:
    """Return an estimate of 1/x, its relative error at most 2^-14, for |x| from 2^-126 to 2^126."""
    return _estimate(b, "rcp14", x)


def _estimate(b: Builder, instruction: str, x: Value) -> Value:
    def op(parts: Sequence[Value]) -> Value:
        type = parts[0].type
        code = "ps" if type.kind == "f32" else "pd"
        name = f"llvm.x86.avx512.{instruction}.{code}.{type.lanes * type.bits}"
        every_lane = const(-1, Type(f"i{max(8, type.lanes)}"))
        return b.call(name, type, *parts, Value("zeroinitializer", type), every_lane)

    return on_registers(b, op, x)
