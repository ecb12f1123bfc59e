"""Elementwise ops → IR: one entry an op.

An entry takes the builder, the operands (scalars or vectors of equal lanes), and a ``Loop`` with
the operand and result dtypes. Arithmetic rounds as NumPy's: every operation by itself, no
contraction. Elementary functions come from ``codegen/math``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, cast

from tracejit.codegen import division, integers, parts
from tracejit.codegen import math as vector_math
from tracejit.codegen.builder import Builder, Value, const
from tracejit.codegen.lowered import ARITHMETIC
from tracejit.codegen.math.square_root import square_root
from tracejit.codegen.types import DType, is_signed, nonzero
from tracejit.codegen.types import cast as cast_value
from tracejit.errors import InternalError
from tracejit.ops.table import FLOAT64


class Loop(NamedTuple):
    """The dtypes of one elementwise loop, and whether its divisions take longer than the rest.

    ``fixed``: the last operand is the same in all lanes and steps of the innermost loop.
    """

    operands: tuple[DType, ...]
    result: DType
    attrs: Mapping[str, Hashable]
    waits_for_divider: bool = False
    fixed: bool = False

    @property
    def dtype(self) -> DType:
        return self.operands[0]

    @property
    def signed(self) -> bool:
        return is_signed(self.operands[0])

    def ints(self, x: Sequence[Value]) -> division.Ints:
        """Return the operands of an integer division."""
        return division.Ints(x[0], x[1], self.signed, self.fixed)


# What occupies the divider, which makes one vector at a time while other units wait.
DIVIDER = frozenset({"divide", "reciprocal", "sqrt", "remainder", "floor_divide", "fmod"})

Lowering = Callable[[Builder, Sequence[Value], Loop], Value]
TABLE: dict[str, Lowering] = {}


def lowering(*names: str) -> Callable[[Lowering], Lowering]:
    def add(function: Lowering) -> Lowering:
        for name in names:
            if name not in ARITHMETIC:
                raise AssertionError(f"enter {name} into ARITHMETIC in codegen/lowered.py")
            TABLE[name] = function
        return function

    return add


def lower(b: Builder, op: str, operands: Sequence[Value], loop: Loop) -> Value:
    """Write one op; integer loops of ``floor`` and the like are the table's business."""
    entry = TABLE.get(op)
    if entry is not None:
        return entry(b, operands, loop)
    if op in vector_math.FUNCTIONS:
        return vector_math.call(b, op, *operands)
    raise InternalError(f"no lowering for {op}")


# -- arithmetic ------------------------------------------------------------------------------------


