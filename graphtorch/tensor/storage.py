"""Storage: the memory that a tensor and its views share, with the version counter that in-place changes bump."""

from __future__ import annotations

from typing import Any

import numpy as np


class Storage:
    """A block of memory, shared by every tensor that views it.

    `owner` is the ndarray whose memory this is: the array of the tensor that the storage was first asked of. Its
    version counts in-place changes; the tape compares versions to find saved values that were overwritten."""

    __slots__ = ("__weakref__", "owner", "version")

    def __init__(self, owner: np.ndarray[Any, Any]) -> None:
        self.owner = owner
        self.version = 0

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return np.lib.array_utils.byte_bounds(self.owner)[0] if self.owner.size else 0

    def nbytes(self) -> int:
        """The size in bytes, the extent of the owner (which counts a strided array's gaps)."""
        if not self.owner.size:
            return 0
        low, high = np.lib.array_utils.byte_bounds(self.owner)
        return int(high - low)

    def size(self) -> int:
        return self.nbytes()

    def __len__(self) -> int:
        return self.nbytes()
