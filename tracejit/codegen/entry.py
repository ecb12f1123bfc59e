"""The native entry: the C function behind a jitted function.

``entry`` has CPython's ``METH_FASTCALL | METH_KEYWORDS`` signature. It looks whether what the
function reads from outside is still what it was (``runtime/watches.py``), and compares the
arguments with the *forms* that were compiled (a type, dtype, rank, sizes and strides per array;
equality by identity for static values). Then it allocates the outputs, fills in addresses, calls
the driver, and puts the result together. Any argument that fits no form goes to the Python path,
which knows every case; so this code only has to be right about what it accepts.

A form is a block of i64 (``codegen/forms.py``), the same code reads all of them. A form with a
program fits arrays of many sizes: ``codegen/bind.py`` adapts a copy of it to those of a call. The
layouts of ``ndarray``, ``tuple``, ``list`` and number objects that it relies on are those of the
stable builds it is enabled for (``runtime/entry.py`` checks).
"""

from __future__ import annotations

from tracejit.codegen import imports
from tracejit.codegen.answer import ANSWER
from tracejit.codegen.bind import BIND
from tracejit.codegen.forms import (
    ALL_TIMED,
    ANY,
    APART_WORDS,
    INSTRUCTION,
    MAX_OUTPUTS,
    MAX_SLOTS,
    MAX_STEPS,
    OUTPUT,
    STEP,
    WATCH,
    WRITE,
    Addresses,
    Argument,
    Base,
    Bind,
    Container,
    Form,
    Holds,
    Layout,
    Output,
    Sheet,
    State,
    Step,
)
from tracejit.codegen.spread import SPREAD
from tracejit.codegen.template import fill
from tracejit.sizes import Op

_COMMON = r"""
declare ptr @PyErr_Occurred()
declare i64 @PyThread_get_thread_ident()
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
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
"""

_MATCH = r"""
; Whether the slots' objects fit a form; their data addresses go to %data.
define internal i1 @fits(ptr %form, ptr %args, i64 %nargs, ptr %data) {
entry:
  %wanted = call i64 @slot(ptr %form, i64 {ARGUMENTS})
  %count.ok = icmp eq i64 %wanted, %nargs
  br i1 %count.ok, label %head, label %no
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %array.ok ], [ %i.next, %float.ok ], [ %i.next, %same ],
               [ %i.next, %container ]
  %at = phi i64 [ {BODY}, %entry ], [ %at.array, %array.ok ],
                [ %at.float, %float.ok ], [ %at.static, %same ], [ %at.container, %container ]
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
                                i64 {STATIC}, label %static
                                i64 {CONTAINER}, label %container ]
container:
  %at.container = add i64 %at, 1
  br label %head
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
  for 0 <= %a < %rank
  %size = call i64 @slot(ptr %sizes, i64 %a)
  %stride = call i64 @slot(ptr %strides, i64 %a)
  %two = mul i64 %a, 2
  %two.1 = add i64 %two, 1
  %size.want = call i64 @slot(ptr %axes, i64 %two)
  %stride.want = call i64 @slot(ptr %axes, i64 %two.1)
  %size.is = icmp eq i64 %size, %size.want
  %size.any = icmp eq i64 %size.want, {ANY}
  %size.ok = or i1 %size.is, %size.any
  %stride.is = icmp eq i64 %stride, %stride.want
  %stride.any = icmp eq i64 %stride.want, {ANY}
  %stride.ok = or i1 %stride.is, %stride.any
  %axis.ok = and i1 %size.ok, %stride.ok
  br i1 %axis.ok, label %a.next, label %no
  next %a
  br label %array.ok
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
  for 0 <= %i < %count
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
  br i1 %free, label %i.next, label %no
  next %i
  ret i1 true
no:
  ret i1 false
}
"""

_HOLDS = r"""
; Whether what the function reads from outside is where it was; a row may be read if those before
; it hold.
define internal i1 @holds(ptr %table) {
entry:
  %count = call i64 @slot(ptr %table, i64 0)
  for 0 <= %i < %count
  %before = mul i64 %i, {WATCH}
  %at = add i64 %before, 1
  %row = getelementptr i64, ptr %table, i64 %at
  %place = load ptr, ptr %row
  %mask = call i64 @slot(ptr %row, i64 1)
  %want = call i64 @slot(ptr %row, i64 2)
  %word = load i64, ptr %place
  %part = and i64 %word, %mask
  %same = icmp eq i64 %part, %want
  br i1 %same, label %i.next, label %no
  next %i
  ret i1 true
no:
  ret i1 false
}
"""

