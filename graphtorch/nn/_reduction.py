"""The numbers and words of losses' reductions, which modules written for PyTorch import from `torch.nn._reduction`."""

from __future__ import annotations

import warnings

_NUMBERS = {"none": 0, "mean": 1, "elementwise_mean": 1, "sum": 2}


def get_enum(reduction: str) -> int:
    """The number of a reduction. Raises ValueError for an unknown one."""
    if reduction == "elementwise_mean":
        warnings.warn("reduction='elementwise_mean' is deprecated. Please use reduction='mean' instead.", stacklevel=2)
    if reduction not in _NUMBERS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return _NUMBERS[reduction]


def legacy_get_string(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> str:
    """The reduction that the two older arguments ask for."""
    wants_mean = True if size_average is None else size_average
    found = "none" if reduce is False else "mean" if wants_mean else "sum"
    if emit_warning:
        text = "size_average and reduce args will be deprecated, please use reduction='{}' instead."
        warnings.warn(text.format(found), stacklevel=2)
    return found


def legacy_get_enum(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> int:
    """The number of the reduction that the two older arguments ask for."""
    return get_enum(legacy_get_string(size_average, reduce, emit_warning))
