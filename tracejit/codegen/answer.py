"""How a native entry answers a call that fits a form: outputs, kernels, and the result.

``answer`` allocates the scratch memory and the outputs, fills in addresses, calls the driver, turns
0-d outputs into NumPy scalars, copies new values into arguments, and puts the result together. It
returns a new reference, or null with an exception set and everything given back. Null without an
exception says that a position was out of range, and that the Python path is to say which.

It runs with the GIL, but for the driver in a form that is LONG. Such a run comes back now and then
to ask for signals (Ctrl-C), between two kernels. The scratch memory of a call is its own:
concurrent calls of one form never share any. Part of the module of ``codegen/entry.py``.
"""

ANSWER = r"""
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyErr_CheckSignals()
declare ptr @PyTuple_New(i64)
declare ptr @PyList_New(i64)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; Make the outputs: objects to %objects (null for those that are none yet), addresses to %bases.
; False with an exception set.
define internal i1 @make_outputs(ptr %form, ptr %bases, ptr %objects, ptr %scalars) {
entry:
  %count = call i64 @slot(ptr %form, i64 {OUTPUTS})
  %bytes = shl i64 %count, 3
  call void @llvm.memset.p0.i64(ptr %objects, i8 0, i64 %bytes, i1 false)
  for 0 <= %i < %count
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
  br label %i.next
  next %i
  ret i1 true
no:
  ret i1 false
}

; Run the kernels. False with an exception set.
define internal i1 @run(ptr %form, ptr %bases) {
entry:
  %count = call i64 @slot(ptr %form, i64 {POINTERS})
  %table = alloca i64, i64 %count, align 16
  for 0 <= %i < %count
  %spec = call ptr @row(ptr %form, i64 {POINTERS_AT}, i64 %i, i64 2)
  %number = call i64 @slot(ptr %spec, i64 0)
  %offset = call i64 @slot(ptr %spec, i64 1)
  %base = call i64 @slot(ptr %bases, i64 %number)
  %address = add i64 %base, %offset
  call void @put(ptr %table, i64 %i, i64 %address)
  br label %i.next
  next %i
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
  for 0 <= %i < %count
  %spec = call ptr @row(ptr %form, i64 {OUTPUTS_AT}, i64 %i, i64 {OUTPUT})
  %kind = load i64, ptr %spec
  %is.scalar = icmp eq i64 %kind, {SCALAR}
  br i1 %is.scalar, label %scalar, label %i.next
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
  br label %i.next
  next %i
  %writes = call i64 @slot(ptr %form, i64 {WRITES})
  for 0 <= %w < %writes
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
  br label %w.next
  next %w
  ret i1 true
no:
  ret i1 false
}

define internal void @drop(ptr %objects, i64 %count) {
entry:
  for 0 <= %i < %count
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  %none = icmp eq ptr %object, null
  br i1 %none, label %i.next, label %release
release:
  call void @Py_DecRef(ptr %object)
  br label %i.next
  next %i
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
  br i1 %no.dict, label %failed, label %dict.fill
dict.fill:
  for 0 <= %d < %what
  %key.at = getelementptr ptr, ptr %keys, i64 %d
  %key = call ptr @pointer(ptr %key.at, i64 24)
  %value.at = getelementptr ptr, ptr %items, i64 %d
  %value = load ptr, ptr %value.at
  %put = call i32 @PyDict_SetItem(ptr %new.dict, ptr %key, ptr %value)
  %refused = icmp slt i32 %put, 0
  br i1 %refused, label %dict.drop, label %d.next
  next %d
  call void @drop(ptr %items, i64 %what)
  br label %push
dict.drop:
  call void @Py_DecRef(ptr %new.dict)
  br label %failed
push:
  %value.new = phi ptr [ %shared, %share ], [ %sequence, %fill ], [ %new.dict, %d.done ]
  %at.share = phi i64 [ %top, %share ], [ %under, %fill ], [ %under, %d.done ]
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

; Answer a call that fits a form; a new reference or null, see above.
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
  %faults = call ptr @pointer(ptr %form, i64 {FAULTS_BYTE})
  %faultless = icmp eq ptr %faults, null
  br i1 %faultless, label %go, label %note
note:
  %noted = load atomic i64, ptr %faults monotonic, align 8
  br label %go
go:
  %before = phi i64 [ 0, %run ], [ %noted, %note ]
  %ran = call i1 @run(ptr %form, ptr %bases)
  br i1 %ran, label %look, label %give
look:
  br i1 %faultless, label %finish, label %compare
compare:
  %after = load atomic i64, ptr %faults monotonic, align 8
  %same = icmp eq i64 %after, %before
  br i1 %same, label %finish, label %give
finish:
  %finished = call i1 @finish(ptr %form, ptr %bases, ptr %objects)
  br label %give
give:
  %fine = phi i1 [ false, %outputs ], [ false, %go ], [ false, %compare ], [ %finished, %finish ]
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
"""
