"""Arithmetic of complex numbers on their parts: what the pass ``complexes`` replaces it by.

A rule gets the node, and its operands: pairs where they are complex. It returns None where it does
not apply.

The formulas are NumPy's: quotients by Smith's algorithm (R. L. Smith, Algorithm 116, 1962), real
operands promoted to complex before they are multiplied, so that infinities and NaN go where
NumPy's go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracejit.graph.emit import Emit
from tracejit.graph.node import Node
from tracejit.ops.table import real_dtype


class Pair(NamedTuple):
    """The parts of a complex value."""

    re: Node
    im: Node


Value = Pair | Node
Rule = Callable[..., Value | None]

RULES: dict[str, Rule] = {}


def on(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return register


@on("add", "subtract", "negative", "rint")
def _by_parts(emit: Emit, node: Node, *operands: Pair) -> Value:
    op = getattr(emit, node.op.name)
    return Pair(op(*(v.re for v in operands)), op(*(v.im for v in operands)))


@on("sum", "cumsum")
def _sum(emit: Emit, node: Node, x: Pair) -> Value:
    op = getattr(emit, node.op.name)
    return Pair(op(x.re, **node.attrs), op(x.im, **node.attrs))


@on("multiply")
def _multiply(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return product(emit, x, y, emit.multiply)


def product(emit: Emit, x: Pair, y: Pair, times: Callable[[Node, Node], Node]) -> Pair:
    real = emit.subtract(times(x.re, y.re), times(x.im, y.im))
    return Pair(real, emit.add(times(x.re, y.im), times(x.im, y.re)))


@on("square")
def _square(emit: Emit, node: Node, x: Pair) -> Value:
    real = emit.subtract(emit.multiply(x.re, x.re), emit.multiply(x.im, x.im))
    cross = emit.multiply(x.re, x.im)
    return Pair(real, emit.add(cross, cross))


@on("divide")
def _divide(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return divided(emit, x, y)


def divided(emit: Emit, x: Pair, y: Pair) -> Pair:
    """Divide by the larger part of y first, so that nothing overflows on the way."""
    p, q = emit.absolute(y.re), emit.absolute(y.im)
    wide = emit.greater_equal(p, q)
    large, small = emit.where(wide, y.re, y.im), emit.where(wide, y.im, y.re)
    ratio = emit.divide(small, large)
    scale = emit.divide(1.0, emit.add(large, emit.multiply(small, ratio)))
    first, second = emit.where(wide, x.re, x.im), emit.where(wide, x.im, x.re)
    # wide: (a + b·r, b − a·r), otherwise (a·r + b, b·r − a).
    real = emit.multiply(emit.add(first, emit.multiply(second, ratio)), scale)
    turned = emit.subtract(second, emit.multiply(first, ratio))
    turned = emit.where(wide, turned, emit.subtract(emit.multiply(x.im, ratio), x.re))
    imag = emit.multiply(turned, scale)
    zero = emit.logical_and(emit.equal(p, 0.0), emit.equal(q, 0.0))
    real = emit.where(zero, emit.divide(x.re, p), real)
    return Pair(real, emit.where(zero, emit.divide(x.im, p), imag))


@on("reciprocal")
def _reciprocal(emit: Emit, node: Node, x: Pair) -> Value:
    wide = emit.less_equal(emit.absolute(x.im), emit.absolute(x.re))
    large, small = emit.where(wide, x.re, x.im), emit.where(wide, x.im, x.re)
    ratio = emit.divide(small, large)
    scale = emit.add(large, emit.multiply(small, ratio))
    one = emit.where(wide, like(emit, x.re, 1.0), ratio)
    other = emit.where(wide, ratio, like(emit, x.re, 1.0))
    return Pair(emit.divide(one, scale), emit.divide(emit.negative(other), scale))


def like(emit: Emit, x: Node, value: float) -> Node:
    return emit.constant(value, x.dtype)


@on("absolute")
def _absolute(emit: Emit, node: Node, x: Pair) -> Value:
    return emit.hypot(x.re, x.im)


@on("real")
def _real(emit: Emit, node: Node, x: Pair) -> Value:
    return x.re


@on("imag")
def _imag(emit: Emit, node: Node, x: Pair) -> Value:
    return x.im


@on("complex")
def _complex(emit: Emit, node: Node, re: Node, im: Node) -> Value:
    """Parts of a pair have the shape of the value."""
    return Pair(*(spread(emit, part, node.shape) for part in (re, im)))


def spread(emit: Emit, part: Node, shape: Sequence[int]) -> Node:
    if tuple(part.shape) == tuple(shape):
        return part
    return emit.broadcast_to(part, shape=tuple(shape))


@on("cast")
def _cast(emit: Emit, node: Node, x: Value) -> Value:
    if not isinstance(x, Pair):
        re = emit.cast(x, real_dtype(node.dtype))
        return Pair(re, spread(emit, emit.constant(0.0, re.dtype), node.shape))
    if node.dtype.kind == "c":
        wanted = real_dtype(node.dtype)
        return Pair(emit.cast(x.re, wanted), emit.cast(x.im, wanted))
    if node.dtype.kind == "b":
        return _nonzero(emit, x)
    return emit.cast(x.re, node.dtype)


@on("equal")
def _equal(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return emit.logical_and(emit.equal(x.re, y.re), emit.equal(x.im, y.im))


@on("not_equal")
def _not_equal(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return emit.logical_or(emit.not_equal(x.re, y.re), emit.not_equal(x.im, y.im))


@on("isnan", "isinf")
def _either(emit: Emit, node: Node, x: Pair) -> Value:
    test = getattr(emit, node.op.name)
    return emit.logical_or(test(x.re), test(x.im))


@on("isfinite")
def _both(emit: Emit, node: Node, x: Pair) -> Value:
    return emit.logical_and(emit.isfinite(x.re), emit.isfinite(x.im))


@on("where")
def _where(emit: Emit, node: Node, condition: Node, x: Pair, y: Pair) -> Value | None:
    if isinstance(condition, Pair):
        return None
    return Pair(emit.where(condition, x.re, y.re), emit.where(condition, x.im, y.im))


@on("sign")
def _sign(emit: Emit, node: Node, x: Pair) -> Value:
    """z / |z|; a single infinite part as ±1 beside 0."""
    size, zero = emit.hypot(x.re, x.im), like(emit, x.re, 0.0)
    nothing = emit.equal(size, 0.0)

    def part(mine: Node, other: Node) -> Node:
        usual = emit.where(nothing, zero, emit.divide(mine, size))
        one = emit.copysign(like(emit, mine, 1.0), mine)
        both = emit.where(emit.isinf(other), like(emit, mine, math.nan), one)
        beyond = emit.where(emit.isinf(other), zero, usual)
        return emit.where(emit.isinf(mine), both, beyond)

    return Pair(part(x.re, x.im), part(x.im, x.re))


# -- truth and order -------------------------------------------------------------------------------


def _nonzero(emit: Emit, x: Pair) -> Node:
    return emit.logical_or(emit.not_equal(x.re, 0.0), emit.not_equal(x.im, 0.0))


@on("logical_and", "logical_or", "logical_xor", "logical_not")
def _logical(emit: Emit, node: Node, *operands: Pair) -> Value:
    return getattr(emit, node.op.name)(*(_nonzero(emit, v) for v in operands))


@on("any", "all")
def _of_some(emit: Emit, node: Node, x: Pair) -> Value:
    return getattr(emit, node.op.name)(_nonzero(emit, x), **node.attrs)


@on("less", "less_equal", "greater", "greater_equal")
def _ordered(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return _compared(emit, node.op.name, x, y)


def _compared(emit: Emit, name: str, x: Pair, y: Pair) -> Node:
    """By real parts, of equal ones by imaginary parts; nothing compares with NaN."""
    first = getattr(emit, name.removesuffix("_equal"))(x.re, y.re)
    numbers = emit.logical_not(emit.logical_or(emit.isnan(x.im), emit.isnan(y.im)))
    second = emit.logical_and(emit.equal(x.re, y.re), getattr(emit, name)(x.im, y.im))
    return emit.logical_or(emit.logical_and(first, numbers), second)


@on("maximum", "minimum", "fmax", "fmin")
def _extremum(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    """The first of equal ones; a NaN (the other one, in fmax and fmin)."""
    name = node.op.name
    beyond = _compared(emit, "greater_equal" if "max" in name else "less_equal", x, y)
    unknown = x if name.startswith("m") else y
    first = emit.logical_or(beyond, emit.logical_or(emit.isnan(unknown.re), emit.isnan(unknown.im)))
    return Pair(emit.where(first, x.re, y.re), emit.where(first, x.im, y.im))
