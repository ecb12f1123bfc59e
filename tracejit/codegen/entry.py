"""The native entry: the C function behind a jitted function.

``entry`` has CPython's ``METH_FASTCALL | METH_KEYWORDS`` signature. It compares the arguments with
the *forms* that were compiled (a type, dtype, rank, sizes and strides per array; equality by
identity for static values), allocates the output, fills in addresses, and calls the driver. Any
argument that fits no form goes to the Python path, which knows every case; so this code only has
to be right about what it accepts.

A form is a block of i64 (``Form`` and what follows it), the same code reads all of them: nothing
is compiled for a new signature. The layouts of ``ndarray``, ``tuple`` and ``float`` objects that
it relies on are those of the stable builds it is enabled for (``runtime/entry.py`` checks).
"""

from __future__ import annotations

from enum import IntEnum

ENTRY = "entry"
MAX_FORMS = 8


class State(IntEnum):
    """A function's state, in i64, ending in the addresses of its forms."""

    FORMS = 0  # how many
    TIMED = 1  # whether calls are timed, and not only counted
    EVERY = 2  # send every n-th call that fits a form to the Python path; 0 for none
    SINCE = 3  # such calls since the last one
    FIRST = 4


class Form(IntEnum):
    """The head of a form, in i64. ``ARENA`` is 0 while a call has it."""

    ARGUMENTS = 0  # how many
    POINTERS = 1  # how many
    RECORDS = 2
    COUNT = 3
    POOL = 4  # address of the cell with the pool's address, or 0
    ARENA = 5
    NEEDS_ARENA = 6
    LONG = 7  # let other Python threads run meanwhile
    DTYPE = 8  # of the output
    RANK = 9
    SHAPE = 10  # address of the output's sizes
    ADDRESSES = 11  # offset (i64) of the pointer specifications in the form
    LARGE = 12  # whether the output's memory is recycled
    POISON = 13  # bytes of the arena to overwrite before use (a stress test)
    CALLS = 14  # calls that this form has answered
    TICKS = 15  # their time together, in ticks of the processor's counter
    LAST = 16  # the counter at the end of the newest
    BODY = 17  # the argument specifications


class Argument(IntEnum):
    """An argument specification starts with its kind."""

    ARRAY = 0  # kind, dtype, rank, alignment − 1, then size and stride by axis
    FLOAT = 1  # kind
    STATIC = 2  # kind, object


class Address(IntEnum):
    """A pointer specification: kind, number, offset."""

    FIXED = 0
    ARGUMENT = 1
    OUTPUT = 2
    ARENA = 3


