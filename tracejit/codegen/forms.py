"""Forms: what a native entry accepts, and how it answers, as blocks of i64.

Python writes a form for each signature (``runtime/entry.py``) and generated code reads it
(``codegen/entry.py``, ``codegen/answer.py``). A form is data, so that a new signature compiles
nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from tracejit.codegen.words import Words

# The entry's functions.
ENTRY = "entry"
# The same for a call that comes through the slot of a type: see ``codegen/entry.py``.
VECTOR = "vector"

MAX_FORMS = 16
MAX_SLOTS = 256  # arguments, and what containers among them hold
MAX_OUTPUTS = 64
MAX_POINTERS = 2048  # of 8 bytes each, on the stack
# So many calls of a form are all timed; after them, where calls are short, every eighth.
ALL_TIMED = 64
EIGHTH = 7
# Steps of the program that puts a result together; its stack is never higher.
MAX_STEPS = 256


class State(Words):
    """A function's state, in i64, ending in the addresses of its forms."""

    FORMS = 0  # how many
    TIMED = 1  # whether calls are timed, and not only counted
    EVERY = 2  # send every n-th call that fits a form to the Python path; 0 for none
    SINCE = 3  # such calls since the last one
    WATCHES = 4  # address of the number of rows and the rows of ``runtime/watches.py``, or 0
    MOVED = 5  # set when one of these did not hold
    FIRST = 6


WATCH = 3  # i64 in a row: (address, mask, word)


class Form(Words):
    """The head of a form, in i64. Counts, and offsets (in i64, from the form) of its tables."""

    ARGUMENTS = 0  # how many slots
    RECORDS = 1  # address of the driver's records
    COUNT = 2
    POOL = 3  # address of the cell with the thread pool's address, 0 where none is wanted
    LONG = 4  # let other Python threads run meanwhile
    SCRATCH = 5  # bytes of the arena, workspaces, and values on their way into arguments
    POINTERS = 6
    POINTERS_AT = 7
    OUTPUTS = 8
    OUTPUTS_AT = 9
    APART = 10
    APART_AT = 11
    WRITES = 12
    WRITES_AT = 13
    STEPS = 14  # 0: the result is output 0
    STEPS_AT = 15
    CALLS = 16  # calls that this form has begun to answer
    ENDED = 17  # those that have ended
    TIMED_CALLS = 18  # those that were timed
    TICKS = 19  # the time of these together, in ticks of the processor's counter
    LEAST = 20  # the shortest of them since this word was set
    LAST = 21  # the counter at the end of the newest
    SAMPLE = 22  # after the first calls, those are timed whose number has none of these bits
    FAULTS = 23  # address of the counter of positions out of range, 0 where there is none
    PROGRAM = 24  # address of what adapts a copy of the form to the sizes of a call, or 0
    LENGTH = 25  # i64 in the form
    LAYOUT = (
        26  # address of the layout of containers and keywords, or 0: the slots are the arguments
    )
    BODY = 27  # the argument specifications


class Argument(IntEnum):
    """An argument specification starts with its kind."""

    # kind, dtype, rank, alignment − 1, flags it must have, then size, stride by axis, or ANY
    ARRAY = 0
    NUMBER = 1  # kind, type; the value stands in the object
    STATIC = 2  # kind, object
    CONTAINER = 3  # kind; the layout says which


class Layout(Words):
    """How the slots of a call follow from its arguments, in i64; then a row for each container."""

    POSITIONAL = 0  # how many arguments
    NAMES = 1  # address of the tuple of keywords, or 0
    GIVEN_SLOTS = 2  # arguments and keywords
    CONTAINERS = 3  # how many
    ROWS = 4


class Container(Words):
    """A row of a layout; what the container holds takes the next free slots."""

    SLOT = 0
    KIND = 1  # of ``Holds``
    TYPE = 2  # address
    LENGTH_OF = 3
    KEYS = 4  # address of a tuple of keys or names of attributes, or 0
    CONTAINER_WORDS = 5


class Holds(IntEnum):
    """The kinds of containers."""

    TUPLE = 0
    LIST = 1
    DICT = 2
    OBJECT = 3


class Sheet(Words):
    """The slots of one call, in i64."""

    LAID_OUT = 0  # address of the layout that it was filled for, or 0
    GIVEN = 1  # slots of the caller's arguments: no references of ours
    FILLED = 2
    SLOTS = 3


ANY = -(1 << 62)  # in place of a size or stride


class Bind(Words):
    """An instruction (op, a, b, c) of a form's program.

    Those of ``sizes.Op`` put op(a, b) into number c; where they test, they refuse the call. A
    program is: how many instructions, how many numbers, the numbers (the constants among them
    set), the instructions.
    """

    SIZE = 9  # number c is the size of the array in slot a along axis b
    STRIDE = 10  # number c, the bytes of an element, becomes its stride along b, in elements
    STORE = 11  # word b of the form is number a
    HERE = 12  # word b of the form is the address of its word a
    NOTE = 13  # word b of the form itself, not of the copy, is number a


INSTRUCTION = 4


class Base(Words):
    """What pointers are relative to. A pointer specification is (base, byte offset)."""

    FIXED = 0
    SCRATCH_BASE = 1
    ARGUMENT_0 = 2
    OUTPUT_0 = 2 + MAX_SLOTS
    BASES = 2 + MAX_SLOTS + MAX_OUTPUTS


class Output(IntEnum):
    """An output specification: (kind, dtype, rank, address of the sizes, bytes, offset)."""

    NEW = 0  # an array with recycled memory
    PLAIN = 1  # an array as NumPy makes it
    SCALAR = 2  # rank 0: a NumPy scalar
    WRITTEN = 3  # at an offset of the scratch memory, for an argument only


OUTPUT = 6  # i64 in an output specification
# (argument, other argument, its first and last byte, bytes of the first): must not overlap.
APART_WORDS = 5
WRITE = 3  # (output, argument, bytes)


class Step(IntEnum):
    """A step of the program that puts the result together: (step, what, keys)."""

    PUSH_OUTPUT = 0
    PUSH_ARGUMENT = 1
    PUSH_OBJECT = 2
    MAKE_TUPLE = 3  # of the topmost n
    MAKE_LIST = 4
    MAKE_DICT = 5  # with a tuple of keys


STEP = 3


class Addresses(NamedTuple):
    """What the entry's code imports: addresses of objects, functions and cells."""

    array_type: int
    pyarray_empty: int
    pyarray_scalar: int
    make_array: int  # of the recycling allocator, as the next three; 0 where there is none
    pool_malloc: int
    pool_free: int
    refuse: int
    gate: int  # the cell that is not zero while every call must take the Python path
    watched: int  # two cells: the thread whose time is wanted, or 0, and the ticks of its calls
