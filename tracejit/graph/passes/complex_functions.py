"""Elementary functions of complex numbers on their parts (see ``complex_arithmetic``).

Each keeps its accuracy relative to the modulus of the result over the whole range: nothing
overflows on the way where the result does not, and special values are those of C99, annex G.
Hyperbolic functions and their inverses serve the trigonometric ones, as sin z = −i sinh iz. The
inverses are Kahan's ("Branch cuts for complex elementary functions", 1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tracejit.graph.emit import Emit
from tracejit.graph.node import Node
from tracejit.graph.passes.complex_arithmetic import (
    RULES,
    Pair,
    Value,
    divided,
    like,
    on,
    product,
)

__all__ = ["RULES"]

_SINGLE = np.dtype(np.float32)


class _Limits(NamedTuple):
    """Exponents ``step`` (twice that from ``far`` on) are taken out of sinh x from ``near`` on.

    From ``flat`` on tanh x is 1. Beyond ``large``, and below ``small``, roots are scaled: by
    ``1/4``, or ``raised``.
    """

    near: float
    step: float
    far: float
    flat: float
    large: float
    small: float
    raised: float


_OF_SINGLE = _Limits(50.0, 40.0, 100.0, 11.0, 2.0**125, 2.0**-100, 2.0**26)
_OF_DOUBLE = _Limits(400.0, 350.0, 1000.0, 22.0, 2.0**1021, 2.0**-950, 2.0**54)


def _limits(x: Node) -> _Limits:
    return _OF_SINGLE if x.dtype == _SINGLE else _OF_DOUBLE


def _turned(emit: Emit, z: Pair) -> Pair:
    """Return iz."""
    return Pair(emit.negative(z.im), z.re)


def _turned_back(emit: Emit, z: Pair) -> Pair:
    """Return −iz."""
    return Pair(z.im, emit.negative(z.re))


# -- exponentials ----------------------------------------------------------------------------------

# Above this argument an exponential is taken in two factors: eˣ may overflow where eˣ·cos y does
# not.
_LARGE = {np.dtype(np.float32): 88.0, np.dtype(np.float64): 709.0}


@on("exp")
def _exp(emit: Emit, node: Node, x: Pair) -> Value:
    """C99 annex G, by cases: a real argument, an infinite real part."""
    return _exponential(emit, x)


def _exponential(emit: Emit, x: Pair) -> Pair:
    bound = _LARGE[x.re.dtype]
    large = emit.greater(x.re, bound)
    magnitude = emit.exp(emit.where(large, emit.subtract(x.re, bound), x.re))
    scale = float(np.exp(x.re.dtype.type(bound)))
    factor = emit.where(large, *(like(emit, x.re, value) for value in (scale, 1.0)))

    def times(direction: Node) -> Node:
        return emit.multiply(magnitude, emit.multiply(factor, direction))

    real, imag = times(emit.cos(x.im)), times(emit.sin(x.im))
    finite = emit.isfinite(x.im)
    upwards = emit.logical_and(emit.isinf(x.re), emit.logical_not(finite))
    limit = emit.where(emit.greater(x.re, 0.0), x.re, like(emit, x.re, 0.0))
    real = emit.where(upwards, limit, real)
    below = emit.logical_and(upwards, emit.less(x.re, 0.0))
    imag = emit.where(below, like(emit, x.re, 0.0), imag)
    plain = emit.equal(x.im, 0.0)
    whole = emit.exp(x.re)
    return Pair(emit.where(plain, whole, real), emit.where(plain, x.im, imag))


@on("exp2")
def _exp2(emit: Emit, node: Node, x: Pair) -> Value:
    return _exponential(emit, _scaled(emit, x, math.log(2)))


@on("expm1")
def _expm1(emit: Emit, node: Node, x: Pair) -> Value:
    """eᵃ cos b − 1 = (eᵃ − 1) cos b − 2 sin²(b/2)."""
    half = emit.sin(emit.multiply(x.im, 0.5))
    less = emit.multiply(emit.multiply(half, half), 2.0)
    real = emit.subtract(emit.multiply(emit.expm1(x.re), emit.cos(x.im)), less)
    return Pair(real, _exponential(emit, x).im)


def _scaled(emit: Emit, z: Pair, factor: float) -> Pair:
    return Pair(emit.multiply(z.re, factor), emit.multiply(z.im, factor))


# -- logarithms ------------------------------------------------------------------------------------


@on("log")
def _log(emit: Emit, node: Node, x: Pair) -> Value:
    return _logarithm(emit, x)


@on("log2")
def _log2(emit: Emit, node: Node, x: Pair) -> Value:
    return _scaled(emit, _logarithm(emit, x), 1 / math.log(2))


@on("log10")
def _log10(emit: Emit, node: Node, x: Pair) -> Value:
    return _scaled(emit, _logarithm(emit, x), 1 / math.log(10))


@on("log1p")
def _log1p(emit: Emit, node: Node, x: Pair) -> Value:
    # |1 + z|² − 1 = a (a + 2) + b²
    above = emit.multiply(x.re, emit.add(x.re, 2.0))
    return _logarithm(emit, Pair(emit.add(x.re, 1.0), x.im), above)


def _logarithm(emit: Emit, z: Pair, above: Node | None = None) -> Pair:
    """Return log |z| + i arg z; ``above`` is the square of the real part less 1, if not rounded.

    With a the larger part: log |z| is half of log1p((a − 1)(a + 1) + b²) near 1, and elsewhere
    log a + half of log1p((b/a)²).
    """
    p, q = emit.absolute(z.re), emit.absolute(z.im)
    large, small = emit.maximum(p, q), emit.minimum(p, q)
    near = emit.logical_and(emit.greater(large, 0.5), emit.less(large, 2.0))
    square = emit.multiply(emit.subtract(large, 1.0), emit.add(large, 1.0))
    if above is not None:
        square = emit.where(emit.greater_equal(p, q), above, square)
    excess = emit.add(square, emit.multiply(small, small))
    # Of zeros, and of infinities, the quotient counts as 0.
    usual = emit.logical_and(emit.not_equal(large, 0.0), emit.isfinite(large))
    ratio = emit.where(usual, emit.divide(small, large), like(emit, p, 0.0))
    half = emit.multiply(emit.log1p(emit.where(near, excess, emit.multiply(ratio, ratio))), 0.5)
    real = emit.add(emit.where(near, like(emit, p, 0.0), emit.log(large)), half)
    real = emit.where(_infinite(emit, z), like(emit, p, math.inf), real)
    return Pair(real, emit.arctan2(z.im, z.re))


# -- powers ----------------------------------------------------------------------------------------


@on("sqrt")
def _sqrt(emit: Emit, node: Node, x: Pair) -> Value:
    return _root(emit, x)


def _root(emit: Emit, z: Pair) -> Pair:
    """t = √((|a| + |z|) / 2) is the larger part of the root, |b| / 2t the other one."""
    limits = _limits(z.re)
    p, q = emit.absolute(z.re), emit.absolute(z.im)
    most = emit.maximum(p, q)
    large, small = emit.greater(most, limits.large), emit.less(most, limits.small)

    def by_size(down: float, up: float) -> Node:
        one, low, high = (like(emit, p, v) for v in (1.0, down, up))
        return emit.where(large, low, emit.where(small, high, one))

    scale = by_size(0.25, limits.raised)
    back = by_size(2.0, limits.raised**-0.5)
    a, b = emit.multiply(p, scale), emit.multiply(q, scale)
    t = emit.sqrt(emit.multiply(emit.add(a, emit.hypot(a, b)), 0.5))
    other = emit.divide(b, emit.add(t, t))
    t, other = emit.multiply(t, back), emit.multiply(other, back)
    right = emit.logical_not(emit.less(z.re, 0.0))
    real, imag = emit.where(right, t, other), emit.where(right, other, t)
    zero = emit.equal(most, 0.0)
    real = emit.where(zero, like(emit, p, 0.0), real)
    imag = emit.where(zero, q, imag)
    # √(±∞ + bi) is ∞ ± 0i and 0 ± ∞i; √(a ± ∞i) is ∞ ± ∞i for any a, NaN too.
    endless = emit.logical_and(emit.isinf(z.re), emit.isfinite(q))
    forwards = emit.greater(z.re, 0.0)
    inf, none = like(emit, p, math.inf), like(emit, p, 0.0)
    real = emit.where(endless, emit.where(forwards, inf, none), real)
    imag = emit.where(endless, emit.where(forwards, none, inf), imag)
    lost = emit.logical_and(emit.isinf(z.re), emit.isnan(q))
    real = emit.where(emit.logical_and(lost, forwards), inf, real)
    imag = emit.where(emit.logical_and(lost, emit.logical_not(forwards)), inf, imag)
    upwards = emit.isinf(q)
    real, imag = (emit.where(upwards, inf, part) for part in (real, imag))
    return Pair(real, emit.copysign(imag, z.im))


# NumPy multiplies powers with whole exponents below this out.
_MULTIPLIED_OUT = 100


@on("power")
def _power(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    """Whole exponents that are known by squaring, as NumPy's; else e^(y log x), and powers of 0."""
    exponent = node.inputs[1]
    value = exponent.attrs["value"] if exponent.op.name == "constant" else None
    if isinstance(value, complex | float | int) and value == int(complex(value).real):
        whole = int(complex(value).real)
        if 0 < abs(whole) < _MULTIPLIED_OUT:
            power = _multiplied_out(emit, x, abs(whole))
            return power if whole > 0 else _inverse(emit, power)
    return _general_power(emit, x, y)


