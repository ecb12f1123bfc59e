"""Native entries: jitted functions that are C functions.

A ``NativeEntry`` owns the C function of one jitted function and the forms it accepts. It exists
where the interpreter and NumPy have the object layouts that the code relies on; elsewhere, and
for everything unusual, calls take the Python path.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tracejit import config, gate
from tracejit.codegen.forms import (
    EIGHTH,
    ENTRY,
    MAX_FORMS,
    MAX_OUTPUTS,
    MAX_POINTERS,
    MAX_SLOTS,
    MAX_STEPS,
    VECTOR,
    Addresses,
    Argument,
    Base,
    Form,
    Output,
    State,
    Step,
)
from tracejit.codegen.memory import FUNCTIONS, MAKE_ARRAY, REFUSE
from tracejit.ops.table import Array, Shape
from tracejit.runtime import background, inside, memory, native, numpy_api, ticks
from tracejit.runtime.loader import LoadedObject
from tracejit.runtime.once import Once
from tracejit.runtime.slots import OPENED, Slots
from tracejit.schedule.arena import aligned
from tracejit.schedule.buffers import Buffer

if TYPE_CHECKING:
    from tracejit.runtime.executable import Executable
    from tracejit.runtime.plan import NativePlan

# The entry's code saves some 6 µs of a call and takes a core 70 ms to make. It would be made beside
# the first calls with kernels, which have to make up for those that NumPy answered.
CALLS_BEFORE = 40

_WRITEABLE = 0x400
# Stands for no call yet where the shortest is kept.
_NONE = (1 << 63) - 1

I64Array = np.ndarray[Any, np.dtype[np.int64]]


@lru_cache(maxsize=1)
def supported() -> bool:
    """Whether this interpreter and NumPy are laid out as the entry's code expects."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    if "free-threading" in sys.version or hasattr(sys, "gettotalrefcount"):
        return False
    probe = np.zeros((3, 5), np.float32)
    pair, row, table = (probe, 1), [1, probe], {"one": 1, "two": 2}
    base = id(probe)

    def word(address: int) -> int:
        return ctypes.c_int64.from_address(address).value

    return (
        word(base + 8) == id(np.ndarray)
        and word(base + 16) == probe.ctypes.data
        and ctypes.c_int.from_address(base + 24).value == 2
        and word(word(base + 32)) == 3
        and word(word(base + 40)) == 20
        and word(base + 56) == id(probe.dtype)
        and ctypes.c_int.from_address(base + 64).value == probe.flags.num
        and word(id(pair) + 24) == base
        and word(word(id(row) + 24) + 8) == base
        and word(id(pair) + 16) == word(id(row) + 16) == word(id(table) + 16) == 2
        and ctypes.c_double.from_address(id(1.5) + 16).value == 1.5
        and ctypes.c_double.from_address(id(2.5j) + 24).value == 2.5
        and ctypes.c_float.from_address(id(scalar := np.float32(1.5)) + 16).value == scalar
    )


# Where a type object has the place of its vectorcall cell and its flags, and the flag for that.
_VECTORCALL_OFFSET, _FLAGS, _HAS_VECTORCALL = 56, 168, 1 << 11


@lru_cache(maxsize=1)
def _slots_known() -> bool:
    """Whether type objects are laid out as ``NativeEntry.serve`` expects."""
    kind = FunctionType

    def word(offset: int) -> int:
        return ctypes.c_int64.from_address(id(kind) + offset).value

    return (
        (word(32), word(40)) == (kind.__basicsize__, kind.__itemsize__)
        and word(_FLAGS) == kind.__flags__
        and word(_FLAGS) & _HAS_VECTORCALL != 0
        and 0 < word(_VECTORCALL_OFFSET) < kind.__basicsize__
    )


def _text() -> str:
    from tracejit.codegen.entry import emit_entry

    return emit_entry(native.driver_text())


_MODULE = native.Module("entry", _text)


