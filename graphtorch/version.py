"""Versions, `torch.version`: of this library, and of the platforms that it was built for (none)."""

from __future__ import annotations

__version__ = "0.1.0"
debug = False
cuda: str | None = None
hip: str | None = None
xpu: str | None = None
git_version = "unknown"