def _multiplied_out(emit: Emit, x: Pair, exponent: int) -> Pair:
    if exponent == 3:
        return product(emit, x, product(emit, x, x, emit.multiply), emit.multiply)
    result: Pair | None = None
    while exponent:
        if exponent & 1:
            result = x if result is None else product(emit, result, x, emit.multiply)
        exponent >>= 1
        if exponent:
            x = product(emit, x, x, emit.multiply)
    assert result is not None
    return result


def _inverse(emit: Emit, x: Pair) -> Pair:
    one = Pair(like(emit, x.re, 1.0), like(emit, x.re, 0.0))
    return divided(emit, one, x)


def _general_power(emit: Emit, x: Pair, y: Pair) -> Pair:
    power = _exponential(emit, product(emit, y, _logarithm(emit, x), emit.multiply))
    zero, one, nan = (like(emit, x.re, v) for v in (0.0, 1.0, math.nan))
    of_zero = emit.logical_and(emit.equal(x.re, 0.0), emit.equal(x.im, 0.0))
    vanishes = emit.logical_and(emit.greater(y.re, 0.0), emit.logical_not(emit.isnan(y.im)))
    limit = emit.where(vanishes, zero, nan)
    certain = emit.logical_and(emit.equal(y.re, 0.0), emit.equal(y.im, 0.0))

    def part(usual: Node, empty: Node) -> Node:
        return emit.where(certain, empty, emit.where(of_zero, limit, usual))

    return Pair(part(power.re, one), part(power.im, zero))


