"""What has a native kernel. The scheduler asks here; everything else runs as an opaque node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tracejit.graph.node import Node
from tracejit.ops.dtypes import is_half
from tracejit.ops.table import DType, Fact, Family, Op
from tracejit.schedule.index import VIEWS

NATIVE_DTYPES = frozenset(
    np.dtype(name) for name in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
)

NATIVE_REDUCTIONS = frozenset({"sum", "prod", "max", "min", "any", "all", "argmax", "argmin"})
NATIVE_SCANS = frozenset({"cumsum", "cumprod", "cummax", "cummin"})
GATHERS = frozenset({"take", "take_along_axis", "advanced_index"})
SCATTERS = frozenset({"put_along_axis", "advanced_update", "advanced_combine"})
NATURAL = "natural"
# What passes of the graph write in other ops: on parts of complex numbers, as steps of a search.
REWRITTEN = frozenset({"imag", "complex", "searchsorted", "interp"})
PARTS = frozenset({"view_as_real", "view_as_complex"})
PIECEWISE = frozenset({"concat", "pad", "update_slice"})


# Says whether code generation has an elementwise op over given operand dtypes.
Lowers = Callable[[str, Sequence[DType]], bool]


def why_opaque(node: Node, lowers: Lowers) -> str:
    """Return in words why ``node``, which is scheduled as an opaque step, is in no kernel."""
    name = node.op.name
    if not has_native_dtypes(node):
        other = next(d for d in (node.dtype, *(i.dtype for i in node.inputs)) if not is_native(d))
        if other.kind == "c":  # the graph's passes leave only what they have no formula for
            faster = " that large; BLAS is faster" if name == "matmul" else ""
            return f"no kernel has {name} of {other}{faster}"
        return f"no kernels compute with {other}"
    if name == "matmul":
        return f"no matrix kernel computes with {node.dtype}"
    if name in NATIVE_REDUCTIONS:
        return f"its operand has {node.inputs[0].size} elements, and positions are 32 bits wide"
    operands = ", ".join(str(i.dtype) for i in node.inputs)
    if node.op.family is Family.ELEMENTWISE and not lowers(name, [i.dtype for i in node.inputs]):
        return f"no kernel has {name} of {operands}"
    return f"no kernel has {name}"


def is_native(dtype: DType) -> bool:
    """Return whether kernels load and store the dtype."""
    return dtype in NATIVE_DTYPES or is_half(dtype)


def has_native_dtypes(node: Node) -> bool:
    return is_native(node.dtype) and all(is_native(i.dtype) for i in node.inputs)


def is_elementwise(node: Node, lowers: Lowers) -> bool:
    if node.op.family is not Family.ELEMENTWISE or not has_native_dtypes(node):
        return False
    return lowers(node.op.name, [i.dtype for i in node.inputs])


def is_reduction(node: Node) -> bool:
    if node.op.name not in NATIVE_REDUCTIONS or not has_native_dtypes(node):
        return False
    operand = node.inputs[0]
    # Positions are kept in 32-bit lanes.
    return not node.op.name.startswith("arg") or operand.size < 2**31


def is_scan(node: Node) -> bool:
    return node.op.name in NATIVE_SCANS and has_native_dtypes(node)


def is_gather(node: Node) -> bool:
    return node.op.name in GATHERS and has_native_dtypes(node)


def counts_faults(node: Node) -> bool:
    """Return whether the op's kernel counts operands that its reference raises an error for."""
    return is_gather(node) or node.op.name == NATURAL


def is_scatter(node: Node, lowers: Lowers) -> bool:
    if node.op.name not in SCATTERS or not has_native_dtypes(node):
        return False
    op = node.attrs.get("op")
    return op is None or lowers(str(op), [node.dtype, node.dtype])


def is_contraction(node: Node) -> bool:
    return node.op.name == "matmul" and node.dtype in _GEMM_DTYPES


_GEMM_DTYPES = frozenset(np.dtype(name) for name in ("float32", "float64", "int32", "int64"))

# Rough flops per element, for the cost model; EXPENSIVE rows count twenty.
_COSTS: dict[str, int] = {
    "divide": 4, "sqrt": 4, "floor_divide": 8, "remainder": 8, "reciprocal": 4, "fmod": 8,
    "take": 4, "take_along_axis": 4, "advanced_index": 8,
}  # fmt: skip


def cost(node: Node) -> int:
    """Return the flops per element of one op."""
    if node.op.has(Fact.EXPENSIVE):
        return 20
    if node.op.family in (Family.REDUCTION, Family.SCAN):
        return 2
    return _COSTS.get(node.op.name, 1)


def how(op: Op, lowers: Lowers) -> str:
    """Return in words how ``op`` runs: in a kernel, by decomposition, as a view, or in NumPy."""
    if op.family is Family.LEAF:
        return "leaf"
    if op.decompose is not None or op.name in REWRITTEN:
        return "decomposed"
    if op.name in NATIVE_REDUCTIONS | NATIVE_SCANS | PIECEWISE | GATHERS | SCATTERS | {NATURAL}:
        return "kernel"
    if op.name == "matmul":
        return "matrix kernel"
    if op.name in VIEWS | PARTS | {"cycle"}:
        return "index map"
    floats = [np.dtype(np.float64)] * (op.arity or 1)
    bools = [np.dtype(bool)] * (op.arity or 1)
    integers = [np.dtype(np.int64)] * (op.arity or 1)
    if op.family is Family.ELEMENTWISE and lowers(op.name, floats):
        return "kernel" if lowers(op.name, integers) else "kernel (floats)"
    if op.family is Family.ELEMENTWISE and lowers(op.name, bools):
        return "kernel"
    return "NumPy"
