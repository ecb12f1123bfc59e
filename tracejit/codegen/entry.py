"""The native entry: the C function behind a jitted function.

``entry`` has CPython's ``METH_FASTCALL | METH_KEYWORDS`` signature. It compares the arguments with
the *forms* that were compiled (a type, dtype, rank, sizes and strides per array; equality by
identity for static values), allocates the outputs, fills in addresses, calls the driver, and puts
the result together. Any argument that fits no form goes to the Python path, which knows every
case; so this code only has to be right about what it accepts.

A form is a block of i64 (``Form`` and what follows it), the same code reads all of them: nothing
is compiled for a new signature. The layouts of ``ndarray``, ``tuple``, ``list`` and ``float``
objects that it relies on are those of the stable builds it is enabled for (``runtime/entry.py``
checks).

Everything here runs with the GIL, but for the driver in a form that is LONG. Such a run comes back
now and then to ask for signals (Ctrl-C), between two kernels. The scratch memory of a call is its
own: concurrent calls of one form never share any.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

ENTRY = "entry"
MAX_FORMS = 8
MAX_ARGUMENTS = 16
MAX_OUTPUTS = 16
MAX_POINTERS = 256
# Steps of the program that puts a result together; its stack is never higher.
MAX_STEPS = 64


class State(IntEnum):
    """A function's state, in i64, ending in the addresses of its forms."""

    FORMS = 0  # how many
    TIMED = 1  # whether calls are timed, and not only counted
    EVERY = 2  # send every n-th call that fits a form to the Python path; 0 for none
    SINCE = 3  # such calls since the last one
    FIRST = 4


class Form(IntEnum):
    """The head of a form, in i64. Counts, and offsets (in i64, from the form) of its tables."""

    ARGUMENTS = 0  # how many
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
    CALLS = 16  # calls that this form has answered
    TICKS = 17  # their time together, in ticks of the processor's counter
    LAST = 18  # the counter at the end of the newest
    BODY = 19  # the argument specifications


class Argument(IntEnum):
    """An argument specification starts with its kind."""

    ARRAY = 0  # kind, dtype, rank, alignment − 1, flags it must have, then size, stride by axis
    NUMBER = 1  # kind, type; the value stands in the object
    STATIC = 2  # kind, object


class Base(IntEnum):
    """What pointers are relative to. A pointer specification is (base, byte offset)."""

    FIXED = 0
    SCRATCH_BASE = 1
    ARGUMENT_0 = 2
    OUTPUT_0 = 2 + MAX_ARGUMENTS
    BASES = 2 + MAX_ARGUMENTS + MAX_OUTPUTS


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


