"""Type aliases of annotations, `torch.types`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from graphtorch.tensor import Size, Tensor, device, dtype
from graphtorch.tensor.storage import UntypedStorage as Storage

Number = int | float | bool
Device = device | str | int | None
FileLike = Any
PathLike = str | os.PathLike[str]

_TensorOrTensors = Tensor | Sequence[Tensor]
_dtype = dtype
_device = device
_size = Size | list[int] | tuple[int, ...]
_int, _float, _bool, _complex = int, float, bool, complex

__all__ = ["Device", "FileLike", "Number", "PathLike", "Storage"]
