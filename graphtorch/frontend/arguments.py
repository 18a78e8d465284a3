"""What a capture assumes of the tensors among the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch.frontend.errors import refuse
from graphtorch.frontend.guards import GuardSet
from graphtorch.frontend.recorder import Recorder
from graphtorch.frontend.sizes import Sizes
from graphtorch.tensor.tensor import Tensor


def tensor_argument(
    recorder: Recorder,
    sizes: Sizes,
    tensor: Tensor,
    index: int,
    label: str,
    changed: set[int],
) -> Tensor:
    """A tensor among the arguments as an input of the graph; `changed` are the dimensions to make symbols."""
    guards, scope, bindings = recorder.guards, sizes.scope, sizes.bindings
    expression = f"leaves[{index}]"
    data = f"{expression}._data"
    kind = f"{expression}.__class__ is {guards.name(type(tensor))}"
    guards.add(kind, f"{label} was a {type(tensor).__name__}")
    shape: list[Any] = []
    rank = len(tensor.shape)
    # What is a view, and what a copy, depends on the strides: symbolic sizes come in row-major order only.
    symbolic = {d for d in changed if tensor.shape[d] > 1} if tensor._data.flags.c_contiguous else set()
    if symbolic:
        guards.add(f"len({data}.shape) == {rank}", f"{label} had {rank} dimensions")
        guards.add(f"{data}.flags.c_contiguous", f"{label} was contiguous")
        for d, size in enumerate(tensor.shape):
            place = f"{data}.shape[{d}]"
            if d in symbolic:
                # Sizes that are equal now share a symbol: batches of several arguments change together.
                symbol = next((x for x in sizes.of_tensors() if x.hint == size), None)
                if symbol is None:
                    symbol = scope.symbol(hint=size)
                    bindings[str(symbol)] = place
                    guards.add(f"{place} > 1", f"{label}.shape[{d}] was symbolic, at least 2")
                else:
                    guards.add(f"{place} == {bindings[str(symbol)]}", f"{label}.shape[{d}] was equal to {symbol}")
                sizes.dims[index, d] = str(symbol)
                shape.append(symbol)
            else:
                guards.add(f"{place} == {size}", f"{label}.shape[{d}] was {size}")
                shape.append(size)
    else:
        constant = guards.name(tuple(tensor._data.shape))
        guards.add(f"{data}.shape == {constant}", f"the shape of {label} was {list(tensor.shape)}")
        strides = guards.name(tuple(tensor._data.strides))
        guards.add(f"{data}.strides == {strides}", f"the strides of {label} were {list(tensor.stride())}")
        shape = list(tensor.shape)
    if tensor.requires_grad:
        if tensor._node_version < 0:
            raise refuse(f"{label} is a view that was made under no_grad, and requires grad", "pass it detached")
        leaf = tensor.is_leaf
        own = f"{expression}._node is None and {expression}._base is None" if leaf else None
        kind = f"{expression}._node_version >= 0 and {expression}.is_leaf is {leaf}"
        guards.add(kind, f"{label} was {'' if leaf else 'not '}a leaf", own)
    guards.add(f"{expression}._dtype is {guards.name(tensor._dtype)}", f"the dtype of {label} was {tensor._dtype!r}")
    device = guards.name(tensor._device)
    meaning = f"the device of {label} was {tensor._device}"
    guards.add(f"{expression}._device == {device}", meaning, f"{expression}._device is {device}")
    flag = tensor.requires_grad
    # A view may owe the flag to its base.
    own = f"{expression}._requires_grad is {flag}" + ("" if flag else f" and {expression}._base is None")
    meaning = f"{label}.requires_grad was {flag}"
    guards.add(f"{expression}.requires_grad is {flag}", meaning, own if flag or tensor._base is None else None)
    return recorder.argument(tensor, index, label, tuple(shape))


def guard_sharing(guards: GuardSet, leaves: Sequence[Any]) -> None:
    """Two arguments that were one object at the capture are so at every call, and the others are not."""
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    for n, i in enumerate(tensors):
        for j in tensors[n + 1 :]:
            same = leaves[i] is leaves[j]
            guards.add(
                f"(leaves[{i}] is leaves[{j}]) is {same}",
                f"arguments {i} and {j} were {'' if same else 'not '}one tensor",
            )
