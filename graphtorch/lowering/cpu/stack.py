"""Stack memory: generated code keeps blocks of operands on its thread's stack, up to some MiB for large convolutions.

The pool's workers have stacks of their own size. The calling thread takes part in the work too: where its stack is too
small (`threading.stack_size`, embedding programs), another thread makes the call.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from graphtorch.lowering.cpu.assembly import BITS

T = TypeVar("T")
ROOMY = 16 << 20  # bytes of a thread that makes a call for another one
ANY = 128 << 10  # what every thread is taken to have
MARGIN = 256 << 10  # for Python and the calls between
_ALLOCATION = re.compile(r"alloca \[(\d+) x (\w+)\]")
_lock = threading.Lock()
_known = threading.local()


def needed(texts: Iterable[str]) -> int:
    """An upper bound of the stack bytes of functions of which at most two call each other: a chain and its member."""
    found = sorted(_allocated(text) for text in texts)
    return sum(found[-2:])


def _allocated(text: str) -> int:
    if "alloca [" not in text:
        return 0
    return sum(int(count) * BITS.get(kind, 64) // 8 for count, kind in _ALLOCATION.findall(text))


def suffices(count: int) -> bool:
    """Whether this thread's stack has room for so many bytes."""
    return count <= ANY or count + MARGIN <= stack_size()


def stack_size() -> int:
    """The bytes of this thread's stack. Where the system does not say: none."""
    size = getattr(_known, "size", None)
    if size is None:
        size = _known.size = _ask()
    return int(size)


def _ask() -> int:
    system = ctypes.CDLL(None)
    system.pthread_self.restype = ctypes.c_void_p
    this = ctypes.c_void_p(system.pthread_self())
    if sys.platform == "darwin":
        system.pthread_get_stacksize_np.restype = ctypes.c_size_t
        return int(system.pthread_get_stacksize_np(this))
    if not hasattr(system, "pthread_getattr_np"):
        return 0
    attributes = ctypes.create_string_buffer(256)
    if system.pthread_getattr_np(this, attributes):
        return 0
    low, size = ctypes.c_void_p(), ctypes.c_size_t()
    failed = system.pthread_attr_getstack(attributes, ctypes.byref(low), ctypes.byref(size))
    system.pthread_attr_destroy(attributes)
    return 0 if failed else size.value


def with_room(function: Callable[..., T], *args: Any) -> T:
    """The call, made by a thread with a large stack."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function(*args))
        except BaseException as error:
            errors.append(error)

    with _lock:  # the size counts for all threads that start meanwhile
        before = threading.stack_size(ROOMY)
        try:
            thread = threading.Thread(target=run, name="graphtorch-call")
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
