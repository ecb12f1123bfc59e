"""The allocator for large results, in IR: memory that an array leaves goes to the next.

Fresh memory above malloc's threshold comes from the kernel page by page, and a fault a page costs
more than most kernels spend on it (measured: a 32 MiB elementwise kernel took 75 ms with fresh
memory and 26 ms with recycled). NumPy lets an array bring its own allocator; ``make_array`` makes
arrays with this one, which keeps what it is given back, by size class, up to a cap.

Size classes are four to a power of two. Blocks of 4 MiB and more are aligned to 2 MiB, and huge
pages are asked for. Every function but ``make_array`` may run without the GIL, hence the lock.
"""

from __future__ import annotations

from enum import IntEnum

MAKE_ARRAY, TRIM = "make_array", "trim"
FUNCTIONS = ("pool_malloc", "pool_calloc", "pool_realloc", "pool_free")


class Memory(IntEnum):
    """The allocator's state, in i64."""

    LOCK = 0
    CACHED = 1  # bytes in the bins
    CAP = 2
    HITS = 3
    MISSES = 4
    RETURNED = 5  # blocks that went back to the system
    POISON = 6  # whether to overwrite blocks when they are handed out and given back (a test)
    BINS = 16
    SIZE = 16 + 256


_TEXT = r"""
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i64 @malloc_usable_size(ptr)
declare i32 @madvise(ptr, i64, i32)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare i64 @llvm.ctlz.i64(i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

define internal ptr @slot(i64 %index) alwaysinline {
  %address = getelementptr i64, ptr inttoptr (i64 {STATE} to ptr), i64 %index
  ret ptr %address
}

define internal void @lock() {
entry:
  %at = call ptr @slot(i64 {LOCK})
  br label %try
try:
  %old = atomicrmw xchg ptr %at, i64 1 acquire, align 8
  %taken = icmp ne i64 %old, 0
  br i1 %taken, label %try, label %done
done:
  ret void
}

define internal void @unlock() {
  %at = call ptr @slot(i64 {LOCK})
  store atomic i64 0, ptr %at release, align 8
  ret void
}

; Overwrite what a block held: a read of it would show as NaN, or as -1.
define internal void @poison(ptr %block, i64 %bytes) {
  %at = call ptr @slot(i64 {POISON})
  %on = load i64, ptr %at
  %size = mul i64 %on, %bytes
  call void @llvm.memset.p0.i64(ptr %block, i8 -1, i64 %size, i1 false)
  ret void
}

define internal void @count(i64 %index, i64 %amount) {
  %at = call ptr @slot(i64 %index)
  %old = load i64, ptr %at
  %new = add i64 %old, %amount
  store i64 %new, ptr %at
  ret void
}

; The bin of a size: the exponent and the next two bits of size − 1.
define internal i64 @bin(i64 %size) {
  %small = icmp ult i64 %size, 65536
  %at.least = select i1 %small, i64 65536, i64 %size
  %n = sub i64 %at.least, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %n, i1 true)
  %k = sub i64 63, %zeros
  %shift = sub i64 %k, 2
  %high = lshr i64 %n, %shift
  %sub = and i64 %high, 3
  %four = mul i64 %k, 4
  %bin = add i64 %four, %sub
  ret i64 %bin
}

define internal i64 @bytes(i64 %bin) {
  %k = lshr i64 %bin, 2
  %sub = and i64 %bin, 3
  %parts = add i64 %sub, 5
  %shift = sub i64 %k, 2
  %bytes = shl i64 %parts, %shift
  ret i64 %bytes
}

define ptr @pool_malloc(ptr %context, i64 %size) {
entry:
  %bin = call i64 @bin(i64 %size)
  %bytes = call i64 @bytes(i64 %bin)
  %index = add i64 %bin, {BINS}
  %head.at = call ptr @slot(i64 %index)
  call void @lock()
  %head = load ptr, ptr %head.at
  %empty = icmp eq ptr %head, null
  br i1 %empty, label %fresh, label %reuse
reuse:
  %next = load ptr, ptr %head
  store ptr %next, ptr %head.at
  %minus = sub i64 0, %bytes
  call void @count(i64 {CACHED}, i64 %minus)
  call void @count(i64 {HITS}, i64 1)
  call void @unlock()
  call void @poison(ptr %head, i64 %bytes)
  ret ptr %head
fresh:
  call void @count(i64 {MISSES}, i64 1)
  call void @unlock()
  %large = icmp uge i64 %bytes, 4194304
  br i1 %large, label %huge, label %plain
plain:
  %block = call ptr @aligned_alloc(i64 64, i64 %bytes)
  %unmade = icmp eq ptr %block, null
  br i1 %unmade, label %out, label %made
huge:
  %up = add i64 %bytes, 2097151
  %whole = and i64 %up, -2097152
  %area = call ptr @aligned_alloc(i64 2097152, i64 %whole)
  %failed = icmp eq ptr %area, null
  br i1 %failed, label %out, label %advise
advise:
  %ignored = call i32 @madvise(ptr %area, i64 %whole, i32 14)
  br label %made
made:
  %new = phi ptr [ %block, %plain ], [ %area, %advise ]
  call void @poison(ptr %new, i64 %bytes)
  ret ptr %new
out:
  ret ptr null
}

define void @pool_free(ptr %context, ptr %block, i64 %size) {
entry:
  %none = icmp eq ptr %block, null
  br i1 %none, label %out, label %some
some:
  %bin = call i64 @bin(i64 %size)
  %bytes = call i64 @bytes(i64 %bin)
  call void @poison(ptr %block, i64 %size)
  %index = add i64 %bin, {BINS}
  %head.at = call ptr @slot(i64 %index)
  call void @lock()
  %cached.at = call ptr @slot(i64 {CACHED})
  %cached = load i64, ptr %cached.at
  %cap.at = call ptr @slot(i64 {CAP})
  %cap = load i64, ptr %cap.at
  %after = add i64 %cached, %bytes
  %full = icmp ugt i64 %after, %cap
  br i1 %full, label %return, label %keep
keep:
  %head = load ptr, ptr %head.at
  store ptr %head, ptr %block
  store ptr %block, ptr %head.at
  store i64 %after, ptr %cached.at
  call void @unlock()
  ret void
return:
  call void @count(i64 {RETURNED}, i64 1)
  call void @unlock()
  call void @free(ptr %block)
  ret void
out:
  ret void
}

define ptr @pool_calloc(ptr %context, i64 %count, i64 %each) {
entry:
  %size = mul i64 %count, %each
  %block = call ptr @pool_malloc(ptr %context, i64 %size)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %out, label %clear
clear:
  call void @llvm.memset.p0.i64(ptr %block, i8 0, i64 %size, i1 false)
  br label %out
out:
  ret ptr %block
}

define ptr @pool_realloc(ptr %context, ptr %old, i64 %size) {
entry:
  %block = call ptr @pool_malloc(ptr %context, i64 %size)
  %failed = icmp eq ptr %block, null
  %none = icmp eq ptr %old, null
  %stop = or i1 %failed, %none
  br i1 %stop, label %out, label %move
move:
  %usable = call i64 @malloc_usable_size(ptr %old)
  %less = icmp ult i64 %usable, %size
  %copied = select i1 %less, i64 %usable, i64 %size
  call void @llvm.memcpy.p0.p0.i64(ptr %block, ptr %old, i64 %copied, i1 false)
  call void @free(ptr %old)
  br label %out
out:
  ret ptr %block
}

; Give every cached block back to the system.
define void @trim() {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ], [ %i, %block ]
  %more = icmp slt i64 %i, 256
  br i1 %more, label %look, label %out
look:
  %index = add i64 %i, {BINS}
  %at = call ptr @slot(i64 %index)
  call void @lock()
  %first = load ptr, ptr %at
  %empty = icmp eq ptr %first, null
  br i1 %empty, label %next, label %block
block:
  %rest = load ptr, ptr %first
  store ptr %rest, ptr %at
  %bytes = call i64 @bytes(i64 %i)
  %minus = sub i64 0, %bytes
  call void @count(i64 {CACHED}, i64 %minus)
  call void @count(i64 {RETURNED}, i64 1)
  call void @unlock()
  call void @free(ptr %first)
  br label %head
next:
  call void @unlock()
  %i.next = add i64 %i, 1
  br label %head
out:
  ret void
}

; A new array of %dtype (a borrowed reference), with recycled memory where it is %large.
define ptr @make_array(i32 %rank, ptr %shape, ptr %dtype, i64 %large) {
entry:
  call void @Py_IncRef(ptr %dtype)
  %empty = inttoptr i64 {PYARRAY_EMPTY} to ptr
  %recycle = icmp ne i64 %large, 0
  br i1 %recycle, label %pooled, label %usual
usual:
  %small = call ptr %empty(i32 %rank, ptr %shape, ptr %dtype, i32 0)
  ret ptr %small
pooled:
  %set = inttoptr i64 {SET_HANDLER} to ptr
  %before = call ptr %set(ptr inttoptr (i64 {HANDLER} to ptr))
  %failed = icmp eq ptr %before, null
  br i1 %failed, label %usual, label %make
make:
  %array = call ptr %empty(i32 %rank, ptr %shape, ptr %dtype, i32 0)
  %ours = call ptr %set(ptr %before)
  call void @Py_DecRef(ptr %before)
  %lost = icmp eq ptr %ours, null
  br i1 %lost, label %out, label %drop
drop:
  call void @Py_DecRef(ptr %ours)
  br label %out
out:
  ret ptr %array
}
"""


def emit_memory(state: int, handler: int, set_handler: int, empty: int) -> str:
    """Return the allocator's module.

    ``state`` is the address of its i64 state, ``handler`` of the capsule with its functions,
    ``set_handler`` and ``empty`` those of NumPy's ``PyDataMem_SetHandler`` and ``PyArray_Empty``.
    """
    words = {m.name: int(m) for m in Memory}
    words |= {"STATE": state, "HANDLER": handler, "SET_HANDLER": set_handler}
    words["PYARRAY_EMPTY"] = empty
    text = _TEXT
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    return text
