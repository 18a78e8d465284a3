"""Checks of data inside of kernels: pointwise identities that fail where a number is not what an operator accepts.

Eager operators look at their operands before they compute. What they decompose into has no such look: these carry it
into the fused kernels, where it costs next to nothing. On a CUDA device they check nothing, for a kernel there can't
raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ops.pointwise import binary, common, unary
from graphtorch.ops.record import sample

# instruction -> (class of the error, message; "{}" stands for the number that failed)
CHECKS: dict[str, tuple[type[Exception], str]] = {
    "check_target": (IndexError, "Target {} is out of bounds."),
    "check_class": (RuntimeError, "Class values must be non-negative and smaller than num_classes, but got {}."),
    "check_probability": (RuntimeError, "all elements of input should be between 0 and 1"),
}


def _raise(name: str, bad: Any, values: Any) -> None:
    if np.any(bad):
        error, message = CHECKS[name]
        first = np.asarray(values)[bad].reshape(-1)[0]
        raise error(message.replace("{}", str(first)))


def _below(name: str) -> Callable[..., Any]:
    def check(x: Any, size: Any) -> Any:
        _raise(name, (x < 0) | (x >= size), np.broadcast_to(x, np.broadcast(x, size).shape))
        return x + np.zeros_like(size)  # of the shape of both

    return check


def _unit(x: Any) -> Any:
    _raise("check_probability", ~((x >= 0) & (x <= 1)), x)
    return np.array(x)


def _index_samples(make: Any) -> Any:
    yield sample(make.ints(5), 4)
    yield sample(make.ints(2, 3), 6)


def _index_check(name: str, doc: str) -> Callable[..., Any]:
    return binary(
        name,
        _below(name),
        samples=_index_samples,
        categories="i",
        inplace=False,
        out=False,
        public=False,
        method=False,
        doc=doc,
    )


check_target = _index_check("check_target", "`input`, which has to lie in [0, other): targets of a loss.")
check_class = _index_check("check_class", "`input`, which has to lie in [0, other): classes of one_hot.")
check_probability = unary(
    "check_probability",
    _unit,
    lambda g: g,
    compute=common,
    low=0.0,
    high=1.0,
    categories="f",
    inplace=False,
    out=False,
    public=False,
    method=False,
    doc="`input`, which has to lie in [0, 1].",
)
