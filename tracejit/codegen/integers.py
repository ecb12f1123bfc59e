"""Powers and divisors of integers, by as many rounds as the longest lane needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracejit.codegen import division
from tracejit.codegen.builder import Builder, Value, const

_Body = Callable[[Builder, Value, Value], Value]


def power(b: Builder, x: Value, n: Value) -> Value:
    """Return x to the power n ≥ 0, modulo 2^bits as NumPy's: squares for the bits of n."""
    return _shared(b, "power", _power, x, n)


def gcd(b: Builder, x: Value, y: Value, *, signed: bool) -> Value:
    """Return the greatest common divisor, 0 of zeros; that of the lowest number may be itself."""
    if signed:
        x, y = b.abs(x), b.abs(y)
    return _shared(b, "gcd", _gcd, x, y)


def lcm(b: Builder, x: Value, y: Value, *, signed: bool) -> Value:
    """Return |x| / gcd · |y|, modulo 2^bits; 0 where either is."""
    if signed:
        x, y = b.abs(x), b.abs(y)
    divisor = _shared(b, "gcd", _gcd, x, y)
    return b.mul(division.floor_divide(b, division.Ints(x, divisor, False)), y)


def _shared(b: Builder, name: str, body: _Body, x: Value, y: Value) -> Value:
    """Call ``body``, which is written once for a module: loops do not gain by being inlined."""
    symbol = b.module.require(
        f"tj.{name}.{x.type.suffix}", x.type, [x.type] * 2, lambda inner, a: body(inner, *a)
    )
    return b.call(symbol, x.type, x, y)


def _power(b: Builder, x: Value, n: Value) -> Value:
    zero, one = const(0, n.type), const(1, n.type)

    def step(state: list[Value]) -> tuple[Value, Sequence[Value]]:
        result, square, rest = state
        odd = b.compare("ne", b.and_(rest, one), zero)
        result = b.select(odd, b.mul(result, square), result)
        rest = b.lshr(rest, one)
        return b.any(b.compare("ne", rest, zero)), [result, b.mul(square, square), rest]

    return b.repeat([one, x, n], step)[0]


def _gcd(b: Builder, x: Value, y: Value) -> Value:
    """Stein's algorithm (1967): of two odd numbers, the smaller and the halved difference.

    No processor of ours divides vectors of integers; shifts and subtractions take a round for
    each bit at most twice.
    """
    zero = const(0, x.type)
    shift = _trailing_zeros(b, b.or_(x, y))
    none = b.compare("eq", x, zero)
    odd = b.select(none, y, x)
    odd = b.lshr(odd, _trailing_zeros(b, odd))

    def step(state: list[Value]) -> tuple[Value, Sequence[Value]]:
        least, rest = state
        rest = b.lshr(rest, _trailing_zeros(b, rest))
        going = b.compare("ne", rest, zero)
        swaps = b.and_(going, b.compare("ult", rest, least))
        small, large = b.select(swaps, rest, least), b.select(swaps, least, rest)
        rest = b.select(going, b.sub(large, small), zero)
        return b.any(b.compare("ne", rest, zero)), [small, rest]

    least, _ = b.repeat([odd, b.select(none, zero, y)], step)
    return b.shl(least, shift)


def _trailing_zeros(b: Builder, x: Value) -> Value:
    """Return how many low bits are 0; 0 for 0."""
    # The bits below the lowest one; all of them for 0.
    below = b.and_(b.not_(x), b.sub(x, const(1, x.type)))
    count = b.intrinsic("ctpop", x.type, below)
    return b.select(b.compare("eq", x, const(0, x.type)), const(0, x.type), count)
