"""power: x^y = 2^(y log2 x), with all special cases of C99 Annex F.

Doubles find log2 x to about 2^-64 as a pair: s = (m - 1) / (m + 1) as a pair, the first two terms
of the series of atanh in pairs, the rest plain. Floats compute in doubles. AVX-512 finds log2 x by
a table of 1/c and log2 c, as a pair of its own type. Positive normal x with a moderate y takes the
core alone; every other lane goes through a cold function.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import (
    INF,
    NAN,
    Pair,
    at_least,
    at_most,
    fast_two_sum,
    flip_sign,
    format_of,
    from_bits,
    horner,
    like,
    nearest,
    not_normal,
    pair_const,
    pair_mul,
    pick,
    polynomial,
    rare,
    scale_by_sign,
    shift_exponent,
    sign_bit,
    split_exponent,
    to_bits,
    two_prod,
    two_sum,
)
from tracejit.codegen.math.exponential import exp2_of_sum, exp2_reduced
from tracejit.codegen.math.logarithm import SQRT_HALF
from tracejit.codegen.math.lookup import lookup
from tracejit.codegen.math.registry import register
from tracejit.codegen.math.tables import INVERSES, LOG2_PAIR_F32, LOG2_PAIR_F64

# 2/ln2 and 2/(3 ln2), in two parts: the first coefficients of log2((1+s)/(1-s)) / s.
_FIRST = (2.8853900817779268, 4.0710547481862066e-17)
_SECOND = (0.9617966939259756, 5.0577616648125907e-17)
# The rest of that series over s⁴, in s², |s| <= 0.17158: error 2^-66.3 of the logarithm.
_REST = (
    0.577078016355618, 0.41219858309193924, 0.3205989022738516, 0.2623077010868446,
    0.22198400010990496, 0.19125509401836535, 0.19038615248759472,
)  # fmt: skip

# log2(1 + f) / f for 1 + f in [√½, √2): error 2^-38.1.
_LOG2_FOR_F32 = (
    1.4426950408865744, -0.7213475203257754, 0.48089834879994986, -0.36067379355272944,
    0.2885387965887077, -0.24044641855935758, 0.20610723511526677, -0.18043663987473765,
    0.16020904468736866, -0.14249929977943626, 0.1304094482241183, -0.13474737199807554,
    0.1317919284866187, -0.06863983757249838,
)  # fmt: skip
# 2^r for |r| <= 1/2: error 2^-29.
_EXP2_FOR_F32 = (
    1.0000000005584193, 0.6931472058906756, 0.24022646865923025, 0.05550328435126203,
    0.009618490433434875, 0.0013400070561080124, 0.00015345696538471968,
)  # fmt: skip

# Beyond this |y| every x but 1 overflows or underflows; the products below stay finite.
_LARGE_Y = {"f32": 2.0**40, "f64": 2.0**70}


def log2_pair(b: Builder, m: Value, e: Value) -> Pair:
    """Return e + log2(m) for doubles, m in [√½, √2), with relative error about 2^-64."""
    one = like(1.0, m)
    f = b.sub(m, one)
    d = two_sum(b, one, m)
    inverse = b.div(one, d.hi)
    q = b.mul(f, inverse)
    p = two_prod(b, q, d.hi)
    rest = b.sub(b.sub(b.sub(f, p.hi), p.lo), b.mul(q, d.lo))
    s = fast_two_sum(b, q, b.mul(rest, inverse))
    z = two_prod(b, s.hi, s.hi)
    z = Pair(z.hi, b.fma(b.add(s.hi, s.hi), s.lo, z.lo))
    second, first = pair_const(_SECOND, m), pair_const(_FIRST, m)
    inner = fast_two_sum(b, second.hi, b.mul(z.hi, horner(b, z.hi, _REST)))
    inner = Pair(inner.hi, b.add(inner.lo, second.lo))
    outer = two_prod(b, z.hi, inner.hi)
    low = b.add(outer.lo, b.fma(z.hi, inner.lo, b.mul(z.lo, inner.hi)))
    total = fast_two_sum(b, first.hi, outer.hi)
    log = pair_mul(b, s, Pair(total.hi, b.add(total.lo, b.add(first.lo, low))))
    whole = fast_two_sum(b, e, log.hi)
    return fast_two_sum(b, whole.hi, b.add(whole.lo, log.lo))


def _core_f64(b: Builder, x: Value, y: Value, extra: Value) -> Value:
    m, e = split_exponent(b, x, SQRT_HALF)
    log = log2_pair(b, m, b.add(e, extra))
    product = two_prod(b, y, log.hi)
    low = b.fma(y, log.lo, product.lo)
    # Where the result leaves the range by far, the low part would leave the reduced interval.
    far = b.compare("gt", b.abs(product.hi), like(1100.0, x))
    low = b.select(far, like(0.0, x), low)
    hi = at_least(b, at_most(b, product.hi, 1026.0), -1078.0)
    n, low_bits = nearest(b, hi, 1.0, bias=2 * format_of(x).bias)
    r = b.add(b.sub(hi, n), low)
    return scale_by_sign(b, exp2_reduced(b, r), n, low_bits, hi)


def _core_f32(b: Builder, x: Value, y: Value, extra: Value) -> Value:
    m, e = split_exponent(b, x, SQRT_HALF)
    wide = x.type.like("f64")
    f = b.convert(b.sub(m, like(1.0, x)), wide)
    e = b.convert(b.add(e, extra), wide)
    log = b.fma(f, polynomial(b, f, _LOG2_FOR_F32), e)
    # Doubles hold every result in between; narrowing it overflows or becomes subnormal.
    product = at_least(b, at_most(b, b.mul(b.convert(y, wide), log), 200.0), -200.0)
    n, low_bits = nearest(b, product, 1.0)
    power = horner(b, b.sub(product, n), _EXP2_FOR_F32)
    return b.convert(shift_exponent(b, power, low_bits), x.type)


def _core_by_table(b: Builder, x: Value, y: Value) -> Value:
    """Return x^y for positive normal x and finite y, or NaN for some; see ``LogarithmPair``."""
    table = pick(x, f32=LOG2_PAIR_F32, f64=LOG2_PAIR_F64)
    mantissa = format_of(x).mantissa
    bits = to_bits(b, x)
    # Half a sixteenth is added for the number of the nearest one, and taken away again.
    half_step = const(1 << (mantissa - 5), bits.type)
    moved = from_bits(b, b.add(bits, half_step))
    significand = to_bits(b, avx512.significand(b, moved))
    m = from_bits(b, b.sub(significand, half_step))
    index = b.lshr(significand, const(mantissa - 4, bits.type))

    r = b.fma(m, lookup(b, INVERSES, index), like(-1.0, x))
    square = b.mul(b.mul(r, like(-0.5, x)), r)
    hi = b.fma(b.mul(r, like(-0.5, x)), r, r)
    lo = b.fma(b.mul(r, like(-0.5, x)), r, b.sub(r, hi))
    of_e, rest = pair_const(table.of_e, x)
    log = b.mul(of_e, hi)
    low = b.fma(of_e, lo, b.fma(rest, hi, b.fma(of_e, hi, b.neg(log))))
    low = b.fma(b.mul(square, r), polynomial(b, r, table.series), low)
    head = b.add(avx512.exponent(b, moved), lookup(b, table.heads, index))
    whole = fast_two_sum(b, head, log)
    low = b.add(b.add(whole.lo, lookup(b, table.tails, index)), low)

    product = two_prod(b, y, whole.hi)
    return exp2_of_sum(b, product.hi, b.fma(y, low, product.lo))


def _core(b: Builder, x: Value, y: Value, extra: Value) -> Value:
    """Return (x 2^extra)^y for positive normal x and |y| up to ``_LARGE_Y``; one shared body."""
    emit = pick(x, f32=_core_f32, f64=_core_f64)

    def body(b: Builder, a: Sequence[Value]) -> Value:
        return emit(b, *a)

    name = f"tj.power.core.{x.type.suffix}"
    symbol = b.module.require(name, x.type, [x.type] * 3, body)
    return b.call(symbol, x.type, x, y, extra)


def _general(b: Builder, x: Value, y: Value) -> Value:
    """Return x^y for all arguments."""
    form = format_of(x)
    zero, one, infinity = like(0.0, x), like(1.0, x), like(INF, x)
    positive = b.abs(x)
    bound = _LARGE_Y[x.type.kind]
    limited = at_least(b, at_most(b, y, bound), -bound)
    subnormal = b.compare("lt", positive, like(form.tiny, x))
    up = form.mantissa + 1
    base = b.select(subnormal, b.mul(positive, like(2.0**up, x)), positive)
    result = _core(b, base, limited, b.select(subnormal, like(-up, x), zero))

    y_negative = b.compare("lt", y, zero)
    at_zero = b.select(y_negative, infinity, zero)
    at_infinity = b.select(y_negative, zero, infinity)
    result = b.select(b.compare("eq", x, zero), at_zero, result)
    result = b.select(b.compare("eq", positive, infinity), at_infinity, result)

    whole = b.compare("eq", b.round_even(y), y)
    half = b.mul(y, like(0.5, x))
    odd = b.and_(whole, b.compare("ne", b.round_even(half), half))
    sign = sign_bit(b, x)
    result = b.select(odd, flip_sign(b, result, sign), result)
    no_root = b.and_(b.compare("lt", x, zero), b.compare("lt", positive, infinity))
    no_root = b.and_(no_root, b.not_(whole))
    result = b.select(no_root, like(NAN, x), result)

    result = b.select(b.compare("uno", x, y), b.add(x, y), result)
    certain = b.or_(b.compare("eq", y, zero), b.compare("eq", x, one))
    return b.select(certain, one, result)


def _by_general(b: Builder, x: Value, y: Value, special: Value, usual: Value) -> Value:
    return rare(b, "power.general", special, usual, [x, y], lambda b, a: _general(b, a[0], a[1]))


@register("power", arity=2)
def power(b: Builder, x: Value, y: Value) -> Value:
    """x^y as C's pow: 1 for y = 0 or x = 1 even with NaN; NaN for negative x and a fraction y."""
    if avx512.available(b):
        result = _core_by_table(b, x, y)
        special = b.compare("lt", x, like(format_of(x).tiny, x))
        return _by_general(b, x, y, b.or_(special, b.compare("uno", result, result)), result)
    result = _core(b, x, y, like(0.0, x))
    bound = like(_LARGE_Y[x.type.kind], x)
    special = b.or_(not_normal(b, x), b.not_(b.compare("lt", b.abs(y), bound)))
    return _by_general(b, x, y, special, result)
