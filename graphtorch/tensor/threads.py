"""How many threads may work."""

from __future__ import annotations

import os


def get_num_threads() -> int:
    """How many threads compiled code and large fills may use: GRAPHTORCH_NUM_THREADS, else the cores that the process
    may use. See torch.get_num_threads."""
    wanted = os.environ.get("GRAPHTORCH_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
