"""How a form with a program adapts to the sizes of a call: a small machine on i64 numbers.

``bind`` copies the form, reads sizes off the arguments, computes what follows from them, tests the
guards under which the form was made, and writes the numbers into the copy. It answers false where a
guard fails or a number does not fit 64 bits; then the next form is tried. The form itself
stays, but for the words where it notes the sizes of the newest call: concurrent calls have copies
of their own. The instructions are those of ``sizes.Op`` and
``forms.Bind``. Part of the module of ``codegen/entry.py``.
"""

BIND = r"""
declare {i64, i1} @llvm.sadd.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.ssub.with.overflow.i64(i64, i64)
declare {i64, i1} @llvm.smul.with.overflow.i64(i64, i64)

define internal i1 @bind(ptr %form, ptr %program, ptr %args, ptr %copy, ptr %values) {
entry:
  %length = call i64 @slot(ptr %form, i64 {LENGTH})
  %bytes = shl i64 %length, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %copy, ptr %form, i64 %bytes, i1 false)
  %count = call i64 @slot(ptr %program, i64 0)
  %numbers = call i64 @slot(ptr %program, i64 1)
  %first = getelementptr i64, ptr %program, i64 2
  %value.bytes = shl i64 %numbers, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %values, ptr %first, i64 %value.bytes, i1 false)
  %code = getelementptr i64, ptr %first, i64 %numbers
  %copy.i = ptrtoint ptr %copy to i64
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %result ], [ %i.next, %test ], [ %i.next, %store ],
               [ %i.next, %here ], [ %i.next, %note ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %yes
body:
  %i.next = add i64 %i, 1
  %at = mul i64 %i, {INSTRUCTION}
  %row = getelementptr i64, ptr %code, i64 %at
  %op = load i64, ptr %row
  %a.what = call i64 @slot(ptr %row, i64 1)
  %b.what = call i64 @slot(ptr %row, i64 2)
  %c.what = call i64 @slot(ptr %row, i64 3)
  %special = icmp sge i64 %op, {SIZE}
  br i1 %special, label %other, label %operands
other:
  switch i64 %op, label %no [ i64 {SIZE}, label %size
                              i64 {STRIDE}, label %stride
                              i64 {STORE}, label %store
                              i64 {HERE}, label %here
                              i64 {NOTE}, label %note ]
size:
  %arg.at = getelementptr ptr, ptr %args, i64 %a.what
  %arg = load ptr, ptr %arg.at
  %sizes = call ptr @pointer(ptr %arg, i64 32)
  %extent = call i64 @slot(ptr %sizes, i64 %b.what)
  br label %result
stride:
  ; Strides that are no whole number of elements refuse the call.
  %strided.at = getelementptr ptr, ptr %args, i64 %a.what
  %strided = load ptr, ptr %strided.at
  %strides = call ptr @pointer(ptr %strided, i64 40)
  %step.bytes = call i64 @slot(ptr %strides, i64 %b.what)
  %element = call i64 @slot(ptr %values, i64 %c.what)
  %step = sdiv i64 %step.bytes, %element
  %step.rest = srem i64 %step.bytes, %element
  %whole = icmp eq i64 %step.rest, 0
  br i1 %whole, label %result, label %no
store:
  %stored = call i64 @slot(ptr %values, i64 %a.what)
  call void @put(ptr %copy, i64 %b.what, i64 %stored)
  br label %head
here:
  %inside = shl i64 %a.what, 3
  %address = add i64 %copy.i, %inside
  call void @put(ptr %copy, i64 %b.what, i64 %address)
  br label %head
note:
  %noted = call i64 @slot(ptr %values, i64 %a.what)
  call void @put(ptr %form, i64 %b.what, i64 %noted)
  br label %head
operands:
  %a = call i64 @slot(ptr %values, i64 %a.what)
  %b = call i64 @slot(ptr %values, i64 %b.what)
  switch i64 %op, label %no [ i64 {ADD}, label %add
                              i64 {SUB}, label %sub
                              i64 {MUL}, label %mul
                              i64 {DIV}, label %divide
                              i64 {MOD}, label %divide
                              i64 {BITS}, label %bits
                              i64 {LE}, label %le
                              i64 {EQ}, label %eq
                              i64 {NE}, label %ne ]
add:
  %sum = call {i64, i1} @llvm.sadd.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
sub:
  %difference = call {i64, i1} @llvm.ssub.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
mul:
  %product = call {i64, i1} @llvm.smul.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
checked:
  %pair = phi {i64, i1} [ %sum, %add ], [ %difference, %sub ], [ %product, %mul ]
  %exact = extractvalue {i64, i1} %pair, 0
  %over = extractvalue {i64, i1} %pair, 1
  br i1 %over, label %no, label %result
divide:
  ; Rounded down, as in Python. A divisor below 1 refuses the call.
  %positive = icmp sgt i64 %b, 0
  br i1 %positive, label %quotient, label %no
quotient:
  %q = sdiv i64 %a, %b
  %r = srem i64 %a, %b
  %below = icmp slt i64 %r, 0
  %q.less = sub i64 %q, 1
  %r.more = add i64 %r, %b
  %q.floor = select i1 %below, i64 %q.less, i64 %q
  %r.floor = select i1 %below, i64 %r.more, i64 %r
  %is.mod = icmp eq i64 %op, {MOD}
  %divided = select i1 %is.mod, i64 %r.floor, i64 %q.floor
  br label %result
bits:
  ; %b is a code of ``sizes.TYPE_CODES``: 0 double, 1 float, 2 a 64-bit and 3 a 32-bit integer.
  %double = sitofp i64 %a to double
  %double.i = bitcast double %double to i64
  %float = sitofp i64 %a to float
  %float.i = bitcast float %float to i32
  %float.wide = zext i32 %float.i to i64
  %low = and i64 %a, 4294967295
  %is.double = icmp eq i64 %b.what, 0
  %is.float = icmp eq i64 %b.what, 1
  %is.long = icmp eq i64 %b.what, 2
  %integer = select i1 %is.long, i64 %a, i64 %low
  %narrow = select i1 %is.float, i64 %float.wide, i64 %integer
  %raw = select i1 %is.double, i64 %double.i, i64 %narrow
  br label %result
le:
  %le.ok = icmp sle i64 %a, %b
  br label %test
eq:
  %eq.ok = icmp eq i64 %a, %b
  br label %test
ne:
  %ne.ok = icmp ne i64 %a, %b
  br label %test
test:
  %ok = phi i1 [ %le.ok, %le ], [ %eq.ok, %eq ], [ %ne.ok, %ne ]
  br i1 %ok, label %head, label %no
result:
  %value = phi i64 [ %extent, %size ], [ %step, %stride ], [ %exact, %checked ],
                   [ %divided, %quotient ], [ %raw, %bits ]
  call void @put(ptr %values, i64 %c.what, i64 %value)
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}
"""
