"""The thread pool: worker threads of the operating system that run generated code without Python.

`parallel_for(pool, function, args, n, chunk)` (native) runs `function(args, low, high)` over [0, n) in chunks that
threads claim one by one, so that a late thread costs nothing. Workers spin for a short while after each region, since
the next one usually follows at once, and then sleep on a condition variable. A region that starts while another is
running (from a second Python thread, or nested) runs on its own thread alone.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import threading
from typing import Any

import numpy as np

from graphtorch.tensor.threads import get_num_threads

PATIENCE = 2_000  # pauses before the calling thread lets others run
STACK = 16 << 20  # bytes of a worker's stack
SPIN = 20_000  # pauses before a worker sleeps: a few tenths of a millisecond
SHORT_SPIN = 20  # pauses of a worker of the drowsy pool
# Byte offsets in the pool's memory, which starts with the ticket; what different threads write lies on different cache
# lines.
DONE, JOB, SLEEPERS, EPOCH, MUTEX, CONDITION, SIZE = 64, 128, 192, 256, 320, 448, 640
FUNCTION, ARGS, COUNT, CHUNK, THREADS, STOP, BUSY = (JOB + 8 * i for i in range(7))

_CODE = """
declare i32 @sched_yield()
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

; Claim chunks until none is left. The ticket holds the region's number in its upper half and the chunks left in its
; lower.
define internal void @drain(ptr %pool) #0 {{
entry:
  %done = getelementptr i8, ptr %pool, i64 {DONE}
  br label %claim
claim:
  %ticket = load atomic i64, ptr %pool acquire, align 8
  %left = and i64 %ticket, 4294967295
  %none = icmp eq i64 %left, 0
  br i1 %none, label %out, label %try
try:
  %fewer = sub i64 %ticket, 1
  %exchange = cmpxchg ptr %pool, i64 %ticket, i64 %fewer acq_rel acquire
  %mine = extractvalue {{ i64, i1 }} %exchange, 1
  br i1 %mine, label %run, label %claim
run:
  %pf = getelementptr i8, ptr %pool, i64 {FUNCTION}
  %f = load ptr, ptr %pf
  %pa = getelementptr i8, ptr %pool, i64 {ARGS}
  %args = load ptr, ptr %pa
  %pn = getelementptr i8, ptr %pool, i64 {COUNT}
  %n = load i64, ptr %pn
  %pc = getelementptr i8, ptr %pool, i64 {CHUNK}
  %chunk = load i64, ptr %pc
  %number = sub i64 %left, 1
  %low = mul i64 %number, %chunk
  %end = add i64 %low, %chunk
  %short = icmp ult i64 %end, %n
  %high = select i1 %short, i64 %end, i64 %n
  call void %f(ptr %args, i64 %low, i64 %high)
  %finished = atomicrmw add ptr %done, i64 1 release
  br label %claim
out:
  ret void
}}

define ptr @worker(ptr %pool) #0 {{
entry:
  %pstop = getelementptr i8, ptr %pool, i64 {STOP}
  %psleep = getelementptr i8, ptr %pool, i64 {SLEEPERS}
  %pepoch = getelementptr i8, ptr %pool, i64 {EPOCH}
  %mutex = getelementptr i8, ptr %pool, i64 {MUTEX}
  %condition = getelementptr i8, ptr %pool, i64 {CONDITION}
  br label %outer
outer:
  %epoch = load atomic i32, ptr %pepoch seq_cst, align 4
  call void @drain(ptr %pool)
  %stop = load atomic i64, ptr %pstop seq_cst, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %bye, label %spin
spin:
  %k = phi i64 [0, %outer], [%k1, %again]
  %now = load atomic i32, ptr %pepoch acquire, align 4
  %new = icmp ne i32 %now, %epoch
  br i1 %new, label %outer, label %again
again:
  {PAUSE}
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, {SPIN}
  br i1 %more, label %spin, label %sleep
sleep:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %s1 = atomicrmw add ptr %psleep, i32 1 seq_cst
  br label %check
