"""The driver: native code that runs a list of kernels, alone or with the pool's workers.

This is the one piece of IR that is the same for every program, so it stands here as text.

A *record* (``RECORD`` i64, see ``pool.py``) is one kernel call: code address, index of its first
pointer, address of its sizes, range [begin, end), grain, and the place of a private workspace
(``SLOT``, −1 for none; ``STRIDE`` bytes per worker; ``COUNT`` pointers to copy), and a rough time
(``NS``).
``driver`` runs records in order, from ``first`` on, and returns the number of the one to go on
with: ``count`` when all have run, less where it was told that it may stop (``stops``) and tens of
milliseconds have passed, so that the caller can look for signals. A range longer than its grain is
cut into chunks of ``grain``, whatever the number of threads; a caller without workers runs it
whole.

The pool is a block of memory (offsets in bytes there) and native threads parked in ``worker``.

- ``WORD`` holds, from the high bits on, the job's number, the first chunk that nobody has claimed,
  and how many there are from that on. A chunk is claimed by a compare-and-swap: it can only succeed
  while the job is current, so a worker that wakes late finds nothing and touches nothing, and the
  caller waits for claimed chunks only (``DONE``), never for a worker. Numbers come round after 2²⁰
  jobs; a claim is right even then, since all that it reads of the job is read after it.
- The caller claims chunks as well, from the front, and the workers from the back. So a chunk mostly
  runs on the core that ran it in the kernel before and in the call before, whose cache has its
  data. On a machine whose other core is taken the caller does them all.
- Of large kernels in one call every second one goes back: the caller claims from where it had come
  in the one before down to the front, and the workers from there up to the back; chunks count as
  a ring. So a kernel begins with what the caches hold from the end of the one before, and each core
  keeps its part: normalised columns of 4000×1000 float32 take 0.95 of the time, so does the same
  array normalised as a whole.
- ``BUSY`` belongs to the caller that uses the workers. A second caller, or a nested one, finds it
  taken and runs its chunks itself.
- An idle worker spins for a while, since work comes in bursts, then parks on a condition variable.
  It spins for twice the pause before the newest job (``GAP``; ``SPIN`` ticks at most), and hardly
  at all where that was longer: a spinning worker takes a core from somebody on a shared machine.
  At least it spins for some 20 µs, since the kernels of one program follow each other at once, and
  the caller has its last chunk to end: with 3 µs, the worker of a variance in two kernels slept
  through half of the calls.
  To park, it counts itself in ``SLEEPERS`` before it looks at ``WORD`` a last time, and the caller
  writes ``WORD`` before it reads ``SLEEPERS``: one of the two sees the other.
- To wake workers costs the caller 10 to 20 µs in a virtual machine (measured), so it does that
  once work of ``WAKE_NS`` has come in a row without them (``MISSED``).
- Workers stay off the caller's CPU (``keep_away``). A scheduler that packs threads onto few CPUs,
  as those of some virtual machines do, wakes a worker where its caller is, and since the caller
  never blocks it leaves it there for milliseconds: of bursts of 16 calls of 0.25 ms each, after
  pauses, all ran on one of two CPUs (measured); kept away, a call takes 0.13 ms from the third on.
"""

from __future__ import annotations

from tracejit.codegen.pool import (
    AVOID_TICKS,
    CHUNK_BITS,
    CPU_BYTES,
    MOST_CHUNKS,
    RECORD,
    TURN_NS,
    WAKE_NS,
    Field,
    Pool,
)
from tracejit.codegen.template import fill
from tracejit.schedule.grain import NEVER

