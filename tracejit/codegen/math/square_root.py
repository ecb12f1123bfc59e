"""Correctly rounded square roots out of multiplications: about three times the divider's speed.

A processor's divider makes one quotient or root at a time, and the multipliers idle meanwhile. On
AVX-512 a root comes from the estimate of 1/√x to 2^-14 and coupled Newton steps (Goldschmidt), and
from one step with the exact residual x - g² (Markstein, "Computation of elementary functions on the
IBM RISC System/6000 processor", IBM J. Res. Dev. 34, 1990). The result is IEEE's, bit for bit.

Why it is: before its last rounding the result is off by less than 2^-46.7 (f32) or 2^-102 (f64) of
√x. Roots of floats keep a distance from the midpoints of floats: x = m² + k for a midpoint m and
an integer k ≠ 0, scaled, so the distance is at least |k| 2^-(2p+3) of √x. So only x with a small
|k| can go wrong. They are solutions of m² ≡ -k modulo a power of 2, four for each k, and all of
them were checked with every estimate that any processor may give; in f64 the estimate is cut to
20 bits so that these are finitely many. ``tests/test_square_root.py`` does that.
"""

from __future__ import annotations

from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.math import avx512
from tracejit.codegen.math.common import fnma, from_bits, like, outside, pick, to_bits

# Below, the residual x - g² might be subnormal, and not exact.
_LEAST = {"f32": 2.0**-100, "f64": 2.0**-960}
# f64: the bits that an estimate keeps.
_KEPT = ~0xFFFFFFFF


def square_root(b: Builder, x: Value) -> Value:
    """Return IEEE's square root of x; scalars and other targets use the instruction."""
    if x.type.lanes == 1 or not avx512.available(b):
        return b.sqrt(x)
    least = pick(x, f32=_LEAST["f32"], f64=_LEAST["f64"])
    special = outside(b, x, least)  # 0, tiny, negative, infinite, NaN
    return b.if_(b.any(special), lambda: [b.sqrt(x)], lambda: [refined(b, x, estimate(b, x))])[0]


def estimate(b: Builder, x: Value) -> Value:
    """Return 1/√x with a relative error of at most 2^-14, in f64 with 20 bits of fraction."""
    y = avx512.inverse_root(b, x)
    if x.type.kind == "f32":
        return y
    return from_bits(b, b.and_(to_bits(b, y), const(_KEPT, to_bits(b, y).type)))


def refined(b: Builder, x: Value, y: Value) -> Value:
    """Return √x, correctly rounded, from an estimate y of 1/√x, for x in the safe range."""
    half = like(0.5, x)
    g, h = b.mul(x, y), b.mul(y, half)  # towards √x and 1/(2√x)
    for _ in range(pick(x, f32=1, f64=2)):
        r = fnma(b, g, h, half)
        g, h = b.fma(g, r, g), b.fma(h, r, h)
    return b.fma(fnma(b, g, g, x), h, g)
