"""`torch._dynamo.utils`: the question that packages ask before they compile a function of theirs."""

from __future__ import annotations

from typing import Any

from graphtorch.tensor.devices import device


def is_compile_supported(device_type: Any) -> bool:
    """Whether functions of tensors on such a device can be compiled."""
    return device(device_type).type in ("cpu", "cuda")
