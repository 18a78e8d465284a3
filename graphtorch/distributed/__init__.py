"""`torch.distributed`'s questions: there is no communication between processes here."""

from __future__ import annotations

from typing import Any, NoReturn


def is_available() -> bool:
    """Whether processes can form a group."""
    return False


def is_initialized() -> bool:
    """Whether this process is in a group."""
    return False


def is_torchelastic_launched() -> bool:
    """Whether torchrun started this process."""
    return False


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise RuntimeError("graphtorch has no distributed package: torch.distributed.is_available() is False")


class ReduceOp:
    """How values of several processes become one: names for signatures and defaults."""

    SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR = "SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"


init_process_group = destroy_process_group = barrier = all_reduce = broadcast = all_gather = reduce = _refuse
get_rank = get_world_size = _refuse