_TEXT = r"""
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()
declare ptr @pthread_self()
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.{COUNTER}()

; A counter that runs at a constant rate.
define i64 @ticks() {
  %now = call i64 @llvm.{COUNTER}()
  ret i64 %now
}

define internal i64 @field(ptr %record, i64 %index) alwaysinline {
  %address = getelementptr i64, ptr %record, i64 %index
  %value = load i64, ptr %address
  ret i64 %value
}

define internal ptr @at(ptr %pool, i64 %offset) alwaysinline {
  %address = getelementptr i8, ptr %pool, i64 %offset
  ret ptr %address
}

; Run [begin, end) of a record as worker %id (the caller is 0).
define internal void @call_range(ptr %record, ptr %table, i64 %begin, i64 %end, i64 %id) {
entry:
  %code.i = call i64 @field(ptr %record, i64 {CODE})
  %code = inttoptr i64 %code.i to ptr
  %first = call i64 @field(ptr %record, i64 {POINTERS})
  %pointers = getelementptr i64, ptr %table, i64 %first
  %sizes.i = call i64 @field(ptr %record, i64 {SIZES})
  %sizes = inttoptr i64 %sizes.i to ptr
  %slot = call i64 @field(ptr %record, i64 {SLOT})
  %private = icmp sge i64 %slot, 0
  %elsewhere = icmp ne i64 %id, 0
  %copy = and i1 %private, %elsewhere
  br i1 %copy, label %copied, label %shared
shared:
  call void %code(ptr %pointers, ptr %sizes, i64 %begin, i64 %end)
  ret void
copied:
  %count = call i64 @field(ptr %record, i64 {COUNT})
  %own = alloca i64, i64 %count, align 64
  %bytes = mul i64 %count, 8
  call void @llvm.memcpy.p0.p0.i64(ptr %own, ptr %pointers, i64 %bytes, i1 false)
  %stride = call i64 @field(ptr %record, i64 {STRIDE})
  %shift = mul i64 %stride, %id
  %place = getelementptr i64, ptr %own, i64 %slot
  %base = load i64, ptr %place
  %moved = add i64 %base, %shift
  store i64 %moved, ptr %place
  call void %code(ptr %own, ptr %sizes, i64 %begin, i64 %end)
  ret void
}

; Claim chunks of the current job and run them until none is left. True if any was claimed.
define internal i1 @claim_and_run(ptr %pool, i64 %id) {
entry:
  %word.at = call ptr @at(ptr %pool, i64 {WORD})
  %done.at = call ptr @at(ptr %pool, i64 {DONE})
  %job = call ptr @at(ptr %pool, i64 {JOB})
  %caller = icmp eq i64 %id, 0
  br label %look
look:
  %some = phi i1 [ false, %entry ], [ %some, %lost ], [ true, %run ]
  %word = load atomic i64, ptr %word.at acquire, align 8
  %left = and i64 %word, {MOST_CHUNKS}
  %none = icmp eq i64 %left, 0
  br i1 %none, label %out, label %try
try:
  %rest = sub i64 %word, 1
  %rest.front = add i64 %rest, {FRONT}
  %less = select i1 %caller, i64 %rest.front, i64 %rest
  %swap = cmpxchg ptr %word.at, i64 %word, i64 %less acq_rel acquire, align 8
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %run, label %lost
lost:
  br label %look
run:
  %record.i = call i64 @field(ptr %job, i64 0)
  %record = inttoptr i64 %record.i to ptr
  %table.i = call i64 @field(ptr %job, i64 1)
  %table = inttoptr i64 %table.i to ptr
  %shifted = lshr i64 %word, {CHUNK_BITS}
  %front = and i64 %shifted, {MOST_CHUNKS}
  %end.chunk = add i64 %front, %left
  %back = sub i64 %end.chunk, 1
  %claimed = select i1 %caller, i64 %front, i64 %back
  %chunks = call i64 @field(ptr %job, i64 2)
  %middle = call i64 @field(ptr %job, i64 3)
  %forth = icmp slt i64 %middle, 0
  %below = sub i64 %middle, 1
  %down = sub i64 %below, %claimed
  %under = icmp slt i64 %down, 0
  %round = add i64 %down, %chunks
  %around = select i1 %under, i64 %round, i64 %down
  %index = select i1 %forth, i64 %claimed, i64 %around
  %begin0 = call i64 @field(ptr %record, i64 {BEGIN})
  %end0 = call i64 @field(ptr %record, i64 {END})
  %grain = call i64 @field(ptr %record, i64 {GRAIN})
  %offset = mul i64 %index, %grain
  %begin = add i64 %begin0, %offset
  %limit = add i64 %begin, %grain
  %over = icmp sgt i64 %limit, %end0
  %end = select i1 %over, i64 %end0, i64 %limit
  call void @call_range(ptr %record, ptr %table, i64 %begin, i64 %end, i64 %id)
  %before = atomicrmw add ptr %done.at, i64 1 release, align 8
  br label %look
out:
  ret i1 %some
}

; Share a record's chunks with the workers, back from chunk %middle unless that is -1; the caller
; holds BUSY. Return how many it has run itself.
define internal i64 @share(ptr %pool, ptr %record, ptr %table, i64 %chunks, i64 %middle) {
entry:
  %word.at = call ptr @at(ptr %pool, i64 {WORD})
  %done.at = call ptr @at(ptr %pool, i64 {DONE})
  %job = call ptr @at(ptr %pool, i64 {JOB})
  %record.i = ptrtoint ptr %record to i64
  %table.i = ptrtoint ptr %table to i64
  store i64 %record.i, ptr %job
  %job.1 = getelementptr i64, ptr %job, i64 1
  store i64 %table.i, ptr %job.1
  %job.2 = getelementptr i64, ptr %job, i64 2
  store i64 %chunks, ptr %job.2
  %job.3 = getelementptr i64, ptr %job, i64 3
  store i64 %middle, ptr %job.3
  store atomic i64 0, ptr %done.at monotonic, align 8
  %ended.at = call ptr @at(ptr %pool, i64 {ENDED})
  %gap.at = call ptr @at(ptr %pool, i64 {GAP})
  %now = call i64 @ticks()
  %ended = load i64, ptr %ended.at
  %gap = sub i64 %now, %ended
  store atomic i64 %gap, ptr %gap.at monotonic, align 8
  call void @keep_away(ptr %pool, i64 %now)
  %old = load atomic i64, ptr %word.at monotonic, align 8
  %number = and i64 %old, {NUMBERS}
  %next = add i64 %number, {NUMBER}
  %word = or i64 %next, %chunks
  store atomic i64 %word, ptr %word.at seq_cst, align 8
  %sleepers.at = call ptr @at(ptr %pool, i64 {SLEEPERS})
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %consider, label %work
consider:
  %missed.at = call ptr @at(ptr %pool, i64 {MISSED})
  %spin.at = call ptr @at(ptr %pool, i64 {SPIN})
  %spin = load i64, ptr %spin.at
  %single = icmp sgt i64 %gap, %spin
  %missed = load i64, ptr %missed.at
  %before = select i1 %single, i64 0, i64 %missed
  %ns = call i64 @field(ptr %record, i64 {NS})
  %in.row = add i64 %before, %ns
  %worth = icmp sge i64 %in.row, {WAKE_NS}
  %kept = select i1 %worth, i64 0, i64 %in.row
  store i64 %kept, ptr %missed.at
  br i1 %worth, label %wake, label %work
wake:
  %mutex = call ptr @at(ptr %pool, i64 {MUTEX})
  %condition = call ptr @at(ptr %pool, i64 {CONDITION})
  ; Once we had the mutex, a worker waits for the signal or will see WORD. It is free again before
  ; they wake, or they would wait for it at once.
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  %w = call i32 @pthread_cond_broadcast(ptr %condition)
  br label %work
work:
  %ran = call i1 @claim_and_run(ptr %pool, i64 0)
  br label %wait
wait:
  %turn = phi i64 [ 0, %work ], [ %turn.next, %again ]
  %done = load atomic i64, ptr %done.at acquire, align 8
  %all = icmp eq i64 %done, %chunks
  br i1 %all, label %out, label %idle
idle:
  %turn.next = add i64 %turn, 1
  %long = icmp sgt i64 %turn, 4000
  br i1 %long, label %yield, label %pause
yield:
  %y = call i32 @sched_yield()
  br label %again
pause:
  {PAUSE}
  br label %again
again:
  br label %wait
out:
  %end = call i64 @ticks()
  store i64 %end, ptr %ended.at
  %last = load atomic i64, ptr %word.at monotonic, align 8
  %last.front = lshr i64 %last, {CHUNK_BITS}
  %mine = and i64 %last.front, {MOST_CHUNKS}
  ret i64 %mine
}

define i64 @driver(ptr %records, i64 %first, i64 %count, ptr %table, ptr %pool, i64 %stops) {
entry:
  %has.pool = icmp ne ptr %pool, null
  %whole = icmp eq i64 %stops, 0
  br i1 %whole, label %head, label %watch
watch:
  %start = call i64 @ticks()
  br label %head
head:
  %since = phi i64 [ 0, %entry ], [ %start, %watch ], [ %since, %next ], [ %since, %look ]
  %i = phi i64 [ %first, %entry ], [ %first, %watch ], [ %i.next, %next ], [ %i.next, %look ]
  ; The last large kernel that went forth: its chunks, and those of them that the caller ran.
  %forth = phi i64 [ 0, %entry ], [ 0, %watch ], [ %forth.next, %next ], [ %forth.next, %look ]
  %own = phi i64 [ 0, %entry ], [ 0, %watch ], [ %own.next, %next ], [ %own.next, %look ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %out
body:
  %at = mul i64 %i, {RECORD}
  %record = getelementptr i64, ptr %records, i64 %at
  %begin = call i64 @field(ptr %record, i64 {BEGIN})
  %end = call i64 @field(ptr %record, i64 {END})
  %grain = call i64 @field(ptr %record, i64 {GRAIN})
  %length = sub i64 %end, %begin
  %cut = icmp slt i64 %grain, {NEVER}
  %long = icmp sgt i64 %length, %grain
  %shareable = and i1 %long, %has.pool
  br i1 %shareable, label %parallel, label %serial
parallel:
  %limit.at = call ptr @at(ptr %pool, i64 {LIMIT})
  %limit = load atomic i64, ptr %limit.at monotonic, align 8
  %alone = icmp sle i64 %limit, 0
  br i1 %alone, label %serial, label %claim
claim:
  %busy.at = call ptr @at(ptr %pool, i64 {BUSY})
  %swap = cmpxchg ptr %busy.at, i64 0, i64 1 acq_rel monotonic, align 8
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %shared, label %serial
shared:
  %up = add i64 %length, %grain
  %up.1 = sub i64 %up, 1
  %chunks = udiv i64 %up.1, %grain
  %ns = call i64 @field(ptr %record, i64 {NS})
  %large = icmp sge i64 %ns, {TURN_NS}
  %before = icmp sgt i64 %forth, 0
  %turns = and i1 %large, %before
  %forth.1 = select i1 %before, i64 %forth, i64 1
  %part = mul i64 %own, %chunks
  %place = udiv i64 %part, %forth.1
  %middle = select i1 %turns, i64 %place, i64 -1
  %ran = call i64 @share(ptr %pool, ptr %record, ptr %table, i64 %chunks, i64 %middle)
  store atomic i64 0, ptr %busy.at release, align 8
  %forth.new = select i1 %turns, i64 0, i64 %chunks
  %forth.shared = select i1 %large, i64 %forth.new, i64 %forth
  %own.shared = select i1 %large, i64 %ran, i64 %own
  br label %next
serial:
  call void @call_range(ptr %record, ptr %table, i64 %begin, i64 %end, i64 0)
  br label %next
next:
  %forth.next = phi i64 [ %forth.shared, %shared ], [ %forth, %serial ]
  %own.next = phi i64 [ %own.shared, %shared ], [ %own, %serial ]
  %i.next = add i64 %i, 1
  ; Short kernels do not look at the time each.
  %sixteen = and i64 %i.next, 15
  %rare = icmp eq i64 %sixteen, 0
  %looks = or i1 %rare, %cut
  %stays = xor i1 %looks, true
  %ignores = or i1 %whole, %stays
  br i1 %ignores, label %head, label %look
look:
  %now = call i64 @ticks()
  %took = sub i64 %now, %since
  %soon = icmp slt i64 %took, {STRETCH}
  br i1 %soon, label %head, label %early
early:
  ret i64 %i.next
out:
  ret i64 %count
}

define void @setup(ptr %pool) {
  %mutex = call ptr @at(ptr %pool, i64 {MUTEX})
  %condition = call ptr @at(ptr %pool, i64 {CONDITION})
  %a = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %b = call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}

; The life of worker %id (from 1): run what there is, spin, park; return once STOP is set.
define void @worker(ptr %pool, i64 %id) {
entry:
  %word.at = call ptr @at(ptr %pool, i64 {WORD})
  %stop.at = call ptr @at(ptr %pool, i64 {STOP})
  %limit.at = call ptr @at(ptr %pool, i64 {LIMIT})
  %spin.at = call ptr @at(ptr %pool, i64 {SPIN})
  %sleepers.at = call ptr @at(ptr %pool, i64 {SLEEPERS})
  %mutex = call ptr @at(ptr %pool, i64 {MUTEX})
  %condition = call ptr @at(ptr %pool, i64 {CONDITION})
  %born = call i64 @ticks()
  %self = call ptr @pthread_self()
  %own.i = sub i64 %id, 1
  %threads = call ptr @at(ptr %pool, i64 {THREADS})
  %own = getelementptr ptr, ptr %threads, i64 %own.i
  store atomic ptr %self, ptr %own seq_cst, align 8
  ; A caller that has told all workers before did not know of this one.
  %avoided.at = call ptr @at(ptr %pool, i64 {AVOIDED})
  store atomic i64 -1, ptr %avoided.at seq_cst, align 8
  br label %look
look:
  ; Without a job since %since, the number of the last one (in WORD) being %last.
  %since = phi i64 [ %born, %entry ], [ %rested, %news.done ], [ %since, %pause ],
                   [ %since, %awake ]
  %last = phi i64 [ 0, %entry ], [ %number, %news.done ], [ %last, %pause ], [ %last, %awake ]
  %patience = phi i64 [ 0, %entry ], [ %patient, %news.done ], [ %patience, %pause ],
                      [ %patience, %awake ]
  %stop = load atomic i64, ptr %stop.at acquire, align 8
  %stopping = icmp ne i64 %stop, 0
  br i1 %stopping, label %out, label %check
check:
  %limit = load atomic i64, ptr %limit.at monotonic, align 8
  %allowed = icmp sle i64 %id, %limit
  %word = load atomic i64, ptr %word.at acquire, align 8
  %number = and i64 %word, {NUMBERS}
  %new = icmp ne i64 %number, %last
  %go = and i1 %allowed, %new
  %now = call i64 @ticks()
  %idled = sub i64 %now, %since
  br i1 %go, label %news, label %idle
news:
  %most = load atomic i64, ptr %spin.at monotonic, align 8
  %gap.at = call ptr @at(ptr %pool, i64 {GAP})
  %gap = load atomic i64, ptr %gap.at monotonic, align 8
  %twice = mul i64 %gap, 2
  %brief = icmp sle i64 %gap, %most
  %enough = icmp sgt i64 %twice, {LEAST}
  %wished = select i1 %enough, i64 %twice, i64 {LEAST}
  %worth = select i1 %brief, i64 %wished, i64 {LEAST}
  %over = icmp sgt i64 %worth, %most
  %patient = select i1 %over, i64 %most, i64 %worth
  %ran = call i1 @claim_and_run(ptr %pool, i64 %id)
  br label %news.done
news.done:
  %rested = call i64 @ticks()
  br label %look
idle:
  %spinning = icmp slt i64 %idled, %patience
  br i1 %spinning, label %pause, label %park
pause:
  {PAUSE}
  br label %look
park:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %s = atomicrmw add ptr %sleepers.at, i64 1 seq_cst, align 8
  br label %recheck
recheck:
  %stop2 = load atomic i64, ptr %stop.at seq_cst, align 8
  %stopping2 = icmp ne i64 %stop2, 0
  %limit2 = load atomic i64, ptr %limit.at monotonic, align 8
  %allowed2 = icmp sle i64 %id, %limit2
  %word2 = load atomic i64, ptr %word.at seq_cst, align 8
  %number2 = and i64 %word2, {NUMBERS}
  %new2 = icmp ne i64 %number2, %last
  %go2 = and i1 %allowed2, %new2
  %up = or i1 %stopping2, %go2
  br i1 %up, label %awake, label %sleep
sleep:
  %c = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %recheck
awake:
  %t = atomicrmw sub ptr %sleepers.at, i64 1 seq_cst, align 8
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %look
out:
  store atomic ptr null, ptr %own release, align 8
  ret void
}
"""