_ENTRY = r"""
; %self is the tuple (state array, Python path).
define ptr @entry(ptr %self, ptr %args, i64 %nargs, ptr %names) {
start:
  %fallback = call ptr @pointer(ptr %self, i64 32)
  %gate = load i64, ptr inttoptr (i64 {GATE} to ptr)
  %open = icmp eq i64 %gate, 0
  %few = icmp ule i64 %nargs, {MAX_SLOTS}
  %ok = and i1 %open, %few
  br i1 %ok, label %begin, label %slow
begin:
  %bases = alloca [{BASES} x i64], align 16
  %sheet = alloca [{SHEET} x i64], align 16
  call void @put(ptr %sheet, i64 {LAID_OUT}, i64 0)
  call void @put(ptr %sheet, i64 {GIVEN}, i64 0)
  call void @put(ptr %sheet, i64 {FILLED}, i64 0)
  %data = getelementptr i64, ptr %bases, i64 {ARGUMENT_0}
  %array = call ptr @pointer(ptr %self, i64 24)
  %state = call ptr @pointer(ptr %array, i64 16)
  %forms = call i64 @slot(ptr %state, i64 {FORMS})
  %watches = call ptr @pointer(ptr %state, i64 {WATCHES_BYTE})
  %free = icmp eq ptr %watches, null
  br i1 %free, label %search, label %outside
outside:
  %held = call i1 @holds(ptr %watches)
  br i1 %held, label %search, label %moved
moved:
  call void @put(ptr %state, i64 {MOVED}, i64 1)
  br label %python
search:
  for 0 <= %i < %forms
  %index = add i64 %i, {FIRST}
  %form.i = call i64 @slot(ptr %state, i64 %index)
  %form = inttoptr i64 %form.i to ptr
  %layout = call ptr @pointer(ptr %form, i64 {LAYOUT_BYTE})
  %flat = icmp eq ptr %layout, null
  br i1 %flat, label %straight, label %structured
straight:
  %nameless = icmp eq ptr %names, null
  br i1 %nameless, label %match, label %i.next
structured:
  %like = call i1 @spread(ptr %layout, ptr %args, i64 %nargs, ptr %names, ptr %sheet)
  %slots = getelementptr i64, ptr %sheet, i64 {SLOTS}
  %filled = call i64 @slot(ptr %sheet, i64 {FILLED})
  br i1 %like, label %match, label %i.next
match:
  %given = phi ptr [ %args, %straight ], [ %slots, %structured ]
  %many = phi i64 [ %nargs, %straight ], [ %filled, %structured ]
  %fit = call i1 @fits(ptr %form, ptr %given, i64 %many, ptr %data)
  br i1 %fit, label %fitting, label %i.next
fitting:
  %program = call ptr @pointer(ptr %form, i64 {PROGRAM_BYTE})
  %fixed = icmp eq ptr %program, null
  br i1 %fixed, label %found, label %adapt
adapt:
  %length = call i64 @slot(ptr %form, i64 {LENGTH})
  %copy = alloca i64, i64 %length, align 16
  %numbers = call i64 @slot(ptr %program, i64 1)
  %values = alloca i64, i64 %numbers, align 16
  %bound = call i1 @bind(ptr %form, ptr %program, ptr %given, ptr %copy, ptr %values)
  br i1 %bound, label %found, label %i.next
  next %i
  br label %python
found:
  %fitted = phi ptr [ %form, %fitting ], [ %copy, %adapt ]
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
  %apart = call i1 @apart(ptr %fitted, ptr %data)
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
  %calls = call i64 @slot(ptr %form, i64 {CALLS})
  %calls.1 = add i64 %calls, 1
  call void @put(ptr %form, i64 {CALLS}, i64 %calls.1)
  %timed.i = call i64 @slot(ptr %state, i64 {TIMED})
  %sample = call i64 @slot(ptr %form, i64 {SAMPLE})
  %rest = and i64 %calls, %sample
  %chosen = icmp eq i64 %rest, 0
  %early = icmp ult i64 %calls, {ALL_TIMED}
  %wanted = or i1 %chosen, %early
  %timing = icmp ne i64 %timed.i, 0
  %timed = and i1 %timing, %wanted
  br i1 %timed, label %stamp, label %count
stamp:
  %started = call i64 @ticks()
  %output = call ptr @answer(ptr %fitted, ptr %given, ptr %bases)
  %now = call i64 @ticks()
  %took = sub i64 %now, %started
  ; Counters of two processors may differ: what ends before it starts is not counted.
  %forward = icmp sge i64 %took, 0
  br i1 %forward, label %record, label %answered
record:
  call void @add(ptr %form, i64 {TIMED_CALLS}, i64 1)
  call void @add(ptr %form, i64 {TICKS}, i64 %took)
  call void @put(ptr %form, i64 {LAST}, i64 %now)
  %watched = load i64, ptr inttoptr (i64 {WATCHED} to ptr)
  %nobody = icmp eq i64 %watched, 0
  br i1 %nobody, label %compare, label %whose
whose:
  %me = call i64 @PyThread_get_thread_ident()
  %mine = icmp eq i64 %me, %watched
  br i1 %mine, label %inside, label %compare
inside:
  ; A call that stands for those that are not timed counts for them.
  %weight = add i64 %sample, 1
  %times = select i1 %early, i64 1, i64 %weight
  %share = mul i64 %took, %times
  call void @add(ptr inttoptr (i64 {WATCHED} to ptr), i64 1, i64 %share)
  br label %compare
compare:
  %least = call i64 @slot(ptr %form, i64 {LEAST})
  %less = icmp slt i64 %took, %least
  br i1 %less, label %shortest, label %answered
shortest:
  call void @put(ptr %form, i64 {LEAST}, i64 %took)
  br label %answered
count:
  %output.2 = call ptr @answer(ptr %fitted, ptr %given, ptr %bases)
  br label %answered
answered:
  %result = phi ptr [ %output, %stamp ], [ %output, %compare ], [ %output, %shortest ],
                    [ %output.2, %count ]
  call void @add(ptr %form, i64 {ENDED}, i64 1)
  %lost = icmp eq ptr %result, null
  br i1 %lost, label %why, label %done
why:
  %raised = call ptr @PyErr_Occurred()
  %silent = icmp eq ptr %raised, null
  br i1 %silent, label %python, label %done
done:
  call void @wipe(ptr %sheet)
  ret ptr %result
python:
  call void @wipe(ptr %sheet)
  br label %slow
slow:
  %value = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr %names)
  ret ptr %value
}
"""

