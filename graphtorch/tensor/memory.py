"""How the C library keeps memory that arrays have left.

Eager code makes and drops arrays all the time. By default glibc gives freed memory at the heap's end back to the
system and maps large arrays one by one, so that the kernel hands out (and clears) the same pages again at each step: a
fifth of a small model's. So more of it is kept. See mallopt(3)."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters
KEPT = 256 << 20  # bytes of free memory at the heap's end
MAPPED = 32 << 20  # bytes from which on an array is mapped on its own: glibc's largest threshold


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory; False elsewhere, and where the user has set glibc's own variables."""
    if not sys.platform.startswith("linux") or any(n.startswith(("MALLOC_", "GLIBC_TUNABLES")) for n in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # One of them set, glibc no longer adapts the other to what is freed.
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
