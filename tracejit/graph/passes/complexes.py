"""Arithmetic of complex numbers becomes arithmetic of their parts.

    (a + bi) · (c + di)   →  (ac − bd) + (ad + bc)i
    |a + bi|              →  hypot(a, b)
    exp(a + bi)           →  eᵃ · (cos b + i sin b)

Between complex operands and complex results stand real nodes, which fuse, vectorise and simplify
like any others. What has a rule here is computed on pairs; what has none (decompositions,
transforms, most elementary functions) keeps complex operands. A complex value in memory is read
through ``view_as_real`` and made through ``view_as_complex``, which cost nothing.

The formulas are NumPy's: quotients by Smith's algorithm (R. L. Smith, Algorithm 116, 1962), real
operands promoted to complex before they are multiplied, so that infinities and NaN go where
NumPy's go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.ops.table import real_dtype
from tracejit.sizes import is_one


class Pair(NamedTuple):
    """The parts of a complex value."""

    re: Node
    im: Node


Value = Pair | Node
Rule = Callable[..., Value | None]

# What moves elements: its parts are the same op on the parts. Where the values are in memory it
# stays as it is for those that want complex values.
_VIEWS = frozenset({"reshape", "permute", "broadcast_to", "slice"})
_MOVES = _VIEWS | {"take", "take_along_axis", "advanced_index"}
# What puts values together: of pairs that lie in memory side by side, as one more axis.
_JOINS = frozenset({"concat", "pad", "update_slice"})


def run(graph: Graph) -> Graph:
    """Return the graph with complex arithmetic spelled out."""
    if not any(node.dtype.kind == "c" for node in graph.nodes):
        return graph
    rewriting = _Rewriting()
    for node in graph.nodes:
        rewriting.visit(node)
    outputs = [rewriting.whole(node) for node in graph.outputs]
    return graph if list(graph.outputs) == outputs else Graph(graph.inputs, outputs)


class _Rewriting:
    """What has become of each node: a node, for complex values a pair of parts, or both."""

    def __init__(self) -> None:
        self.nodes: dict[Node, Node] = {}
        self.pairs: dict[Node, Pair] = {}

    def visit(self, node: Node) -> None:
        """Rewrite ``node``, whose operands are rewritten."""
        name, operands = node.op.name, node.inputs
        if name == "constant" and node.dtype.kind == "c":
            self.pairs[node] = _constants(node)
            return
        if node.dtype.kind == "c" or any(i.dtype.kind == "c" for i in operands):
            rule = _RULES.get(name)
            if rule is not None and self._visit_by(rule, node):
                return
            if name in _MOVES and operands[0] not in self.nodes:
                self.pairs[node] = self._mapped(node)
                return
            if name in _JOINS:
                self.nodes[node] = self._joined(node)
                return
        inputs = tuple([self.whole(i) for i in operands])
        same = inputs == operands
        self.nodes[node] = node if same else make(node.op, inputs, node.attrs, node.loc)

    def _visit_by(self, rule: Rule, node: Node) -> bool:
        values = [self.parts(i) if i.dtype.kind == "c" else self.nodes[i] for i in node.inputs]
        found = rule(Emit(node.loc), node, *values)
        if isinstance(found, Pair):
            self.pairs[node] = found
        elif found is not None:
            self.nodes[node] = found
        return found is not None

    def _mapped(self, node: Node) -> Pair:
        """Apply an op that moves elements to each part."""

        def part(number: int) -> Node:
            inputs = [
                self.parts(i)[number] if i.dtype.kind == "c" else self.nodes[i] for i in node.inputs
            ]
            return make(node.op, inputs, node.attrs, node.loc)

        return Pair(part(0), part(1))

    def _joined(self, node: Node) -> Node:
        """Apply an op that joins values to what is in memory: real numbers, one axis more."""
        emit, inputs = Emit(node.loc), node.inputs
        if node.op.name == "pad":
            value = self.parts(inputs[1])
            if value.re is not value.im:
                return self._paired(node, self._mapped(node))
            operands = [self._both(inputs[0]), value.re]
        else:
            operands = [self._both(i) for i in inputs]
        return emit.view_as_complex(make(node.op, operands, _wider(node), node.loc))

    def _both(self, node: Node) -> Node:
        """Return the parts along a new last axis."""
        if node.op.name in _VIEWS and node in self.nodes:
            return make(node.op, [self._both(node.inputs[0])], _wider(node), node.loc)
        whole = self.whole(node)
        if whole.op.name == "view_as_complex":
            return whole.inputs[0]
        return Emit(node.loc).view_as_real(whole)

    def whole(self, node: Node) -> Node:
        """Return the value as one node."""
        if node not in self.nodes:
            if node.op.name == "constant":
                self.nodes[node] = node
            elif node.op.name == "reshape":  # of what is in memory, it costs nothing
                self.nodes[node] = make(node.op, [self.whole(node.inputs[0])], node.attrs, node.loc)
            else:
                self.nodes[node] = self._paired(node, self.pairs[node])
        return self.nodes[node]

    def _paired(self, node: Node, pair: Pair) -> Node:
        emit, last = Emit(node.loc), (*node.shape, 1)
        fields = [emit.reshape(part, shape=last) for part in pair]
        return emit.view_as_complex(emit.concat(*fields, axis=len(node.shape)))

    def parts(self, node: Node) -> Pair:
        """Return the parts of a complex value."""
        if node not in self.pairs:
            self.pairs[node] = self._mapped(node) if node.op.name in _MOVES else self._read(node)
        return self.pairs[node]

    def _read(self, node: Node) -> Pair:
        emit = Emit(node.loc)
        both, rank = self._both(node), len(node.shape)

        def part(place: int) -> Node:
            start = (*[0] * rank, place)
            attrs = {"start": start, "size": (*node.shape, 1), "step": (1,) * (rank + 1)}
            return emit.reshape(emit.slice(both, **attrs), shape=node.shape)

        return Pair(part(0), part(1))


# What each attribute of an op that moves or joins values is along the axis of the parts.
_ALONG_PARTS = {"shape": 2, "size": 2, "start": 0, "step": 1, "low": 0, "high": 0}


def _wider(node: Node) -> dict[str, Any]:
    """Return the attributes of ``node`` for values with a last axis of two parts."""
    attrs: dict[str, Any] = dict(node.attrs)
    for name, part in _ALONG_PARTS.items():
        if name in attrs:
            attrs[name] = (*attrs[name], part)
    if "axes" in attrs:
        attrs["axes"] = (*attrs["axes"], len(node.shape))
    return attrs


def _constants(node: Node) -> Pair:
    emit, dtype = Emit(node.loc), real_dtype(node.dtype)
    number: Any = node.attrs["value"]
    return Pair(emit.constant(number.real, dtype), emit.constant(number.imag, dtype))


# -- rules -----------------------------------------------------------------------------------------
# A rule gets the node, and its operands: pairs where they are complex. It returns None where it
# does not apply.

_RULES: dict[str, Rule] = {}


def _on(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return register


@_on("add", "subtract", "negative")
def _by_parts(emit: Emit, node: Node, *operands: Pair) -> Value:
    op = getattr(emit, node.op.name)
    return Pair(op(*(v.re for v in operands)), op(*(v.im for v in operands)))


@_on("sum")
def _sum(emit: Emit, node: Node, x: Pair) -> Value:
    return Pair(emit.sum(x.re, **node.attrs), emit.sum(x.im, **node.attrs))


@_on("multiply")
def _multiply(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return _product(emit, x, y, emit.multiply)


@_on("matmul")
def _matmul(emit: Emit, node: Node, x: Pair, y: Pair) -> Value | None:
    """Products with a vector, which are sums; others are four real ones at once in the BLAS."""
    rows, columns = x.re.shape[-2], y.re.shape[-1]
    return _product(emit, x, y, emit.matmul) if is_one(rows) or is_one(columns) else None


def _product(emit: Emit, x: Pair, y: Pair, times: Callable[[Node, Node], Node]) -> Pair:
    real = emit.subtract(times(x.re, y.re), times(x.im, y.im))
    return Pair(real, emit.add(times(x.re, y.im), times(x.im, y.re)))


@_on("square")
def _square(emit: Emit, node: Node, x: Pair) -> Value:
    real = emit.subtract(emit.multiply(x.re, x.re), emit.multiply(x.im, x.im))
    cross = emit.multiply(x.re, x.im)
    return Pair(real, emit.add(cross, cross))


@_on("power")
def _power(emit: Emit, node: Node, x: Pair, y: Pair) -> Value | None:
    """Powers that NumPy multiplies out: x², x³."""
    exponent = node.inputs[1]
    value = exponent.attrs["value"] if exponent.op.name == "constant" else None
    if value == 2:
        return _product(emit, x, x, emit.multiply)
    if value == 3:
        return _product(emit, x, _product(emit, x, x, emit.multiply), emit.multiply)
    return None


@_on("divide")
def _divide(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
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


@_on("reciprocal")
def _reciprocal(emit: Emit, node: Node, x: Pair) -> Value:
    wide = emit.less_equal(emit.absolute(x.im), emit.absolute(x.re))
    large, small = emit.where(wide, x.re, x.im), emit.where(wide, x.im, x.re)
    ratio = emit.divide(small, large)
    scale = emit.add(large, emit.multiply(small, ratio))
    one = emit.where(wide, _like(emit, x.re, 1.0), ratio)
    other = emit.where(wide, ratio, _like(emit, x.re, 1.0))
    return Pair(emit.divide(one, scale), emit.divide(emit.negative(other), scale))


def _like(emit: Emit, x: Node, value: float) -> Node:
    return emit.constant(value, x.dtype)


# Above this argument an exponential is taken in two factors: eˣ may overflow where eˣ·cos y does
# not.
_LARGE = {np.dtype(np.float32): 88.0, np.dtype(np.float64): 709.0}


@_on("exp")
def _exp(emit: Emit, node: Node, x: Pair) -> Value:
    """C99 annex G, by cases: a real argument, an infinite real part."""
    bound = _LARGE[x.re.dtype]
    large = emit.greater(x.re, bound)
    magnitude = emit.exp(emit.where(large, emit.subtract(x.re, bound), x.re))
    scale = float(np.exp(x.re.dtype.type(bound)))
    factor = emit.where(large, *(_like(emit, x.re, value) for value in (scale, 1.0)))

    def times(direction: Node) -> Node:
        return emit.multiply(magnitude, emit.multiply(factor, direction))

    real, imag = times(emit.cos(x.im)), times(emit.sin(x.im))
    finite = emit.isfinite(x.im)
    upwards = emit.logical_and(emit.isinf(x.re), emit.logical_not(finite))
    limit = emit.where(emit.greater(x.re, 0.0), x.re, _like(emit, x.re, 0.0))
    real = emit.where(upwards, limit, real)
    below = emit.logical_and(upwards, emit.less(x.re, 0.0))
    imag = emit.where(below, _like(emit, x.re, 0.0), imag)
    plain = emit.equal(x.im, 0.0)
    whole = emit.exp(x.re)
    return Pair(emit.where(plain, whole, real), emit.where(plain, x.im, imag))


@_on("absolute")
def _absolute(emit: Emit, node: Node, x: Pair) -> Value:
    return emit.hypot(x.re, x.im)


@_on("real")
def _real(emit: Emit, node: Node, x: Pair) -> Value:
    return x.re


@_on("imag")
def _imag(emit: Emit, node: Node, x: Pair) -> Value:
    return x.im


@_on("complex")
def _complex(emit: Emit, node: Node, re: Node, im: Node) -> Value:
    """Parts of a pair have the shape of the value."""
    return Pair(*(_spread(emit, part, node.shape) for part in (re, im)))


def _spread(emit: Emit, part: Node, shape: Sequence[int]) -> Node:
    if tuple(part.shape) == tuple(shape):
        return part
    return emit.broadcast_to(part, shape=tuple(shape))


@_on("cast")
def _cast(emit: Emit, node: Node, x: Value) -> Value:
    if not isinstance(x, Pair):
        re = emit.cast(x, real_dtype(node.dtype))
        return Pair(re, _spread(emit, emit.constant(0.0, re.dtype), node.shape))
    if node.dtype.kind == "c":
        wanted = real_dtype(node.dtype)
        return Pair(emit.cast(x.re, wanted), emit.cast(x.im, wanted))
    if node.dtype.kind == "b":
        return emit.logical_or(emit.not_equal(x.re, 0.0), emit.not_equal(x.im, 0.0))
    return emit.cast(x.re, node.dtype)


@_on("equal")
def _equal(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return emit.logical_and(emit.equal(x.re, y.re), emit.equal(x.im, y.im))


@_on("not_equal")
def _not_equal(emit: Emit, node: Node, x: Pair, y: Pair) -> Value:
    return emit.logical_or(emit.not_equal(x.re, y.re), emit.not_equal(x.im, y.im))


@_on("isnan", "isinf")
def _either(emit: Emit, node: Node, x: Pair) -> Value:
    test = getattr(emit, node.op.name)
    return emit.logical_or(test(x.re), test(x.im))


@_on("isfinite")
def _both(emit: Emit, node: Node, x: Pair) -> Value:
    return emit.logical_and(emit.isfinite(x.re), emit.isfinite(x.im))


@_on("where")
def _where(emit: Emit, node: Node, condition: Node, x: Pair, y: Pair) -> Value | None:
    if isinstance(condition, Pair):
        return None
    return Pair(emit.where(condition, x.re, y.re), emit.where(condition, x.im, y.im))
