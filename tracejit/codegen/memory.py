"""The allocator for results and arenas, in IR: memory that an array leaves goes to the next.

Fresh memory above malloc's threshold comes from the kernel page by page, and a fault a page costs
more than most kernels spend on it (measured: a 32 MiB elementwise kernel took 75 ms with fresh
memory and 26 ms with recycled). NumPy lets an array bring its own allocator; ``make_array`` makes
arrays with this one, which keeps what it is given back, by size class, up to a cap. Small results
come from it too: its blocks start on a cache line, NumPy's on a quarter of one.

Size classes are four to a power of two, from 256 bytes. Blocks of 4 MiB and more are aligned to
2 MiB, and huge pages are asked for. Small blocks have a cap of their own, since a program that
drops a million of them should not find the cache full of what nothing else can use. Every function
but ``make_array`` may run without the GIL, hence the lock.
"""

from __future__ import annotations

from typing import NamedTuple

from tracejit.codegen import imports
from tracejit.codegen.template import fill
from tracejit.codegen.words import Words

MAKE_ARRAY, NEW_ARRAY, REFUSE, TRIM = "make_array", "new_array", "refuse", "trim"
FUNCTIONS = ("pool_malloc", "pool_calloc", "pool_realloc", "pool_free")


class Memory(Words):
    """The allocator's state, in i64."""

    LOCK = 0
    CACHED = 1  # bytes in the bins
    CAP = 2
    HITS = 3
    MISSES = 4
    RETURNED = 5  # blocks that went back to the system
    CACHED_SMALL = 6  # the same for blocks of at most SMALL bytes
    CAP_SMALL = 7
    USED = 8  # bytes in use
    PEAK = 9  # the most there ever were
    POISON = 10  # whether to overwrite blocks when they are handed out and given back (a test)
    BINS = 16
    SIZE = 16 + 256


# Blocks up to this many bytes count as small.
SMALL = 1 << 16


