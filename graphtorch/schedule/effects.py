"""Steps that may fail run before steps that change the caller's tensors.

An index out of range, a singular matrix or an integer division by zero ends a compiled call with an error. What the
call changes (parameters, the optimizer's state, arguments written in place) must then be as it was: where nothing else
demands it, no such change comes before a step that may fail.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.lowering.kernel import ExternCall, Kernel
from graphtorch.ops.checks import CHECKS
from graphtorch.ops.record import Operator
from graphtorch.schedule.ordering import Step, dependencies

# Calls that succeed on any data: their types were checked when they were recorded.
_TOTAL = frozenset(
    (
        "mm", "bmm", "cat", "flip", "constant_pad_nd", "conv2d", "conv2d_input_grad", "conv2d_weight_grad",
        "max_pool2d_with_indices", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward", "slice_scatter",
        "select_scatter", "diagonal_scatter", "unfold_scatter", "as_strided_scatter", "slice_backward",
        "select_backward", "diagonal_backward", "unfold_backward", "as_strided_backward", "cumsum", "cumprod",
        "logcumsumexp", "cummax", "cummin", "sort", "topk", "rand", "randn", "uniform", "normal", "exponential",
        "embedding_dense_backward", "fused_attention", "fused_attention_backward",
    )
)  # fmt: skip
_QUOTIENTS = frozenset(("floor_divide", "remainder", "fmod"))


def call_may_fail(op: Operator) -> bool:
    """Whether a call of an operator may raise for some data."""
    return op.name not in _TOTAL


def may_fail(step: Step) -> bool:
    """Whether a step may raise for some data."""
    if isinstance(step, ExternCall):
        return call_may_fail(step.op)
    return any(
        n.op.scalar in CHECKS
        or (n.op.scalar in _QUOTIENTS
        and not n.result.dtype.is_floating_point
        and not n.result.dtype.is_complex)
        for n in step.nodes
    )


def failures_first(steps: Sequence[Step]) -> list[Step]:
    """The steps with those that may fail, and what they need, before the first that overwrites an input. A step that
    needs what was overwritten stays where it is."""
    changes = [any(b.kind == "input" for b in step.writes()) for step in steps]
    start = next((i for i, change in enumerate(changes) if change), len(steps))
    if not any(may_fail(step) for step in steps[start:]):
        return list(steps)
    needs = dependencies(steps)
    early: set[int] = set()
    for i in range(start, len(steps)):
        if not may_fail(steps[i]):
            continue
        closure = {i}
        waiting = [i]
        while waiting:
            for j in needs[waiting.pop()]:
                if j >= start and j not in closure:
                    closure.add(j)
                    waiting.append(j)
        if not any(changes[j] for j in closure):
            early |= closure
    moved = [steps[i] for i in range(start, len(steps)) if i in early]
    return [*steps[:start], *moved, *(steps[i] for i in range(start, len(steps)) if i not in early)]


def updates_behind_products(steps: Sequence[Step]) -> list[Step]:
    """Each kernel that writes no temporary, and for which the last step to wait for is a call whose result it reads,
    directly behind that call: a weight's update finds its gradient in cache. No temporary lives longer for it, and no
    update passes a step that may fail."""
    needs = dependencies(steps)
    behind: dict[int, list[int]] = {}
    for i, step in enumerate(steps):
        call = max(needs[i], default=-1)
        if call < 0 or not isinstance(step, Kernel) or not isinstance(steps[call], ExternCall):
            continue
        reads, made = set(step.reads()), set(steps[call].writes())
        if not reads & made or any(b.kind == "temporary" for b in step.writes()):
            continue
        if not any(may_fail(steps[j]) for j in range(call + 1, i)):
            behind.setdefault(call, []).append(i)
    moved = {i for following in behind.values() for i in following}
    order: list[Step] = []
    for i, step in enumerate(steps):
        if i not in moved:
            order += [step, *(steps[j] for j in behind.get(i, ()))]
    return order