@Once
def _code() -> LoadedObject:
    allocator = (MAKE_ARRAY, FUNCTIONS[0], FUNCTIONS[-1], REFUSE)
    recycles = memory.available()
    if recycles:
        memory.pool().optimise()
    make, take, give, refuse = (
        memory.pool().code.address(name) if recycles else 0 for name in allocator
    )
    addresses = Addresses(
        array_type=id(np.ndarray),
        pyarray_empty=numpy_api.address(numpy_api.PYARRAY_EMPTY),
        pyarray_scalar=numpy_api.address(numpy_api.SCALAR),
        make_array=make,
        pool_malloc=take,
        pool_free=give,
        refuse=refuse,
        gate=gate.address(),
        watched=inside.address(),
    )
    return native.load(_MODULE, (ENTRY, VECTOR), addresses._asdict())


def ready() -> bool:
    """Whether the C function's code has been made; the first entry makes it otherwise."""
    return _code.made


def prepare() -> None:
    """Make the C function's code, so that the first entry costs little."""
    global _expected
    try:
        if supported():
            _code()
    finally:
        _expected = False


def expect() -> None:
    """Note that the code will be made in the background: nobody need wait for it until then."""
    global _expected
    _expected = not _code.made and supported()


def coming() -> bool:
    """Whether the C function's code is being made by somebody else, or will be."""
    return _expected and not _code.made


def approach(calls: int = 1) -> None:
    """Note calls that the code would have served; after ``CALLS_BEFORE`` it is made."""
    global _approached
    _approached += calls
    if _approached >= CALLS_BEFORE:
        background.prepare(prepare)


_expected = False
_approached = 0


def _in_child() -> None:
    global _expected, _approached
    _expected, _approached = False, 0  # the thread that would make it is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Result(NamedTuple):
    """How a call's result is put together.

    ``steps`` are (step, number of an output or slot, or how many; object): they push outputs,
    arguments and objects, and make containers of what was pushed last. ``writes`` are (output,
    slot): the argument there, an array, takes that output's values. ``scalars`` says whether 0-d
    outputs become NumPy scalars, as they do for NumPy's callers.
    """

    steps: Sequence[tuple[Step, int, Any]]
    writes: Sequence[tuple[int, int]] = ()
    scalars: bool = True


# The result is output 0.
FIRST_OUTPUT = Result(((Step.PUSH_OUTPUT, 0, None),))


def listed(count: int) -> Result:
    """Return the result that is a list of ``count`` outputs, all of them arrays."""
    steps = [(Step.PUSH_OUTPUT, number, None) for number in range(count)]
    return Result([*steps, (Step.MAKE_LIST, count, None)], scalars=False)


class Counters(NamedTuple):
    """What one form has counted: calls begun and ended, those timed, and their ticks (inclusive).

    ``least`` is the shortest timed call since ``NativeForm.watch_least``, None where there was
    none; ``last`` the stamp of the newest. A tick is ``ticks.seconds_per_tick()`` long.
    """

    calls: int
    ended: int
    timed: int
    timed_ticks: int
    least: int | None
    last: int

    @property
    def ticks(self) -> int:
        """The ticks of all calls: those of the timed ones, scaled."""
        return self.timed_ticks * self.calls // self.timed if self.timed else 0


class NativeForm:
    """One accepted signature: its words in memory. An executable that it runs knows it.

    The words point into the executable, which therefore lives until ``retire``, and at ``kept``.
    """

    def __init__(self, executable: Executable | None, words: I64Array, kept: Sequence[Any]):
        self.words = words
        self.past = False  # no further call will begin
        self._kept = kept
        self._executable = executable
        if executable is not None:
            executable.forms.append(weakref.ref(self))

    @property
    def calls(self) -> int:
        """How many calls it has answered."""
        return int(self.words[Form.CALLS])

    def counters(self) -> Counters:
        """Return what has been counted so far."""
        counted = self.words[Form.CALLS : Form.LAST + 1].tolist()
        calls, ended, timed, taken, least, last = counted
        return Counters(calls, ended, timed, taken, None if least == _NONE else least, last)

    @property
    def idle(self) -> bool:
        """Whether no call is running."""
        return bool(self.words[Form.CALLS] == self.words[Form.ENDED])

    def retire(self) -> None:
        """Let go of the executable, unless a call is running: no further one will begin."""
        self.past = True
        if self.idle:
            self._executable = None

    def watch_least(self) -> None:
        """Forget the shortest call: the next timed one is."""
        self.words[Form.LEAST] = _NONE


