"""Symbolic sizes: numbers that remember how they follow from the sizes of arguments.

A ``Size`` behaves as the int that it is in the trace at hand. Arithmetic on it makes further
sizes. Whatever else is done with it leaves a *guard*: a comparison guards on its outcome, a use
as a plain number (``range(n)``, ``float(n)``, a key of a dict, text) on the very value. While all
guards of a ``Family`` hold, every decision that was taken on its sizes comes out as it did, so a
plan that was made with them is right for other values too, with its numbers computed anew.

Guards are kept as bounds where they can be: with x a size, k, c > 0 constants::

    x·c ≤ k        ⟺  x ≤ k // c
    x + c ≤ k      ⟺  x ≤ k − c
    x // c ≤ k     ⟺  x ≤ c·k + c − 1

A family belongs to one trace, made in ``with family:``. After that its sizes are plain numbers to
everybody.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np


class Op(IntEnum):
    """What a number is, from two others, and the tests on numbers."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3  # rounded down, as Python's //
    MOD = 4
    BITS = 5  # the bits of a as a number of the type with code b (``TYPE_CODES``)
    LE = 6
    EQ = 7
    NE = 8


# Types that a size may have as a constant of the arithmetic.
TYPE_CODES = {"f8": 0, "f4": 1, "i8": 2, "u8": 2, "i4": 3, "u4": 3}


class Number(NamedTuple):
    """A constant (``op`` None), a symbol (``op`` None, ``symbol`` ≥ 0), or an op of two numbers."""

    op: Op | None
    a: int
    b: int
    value: int
    symbol: int = -1


class Guard(NamedTuple):
    """A test of two numbers that has to hold."""

    op: Op
    a: int
    b: int


class Linear(NamedTuple):
    """``factor·number + offset``."""

    base: int
    factor: int
    offset: int


# A base of constants.
_NOTHING = -1


