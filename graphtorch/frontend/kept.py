"""Gradients that a compiled step leaves in the same memory run after run.

A step that clears gradients and computes them again gives each parameter a new tensor in each call, which costs Python
half a microsecond and the device a copy. But if nobody has taken the gradient of the last call, nobody can tell whether
it is the same tensor: it may be written again where it is. Whether somebody has, reference counts tell: of the tensor,
its array and its memory, all read at once (`frontend.watch`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from graphtorch.frontend.watch import available, dictionary_offset, memory, places, read, version_address
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor

_new = object.__new__


@cache
def _gradient_offset() -> int | None:
    """Where tensors have the reference to their gradient."""
    sample, marker = _new(Tensor), _new(Tensor)
    sample._gradient = marker
    inside = range(16, Tensor.__basicsize__, 8)
    words = read([id(sample) + n for n in inside])
    return inside[words.index(id(marker))] if id(marker) in words else None


def keepable() -> bool:
    """Whether this interpreter lets itself be asked who holds a tensor."""
    if not available() or _gradient_offset() is None:
        return False
    held, before = _new(Tensor), 0
    before = read([id(held)])[0]
    more = [held, held]
    return read([id(held)])[0] == before + len(more)


class KeptGradients:
    """The gradients that one specialisation gives to parameters, which replays ask for.

    In the scope of a replay, `resident` names what an executable calls the arrays of the last run, None where it keeps
    none; `gradient_places` and `gradient_words` are what memory says of gradients that only their parameters hold,
    `dropped_words` of those that the parameters have given up.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope
        self._leaves: list[Tensor] = []
        self._outputs: list[tuple[int, dtype]] = []
        self._held: list[tuple[Tensor, Any]] = []
        self._counts: list[int] = []  # references to the arrays
        scope.update(resident=None, gradient_places=None, gradient_words=b"", dropped_words=b"")

    def describe(self, gradients: Sequence[tuple[Tensor, int, dtype]]) -> None:
        """Which they are: parameter, position among the outputs, and dtype of each."""
        self._leaves = [leaf for leaf, _, _ in gradients]
        self._outputs = [(index, of) for _, index, of in gradients]

    def assign(self, arrays: Any) -> None:
        """Give the parameters the gradients among the results of a run. These are taken out of `arrays`."""
        self._scope["resident"] = None
        self._held = []
        held: list[tuple[Tensor, Any]] = []
        for leaf, (output, of) in zip(self._leaves, self._outputs, strict=True):
            made = _new(Tensor)
            made._data, arrays[output] = arrays[output], None
            made._dtype = of
            made._device = made._data.place
            leaf._gradient = made
            held.append((made, made._data))
        if arrays.resident is not None:
            del made
            self._held = held
            self._settle(arrays.resident)

    def _settle(self, resident: Any) -> None:
        """Note what memory says of gradients that only their parameters hold."""
        addresses: list[int] = []
        for leaf, (tensor, array) in zip(self._leaves, self._held, strict=True):
            addresses += [
                id(leaf) + (_gradient_offset() or 0),
                id(tensor),
                id(tensor) + Tensor.__weakrefoffset__,
                id(tensor) + (dictionary_offset(Tensor) or 0),
                version_address(vars(tensor)),
                id(array),
                id(array.memory),
            ]
        del leaf, tensor, array
        at = places(addresses)
        words = memory().take(at)
        if (words.reshape(-1, 7)[:, 1] != 2).any():  # the parameter's and ours: another thread has taken some already
            self._held = []
            return
        self._counts = words.reshape(-1, 7)[:, 5].tolist()
        # Without the parameters' own references: what zero_grad() leaves.
        dropped = words.reshape(-1, 7).copy()
        dropped[:, 0] = id(None)
        dropped[:, 1] -= 1
        self._scope.update(
            gradient_places=at,
            gradient_words=words.tobytes(),
            dropped_words=dropped.tobytes(),
            resident=resident,
        )

    def restore(self) -> None:
        """Give the parameters back the gradients that they have given up; the run has written them again."""
        for leaf, (tensor, _) in zip(self._leaves, self._held, strict=True):
            leaf._gradient = tensor

    def free(self) -> bool:
        """Whether nobody but the parameters has the gradients, although they were changed (clipped, say)."""
        for leaf, (tensor, array), count in zip(self._leaves, self._held, self._counts, strict=True):
            own = vars(tensor)
            storage = own.get("_storage")
            if not own.keys() <= {"_data", "_dtype", "_device", "_storage"} or own["_data"] is not array:
                return False
            if sys.getrefcount(tensor) != 3 + (leaf._grad is tensor):  # the list, the variable, the argument
                return False
            if storage is not None and (sys.getrefcount(storage) != 3 or storage.owner is not array):
                return False
            if sys.getrefcount(array) != count + 2 + (storage is not None) or sys.getrefcount(array.memory) != 2:
                return False
        return True


__all__ = ["KeptGradients", "keepable"]
