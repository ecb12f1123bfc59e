"""How a native entry sees into containers: a call's arguments as one row of slots.

The slots of a call are its arguments, the values of its keywords, and then, container by
container, what each of them holds: lists, tuples, dicts and the attributes of plain objects. A
*layout* (``forms.Layout``) says which slots are containers of which type, length and keys, so that
equal structures fill equal slots; a form's argument specifications are those of its slots. Keys and
names are compared by identity, as interned strings are; others take the Python path.

A *sheet* holds the slots of one call. Slots beyond the arguments are references of their own: a
container may be changed by somebody else while kernels run. Part of the module of
``codegen/entry.py``.
"""

SPREAD = r"""
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare ptr @PyObject_GenericGetDict(ptr, ptr)
declare void @PyErr_Clear()

; Give back what %sheet holds; it is empty then.
define internal void @wipe(ptr %sheet) {
entry:
  %first = call i64 @slot(ptr %sheet, i64 {GIVEN})
  %count = call i64 @slot(ptr %sheet, i64 {FILLED})
  call void @put(ptr %sheet, i64 {LAID_OUT}, i64 0)
  call void @put(ptr %sheet, i64 {FILLED}, i64 %first)
  for %first <= %i < %count
  %at = add i64 %i, {SLOTS}
  %object.i = call i64 @slot(ptr %sheet, i64 %at)
  %object = inttoptr i64 %object.i to ptr
  call void @Py_DecRef(ptr %object)
  br label %i.next
  next %i
  ret void
}

; Fill the next slot of %sheet.
define internal void @keep(ptr %sheet, ptr %object) {
  call void @Py_IncRef(ptr %object)
  %count = call i64 @slot(ptr %sheet, i64 {FILLED})
  %at = add i64 %count, {SLOTS}
  %object.i = ptrtoint ptr %object to i64
  call void @put(ptr %sheet, i64 %at, i64 %object.i)
  call void @add(ptr %sheet, i64 {FILLED}, i64 1)
  ret void
}

; Fill slots with what the container of %row holds. False where it is not as %row has it.
define internal i1 @unpack(ptr %row, ptr %sheet) {
entry:
  %position = alloca i64
  %key.cell = alloca ptr
  %value.cell = alloca ptr
  store i64 0, ptr %position
  %number = call i64 @slot(ptr %row, i64 {SLOT})
  %at = add i64 %number, {SLOTS}
  %box.i = call i64 @slot(ptr %sheet, i64 %at)
  %box = inttoptr i64 %box.i to ptr
  %type = call i64 @word(ptr %box, i64 8)
  %type.want = call i64 @slot(ptr %row, i64 {TYPE})
  %type.ok = icmp eq i64 %type, %type.want
  %wanted = call i64 @slot(ptr %row, i64 {LENGTH_OF})
  %keys.i = call i64 @slot(ptr %row, i64 {KEYS})
  %keys = inttoptr i64 %keys.i to ptr
  br i1 %type.ok, label %kinds, label %no
kinds:
  %kind = call i64 @slot(ptr %row, i64 {KIND})
  switch i64 %kind, label %no [ i64 {TUPLE}, label %tuple
                                i64 {LIST}, label %list
                                i64 {DICT}, label %mapping
                                i64 {OBJECT}, label %attributes ]
tuple:
  %inline = getelementptr i8, ptr %box, i64 24
  br label %sequence
list:
  %block = call ptr @pointer(ptr %box, i64 24)
  br label %sequence
sequence:
  %items = phi ptr [ %inline, %tuple ], [ %block, %list ]
  %length = call i64 @word(ptr %box, i64 16)
  %length.ok = icmp eq i64 %length, %wanted
  br i1 %length.ok, label %each, label %no
each:
  for 0 <= %i < %wanted
  %item.at = getelementptr ptr, ptr %items, i64 %i
  %item = load ptr, ptr %item.at
  call void @keep(ptr %sheet, ptr %item)
  br label %i.next
  next %i
  ret i1 true
attributes:
  %own = call ptr @PyObject_GenericGetDict(ptr %box, ptr null)
  %none = icmp eq ptr %own, null
  br i1 %none, label %refused, label %held
refused:
  call void @PyErr_Clear()
  br label %no
held:
  ; The object holds its attributes' dict.
  call void @Py_DecRef(ptr %own)
  br label %mapping
mapping:
  %dict = phi ptr [ %box, %kinds ], [ %own, %held ]
  %used = call i64 @word(ptr %dict, i64 16)
  %used.ok = icmp eq i64 %used, %wanted
  br i1 %used.ok, label %pairs.head, label %no
pairs.head:
  %k = phi i64 [ 0, %mapping ], [ %k.next, %pairs.keep ]
  %found = call i32 @PyDict_Next(ptr %dict, ptr %position, ptr %key.cell, ptr %value.cell)
  %ended = icmp eq i32 %found, 0
  br i1 %ended, label %yes, label %pairs.body
pairs.body:
  %k.next = add i64 %k, 1
  %key = load ptr, ptr %key.cell
  %key.at = getelementptr ptr, ptr %keys, i64 %k
  %key.want = call ptr @pointer(ptr %key.at, i64 24)
  %key.ok = icmp eq ptr %key, %key.want
  br i1 %key.ok, label %pairs.keep, label %no
pairs.keep:
  %value = load ptr, ptr %value.cell
  call void @keep(ptr %sheet, ptr %value)
  br label %pairs.head
yes:
  ret i1 true
no:
  ret i1 false
}

; Whether the names of a call's keywords are those of the tuple %wanted; null stands for none.
define internal i1 @named(ptr %names, ptr %wanted) {
entry:
  %same = icmp eq ptr %names, %wanted
  br i1 %same, label %yes, label %differ
differ:
  %none = icmp eq ptr %names, null
  %none.wanted = icmp eq ptr %wanted, null
  %one = or i1 %none, %none.wanted
  br i1 %one, label %no, label %lengths
lengths:
  %count = call i64 @word(ptr %names, i64 16)
  %count.want = call i64 @word(ptr %wanted, i64 16)
  %equal = icmp eq i64 %count, %count.want
  br i1 %equal, label %each, label %no
each:
  for 0 <= %i < %count
  %at = getelementptr ptr, ptr %names, i64 %i
  %name = call i64 @word(ptr %at, i64 24)
  %at.want = getelementptr ptr, ptr %wanted, i64 %i
  %name.want = call i64 @word(ptr %at.want, i64 24)
  %is = icmp eq i64 %name, %name.want
  br i1 %is, label %i.next, label %no
  next %i
  br label %yes
yes:
  ret i1 true
no:
  ret i1 false
}

; Fill %sheet with a call's slots, unless it has them already. False where the call's structure is
; not that of %layout.
define internal i1 @spread(ptr %layout, ptr %args, i64 %nargs, ptr %names, ptr %sheet) {
entry:
  %filled = call ptr @pointer(ptr %sheet, i64 0)
  %done = icmp eq ptr %filled, %layout
  br i1 %done, label %yes, label %fresh
fresh:
  call void @wipe(ptr %sheet)
  %positional = call i64 @slot(ptr %layout, i64 {POSITIONAL})
  %count.ok = icmp eq i64 %positional, %nargs
  %wanted.i = call i64 @slot(ptr %layout, i64 {NAMES})
  %wanted = inttoptr i64 %wanted.i to ptr
  %names.ok = call i1 @named(ptr %names, ptr %wanted)
  %ok = and i1 %count.ok, %names.ok
  br i1 %ok, label %copy, label %no
copy:
  %given = call i64 @slot(ptr %layout, i64 {GIVEN_SLOTS})
  %slots = getelementptr i64, ptr %sheet, i64 {SLOTS}
  %bytes = shl i64 %given, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %slots, ptr %args, i64 %bytes, i1 false)
  call void @put(ptr %sheet, i64 {GIVEN}, i64 %given)
  call void @put(ptr %sheet, i64 {FILLED}, i64 %given)
  %containers = call i64 @slot(ptr %layout, i64 {CONTAINERS})
  for 0 <= %i < %containers
  %before = mul i64 %i, {CONTAINER_WORDS}
  %at = add i64 %before, {ROWS}
  %row = getelementptr i64, ptr %layout, i64 %at
  %fits = call i1 @unpack(ptr %row, ptr %sheet)
  br i1 %fits, label %i.next, label %no
  next %i
  %layout.i = ptrtoint ptr %layout to i64
  call void @put(ptr %sheet, i64 {LAID_OUT}, i64 %layout.i)
  br label %yes
yes:
  ret i1 true
no:
  ret i1 false
}
"""
