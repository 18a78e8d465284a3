"""Signal processing, `torch.signal`: window functions."""

from __future__ import annotations

from graphtorch.signal import windows

__all__ = ["windows"]
