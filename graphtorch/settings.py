"""Process-wide switches of the `torch` namespace: threads, determinism, precision of products, warnings.

Most have one possible value here: programs set these switches and read them back. Only the precision of float32
products and the order of sums change anything, and only on GPUs; on CPUs operators give the same bits in every run."""

from __future__ import annotations

import os
import warnings
from typing import Any

from graphtorch.tensor.precision import settings as precision_settings
from graphtorch.tensor.threads import get_num_threads as get_num_threads

_interop_threads = 0
_warn_only = False
_warn_always = False


def set_num_threads(num: int) -> None:
    """Set how many threads compiled code may use, before the first compiled call. See torch.set_num_threads.

    Raises RuntimeError for a number that is not positive.
    """
    if isinstance(num, bool) or not isinstance(num, int):
        raise TypeError(f"set_num_threads expects an int, but got {type(num).__name__}")
    if num < 1:
        raise RuntimeError("set_num_threads expects a positive integer")
    os.environ["GRAPHTORCH_NUM_THREADS"] = str(num)


def get_num_interop_threads() -> int:
    """The size of the pool for concurrent operators, which nothing here uses. See torch.get_num_interop_threads."""
    return _interop_threads or max(os.cpu_count() or 1, 1)


def set_num_interop_threads(num: int) -> None:
    """Noted and not used: operators run one after another. See torch.set_num_interop_threads."""
    global _interop_threads
    if num < 1:
        raise RuntimeError("Expected interop_threads > 0")
    _interop_threads = num


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was told."""
    return precision_settings.matmul


def set_float32_matmul_precision(precision: str) -> None:
    """Products of float32 on GPUs in full precision ("highest") or in tf32 ("high", "medium"); on CPUs they are always
    exact. See torch.set_float32_matmul_precision."""
    if precision not in ("highest", "high", "medium"):
        warnings.warn(f"{precision} is not one of 'highest', 'high', or 'medium'", stacklevel=2)
        return
    precision_settings.matmul = precision


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """On GPUs, sums by index (`scatter_add`, the gradient of an embedding) then add in a fixed order instead of
    atomically; all else is deterministic anyway. See torch.use_deterministic_algorithms."""
    global _warn_only
    precision_settings.ordered, _warn_only = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """What `use_deterministic_algorithms` was told."""
    return precision_settings.ordered


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What `use_deterministic_algorithms(warn_only=...)` was told."""
    return _warn_only


def get_deterministic_debug_mode() -> int:
    """0: default, 1: warn, 2: error. See torch.get_deterministic_debug_mode."""
    return 0 if not precision_settings.ordered else 1 if _warn_only else 2


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """`use_deterministic_algorithms` by number or name. See torch.set_deterministic_debug_mode."""
    modes: dict[Any, int] = {"default": 0, "warn": 1, "error": 2, 0: 0, 1: 1, 2: 2}
    if debug_mode not in modes:
        raise RuntimeError(f"invalid value of debug_mode, expected one of `default`, `warn`, `error`, got {debug_mode}")
    level = modes[debug_mode]
    use_deterministic_algorithms(level > 0, warn_only=level == 1)


def set_flush_denormal(mode: bool) -> bool:
    """Whether denormal numbers can be flushed to zero: they can't. See torch.set_flush_denormal."""
    return False


def set_warn_always(b: bool) -> None:
    """Noted. See torch.set_warn_always."""
    global _warn_always
    _warn_always = bool(b)


def is_warn_always_enabled() -> bool:
    """What `set_warn_always` was told."""
    return _warn_always


def compiled_with_cxx11_abi() -> bool:
    """Whether there is C++ code of the new ABI: there is none that matters. See torch.compiled_with_cxx11_abi."""
    return True
