"""Division with a remainder: integers by way of floats, floats by exact steps.

No processor of ours divides vectors of integers. A float that holds both operands exactly does:
the quotient of integers below 2^24 in f32, below 2^53 in f64, is rounded to an integer only if it
is one, since it keeps a distance of 1/d from the others. So truncating it is exact, and so is the
remainder a − q·d. Wider operands, and levels that cannot convert 64 bits, divide one by one.

Where the divisor is the same for a whole loop, its reciprocal is made once, and made a little too
large: with e = 2^-50 (f64), a · (1/d)(1 + e) is at least a/d, and by less than 1/d too large while
a < 2^48; so truncating that is exact too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracejit.codegen.builder import F32, F64, I32, Builder, Type, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import fnma

_FromExact = Callable[["Exact"], Value]
_FromSafe = Callable[[Value], Value]


class Ints(NamedTuple):
    """``a`` and ``d``, integers of one type; ``fixed``: the divisor is the same for a loop."""

    a: Value
    d: Value
    signed: bool
    fixed: bool = False


class Exact(NamedTuple):
    """In floats: a/d truncated, the remainder with the sign of a, and d."""

    quotient: Value
    rest: Value
    divisor: Value


# How much too large a reciprocal is made: see above.
_EXCESS = {"f32": 2.0**-21, "f64": 2.0**-50}
# Operands of 64 bits that f64 divides exactly, by their reciprocal and by dividing.
_LIMIT = {True: 2**48, False: 2**53}


def floor_divide(b: Builder, x: Ints) -> Value:
    """Return ⌊a/d⌋ as NumPy: 0 for d = 0, the lowest number for −lowest."""

    def exact(found: Exact) -> Value:
        quotient = found.quotient
        if x.signed:
            one = b.sub(quotient, const(1, quotient.type))
            quotient = b.select(_differ(b, found), one, quotient)
        return _to_int(b, quotient, x)

    def each(safe: Value) -> Value:
        quotient = b.div(x.a, safe, signed=x.signed)
        if not x.signed:
            return quotient
        rest = b.sub(x.a, b.mul(quotient, safe))
        return b.select(_ints_differ(b, rest, safe), b.sub(quotient, const(1, x.a.type)), quotient)

    return _divided(b, x, exact, each)


def remainder(b: Builder, x: Ints) -> Value:
    """Return a − ⌊a/d⌋·d, with the sign of d; 0 for d = 0."""

    def exact(found: Exact) -> Value:
        rest = found.rest
        if x.signed:
            rest = b.select(_differ(b, found), b.add(rest, found.divisor), rest)
        return _to_int(b, rest, x)

    def each(safe: Value) -> Value:
        rest = b.rem(x.a, safe, signed=x.signed)
        return b.select(_ints_differ(b, rest, safe), b.add(rest, safe), rest) if x.signed else rest

    return _divided(b, x, exact, each)


def fmod(b: Builder, x: Ints) -> Value:
    """Return the remainder with the sign of a; 0 for d = 0."""
    return _divided(
        b,
        x,
        lambda found: _to_int(b, found.rest, x),
        lambda safe: b.rem(x.a, safe, signed=x.signed),
    )


def _divided(b: Builder, x: Ints, exact: _FromExact, each: _FromSafe) -> Value:
    """Return what ``exact`` makes of the division in floats, or ``each`` of one by one."""
    zero = b.compare("eq", x.d, const(0, x.d.type))

    def slow() -> list[Value]:
        return [each(_safe_divisor(b, x, zero))]

    if x.a.type.lanes == 1:
        (result,) = slow()
    elif x.a.type.bits < 64:
        result = exact(_in_floats(b, x))
    elif avx512.available(b):
        large = b.or_(_is_large(b, x.a, x), _is_large(b, x.d, x))
        (result,) = b.if_(b.any(large), slow, lambda: [exact(_in_floats(b, x))])
    else:
        (result,) = slow()
    return b.select(zero, const(0, x.a.type), result)


def _in_floats(b: Builder, x: Ints) -> Exact:
    real = (F32 if x.a.type.bits <= 16 else F64).vector(x.a.type.lanes)
    a, d = _to_float(b, x.a, x, real), _to_float(b, x.d, x, real)
    if x.fixed:
        one = const(1, real)
        inverse = b.mul(b.div(one, d), const(1 + _EXCESS[real.kind], real))
        quotient = b.mul(a, inverse)
    else:
        quotient = b.div(a, d)
    quotient = b.trunc(quotient)
    return Exact(quotient, fnma(b, quotient, d, a), d)


def _to_float(b: Builder, value: Value, x: Ints, real: Type) -> Value:
    if value.type.bits > 16:
        return b.convert(value, real, signed=x.signed)
    return b.convert(b.convert(value, I32.vector(real.lanes), signed=x.signed), real)


def _to_int(b: Builder, value: Value, x: Ints) -> Value:
    """Return a whole float as an integer of the operands' type, wrapping."""
    type = x.a.type
    if type.bits <= 16:
        return b.convert(b.convert(value, I32.vector(type.lanes)), type)
    if type.bits == 32 and x.signed:
        beyond = b.compare("ge", value, const(2.0**31, value.type))
        value = b.select(beyond, const(-(2.0**31), value.type), value)
    return b.convert(value, type, signed=x.signed)