_KEEP_AWAY = r"""
declare i32 @sched_getcpu()
declare i32 @pthread_setaffinity_np(ptr, i64, ptr)

; Let the workers run on all CPUs but the caller's, at time %now. Where there is no other, or a
; thread has ended, the system refuses, and they stay where they are.
define internal void @keep_away(ptr %pool, i64 %now) {
entry:
  %cpu.32 = call i32 @sched_getcpu()
  %cpu = zext i32 %cpu.32 to i64
  %avoided.at = call ptr @at(ptr %pool, i64 {AVOIDED})
  %avoided = load atomic i64, ptr %avoided.at monotonic, align 8
  %moved = icmp ne i64 %cpu, %avoided
  %known = icmp ult i64 %cpu, {CPUS}
  %other = and i1 %moved, %known
  br i1 %other, label %pause, label %out
pause:
  %told.at = getelementptr i64, ptr %avoided.at, i64 1
  %told = load i64, ptr %told.at
  %since = sub i64 %now, %told
  %late = icmp ugt i64 %since, {AVOID_TICKS}
  br i1 %late, label %tell, label %out
tell:
  store atomic i64 %cpu, ptr %avoided.at seq_cst, align 8
  store i64 %now, ptr %told.at
  %set = alloca i8, i64 {CPU_BYTES}, align 8
  %allowed = call ptr @at(ptr %pool, i64 {ALLOWED})
  call void @llvm.memcpy.p0.p0.i64(ptr %set, ptr %allowed, i64 {CPU_BYTES}, i1 false)
  %byte = lshr i64 %cpu, 3
  %bit.i = and i64 %cpu, 7
  %bit.8 = trunc i64 %bit.i to i8
  %bit = shl i8 1, %bit.8
  %others = xor i8 %bit, -1
  %byte.at = getelementptr i8, ptr %set, i64 %byte
  %before = load i8, ptr %byte.at
  %after = and i8 %before, %others
  store i8 %after, ptr %byte.at
  %count.at = call ptr @at(ptr %pool, i64 {WORKERS})
  %count = load i64, ptr %count.at
  %threads = call ptr @at(ptr %pool, i64 {THREADS})
  for 0 <= %i < %count
  %thread.at = getelementptr ptr, ptr %threads, i64 %i
  %thread = load atomic ptr, ptr %thread.at seq_cst, align 8
  %runs = icmp ne ptr %thread, null
  br i1 %runs, label %move, label %i.next
move:
  %e = call i32 @pthread_setaffinity_np(ptr %thread, i64 {CPU_BYTES}, ptr %set)
  br label %i.next
  next %i
  br label %out
out:
  ret void
}
"""

