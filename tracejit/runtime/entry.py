"""Native entries: jitted functions that are C functions.

A ``NativeEntry`` owns the C function of one jitted function and the forms it accepts. It exists
where the interpreter and NumPy have the object layouts that the code relies on; elsewhere, and
for everything unusual, calls take the Python path.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import sysconfig
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tracejit import config, gate
from tracejit.codegen.driver import emit_driver
from tracejit.codegen.entry import ENTRY, MAX_FORMS, Address, Argument, Form, State, emit_entry
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import LEVELS
from tracejit.ops.table import Array
from tracejit.runtime import memory, numpy_api, ticks
from tracejit.runtime.executable import Executable, NativePlan
from tracejit.runtime.loader import LoadedObject

_FASTCALL_KEYWORDS = 0x80 | 0x02
MAX_ARGUMENTS = 16
MAX_POINTERS = 64

I64Array = np.ndarray[Any, np.dtype[np.int64]]


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@lru_cache(maxsize=1)
def supported() -> bool:
    """Whether this interpreter and NumPy are laid out as the entry's code expects."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount"):
        return False
    probe = np.zeros((3, 5), np.float32)
    base = id(probe)

    def word(offset: int) -> int:
        return ctypes.c_int64.from_address(base + offset).value

    strides = ctypes.c_int64.from_address(word(40)).value
    return (
        word(8) == id(np.ndarray)
        and word(16) == probe.ctypes.data
        and ctypes.c_int.from_address(base + 24).value == 2
        and ctypes.c_int64.from_address(word(32)).value == 3
        and strides == 20
        and word(56) == id(probe.dtype)
        and ctypes.c_double.from_address(id(1.5) + 16).value == 1.5
    )


@lru_cache(maxsize=1)
def _code() -> LoadedObject:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    text = emit_entry(
        emit_driver(x86),
        id(np.ndarray),
        id(float),
        numpy_api.address(numpy_api.PYARRAY_EMPTY),
        memory.pool().make_array if memory.available() else 0,
        gate.address(),
    )
    return LoadedObject(compile_object(text, LEVELS["generic"], 2), (ENTRY,))


class Counters(NamedTuple):
    """What one form has counted: calls, their time in ticks (inclusive), the end of the newest.

    A tick is ``ticks.seconds_per_tick()`` long.
    """

    form: NativeForm
    calls: int
    ticks: int
    last: int


class NativeForm:
    """One accepted signature: the executable that answers it, and its words in memory."""

    def __init__(self, executable: Executable, words: I64Array):
        self.executable = executable
        self.words = words

    @property
    def calls(self) -> int:
        """How many calls it has answered."""
        return int(self.words[Form.CALLS])

    def counters(self) -> Counters:
        """Return calls, ticks and the stamp of the newest call."""
        calls, taken, last = self.words[Form.CALLS : Form.LAST + 1].tolist()
        return Counters(self, calls, taken, last)


class NativeEntry:
    """The C function of one jitted function. ``function`` is what callers call."""

    def __init__(self, name: str, fallback: Callable[..., Any]):
        self._state: I64Array = np.zeros(State.FIRST + MAX_FORMS, np.int64)
        self._state[State.TIMED] = 1
        self._state[State.EVERY] = config.stress_deopt()
        self._forms: list[NativeForm] = []
        self._kept: list[Any] = []
        ticks.start()
        self._definition = _MethodDef(
            name.encode(), _code().address(ENTRY), _FASTCALL_KEYWORDS, None
        )
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype = ctypes.py_object
        make.argtypes = (ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.py_object)
        # The tuple keeps state, Python path and this object alive as long as the function lives.
        own = (self._state, fallback, self)
        self.function: Callable[..., Any] = make(ctypes.byref(self._definition), own, None)

    @property
    def calls(self) -> int:
        """How many calls were answered without Python, by this and earlier sets of forms."""
        return sum(form.calls for form in self._forms)

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
        """Whether calls are timed; counting goes on without. Costs about 20 ns a call."""
        return bool(self._state[State.TIMED])

    @timed.setter
    def timed(self, value: bool) -> None:
        self._state[State.TIMED] = int(value)

    def deoptimise_every(self, calls: int) -> None:
        """Send every ``calls``-th call that fits a form to the Python path; 0 for none."""
        self._state[State.EVERY] = calls
        self._state[State.SINCE] = 0

    def clear(self) -> None:
        """Accept nothing any more; memory of old forms stays until the function dies."""
        self._state[State.FORMS] = 0

    def add(
        self, executable: Executable, args: Sequence[Any], inputs: Sequence[int]
    ) -> NativeForm | None:
        """Accept calls like ``args``; None where only the Python path can serve them.

        ``inputs`` says which argument is each of the executable's inputs.
        """
        plan = executable.native_plan()
        count = int(self._state[State.FORMS])
        if plan is None or count >= MAX_FORMS or len(args) > MAX_ARGUMENTS:
            return None
        if len(plan.pointers) > MAX_POINTERS:
            return None
        form = _form(plan, args, inputs)
        if form is None:
            return None
        self._kept += [plan, args_statics(args)]
        self._forms.append(NativeForm(executable, form))
        self._state[State.FIRST + count] = form.ctypes.data
        self._state[State.FORMS] = count + 1
        return self._forms[-1]


def args_statics(args: Sequence[Any]) -> list[Any]:
    """Return the arguments that are compared by identity, to keep them alive."""
    return [a for a in args if not isinstance(a, np.ndarray | float)]


def _form(plan: NativePlan, args: Sequence[Any], inputs: Sequence[int]) -> I64Array | None:
    body: list[int] = []
    for arg in args:
        spec = _argument(arg)
        if spec is None:
            return None
        body += spec
    pointers: list[int] = []
    for kind, number, offset in plan.pointers:
        if kind == Address.ARGUMENT:
            number = inputs[number]
        pointers += (kind, number, offset)
    head = [0] * Form.BODY
    head[Form.ARGUMENTS] = len(args)
    head[Form.POINTERS] = len(plan.pointers)
    head[Form.RECORDS] = plan.records
    head[Form.COUNT] = plan.calls
    head[Form.POOL] = plan.pool_cell
    head[Form.ARENA] = plan.arena.ctypes.data if plan.arena is not None else 0
    head[Form.NEEDS_ARENA] = int(plan.arena is not None)
    if plan.arena is not None and config.stress_poison():
        head[Form.POISON] = plan.arena.nbytes
    head[Form.LONG] = int(plan.long)
    large = prod(plan.shape.tolist()) * plan.dtype.itemsize >= memory.LARGE
    head[Form.LARGE] = int((large or config.stress_poison()) and memory.available())
    head[Form.DTYPE] = id(plan.dtype)
    head[Form.RANK] = len(plan.shape)
    head[Form.SHAPE] = plan.shape.ctypes.data
    head[Form.ADDRESSES] = Form.BODY + len(body)
    return np.array([*head, *body, *pointers], np.int64)


def _argument(arg: Any) -> list[int] | None:
    if type(arg) is np.ndarray:
        array: Array = arg
        # The form compares dtypes by identity, which only the built-in ones have.
        if array.dtype is not np.dtype(array.dtype.type):
            return None
        axes = [n for pair in zip(array.shape, array.strides, strict=True) for n in pair]
        low = array.dtype.alignment - 1
        return [Argument.ARRAY, id(array.dtype), array.ndim, low, *axes]
    if type(arg) is float:
        return [Argument.FLOAT]
    if arg is None or type(arg) in (bool, int, str):
        return [Argument.STATIC, id(arg)]
    return None
