"""Older spellings of mixed precision on CUDA devices, `torch.cuda.amp`."""

from __future__ import annotations

from typing import Any

from graphtorch.amp.autocast_mode import autocast as _autocast
from graphtorch.amp.autocast_mode import custom_bwd as _custom_bwd
from graphtorch.amp.autocast_mode import custom_fwd as _custom_fwd
from graphtorch.amp.grad_scaler import GradScaler as _GradScaler
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype as dtype_class


class autocast(_autocast):
    """`graphtorch.autocast("cuda", ...)`."""

    def __init__(self, enabled: bool = True, dtype: dtype_class = dtypes.float16, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class GradScaler(_GradScaler):
    """`graphtorch.amp.GradScaler("cuda", ...)`."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


def custom_fwd(fwd: Any = None, *, cast_inputs: dtype_class | None = None) -> Any:
    """`graphtorch.amp.custom_fwd` for CUDA."""
    return _custom_fwd(fwd, device_type="cuda", cast_inputs=cast_inputs)


def custom_bwd(bwd: Any = None) -> Any:
    """`graphtorch.amp.custom_bwd` for CUDA."""
    return _custom_bwd(bwd, device_type="cuda")