# Calls of an object whose type has a vectorcall offset (PEP 590). The offset leads to a cell out of
# the object, which has the address of this function, and then that of the entry's ``self``.
_VECTOR = r"""
define ptr @vector(ptr %callable, ptr %args, i64 %flagged, ptr %names) {
  %type = call ptr @pointer(ptr %callable, i64 8)
  %offset = call i64 @word(ptr %type, i64 56)
  %cell = getelementptr i8, ptr %callable, i64 %offset
  %self = call ptr @pointer(ptr %cell, i64 8)
  ; The highest bit says that args[-1] may be written.
  %nargs = and i64 %flagged, 9223372036854775807
  %result = tail call ptr @entry(ptr %self, ptr %args, i64 %nargs, ptr %names)
  ret ptr %result
}
"""


def emit_entry(driver: str) -> str:
    """Return the module with ``entry``, which imports ``Addresses``; ``driver`` is its text."""
    words: dict[str, object] = {}
    for kind in (State, Form, Layout, Container, Sheet, Base):
        words |= dict(kind.items())
    words |= {s.name: int(s) for enum in (Argument, Holds, Output, Step) for s in enum}
    words |= {name.upper(): imports.reference(name) for name in Addresses._fields}
    words |= {"RECORDS_BYTE": 8 * Form.RECORDS, "POOL_BYTE": 8 * Form.POOL}
    words |= {"FAULTS_BYTE": 8 * Form.FAULTS}
    words |= {"PROGRAM_BYTE": 8 * Form.PROGRAM, "LAYOUT_BYTE": 8 * Form.LAYOUT, "ANY": ANY}
    words |= {"OUTPUT": OUTPUT, "APART_WORDS": APART_WORDS, "WRITE": WRITE, "STEP": STEP}
    words |= {"ALL_TIMED": ALL_TIMED, "WATCH": WATCH, "WATCHES_BYTE": 8 * State.WATCHES}
    words |= {"MAX_SLOTS": MAX_SLOTS, "MAX_OUTPUTS": MAX_OUTPUTS, "MAX_STEPS": MAX_STEPS}
    words |= {"SHEET": Sheet.SLOTS + MAX_SLOTS}
    words |= {op.name: int(op) for op in Op} | dict(Bind.items()) | {"INSTRUCTION": INSTRUCTION}
    words |= {"DRIVER_TEXT": driver}
    parts = (_COMMON, SPREAD, _MATCH, _HOLDS, BIND, ANSWER, _ENTRY, _VECTOR)
    return imports.declarations(Addresses._fields) + fill("".join(parts), words)
