"""Switches of CUDA's libraries. `matmul.allow_tf32` decides about float32 products on GPUs, the others are kept and not
used. See https://docs.pytorch.org/docs/stable/backends.html."""

from __future__ import annotations

from graphtorch.tensor.precision import settings


class _Switches:
    """Attributes that programs set."""

    def __init__(self, **values: object) -> None:
        vars(self).update(values)


class _Matmul(_Switches):
    """Switches of matrix products."""

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 products may run in tf32: the same switch as `set_float32_matmul_precision`."""
        return settings.matmul != "highest"

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        settings.matmul = "high" if allowed else "highest"


matmul = _Matmul(
    allow_fp16_reduced_precision_reduction=True,
    allow_bf16_reduced_precision_reduction=True,
    fp32_precision="none",
)
cufft_plan_cache = _Switches(size=0, max_size=0)

_attention = {"flash": True, "mem_efficient": True, "math": True, "cudnn": True}


def is_built() -> bool:
    """Whether there is a CUDA device."""
    from graphtorch.runtime.cuda import devices  # loaded where somebody asks

    return devices.count() > 0


def flash_sdp_enabled() -> bool:
    return _attention["flash"]


def enable_flash_sdp(enabled: bool) -> None:
    _attention["flash"] = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    return _attention["mem_efficient"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    _attention["mem_efficient"] = bool(enabled)


def math_sdp_enabled() -> bool:
    return _attention["math"]


def enable_math_sdp(enabled: bool) -> None:
    _attention["math"] = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    return _attention["cudnn"]


def enable_cudnn_sdp(enabled: bool) -> None:
    _attention["cudnn"] = bool(enabled)