_TEXT = r"""
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i64 @malloc_usable_size(ptr)
declare i32 @madvise(ptr, i64, i32)
declare i32 @sched_yield()
declare void @Py_IncRef(ptr)
declare ptr @PyErr_Format(ptr, ptr, ...)
declare i32 @PyTraceMalloc_Track(i32, i64, i64)
declare i64 @llvm.ctlz.i64(i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

@message = private constant [{MESSAGE_SIZE} x i8] c"{MESSAGE}\00"

define internal ptr @slot(i64 %index) alwaysinline {
  %address = getelementptr i64, ptr inttoptr (i64 {STATE} to ptr), i64 %index
  ret ptr %address
}

define internal void @lock() {
entry:
  %at = call ptr @slot(i64 {LOCK})
  %first = atomicrmw xchg ptr %at, i64 1 acquire, align 8
  %taken = icmp ne i64 %first, 0
  br i1 %taken, label %wait, label %done
wait:
  ; Another thread has it, maybe one that does not run.
  %ignored = call i32 @sched_yield()
  %old = atomicrmw xchg ptr %at, i64 1 acquire, align 8
  %still = icmp ne i64 %old, 0
  br i1 %still, label %wait, label %done
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

define internal ptr @cached(i64 %bytes) {
  %small = icmp ule i64 %bytes, {SMALL}
  %index = select i1 %small, i64 {CACHED_SMALL}, i64 {CACHED}
  %at = call ptr @slot(i64 %index)
  ret ptr %at
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
  %small = icmp ult i64 %size, 256
  %at.least = select i1 %small, i64 256, i64 %size
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

; Bytes in use now; the caller has the lock.
define internal void @used(i64 %amount) {
  %at = call ptr @slot(i64 {USED})
  %old = load i64, ptr %at
  %new = add i64 %old, %amount
  store i64 %new, ptr %at
  %peak.at = call ptr @slot(i64 {PEAK})
  %peak = load i64, ptr %peak.at
  %higher = icmp sgt i64 %new, %peak
  %most = select i1 %higher, i64 %new, i64 %peak
  store i64 %most, ptr %peak.at
  ret void
}

define ptr @pool_malloc(ptr %context, i64 %size) {
entry:
  %bin = call i64 @bin(i64 %size)
  %bytes = call i64 @bytes(i64 %bin)
  %index = add i64 %bin, {BINS}
  %head.at = call ptr @slot(i64 %index)
  call void @lock()
  call void @used(i64 %bytes)
  %head = load ptr, ptr %head.at
  %empty = icmp eq ptr %head, null
  br i1 %empty, label %fresh, label %reuse
reuse:
  %next = load ptr, ptr %head
  store ptr %next, ptr %head.at
  %cached.at = call ptr @cached(i64 %bytes)
  %cached = load i64, ptr %cached.at
  %rest = sub i64 %cached, %bytes
  store i64 %rest, ptr %cached.at
  call void @count(i64 {HITS}, i64 1)
  call void @unlock()
  call void @poison(ptr %head, i64 %bytes)
  ret ptr %head
fresh:
  call void @count(i64 {MISSES}, i64 1)
  call void @unlock()
  %new = call ptr @system_block(i64 %bytes)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %trim, label %made
trim:
  ; The cache may hold what is missing, in other sizes.
  call void @trim()
  %again = call ptr @system_block(i64 %bytes)
  %lost = icmp eq ptr %again, null
  br i1 %lost, label %none, label %made
none:
  %minus = sub i64 0, %bytes
  call void @lock()
  call void @used(i64 %minus)
  call void @unlock()
  ret ptr null
made:
  %block = phi ptr [ %new, %fresh ], [ %again, %trim ]
  call void @poison(ptr %block, i64 %bytes)
  ret ptr %block
}

define internal ptr @system_block(i64 %bytes) {
entry:
  %large = icmp uge i64 %bytes, 4194304
  br i1 %large, label %huge, label %plain
plain:
  %block = call ptr @aligned_alloc(i64 64, i64 %bytes)
  ret ptr %block
huge:
  %area = call ptr @aligned_alloc(i64 2097152, i64 %bytes)
  %failed = icmp eq ptr %area, null
  br i1 %failed, label %out, label %advise
advise:
  %ignored = call i32 @madvise(ptr %area, i64 %bytes, i32 14)
  br label %out
out:
  ret ptr %area
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
  %cached.at = call ptr @cached(i64 %bytes)
  %cap.at = getelementptr i64, ptr %cached.at, i64 1
  %minus = sub i64 0, %bytes
  call void @lock()
  call void @used(i64 %minus)
  %cached = load i64, ptr %cached.at
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
  ; The old size is not told: the largest class that fits what malloc knows.
  %above = call i64 @bin(i64 %usable)
  %above.bytes = call i64 @bytes(i64 %above)
  %over = icmp ugt i64 %above.bytes, %usable
  %below = sub i64 %above, 1
  %bin = select i1 %over, i64 %below, i64 %above
  %bytes = call i64 @bytes(i64 %bin)
  %minus = sub i64 0, %bytes
  call void @lock()
  call void @used(i64 %minus)
  call void @unlock()
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
  %cached.at = call ptr @cached(i64 %bytes)
  %cached = load i64, ptr %cached.at
  %left = sub i64 %cached, %bytes
  store i64 %left, ptr %cached.at
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

; Raise that %nbytes cannot be had.
define void @refuse(i64 %nbytes) {
  %error = inttoptr i64 {OUT_OF_MEMORY} to ptr
  %none = call ptr (ptr, ptr, ...) @PyErr_Format(ptr %error, ptr @message, i64 %nbytes)
  ret void
}

; A new array of %dtype (a borrowed reference) and %nbytes > 0. NumPy's own arrays of this
; allocator would need its handler switched for a moment, in a context variable: 0.1 us more.
define ptr @make_array(i32 %rank, ptr %shape, ptr %dtype, i64 %nbytes) {
entry:
  %block = call ptr @pool_malloc(ptr null, i64 %nbytes)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %memory, label %make
memory:
  call void @refuse(i64 %nbytes)
  ret ptr null
make:
  call void @Py_IncRef(ptr %dtype)
  %from = inttoptr i64 {FROM_DESCR} to ptr
  %type = inttoptr i64 {ARRAY_TYPE} to ptr
  %array = call ptr %from(ptr %type, ptr %dtype, i32 %rank, ptr %shape, ptr null, ptr %block,
                          i32 {CARRAY}, ptr null)
  %unmade = icmp eq ptr %array, null
  br i1 %unmade, label %drop, label %own
drop:
  call void @pool_free(ptr null, ptr %block, i64 %nbytes)
  ret ptr null
own:
  ; The array owns its memory, and gives it back through the handler.
  %flags.at = getelementptr i8, ptr %array, i64 64
  %flags = load i32, ptr %flags.at
  %owning = or i32 %flags, 4
  store i32 %owning, ptr %flags.at
  %capsule = inttoptr i64 {HANDLER} to ptr
  call void @Py_IncRef(ptr %capsule)
  %handler.at = getelementptr i8, ptr %array, i64 88
  store ptr %capsule, ptr %handler.at
  %address = ptrtoint ptr %block to i64
  %tracked = call i32 @PyTraceMalloc_Track(i32 {NUMPY_DOMAIN}, i64 %address, i64 %nbytes)
  ret ptr %array
}

; The same as a method without arguments of the tuple (i64 array of rank, bytes and sizes; dtype).
define ptr @new_array(ptr %self, ptr %ignored) {
  %words.at = getelementptr i8, ptr %self, i64 24
  %words.object = load ptr, ptr %words.at
  %dtype.at = getelementptr i8, ptr %self, i64 32
  %dtype = load ptr, ptr %dtype.at
  %data.at = getelementptr i8, ptr %words.object, i64 16
  %data = load ptr, ptr %data.at
  %rank = load i32, ptr %data
  %nbytes.at = getelementptr i64, ptr %data, i64 1
  %nbytes = load i64, ptr %nbytes.at
  %sizes = getelementptr i64, ptr %data, i64 2
  %array = call ptr @make_array(i32 %rank, ptr %sizes, ptr %dtype, i64 %nbytes)
  ret ptr %array
}
"""


# NumPy's flags of a C-contiguous, aligned, writeable array, and its domain in tracemalloc.
_CARRAY = 0x0001 | 0x0100 | 0x0400
_NUMPY_DOMAIN = 389047
_MESSAGE = "cannot allocate %zd bytes"


class Addresses(NamedTuple):
    """What the allocator's code imports: addresses of its state, objects and a function."""

    state: int  # ``Memory.SIZE`` i64
    handler: int  # the capsule with its functions
    array_type: int
    from_descr: int  # ``PyArray_NewFromDescr``
    out_of_memory: int  # the type of error to raise


def emit_memory() -> str:
    """Return the allocator's module; it imports ``Addresses``."""
    words: dict[str, object] = dict(Memory.items())
    words |= {name.upper(): imports.reference(name) for name in Addresses._fields}
    words |= {"MESSAGE": _MESSAGE, "MESSAGE_SIZE": len(_MESSAGE) + 1, "SMALL": SMALL}
    words |= {"CARRAY": _CARRAY, "NUMPY_DOMAIN": _NUMPY_DOMAIN}
    return imports.declarations(Addresses._fields) + fill(_TEXT, words)
