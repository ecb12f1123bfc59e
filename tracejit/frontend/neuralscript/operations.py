"""Operators over running values: known numbers at once, tensors as graph nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tracejit.errors import DTypeError, IndexOutOfRange, RangeError, ValueArgumentError
from tracejit.frontend.neuralscript.runs import apply, array_function, is_scalar, kronecker, tensor
from tracejit.frontend.neuralscript.types import DTYPES
from tracejit.frontend.neuralscript.values import items_of
from tracejit.tensor import Tensor

_IN_RANGE = frozenset("+-*/×^")
_FLOATS = "floats reach further: write `n as f64`"
_LIMIT = 1e-9  # the relative tolerance of ≈


def _is_integer(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dtype.kind in "iu"
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def divide(left: Any, right: Any) -> Any:
    """``/``: of integers it truncates, as in Rust; of floats it follows IEEE."""
    if not (_is_integer(left) and _is_integer(right)):
        return apply("divide", left, right)
    if is_scalar(left) and is_scalar(right):
        if right == 0:
            raise ValueArgumentError("division by zero")
        quotient = abs(int(left)) // abs(int(right))
        return quotient if (left < 0) == (right < 0) else -quotient
    return array_function("div")(left, right, rounding_mode="trunc")


def remainder(left: Any, right: Any) -> Any:
    """``%``: the sign of the left operand, as in Rust."""
    if _is_integer(right) and is_scalar(right) and right == 0:
        raise ValueArgumentError("remainder by zero")
    return apply("fmod", left, right)


def power(base: Any, exponent: Any) -> Any:
    """``^``; integers stay integers, negative powers of them are refused."""
    if _is_integer(base) and _is_integer(exponent) and is_scalar(base) and is_scalar(exponent):
        if exponent < 0:
            raise ValueArgumentError("an integer has no negative power")
        if exponent > 64 and abs(base) > 1:
            raise RangeError(f"{base}^{exponent} does not fit into an integer", hint=_FLOATS)
        return int(base) ** int(exponent)
    if is_scalar(exponent) and _is_integer(exponent) and -4 <= exponent <= 4:
        return integer_power(base, int(exponent))
    return apply("power", base, exponent)


def integer_power(base: Any, exponent: int) -> Any:
    """``x²`` and its kin as products, which kernels compute exactly and fast."""
    if exponent < 0:
        return divide(1.0, integer_power(base, -exponent))
    if exponent > 4 or exponent == 0:
        return apply("power", base, exponent)
    square = base * base if exponent > 1 else base
    if exponent == 3:
        return square * base
    return square * square if exponent == 4 else square


def times(left: Any, right: Any) -> Any:
    """``×``: the cross product of two 3-vectors, else elementwise."""
    if isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape == (3,):
        return array_function("cross")(left, right)
    return left * right


def near(left: Any, right: Any) -> Any:
    """``≈``: equal within a relative 1e-9."""
    size = apply("maximum", apply("absolute", left), apply("absolute", right))
    return apply("absolute", left - right) <= _LIMIT * size


def contains(left: Any, right: Any) -> Any:
    if isinstance(right, Tensor):
        return array_function("any")(right == left)
    if isinstance(right, range) and is_scalar(left):
        return left in right
    return any(bool(item == left) for item in items_of(right))


def _logic(name: str) -> Callable[[Any, Any], Any]:
    return lambda left, right: apply(name, left, right)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": divide,
    "%": remainder,
    "×": times,
    "^": power,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "≈": near,
    "∈": contains,
    "∉": lambda left, right: negate(contains(left, right)),
    "@": lambda left, right: array_function("matmul")(tensor(left), tensor(right)),
    "⋅": lambda left, right: array_function("dot")(tensor(left), tensor(right)),
    "⊗": lambda left, right: kronecker(tensor(left), tensor(right)),
    "&&": _logic("logical_and"),
    "||": _logic("logical_or"),
}


def negate(value: Any) -> Any:
    """``!``"""
    return apply("logical_not", value) if isinstance(value, Tensor) else not value


def cast(value: Any, name: str, dtype: str) -> Any:
    """``as``: floats to integers truncate; a known number stays known."""
    if isinstance(value, list):
        value = tensor(value)
    if isinstance(value, Tensor):
        return array_function("astype")(value, np.dtype(dtype))
    if name in ("usize", "isize", "i64"):
        return int(value)
    if name in ("f64", "c128", "bool"):
        return {"f64": float, "c128": complex, "bool": bool}[name](value)
    with np.errstate(all="ignore"):
        return np.dtype(dtype).type(value)


def number(value: float | complex, name: str, dtype: str) -> Any:
    """Return a literal of an element type. Errors: RangeError."""
    return whole(value, name) if isinstance(value, int) else cast(value, name, dtype)


def whole(value: int, name: str) -> Any:
    """Return an integer as a value of the element type ``name``, if that can hold it.

    ``usize`` may go below 0: negative indices count from the end. Errors: RangeError.
    """
    dtype = DTYPES[name]
    if np.dtype(dtype).kind in "iu":
        bounds = np.iinfo(dtype)
        if not bounds.min <= value <= bounds.max:
            shown = value if value.bit_length() <= 80 else f"a number of {value.bit_length()} bits"
            hint = f"`{name}` holds {bounds.min} to {bounds.max}; {_FLOATS}"
            raise RangeError(f"{shown} does not fit into `{name}`", hint=hint)
    return cast(value, name, dtype)


def calculate(operator: str, left: Any, right: Any, name: str | None) -> Any:
    """Apply an operator; known integers of the element type ``name`` must not leave its range."""
    if name is None or operator not in _IN_RANGE or not (_is_known(left) and _is_known(right)):
        return OPERATORS[operator](left, right)
    return whole(OPERATORS[operator](int(left), int(right)), name)


def _is_known(value: Any) -> bool:
    return is_scalar(value) and not isinstance(value, Tensor) and _is_integer(value)


# --- indexing ---------------------------------------------------------------------------------


def bounds(start: Any, stop: Any, inclusive: bool, step: Any, size: int | None) -> slice:
    """Return ``start..stop; step`` as a slice. Errors: IndexOutOfRange."""
    ends: list[int | None] = []
    for end in (start, stop):
        value = None if end is None else int(end)
        if value is not None and size is not None and not -size <= value <= size:
            raise IndexOutOfRange(f"{value} is out of range of {size} elements")
        ends.append(value)
    first, last = ends
    if inclusive and last is not None:
        last = None if last == -1 else last + 1
    return slice(first, last, None if step is None else int(step))


_SEQUENCES: tuple[type, ...] = (list, str, tuple, range)


def index(base: Any, keys: list[Any]) -> Any:
    """Return ``base[keys]``."""
    if isinstance(base, Tensor):
        return base[tuple(keys)]
    if not isinstance(base, _SEQUENCES):
        raise DTypeError(f"{type(base).__name__} cannot be indexed")
    for key in keys:
        base = _item(base, key)
    return base


def _item(base: Any, key: Any) -> Any:
    if isinstance(base, Tensor) or isinstance(key, slice):
        return base[key]
    at = int(key)
    if not -len(base) <= at < len(base):
        raise IndexOutOfRange(f"index {at} is out of range of {len(base)} items")
    return base[at]


def choose(condition: Tensor, one: Any, two: Any) -> Any:
    """``if`` on a traced condition: both values are computed, one is taken."""
    if isinstance(one, tuple) and isinstance(two, tuple):
        pairs: list[tuple[Any, Any]] = list(zip(one, two, strict=True))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return tuple(choose(condition, a, b) for a, b in pairs)
    arms: list[Any] = [one, two]
    for value in arms:
        if not isinstance(value, Tensor) and not is_scalar(value):
            raise DTypeError("the arms of a traced `if` must be numbers or arrays")
    return array_function("where")(condition, one, two)