check:
  %then = load atomic i32, ptr %pepoch seq_cst, align 4
  %changed = icmp ne i32 %then, %epoch
  br i1 %changed, label %wake, label %wait
wait:
  %w = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
wake:
  %s2 = atomicrmw sub ptr %psleep, i32 1 seq_cst
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %outer
bye:
  ret ptr null
}}

define void @wake_all(ptr %pool) #0 {{
  %pepoch = getelementptr i8, ptr %pool, i64 {EPOCH}
  %psleep = getelementptr i8, ptr %pool, i64 {SLEEPERS}
  %mutex = getelementptr i8, ptr %pool, i64 {MUTEX}
  %condition = getelementptr i8, ptr %pool, i64 {CONDITION}
  %e = atomicrmw add ptr %pepoch, i32 1 seq_cst
  %asleep = load atomic i32, ptr %psleep seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %out
wake:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %b = call i32 @pthread_cond_broadcast(ptr %condition)
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %out
out:
  ret void
}}

define void @parallel_for(ptr %pool, ptr %f, ptr %args, i64 %n, i64 %chunk) #0 {{
entry:
  %pt = getelementptr i8, ptr %pool, i64 {THREADS}
  %threads = load i64, ptr %pt
  %single = icmp ule i64 %threads, 1
  %small = icmp ule i64 %n, %chunk
  %alone = or i1 %single, %small
  br i1 %alone, label %serial, label %ask
ask:
  %pb = getelementptr i8, ptr %pool, i64 {BUSY}
  %lock = cmpxchg ptr %pb, i64 0, i64 1 acq_rel acquire
  %free = extractvalue {{ i64, i1 }} %lock, 1
  br i1 %free, label %share, label %serial
serial:
  br label %alone.each
alone.each:
  ; Chunk by chunk here too: a function may have memory of its own for one chunk.
  %alone.low = phi i64 [0, %serial], [%alone.high, %alone.each]
  %alone.next = add i64 %alone.low, %chunk
  %alone.more = icmp ult i64 %alone.next, %n
  %alone.high = select i1 %alone.more, i64 %alone.next, i64 %n
  call void %f(ptr %args, i64 %alone.low, i64 %alone.high)
  br i1 %alone.more, label %alone.each, label %alone.end
alone.end:
  ret void
share:
  %pf = getelementptr i8, ptr %pool, i64 {FUNCTION}
  store ptr %f, ptr %pf
  %pa = getelementptr i8, ptr %pool, i64 {ARGS}
  store ptr %args, ptr %pa
  %pn = getelementptr i8, ptr %pool, i64 {COUNT}
  store i64 %n, ptr %pn
  %pc = getelementptr i8, ptr %pool, i64 {CHUNK}
  store i64 %chunk, ptr %pc
  %done = getelementptr i8, ptr %pool, i64 {DONE}
  store atomic i64 0, ptr %done monotonic, align 8
  %c1 = sub i64 %chunk, 1
  %n1 = add i64 %n, %c1
  %chunks = udiv i64 %n1, %chunk
  %old = load atomic i64, ptr %pool monotonic, align 8
  %next = add i64 %old, 4294967296
  %region = and i64 %next, -4294967296
  %ticket = or i64 %region, %chunks
  store atomic i64 %ticket, ptr %pool release, align 8
  call void @wake_all(ptr %pool)
  call void @drain(ptr %pool)
  br label %wait
wait:
  %waited = phi i64 [0, %share], [%longer, %more], [%longer, %yield]
  %d = load atomic i64, ptr %done acquire, align 8
  %all = icmp eq i64 %d, %chunks
  br i1 %all, label %end, label %more
more:
  {PAUSE}
  %longer = add i64 %waited, 1
  %long = icmp ugt i64 %longer, {PATIENCE}
  br i1 %long, label %yield, label %wait
yield:
  ; A worker that has claimed a chunk may be waiting for this very core.
  %y = call i32 @sched_yield()
  br label %wait
