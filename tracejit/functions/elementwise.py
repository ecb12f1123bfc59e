"""Elementwise functions: one line for each name, the meaning is the op's row.

Array-API names come first; NumPy's and PyTorch's other spellings of the same row follow. All take
tensors, arrays, scalars and nested lists, broadcast, and promote as NumPy 2 does.
"""

from __future__ import annotations

from typing import Any, Protocol

from tracejit import functions
from tracejit.errors import ArgumentError, RangeError, ValueArgumentError
from tracejit.functions.arguments import fail
from tracejit.functions.creation import filled
from tracejit.ops import OPS
from tracejit.ops.table import BOOL, promote
from tracejit.tensor import Tensor, cast, lift, record

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "angle",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "around",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_count",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "cbrt",
    "ceil",
    "clamp",
    "clip",
    "complex",
    "conj",
    "conjugate",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "degrees",
    "digamma",
    "div",
    "divide",
    "divmod",
    "eq",
    "equal",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expit",
    "expm1",
    "fabs",
    "fix",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frexp",
    "gamma",
    "gammaln",
    "gcd",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "heaviside",
    "hypot",
    "i0",
    "imag",
    "invert",
    "isclose",
    "iscomplex",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "lcm",
    "ldexp",
    "le",
    "left_shift",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "maximum",
    "minimum",
    "mod",
    "modf",
    "mul",
    "multiply",
    "nan_to_num",
    "ne",
    "neg",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow",
    "power",
    "rad2deg",
    "radians",
    "real",
    "reciprocal",
    "remainder",
    "right_shift",
    "rint",
    "round",
    "rsqrt",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "spacing",
    "sqrt",
    "square",
    "sub",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "where",
]  # fmt: skip


class Unary(Protocol):
    def __call__(self, x: Any, /) -> Tensor: ...


class Binary(Protocol):
    def __call__(self, x1: Any, x2: Any, /) -> Tensor: ...


def unary(row: str, name: str = "") -> Unary:
    """Return the function of a one-operand row; ``name`` is its own name where that differs."""

    def function(x: Any, /) -> Tensor:
        return record(row, (x,))

    function.__name__ = function.__qualname__ = name or row
    function.__doc__ = f"Elementwise: {OPS[row].doc}"
    return function


def binary(row: str, name: str = "") -> Binary:
    """Return the function of a two-operand row."""

    def function(x1: Any, x2: Any, /) -> Tensor:
        return record(row, (x1, x2))

    function.__name__ = function.__qualname__ = name or row
    function.__doc__ = f"Elementwise: {OPS[row].doc}"
    return function


_SWAPPED = {
    "equal": "equal", "not_equal": "not_equal", "less": "greater", "greater": "less",
    "less_equal": "greater_equal", "greater_equal": "less_equal",
}  # fmt: skip
_HOLDS = {  # for a scalar above, and below, all values of the tensor's dtype
    "equal": (False, False), "not_equal": (True, True), "less": (True, False),
    "less_equal": (True, False), "greater": (False, True), "greater_equal": (False, True),
}  # fmt: skip


def comparison(name: str) -> Binary:
    """Return the function that, as NumPy's, also compares with integers outside the dtype."""

    def function(x1: Any, x2: Any, /) -> Tensor:
        try:
            return record(name, (x1, x2))
        except RangeError:
            relation, x, value = (name, x1, x2) if type(x2) is int else (_SWAPPED[name], x2, x1)
            tensor = lift(x)
            if tensor.dtype == BOOL:
                raise
            return filled(tensor.shape, _HOLDS[relation][value < 0], BOOL)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise: {OPS[name].doc}"
    return function


# -- arithmetic

add = binary("add")
subtract = sub = binary("subtract")
multiply = mul = binary("multiply")
divide = true_divide = binary("divide")
floor_divide = binary("floor_divide")
remainder = mod = binary("remainder")
fmod = binary("fmod")
power = pow = binary("power")
float_power = binary("float_power")
negative = neg = unary("negative")
positive = unary("positive")
absolute = abs = unary("absolute")
fabs = unary("fabs")
sign = sgn = unary("sign")
reciprocal = unary("reciprocal")
square = unary("square")
sqrt = unary("sqrt")
cbrt = unary("cbrt")
hypot = binary("hypot")
gcd = binary("gcd")
lcm = binary("lcm")
maximum = binary("maximum")
minimum = binary("minimum")
fmax = binary("fmax")
fmin = binary("fmin")
copysign = binary("copysign")
nextafter = binary("nextafter")
spacing = unary("spacing")
ldexp = binary("ldexp")
heaviside = binary("heaviside")
deg2rad = radians = unary("deg2rad")
rad2deg = degrees = unary("rad2deg")

