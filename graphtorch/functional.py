"""PyTorch's module of compositions, `torch.functional`: names of the top namespace."""

from __future__ import annotations

from typing import Any

from graphtorch.ops import FUNCTIONS

_NAMES = (
    *("atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_shapes", "broadcast_tensors"),
    *("cartesian_prod", "cdist", "chain_matmul", "einsum", "istft", "lu", "meshgrid", "norm", "pca_lowrank", "split"),
    *("stft", "svd_lowrank", "tensordot", "unique", "unique_consecutive", "unravel_index"),
)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return FUNCTIONS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
