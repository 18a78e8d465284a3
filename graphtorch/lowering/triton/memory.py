"""Memory that a launch plan provides beside that of the schedule's values.

Scratch         of one step: what its launches hand to each other
Table           integers that the host writes once for each block of device memory: addresses, sizes, maps
RandomState     seed and offset of a random stream, which the host writes before every run
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import Buffer
from graphtorch.tensor.dtypes import dtype, int64
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.type import TensorType

AddressOf = Callable[[Buffer], int]


class Scratch(Buffer):
    """Memory of one step. Another step may use the same."""

    __slots__ = ()

    def __init__(self, name: str, of: dtype, shape: tuple[Any, ...]) -> None:
        super().__init__(name, of, shape, "scratch", Value(TensorType(of, shape), name))


class Table(Buffer, ABC):
    """int64 numbers that stay as they are as long as buffers keep their places."""

    __slots__ = ()

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, int64, (size,), "table", Value(TensorType(int64, (size,)), name))

    @abstractmethod
    def contents(self, address: AddressOf) -> np.ndarray[Any, Any]:
        """The numbers, `shape[0]` of them, where `address` gives that of a buffer."""


class Addresses(Table):
    """Rows of numbers, and of buffers that stand for their addresses."""

    __slots__ = ("rows",)

    def __init__(self, name: str, rows: Sequence[Sequence[int | Buffer]]) -> None:
        super().__init__(name, sum(map(len, rows)))
        self.rows = rows

    def contents(self, address: AddressOf) -> np.ndarray[Any, Any]:
        numbers = [address(x) if isinstance(x, Buffer) else x for row in self.rows for x in row]
        return np.array(numbers, np.uint64).view(np.int64)


class Spans(Table):
    """For each program of a launch over several parts, which part it is in (the high 32 bits), and its number there."""

    __slots__ = ("spans",)

    def __init__(self, name: str, spans: Sequence[int]) -> None:
        super().__init__(name, sum(spans))
        self.spans = spans

    def contents(self, address: AddressOf) -> np.ndarray[Any, Any]:
        return np.concatenate([(i << 32) + np.arange(span, dtype=np.int64) for i, span in enumerate(self.spans)])


class RandomState(Buffer):
    """Two int64 numbers: the seed and the offset with which the draws of one run begin.

    generator   whose stream it is
    draws       the draws from it, in the order of the program: how far the calls of a run advance the offset
    """

    __slots__ = ("draws", "generator")

    def __init__(self, name: str, generator: Generator) -> None:
        super().__init__(name, int64, (2,), "state", Value(TensorType(int64, (2,)), name))
        self.generator = generator
        self.draws: list[Callable[[Mapping[str, int]], int]] = []

    def before(self, position: int, bindings: Mapping[str, int]) -> int:
        """By how much the draws before the one at that position have advanced the offset."""
        return sum(advance(bindings) for advance in self.draws[:position])

    def contents(self, bindings: Mapping[str, int]) -> np.ndarray[Any, Any]:
        """What the next run begins with; advances the generator beyond it."""
        seed, offset = self.generator.advance_philox(self.before(len(self.draws), bindings))
        return np.array([seed, offset], np.uint64).view(np.int64)