# -- rounding

floor = unary("floor")
ceil = unary("ceil")
trunc = fix = unary("trunc")
rint = unary("rint")

# -- exponential, logarithmic, trigonometric, hyperbolic

exp = unary("exp")
exp2 = unary("exp2")
expm1 = unary("expm1")
log = unary("log")
log2 = unary("log2")
log10 = unary("log10")
log1p = unary("log1p")
logaddexp = binary("logaddexp")
logaddexp2 = binary("logaddexp2")
sin = unary("sin")
cos = unary("cos")
tan = unary("tan")
asin = arcsin = unary("arcsin", "asin")
acos = arccos = unary("arccos", "acos")
atan = arctan = unary("arctan", "atan")
atan2 = arctan2 = binary("arctan2", "atan2")
sinh = unary("sinh")
cosh = unary("cosh")
tanh = unary("tanh")
asinh = arcsinh = unary("arcsinh", "asinh")
acosh = arccosh = unary("arccosh", "acosh")
atanh = arctanh = unary("arctanh", "atanh")
sinc = unary("sinc")

# -- comparison and logic

equal = eq = comparison("equal")
not_equal = ne = comparison("not_equal")
less = lt = comparison("less")
less_equal = le = comparison("less_equal")
greater = gt = comparison("greater")
greater_equal = ge = comparison("greater_equal")
logical_and = binary("logical_and")
logical_or = binary("logical_or")
logical_xor = binary("logical_xor")
logical_not = unary("logical_not")
isnan = unary("isnan")
isinf = unary("isinf")
isfinite = unary("isfinite")
isposinf = unary("isposinf")
isneginf = unary("isneginf")
isreal = unary("isreal")
iscomplex = unary("iscomplex")
signbit = unary("signbit")

# -- bits

bitwise_and = binary("bitwise_and")
bitwise_or = binary("bitwise_or")
bitwise_xor = binary("bitwise_xor")
bitwise_invert = bitwise_not = invert = unary("invert", "bitwise_invert")
bitwise_left_shift = left_shift = binary("left_shift", "bitwise_left_shift")
bitwise_right_shift = right_shift = binary("right_shift", "bitwise_right_shift")
bitwise_count = unary("bitwise_count")

# -- complex parts

conj = conjugate = unary("conjugate", "conj")
real = unary("real")
imag = unary("imag")
complex = binary("complex")

# -- special functions

erf = unary("erf")
erfc = unary("erfc")
gamma = unary("gamma")
lgamma = gammaln = unary("lgamma")
digamma = unary("digamma")
sigmoid = expit = unary("sigmoid")
i0 = unary("i0")


# -- what is more than one row ---------------------------------------------------------------------


def angle(x: Any, /, deg: bool = False) -> Tensor:
    """Return the argument of complex numbers, in radians or degrees."""
    result = record("angle", (x,))
    return record("rad2deg", (result,)) if deg else result


def rsqrt(x: Any, /) -> Tensor:
    """Return 1/√x."""
    return record("divide", (1.0, record("sqrt", (x,))))


def div(x1: Any, x2: Any, /, *, rounding_mode: str | None = None) -> Tensor:
    """Return x1 / x2; rounded down with ``"floor"``, towards zero with ``"trunc"``."""
    if rounding_mode is None:
        return record("divide", (x1, x2))
    if rounding_mode == "floor":
        return record("floor_divide", (x1, x2))
    if rounding_mode != "trunc":
        raise fail(ValueArgumentError, f"rounding_mode {rounding_mode!r} is not 'floor' or 'trunc'")
    left, right = lift(x1), lift(x2)
    rounded = record("trunc", (record("divide", (left, right)),))
    return cast(rounded, promote((left.dtype, right.dtype)))


