"""A matrix product that is added to what a buffer holds (a gradient that accumulates over calls) as one step.

Law: `t = a b; c = c + t` is `c += a b` where nobody else reads t, and the sum takes place right behind the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from graphtorch.lowering.kernel import Access, Buffer, Compute, ExternCall, Kernel, Load
from graphtorch.schedule.ordering import Step


def products_into_sums(
    steps: Sequence[Step], returned: Collection[Buffer], accepts: Callable[[ExternCall], bool]
) -> list[Step]:
    """The steps, with each product that `accepts` likes and the sum behind it as one call that accumulates. `returned`
    are the buffers that somebody sees afterwards."""
    readers: dict[Buffer, int] = {}
    for step in steps:
        for buffer in step.reads():
            readers[buffer] = readers.get(buffer, 0) + 1
    made: list[Step] = []
    for step in steps:
        call = made[-1] if made else None
        if isinstance(step, Kernel) and isinstance(call, ExternCall) and call.op.name in ("mm", "bmm"):
            product, into = call.outputs[0], _sum_with(step, call.outputs[0])
            alone = product is not None and product.kind == "temporary" and readers.get(product) == 1
            if into is not None and alone and product not in returned and into not in call.reads() and accepts(call):
                reason = f"its product is added to {into.name} as it is made"
                reasons = [*call.reasons, *step.reasons, reason]
                nodes = [*call.nodes, *step.nodes]
                made[-1] = ExternCall(call.name, call.op, call.args, (into,), nodes, reasons, accumulate=True)
                continue
        made.append(step)
    return made


def _sum_with(kernel: Kernel, product: Buffer | None) -> Buffer | None:
    """The buffer c of a kernel that is `c = c + product` for every element, and nothing else."""
    if product is None or len(kernel.stores) != 1 or any(type(axis.size) is not int for axis in kernel.axes):
        return None
    (store,) = kernel.stores
    value, into = store.value, store.access.buffer
    if not isinstance(value, Compute) or value.instruction != "add" or into.dtype is not product.dtype:
        return None
    terms = [term.access for term in value.arguments if isinstance(term, Load)]
    if len(terms) != 2 or {id(t.buffer) for t in terms} != {id(into), id(product)}:
        return None
    if math.prod(axis.size for axis in kernel.axes) != math.prod(product.shape) or into.shape != product.shape:
        return None
    if not all(_plain(kernel, access) for access in (store.access, *terms)):
        return None
    return into


def _plain(kernel: Kernel, access: Access) -> bool:
    """Whether the axes walk through the buffer from its first element to its last."""
    step = 1
    for axis, stride in zip(reversed(kernel.axes), reversed(access.strides), strict=True):
        if axis.reduction or (axis.size != 1 and stride != step):
            return False
        step *= axis.size
    return type(access.offset) is int and access.offset == 0