def total(counters: Sequence[Counters]) -> Counters:
    """Return the sums, the shortest call of all, and the newest stamp."""
    least = [c.least for c in counters if c.least is not None]
    return Counters(
        calls=sum(c.calls for c in counters),
        ended=sum(c.ended for c in counters),
        timed=sum(c.timed for c in counters),
        timed_ticks=sum(c.timed_ticks for c in counters),
        least=min(least, default=None),
        last=max((c.last for c in counters), default=0),
    )


class NativeEntry:
    """The C function of one jitted function. ``function`` is what callers call."""

    # The type that leads calls here, and its flags.
    _served: tuple[type, ctypes.c_int64] | None = None

    def __init__(self, name: str, fallback: Callable[..., Any]):
        self._state: I64Array = np.zeros(State.FIRST + MAX_FORMS, np.int64)
        self._state[State.TIMED] = 1
        self._state[State.EVERY] = config.stress_deopt()
        self._forms: list[NativeForm] = []
        self._earlier = 0  # calls of forms that are gone
        self._watches: I64Array | None = None
        self._diverting = False
        ticks.start()
        self._definition = numpy_api.MethodDef(
            name.encode(), _code().address(ENTRY), numpy_api.FASTCALL_KEYWORDS, None
        )
        # The tuple keeps state, Python path and this object alive as long as the function lives.
        own = (self._state, fallback, self)
        self.function: Callable[..., Any] = numpy_api.c_function(self._definition, own)
        self._cell: I64Array = np.array([_code().address(VECTOR), id(own)], np.int64)

    def serve(self, owner: object) -> None:
        """Answer the calls of ``owner``, the one instance of its type, which keeps this object.

        Through ``__call__`` alone, the interpreter would make a tuple of the arguments and look the
        method up, 45 ns a call. The cell that the type's slot leads to (PEP 590) need not be in the
        object, since there is only one.
        """
        kind = type(owner)
        kind.__call__ = self.function  # pyright: ignore[reportAttributeAccessIssue]
        if not _slots_known():
            return
        offset, flags = (
            ctypes.c_int64.from_address(id(kind) + at) for at in (_VECTORCALL_OFFSET, _FLAGS)
        )
        offset.value = self._cell.ctypes.data - id(owner)
        flags.value |= _HAS_VECTORCALL
        self._served = kind, flags

    def __del__(self, flag: int = _HAS_VECTORCALL) -> None:
        # In garbage that is taken apart, the type and its instance may outlive the cell.
        if self._served is not None:
            self._served[1].value &= ~flag

    @property
    def calls(self) -> int:
        """How many calls were answered without Python, by this and earlier sets of forms."""
        return self._earlier + sum(form.calls for form in self._forms)

    @property
    def forms(self) -> list[NativeForm]:
        """The forms that are accepted now, in the order in which they are tried."""
        return self._forms[len(self._forms) - int(self._state[State.FORMS]) :]

    def counters(self) -> list[Counters]:
        """Return what each form that is accepted now has counted; no call of the entry is made.

        The numbers stand in memory that native calls add to while they hold the GIL: reading them
        costs a microsecond and disturbs nothing.
        """
        return [form.counters() for form in self.forms]

    @property
    def timed(self) -> bool:
        """Whether calls are timed; counting goes on without. Costs about 3 ns a call."""
        return bool(self._state[State.TIMED])

    @timed.setter
    def timed(self, value: bool) -> None:
        self._state[State.TIMED] = int(value)

    def deoptimise_every(self, calls: int) -> None:
        """Send every ``calls``-th call that fits a form to the Python path; 0 for none."""
        self._state[State.EVERY] = calls
        self._state[State.SINCE] = 0

    def divert(self) -> bool:
        """Send the next call that fits a form to the Python path; False where all are counted."""
        if self._state[State.EVERY]:
            return False
        self._diverting = True
        self.deoptimise_every(1)
        return True

    def resume(self) -> bool:
        """End what ``divert`` began; return whether that was so."""
        diverting, self._diverting = self._diverting, False
        if diverting:
            self.deoptimise_every(0)
        return diverting

    def clear(self) -> None:
        """Accept nothing any more.

        What the forms run goes, but for calls that are running without Python's lock: those keep
        it until this is called again. Then the forms go themselves.
        """
        self._state[State.FORMS] = 0
        past = [form for form in self._forms if form.past]
        for form in self._forms:
            form.retire()
        gone = [form for form in past if form.idle]
        self._earlier += sum(form.calls for form in gone)
        self._forms = [form for form in self._forms if form not in gone]

    def watch(self, table: I64Array | None) -> None:
        """Answer only while the rows of ``table`` (``watches.table_of``) hold; None for no rows."""
        self._state[State.WATCHES] = 0 if table is None else table.ctypes.data
        self._state[State.MOVED] = 0
        self._watches = table

    @property
    def moved(self) -> bool:
        """Whether a call came to Python since what ``watch`` was given did not hold."""
        return bool(self._state[State.MOVED])

    def add(
        self,
        executable: Executable,
        slots: Slots,
        result: Result = FIRST_OUTPUT,
        *,
        first: bool = False,
    ) -> NativeForm | None:
        """Accept calls like that of ``slots``; None where only the Python path can serve them.

        With ``first`` before any other form.
        """
        count = int(self._state[State.FORMS])
        if count >= MAX_FORMS:
            return None
        plan = executable.native_plan()
        if plan is None:
            return None
        builder = FormBuilder(plan, slots, result)
        words = builder.words()
        if words is None:
            return None
        return self.add_words(executable, words, builder.kept, first=first)

    def add_words(
        self,
        executable: Executable | None,
        words: I64Array,
        kept: Sequence[Any],
        *,
        first: bool = False,
    ) -> NativeForm | None:
        """Accept calls that fit the form ``words``, which points at what ``kept`` keeps alive.

        ``executable`` is what they run, None where they have calls of their own.
        """
        count = int(self._state[State.FORMS])
        if count >= MAX_FORMS:
            return None
        form, place = NativeForm(executable, words, kept), 0 if first else count
        self._forms.insert(len(self._forms) - count + place, form)
        table = self._state[State.FIRST :]
        # Native code reads the table under Python's lock, which is held here throughout.
        table[place + 1 : count + 1] = table[place:count].copy()
        table[place] = words.ctypes.data
        self._state[State.FORMS] = count + 1
        return form