def divmod(x1: Any, x2: Any, /) -> tuple[Tensor, Tensor]:
    """Return ⌊x1/x2⌋ and the remainder."""
    return record("floor_divide", (x1, x2)), record("remainder", (x1, x2))


def modf(x: Any, /) -> tuple[Tensor, Tensor]:
    """Return the fractions of ``x`` and its whole parts."""
    return record("modf_fraction", (x,)), record("modf_integer", (x,))


def frexp(x: Any, /) -> tuple[Tensor, Tensor]:
    """Return mantissas in [½, 1) and exponents of two."""
    return record("frexp_mantissa", (x,)), record("frexp_exponent", (x,))


def round(x: Any, /, decimals: int = 0) -> Tensor:
    """Return ``x`` rounded to ``decimals`` digits, halves to even."""
    value = lift(x)
    if value.dtype.kind == "c":
        parts = [round(record(part, (value,)), decimals) for part in ("real", "imag")]
        return record("complex", parts)
    if value.dtype.kind in "iub" and decimals >= 0:
        return cast(record("rint", (value,)), "float16") if value.dtype == BOOL else value
    if decimals == 0:
        return record("rint", (value,))
    # NumPy scales by a power of ten in double and divides by it again.
    scale = 10.0 ** (decimals if decimals > 0 else -decimals)
    there, back = ("multiply", "divide") if decimals > 0 else ("divide", "multiply")
    rounded = record(back, (record("rint", (record(there, (value, scale)),)), scale))
    return cast(rounded, value.dtype)


around = round


def where(condition: Any, x1: Any = None, x2: Any = None, /) -> Any:
    """Return ``x1`` where the condition holds, else ``x2``; the indices where it holds if alone."""
    if x1 is None and x2 is None:
        return functions.gather.nonzero(condition)
    if x1 is None or x2 is None:
        raise fail(ArgumentError, "where takes a condition, or a condition and two values")
    return record("where", (as_condition(condition), x1, x2))


def as_condition(condition: Any) -> Tensor:
    """Return ``condition`` as bool: what is not zero holds."""
    value = lift(condition)
    return value if value.dtype == BOOL else cast(value, BOOL)


def clip(
    x: Any, /, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None
) -> Tensor:
    """Return ``x`` limited to [min, max]; either may be None, ``max`` wins where they cross."""
    low = a_min if min is None else min
    high = a_max if max is None else max
    value = lift(x)
    if low is not None and high is not None:
        return record("clip", (value, low, high))
    if low is not None:
        value = record("maximum", (value, low))
    return value if high is None else record("minimum", (value, high))


clamp = clip


def isclose(
    x1: Any, x2: Any, /, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Return |x1 − x2| ≤ atol + rtol·|x2| elementwise."""
    settings = {"rtol": float(rtol), "atol": float(atol), "equal_nan": bool(equal_nan)}
    return record("isclose", (x1, x2), **settings)


def nan_to_num(
    x: Any,
    /,
    copy: bool = True,
    nan: float = 0.0,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """Return ``x`` with NaN replaced by ``nan``, infinities by the dtype's limits unless told."""
    return record("nan_to_num", (x,), nan=nan, posinf=posinf, neginf=neginf)


def lerp(start: Any, end: Any, weight: Any, /) -> Tensor:
    """Return start + weight · (end − start)."""
    begin = lift(start)
    return record("add", (begin, record("multiply", (weight, record("subtract", (end, begin))))))


def addcmul(x: Any, first: Any, second: Any, /, *, value: Any = 1) -> Tensor:
    """Return x + value · first · second."""
    return _added(x, record("multiply", (first, second)), value)


def addcdiv(x: Any, first: Any, second: Any, /, *, value: Any = 1) -> Tensor:
    """Return x + value · first / second."""
    return _added(x, record("divide", (first, second)), value)


def _added(x: Any, term: Tensor, value: Any) -> Tensor:
    return record("add", (x, term if value == 1 else record("multiply", (term, value))))


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """Return ``x`` in ``dtype``: C casts, so floats truncate; always a new tensor unless told."""
    return functions.creation.asarray(x, dtype, copy=copy, device=device)
