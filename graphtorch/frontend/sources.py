"""Where a captured graph's inputs come from: how each call of the compiled function finds them again."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.frontend.places import fetch
from graphtorch.tensor.tensor import Tensor


class Source(ABC):
    """Finds one input. `leaves` are the flattened arguments of the present call."""

    kind = "input"
    name = ""

    @abstractmethod
    def fetch(self, leaves: Sequence[Any]) -> Any:
        """The tensor (or number) of this call."""


@dataclass(frozen=True, eq=False)
class ArgumentSource(Source):
    """The i-th leaf of the arguments."""

    index: int
    name: str
    kind: str = "argument"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        return leaves[self.index]


@dataclass(frozen=True, eq=False)
class TensorSource(Source):
    """A tensor that the function reached through a closure, a module or an optimizer: held by identity, read at each
    call."""

    tensor: Tensor
    name: str
    kind: str

    def fetch(self, leaves: Sequence[Any]) -> Any:
        return self.tensor


class Slot:
    """A place that each call may give another tensor: `namespace[key]`. `tensor` is the one that is known to lie there.

    No call changes that tensor itself, and no other input may be it or a view of it."""

    def __init__(self, namespace: Any, key: Any, tensor: Tensor) -> None:
        self.namespace = namespace
        self.key = key
        self.tensor = tensor

    def adopts(self) -> bool:
        """Whether what lies there is the known tensor, or may become it: one that nobody else has."""
        found = fetch(self.namespace, self.key)
        if found is self.tensor:
            return True
        if type(found) is not type(self.tensor) or not is_own(found):
            return False
        references = sys.getrefcount(found._data) - 2 - (found._storage is not None)
        if type(found._data) is not np.ndarray or found._data.base is not None or references > 0:
            return False
        self.tensor = found
        return True


def is_own(tensor: Tensor) -> bool:
    """Whether a tensor is no view, and has no history."""
    return tensor._base is None and not tensor._requires_grad and tensor._node is None


@dataclass(frozen=True, eq=False)
class SlotSource(Source):
    """The tensor that lies in a slot when the call begins."""

    slot: Slot
    name: str
    kind: str = "state"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        return self.slot.tensor


@dataclass(frozen=True, eq=False)
class GradSource(Source):
    """The `.grad` that another input had before the call."""

    owner: Source
    name: str
    kind: str = "grad"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        return self.owner.fetch(leaves)._grad


@dataclass(frozen=True, eq=False)
class IntegerArgument(Source):
    """The i-th leaf of the arguments, an integer that is a symbol: an array without contents, of that length."""

    index: int
    name: str
    kind: str = "size"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        return Tensor._wrap(carrier(leaves[self.index]))


LARGEST = 1 << 24  # past the integers that are symbols: their arrays are allocated


def gradient_of(owner: Source) -> str:
    """The attribute in which a source's tensor has its gradient: the slot itself for a tensor that had one at the
    capture, the property for arguments, which may be tensors that never had."""
    return "_gradient" if isinstance(owner, TensorSource) else "_grad"


@dataclass(frozen=True, eq=False)
class NumberSource(Source):
    """A Python number in a dictionary, such as a param group's learning rate, or at `index` of a tuple there."""

    container: Any
    key: Any
    name: str
    index: int | None = None
    kind: str = "number"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        value = dict.__getitem__(self.container, self.key)
        return value if self.index is None else value[self.index]


@dataclass(frozen=True, eq=False)
class SizeSource(Source):
    """A size that depends on data: the length of an array without contents, which a call makes when it knows the answer
    to the decision at `place`."""

    place: int
    sample: Tensor  # one of the capture's length
    name: str
    kind: str = "size"

    def fetch(self, leaves: Sequence[Any]) -> Any:
        return self.sample


def carrier(size: int) -> Any:
    """The array of that length."""
    return np.empty(size, np.bool_)