def _differ(b: Builder, found: Exact) -> Value:
    """Whether the remainder is not 0 and has not the sign of the divisor."""
    product = b.mul(found.rest, found.divisor)
    return b.compare("lt", product, const(0, product.type))


def _ints_differ(b: Builder, rest: Value, d: Value) -> Value:
    zero = const(0, rest.type)
    return b.and_(b.compare("lt", b.xor(rest, d), zero), b.compare("ne", rest, zero))


def _is_large(b: Builder, value: Value, x: Ints) -> Value:
    """Whether a number of 64 bits is beyond what f64 divides exactly."""
    limit = _LIMIT[x.fixed]
    if not x.signed:
        return b.compare("uge", value, const(limit, value.type))
    moved = b.add(value, const(limit, value.type))
    return b.compare("uge", moved, const(2 * limit, value.type))


def _safe_divisor(b: Builder, x: Ints, zero: Value) -> Value:
    """Return a divisor that cannot trap: 1 for 0, and for −1 below the lowest number."""
    bad, type = zero, x.d.type
    if x.signed:
        lowest = const(-(2 ** (type.bits - 1)), type)
        overflow = b.and_(b.compare("eq", x.a, lowest), b.compare("eq", x.d, const(-1, type)))
        bad = b.or_(bad, overflow)
    return b.select(bad, const(1, type), x.d)


def float_fmod(b: Builder, a: Value, d: Value) -> Value:
    """Return the exact remainder of truncating division, in a function shared by the module."""
    type = a.type
    name = b.module.require(f"tj.fmod.{type.suffix}", type, [type, type], _fmod_body)
    return b.call(name, type, a, d)


def _fmod_body(b: Builder, x: Sequence[Value]) -> Value:
    """Quotients below 2^52 in f64: one exact step. The rest, and special values: bit by bit in C.

    f32 runs in f64 too, where ``q·d`` is exact below 2^29.
    """
    a, d = x
    wide = F64.vector(a.type.lanes)
    n, m = b.abs(b.convert(a, wide)), b.abs(b.convert(d, wide))
    limit = 2.0**29 if a.type.kind == "f32" or not b.target.fma else 2.0**52
    if a.type.kind == "f64" and not b.target.fma:
        limit = 0.0
    quotient = b.div(n, m)
    whole = b.trunc(quotient)
    rest = b.fma(b.neg(whole), m, n)
    rest = b.select(b.compare("lt", rest, const(0, wide)), b.add(rest, m), rest)
    rest = b.select(b.compare("ge", rest, m), b.sub(rest, m), rest)
    fast = b.convert(rest, a.type)
    fast = b.copysign(fast, a)
    easy = b.and_(
        b.compare("lt", quotient, const(limit, wide)),
        b.compare("lt", m, const(math.inf, wide)),
    )

    def slow() -> Sequence[Value]:
        result = fast
        for lane in range(a.type.lanes):
            p, q = b.extract(a, lane), b.extract(d, lane)
            exact = b.emit(p.type, f"frem {p.type} {p.text}, {q.text}")
            result = b.insert(result, exact, lane) if a.type.lanes > 1 else exact
        return [b.select(easy, fast, result)]

    return b.if_(b.all(easy), lambda: [fast], slow)[0]


def float_divmod(b: Builder, a: Value, d: Value) -> tuple[Value, Value]:
    """Return NumPy's floor division and modulus of floats (``npy_divmod``)."""
    type = a.type
    zero, one = const(0, type), const(1, type)
    mod = float_fmod(b, a, d)
    quotient = b.div(b.sub(a, mod), d)
    inexact = b.compare("ne", mod, zero)
    differs = b.xor(b.compare("lt", d, zero), b.compare("lt", mod, zero))
    adjust = b.and_(inexact, differs)
    quotient = b.select(adjust, b.sub(quotient, one), quotient)
    modulus = b.select(inexact, b.select(differs, b.add(mod, d), mod), b.copysign(zero, d))
    floored = b.floor(quotient)
    up = b.compare("gt", b.sub(quotient, floored), const(0.5, type))
    floored = b.select(up, b.add(floored, one), floored)
    signed_zero = b.copysign(zero, b.div(a, d))
    floored = b.select(b.compare("ne", quotient, zero), floored, signed_zero)
    by_zero = b.compare("eq", d, zero)
    nan_mod = b.select(b.compare("uno", mod, mod), mod, modulus)
    return b.select(by_zero, b.div(a, d), floored), nan_mod
