"""Every reason to trace again, to leave compiled code, or to stay with NumPy: one table.

``stats()``, ``explain``, events and the profiler count and name reasons by these entries only. The
value of an entry is its short name, ``sentence`` says what happens and what a user can do.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """A reason: its short name, which compares equal to the string, and a sentence."""

    sentence: str

    def __new__(cls, name: str, sentence: str) -> Self:
        entry = str.__new__(cls, name)
        entry._value_ = name
        entry.sentence = sentence
        return entry

    # -- no signature fits a call: the function is traced ------------------------------------------
    STRUCTURE = "new argument structure", "other arguments than before, or nested in another way"
    STATIC = "new static value", "a value that is no array and decides what the function does"
    OUTSIDE = (
        "changed outside",
        "a global, an enclosing variable, or an attribute or item of one, which the function reads",
    )
    DTYPE = "new dtype", "an array of another element type"
    RANK = "new rank", "an array with more or fewer axes"
    SHAPE = "new shape", "an array of other sizes; kernels are shared, so it compiles little"
    GUARD = (
        "guard on a size",
        "a size for which the function or the compiler decides otherwise than its plans for ranges "
        "of sizes do",
    )
    LAYOUT = "new memory layout", "an array with other strides, such as a transpose or a slice"
    KIND = (
        "array in place of a scalar, or the reverse",
        "a number stood where there is an array now, or the reverse",
    )
    SETTINGS = "new settings", "another instruction set or other settings are in force"

    # -- compiled code is there and does not answer a call, or not this form of it -----------------
    ALIASING = (
        "overlapping arguments",
        "an argument that is written shares memory with another one, so the Python function "
        "itself runs",
    )
    READ_ONLY = (
        "read-only argument",
        "an argument that the function assigns to cannot be written; NumPy's error is raised",
    )
    ALIGNMENT = (
        "unaligned argument",
        "an array's elements do not start at multiples of their size, or have another byte "
        "order; the kernels get a copy",
    )
    SIZES = (
        "sizes of specialised code",
        "code with constant sizes is there for other sizes; the size-generic kernels answer",
    )

    # -- a specialisation ends, or does not begin --------------------------------------------------
    SELDOM = (
        "specialised sizes became rare",
        "nearly all calls have other sizes by now, so the specialised code was given back",
    )
    NOT_FASTER = (
        "specialised code was no faster",
        "measured by the calls themselves, constant sizes gained less than they must",
    )
    NOT_SPECIALISED = (
        "specialised code could not be made",
        "the compiler refused it or crashed; the size-generic kernels go on",
    )

    # -- NumPy answers -----------------------------------------------------------------------------
    COMPILE_ERROR = "compile error", "the code generator or LLVM failed, which is a bug of tracejit"
    WORKER_CRASH = "compiler crash", "LLVM crashed on a kernel, in a process of its own"
    MEMORY = "no memory for code", "the system gives no memory, or none that may be executed"
    MISTAKE = "error in the program", "compiling found a mistake that running the program raises"
    STANCE = "stance", "set_stance says that NumPy answers"
    MODE = "compile mode", 'the function, or the process, has compile="never"'
    DISABLED = "disabled", "TRACEJIT_DISABLE_JIT is set"
    PENDING = "kernels are being made", "they are compiled in the background, or wait for a turn"
    NOT_WORTH = "not worth compiling yet", "making kernels is expected to cost more than it saves"
    NOTHING = "nothing to compute", "the function returns no computed array"

    @property
    def traces(self) -> bool:
        """Whether a call with this reason is traced; else it is answered another way."""
        return self in _TRACED


_TRACED = frozenset(
    (
        Reason.STRUCTURE, Reason.STATIC, Reason.DTYPE, Reason.RANK, Reason.SHAPE, Reason.GUARD,
        Reason.LAYOUT, Reason.KIND, Reason.SETTINGS, Reason.OUTSIDE,
    )
)  # fmt: skip