_TEXT = r"""
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyErr_CheckSignals()
declare ptr @PyTuple_New(i64)
declare ptr @PyList_New(i64)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
{DRIVER_TEXT}

define internal i64 @slot(ptr %block, i64 %index) alwaysinline {
  %address = getelementptr i64, ptr %block, i64 %index
  %value = load i64, ptr %address
  ret i64 %value
}

define internal void @put(ptr %block, i64 %index, i64 %value) alwaysinline {
  %address = getelementptr i64, ptr %block, i64 %index
  store i64 %value, ptr %address
  ret void
}

define internal void @add(ptr %block, i64 %index, i64 %amount) alwaysinline {
  %old = call i64 @slot(ptr %block, i64 %index)
  %new = add i64 %old, %amount
  call void @put(ptr %block, i64 %index, i64 %new)
  ret void
}

; Entry %i of the form's table whose offset stands at %field, of %words an entry.
define internal ptr @row(ptr %form, i64 %field, i64 %i, i64 %words) alwaysinline {
  %offset = call i64 @slot(ptr %form, i64 %field)
  %before = mul i64 %i, %words
  %at = add i64 %offset, %before
  %row = getelementptr i64, ptr %form, i64 %at
  ret ptr %row
}

define internal i64 @word(ptr %object, i64 %offset) alwaysinline {
  %address = getelementptr i8, ptr %object, i64 %offset
  %value = load i64, ptr %address
  ret i64 %value
}

define internal ptr @pointer(ptr %object, i64 %offset) alwaysinline {
  %address = getelementptr i8, ptr %object, i64 %offset
  %value = load ptr, ptr %address
  ret ptr %value
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
                                i64 {NUMBER}, label %float
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
  %ftype.want = call i64 @slot(ptr %spec, i64 1)
  %isfloat = icmp eq i64 %ftype, %ftype.want
  %at.float = add i64 %at, 2
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
  %flags.at = getelementptr i8, ptr %arg, i64 64
  %flags.32 = load i32, ptr %flags.at
  %flags = sext i32 %flags.32 to i64
  %flags.want = call i64 @slot(ptr %spec, i64 4)
  %flags.has = and i64 %flags, %flags.want
  %flags.ok = icmp eq i64 %flags.has, %flags.want
  %ok.0 = and i1 %dtype.ok, %rank.ok
  %ok.1 = and i1 %ok.0, %flags.ok
  %ok.2 = and i1 %ok.1, %aligned
  store i64 %address, ptr %data.at
  br i1 %ok.2, label %array.2, label %no
array.2:
  %sizes.i = call i64 @word(ptr %arg, i64 32)
  %sizes = inttoptr i64 %sizes.i to ptr
  %strides.i = call i64 @word(ptr %arg, i64 40)
  %strides = inttoptr i64 %strides.i to ptr
  %axes = getelementptr i64, ptr %spec, i64 5
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
  %used.5 = add i64 %used, 5
  %at.array = add i64 %at, %used.5
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

; Whether no argument that is written overlaps another.
define internal i1 @apart(ptr %form, ptr %data) {
entry:
  %count = call i64 @slot(ptr %form, i64 {APART})
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %yes
body:
  %i.next = add i64 %i, 1
  %row = call ptr @row(ptr %form, i64 {APART_AT}, i64 %i, i64 {APART_WORDS})
  %written = call i64 @slot(ptr %row, i64 0)
  %other = call i64 @slot(ptr %row, i64 1)
  %low = call i64 @slot(ptr %row, i64 2)
  %high = call i64 @slot(ptr %row, i64 3)
  %bytes = call i64 @slot(ptr %row, i64 4)
  %a = call i64 @slot(ptr %data, i64 %written)
  %a.end = add i64 %a, %bytes
  %b = call i64 @slot(ptr %data, i64 %other)
  %b.begin = add i64 %b, %low
  %b.end = add i64 %b, %high
  %before = icmp ule i64 %a.end, %b.begin
  %after = icmp ule i64 %b.end, %a
  %free = or i1 %before, %after
  br i1 %free, label %head, label %no
yes:
  ret i1 true
no:
  ret i1 false
}

; Make the outputs: objects to %objects (null for those that are none yet), addresses to %bases.
; False with an exception set.
define internal i1 @make_outputs(ptr %form, ptr %bases, ptr %objects, ptr %scalars) {
entry:
  %count = call i64 @slot(ptr %form, i64 {OUTPUTS})
  %bytes = shl i64 %count, 3
  call void @llvm.memset.p0.i64(ptr %objects, i8 0, i64 %bytes, i1 false)
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %placed ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %yes
body:
  %i.next = add i64 %i, 1
  %spec = call ptr @row(ptr %form, i64 {OUTPUTS_AT}, i64 %i, i64 {OUTPUT})
  %kind = load i64, ptr %spec
  %dtype = call ptr @pointer(ptr %spec, i64 8)
  %rank = call i64 @slot(ptr %spec, i64 2)
  %rank.32 = trunc i64 %rank to i32
  %shape = call ptr @pointer(ptr %spec, i64 24)
  %nbytes = call i64 @slot(ptr %spec, i64 4)
  switch i64 %kind, label %written [ i64 {NEW}, label %new
                                     i64 {PLAIN}, label %plain
                                     i64 {SCALAR}, label %scalar ]
new:
  %make = inttoptr i64 {MAKE_ARRAY} to ptr
  %recycled = call ptr %make(i32 %rank.32, ptr %shape, ptr %dtype, i64 %nbytes)
  br label %made
plain:
  call void @Py_IncRef(ptr %dtype)
  %empty = inttoptr i64 {PYARRAY_EMPTY} to ptr
  %usual = call ptr %empty(i32 %rank.32, ptr %shape, ptr %dtype, i32 0)
  br label %made
made:
  %array = phi ptr [ %recycled, %new ], [ %usual, %plain ]
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %no, label %keep
keep:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  store ptr %array, ptr %object.at
  %memory = call i64 @word(ptr %array, i64 16)
  br label %placed
scalar:
  %cell = getelementptr i128, ptr %scalars, i64 %i
  %cell.i = ptrtoint ptr %cell to i64
  br label %placed
written:
  %scratch = call i64 @slot(ptr %bases, i64 {SCRATCH_BASE})
  %offset = call i64 @slot(ptr %spec, i64 5)
  %inside = add i64 %scratch, %offset
  br label %placed
placed:
  %address = phi i64 [ %memory, %keep ], [ %cell.i, %scalar ], [ %inside, %written ]
  %base = add i64 %i, {OUTPUT_0}
  call void @put(ptr %bases, i64 %base, i64 %address)
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

; Run the kernels. False with an exception set.
define internal i1 @run(ptr %form, ptr %bases) {
entry:
  %count = call i64 @slot(ptr %form, i64 {POINTERS})
  %table = alloca i64, i64 %count, align 16
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %ready
body:
  %i.next = add i64 %i, 1
  %spec = call ptr @row(ptr %form, i64 {POINTERS_AT}, i64 %i, i64 2)
  %number = call i64 @slot(ptr %spec, i64 0)
  %offset = call i64 @slot(ptr %spec, i64 1)
  %base = call i64 @slot(ptr %bases, i64 %number)
  %address = add i64 %base, %offset
  call void @put(ptr %table, i64 %i, i64 %address)
  br label %head
ready:
  %records = call ptr @pointer(ptr %form, i64 {RECORDS_BYTE})
  %n = call i64 @slot(ptr %form, i64 {COUNT})
  %is.long.i = call i64 @slot(ptr %form, i64 {LONG})
  %is.long = icmp ne i64 %is.long.i, 0
  br i1 %is.long, label %long, label %short
short:
  %all = call i64 @driver(ptr %records, i64 0, i64 %n, ptr %table, ptr null, i64 0)
  br label %yes
long:
  %cell = call ptr @pointer(ptr %form, i64 {POOL_BYTE})
  %alone = icmp eq ptr %cell, null
  br i1 %alone, label %release, label %shared
shared:
  %pool.i = load i64, ptr %cell
  ; 1 says that one thread is to run everything.
  %single = icmp eq i64 %pool.i, 1
  %address.i = select i1 %single, i64 0, i64 %pool.i
  %shared.pool = inttoptr i64 %address.i to ptr
  br label %release
release:
  %pool = phi ptr [ null, %long ], [ %shared.pool, %shared ]
  br label %stretch
stretch:
  %first = phi i64 [ 0, %release ], [ %next, %asked ]
  %thread = call ptr @PyEval_SaveThread()
  %next = call i64 @driver(ptr %records, i64 %first, i64 %n, ptr %table, ptr %pool, i64 1)
  call void @PyEval_RestoreThread(ptr %thread)
  %finished = icmp eq i64 %next, %n
  br i1 %finished, label %yes, label %ask
ask:
  %signal = call i32 @PyErr_CheckSignals()
  %raised = icmp slt i32 %signal, 0
  br i1 %raised, label %no, label %asked
asked:
  br label %stretch
yes:
  ret i1 true
no:
  ret i1 false
}

; After a run: scalars become objects, and arguments get their new values. False with an exception.
define internal i1 @finish(ptr %form, ptr %bases, ptr %objects) {
entry:
  %count = call i64 @slot(ptr %form, i64 {OUTPUTS})
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ], [ %i.next, %keep ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %write
body:
  %i.next = add i64 %i, 1
  %spec = call ptr @row(ptr %form, i64 {OUTPUTS_AT}, i64 %i, i64 {OUTPUT})
  %kind = load i64, ptr %spec
  %is.scalar = icmp eq i64 %kind, {SCALAR}
  br i1 %is.scalar, label %scalar, label %head
scalar:
  %base = add i64 %i, {OUTPUT_0}
  %cell.i = call i64 @slot(ptr %bases, i64 %base)
  %cell = inttoptr i64 %cell.i to ptr
  %dtype = call ptr @pointer(ptr %spec, i64 8)
  %make = inttoptr i64 {PYARRAY_SCALAR} to ptr
  %object = call ptr %make(ptr %cell, ptr %dtype, ptr null)
  %failed = icmp eq ptr %object, null
  br i1 %failed, label %no, label %keep
keep:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  store ptr %object, ptr %object.at
  br label %head
write:
  %writes = call i64 @slot(ptr %form, i64 {WRITES})
  br label %write.head
write.head:
  %w = phi i64 [ 0, %write ], [ %w.next, %write.body ]
  %w.more = icmp slt i64 %w, %writes
  br i1 %w.more, label %write.body, label %yes
write.body:
  %w.next = add i64 %w, 1
  %row = call ptr @row(ptr %form, i64 {WRITES_AT}, i64 %w, i64 {WRITE})
  %from.number = call i64 @slot(ptr %row, i64 0)
  %from.base = add i64 %from.number, {OUTPUT_0}
  %from.i = call i64 @slot(ptr %bases, i64 %from.base)
  %from = inttoptr i64 %from.i to ptr
  %to.number = call i64 @slot(ptr %row, i64 1)
  %to.base = add i64 %to.number, {ARGUMENT_0}
  %to.i = call i64 @slot(ptr %bases, i64 %to.base)
  %to = inttoptr i64 %to.i to ptr
  %bytes = call i64 @slot(ptr %row, i64 2)
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  br label %write.head
yes:
  ret i1 true
no:
  ret i1 false
}

define internal void @drop(ptr %objects, i64 %count) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ], [ %i.next, %release ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %out
body:
  %i.next = add i64 %i, 1
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  %none = icmp eq ptr %object, null
  br i1 %none, label %head, label %release
release:
  call void @Py_DecRef(ptr %object)
  br label %head
out:
  ret void
}

; Put the result together; a new reference, or null with an exception set.
define internal ptr @build(ptr %form, ptr %objects, ptr %args) {
entry:
  %stack = alloca [{MAX_STEPS} x ptr], align 16
  %steps = call i64 @slot(ptr %form, i64 {STEPS})
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %pushed ]
  %top = phi i64 [ 0, %entry ], [ %top.next, %pushed ]
  %more = icmp slt i64 %i, %steps
  br i1 %more, label %body, label %done
body:
  %i.next = add i64 %i, 1
  %row = call ptr @row(ptr %form, i64 {STEPS_AT}, i64 %i, i64 {STEP})
  %step = load i64, ptr %row
  %what = call i64 @slot(ptr %row, i64 1)
  %under = sub i64 %top, %what
  %items = getelementptr ptr, ptr %stack, i64 %under
  switch i64 %step, label %dict [ i64 {PUSH_OUTPUT}, label %output
                                  i64 {PUSH_ARGUMENT}, label %argument
                                  i64 {PUSH_OBJECT}, label %object
                                  i64 {MAKE_TUPLE}, label %tuple
                                  i64 {MAKE_LIST}, label %list ]
output:
  %output.at = getelementptr ptr, ptr %objects, i64 %what
  %output.object = load ptr, ptr %output.at
  br label %share
argument:
  %argument.at = getelementptr ptr, ptr %args, i64 %what
  %argument.object = load ptr, ptr %argument.at
  br label %share
object:
  %static = inttoptr i64 %what to ptr
  br label %share
share:
  %shared = phi ptr [ %output.object, %output ], [ %argument.object, %argument ],
                    [ %static, %object ]
  call void @Py_IncRef(ptr %shared)
  br label %push
tuple:
  %new.tuple = call ptr @PyTuple_New(i64 %what)
  %no.tuple = icmp eq ptr %new.tuple, null
  br i1 %no.tuple, label %failed, label %tuple.fill
tuple.fill:
  %tuple.items = getelementptr i8, ptr %new.tuple, i64 24
  br label %fill
list:
  %new.list = call ptr @PyList_New(i64 %what)
  %no.list = icmp eq ptr %new.list, null
  br i1 %no.list, label %failed, label %list.fill
list.fill:
  %list.items = call ptr @pointer(ptr %new.list, i64 24)
  br label %fill
fill:
  ; The container takes the stack's references.
  %sequence = phi ptr [ %new.tuple, %tuple.fill ], [ %new.list, %list.fill ]
  %places = phi ptr [ %tuple.items, %tuple.fill ], [ %list.items, %list.fill ]
  %bytes = shl i64 %what, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %places, ptr %items, i64 %bytes, i1 false)
  br label %push
dict:
  %keys = call ptr @pointer(ptr %row, i64 16)
  %new.dict = call ptr @PyDict_New()
  %no.dict = icmp eq ptr %new.dict, null
  br i1 %no.dict, label %failed, label %dict.head
dict.head:
  %d = phi i64 [ 0, %dict ], [ %d.next, %dict.body ]
  %d.more = icmp slt i64 %d, %what
  br i1 %d.more, label %dict.body, label %dict.done
dict.body:
  %d.next = add i64 %d, 1
  %key.at = getelementptr ptr, ptr %keys, i64 %d
  %key = call ptr @pointer(ptr %key.at, i64 24)
  %value.at = getelementptr ptr, ptr %items, i64 %d
  %value = load ptr, ptr %value.at
  %put = call i32 @PyDict_SetItem(ptr %new.dict, ptr %key, ptr %value)
  %refused = icmp slt i32 %put, 0
  br i1 %refused, label %dict.drop, label %dict.head
dict.drop:
  call void @Py_DecRef(ptr %new.dict)
  br label %failed
dict.done:
  call void @drop(ptr %items, i64 %what)
  br label %push
push:
  %value.new = phi ptr [ %shared, %share ], [ %sequence, %fill ], [ %new.dict, %dict.done ]
  %at.share = phi i64 [ %top, %share ], [ %under, %fill ], [ %under, %dict.done ]
  %place = getelementptr ptr, ptr %stack, i64 %at.share
  store ptr %value.new, ptr %place
  br label %pushed
pushed:
  %top.next = add i64 %at.share, 1
  br label %head
failed:
  call void @drop(ptr %stack, i64 %top)
  ret ptr null
done:
  %result = load ptr, ptr %stack
  ret ptr %result
}

; Answer a call that fits a form; a new reference, or null with an exception set.
define internal ptr @answer(ptr %form, ptr %args, ptr %bases) {
entry:
  %objects = alloca [{MAX_OUTPUTS} x ptr], align 16
  %scalars = alloca [{MAX_OUTPUTS} x i128], align 64
  store i64 0, ptr %bases
  %size = call i64 @slot(ptr %form, i64 {SCRATCH})
  %none = icmp eq i64 %size, 0
  br i1 %none, label %outputs, label %scratch
scratch:
  %allocate = inttoptr i64 {POOL_MALLOC} to ptr
  %block = call ptr %allocate(ptr null, i64 %size)
  %block.i = ptrtoint ptr %block to i64
  call void @put(ptr %bases, i64 {SCRATCH_BASE}, i64 %block.i)
  %refused = icmp eq ptr %block, null
  br i1 %refused, label %memory, label %outputs
memory:
  %refuse = inttoptr i64 {REFUSE} to ptr
  call void %refuse(i64 %size)
  ret ptr null
outputs:
  %arena = phi ptr [ null, %entry ], [ %block, %scratch ]
  %made = call i1 @make_outputs(ptr %form, ptr %bases, ptr %objects, ptr %scalars)
  br i1 %made, label %run, label %give
run:
  %ran = call i1 @run(ptr %form, ptr %bases)
  br i1 %ran, label %finish, label %give
finish:
  %finished = call i1 @finish(ptr %form, ptr %bases, ptr %objects)
  br label %give
give:
  %fine = phi i1 [ false, %outputs ], [ false, %run ], [ %finished, %finish ]
  br i1 %none, label %given, label %free
free:
  %release = inttoptr i64 {POOL_FREE} to ptr
  call void %release(ptr null, ptr %arena, i64 %size)
  br label %given
given:
  br i1 %fine, label %built, label %lost
built:
  %steps = call i64 @slot(ptr %form, i64 {STEPS})
  %single = icmp eq i64 %steps, 0
  br i1 %single, label %first, label %several
first:
  %only = load ptr, ptr %objects
  ret ptr %only
several:
  %result = call ptr @build(ptr %form, ptr %objects, ptr %args)
  br label %end
lost:
  br label %end
end:
  %value = phi ptr [ %result, %several ], [ null, %lost ]
  %count = call i64 @slot(ptr %form, i64 {OUTPUTS})
  call void @drop(ptr %objects, i64 %count)
  ret ptr %value
}

; %self is the tuple (state array, Python path).
define ptr @entry(ptr %self, ptr %args, i64 %nargs, ptr %names) {
start:
  %fallback = call ptr @pointer(ptr %self, i64 32)
  %gate = load i64, ptr inttoptr (i64 {GATE} to ptr)
  %open = icmp eq i64 %gate, 0
  %plain = icmp eq ptr %names, null
  %few = icmp ule i64 %nargs, {MAX_ARGUMENTS}
  %ok.1 = and i1 %open, %plain
  %ok = and i1 %ok.1, %few
  br i1 %ok, label %begin, label %python
begin:
  %bases = alloca [{BASES} x i64], align 16
  %data = getelementptr i64, ptr %bases, i64 {ARGUMENT_0}
  %array = call ptr @pointer(ptr %self, i64 24)
  %state = call ptr @pointer(ptr %array, i64 16)
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
  br i1 %stressed, label %stress, label %check
stress:
  %since = call i64 @slot(ptr %state, i64 {SINCE})
  %since.1 = add i64 %since, 1
  %due = icmp sge i64 %since.1, %every
  %since.2 = select i1 %due, i64 0, i64 %since.1
  call void @put(ptr %state, i64 {SINCE}, i64 %since.2)
  br i1 %due, label %python, label %check
check:
  %apart = call i1 @apart(ptr %form, ptr %data)
  br i1 %apart, label %workers, label %python
workers:
  ; A pool that was not started (here, or in this fork) is started by the Python path.
  %cell = call ptr @pointer(ptr %form, i64 {POOL_BYTE})
  %alone = icmp eq ptr %cell, null
  br i1 %alone, label %go, label %pooled
pooled:
  %pool = load i64, ptr %cell
  %missing = icmp eq i64 %pool, 0
  br i1 %missing, label %python, label %go
go:
  call void @add(ptr %form, i64 {CALLS}, i64 1)
  %timed.i = call i64 @slot(ptr %state, i64 {TIMED})
  %timed = icmp ne i64 %timed.i, 0
  br i1 %timed, label %stamp, label %count
stamp:
  %started = call i64 @ticks()
  %output = call ptr @answer(ptr %form, ptr %args, ptr %bases)
  %now = call i64 @ticks()
  %took = sub i64 %now, %started
  call void @add(ptr %form, i64 {TICKS}, i64 %took)
  call void @put(ptr %form, i64 {LAST}, i64 %now)
  ret ptr %output
count:
  %output.2 = call ptr @answer(ptr %form, ptr %args, ptr %bases)
  ret ptr %output.2
python:
  %value = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr %names)
  ret ptr %value
}
"""


class Addresses(NamedTuple):
    """What the entry's code refers to: addresses of objects, functions and cells."""

    array_type: int
    pyarray_empty: int
    pyarray_scalar: int
    make_array: int  # of the recycling allocator, as the next three; 0 where there is none
    pool_malloc: int
    pool_free: int
    refuse: int
    gate: int  # the cell that is not zero while every call must take the Python path


def emit_entry(driver: str, addresses: Addresses) -> str:
    """Return the module with ``entry``; ``driver`` is the driver's own text."""
    words = {s.name: int(s) for e in (State, Form, Argument, Base, Output, Step) for s in e}
    words |= {name.upper(): value for name, value in addresses._asdict().items()}
    words |= {"RECORDS_BYTE": 8 * Form.RECORDS, "POOL_BYTE": 8 * Form.POOL}
    words |= {"OUTPUT": OUTPUT, "APART_WORDS": APART_WORDS, "WRITE": WRITE, "STEP": STEP}
    words |= {"MAX_ARGUMENTS": MAX_ARGUMENTS, "MAX_OUTPUTS": MAX_OUTPUTS, "MAX_STEPS": MAX_STEPS}
    text = _TEXT
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    return text.replace("{DRIVER_TEXT}", driver)
