"""What this build is made of: `torch.__config__.show()` and `parallel_info()`."""

from __future__ import annotations


def show() -> str:
    """The versions of this library and of what it computes with, a line each."""
    import numpy

    from graphtorch import __version__
    from graphtorch.lowering.backend import default_backend

    lines = ["graphtorch built with:", f"  - graphtorch {__version__}", f"  - NumPy {numpy.__version__}"]
    lines.append(f"  - compiled functions: the {default_backend()!r} backend")
    return "\n".join(lines) + "\n"


def parallel_info() -> str:
    """How many threads native code uses."""
    from graphtorch.settings import get_num_interop_threads, get_num_threads

    return (
        f"ATen/Parallel:\n\tat::get_num_threads() : {get_num_threads()}\n"
        f"\tat::get_num_interop_threads() : {get_num_interop_threads()}\n"
    )