# -- hyperbolic and trigonometric functions --------------------------------------------------------


class _Parts(NamedTuple):
    """sinh a and cosh a less a factor that ``grown`` gives to sin b and cos b."""

    sinh: Node
    cosh: Node
    grown: Callable[[Node], Node]


def _hyperbolic(emit: Emit, a: Node) -> _Parts:
    """sinh a may overflow where sinh a · cos b does not: some of its exponent goes to cos b."""
    limits = _limits(a)
    size = emit.absolute(a)
    near, far = emit.greater(size, limits.near), emit.greater(size, limits.far)
    zero, one = like(emit, a, 0.0), like(emit, a, 1.0)
    taken = emit.where(near, like(emit, a, limits.step), zero)
    taken = emit.where(far, like(emit, a, 2 * limits.step), taken)
    rest = emit.copysign(emit.subtract(size, taken), a)
    growth = like(emit, a, float(np.exp(limits.step)))

    def grown(x: Node) -> Node:
        once = emit.multiply(x, emit.where(near, growth, one))
        return emit.multiply(once, emit.where(far, growth, one))

    return _Parts(emit.sinh(rest), emit.cosh(rest), grown)


def _times(emit: Emit, x: Node, y: Node) -> Node:
    """Return x · y, and 0 where either is 0 and the other infinite or NaN."""
    one = like(emit, x, 1.0)
    usual = emit.where(emit.equal(x, 0.0), emit.copysign(one, y), y)
    alone = emit.logical_and(emit.equal(y, 0.0), emit.not_equal(x, 0.0))
    other = emit.where(alone, emit.copysign(one, x), x)
    return emit.multiply(other, usual)