class Family:
    """The sizes of one trace: numbers by index, and what must hold of them.

    Each number has a second, *typical* value beside the one at hand: choices that only concern
    speed are taken for it (``hint``), without a guard, so that all sizes share kernels.
    ``line`` says where the user's code is. ``pinned`` are the symbols that must have their very
    value; ``plain`` is the line where a size was first used as a plain number. ``planning`` is set
    once the user's code has run: from then on sizes are keys of tables by what they are, since our
    own code only loses by a missed equality.
    """

    def __init__(self, line: Callable[[], object] = lambda: None):
        self.numbers: list[Number] = []
        self.pinned: set[int] = set()
        self.plain: object = None
        self.closed = False
        self.planning = False
        self.line = line
        self.typical: list[int] = []
        self._known: dict[tuple[Op | None, int, int], int] = {}
        self._linear: list[Linear] = []
        self._low: dict[int, int] = {}
        self._high: dict[int, int] = {}
        self._others: dict[Guard, None] = {}

    # -- numbers -----------------------------------------------------------------------------------

    def symbol(
        self,
        value: int,
        typical: int | None = None,
        low: int | None = 0,
        high: int | None = None,
    ) -> int:
        """Return the size of one dimension of an argument: a ``Size``, which is an int to all.

        It is never below ``low`` or above ``high``; a stride (None) may be negative.
        """
        count = sum(n.symbol >= 0 for n in self.numbers)
        index = self._append(Number(None, 0, 0, value, count))
        if typical is not None:
            self.typical[index] = typical
        if low is not None:
            self._low[index] = low
        if high is not None:
            self._high[index] = high
        return cast(int, Size(self, index, value))

    def constant(self, value: int) -> int:
        """Return the index of a constant."""
        found = self._known.get((None, value, 0))
        if found is None:
            found = self._known[None, value, 0] = self._append(Number(None, 0, 0, value))
        return found

    def index(self, value: int | Size) -> int:
        """Return the index of a number of this family, or of a constant."""
        if type(value) is Size and value.family is self:
            return value.index
        return self.constant(int(value))

    def combine(self, op: Op, a: int, b: int, value: int) -> Size:
        """Return the size ``op(a, b)``, which is ``value``."""
        if op in (Op.ADD, Op.MUL) and a > b:
            a, b = b, a
        found = self._known.get((op, a, b))
        if found is None:
            found = self._known[op, a, b] = self._append(Number(op, a, b, value))
        return Size(self, found, value)

    def _append(self, number: Number) -> int:
        self.numbers.append(number)
        index = len(self.numbers) - 1
        self._linear.append(self._line(number, index))
        self.typical.append(self._typical(number))
        return index

    def _typical(self, number: Number) -> int:
        if number.op is None or number.op is Op.BITS:
            return number.value
        a, b = self.typical[number.a], self.typical[number.b]
        if number.op in (Op.DIV, Op.MOD) and not b:
            return number.value
        return _PYTHON[number.op](a, b)

    def _line(self, number: Number, index: int) -> Linear:
        if number.op is None:
            constant = number.symbol < 0
            return Linear(_NOTHING, 0, number.value) if constant else Linear(index, 1, 0)
        if number.op is Op.BITS:
            return Linear(index, 1, 0)
        a, b = (self._linear[i] for i in (number.a, number.b))
        if number.op in (Op.ADD, Op.SUB):
            line = _sum(a, b, -1 if number.op is Op.SUB else 1)
        elif number.op is Op.MUL and _NOTHING in (a.base, b.base):
            scale, line = (a.offset, b) if a.base == _NOTHING else (b.offset, a)
            line = Linear(line.base, line.factor * scale, line.offset * scale)
        else:
            line = None
        return line if line is not None else Linear(index, 1, 0)

    # -- guards ------------------------------------------------------------------------------------

    def guard(self, op: Op, a: int, b: int) -> None:
        """Demand that the test holds, as it does for the values at hand."""
        if self.closed or a == b:
            return
        line = _sum(self._linear[a], self._linear[b], -1)
        if line is None:
            self._others[Guard(op, a, b)] = None
        elif line.base != _NOTHING and line.factor:
            self._demand(op, line)

    def _demand(self, op: Op, line: Linear) -> None:
        """Demand ``line op 0``."""
        base, factor, offset = line
        if op is Op.LE:
            if factor > 0:
                self._bound(base, high=-offset // factor)
            else:
                self._bound(base, low=-(-offset // -factor))
            return
        value, rest = divmod(-offset, factor)
        if op is Op.EQ:
            self._bound(base, low=value, high=value)
        elif not rest:
            low, high = self._low.get(base), self._high.get(base)
            if (low is None or low <= value) and (high is None or value <= high):
                if low == value:
                    self._bound(base, low=value + 1)
                else:
                    self._others[Guard(Op.NE, base, self.constant(value))] = None

    def _bound(self, base: int, low: int | None = None, high: int | None = None) -> None:
        number = self.numbers[base]
        if number.op is Op.DIV and self._linear[number.b].base == _NOTHING:
            divisor = self._linear[number.b].offset
            inner = self._linear[number.a]
            if divisor > 0 and inner.base != _NOTHING:
                if low is not None:  # low·divisor ≤ inner
                    self._demand(
                        Op.LE, Linear(inner.base, -inner.factor, low * divisor - inner.offset)
                    )
                if high is not None:
                    top = high * divisor + divisor - 1
                    self._demand(Op.LE, Linear(inner.base, inner.factor, inner.offset - top))
                return
        if low is not None and low > self._low.get(base, low - 1):
            self._low[base] = low
        if high is not None and high < self._high.get(base, high + 1):
            self._high[base] = high
        if number.symbol >= 0 and self._low.get(base) == self._high.get(base):
            self.pinned.add(number.symbol)

    def guards(self) -> list[Guard]:
        """Return all that has to hold, each test once."""
        found: list[Guard] = []
        for index, low in self._low.items():
            found.append(Guard(Op.LE, self.constant(low), index))
        for index, high in self._high.items():
            found.append(Guard(Op.LE, index, self.constant(high)))
        for guard in self._others:
            apart = guard.op is Op.NE and self.numbers[guard.b].op is None
            value = self.numbers[guard.b].value
            if apart and self.numbers[guard.b].symbol < 0:
                low, high = self._low.get(guard.a, value), self._high.get(guard.a, value)
                if not low <= value <= high:
                    continue
            found.append(guard)
        return found

    def interval(self, size: int) -> str:
        """Return the values that guards leave to a number, as text: ``16``, ``2..``, ``2..64``."""
        if not is_size(size):
            return str(size)
        low, high = self._low.get(size.index), self._high.get(size.index)
        return f"{'' if low is None else low}..{'' if high is None else high}"

    def __enter__(self) -> Family:
        families.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        families.discard(self)
        self.closed = True


# The families whose traces and plans are being made. While there are any, tables that are keyed by
# shapes look at ``frozen`` ones, or are left alone: a lookup would guard on every size in its key.
families: set[Family] = set()


def _sum(a: Linear, b: Linear, sign: int) -> Linear | None:
    """Return ``a + sign·b``; None where they have different bases."""
    if a.base != _NOTHING and b.base not in (_NOTHING, a.base):
        return None
    base = b.base if a.base == _NOTHING else a.base
    line = Linear(base, a.factor + sign * b.factor, a.offset + sign * b.offset)
    return line if line.factor else Linear(_NOTHING, 0, line.offset)


class Size:
    """A size of a family. To everybody it is an int (``isinstance`` says so too).

    It is none to C, which could read an int's value without our noticing; so C asks
    ``__index__``, which leaves a guard.
    """

    __slots__ = ("family", "index", "value")

    def __init__(self, family: Family, index: int, value: int):
        self.family = family
        self.index = index
        self.value = value

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int

    # -- arithmetic --------------------------------------------------------------------------------

    def _with(self, op: Op, other: Any, swapped: bool = False) -> Any:
        mine = type(other) is Size
        if not mine and type(other) is not int:
            if isinstance(other, (bool, np.integer)):
                other = operator.index(cast(Any, other))
            else:
                return (
                    NotImplemented
                    if not _plain(other)
                    else _PYTHON[op](*((other, int(self)) if swapped else (int(self), other)))
                )
        a, b = (other, self) if swapped else (self, other)
        divides = op in (Op.DIV, Op.MOD)
        if divides and type(b) is Size:
            bool(b)  # a guard on ≠ 0
        value = _PYTHON[op](_value(a), _value(b))
        family = self.family
        if family.closed:
            return value
        return family.combine(op, family.index(a), family.index(b), value)

    def __add__(self, other: Any) -> Any:
        return self._with(Op.ADD, other) if not _zero(other) else self

    def __radd__(self, other: Any) -> Any:
        return self._with(Op.ADD, other, True) if not _zero(other) else self

    def __sub__(self, other: Any) -> Any:
        return self._with(Op.SUB, other) if not _zero(other) else self

    def __rsub__(self, other: Any) -> Any:
        return self._with(Op.SUB, other, True)

    def __mul__(self, other: Any) -> Any:
        return self._with(Op.MUL, other) if not _one(other) else self

    def __rmul__(self, other: Any) -> Any:
        return self._with(Op.MUL, other, True) if not _one(other) else self

    def __floordiv__(self, other: Any) -> Any:
        return self._with(Op.DIV, other) if not _one(other) else self

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with(Op.DIV, other, True)

    def __mod__(self, other: Any) -> Any:
        return self._with(Op.MOD, other)

    def __rmod__(self, other: Any) -> Any:
        return self._with(Op.MOD, other, True)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __neg__(self) -> Any:
        return 0 - self

    def __pos__(self) -> Size:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def bits(self, dtype: str) -> Any:
        """Return the bits of the number of ``dtype`` that equals this, in the low end of an i64."""
        code = TYPE_CODES.get(dtype)
        raw = np.asarray(self.value, dtype).tobytes().ljust(8, b"\0")
        value = int.from_bytes(raw, "little", signed=True)
        if code is None or self.family.closed:
            int(self)
            return value
        return self.family.combine(Op.BITS, self.index, code, value)

    # -- tests: each guards on its outcome ---------------------------------------------------------

    def _test(self, op: Op, other: Any, swapped: bool = False) -> Any:
        if type(other) is not Size and type(other) is not int:
            if isinstance(other, (bool, np.integer)):
                other = operator.index(cast(Any, other))
            elif _plain(other):
                a, b = (other, int(self)) if swapped else (int(self), other)
                return _PYTHON[op](a, b)
            else:
                return NotImplemented
        a, b = (other, self) if swapped else (self, other)
        holds = _PYTHON[op](_value(a), _value(b))
        family = self.family
        if not family.closed:
            i, j = family.index(a), family.index(b)
            if op is Op.EQ:
                family.guard(Op.EQ if holds else Op.NE, i, j)
            elif holds:
                family.guard(Op.LE, i, j)
            else:  # b + 1 ≤ a
                family.guard(Op.LE, family.index(b + 1), i)
        return holds

    def __eq__(self, other: object) -> Any:
        return True if self is other else self._test(Op.EQ, other)

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __le__(self, other: Any) -> Any:
        return self._test(Op.LE, other)

    def __ge__(self, other: Any) -> Any:
        return self._test(Op.LE, other, True)

    def __lt__(self, other: Any) -> Any:
        greater = self._test(Op.LE, other, True)
        return greater if greater is NotImplemented else not greater

    def __gt__(self, other: Any) -> Any:
        less = self._test(Op.LE, other)
        return less if less is NotImplemented else not less

    def __bool__(self) -> bool:
        return not self._test(Op.EQ, 0)

    # -- plain uses: each guards on the value ------------------------------------------------------

    def __index__(self) -> int:
        family = self.family
        if not family.closed:
            family.guard(Op.EQ, self.index, family.constant(self.value))
            family.plain = family.plain or family.line()
        return self.value

    def __int__(self) -> int:
        return self.__index__()

    def __float__(self) -> float:
        return float(self.__index__())

    def __complex__(self) -> complex:
        return complex(self.__index__())

    def __hash__(self) -> int:
        if self.family.planning:
            return hash((id(self.family), self.index))
        return hash(self.__index__())

    def __repr__(self) -> str:
        return f"size {self.index}" if self.family.planning else repr(self.__index__())

    def __str__(self) -> str:
        return str(self.__index__())

    def __format__(self, spec: str) -> str:
        return format(self.__index__(), spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.__index__(), dtype)

    def __reduce__(self) -> Any:
        return int, (self.__index__(),)

    def __getattr__(self, name: str) -> Any:
        # What ints have beside: bit_length, real, …; of the rest NumPy asks whether it is there.
        if not hasattr(int, name):
            raise AttributeError(name)
        return getattr(self.__index__(), name)

    def __truediv__(self, other: Any) -> Any:
        return self.__index__() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.__index__()

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        power: Callable[..., Any] = pow
        return power(self.__index__(), other, modulus)

    def __rpow__(self, other: Any) -> Any:
        power: Callable[..., Any] = pow
        return power(other, self.__index__())

    def __lshift__(self, other: Any) -> Any:
        return self.__index__() << other

    def __rlshift__(self, other: Any) -> Any:
        return other << self.__index__()

    def __rshift__(self, other: Any) -> Any:
        return self.__index__() >> other

    def __rrshift__(self, other: Any) -> Any:
        return other >> self.__index__()

    def __and__(self, other: Any) -> Any:
        return self.__index__() & other

    __rand__ = __and__

    def __or__(self, other: Any) -> Any:
        return self.__index__() | other

    __ror__ = __or__

    def __xor__(self, other: Any) -> Any:
        return self.__index__() ^ other

    __rxor__ = __xor__

    def __invert__(self) -> int:
        return ~self.__index__()

    def __round__(self, digits: int | None = None) -> Any:
        return self if digits is None else round(self.__index__(), digits)

    def __trunc__(self) -> Any:
        return self

    __floor__ = __ceil__ = __trunc__


_PYTHON: dict[Op, Callable[[Any, Any], Any]] = {
    Op.ADD: operator.add,
    Op.SUB: operator.sub,
    Op.MUL: operator.mul,
    Op.DIV: operator.floordiv,  # pyright: ignore[reportUnknownMemberType]
    Op.MOD: operator.mod,
    Op.LE: operator.le,
    Op.EQ: operator.eq,
}


def _zero(other: Any) -> bool:
    return type(other) is int and other == 0


def _one(other: Any) -> bool:
    return type(other) is int and other == 1


def _plain(value: Any) -> bool:
    return type(value) in (float, complex) or isinstance(value, np.generic)


def _value(number: int | Size) -> int:
    return number.value if type(number) is Size else cast(int, number)


def is_size(value: Any) -> TypeGuard[Size]:
    """Whether ``value`` is symbolic."""
    return type(value) is Size


def hint(value: Any) -> Any:
    """Return the typical value of a size as a plain number, without a guard.

    For choices that concern speed only, and estimates: every outcome has to be right for all sizes.
    """
    return value.family.typical[value.index] if is_size(value) else value


def frozen(value: Any) -> Any:
    """Return ``value``, a tree of tuples, as a key that tells sizes apart without a guard.

    Equal keys mean equal values; different ones may be equal for some sizes.
    """
    if type(value) is Size:
        return ("size", id(value.family), value.index)
    if isinstance(value, tuple):
        return tuple(map(frozen, cast("tuple[Any, ...]", value)))
    return value


def is_one(value: Any) -> bool:
    """Whether ``value`` is the number 1; a symbolic size, which may become it, is not.

    For code that drops what has extent 1, and is as right where it stays.
    """
    return not is_size(value) and value == 1


def hinted(value: Any) -> Any:
    """Return ``value``, a tree of tuples and lists, with plain numbers for sizes (see ``hint``)."""
    if isinstance(value, (tuple, list)):
        return tuple(hinted(part) for part in cast("tuple[Any, ...]", value))
    return hint(value)


def as_index(value: Any) -> int:
    """Return ``operator.index(value)``, without a guard for a symbolic size."""
    return cast(int, value) if type(value) is Size else operator.index(value)