end:
  store atomic i64 0, ptr %pb release, align 8
  ret void
}}
"""


def _pause() -> tuple[str, str]:
    """(instruction, declaration) of a hint that the core waits. Where it is unknown, waiting just takes more power."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
    if machine in ("arm64", "aarch64"):
        return "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"
    return "", ""


class Pool:
    """The pool of the process, started on first use: `address` is its memory, `entry` the address of `parallel_for`."""

    def __init__(self, threads: int, spin: int = SPIN) -> None:
        from graphtorch.lowering.cpu.compiler import Library, module_text

        pause, declaration = _pause()
        text = module_text([], _CODE.format(PAUSE=pause, SPIN=spin, **_OFFSETS), [declaration])
        self.library = Library([text], ["parallel_for", "worker", "wake_all"])
        self.memory = np.zeros(SIZE + 64, np.uint8)
        self.address = -(-self.memory.ctypes.data // 64) * 64
        self.entry = self.library.addresses["parallel_for"]
        self.threads = 1
        self._handles: list[Any] = []
        # Zeros are a valid initial mutex and condition variable only on some systems: initialise them.
        process = ctypes.CDLL(None)
        process.pthread_mutex_init(ctypes.c_void_p(self.address + MUTEX), None)
        process.pthread_cond_init(ctypes.c_void_p(self.address + CONDITION), None)
        # Kernels keep blocks of a few MiB on the stack; some systems give threads less than that by default.
        attributes = ctypes.create_string_buffer(256)  # more than any system's pthread_attr_t
        process.pthread_attr_init(attributes)
        process.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
        for _ in range(1, threads):
            handle = ctypes.c_void_p()
            failed = process.pthread_create(
                ctypes.byref(handle),
                attributes,
                ctypes.c_void_p(self.library.addresses["worker"]),
                ctypes.c_void_p(self.address),
            )
            if failed:
                break
            self._handles.append(handle)
            self.threads += 1
        process.pthread_attr_destroy(attributes)
        self._write(THREADS, self.threads)

    def _write(self, offset: int, value: int) -> None:
        ctypes.c_int64.from_address(self.address + offset).value = value

    def stop(self) -> None:
        """End the workers; regions then run on the calling thread."""
        self._write(THREADS, 1)
        self._write(STOP, 1)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.library.addresses["wake_all"])(self.address)
        process = ctypes.CDLL(None)
        for handle in self._handles:
            process.pthread_join(handle, None)
        self._handles.clear()
        self.threads = 1

    def forget_workers(self) -> None:
        """After a fork the child has no workers, and a region of the parent's may have been running."""
        self._handles.clear()
        self.threads = 1
        self._write(THREADS, 1)
        self._write(BUSY, 0)


_OFFSETS = {
    "DONE": DONE,
    "FUNCTION": FUNCTION,
    "ARGS": ARGS,
    "COUNT": COUNT,
    "CHUNK": CHUNK,
    "THREADS": THREADS,
    "STOP": STOP,
    "BUSY": BUSY,
    "SLEEPERS": SLEEPERS,
    "EPOCH": EPOCH,
    "MUTEX": MUTEX,
    "CONDITION": CONDITION,
    "PATIENCE": PATIENCE,
}

_pool: Pool | None = None
_drowsy: Pool | None = None
_lock = threading.Lock()


def get_pool() -> Pool:
    """The process's pool; `get_num_threads` is its size."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = _started(SPIN)
        return _pool


def get_drowsy_pool() -> Pool:
    """A pool whose workers sleep as soon as there is nothing to do, for regions between which BLAS's threads work: a
    worker that spins would hold the core that one of them needs."""
    global _drowsy
    with _lock:
        if _drowsy is None:
            _drowsy = _started(SHORT_SPIN)
        return _drowsy


def _started(spin: int) -> Pool:
    made = Pool(get_num_threads() if hasattr(ctypes.CDLL(None), "pthread_create") else 1, spin)
    atexit.register(made.stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=made.forget_workers)
    return made
