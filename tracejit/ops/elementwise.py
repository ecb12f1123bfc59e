"""Elementwise primitives: NumPy's ufuncs, casts, ``where``, complex parts, special functions.

The loop's dtypes come from NumPy's own resolution, so a row may mean different things by dtype as
the ufunc does: on bool ``add`` is or, ``multiply`` and ``minimum`` are and, ``maximum`` is or,
``invert`` is not; comparisons of int64 with uint64 have a mixed loop that compares exactly;
integer ``divide`` gives float64. The sign of a zero result of maximum, minimum, fmax and fmin of
mixed zeros is unspecified, as it is in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from tracejit.ops import series, special
from tracejit.ops.dtypes import named
from tracejit.ops.table import (
    BOOL,
    FLOAT64,
    Array,
    Attrs,
    Aval,
    DType,
    Fact,
    Family,
    Op,
    check_dtype,
    checked,
    common_types,
    complex_dtype,
    elementwise,
    float_types,
    inexact_types,
    promote,
    real_dtype,
    register,
    ufunc,
    ufunc_types,
)

_COMMUTES = Fact.COMMUTATIVE
_LATTICE = Fact.COMMUTATIVE | Fact.ASSOCIATIVE | Fact.IDEMPOTENT
_SEMIGROUP = Fact.COMMUTATIVE | Fact.ASSOCIATIVE
_EXPENSIVE = Fact.EXPENSIVE

# -- arithmetic ------------------------------------------------------------------------------------

ufunc("add", np.add, _COMMUTES, "x + y; or on bool.")
ufunc("subtract", np.subtract, doc="x − y.")
ufunc("multiply", np.multiply, _COMMUTES, "x · y; and on bool.")
ufunc("divide", np.divide, doc="x / y; integers divide in float64.")
ufunc("floor_divide", np.floor_divide, _EXPENSIVE, "The largest integer ≤ x / y.")
ufunc("remainder", np.remainder, _EXPENSIVE, "x − y·⌊x/y⌋, with the sign of y.")
ufunc("fmod", np.fmod, _EXPENSIVE, "x − y·trunc(x/y), with the sign of x.")
ufunc("power", np.power, _EXPENSIVE, "x to the power y; negative integer exponents raise.")
ufunc("negative", np.negative, Fact.INVOLUTION, "−x.")
ufunc("absolute", np.absolute, Fact.IDEMPOTENT, "|x|; the modulus of complex numbers.")
ufunc("sign", np.sign, doc="−1, 0, 1 or NaN; x/|x| for complex.")
ufunc("reciprocal", np.reciprocal, doc="1 / x in x's own dtype.")
ufunc("sqrt", np.sqrt, doc="√x.")
ufunc("cbrt", np.cbrt, _EXPENSIVE | Fact.ODD, "The real cube root.")
ufunc("hypot", np.hypot, _COMMUTES | _EXPENSIVE, "√(x² + y²) without overflow.")
ufunc("maximum", np.maximum, _LATTICE, "The larger; NaN if either is.")
ufunc("minimum", np.minimum, _LATTICE, "The smaller; NaN if either is.")
ufunc("fmax", np.fmax, _LATTICE, "The larger; the other where one is NaN.")
ufunc("fmin", np.fmin, _LATTICE, "The smaller; the other where one is NaN.")
ufunc("copysign", np.copysign, doc="|x| with the sign of y.")
ufunc("nextafter", np.nextafter, doc="The next float from x towards y.")
ufunc("spacing", np.spacing, doc="The distance to the next float away from zero.")
ufunc("ldexp", np.ldexp, doc="x · 2ⁿ.")
ufunc("gcd", np.gcd, _SEMIGROUP | _EXPENSIVE, "The greatest common divisor.")
ufunc("lcm", np.lcm, _COMMUTES | _EXPENSIVE, "The least common multiple.")


def _natural(x: Array) -> Array:
    if np.any(x < 0):
        raise ValueError("Integers to negative integer powers are not allowed.")
    return x


elementwise(
    "natural",
    _natural,
    arity=1,
    types=common_types("natural", kinds="i"),
    doc="x itself, the exponent of an integer; raises where it is negative.",
)

# -- rounding --------------------------------------------------------------------------------------

for _name, _function, _doc in [
    ("floor", np.floor, "The largest integer ≤ x."),
    ("ceil", np.ceil, "The smallest integer ≥ x."),
    ("trunc", np.trunc, "x without its fraction."),
    ("rint", np.rint, "The nearest integer, ties to even."),
]:
    ufunc(_name, _function, Fact.IDEMPOTENT, _doc)

# -- exponential, logarithmic, trigonometric, hyperbolic -------------------------------------------

_PARITY = {
    **dict.fromkeys(("sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh"), Fact.ODD),
    **dict.fromkeys(("arctanh", "erf"), Fact.ODD),
    **dict.fromkeys(("cos", "cosh"), Fact.EVEN),
}

for _name, _doc in {
    "exp": "eˣ.",
    "exp2": "2ˣ.",
    "expm1": "eˣ − 1, accurate near zero.",
    "log": "The natural logarithm.",
    "log2": "The base-2 logarithm.",
    "log10": "The base-10 logarithm.",
    "log1p": "log(1 + x), accurate near zero.",
    "sin": "The sine.",
    "cos": "The cosine.",
    "tan": "The tangent.",
    "arcsin": "The inverse sine.",
    "arccos": "The inverse cosine.",
    "arctan": "The inverse tangent.",
    "arctan2": "The angle of the point (y, x), first operand y.",
    "sinh": "The hyperbolic sine.",
    "cosh": "The hyperbolic cosine.",
    "tanh": "The hyperbolic tangent.",
    "arcsinh": "The inverse hyperbolic sine.",
    "arccosh": "The inverse hyperbolic cosine.",
    "arctanh": "The inverse hyperbolic tangent.",
}.items():
    _facts = _EXPENSIVE | _PARITY.get(_name, Fact.NONE)
    ufunc(_name, cast(np.ufunc, getattr(np, _name)), _facts, _doc)

# -- comparison and logic --------------------------------------------------------------------------

ufunc("equal", np.equal, _COMMUTES, "x = y; NaN equals nothing.")
ufunc("not_equal", np.not_equal, _COMMUTES, "x ≠ y.")
ufunc("less", np.less, doc="x < y; lexicographic for complex.")
ufunc("less_equal", np.less_equal, doc="x ≤ y.")
ufunc("greater", np.greater, doc="x > y.")
ufunc("greater_equal", np.greater_equal, doc="x ≥ y.")
ufunc("logical_and", np.logical_and, _SEMIGROUP, "Both nonzero.")
ufunc("logical_or", np.logical_or, _SEMIGROUP, "Either nonzero.")
ufunc("logical_xor", np.logical_xor, _COMMUTES, "Exactly one nonzero.")
ufunc("logical_not", np.logical_not, doc="Zero.")
ufunc("isnan", np.isnan, doc="NaN; for complex, in either part.")
ufunc("isinf", np.isinf, doc="±∞; for complex, in either part.")
ufunc("isfinite", np.isfinite, doc="Neither NaN nor ±∞.")
ufunc("signbit", np.signbit, doc="The sign bit, set on −0.0 too.")

# -- bits ------------------------------------------------------------------------------------------

ufunc("bitwise_and", np.bitwise_and, _LATTICE, "Bitwise and.")
ufunc("bitwise_or", np.bitwise_or, _LATTICE, "Bitwise or.")
ufunc("bitwise_xor", np.bitwise_xor, _SEMIGROUP, "Bitwise exclusive or.")
ufunc("invert", np.invert, Fact.INVOLUTION, "Bitwise not.")
ufunc("left_shift", np.left_shift, doc="x · 2ⁿ; 0 where n is not below the width.")
ufunc("right_shift", np.right_shift, doc="⌊x / 2ⁿ⌋; the sign where n is not below the width.")
ufunc("bitwise_count", np.bitwise_count, doc="The number of one bits of |x|.")

# -- ufuncs made of others -------------------------------------------------------------------------


def _square(emit: Any, x: Any) -> Any:
    return emit.multiply(x, x)


def _positive(emit: Any, x: Any) -> Any:
    return x


def _fabs(emit: Any, x: Any) -> Any:
    return emit.absolute(x)


def _scale(factor: float) -> Callable[[Any, Any], Any]:
    def decompose(emit: Any, x: Any) -> Any:
        # NumPy divides two constants of the loop's dtype; its float16 loop computes in float32.
        if x.dtype == np.float16:
            return emit.cast(decompose(emit, emit.cast(x, "float32")), x.dtype)
        one = x.dtype.type
        ratio = one(math.pi) / one(180) if factor < 1 else one(180) / one(math.pi)
        return emit.multiply(x, emit.constant(ratio, x.dtype))

    return decompose


def _float_power(emit: Any, x: Any, y: Any) -> Any:
    return emit.power(x, y)


def _heaviside(emit: Any, x: Any, h: Any) -> Any:
    step = emit.cast(emit.greater(x, 0.0), x.dtype)
    at_zero = emit.where(emit.equal(x, 0.0), h, step)
    return emit.where(emit.isnan(x), x, at_zero)


ufunc("square", np.square, doc="x².", decompose=_square)
ufunc("positive", np.positive, Fact.IDEMPOTENT, "x itself.", _positive)
ufunc("fabs", np.fabs, Fact.IDEMPOTENT, "|x| as a float.", _fabs)
ufunc("deg2rad", np.deg2rad, doc="Degrees to radians.", decompose=_scale(math.pi / 180))
ufunc("rad2deg", np.rad2deg, doc="Radians to degrees.", decompose=_scale(180 / math.pi))
ufunc("float_power", np.float_power, _EXPENSIVE, "xʸ in float64 or complex128.", _float_power)
ufunc("heaviside", np.heaviside, doc="0 below zero, h at zero, 1 above.", decompose=_heaviside)
ufunc("logaddexp", np.logaddexp, _COMMUTES | _EXPENSIVE, "log(eˣ + eʸ).")
ufunc("logaddexp2", np.logaddexp2, _COMMUTES | _EXPENSIVE, "log₂(2ˣ + 2ʸ).")

# -- results of the ufuncs with two ----------------------------------------------------------------


def _part(function: np.ufunc, output: int) -> Callable[[Array], Array]:
    def reference(x: Array) -> Array:
        return function(x)[output]

    return reference


def _modf_integer(emit: Any, x: Any) -> Any:
    return emit.trunc(x)


def _modf_fraction(emit: Any, x: Any) -> Any:
    zero = emit.constant(0.0, x.dtype)
    fraction = emit.where(emit.isinf(x), zero, emit.subtract(x, emit.trunc(x)))
    return emit.copysign(fraction, x)


for _name, _function, _output, _rule, _doc in [
    ("modf_fraction", np.modf, 0, _modf_fraction, "The fraction of x, with its sign."),
    ("modf_integer", np.modf, 1, _modf_integer, "x without its fraction, as modf gives it."),
    ("frexp_mantissa", np.frexp, 0, None, "m with x = m·2ᵉ, ½ ≤ |m| < 1."),
    ("frexp_exponent", np.frexp, 1, None, "e with x = m·2ᵉ, as int32."),
]:
    elementwise(
        _name,
        _part(_function, _output),
        arity=1,
        types=ufunc_types(_name, _function, _output),
        decompose=_rule,
        doc=_doc,
    )

# -- cast and where --------------------------------------------------------------------------------


def _cast(x: Array, *, dtype: str) -> Array:
    wanted = named(dtype)
    if x.dtype.kind == "c" and wanted.kind not in "cb":
        x = x.real  # astype would do the same with a warning
    return x.astype(wanted)


def _cast_infer(operands: Sequence[Aval], attrs: Attrs) -> Aval:
    check_dtype("cast", operands[0].dtype)
    wanted = check_dtype("cast", named(attrs["dtype"]))
    return checked("cast", wanted, operands[0].shape)


CAST = register(
    Op("cast", Family.ELEMENTWISE, 1, _cast, _cast_infer, doc="x in another dtype, C semantics.")
)


def _where_types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
    common = check_dtype("where", promote(dtypes[1:]))
    if not isinstance(dtypes[0], type) and dtypes[0] != BOOL:
        # NumPy takes any dtype as a condition; the caller writes cond ≠ 0.
        check_dtype("where", dtypes[0])
    return (BOOL, common, common), common


WHERE = elementwise(
    "where", np.where, arity=3, types=_where_types, doc="y where the condition holds, else z."
)


def _clip(x: Array, low: Array, high: Array) -> Array:
    return np.minimum(np.maximum(x, low), high)


def _clip_decompose(emit: Any, x: Any, low: Any, high: Any) -> Any:
    return emit.minimum(emit.maximum(x, low), high)


elementwise(
    "clip",
    _clip,
    arity=3,
    types=common_types("clip"),
    decompose=_clip_decompose,
    doc="min(max(x, low), high): NaN anywhere gives NaN; high wins where low > high.",
)

# -- complex parts ---------------------------------------------------------------------------------


def _imag_zero(x: Array) -> Array:
    return np.imag(x) if x.dtype.kind == "c" else np.zeros_like(x)


def _conjugate_decompose(emit: Any, x: Any) -> Any:
    if x.dtype.kind != "c":
        return x
    return emit.complex(emit.real(x), emit.negative(emit.imag(x)))


def _angle(x: Array) -> Array:
    return np.asarray(np.angle(x), real_dtype(x.dtype))


def _angle_decompose(emit: Any, x: Any) -> Any:
    return emit.arctan2(emit.imag(x), emit.real(x))


def _complex(real: Array, imag: Array) -> Array:
    result = np.empty(np.broadcast_shapes(real.shape, imag.shape), complex_dtype(real.dtype))
    result.real, result.imag = real, imag
    return result


ufunc("conjugate", np.conjugate, Fact.INVOLUTION, "The complex conjugate.", _conjugate_decompose)
elementwise(
    "real",
    np.real,
    arity=1,
    types=common_types("real", result=real_dtype),
    facts=Fact.IDEMPOTENT,
    doc="The real part; real numbers themselves.",
)
elementwise(
    "imag",
    _imag_zero,
    arity=1,
    types=common_types("imag", result=real_dtype),
    doc="The imaginary part; zero for real numbers.",
)
elementwise(
    "complex",
    _complex,
    arity=2,
    types=common_types("complex", kinds="f", integers_become=FLOAT64, result=complex_dtype),
    doc="x + iy from real parts.",
)
elementwise(
    "angle",
    _angle,
    arity=1,
    types=common_types("angle", kinds="fc", integers_become=FLOAT64, result=real_dtype),
    facts=Fact.EXPENSIVE,
    decompose=_angle_decompose,
    doc="The argument of a complex number in radians; 0 or π for real ones.",
)

# -- tests of values -------------------------------------------------------------------------------


def _never(emit: Any, x: Any) -> Any:
    return emit.broadcast_to(emit.constant(False, BOOL), shape=x.shape)


def _is_infinity(value: float) -> Callable[[Any, Any], Any]:
    def decompose(emit: Any, x: Any) -> Any:
        return emit.equal(x, value) if x.dtype.kind == "f" else _never(emit, x)

    return decompose


def _isreal(emit: Any, x: Any) -> Any:
    return emit.equal(emit.imag(x), 0)


def _iscomplex(emit: Any, x: Any) -> Any:
    return emit.not_equal(emit.imag(x), 0)


def _isclose(x: Array, y: Array, *, rtol: float, atol: float, equal_nan: bool = False) -> Array:
    return np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)


def _isclose_decompose(
    emit: Any, x: Any, y: Any, *, rtol: float, atol: float, equal_nan: bool = False
) -> Any:
    distance = emit.absolute(emit.subtract(x, y))
    magnitude = emit.absolute(y)
    bound = emit.add(emit.multiply(magnitude, rtol), atol)
    near = emit.logical_and(emit.less_equal(distance, bound), emit.isfinite(y))
    result = emit.logical_or(near, emit.equal(x, y))
    if equal_nan:
        result = emit.logical_or(result, emit.logical_and(emit.isnan(x), emit.isnan(y)))
    return result


def _isposinf(x: Array) -> Array:
    return np.asarray(x == np.inf)


def _isneginf(x: Array) -> Array:
    return np.asarray(x == -np.inf)


for _name, _reference, _kinds, _rule, _doc in [
    ("isposinf", _isposinf, "biuf", _is_infinity(math.inf), "+∞."),
    ("isneginf", _isneginf, "biuf", _is_infinity(-math.inf), "−∞."),
    ("isreal", np.isreal, "biufc", _isreal, "The imaginary part is zero."),
    ("iscomplex", np.iscomplex, "biufc", _iscomplex, "The imaginary part is not zero."),
]:
    elementwise(
        _name,
        _reference,
        arity=1,
        types=common_types(_name, kinds=_kinds, result=BOOL),
        decompose=_rule,
        doc=_doc,
    )
elementwise(
    "isclose",
    _isclose,
    arity=2,
    types=common_types("isclose", kinds="fc", integers_become=FLOAT64, result=BOOL),
    decompose=_isclose_decompose,
    doc="|x − y| ≤ atol + rtol·|y|, or x = y; NaN equals NaN with equal_nan.",
)


def _finite_limits(dtype: DType, posinf: float | None, neginf: float | None) -> tuple[float, float]:
    info = np.finfo(dtype)
    high = float(info.max) if posinf is None else posinf
    return high, float(info.min) if neginf is None else neginf


def _nan_to_num(
    x: Array, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Array:
    return np.asarray(np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf), x.dtype)


def _nan_to_num_decompose(
    emit: Any, x: Any, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Any:
    if x.dtype.kind == "c":
        real, imag = emit.real(x), emit.imag(x)
        settings: dict[str, Any] = {"nan": nan, "posinf": posinf, "neginf": neginf}
        return emit.complex(
            _nan_to_num_decompose(emit, real, **settings),
            _nan_to_num_decompose(emit, imag, **settings),
        )
    if x.dtype.kind != "f":
        return x
    high, low = _finite_limits(x.dtype, posinf, neginf)
    result = emit.where(emit.isnan(x), emit.constant(nan, x.dtype), x)
    result = emit.where(emit.equal(x, math.inf), emit.constant(high, x.dtype), result)
    return emit.where(emit.equal(x, -math.inf), emit.constant(low, x.dtype), result)


elementwise(
    "nan_to_num",
    _nan_to_num,
    arity=1,
    types=common_types("nan_to_num"),
    decompose=_nan_to_num_decompose,
    doc="NaN and infinities replaced by numbers.",
)

# -- special functions -----------------------------------------------------------------------------


def _sinc(emit: Any, x: Any) -> Any:
    angle = emit.multiply(x, math.pi)
    epsilon = np.finfo(x.dtype).eps if x.dtype.kind == "f" else 1e-20
    # sin(ε)/ε is 1, as at zero.
    angle = emit.where(emit.equal(angle, 0.0), emit.constant(epsilon, x.dtype), angle)
    return emit.divide(emit.sin(angle), angle)


elementwise(
    "sinc",
    np.sinc,
    arity=1,
    types=inexact_types("sinc"),
    facts=Fact.EXPENSIVE,
    decompose=_sinc,
    doc="sin(πx)/(πx), 1 at zero.",
)


def _i0(x: Array) -> Array:
    return np.asarray(np.i0(x.astype(np.float64))).reshape(x.shape).astype(x.dtype)


_AS_SERIES = {"digamma": series.digamma, "i0": series.i0}

for _name, _reference, _doc in [
    ("erf", special.erf, "2/√π ∫₀ˣ exp(−t²) dt."),
    ("erfc", special.erfc, "1 − erf x, accurate for large x."),
    ("gamma", special.gamma, "Euler's Γ."),
    ("lgamma", special.lgamma, "log |Γ(x)|."),
    ("digamma", special.digamma, "ψ = Γ′/Γ."),
    ("sigmoid", special.sigmoid, "1 / (1 + e⁻ˣ)."),
    ("i0", _i0, "The modified Bessel function of order 0."),
]:
    elementwise(
        _name,
        _reference,
        arity=1,
        types=float_types(_name),
        facts=_EXPENSIVE | _PARITY.get(_name, Fact.NONE),
        decompose=_AS_SERIES.get(_name),
        doc=_doc,
    )