def _endless(emit: Emit, z: Pair) -> Node:
    """Whether a is infinite and b is not a finite number."""
    return emit.logical_and(emit.isinf(z.re), emit.logical_not(emit.isfinite(z.im)))


def _hyperbolic_sine(emit: Emit, z: Pair) -> Pair:
    parts = _hyperbolic(emit, z.re)
    real = _times(emit, parts.sinh, parts.grown(emit.cos(z.im)))
    imag = _times(emit, parts.cosh, parts.grown(emit.sin(z.im)))
    return Pair(emit.where(_endless(emit, z), z.re, real), imag)


def _hyperbolic_cosine(emit: Emit, z: Pair) -> Pair:
    parts = _hyperbolic(emit, z.re)
    real = emit.multiply(parts.cosh, parts.grown(emit.cos(z.im)))
    imag = _times(emit, parts.sinh, parts.grown(emit.sin(z.im)))
    return Pair(emit.where(_endless(emit, z), emit.absolute(z.re), real), imag)


def _hyperbolic_tangent(emit: Emit, z: Pair) -> Pair:
    """(sinh a cosh a + i sin b cos b) / (sinh² a + cos² b); for large a less is enough."""
    sinh, cosh = emit.sinh(z.re), emit.cosh(z.re)
    sin, cos = emit.sin(z.im), emit.cos(z.im)
    below = emit.add(emit.multiply(sinh, sinh), emit.multiply(cos, cos))
    real = emit.divide(emit.multiply(sinh, cosh), below)
    turn = emit.multiply(sin, cos)
    imag = emit.divide(turn, below)
    flat = emit.greater(emit.absolute(z.re), _limits(z.re).flat)
    real = emit.where(flat, emit.copysign(like(emit, sinh, 1.0), z.re), real)
    size = emit.absolute(sinh)
    imag = emit.where(flat, emit.divide(emit.divide(turn, size), size), imag)
    nothing = emit.logical_or(_endless(emit, z), emit.equal(z.im, 0.0))
    imag = emit.where(nothing, emit.copysign(like(emit, sinh, 0.0), z.im), imag)
    # tanh(0 + bi) is 0 + i tan b, where b is not a number too.
    return Pair(emit.where(emit.equal(z.re, 0.0), z.re, real), imag)


@on("sinh")
def _sinh(emit: Emit, node: Node, x: Pair) -> Value:
    return _hyperbolic_sine(emit, x)


@on("cosh")
def _cosh(emit: Emit, node: Node, x: Pair) -> Value:
    return _hyperbolic_cosine(emit, x)


@on("tanh")
def _tanh(emit: Emit, node: Node, x: Pair) -> Value:
    return _hyperbolic_tangent(emit, x)


@on("sin")
def _sin(emit: Emit, node: Node, x: Pair) -> Value:
    return _turned_back(emit, _hyperbolic_sine(emit, _turned(emit, x)))


@on("cos")
def _cos(emit: Emit, node: Node, x: Pair) -> Value:
    return _hyperbolic_cosine(emit, _turned(emit, x))


@on("tan")
def _tan(emit: Emit, node: Node, x: Pair) -> Value:
    return _turned_back(emit, _hyperbolic_tangent(emit, _turned(emit, x)))


# -- inverse functions -----------------------------------------------------------------------------


def _roots(emit: Emit, z: Pair) -> tuple[Pair, Pair]:
    """Return √(1 − z) and √(1 + z)."""
    minus = Pair(emit.subtract(1.0, z.re), emit.negative(z.im))
    return _root(emit, minus), _root(emit, Pair(emit.add(z.re, 1.0), z.im))


def _crossed(emit: Emit, x: Pair, y: Pair) -> Node:
    """Return the imaginary part of conj(x) · y."""
    return emit.subtract(emit.multiply(x.re, y.im), emit.multiply(x.im, y.re))


