"""`TensorType`: what is known of a value without its data. Type rules produce it; every IR value carries one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphtorch.tensor.devices import CPU, device
from graphtorch.tensor.dtypes import dtype


# Values that nobody changes. Not `frozen`, which makes them three times as dear: the tape makes one for every operand.
@dataclass(slots=True, unsafe_hash=True)
class TensorType:
    """Element type, shape (ints or symbolic dimensions) and device of a value.

    `is_number` marks a Python number that became a run-time value (a learning rate, say): zero-dimensional, stored as
    float64, int64 or bool, and promoted as the Python number it stands for.
    """

    dtype: dtype
    shape: tuple[Any, ...]
    device: device = CPU
    is_number: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> Any:
        return math.prod(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def with_shape(self, shape: Sequence[Any]) -> TensorType:
        return TensorType(self.dtype, tuple(shape), self.device)

    def with_dtype(self, d: Any) -> TensorType:
        return TensorType(d, self.shape, self.device)

    def __str__(self) -> str:
        """The IR's spelling, such as `f32[64, 10]`, `f64[] number` or `f32[8]@cuda:0`."""
        text = f"{self.dtype.abbreviation}[{', '.join(str(d) for d in self.shape)}]"
        if self.device.type != "cpu":
            text += f"@{self.device}"
        return text + " number" if self.is_number else text


def type_of(value: Any) -> TensorType:
    """The type of anything that has dtype, shape and device: a Tensor, an IR value or a type itself."""
    if isinstance(value, TensorType):
        return value
    return TensorType(value.dtype, tuple(value.shape), value.device, getattr(value, "is_number", False))
