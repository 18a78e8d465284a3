"""Recorded tensors: storages and views as values.

Eager tensors share memory; IR values do not. A `RecordedStorage` stands for the memory: it holds the current value of
its base tensor and a version. A view remembers the view operators from the base; reading one whose storage has changed
replays them on the current value, and writing to one puts the new elements into a new value of the base
(functionalization)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autograd.graph import Node
from graphtorch.frontend.layouts import symbolic_layout
from graphtorch.frontend.sources import Source
from graphtorch.ir.builder import Traced
from graphtorch.ir.graph import Value
from graphtorch.tensor.storage import Storage
from graphtorch.tensor.tensor import Tensor, element_strides

Steps = tuple[tuple[Any, tuple[Any, ...]], ...]


class RecordedStorage(Storage):
    """Memory during a capture.

    value     the current value of the base tensor
    base      the recorded tensor that covers the storage
    source    where an input's storage comes from; None for memory that the captured function allocates
    concrete  the concrete tensor that was captured; None likewise
    mutated   whether the function wrote to it
    carries   whether it wrote something that carries a gradient
    region    in how many control-flow regions it was made
    counted   whether a write was one that autograd counts: not through `.data`
    views     the views that were made of it, while they are alive
    """

    __slots__ = ("base", "carries", "concrete", "constant", "counted", "mutated", "region", "source", "value", "views")

    def __init__(self, value: Value, source: Source | None = None, concrete: Tensor | None = None) -> None:
        super().__init__(np.empty(0, np.uint8))
        self.value = value
        self.source = source
        self.concrete = concrete
        self.base: Tensor | None = None
        self.mutated = False
        self.carries = False
        self.constant = False
        self.region = 0
        self.counted = False
        self.views: list[weakref.ref[Tensor]] = []


class Recorded(Traced):
    """The payload of a tensor during a capture: a view (through `steps`, possibly none) of a recorded storage.

    A view that is made under no_grad, or of such a view, stays `untracked`, whatever becomes of its base; `modes` says
    of each step whether gradients were recorded. One that was made by `.data` is `quiet`: autograd does not count what
    is written through it. A detached one that was changed by something with a history has that `apart` from its
    memory."""

    __slots__ = ("apart", "find_layout", "modes", "quiet", "recorder", "steps", "storage", "untracked", "version")

    def __init__(
        self,
        value: Value,
        recorder: Any,
        storage: RecordedStorage,
        steps: Steps = (),
        layout: np.ndarray[Any, Any] | None = None,
    ) -> None:
        super().__init__(value, layout)
        self.recorder = recorder
        self.storage = storage
        self.steps = steps
        self.version = storage.version
        self.untracked = False
        self.quiet = False
        self.apart = False
        self.modes: tuple[bool, ...] = ()
        self.find_layout: Callable[[], np.ndarray[Any, Any]] | None = None  # asked when somebody needs to know

    @property
    def layout(self) -> np.ndarray[Any, Any]:
        """An array over no memory with the strides that eager execution would have."""
        if self.find_layout is not None:
            self._layout, self.find_layout = self.find_layout(), None
        return super().layout

    def stride(self) -> tuple[Any, ...]:
        """Strides in elements, as expressions in the symbolic sizes of the memory."""
        return symbolic_layout(self).strides if self._is_symbolic() else element_strides(self.layout)

    def storage_offset(self) -> Any:
        """The first element's distance from the start of the memory, in elements."""
        return self.recorder.start_of(self.storage) + self.place

    @property
    def place(self) -> Any:
        """The first element's distance from that of the base, in elements."""
        if self._is_symbolic():
            return symbolic_layout(self).offset
        whole = self.layout if self.storage.base is None else self.storage.base._data.layout
        first, own = (a.__array_interface__["data"][0] for a in (whole, self.layout))
        return (own - first) // self.layout.itemsize

    def _is_symbolic(self) -> bool:
        base = self.storage.base
        return not all(type(n) is int for of in (self, base) if of is not None for n in of.shape)

    @property
    def detached(self) -> bool:
        """Whether the way from the base passes a `detach`."""
        return any(op.name == "detach" for op, _ in self.steps)


class RecordedNode(Node):
    """Stands for the history of a recorded tensor, so that `grad_fn` and `is_leaf` read as in eager mode."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        super().__init__(())
        self._name = name

    def name(self) -> str:
        return self._name