def _infinite(emit: Emit, z: Pair) -> Node:
    return emit.logical_or(emit.isinf(z.re), emit.isinf(z.im))


def _inverse_sine(emit: Emit, z: Pair) -> Pair:
    minus, plus = _roots(emit, z)
    below = emit.subtract(emit.multiply(minus.re, plus.re), emit.multiply(minus.im, plus.im))
    infinite = _infinite(emit, z)
    below = emit.where(infinite, emit.absolute(z.im), below)
    angle = emit.where(emit.equal(z.re, 0.0), z.re, emit.arctan2(z.re, below))
    beyond = emit.copysign(like(emit, below, math.inf), z.im)
    size = emit.arcsinh(_crossed(emit, minus, plus))
    return Pair(angle, emit.where(infinite, beyond, size))


def _inverse_cosine(emit: Emit, z: Pair) -> Pair:
    minus, plus = _roots(emit, z)
    infinite = _infinite(emit, z)
    angle = emit.multiply(emit.arctan2(minus.re, plus.re), 2.0)
    angle = emit.where(infinite, emit.arctan2(emit.absolute(z.im), z.re), angle)
    angle = emit.where(emit.equal(z.re, 0.0), like(emit, angle, math.pi / 2), angle)
    beyond = emit.copysign(like(emit, angle, math.inf), emit.negative(z.im))
    size = emit.arcsinh(_crossed(emit, plus, minus))
    return Pair(angle, emit.where(infinite, beyond, size))


def _inverse_hyperbolic_tangent(emit: Emit, z: Pair) -> Pair:
    """log1p(4a / ((1 − a)² + b²)) / 4 + i atan2(2b, (1 − a)(1 + a) − b²) / 2, of |a|."""
    a = emit.absolute(z.re)
    less, more = emit.subtract(1.0, a), emit.add(a, 1.0)
    large = emit.greater(emit.maximum(a, emit.absolute(z.im)), _limits(a).raised)
    below = emit.add(emit.multiply(less, less), emit.multiply(z.im, z.im))
    # For large z, 1/z, whose real part a/|z|² is; half a turn beside that.
    size = emit.hypot(a, z.im)
    beyond = emit.divide(emit.divide(a, size), size)
    infinite = _infinite(emit, z)
    beyond = emit.where(infinite, like(emit, a, 0.0), beyond)
    large = emit.logical_or(large, infinite)
    usual = emit.multiply(emit.log1p(emit.divide(emit.multiply(a, 4.0), below)), 0.25)
    real = emit.where(large, beyond, usual)
    square = emit.subtract(emit.multiply(less, more), emit.multiply(z.im, z.im))
    angle = emit.multiply(emit.arctan2(emit.multiply(z.im, 2.0), square), 0.5)
    quarter = emit.copysign(like(emit, a, math.pi / 2), z.im)
    known = emit.logical_and(large, emit.logical_not(emit.isnan(z.im)))
    imag = emit.where(known, quarter, angle)
    real = emit.where(emit.equal(a, 0.0), a, real)
    return Pair(emit.copysign(real, z.re), imag)


@on("arcsin")
def _arcsin(emit: Emit, node: Node, x: Pair) -> Value:
    return _inverse_sine(emit, x)


@on("arcsinh")
def _arcsinh(emit: Emit, node: Node, x: Pair) -> Value:
    return _turned_back(emit, _inverse_sine(emit, _turned(emit, x)))


@on("arccos")
def _arccos(emit: Emit, node: Node, x: Pair) -> Value:
    return _inverse_cosine(emit, x)


@on("arccosh")
def _arccosh(emit: Emit, node: Node, x: Pair) -> Value:
    """±i arccos z, with a real part that is not negative."""
    angle, size = _inverse_cosine(emit, x)
    return Pair(emit.absolute(size), emit.copysign(angle, x.im))


@on("arctanh")
def _arctanh(emit: Emit, node: Node, x: Pair) -> Value:
    return _inverse_hyperbolic_tangent(emit, x)


@on("arctan")
def _arctan(emit: Emit, node: Node, x: Pair) -> Value:
    return _turned_back(emit, _inverse_hyperbolic_tangent(emit, _turned(emit, x)))