class FormBuilder:
    """Writes the words of one form."""

    def __init__(self, plan: NativePlan, slots: Slots, result: Result):
        self.plan = plan
        self.args = slots.values
        self.inputs = slots.inputs
        self.result = result
        self.scratch = plan.scratch
        self.layout = slots.layout()
        # What the form points at; of the arguments, those that are compared by identity.
        numbers = (np.ndarray, np.generic, float, complex)
        statics = [a for a in slots.values if not isinstance(a, numbers)]
        self.kept = [plan, result, self.layout, slots.names, slots.boxes, statics]

    def words(self) -> I64Array | None:
        """Return the form; None where the entry's code cannot serve it."""
        listed = self.listed()
        return None if listed is None else np.array(listed, np.int64)

    def listed(self) -> list[Any] | None:
        """Return the words of the form one by one."""
        plan, result = self.plan, self.result
        written = {argument for _, argument in result.writes}
        body = [self.argument(i, i in written) for i in range(len(self.args))]
        writes = [self.write(*write) for write in result.writes]
        if None in body or None in writes or not self._fits():
            return None
        outputs = [self._output(number, buffer) for number, buffer in enumerate(plan.outputs)]
        if self.scratch and not memory.available():
            return None
        single = not result.writes and tuple(result.steps) == FIRST_OUTPUT.steps
        steps = [] if single else [_step(*step) for step in result.steps]
        tables = {
            Form.POINTERS: [self._pointer(*pointer) for pointer in plan.pointers],
            Form.OUTPUTS: outputs,
            Form.APART: [row for argument in sorted(written) for row in self.apart(argument)],
            Form.WRITES: writes,
            Form.STEPS: steps,
        }
        head = [0] * Form.BODY
        head[Form.ARGUMENTS] = len(self.args)
        head[Form.LAYOUT] = 0 if self.layout is None else self.layout.ctypes.data
        head[Form.RECORDS], head[Form.COUNT] = plan.records, plan.calls
        head[Form.POOL] = plan.pool_cell
        head[Form.FAULTS] = plan.faults
        head[Form.LONG] = int(plan.long)
        head[Form.SCRATCH] = self.scratch
        head[Form.LEAST] = _NONE
        head[Form.SAMPLE] = 0 if plan.long else EIGHTH
        words = head + [word for spec in body for word in spec or ()]
        for field, rows in tables.items():
            words[field], words[field + 1] = len(rows), len(words)
            words += [word for row in rows for word in row or ()]
        return words

    def _fits(self) -> bool:
        plan = self.plan
        return (
            len(self.args) <= MAX_SLOTS
            and len(plan.outputs) <= MAX_OUTPUTS
            and len(plan.pointers) <= MAX_POINTERS
            and len(self.result.steps) <= MAX_STEPS
        )

    def _pointer(self, base: int, number: int, offset: int) -> tuple[int, int]:
        if base == Base.ARGUMENT_0:
            number = self.inputs[number]
        return base + number, offset

    def _output(self, number: int, buffer: Buffer) -> tuple[int, ...]:
        """Return an output's specification; what is only written takes part of the scratch."""
        dtype = np.dtype(buffer.dtype.type)
        address = self.place_shape(buffer.shape)
        returned = any(s == Step.PUSH_OUTPUT and n == number for s, n, _ in self.result.steps)
        offset = 0
        if not returned:
            kind, offset = Output.WRITTEN, aligned(self.scratch)
            self.scratch = offset + aligned(buffer.nbytes)
        elif not buffer.shape and self.result.scalars:
            kind = Output.SCALAR
        elif buffer.nbytes and memory.available():
            kind = Output.NEW
        else:
            kind = Output.PLAIN
        return kind, id(dtype), len(buffer.shape), address, buffer.nbytes, offset

    def place_shape(self, shape: Shape) -> Any:
        """Return the address of the sizes of an output."""
        array = np.array(shape, np.int64)
        self.plan.kept.append(array)
        return array.ctypes.data

    def argument(self, number: int, written: bool) -> list[int] | None:
        """Return what the object in slot ``number`` must be."""
        return _argument(self.args[number], written)

    def write(self, output: int, argument: int) -> tuple[int, int, int] | None:
        target, buffer = self.args[argument], self.plan.outputs[output]
        if type(target) is not np.ndarray:
            return None
        array: Array = target
        fits = array.shape == buffer.shape and array.dtype == buffer.dtype
        return (output, argument, buffer.nbytes) if fits and array.flags.c_contiguous else None

    def apart(self, argument: int) -> list[tuple[int, ...]]:
        """Return what must not overlap an argument that is written: all other arrays."""
        written: Array = self.args[argument]
        rows: list[tuple[int, ...]] = []
        for number, other in enumerate(self.args):
            if number != argument and type(other) is np.ndarray:
                array: Array = other
                low, high = byte_bounds(array)
                start = array.ctypes.data
                rows.append((argument, number, low - start, high - start, written.nbytes))
        return rows


def _argument(arg: Any, written: bool) -> list[int] | None:
    if type(arg) is np.ndarray:
        array: Array = arg
        # The form compares dtypes by identity, which only the built-in ones have.
        if array.dtype is not np.dtype(array.dtype.type):
            return None
        axes = [n for pair in zip(array.shape, array.strides, strict=True) for n in pair]
        low = array.dtype.alignment - 1
        flags = _WRITEABLE if written else 0
        return [Argument.ARRAY, id(array.dtype), array.ndim, low, flags, *axes]
    number: object = arg
    if type(arg) in (float, complex) or isinstance(arg, np.generic):
        return [Argument.NUMBER, numpy_api.type_address(number)]
    if arg is OPENED:
        return [Argument.CONTAINER]
    return None if isinstance(arg, np.ndarray) else [Argument.STATIC, id(arg)]


def _step(step: Step, number: int, value: Any) -> tuple[int, int, int]:
    if step == Step.PUSH_OBJECT:
        return step, id(value), 0
    return step, number, id(value) if step == Step.MAKE_DICT else 0
