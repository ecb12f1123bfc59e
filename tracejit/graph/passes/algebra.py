"""Algebraic simplification of elementwise ops, casts and reductions.

    x * 1        →  x
    -(-x)        →  x
    power(x, 2)  →  x * x
    sum(x[n, 1], axis=1)  →  reshape(x + 0)

Each rule stands under its equation; ``rules.py`` states the laws all of them keep. Equations that
look right and are not, for floats: x + 0 = x (-0 + 0 = 0), x * 0 = 0 (NaN, inf, -0), x - x = 0,
x / x = 1, power(x, 0.5) = sqrt(x) (-0, -inf), not (a < b) = a >= b (NaN), and (a + b) + c =
a + (b + c). Those belong to ``relax.py``, at the user's request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant
from tracejit.graph.passes.rules import (
    Rules,
    filled,
    is_exact,
    is_minus_zero,
    is_op,
    is_plus_zero,
    like,
    operand_and_value,
    scalar_of,
    shape_attr,
    spread,
    value_of,
)
from tracejit.ops.dtypes import spelled
from tracejit.ops.table import DType, Fact, Family

rules = Rules()


def run(graph: Graph) -> Graph:
    """Return the graph with every rule applied, from the leaves up."""
    return rules.apply(graph)


# -- arithmetic ------------------------------------------------------------------------------------


# x + (-0) = x;  x + 0 = x for bool, integers;  x + (-y) = x - y
@rules.on("add")
def _add(node: Node) -> Node | None:
    a, b = node.inputs
    found = operand_and_value(node)
    if found and (found[1] == 0 if is_exact(node) else is_minus_zero(found[1])):
        return spread(found[0], node)
    if is_op(b, "negative"):
        return like(node, "subtract", a, b.inputs[0])
    if is_op(a, "negative"):
        return like(node, "subtract", b, a.inputs[0])
    return None


# x - 0 = x;  x - (-y) = x + y;  x - x = 0 for integers
@rules.on("subtract")
def _subtract(node: Node) -> Node | None:
    a, b = node.inputs
    value = value_of(b)
    if value is not None and is_plus_zero(value):
        return spread(a, node)
    if is_op(b, "negative"):
        return like(node, "add", a, b.inputs[0])
    if a is b and is_exact(node):
        return filled(0, node)
    return None


# x * 1 = x;  x * (-1) = -x;  (-x) * (-y) = x * y;  (-x) * c = x * (-c)   (reals)
# x * 0 = 0                                                            (bool, integers)
# Complex products are excluded: (inf + 0j) * (1 + 0j) has a NaN part.
@rules.on("multiply")
def _multiply(node: Node) -> Node | None:
    if node.dtype.kind == "c":
        return None
    a, b = node.inputs
    found = operand_and_value(node)
    if found:
        x, value = found
        if value == 1:
            return spread(x, node)
        if value == 0 and is_exact(node):
            return filled(0, node)
        if value == -1:
            return spread(like(node, "negative", x), node)
        if is_op(x, "negative") and node.dtype.kind == "f":
            return like(node, "multiply", x.inputs[0], constant(-value, node.dtype, node.loc))
    elif is_op(a, "negative") and is_op(b, "negative"):
        return like(node, "multiply", a.inputs[0], b.inputs[0])
    return None


# x / 1 = x;  x / (-1) = -x;  x / 2ᵏ = x * 2⁻ᵏ where 2⁻ᵏ is a normal number   (real floats)
# (-x) / (-y) = x / y
@rules.on("divide")
def _divide(node: Node) -> Node | None:
    if node.dtype.kind != "f":
        return None
    a, b = node.inputs
    value = value_of(b)
    if value == 1:
        return spread(a, node)
    if value == -1:
        return spread(like(node, "negative", a), node)
    if value and math.isfinite(value) and abs(math.frexp(value)[0]) == 0.5:
        limits, inverse = np.finfo(node.dtype), 1 / value
        if float(limits.smallest_normal) <= abs(inverse) <= float(limits.max):
            return like(node, "multiply", a, constant(inverse, node.dtype, node.loc))
    if is_op(a, "negative") and is_op(b, "negative"):
        return like(node, "divide", a.inputs[0], b.inputs[0])
    return None


# x // 1 = x   (integers)
@rules.on("floor_divide")
def _floor_divide(node: Node) -> Node | None:
    one = is_exact(node) and value_of(node.inputs[1]) == 1
    return spread(node.inputs[0], node) if one else None


# x mod 1 = 0   (integers)
@rules.on("remainder", "fmod")
def _remainder(node: Node) -> Node | None:
    one = is_exact(node) and value_of(node.inputs[1]) == 1
    return filled(0, node) if one else None


# xⁿ = x^natural(n), which raises where n is negative   (signed integers)
@rules.on("power")
def _checked(node: Node) -> Node | None:
    x, exponent = node.inputs
    if node.dtype.kind != "i" or is_op(exponent, "natural"):
        return None
    value = value_of(exponent)
    if value is not None and value >= 0:
        return None
    return like(node, "power", x, like(node, "natural", exponent))


# x⁰ = 1;  x¹ = x;  x² = x·x;  x³ = x·x·x;  x⁻¹ = 1/x (floats);  xⁿ by squaring (integers, n ≤ 16)
# pow(x, 0) is 1 for NaN too (IEEE 754-2019, 9.2.1). NumPy squares for an exponent of 2; the cube
# has two roundings, fewer ULP than the bound of our pow. Complex powers stay as they are.
@rules.on("power")
def _power(node: Node) -> Node | None:
    exponent = value_of(node.inputs[1])
    if exponent is None or node.dtype.kind not in "iuf":
        return None
    x = node.inputs[0]
    if exponent == 0:
        return filled(1, node)
    if exponent == 1:
        return spread(x, node)
    if exponent == -1 and node.dtype.kind == "f":
        return spread(like(node, "divide", constant(1, node.dtype, node.loc), x), node)
    if exponent in (2, 3) or (is_exact(node) and 3 < exponent <= 16):
        return spread(_squarings(node, x, int(exponent)), node)
    return None


def _squarings(node: Node, x: Node, exponent: int) -> Node:
    """Return ``x`` to a positive power, by squaring from the top bit down."""
    result = x
    for bit in bin(exponent)[3:]:
        result = like(node, "multiply", result, result)
        if bit == "1":
            result = like(node, "multiply", result, x)
    return result


# x @ y = cast(cast(x, int) @ cast(y, int))   (bool, integers that have no product of their own)
# Modulo 2ⁿ all wider integers agree; a sum of conjunctions is 0 where none holds.
@rules.on("matmul")
def _integer_product(node: Node) -> Node | None:
    if not is_exact(node) or (node.dtype.kind == "i" and node.dtype.itemsize >= 4):
        return None
    wide = np.dtype(np.int64 if node.dtype.itemsize == 8 else np.int32)
    x, y = (like(node, "cast", i, dtype=wide.str) for i in node.inputs)
    return like(node, "cast", like(node, "matmul", x, y), dtype=node.dtype.str)


# |-x| = |x|;  |x| = x for unsigned and bool
@rules.on("absolute")
def _absolute(node: Node) -> Node | None:
    (x,) = node.inputs
    if node.dtype.kind in "bu":
        return x
    return like(node, "absolute", x.inputs[0]) if is_op(x, "negative") else None


# -(x - y) = y - x   (integers; for floats x = y would give -0)
@rules.on("negative")
def _negative(node: Node) -> Node | None:
    (x,) = node.inputs
    if is_op(x, "subtract") and is_exact(node):
        return like(node, "subtract", x.inputs[1], x.inputs[0])
    return None


# +x = x
@rules.on("positive")
def _positive(node: Node) -> Node | None:
    return node.inputs[0]


# conj(x) = x;  real(x) = x   (reals)
@rules.on("conjugate", "conj", "real")
def _conjugate(node: Node) -> Node | None:
    (x,) = node.inputs
    return x if x.dtype == node.dtype and x.dtype.kind != "c" else None


# imag(x) = 0   (reals)
@rules.on("imag")
def _imag(node: Node) -> Node | None:
    return filled(0, node) if node.inputs[0].dtype.kind != "c" else None


# floor(n) = ceil(n) = trunc(n) = rint(n) = n   (bool, integers)
@rules.on("floor", "ceil", "trunc", "rint")
def _round(node: Node) -> Node | None:
    (x,) = node.inputs
    return x if is_exact(x) and x.dtype == node.dtype else None


# max(x, -inf) = x, also for NaN;  min(x, inf) = x;  and with the ends of an integer's range
@rules.on("maximum", "minimum")
def _extremum(node: Node) -> Node | None:
    a, b = node.inputs
    x, value = (a, value_of(b)) if value_of(b) is not None else (b, value_of(a))
    if value is None or node.dtype.kind == "c":
        return None
    low, high = _range(node.dtype)
    return spread(x, node) if value == (low if node.op.name == "maximum" else high) else None


def _range(dtype: DType) -> tuple[Any, Any]:
    """Return the least and the greatest value of a real dtype, infinities included."""
    if dtype.kind == "f":
        return -math.inf, math.inf
    if dtype.kind == "b":
        return False, True
    limits = np.iinfo(dtype)
    return limits.min, limits.max


# x << 0 = x >> 0 = x
@rules.on("left_shift", "right_shift")
def _shift(node: Node) -> Node | None:
    return spread(node.inputs[0], node) if value_of(node.inputs[1]) == 0 else None


# -- laws that the table's facts state -------------------------------------------------------------


# f(f(x)) = x;  f(f(x)) = f(x);  f(x, x) = x
@rules.everywhere
def _by_facts(node: Node) -> Node | None:
    facts = node.op.facts
    if not facts or node.op.family is not Family.ELEMENTWISE:
        return None
    x = node.inputs[0]
    if len(node.inputs) == 1:
        if x.op is not node.op:
            return None
        if facts & Fact.INVOLUTION and x.inputs[0].dtype == node.dtype:
            return x.inputs[0]
        return x if facts & Fact.IDEMPOTENT and x.dtype == node.dtype else None
    if facts & Fact.IDEMPOTENT and len(node.inputs) == 2 and node.inputs[1] is x:
        return x if x.dtype == node.dtype else None
    return None


# f(f(x, c), d) = f(x, f(c, d))   where f is associative and commutative for the dtype
@rules.everywhere
def _gather_constants(node: Node) -> Node | None:
    if not _associates(node):
        return None
    outer = operand_and_value(node)
    if outer is None or outer[0].op is not node.op:
        return None
    inner = operand_and_value(outer[0])
    if inner is None or inner[0].dtype != node.dtype:
        return None
    with np.errstate(all="ignore"):
        both = node.op.reference(np.asarray(inner[1], node.dtype), np.asarray(outer[1], node.dtype))
    return spread(like(node, node.op.name, inner[0], constant(both, node.dtype, node.loc)), node)


def _associates(node: Node) -> bool:
    """True where regrouping is exact: integer and bit rings, and max/min of non-zero order."""
    if len(node.inputs) != 2 or node.op.family is not Family.ELEMENTWISE:
        return False
    if node.inputs[0].dtype != node.dtype:
        return False
    if is_op(node, "add", "multiply"):
        return is_exact(node)
    # max(max(x, 0), -0) depends on the grouping, like every float extremum of two zeros.
    if is_op(node, "maximum", "minimum", "fmax", "fmin") and not is_exact(node):
        return False
    return node.op.has(Fact.ASSOCIATIVE) and node.op.has(Fact.COMMUTATIVE)


# f(broadcast(x), broadcast(y)) = broadcast(f(x, y));  f(broadcast(x), y) = f(x, y)
@rules.everywhere
def _implicit_broadcast(node: Node) -> Node | None:
    if node.op.family is not Family.ELEMENTWISE:
        return None
    for operand in node.inputs:
        if operand.op.name == "broadcast_to":
            break
    else:
        return None
    stripped = [o.inputs[0] if o.op.name == "broadcast_to" else o for o in node.inputs]
    return spread(rules.simplify(like(node, node.op.name, *stripped, **node.attrs)), node)


# -- logic and comparisons -------------------------------------------------------------------------


# x and 1 = x;  x and 0 = 0   (bool; all bits for bitwise_and)
@rules.on("logical_and", "bitwise_and")
def _and(node: Node) -> Node | None:
    found = operand_and_value(node)
    if found is None or found[0].dtype != node.dtype:
        return None
    if found[1] == 0:
        return filled(0, node)
    return spread(found[0], node) if found[1] == _all_ones(node.dtype) else None


# x or 0 = x;  x or 1 = 1
@rules.on("logical_or", "bitwise_or")
def _or(node: Node) -> Node | None:
    found = operand_and_value(node)
    if found is None or found[0].dtype != node.dtype:
        return None
    if found[1] == 0:
        return spread(found[0], node)
    ones = _all_ones(node.dtype)
    return filled(ones, node) if found[1] == ones else None


# x xor 0 = x;  x xor x = 0
@rules.on("logical_xor", "bitwise_xor")
def _xor(node: Node) -> Node | None:
    a, b = node.inputs
    if a is b and is_exact(a):
        return filled(0, node)
    found = operand_and_value(node)
    if found and found[0].dtype == node.dtype and found[1] == 0:
        return spread(found[0], node)
    return None


def _all_ones(dtype: DType) -> Any:
    if dtype.kind == "b":
        return True
    return -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)


_OPPOSITE = {
    "less": "greater_equal",
    "less_equal": "greater",
    "greater": "less_equal",
    "greater_equal": "less",
}


# not (a = b) ⇔ a ≠ b;  not (a < b) ⇔ a ≥ b   (orders: bool and integers, since NaN < 1 is false)
@rules.on("logical_not", "invert", "bitwise_invert")
def _not(node: Node) -> Node | None:
    (x,) = node.inputs
    if node.dtype.kind != "b" or x.dtype.kind != "b":
        return None
    if is_op(x, "equal", "not_equal"):
        return like(node, "not_equal" if x.op.name == "equal" else "equal", *x.inputs)
    if x.op.name in _OPPOSITE and all(is_exact(i) for i in x.inputs):
        return like(node, _OPPOSITE[x.op.name], *x.inputs)
    return None


# x < x = false;  x = x = true for bool, integers
@rules.on("less", "greater", "not_equal", "equal", "less_equal", "greater_equal")
def _compare_with_itself(node: Node) -> Node | None:
    a, b = node.inputs
    if a is not b:
        return None
    if is_op(node, "less", "greater"):
        return filled(False, node)
    return filled(node.op.name != "not_equal", node) if is_exact(a) else None


# isnan(n) = isinf(n) = false;  isfinite(n) = true   (bool, integers)
@rules.on("isnan", "isinf", "isfinite")
def _classify(node: Node) -> Node | None:
    exact = is_exact(node.inputs[0])
    return filled(node.op.name == "isfinite", node) if exact else None


# where(true, a, b) = a;  where(c, x, x) = x;  where(not c, a, b) = where(c, b, a)
# where(c, true, false) = c;  where(c, where(c, a, _), b) = where(c, a, b)
@rules.on("where")
def _where(node: Node) -> Node | None:
    condition, a, b = node.inputs
    value = value_of(condition)
    if value is not None:
        return spread(a if value else b, node)
    if a is b:
        return spread(a, node)
    if is_op(condition, "logical_not") and condition.inputs[0].dtype.kind == "b":
        return like(node, "where", condition.inputs[0], b, a)
    if node.dtype.kind == "b":
        arms = value_of(a), value_of(b)
        if arms == (True, False):
            return spread(condition, node)
        if arms == (False, True):
            return spread(like(node, "logical_not", condition), node)
    if is_op(a, "where") and a.inputs[0] is condition:
        return _same_shape_or_none(node, condition, a.inputs[1], b)
    if is_op(b, "where") and b.inputs[0] is condition:
        return _same_shape_or_none(node, condition, a, b.inputs[2])
    return None


def _same_shape_or_none(node: Node, *operands: Node) -> Node:
    return spread(like(node, node.op.name, *operands), node)


# -- casts -----------------------------------------------------------------------------------------


# cast(x, its dtype) = x;  cast(cast(x, A), B) = cast(x, B) where A holds every value of x
@rules.on("cast")
def _cast(node: Node) -> Node | None:
    (x,) = node.inputs
    if x.dtype == node.dtype:
        return x
    if is_op(x, "cast") and _through(x.inputs[0].dtype, x.dtype, node.dtype):
        source = x.inputs[0]
        same = source.dtype == node.dtype
        return source if same else like(node, "cast", source, dtype=node.attrs["dtype"])
    return None


def _through(source: DType, middle: DType, target: DType) -> bool:
    """True where source → middle → target equals source → target.

    Out of range, float → int is undefined and int → int wraps, so an integer that goes through a
    float must still fit the target.
    """
    if not holds(middle, source):
        return False
    if middle.kind in "fc" and target.kind in "iu":
        return source.kind in "biu" and holds(target, source)
    return True


def holds(wide: DType, narrow: DType) -> bool:
    """True where every value of ``narrow`` is exactly a value of ``wide``, NaN and -0 included."""
    if wide == narrow or narrow.kind == "b":
        return True
    if narrow.kind in "iu":
        if wide.kind in "iu":
            low, high = _range(narrow)
            least, greatest = _range(wide)
            return bool(least <= low and high <= greatest)
        return wide.kind in "fc" and np.iinfo(narrow).bits <= np.finfo(wide).nmant + 1
    if narrow.kind == "f":
        return wide.kind in "fc" and np.finfo(wide).nmant >= np.finfo(narrow).nmant
    return wide.kind == "c" and np.finfo(wide).nmant >= np.finfo(narrow).nmant


# -- reductions ------------------------------------------------------------------------------------

_ORDERED = frozenset({"sum", "prod", "max", "min", "any", "all", "argmax", "argmin"})


# Σ over axes of size 1 and others = reshape of Σ over the others;  over size 1 only = x + 0
# (The 0 is the sum's start: NumPy's sum of [-0.0] is 0.0.)
@rules.on(*sorted(_ORDERED))
def _unit_axes(node: Node) -> Node | None:
    (x,) = node.inputs
    axis = shape_attr(node, "axis")
    rest = tuple(i for i in axis if x.shape[i] != 1)
    if len(rest) == len(axis):
        return None
    if rest:
        keepdims = cast(bool, node.attrs["keepdims"])
        inner = like(node, node.op.name, x, axis=rest, keepdims=keepdims)
        return like(node, "reshape", inner, shape=node.shape)
    single = _REDUCED_ONE[node.op.name](node, x)
    return single if single.shape == node.shape else like(node, "reshape", single, shape=node.shape)


def _cast_to(node: Node, x: Node) -> Node:
    return x if x.dtype == node.dtype else like(node, "cast", x, dtype=spelled(node.dtype))


def _plus_start(node: Node, x: Node) -> Node:
    x = _cast_to(node, x)
    return x if is_exact(x) else like(node, "add", x, constant(0, x.dtype, node.loc))


_REDUCED_ONE: dict[str, Callable[[Node, Node], Node]] = {
    "sum": _plus_start,
    "prod": _cast_to,
    "max": _cast_to,
    "min": _cast_to,
    "any": _cast_to,
    "all": _cast_to,
    "argmax": lambda node, x: filled(0, node),
    "argmin": lambda node, x: filled(0, node),
}


# any(c), all(c), max(c), min(c) = c for a constant c and at least one element
@rules.on("any", "all", "max", "min")
def _reduced_constant(node: Node) -> Node | None:
    (x,) = node.inputs
    scalar = scalar_of(x)
    if scalar is None or x.size == 0:
        return None
    return spread(_cast_to(node, scalar), node)
