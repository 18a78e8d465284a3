"""Memory that several inputs of a compiled function share.

A graph takes its inputs for separate values. That is right as long as none that is changed in place overlaps another:
what the function reaches by itself is captured by the memory behind it, and for its arguments the assumption is checked
here, at the capture and before each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_not
from typing import Any

import numpy as np

from graphtorch.frontend.errors import refuse
from graphtorch.frontend.guards import GuardSet
from graphtorch.frontend.sources import ArgumentSource, GradSource, SlotSource, Source, TensorSource
from graphtorch.ops.strides import extent, layout_of, product
from graphtorch.tensor.remote import DeviceArray
from graphtorch.tensor.tensor import Tensor


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors may have an element in common (bounds are compared, not every element); empty ones count as
    overlapping where their memory has one owner."""
    if not (a._data.size and b._data.size):
        return owner(a._data) is owner(b._data)
    return bool(np.may_share_memory(a._data, b._data))


def reaches_around(base: Tensor, size: Sequence[Any], stride: Sequence[Any], offset: Any) -> bool:
    """Whether `as_strided` at an offset from the first element of a tensor may show what is none of its elements."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    layout = base._layout()
    return bool(offset < 0 or last >= product(base.shape) or extent(*layout_of(layout)) > layout.size)


class Apart:
    """Whether a tensor overlaps none of some others: one look at who owns its memory, mostly."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.arrays: list[Any] = []
        self.owners: Mapping[int, Any] = {}

    def by_id(self) -> Mapping[int, Any]:
        """Who owns the others' memory now, by id; holds them, so that the ids stay theirs."""
        arrays = [t._data for t in self.tensors]
        if len(arrays) != len(self.arrays) or any(map(is_not, arrays, self.arrays)):
            self.arrays = arrays
            self.owners = {id(o): o for o in map(owner, arrays)}
        return self.owners

    def __call__(self, tensor: Tensor) -> bool:
        return id(owner(tensor._data)) not in self.by_id() or not any(overlap(tensor, t) for t in self.tensors)


class ApartFromGradients:
    """Whether an argument overlaps none of the gradients that some inputs have at a call."""

    def __init__(self, sources: Sequence[GradSource]) -> None:
        self.tensors = [s.owner.tensor for s in sources if isinstance(s.owner, TensorSource)]
        self.others = [s for s in sources if not isinstance(s.owner, TensorSource)]

    def __call__(self, tensor: Tensor, leaves: Sequence[Any]) -> bool:
        memory = owner(tensor._data)
        gradients = [t._gradient for t in self.tensors]
        if self.others:
            gradients += [s.fetch(leaves) for s in self.others]
        for gradient in gradients:
            if gradient is not None:
                data = gradient._data
                own = data.memory if type(data) is DeviceArray else data if data.base is None else owner(data)
                if own is memory and overlap(tensor, gradient):
                    return False
        return True


def owner(data: Any) -> Any:
    """The object that an array's memory belongs to; an array itself for one that views no other."""
    if type(data) is DeviceArray:
        return data.memory
    while isinstance(data, np.ndarray) and data.base is not None:
        data = data.base
    return data


def assume_apart(guards: GuardSet, inputs: Sequence[tuple[Source, Tensor, bool]]) -> None:
    """Assume of all inputs that no changed one overlaps another. `inputs`: where each is from, the tensor, whether the
    function changes it.

    Raises CaptureError if one does now."""
    arguments = [(s.index, s.name, t, w) for s, t, w in inputs if isinstance(s, ArgumentSource)]
    state = [(s.name, t, w) for s, t, w in inputs if isinstance(s, TensorSource | SlotSource)]
    gradients = [(s, t, w) for s, t, w in inputs if isinstance(s, GradSource)]
    slots = [(s.name, w) for s, _, w in inputs if isinstance(s, SlotSource)]
    if slots and any((*(w for _, w in slots), *(w for *_, w in arguments))):
        what = f"{slots[0][0]} is given another tensor at each call, and is or may be changed in place as well"
        raise refuse(what, "change it in place only, or only replace it")
    shares = guards.name(overlap)
    for n, (i, name, tensor, written) in enumerate(arguments):
        for j, other_name, other, other_written in arguments[n + 1 :]:
            if written or other_written:
                _check(name, tensor, other_name, other)
                guards.add(f"not {shares}(leaves[{i}], leaves[{j}])", f"{name} and {other_name} shared no memory")
        changing = [(o, t) for o, t, w in state if w or written]
        for other_name, other in changing:
            _check(name, tensor, other_name, other)
        if changing:
            apart = Apart([t for _, t in changing])
            owners = guards.snapshot(("owners", id(apart)), apart.by_id)
            data = f"leaves[{i}]._data"
            cheap = f"id({data} if {data}.base is None else {guards.name(owner)}({data})) not in {owners}"
            meaning = f"{name} shared no memory with what the function changes"
            guards.add(f"{guards.name(apart)}(leaves[{i}])", meaning, cheap)
        # What holds integers is no part of a gradient.
        near = [(s, t) for s, t, w in gradients if (w or written) and t.dtype is tensor.dtype]
        for source, gradient in near:
            _check(name, tensor, source.name, gradient)
        if near:
            free = guards.name(ApartFromGradients([s for s, _ in near]))
            meaning = f"{name} shared no memory with gradients that the function changes"
            guards.add(f"{free}(leaves[{i}], leaves)", meaning)
    owned: dict[int, list[tuple[str, Tensor, bool]]] = {}
    for entry in [*state, *((s.name, t, w) for s, t, w in gradients)]:
        for other_name, other, other_written in owned.setdefault(id(owner(entry[1]._data)), []):
            if entry[2] or other_written:
                _check(entry[0], entry[1], other_name, other)
        owned[id(owner(entry[1]._data))].append(entry)


def assume_other(
    guards: GuardSet, sources: Sequence[Source], leaves: Sequence[Tensor], kinds: Mapping[Source, type]
) -> None:
    """Assume that no argument is one of the tensors from elsewhere whose `.grad` the function assigns: it would be two
    leaves to the graph. `kinds`: the classes of the arguments, which the replays check."""
    given = {id(t) for t in (s.tensor for s in sources if isinstance(s, TensorSource))}
    found = [t for t in leaves if id(t) in given]
    if not found:
        return
    ids = frozenset(map(id, found))
    for source in sources:
        if isinstance(source, ArgumentSource):
            other = all(type(t) is not kinds[source] for t in found)  # as Parameters are, and data is not
            guards.add(
                f"id(leaves[{source.index}]) not in {guards.name(ids)}",
                f"{source.name} was none of the tensors that get gradients",
                "" if other else None,
            )


def assume_writable(guards: GuardSet, index: int, name: str, tensor: Tensor) -> None:
    """Assume that an argument that the function changes may be changed where another one could: eager execution refuses
    some changes of views that were made under no_grad."""
    version = f"leaves[{index}]._node_version"
    if tensor._node_version < 0:
        guards.add(f"{version} < 0", f"{name} was a view made under no_grad")
        return
    own = f"leaves[{index}]._base is None" if tensor._base is None else None
    guards.add(f"{version} >= 0", f"{name} was no view made under no_grad", own)


def _check(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if overlap(tensor, other):
        raise refuse(
            f"the inputs {name} and {other_name} share memory, and one of them is changed in place",
            "pass the tensor once and make the view inside the compiled function, or clone() one of them",
        )
