"""Automatic mixed precision: `autocast`, `GradScaler`, and decorators for custom functions. See
https://docs.pytorch.org/docs/stable/amp.html."""

from graphtorch.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from graphtorch.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
