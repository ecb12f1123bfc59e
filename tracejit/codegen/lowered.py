"""Which elementwise ops have native code: what planning asks, without loading the emitters.

``codegen/elementwise.py`` and ``codegen/math`` have the code of each name, and of no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracejit.ops.dtypes import is_half

# Instructions, or a few of them, for integers and floats.
ARITHMETIC = frozenset({
    "absolute", "add", "bitwise_and", "bitwise_count", "bitwise_or", "bitwise_xor", "cast",
    "ceil", "copysign", "divide", "equal", "floor", "floor_divide", "fmax", "fmin", "fmod",
    "frexp_exponent", "frexp_mantissa", "gcd", "greater", "greater_equal", "invert", "isfinite",
    "isinf", "isnan", "lcm", "ldexp", "left_shift", "less", "less_equal", "logical_and",
    "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "multiply", "negative",
    "nextafter", "not_equal", "power", "real", "reciprocal", "remainder", "right_shift", "rint",
    "sign", "signbit", "spacing", "sqrt", "subtract", "trunc", "where",
})  # fmt: skip

# Those that take floats of 16 bits: all others get them as float32.
MOVES = frozenset({"cast", "where"})

# Elementary and special functions of floats.
MATH = frozenset({
    "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cbrt", "cos", "cosh",
    "erf", "erfc", "exp", "exp2", "expm1", "gamma", "hypot", "lgamma", "log", "log10", "log1p",
    "log2", "logaddexp", "logaddexp2", "power", "sigmoid", "sin", "sinh", "softplus", "tan", "tanh",
})  # fmt: skip


def lowers(op: str, operands: Sequence[np.dtype[Any]]) -> bool:
    """Whether the loop of ``op`` over these operand dtypes has a lowering."""
    if any(is_half(d) for d in operands):
        return op in MOVES
    return op in ARITHMETIC or (op in MATH and operands[0].kind == "f")
