"""exp, exp2, expm1 and the logistic function.

Method (Tang, "Table-driven implementation of the exponential function", 1989, without the
table): x = n ln 2 + r with |r| <= ln2 / 2, then e^x = 2^n e^r with a minimax polynomial for e^r.
ln 2 is cut in two so that n times its head is exact. Branch-free on every level.
"""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen.builder import Builder, Value
from tracejit.codegen.math.common import (
    at_least,
    at_most,
    fnma,
    format_of,
    horner,
    like,
    nearest,
    pick,
    scale_by_sign,
)
from tracejit.codegen.math.registry import register

LOG2_E = 1.4426950408889634


class LogTwo(NamedTuple):
    """ln 2 = hi + lo; hi has few enough bits that any exponent times hi is exact."""

    hi: float
    lo: float


LN2_F32 = LogTwo(float.fromhex("0x1.62ep-1"), float.fromhex("0x1.0bfbe8p-15"))
LN2_F64 = LogTwo(float.fromhex("0x1.62e42fefa0000p-1"), float.fromhex("0x1.cf79abc9e3b3ap-40"))

# (e^r - 1 - r) / r² on |r| <= ln2/2, minimax relative to e^r: errors 2^-28.2 and 2^-57.7.
_EXP_F32 = (
    0.4999999403953552, 0.16666516661643982, 0.04166810214519501, 0.008369202725589275,
    0.001383911818265915,
)  # fmt: skip
_EXP_F64 = (
    0.5000000000000011, 0.16666666666666685, 0.04166666666653538, 0.00833333333337075,
    0.0013888888941397213, 0.00019841269707156426, 2.480149574560428e-05, 2.7557447103446157e-06,
    2.7629266781668787e-07, 2.5035260147120966e-08,
)  # fmt: skip

# (2^r - 1) / r on |r| <= 1/2, minimax relative to 2^r: errors 2^-26.2 and 2^-55.1.
_EXP2_F32 = (
    0.6931472420692444, 0.24022655189037323, 0.05550272390246391, 0.009617064148187637,
    0.0013418447924777865, 0.0001575954374857247,
)  # fmt: skip
_EXP2_F64 = (
    0.6931471805599453, 0.2402265069591007, 0.05550410866482338, 0.009618129107630229,
    0.0013333558146029327, 0.00015403530389068032, 1.5252734437391614e-05, 1.3215492723310484e-06,
    1.0177673572660815e-07, 7.051483007743994e-09, 4.534307797028731e-10, 3.2283037863999054e-11,
)  # fmt: skip


class Reduced(NamedTuple):
    """x = n ln 2 + r: n as a float and in the low bits of an integer, and the remainder."""

    n: Value
    low_bits: Value
    r: Value


def reduce_log2(b: Builder, x: Value, *, bias: int = 0) -> Reduced:
    """Return x modulo ln 2, |r| <= 0.3467, for |x| below a few thousand."""
    ln2 = pick(x, f32=LN2_F32, f64=LN2_F64)
    n, low_bits = nearest(b, x, LOG2_E, bias=bias)
    r = fnma(b, n, like(ln2.lo, x), fnma(b, n, like(ln2.hi, x), x))
    return Reduced(n, low_bits, r)


def exp_reduced(b: Builder, r: Value) -> Value:
    """Return e^r for |r| <= 0.3467."""
    coefficients = pick(r, f32=_EXP_F32, f64=_EXP_F64)
    return horner(b, r, (1.0, 1.0, *coefficients))


@register("exp", inline=True)
def exp(b: Builder, x: Value) -> Value:
    """e^x; inf from 88.73 / 709.79 on, subnormal below -87.34 / -708.4, 0 below -103.98 / -745.2."""
    x = at_least(b, at_most(b, x, pick(x, f32=89.0, f64=710.0)), pick(x, f32=-104.5, f64=-746.0))
    n, low_bits, r = reduce_log2(b, x, bias=2 * format_of(x).bias)
    return scale_by_sign(b, exp_reduced(b, r), n, low_bits, x)


@register("exp2", inline=True)
def exp2(b: Builder, x: Value) -> Value:
    """2^x; exact for integers."""
    x = at_least(b, at_most(b, x, pick(x, f32=129.0, f64=1025.0)), pick(x, f32=-151.0, f64=-1076.0))
    n, low_bits = nearest(b, x, 1.0, bias=2 * format_of(x).bias)
    r = b.sub(x, n)
    p = horner(b, r, (1.0, *pick(x, f32=_EXP2_F32, f64=_EXP2_F64)))
    return scale_by_sign(b, p, n, low_bits, x)
