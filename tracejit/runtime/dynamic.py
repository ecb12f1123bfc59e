"""Forms of a native entry that fit arrays of many sizes.

A schedule that was planned with symbolic sizes (``tracejit/sizes.py``) has sizes where others have
numbers. Laid out as a form, each becomes a word that a call computes anew; what had to hold of the
sizes becomes tests that the call has to pass. A new size then runs without Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tracejit.codegen.driver import RECORD
from tracejit.codegen.forms import ANY, Bind, Form
from tracejit.ops.table import Array, Shape
from tracejit.runtime.entry import FormBuilder, I64Array, Result
from tracejit.runtime.plan import NativePlan, native_plan
from tracejit.runtime.slots import Slots
from tracejit.schedule.schedule import Schedule
from tracejit.sizes import Family, Number, Op, is_size

if TYPE_CHECKING:
    from tracejit.runtime.executable import NativeCall

# A call has both on its stack.
MAX_WORDS = 1 << 13
MAX_INSTRUCTIONS = 1 << 12
_CONTIGUOUS = 1  # NumPy's flag
# Type codes of ``Op.BITS`` look like numbers.
_LEAST_NUMBERS = 4


class _Here:
    """The address of a word of the form itself, counted from the start of its last part."""

    def __init__(self, place: int):
        self.place = place


class DynamicForm:
    """The words of a form with a program, and what they point at.

    From ``noted`` on they have the sizes of the newest call, a word for each symbol; ``axes`` says
    to its maker what these are.
    """

    def __init__(self, words: I64Array, kept: list[Any], noted: int):
        self.words = words
        self.kept = kept
        self.noted = noted
        self.axes: list[tuple[int, int]] = []


def dynamic_form(
    family: Family,
    schedule: Schedule,
    calls: Sequence[NativeCall],
    slots: Slots,
    shapes: Mapping[int, Shape],
    result: Result,
) -> DynamicForm | None:
    """Return a form for calls like that of ``slots``, whose arrays have the (symbolic) ``shapes``.

    ``shapes`` has the contiguous arrays by slot. None where the entry's code cannot serve it.
    """
    tail: list[Any] = []
    records = _Here(0)
    first, at = 0, RECORD * len(calls)
    for call in calls:
        tail += call.record(first, _Here(at))
        first += len(call.pointers)
        at += len(call.numbers)
    for call in calls:
        tail += call.numbers
    plan = native_plan(schedule, calls, records)
    if plan is None or plan.faults:
        return None
    builder = _Builder(plan, slots, result, shapes, tail)
    listed = builder.listed()
    if listed is None:
        return None
    start = len(listed)
    symbols = [i for i, n in enumerate(family.numbers) if n.symbol >= 0]
    noted = start + len(tail)
    words = [*listed, *tail, *[0] * len(symbols)]
    notes = list(enumerate(symbols, noted))
    program = _program(family, words, start, shapes, notes)
    if len(words) > MAX_WORDS or program is None:
        return None
    words[Form.PROGRAM] = program.ctypes.data
    words[Form.LENGTH] = len(words)
    kept = [program, schedule, calls, *builder.kept]
    return DynamicForm(np.array(words, np.int64), kept, noted)


class _Builder(FormBuilder):
    """Writes the words of a form; some are sizes, or addresses within the form."""

    def __init__(
        self,
        plan: NativePlan,
        slots: Slots,
        result: Result,
        shapes: Mapping[int, Shape],
        tail: list[Any],
    ):
        super().__init__(plan, slots, result)
        self.shapes = shapes
        self.tail = tail

    def argument(self, number: int, written: bool) -> list[int] | None:
        spec = super().argument(number, written)
        shape = self.shapes.get(number)
        if spec is None or shape is None:
            return spec
        kind, dtype, rank, low, flags, *_ = spec
        axes = [word for n in shape for word in (ANY if is_size(n) else n, ANY)]
        return [kind, dtype, rank, low, flags | _CONTIGUOUS, *axes]

    def place_shape(self, shape: Shape) -> Any:
        self.tail += shape
        return _Here(len(self.tail) - len(shape))

    def write(self, output: int, argument: int) -> tuple[int, int, int] | None:
        shape, buffer = self.shapes.get(argument), self.plan.outputs[output]
        if shape is None:
            return super().write(output, argument)
        fits = shape == buffer.shape and self.args[argument].dtype == buffer.dtype
        return (output, argument, buffer.nbytes) if fits else None

    def apart(self, argument: int) -> list[tuple[int, ...]]:
        rows: list[tuple[int, ...]] = []
        for number, other in enumerate(self.args):
            if number == argument or type(other) is not np.ndarray:
                continue
            array: Array = other
            if number in self.shapes:
                low, high = 0, self._nbytes(number)
            else:
                start = array.ctypes.data
                low, high = (bound - start for bound in byte_bounds(array))
            rows.append((argument, number, low, high, self._nbytes(argument)))
        return rows

    def _nbytes(self, number: int) -> int:
        array: Array = self.args[number]
        return prod(self.shapes.get(number, array.shape)) * array.itemsize


def _program(
    family: Family,
    words: list[Any],
    start: int,
    shapes: Mapping[int, Shape],
    notes: Sequence[tuple[int, int]],
) -> I64Array | None:
    """Return the program that computes the sizes in ``words``, which take their values here.

    ``notes`` are (word, number) of what it notes in the form itself.
    """
    places = {
        n.index: (argument, axis)
        for argument, shape in shapes.items()
        for axis, n in enumerate(shape)
        if is_size(n)
    }
    stores: list[tuple[int, int]] = []
    tail: list[tuple[int, int, int, int]] = []
    for position, word in enumerate(words):
        if is_size(word):
            stores.append((word.index, position))
            words[position] = word.value
        elif isinstance(word, _Here):
            tail.append((Bind.HERE, start + word.place, position, 0))
            words[position] = 0
    guards = family.guards()
    tested = [i for g in guards for i in (g.a, g.b)]
    needed = _needed(family, [i for i, _ in stores] + tested + [i for _, i in notes])
    place = {index: number for number, index in enumerate(needed)}
    code: list[tuple[float, tuple[int, int, int, int]]] = []
    values = [0] * max(len(needed), _LEAST_NUMBERS)
    for index in needed:
        number = family.numbers[index]
        if number.op is None and number.symbol < 0:
            values[place[index]] = number.value
        elif number.op is None:
            code.append((index, (Bind.SIZE, *places[index], place[index])))
        else:
            b = place[number.b] if _reads_two(number) else number.b
            code.append((index, (number.op, place[number.a], b, place[index])))
    for guard in guards:  # as soon as what they test is known
        test = (guard.op, place[guard.a], place[guard.b], 0)
        code.append((max(guard.a, guard.b) + 0.5, test))
    code.sort(key=lambda entry: entry[0])
    tail += [(Bind.STORE, place[index], position, 0) for index, position in stores]
    tail += [(Bind.NOTE, place[index], position, 0) for position, index in notes]
    rows = [row for _, row in code] + tail
    if len(rows) > MAX_INSTRUCTIONS or not all(-(1 << 63) <= v < 1 << 63 for v in values):
        return None
    flat = [len(rows), len(values), *values, *(word for row in rows for word in row)]
    return np.array(flat, np.int64)


def _reads_two(number: Number) -> bool:
    return number.op is not Op.BITS


def _needed(family: Family, wanted: Sequence[int]) -> list[int]:
    """Return ``wanted`` numbers and those they are computed from, each before its users."""
    found: set[int] = set()
    stack = list(wanted)
    while stack:
        index = stack.pop()
        if index in found:
            continue
        found.add(index)
        number = family.numbers[index]
        if number.op is not None:
            stack.append(number.a)
            if _reads_two(number):
                stack.append(number.b)
    return sorted(found)
