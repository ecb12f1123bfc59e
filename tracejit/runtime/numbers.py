"""The numbers of a plan for ranges of sizes, computed by Python for the sizes of a call.

Native calls compute them by the program of their form (``runtime/dynamic.py``). What Python has to
know of a call, whether a plan has its sizes, and the shapes that NumPy steps see, comes from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit.ops.table import Shape
from tracejit.sizes import Family, Guard, Number, Op, is_size

Values = Sequence[int]
# Computes something from the numbers of a call.
Formula = Callable[[Values], Any]

_TEXT = {
    Op.ADD: "{} + {}", Op.SUB: "{} - {}", Op.MUL: "{} * {}", Op.DIV: "{} // {}", Op.MOD: "{} % {}",
    Op.LE: "{} <= {}", Op.EQ: "{} == {}", Op.NE: "{} != {}",
}  # fmt: skip
# Types of ``Op.BITS``, by code.
_TYPES = ("f8", "f4", "i8", "i4")


class Geometry(NamedTuple):
    """The sizes of an array, and its strides in elements (None: C-contiguous); either symbolic."""

    shape: Shape
    layout: Shape | None


class Numbers:
    """The numbers of a family that somebody asks for, each with a place among the values of a call.

    ``arrays`` has the geometry of the arguments, by leaf. Ask for formulas while the family is
    open, ``seal`` this before it is closed, and then call it.
    """

    def __init__(self, family: Family, arrays: Mapping[int, Geometry]):
        self.family = family
        self._arrays = arrays
        self._sources = sources(family, arrays)
        self._places: dict[int, int] = {}
        self._compute: Callable[[Sequence[Any]], tuple[int, ...] | None] | None = None

    def formula(self, value: Any) -> Formula | None:
        """Return how ``value``, a tree of tuples and dicts, follows; None where nothing varies."""
        if is_size(value):
            place = self._places.setdefault(value.index, len(self._places))
            return lambda values: values[place]
        if isinstance(value, dict):
            table = cast("dict[Any, Any]", value)
            inner = self.formula(tuple(table.values()))
            keys = tuple(table)
            return inner and (lambda values: dict(zip(keys, inner(values), strict=True)))
        if not isinstance(value, tuple):
            return None
        parts = [(part, self.formula(part)) for part in cast("tuple[Any, ...]", value)]
        if all(formula is None for _, formula in parts):
            return None
        return lambda values: tuple(p if f is None else f(values) for p, f in parts)

    def seal(self) -> None:
        """Take no more questions: the family's guards are complete."""
        lines = ["def compute(keys):"]
        for array, geometry in self._arrays.items():
            for part, numbers in enumerate(geometry, 1):
                for axis, number in enumerate(numbers or ()):
                    if not is_size(number):
                        test = f"keys[{array}][{part}][{axis}] == {number}"
                        lines.append(f"    if not {test}: return None")
        for step in in_order(self.family, list(self._places), self.family.guards()):
            lines += self._lines(step)
        values = "".join(f"v{index}, " for index in self._places)
        lines.append(f"    return ({values})")
        scope: dict[str, Any] = {"bits": _bits}
        exec("\n".join(lines), scope)
        self._compute = scope["compute"]

    def _lines(self, step: int | Guard) -> list[str]:
        if isinstance(step, Guard):
            test = _TEXT[step.op].format(f"v{step.a}", f"v{step.b}")
            return [f"    if not {test}: return None"]
        number = self.family.numbers[step]
        if number.op is None and number.symbol < 0:
            return [f"    v{step} = {number.value}"]
        if number.op is None:
            leaf, axis, strided = self._sources[step]
            return [f"    v{step} = keys[{leaf}][{1 + strided}][{axis}]"]
        if number.op is Op.BITS:
            return [f"    v{step} = bits(v{number.a}, {number.b})"]
        text = f"    v{step} = {_TEXT[number.op].format(f'v{number.a}', f'v{number.b}')}"
        checked = number.op in (Op.DIV, Op.MOD)
        return [f"    if v{number.b} < 1: return None", text] if checked else [text]

    def __call__(self, keys: Sequence[Any]) -> tuple[int, ...] | None:
        """Return the values for a call; None where a plain number differs, or a guard fails.

        ``keys`` has (dtype, sizes, strides) of its arrays, by leaf.
        """
        assert self._compute is not None
        return self._compute(keys)


class Source(NamedTuple):
    """Where a symbol is found: an array, by leaf or slot, and which of its sizes or strides."""

    array: int
    axis: int
    strided: bool


def sources(family: Family, arrays: Mapping[int, Geometry]) -> dict[int, Source]:
    """Return where each symbol is found, by the index of its number."""
    return {
        n.index: Source(array, axis, strided)
        for array, geometry in arrays.items()
        for strided, part in ((False, geometry.shape), (True, geometry.layout))
        for axis, n in enumerate(part or ())
        if is_size(n) and family.numbers[n.index].symbol >= 0
    }


def in_order(family: Family, wanted: Sequence[int], guards: Sequence[Guard]) -> list[int | Guard]:
    """Return ``wanted`` numbers and what they are computed from, each before its users.

    Guards come among them, as soon as what they test is known.
    """
    found: set[int] = set()
    stack = [*wanted, *(number for guard in guards for number in (guard.a, guard.b))]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack += operands(family.numbers[index])
    steps: list[tuple[float, int | Guard]] = [(index, index) for index in found]
    steps += [(max(guard.a, guard.b) + 0.5, guard) for guard in guards]
    return [step for _, step in sorted(steps, key=lambda entry: entry[0])]


def operands(number: Number) -> tuple[int, ...]:
    """Return the numbers that a number is computed from."""
    if number.op is None:
        return ()
    return (number.a,) if number.op is Op.BITS else (number.a, number.b)


def _bits(value: int, code: int) -> int:
    raw = np.asarray(value, _TYPES[code]).tobytes().ljust(8, b"\0")
    return int.from_bytes(raw, "little", signed=True)
