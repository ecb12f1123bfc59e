"""Constant folding.

    exp(2.0) * x               →  7.389… * x
    full(1000, 2.0) + 1.0      →  broadcast_to(3.0)       (a uniform array stays a broadcast)
    concat(1.0, 2.0, 3.0)      →  data [1.0, 2.0, 3.0]    (up to 4 KiB)

The value comes from the op's NumPy reference, as everywhere. Folding starts at ``constant``
leaves only. ``data`` leaves are left alone: on demand they are the operands of the computation
itself, and folding them would run a program of small arrays through NumPy. ``iota`` stays too; a
kernel makes an index for less than a load.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant, data
from tracejit.graph.passes.rules import same_if_unchanged, scalar_of, spread
from tracejit.ops.table import Array, Fact, Family

RESULT_BYTES = 4096  # a folded array larger than this is memory traffic, not a saving
OPERAND_SIZE = 4096  # elements read while folding; bounds the compile time spent here

_FOLDABLE = frozenset(
    {
        Family.ELEMENTWISE,
        Family.REDUCTION,
        Family.SCAN,
        Family.CONTRACTION,
        Family.MOVEMENT,
        Family.INDEXING,
        Family.SORTING,
    }
)
_UNIFORM_MOVES = frozenset({"reshape", "permute", "broadcast_to", "slice", "windows"})


def run(graph: Graph) -> Graph:
    """Return the graph with its constant subgraphs evaluated."""
    return same_if_unchanged(graph, graph.rewrite(_Folder().step))


class _Folder:
    """One run of the pass. ``arrays`` holds the data leaves it made, equal ones once."""

    def __init__(self) -> None:
        self.arrays: dict[Node, Array] = {}
        self.by_bytes: dict[tuple[str, tuple[int, ...], bytes], Node] = {}

    def step(self, node: Node, operands: tuple[Node, ...]) -> Node | None:
        if not operands or node.op.family not in _FOLDABLE or node.op.has(Fact.IMPURE):
            return None
        for operand in operands:
            if scalar_of(operand) is None and operand not in self.arrays:
                return None
        scalars = [scalar_of(operand) for operand in operands]
        if node.op.name in _UNIFORM_MOVES and scalars[0] is not None:
            return spread(scalars[0], node)
        if node.op.family is Family.ELEMENTWISE and None not in scalars:
            result = _evaluate(node, [self.array(s) for s in scalars if s is not None])
            return None if result is None else spread(constant(result, node.dtype, node.loc), node)
        if node.nbytes > RESULT_BYTES or any(o.size > OPERAND_SIZE for o in operands):
            return None
        result = _evaluate(node, [self.array(o) for o in operands])
        return None if result is None else self.leaf(result, node)

    def array(self, node: Node) -> Array:
        """Return the value of a constant, a broadcast of one, or a leaf made here."""
        found = self.arrays.get(node)
        if found is None:
            scalar = scalar_of(node)
            assert scalar is not None
            value = np.asarray(scalar.attrs["value"], scalar.dtype)
            found = np.broadcast_to(value, node.shape)
        return found

    def leaf(self, value: Array, node: Node) -> Node:
        """Return ``value`` as a constant, a broadcast of one, or a data leaf."""
        value = np.ascontiguousarray(value).reshape(node.shape)
        raw = value.tobytes()
        if value.size and raw == raw[: value.itemsize] * value.size:
            return spread(constant(value.reshape(-1)[0], node.dtype, node.loc), node)
        key = (value.dtype.str, value.shape, raw)
        found = self.by_bytes.get(key)
        if found is None:
            value.flags.writeable = False
            found = self.by_bytes[key] = data(value, node.loc)
            self.arrays[found] = value
        return found


def _evaluate(node: Node, operands: Sequence[Array]) -> Array | None:
    """Return the reference's result; None where it raises, which is then the run's to report."""
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(node.op.reference(*operands, **node.attrs))
    except (ArithmeticError, ValueError, TypeError, IndexError):
        return None
    if result.dtype != node.dtype:
        return None
    return result
