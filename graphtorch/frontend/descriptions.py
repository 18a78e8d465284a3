"""What a captured function's results are, in terms of the inputs and outputs of its graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphtorch.frontend.arrangement import Within
from graphtorch.frontend.recorded import Steps
from graphtorch.frontend.sources import Slot, Source
from graphtorch.tensor.symint import SymInt


@dataclass(frozen=True, slots=True)
class Constant:
    """A result that is no tensor of the graph: returned as it is."""

    value: Any


@dataclass(frozen=True, slots=True)
class Made:
    """A result that is no tensor and that the function makes: a copy at each call, for the caller may change it."""

    value: Any


@dataclass(frozen=True, slots=True)
class Computed:
    """A result that is a number which each call computes in Python."""

    index: int


@dataclass(frozen=True, slots=True)
class Size:
    """A result that is a symbolic size: this call's value of it."""

    value: SymInt


@dataclass(frozen=True, slots=True)
class Position:
    """The place at which `x[i]` with a tensor `i` starts: known to each call only, as an output of the graph."""

    index: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A result that is an input, or a view of one. `is_leaf` for one that the user made a leaf inside; `modes` say of
    each step whether gradients were recorded, `stale` that the memory of a view made under no_grad changed since."""

    source: Source
    steps: Steps
    modes: tuple[bool, ...] = ()
    is_leaf: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A result that is a graph output.

    `requires_grad` as eager's result has it; `is_leaf` for one made inside by the user as a leaf; `number` for a
    run-time number, returned as a Python number; `strides`, in elements, where eager execution would not lay the
    result out in row-major order (with symbolic sizes `order`: the dimensions from the largest stride down, and for a
    view `within`: the tensor that it is a part of). A history that was used up inside the function, or that needs what
    was overwritten since, is the name of its node, the `error` that a backward pass through it raises, and the inputs
    that it `leads` to."""

    index: int
    requires_grad: bool = False
    is_leaf: bool = False
    number: bool = False
    broken: str = ""
    error: str = ""
    strides: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    within: Within | None = None
    leads: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """Memory that eager execution would have saved for a backward pass: who changes it in place before that gets an
    error. `of` is an input's source or the description of a result; `what` names the saver."""

    of: Any
    what: str


@dataclass(frozen=True, slots=True)
class Change:
    """What each call puts in the place of something in a Python object; `slot` knows of the place, if later calls read
    tensors there."""

    namespace: Any
    key: Any
    spec: Any
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class OutputView:
    """A result that is a view of an output, whose memory other results share."""

    base: Output
    steps: Steps
    modes: tuple[bool, ...]
    is_leaf: bool
    stale: bool
