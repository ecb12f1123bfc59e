"""Arithmetic of complex numbers becomes arithmetic of their parts.

    (a + bi) · (c + di)   →  (ac − bd) + (ad + bc)i
    |a + bi|              →  hypot(a, b)
    exp(a + bi)           →  eᵃ · (cos b + i sin b)

Between complex operands and complex results stand real nodes, which fuse, vectorise and simplify
like any others. What has a rule here is computed on pairs; what has none (decompositions,
transforms) keeps complex operands. A complex value in memory is read
through ``view_as_real`` and made through ``view_as_complex``, which cost nothing.

A product of matrices is one of real matrices, of twice the depth and twice the columns: each a + bi
on the left stands for (a b), each c + di on the right for::

    ( c d)
    (-d c)
"""

from __future__ import annotations

from typing import Any

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make
from tracejit.graph.passes.complex_arithmetic import Pair, Rule, product
from tracejit.graph.passes.complex_functions import RULES
from tracejit.ops.table import real_dtype
from tracejit.sizes import hint, is_one

# What moves elements: its parts are the same op on the parts. Where the values are in memory it
# stays as it is for those that want complex values.
_VIEWS = frozenset({"reshape", "permute", "broadcast_to", "slice"})
_MOVES = _VIEWS | {"windows", "cycle", "take", "take_along_axis", "advanced_index"}
# What changes elements at places: of parts it is the same, as are sums and differences.
_SCATTERS = frozenset({"put_along_axis", "advanced_update", "advanced_combine"})
# What puts values together: of pairs that lie in memory side by side, as one more axis.
_JOINS = frozenset({"concat", "pad", "update_slice"})


def run(graph: Graph) -> Graph:
    """Return the graph with complex arithmetic spelled out."""
    if not any(node.dtype.kind == "c" for node in graph.nodes):
        return graph
    rewriting = _Rewriting()
    for node in graph.nodes:
        rewriting.visit(node)
    outputs = [rewriting.result(node) for node in graph.outputs]
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
            rule = RULES.get(name)
            if rule is not None and self._visit_by(rule, node):
                return
            moves = name in _MOVES and operands[0] not in self.nodes
            if moves or (name in _SCATTERS and node.attrs.get("op") in (None, "add", "subtract")):
                self.pairs[node] = self._mapped(node)
                return
            if name in _JOINS:
                self.nodes[node] = self._joined(node)
                return
            if name == "matmul" and not _left_to_blas(node):
                self._multiply(node)
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

    def _multiply(self, node: Node) -> None:
        """Multiply matrices; products with a vector are sums of real ones."""
        emit, (x, y) = Emit(node.loc), node.inputs
        (rows, depth), (_, columns) = x.shape[-2:], y.shape[-2:]
        if is_one(rows) or is_one(columns):
            self.pairs[node] = product(emit, self.parts(x), self.parts(y), emit.matmul)
            return
        left = emit.reshape(self._both(x), shape=(*x.shape[:-1], 2 * depth))
        re, im = self.parts(y)
        batch, axis = y.shape[:-2], len(y.shape) - 1
        blocks = _stacked(emit, re, im, emit.negative(im), re, axis=axis)
        right = emit.reshape(blocks, shape=(*batch, 2 * depth, 2 * columns))
        both = emit.reshape(emit.matmul(left, right), shape=(*node.shape[:-1], 2, columns))
        self.pairs[node] = Pair(*(_one_of(emit, both, axis=-2, place=i) for i in (0, 1)))

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

    def result(self, node: Node) -> Node:
        """Return the value as one node, which kernels store."""
        if node.dtype.kind != "c" or node.op.name not in _MOVES:
            return self.whole(node)
        if node.op.name == "reshape":
            return make(node.op, [self.result(node.inputs[0])], node.attrs, node.loc)
        return self._paired(node, self.parts(node))

    def _paired(self, node: Node, pair: Pair) -> Node:
        emit = Emit(node.loc)
        return emit.view_as_complex(_stacked(emit, *pair, axis=len(node.shape)))

    def parts(self, node: Node) -> Pair:
        """Return the parts of a complex value."""
        if node not in self.pairs:
            self.pairs[node] = self._mapped(node) if node.op.name in _MOVES else self._read(node)
        return self.pairs[node]

    def _read(self, node: Node) -> Pair:
        emit = Emit(node.loc)
        both = self._both(node)
        return Pair(*(_one_of(emit, both, axis=-1, place=i) for i in (0, 1)))


# Multiply-adds of complex128 from which on NumPy's BLAS is faster (on one thread of a Sapphire
# Rapids by 0.96 from 128 cubed on and by 0.84 from 256 on; 64 cubed is 1.1 times as fast here, and
# complex64 1.2 to 1.7 times in every size).
_BLAS_WORK = 1 << 21


def _left_to_blas(node: Node) -> bool:
    x, y = node.inputs
    rows, columns, depth = hint(x.shape[-2]), hint(y.shape[-1]), hint(x.shape[-1])
    return (
        node.dtype.itemsize == 16
        and min(rows, columns) > 1
        and rows * columns * depth >= _BLAS_WORK
    )


def _stacked(emit: Emit, *parts: Node, axis: int) -> Node:
    """Join values of one shape along a new axis."""
    shape = parts[0].shape
    fields = [emit.reshape(part, shape=(*shape[:axis], 1, *shape[axis:])) for part in parts]
    return emit.concat(*fields, axis=axis)


def _one_of(emit: Emit, x: Node, *, axis: int, place: int) -> Node:
    """Return one place of an axis."""
    axis %= len(x.shape)
    rest = (x.shape[:axis], x.shape[axis + 1 :])
    found = emit.slice(
        x,
        start=tuple(place if a == axis else 0 for a in range(len(x.shape))),
        size=(*rest[0], 1, *rest[1]),
        step=(1,) * len(x.shape),
    )
    return emit.reshape(found, shape=rest[0] + rest[1])


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
