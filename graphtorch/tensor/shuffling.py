"""Shuffles as array operations: what a sequence of exchanges does to 0 .. n-1, without a loop over the exchanges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shuffle_forward(targets: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The array 0 .. n-1 after exchanging elements i and targets[i] for i = 0, 1, .. in turn.

    targets: shape (n-1,), with i <= targets[i] < n. The exchanges depend on each other, yet no loop over them is
    needed: step i puts in its final place i what the last earlier step with the same target left there, which is what
    was at place k of that step k when its turn came; if there was none, the target itself.
    """
    if n < 2:
        return np.arange(n)
    targets = np.append(targets, n - 1)
    steps = np.arange(n)
    # What place i holds when step i begins: follow "the last earlier step that wrote there" to the chain's start.
    writer = steps.copy()
    moving = targets != steps
    writer[targets[moving]] = steps[moving]  # of repeated targets, NumPy keeps the last
    held = _chain_ends(writer)
    previous = _previous_with_same_target(targets)
    return np.where(previous >= 0, held[previous], targets)


def shuffle_inside_out(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The result of ``a[i] = a[t]; a[t] = i`` with t = targets[i] for i = 0, 1, .. in turn.

    targets: shape (n,), with 0 <= targets[i] <= i. Again without a loop: a place holds the number of the last step that
    had it as target; a place that was none's target keeps what its own step copied into it.
    """
    n = len(targets)
    steps = np.arange(n)
    last = np.full(n, -1)
    last[targets] = steps  # of repeated targets, NumPy keeps the last
    previous = _previous_with_same_target(targets)
    # Step i copies the number of the previous step with its target, or, if it is the first, what is there since that
    # place's own step: the same question again.
    source = np.where(previous >= 0, steps, targets)
    ends = _chain_ends(source)
    copied = np.where(previous[ends] >= 0, previous[ends], ends)
    return np.where(last >= 0, last, copied)


def _previous_with_same_target(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each step the last earlier one with the same target, or -1."""
    # Sorting (target, step) packed in one integer is several times as fast as a stable argsort of the targets.
    bits = len(targets).bit_length()
    packed = np.sort(targets << bits | np.arange(len(targets)))
    step = packed & ((1 << bits) - 1)
    same = packed[1:] >> bits == packed[:-1] >> bits
    previous = np.full(len(targets), -1)
    previous[step[1:][same]] = step[:-1][same]
    return previous


def _chain_ends(successor: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each element the fixed point that following `successor` leads to, found by doubling the stride."""
    while True:
        further = successor[successor]
        if np.array_equal(further, successor):
            return successor
        successor = further