# Elsewhere a thread cannot be bound.
_STAY = r"""
define internal void @keep_away(ptr %pool, i64 %now) {
  ret void
}
"""


def emit_driver(x86: bool, linux: bool) -> str:
    """Return the module with ``driver``, ``worker``, ``setup`` and ``ticks``."""
    pause = 'call void asm sideeffect "pause", ""()' if x86 else ""
    words: dict[str, object] = {**dict(Field.items()), **dict(Pool.items())}
    words |= {
        "RECORD": RECORD, "WAKE_NS": WAKE_NS, "TURN_NS": TURN_NS, "PAUSE": pause,
        # Elsewhere the cycle counter is for the kernel alone; this one is for programs.
        "COUNTER": "readcyclecounter" if x86 else "readsteadycounter",
        # Some 50 ms at 2.6 GHz; other processors' counters run at 24 MHz to 1 GHz.
        "STRETCH": 1 << 27 if x86 else 1 << 22, "NEVER": NEVER,
        "CHUNK_BITS": CHUNK_BITS, "MOST_CHUNKS": MOST_CHUNKS,
        "FRONT": 1 << CHUNK_BITS, "NUMBER": 1 << 2 * CHUNK_BITS, "NUMBERS": -1 << 2 * CHUNK_BITS,
        "LEAST": 50_000 if x86 else 200,
        "AVOID_TICKS": AVOID_TICKS if x86 else AVOID_TICKS >> 5,
        "CPU_BYTES": CPU_BYTES, "CPUS": 8 * CPU_BYTES,
    }  # fmt: skip
    return fill(_TEXT + (_KEEP_AWAY if linux else _STAY), words)
