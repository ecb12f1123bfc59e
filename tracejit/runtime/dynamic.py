"""Forms of a native entry that fit arrays of many sizes.

A schedule that was planned with symbolic sizes (``tracejit/sizes.py``) has sizes where others have
numbers. Laid out as a form, each becomes a word that a call computes anew; what had to hold of the
sizes becomes tests that the call has to pass. A new size then runs without Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tracejit.codegen.forms import ANY, Bind, Form
from tracejit.codegen.pool import RECORD
from tracejit.ops.table import Array, Shape
from tracejit.runtime.entry import FormBuilder, I64Array, Result
from tracejit.runtime.numbers import Geometry, in_order, sources
from tracejit.runtime.plan import NativePlan
from tracejit.runtime.slots import Slots
from tracejit.sizes import Family, Guard, Op, is_size

if TYPE_CHECKING:
    from tracejit.runtime.calls import NativeCall

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

    From ``noted`` on they have the sizes of the newest call, a word for each symbol.
    """

    def __init__(self, words: I64Array, kept: list[Any], noted: int):
        self.words = words
        self.kept = kept
        self.noted = noted


def dynamic_form(
    family: Family,
    calls: Sequence[NativeCall],
    plan: Callable[[Any], NativePlan | None],
    slots: Slots,
    arrays: Mapping[int, Geometry],
    result: Result,
    *,
    guarded: bool = True,
) -> DynamicForm | None:
    """Return a form for calls like that of ``slots``, whose arrays have the symbolic ``arrays``.

    These go by slot. It runs ``calls`` by ``plan``, a function of what stands for the address of
    their records. The caller has tested the guards where it is not ``guarded``. None where the
    entry's code cannot serve it.
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
    planned = plan(records)
    if planned is None:
        return None
    builder = _Builder(planned, slots, result, arrays, tail)
    listed = builder.listed()
    if listed is None:
        return None
    start = len(listed)
    symbols = [i for i, n in enumerate(family.numbers) if n.symbol >= 0]
    found = sources(family, arrays)
    symbols = [i for i in symbols if i in found]
    noted = start + len(tail)
    words = [*listed, *tail, *[0] * len(symbols)]
    notes = list(enumerate(symbols, noted))
    strides = {
        index: slots.values[source.array].itemsize
        for index, source in found.items()
        if source.strided
    }
    guards = family.guards() if guarded else []
    program = _Program(family, guards).words(words, start, arrays, strides, notes)
    if len(words) > MAX_WORDS or program is None:
        return None
    words[Form.PROGRAM] = program.ctypes.data
    words[Form.LENGTH] = len(words)
    kept = [program, calls, *builder.kept]
    return DynamicForm(np.array(words, np.int64), kept, noted)


class _Builder(FormBuilder):
    """Writes the words of a form; some are sizes, or addresses within the form."""

    def __init__(
        self,
        plan: NativePlan,
        slots: Slots,
        result: Result,
        arrays: Mapping[int, Geometry],
        tail: list[Any],
    ):
        super().__init__(plan, slots, result)
        self.arrays = arrays
        self.tail = tail

    def argument(self, number: int, written: bool) -> list[int] | None:
        spec = super().argument(number, written)
        geometry = self.arrays.get(number)
        if spec is None or geometry is None:
            return spec
        kind, dtype, rank, low, flags, *_ = spec
        shape, layout = geometry
        sizes = [ANY if is_size(n) else n for n in shape]
        if layout is None:
            flags, strides = flags | _CONTIGUOUS, [ANY] * rank
        else:
            itemsize = self.args[number].itemsize
            strides = [
                ANY if is_size(s) or (not is_size(n) and n <= 1) else s * itemsize
                for n, s in zip(shape, layout, strict=True)
            ]
        axes = [word for pair in zip(sizes, strides, strict=True) for word in pair]
        return [kind, dtype, rank, low, flags, *axes]

    def place_shape(self, shape: Shape) -> Any:
        self.tail += shape
        return _Here(len(self.tail) - len(shape))

    def write(self, output: int, argument: int) -> tuple[int, int, int] | None:
        geometry, buffer = self.arrays.get(argument), self.plan.outputs[output]
        if geometry is None:
            return super().write(output, argument)
        fits = geometry.layout is None and geometry.shape == buffer.shape
        same = self.args[argument].dtype == buffer.dtype
        return (output, argument, buffer.nbytes) if fits and same else None

    def apart(self, argument: int) -> list[tuple[int, ...]]:
        rows: list[tuple[int, ...]] = []
        _, written = self._bounds(argument)
        for number, other in enumerate(self.args):
            if number != argument and type(other) is np.ndarray:
                rows.append((argument, number, *self._bounds(number), written))
        return rows

    def _bounds(self, number: int) -> tuple[int, int]:
        """Return where an array's memory begins and ends, in bytes from its first element."""
        array: Array = self.args[number]
        geometry = self.arrays.get(number)
        if geometry is None:
            start = array.ctypes.data
            low, high = byte_bounds(array)
            return low - start, high - start
        shape, layout = geometry
        if layout is None:
            return 0, prod(shape) * array.itemsize
        reach = [(n - 1) * s for n, s in zip(shape, layout, strict=True)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        return low * array.itemsize, (high + 1) * array.itemsize


class _Program:
    """Writes the program that computes the sizes in a form's words."""

    def __init__(self, family: Family, guards: Sequence[Guard]):
        self.family = family
        self.guards = guards

    def words(
        self,
        words: list[Any],
        start: int,
        arrays: Mapping[int, Geometry],
        strides: Mapping[int, int],
        notes: Sequence[tuple[int, int]],
    ) -> I64Array | None:
        """Return the program; the sizes in ``words`` take their values here.

        ``strides`` has the bytes of an element for each symbol that is a stride; ``notes`` are
        (word, number) of what is noted in the form itself. None where it is too long, or where a
        size is not to be found in ``arrays``.
        """
        stores: list[tuple[int, int]] = []
        tail: list[tuple[int, int, int, int]] = []
        for position, word in enumerate(words):
            if is_size(word):
                stores.append((word.index, position))
                words[position] = word.value
            elif isinstance(word, _Here):
                tail.append((Bind.HERE, start + word.place, position, 0))
                words[position] = 0
        steps = in_order(self.family, [i for i, _ in stores] + [i for _, i in notes], self.guards)
        needed = [step for step in steps if not isinstance(step, Guard)]
        place = {index: number for number, index in enumerate(needed)}
        found = sources(self.family, arrays)
        values = [0] * max(len(needed), _LEAST_NUMBERS)
        rows: list[tuple[int, int, int, int]] = []
        for step in steps:
            if isinstance(step, Guard):
                rows.append((step.op, place[step.a], place[step.b], 0))
                continue
            number, c = self.family.numbers[step], place[step]
            if number.op is not None:
                b = number.b if number.op is Op.BITS else place[number.b]
                rows.append((number.op, place[number.a], b, c))
            elif number.symbol < 0:
                values[c] = number.value
            elif step not in found:  # the size of an argument that nothing else is read of
                return None
            else:
                source = found[step]
                values[c] = strides.get(step, 0)
                kind = Bind.STRIDE if source.strided else Bind.SIZE
                rows.append((kind, source.array, source.axis, c))
        rows += tail
        rows += [(Bind.STORE, place[index], position, 0) for index, position in stores]
        rows += [(Bind.NOTE, place[index], position, 0) for position, index in notes]
        if len(rows) > MAX_INSTRUCTIONS or not all(-(1 << 63) <= v < 1 << 63 for v in values):
            return None
        flat = [len(rows), len(values), *values, *(word for row in rows for word in row)]
        return np.array(flat, np.int64)