@lowering("add")
def _add(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.or_(x[0], x[1]) if loop.dtype.kind == "b" else b.add(x[0], x[1])


@lowering("subtract")
def _subtract(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.sub(x[0], x[1])


@lowering("multiply")
def _multiply(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.and_(x[0], x[1]) if loop.dtype.kind == "b" else b.mul(x[0], x[1])


@lowering("divide")
def _divide(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.div(x[0], x[1])


@lowering("reciprocal")
def _reciprocal(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    """An integer's is NumPy's: the inverse in float64, which that of 0 does not fit."""
    real = x[0] if x[0].type.is_float else cast_value(b, x[0], loop.dtype, FLOAT64)
    inverse = b.div(const(1, real.type), real)
    return inverse if x[0].type.is_float else cast_value(b, inverse, FLOAT64, loop.dtype)


@lowering("power")
def _power(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if loop.dtype.kind == "f":
        return vector_math.call(b, "power", *x)
    return integers.power(b, x[0], x[1])


@lowering("gcd")
def _gcd(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return integers.gcd(b, x[0], x[1], signed=loop.signed)


@lowering("lcm")
def _lcm(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return integers.lcm(b, x[0], x[1], signed=loop.signed)


@lowering("negative")
def _negative(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.neg(x[0])


@lowering("real")
def _positive(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return x[0]


@lowering("absolute")
def _absolute(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.abs(x[0]) if loop.signed else x[0]


@lowering("sign")
def _sign(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    value, zero, one = x[0], const(0, x[0].type), const(1, x[0].type)
    if not loop.signed:
        return b.select(b.compare("eq", value, zero), zero, one)
    negative = b.select(b.compare("lt", value, zero), const(-1, value.type), zero)
    result = b.select(b.compare("gt", value, zero), one, negative)
    return _keep_nan(b, value, result) if value.type.is_float else result


def _keep_nan(b: Builder, value: Value, result: Value) -> Value:
    return b.select(b.compare("uno", value, value), value, result)


@lowering("floor_divide")
def _floor_divide(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if loop.dtype.kind == "f":
        return division.float_divmod(b, x[0], x[1])[0]
    return division.floor_divide(b, loop.ints(x))


@lowering("remainder")
def _remainder(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if loop.dtype.kind == "f":
        return division.float_divmod(b, x[0], x[1])[1]
    return division.remainder(b, loop.ints(x))


@lowering("fmod")
def _fmod(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if loop.dtype.kind == "f":
        return division.float_fmod(b, x[0], x[1])
    return division.fmod(b, loop.ints(x))


# -- order -----------------------------------------------------------------------------------------


def _ordered(loop: Loop, predicate: str) -> str:
    unsigned = loop.dtype.kind in "ub" and predicate not in ("eq", "ne")
    return "u" + predicate if unsigned else predicate


def _comparison(predicate: str) -> Lowering:
    def entry(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
        kinds = [d.kind for d in loop.operands]
        if sorted(kinds) != ["i", "u"]:
            return b.compare(_ordered(loop, predicate), x[0], x[1])
        # int64 against uint64: a negative number is below every unsigned one.
        signed = x[kinds.index("i")]
        negative = b.compare("lt", signed, const(0, signed.type))
        unsigned = "u" + predicate if predicate not in ("eq", "ne") else predicate
        below = kinds[0] == "i"
        answer = predicate == "ne" or ((predicate in ("lt", "le")) == below and predicate != "eq")
        usual = b.compare(unsigned, x[0], x[1])
        return b.select(negative, const(answer, negative.type), usual)

    return entry


for _name, _predicate in {
    "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge",
}.items():  # fmt: skip
    TABLE[_name] = _comparison(_predicate)


def _extremum(predicate: str, keeps_nan: bool) -> Lowering:
    def entry(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
        a, c = x
        # One instruction, which gives ``a`` where the two are equal or one is NaN.
        chosen = b.select(b.compare(_ordered(loop, predicate), c, a), c, a)
        if not a.type.is_float or (keeps_nan and c.is_number):
            return chosen
        wrong = c if keeps_nan else a  # a NaN on either side wins, or a number
        return b.select(b.compare("uno", wrong, wrong), c, chosen)

    return entry


TABLE["maximum"] = _extremum("gt", True)
TABLE["minimum"] = _extremum("lt", True)
TABLE["fmax"] = _extremum("gt", False)
TABLE["fmin"] = _extremum("lt", False)


# -- logic and bits --------------------------------------------------------------------------------


@lowering("logical_and")
def _logical_and(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.and_(nonzero(b, x[0]), nonzero(b, x[1]))


@lowering("logical_or")
def _logical_or(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.or_(nonzero(b, x[0]), nonzero(b, x[1]))


@lowering("logical_xor")
def _logical_xor(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.xor(nonzero(b, x[0]), nonzero(b, x[1]))


@lowering("logical_not")
def _logical_not(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.not_(nonzero(b, x[0]))


@lowering("bitwise_and")
def _bitwise_and(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.and_(x[0], x[1])


@lowering("bitwise_or")
def _bitwise_or(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.or_(x[0], x[1])


@lowering("bitwise_xor")
def _bitwise_xor(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.xor(x[0], x[1])


@lowering("invert")
def _invert(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.not_(x[0])


@lowering("bitwise_count")
def _bitwise_count(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    count = b.intrinsic("ctpop", x[0].type, b.abs(x[0]) if loop.signed else x[0])
    return b.convert(count, count.type.like("i8"), signed=False)


def _shift(b: Builder, x: Sequence[Value], loop: Loop, left: bool) -> Value:
    """Shift; a count of the width or more (or negative) shifts everything out, as in NumPy."""
    value, count = x
    bits = const(value.type.bits, value.type)
    inside = b.compare("ult", count, bits)
    safe = b.select(inside, count, const(0, count.type))
    if left:
        shifted, empty = b.shl(value, safe), const(0, value.type)
    elif loop.signed:
        shifted = b.ashr(value, safe)
        empty = b.ashr(value, const(value.type.bits - 1, value.type))
    else:
        shifted, empty = b.lshr(value, safe), const(0, value.type)
    return b.select(inside, shifted, empty)


@lowering("left_shift")
def _left_shift(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return _shift(b, x, loop, True)


@lowering("right_shift")
def _right_shift(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return _shift(b, x, loop, False)


# -- floating-point parts --------------------------------------------------------------------------


def _rounding(method: str) -> Lowering:
    def entry(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
        return cast(Value, getattr(b, method)(x[0])) if x[0].type.is_float else x[0]

    return entry


for _name, _method in {
    "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "round_even",
}.items():  # fmt: skip
    TABLE[_name] = _rounding(_method)


@lowering("sqrt")
def _sqrt(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    """The same bits either way: a float32 root alone may hide behind the other work."""
    slow = loop.waits_for_divider or loop.dtype.itemsize == 8
    return square_root(b, x[0]) if slow else b.sqrt(x[0])


@lowering("copysign")
def _copysign(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.copysign(x[0], x[1])


def _bits(b: Builder, value: Value) -> Value:
    return b.bitcast(value, value.type.like(f"i{value.type.bits}"))


@lowering("signbit")
def _signbit(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    bits = _bits(b, x[0])
    return b.compare("lt", bits, const(0, bits.type))


@lowering("isnan")
def _isnan(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if not x[0].type.is_float:
        return const(False, x[0].type.like("i1"))
    return b.compare("uno", x[0], x[0])


@lowering("isinf")
def _isinf(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if not x[0].type.is_float:
        return const(False, x[0].type.like("i1"))
    return b.compare("eq", b.abs(x[0]), const(math.inf, x[0].type))


@lowering("isfinite")
def _isfinite(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    if not x[0].type.is_float:
        return const(True, x[0].type.like("i1"))
    return b.compare("lt", b.abs(x[0]), const(math.inf, x[0].type))


@lowering("nextafter")
def _nextafter(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    """Step the bits by one towards the second operand (IEEE 754 nextUp/nextDown)."""
    a, towards = x
    bits = _bits(b, a)
    one, zero = const(1, bits.type), const(0, bits.type)
    up = b.compare("lt", a, towards)
    away = b.compare("eq", up, b.compare("ge", bits, zero))
    stepped = b.select(away, b.add(bits, one), b.sub(bits, one))
    smallest = b.copysign(b.bitcast(one, a.type), towards)
    result = b.bitcast(stepped, a.type)
    result = b.select(b.compare("eq", a, const(0, a.type)), smallest, result)
    result = b.select(b.compare("eq", a, towards), towards, result)
    return b.select(b.compare("uno", a, towards), b.add(a, towards), result)


@lowering("spacing")
def _spacing(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return parts.spacing(b, x[0])


@lowering("ldexp")
def _ldexp(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return parts.scaled(b, x[0], x[1])


@lowering("frexp_mantissa")
def _frexp_mantissa(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return parts.fraction(b, x[0])


@lowering("frexp_exponent")
def _frexp_exponent(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return parts.exponent(b, x[0])


# -- selection and casts ---------------------------------------------------------------------------


@lowering("where")
def _where(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return b.select(nonzero(b, x[0]), x[1], x[2])


@lowering("cast")
def _cast(b: Builder, x: Sequence[Value], loop: Loop) -> Value:
    return cast_value(b, x[0], loop.dtype, loop.result)


def splat_to(b: Builder, value: Value, lanes: int) -> Value:
    return value if value.type.lanes == lanes else b.splat(value, lanes)
