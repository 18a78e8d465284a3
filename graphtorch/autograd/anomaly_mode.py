"""PyTorch's module of the anomaly mode. See https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection."""

from __future__ import annotations

from graphtorch.autograd.grad_mode import detect_anomaly, set_detect_anomaly

__all__ = ["detect_anomaly", "set_detect_anomaly"]
