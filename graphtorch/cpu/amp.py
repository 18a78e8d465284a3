"""Older spellings of mixed precision on the CPU, `torch.cpu.amp`."""

from __future__ import annotations

from graphtorch.amp.autocast_mode import autocast as _autocast
from graphtorch.amp.grad_scaler import GradScaler as _GradScaler
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype as dtype_class


class autocast(_autocast):
    """`graphtorch.autocast("cpu", ...)`."""

    def __init__(self, enabled: bool = True, dtype: dtype_class = dtypes.bfloat16, cache_enabled: bool = True) -> None:
        super().__init__("cpu", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class GradScaler(_GradScaler):
    """`graphtorch.amp.GradScaler("cpu", ...)`."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