_TEXT = r"""
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
{DRIVER_TEXT}

define internal void @add(ptr %block, i64 %index, i64 %amount) alwaysinline {
  %address = getelementptr i64, ptr %block, i64 %index
  %old = load i64, ptr %address
  %new = add i64 %old, %amount
  store i64 %new, ptr %address
  ret void
}

define internal i64 @slot(ptr %block, i64 %index) alwaysinline {
  %address = getelementptr i64, ptr %block, i64 %index
  %value = load i64, ptr %address
  ret i64 %value
}

define internal i64 @word(ptr %object, i64 %offset) alwaysinline {
  %address = getelementptr i8, ptr %object, i64 %offset
  %value = load i64, ptr %address
  ret i64 %value
}

; Whether the arguments fit a form; their data addresses go to %data.
define internal i1 @fits(ptr %form, ptr %args, i64 %nargs, ptr %data) {
entry:
  %wanted = call i64 @slot(ptr %form, i64 {ARGUMENTS})
  %count.ok = icmp eq i64 %wanted, %nargs
  br i1 %count.ok, label %head, label %no
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %array.ok ], [ %i.next, %float.ok ], [ %i.next, %same ]
  %at = phi i64 [ {BODY}, %entry ], [ %at.array, %array.ok ],
                [ %at.float, %float.ok ], [ %at.static, %same ]
  %more = icmp slt i64 %i, %nargs
  br i1 %more, label %body, label %yes
body:
  %i.next = add i64 %i, 1
  %arg.at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg.at
  %data.at = getelementptr i64, ptr %data, i64 %i
  %spec = getelementptr i64, ptr %form, i64 %at
  %kind = load i64, ptr %spec
  switch i64 %kind, label %no [ i64 {ARRAY}, label %array
                                i64 {FLOAT}, label %float
                                i64 {STATIC}, label %static ]
static:
  %object = call i64 @slot(ptr %spec, i64 1)
  %arg.i = ptrtoint ptr %arg to i64
  %is = icmp eq i64 %object, %arg.i
  %at.static = add i64 %at, 2
  br i1 %is, label %same, label %no
same:
  store i64 0, ptr %data.at
  br label %head
float:
  %ftype = call i64 @word(ptr %arg, i64 8)
  %isfloat = icmp eq i64 %ftype, {FLOAT_TYPE}
  %at.float = add i64 %at, 1
  br i1 %isfloat, label %float.ok, label %no
float.ok:
  ; The value stands in the object; kernels read it there.
  %value.at = getelementptr i8, ptr %arg, i64 16
  %value.i = ptrtoint ptr %value.at to i64
  store i64 %value.i, ptr %data.at
  br label %head
array:
  %type = call i64 @word(ptr %arg, i64 8)
  %type.ok = icmp eq i64 %type, {ARRAY_TYPE}
  br i1 %type.ok, label %array.1, label %no
array.1:
  %dtype = call i64 @word(ptr %arg, i64 56)
  %dtype.want = call i64 @slot(ptr %spec, i64 1)
  %dtype.ok = icmp eq i64 %dtype, %dtype.want
  %rank.at = getelementptr i8, ptr %arg, i64 24
  %rank.32 = load i32, ptr %rank.at
  %rank = sext i32 %rank.32 to i64
  %rank.want = call i64 @slot(ptr %spec, i64 2)
  %rank.ok = icmp eq i64 %rank, %rank.want
  %address = call i64 @word(ptr %arg, i64 16)
  %low.mask = call i64 @slot(ptr %spec, i64 3)
  %low = and i64 %address, %low.mask
  %aligned = icmp eq i64 %low, 0
  %ok.1 = and i1 %dtype.ok, %rank.ok
  %ok.2 = and i1 %ok.1, %aligned
  store i64 %address, ptr %data.at
  br i1 %ok.2, label %array.2, label %no
array.2:
  %sizes.i = call i64 @word(ptr %arg, i64 32)
  %sizes = inttoptr i64 %sizes.i to ptr
  %strides.i = call i64 @word(ptr %arg, i64 40)
  %strides = inttoptr i64 %strides.i to ptr
  %axes = getelementptr i64, ptr %spec, i64 4
  br label %axis
axis:
  %a = phi i64 [ 0, %array.2 ], [ %a.next, %axis.1 ]
  %axis.more = icmp slt i64 %a, %rank
  br i1 %axis.more, label %axis.1, label %array.ok
axis.1:
  %a.next = add i64 %a, 1
  %size = call i64 @slot(ptr %sizes, i64 %a)
  %stride = call i64 @slot(ptr %strides, i64 %a)
  %two = mul i64 %a, 2
  %two.1 = add i64 %two, 1
  %size.want = call i64 @slot(ptr %axes, i64 %two)
  %stride.want = call i64 @slot(ptr %axes, i64 %two.1)
  %size.ok = icmp eq i64 %size, %size.want
  %stride.ok = icmp eq i64 %stride, %stride.want
  %axis.ok = and i1 %size.ok, %stride.ok
  br i1 %axis.ok, label %axis, label %no
array.ok:
  %used = mul i64 %rank, 2
  %used.4 = add i64 %used, 4
  %at.array = add i64 %at, %used.4
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

; Run a form on data addresses; a new reference to the output, or null with an exception set.
define internal ptr @execute(ptr %form, ptr %data, i64 %arena) {
entry:
  %dtype.i = call i64 @slot(ptr %form, i64 {DTYPE})
  %dtype = inttoptr i64 %dtype.i to ptr
  %rank = call i64 @slot(ptr %form, i64 {RANK})
  %rank.32 = trunc i64 %rank to i32
  %shape.i = call i64 @slot(ptr %form, i64 {SHAPE})
  %shape = inttoptr i64 %shape.i to ptr
  %large = call i64 @slot(ptr %form, i64 {LARGE})
  %recycle = icmp ne i64 %large, 0
  br i1 %recycle, label %pooled.memory, label %usual.memory
pooled.memory:
  %make = inttoptr i64 {MAKE_ARRAY} to ptr
  %big = call ptr %make(i32 %rank.32, ptr %shape, ptr %dtype, i64 1)
  br label %made
usual.memory:
  call void @Py_IncRef(ptr %dtype)
  %empty = inttoptr i64 {PYARRAY_EMPTY} to ptr
  %small = call ptr %empty(i32 %rank.32, ptr %shape, ptr %dtype, i32 0)
  br label %made
made:
  %output = phi ptr [ %big, %pooled.memory ], [ %small, %usual.memory ]
  %failed = icmp eq ptr %output, null
  br i1 %failed, label %error, label %fill
error:
  ret ptr null
fill:
  %result = call i64 @word(ptr %output, i64 16)
  %count = call i64 @slot(ptr %form, i64 {POINTERS})
  %table = alloca i64, i64 %count, align 16
  %first = call i64 @slot(ptr %form, i64 {ADDRESSES})
  %specs = getelementptr i64, ptr %form, i64 %first
  br label %head
head:
  %i = phi i64 [ 0, %fill ], [ %i.next, %place ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %run
body:
  %i.next = add i64 %i, 1
  %three = mul i64 %i, 3
  %spec = getelementptr i64, ptr %specs, i64 %three
  %kind = load i64, ptr %spec
  %number = call i64 @slot(ptr %spec, i64 1)
  %offset = call i64 @slot(ptr %spec, i64 2)
  switch i64 %kind, label %place [ i64 {ARGUMENT}, label %argument
                                   i64 {OUTPUT}, label %out
                                   i64 {ARENA_KIND}, label %temporary ]
argument:
  %given = call i64 @slot(ptr %data, i64 %number)
  br label %place
out:
  br label %place
temporary:
  br label %place
place:
  %base = phi i64 [ 0, %body ], [ %given, %argument ], [ %result, %out ], [ %arena, %temporary ]
  %address = add i64 %base, %offset
  %at = getelementptr i64, ptr %table, i64 %i
  store i64 %address, ptr %at
  br label %head
run:
  %records.i = call i64 @slot(ptr %form, i64 {RECORDS})
  %records = inttoptr i64 %records.i to ptr
  %n = call i64 @slot(ptr %form, i64 {COUNT})
  %cell.i = call i64 @slot(ptr %form, i64 {POOL})
  %shared = icmp ne i64 %cell.i, 0
  br i1 %shared, label %pooled, label %ready
pooled:
  %cell = inttoptr i64 %cell.i to ptr
  %pool.i = load i64, ptr %cell
  br label %ready
ready:
  %p = phi i64 [ 0, %run ], [ %pool.i, %pooled ]
  %pool = inttoptr i64 %p to ptr
  %long = call i64 @slot(ptr %form, i64 {LONG})
  %is.long = icmp ne i64 %long, 0
  br i1 %is.long, label %released, label %held
held:
  call void @driver(ptr %records, i64 %n, ptr %table, ptr %pool)
  ret ptr %output
released:
  %thread = call ptr @PyEval_SaveThread()
  call void @driver(ptr %records, i64 %n, ptr %table, ptr %pool)
  call void @PyEval_RestoreThread(ptr %thread)
  ret ptr %output
}

; %self is the tuple (state array, Python path).
define ptr @entry(ptr %self, ptr %args, i64 %nargs, ptr %names) {
start:
  %fallback.i = call i64 @word(ptr %self, i64 32)
  %fallback = inttoptr i64 %fallback.i to ptr
  %gate = load i64, ptr inttoptr (i64 {GATE} to ptr)
  %open = icmp eq i64 %gate, 0
  %plain = icmp eq ptr %names, null
  %few = icmp ule i64 %nargs, 16
  %ok.1 = and i1 %open, %plain
  %ok = and i1 %ok.1, %few
  br i1 %ok, label %begin, label %python
begin:
  %data = alloca [16 x i64], align 16
  %array.i = call i64 @word(ptr %self, i64 24)
  %array = inttoptr i64 %array.i to ptr
  %state.i = call i64 @word(ptr %array, i64 16)
  %state = inttoptr i64 %state.i to ptr
  %forms = call i64 @slot(ptr %state, i64 {FORMS})
  br label %head
head:
  %i = phi i64 [ 0, %begin ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %forms
  br i1 %more, label %try, label %python
try:
  %index = add i64 %i, {FIRST}
  %form.i = call i64 @slot(ptr %state, i64 %index)
  %form = inttoptr i64 %form.i to ptr
  %fit = call i1 @fits(ptr %form, ptr %args, i64 %nargs, ptr %data)
  br i1 %fit, label %found, label %next
next:
  %i.next = add i64 %i, 1
  br label %head
found:
  %every = call i64 @slot(ptr %state, i64 {EVERY})
  %stressed = icmp ne i64 %every, 0
  br i1 %stressed, label %stress, label %enter
stress:
  %since = call i64 @slot(ptr %state, i64 {SINCE})
  %since.1 = add i64 %since, 1
  %due = icmp sge i64 %since.1, %every
  %since.2 = select i1 %due, i64 0, i64 %since.1
  %since.at = getelementptr i64, ptr %state, i64 {SINCE}
  store i64 %since.2, ptr %since.at
  br i1 %due, label %python, label %enter
enter:
  %needs = call i64 @slot(ptr %form, i64 {NEEDS_ARENA})
  %has.arena = icmp ne i64 %needs, 0
  br i1 %has.arena, label %take, label %go
take:
  %arena.at = getelementptr i64, ptr %form, i64 {ARENA}
  %taken = atomicrmw xchg ptr %arena.at, i64 0 acq_rel, align 8
  %got = icmp ne i64 %taken, 0
  br i1 %got, label %filled, label %python
filled:
  %poison = call i64 @slot(ptr %form, i64 {POISON})
  %block = inttoptr i64 %taken to ptr
  call void @llvm.memset.p0.i64(ptr %block, i8 -1, i64 %poison, i1 false)
  br label %go
go:
  %arena = phi i64 [ 0, %enter ], [ %taken, %filled ]
  call void @add(ptr %form, i64 {CALLS}, i64 1)
  %timed.i = call i64 @slot(ptr %state, i64 {TIMED})
  %timed = icmp ne i64 %timed.i, 0
  br i1 %timed, label %stamp, label %run
stamp:
  %started = call i64 @ticks()
  br label %run
run:
  %begun = phi i64 [ 0, %go ], [ %started, %stamp ]
  %output = call ptr @execute(ptr %form, ptr %data, i64 %arena)
  br i1 %timed, label %measure, label %ran
measure:
  %now = call i64 @ticks()
  %took = sub i64 %now, %begun
  call void @add(ptr %form, i64 {TICKS}, i64 %took)
  %last.at = getelementptr i64, ptr %form, i64 {LAST}
  store i64 %now, ptr %last.at
  br label %ran
ran:
  br i1 %has.arena, label %give, label %done
give:
  %arena.at.2 = getelementptr i64, ptr %form, i64 {ARENA}
  store atomic i64 %arena, ptr %arena.at.2 release, align 8
  br label %done
done:
  ret ptr %output
python:
  %answer = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr %names)
  ret ptr %answer
}
"""


def emit_entry(
    driver: str, array_type: int, float_type: int, empty: int, make_array: int, gate: int
) -> str:
    """Return the module with ``entry``.

    ``driver`` is the driver's own text; ``array_type`` and ``float_type`` the addresses of the
    type objects; ``empty`` that of NumPy's ``PyArray_Empty``, ``make_array`` that of the recycling
    one; ``gate`` that of the cell which is not zero while every call must take the Python path.
    """
    words = {s.name: int(s) for e in (State, Form, Argument) for s in e}
    words |= {"ARGUMENT": int(Address.ARGUMENT), "OUTPUT": int(Address.OUTPUT)}
    words |= {
        "ARENA_KIND": int(Address.ARENA),
        "GATE": gate,
        "PYARRAY_EMPTY": empty,
        "MAKE_ARRAY": make_array,
    }
    words |= {"ARRAY_TYPE": array_type, "FLOAT_TYPE": float_type}
    text = _TEXT
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    return text.replace("{DRIVER_TEXT}", driver)
