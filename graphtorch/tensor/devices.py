"""Device objects: `cpu`, `meta` (shapes without data) and the names of accelerators."""

from __future__ import annotations

import threading
from typing import Any

# PyTorch's names, in its order. Tensors live on the CPU, on meta and on CUDA devices.
# fmt: off
KNOWN_TYPES = (
    "cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla", "lazy",
    "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone",
)
# fmt: on


class device:
    """Where a tensor's data lives. See https://docs.pytorch.org/docs/stable/tensor_attributes.html#torch-device.

    Raises RuntimeError for an unknown device type or a malformed string.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | device | int, index: int | None = None) -> None:
        if not isinstance(type, device | int | str):
            raise TypeError(
                f"device() received an invalid combination of arguments - got ({type.__class__.__name__}), but "
                "expected one of:\n * (torch.device device)\n * (str type, int index = -1)"
            )
        if isinstance(type, device):
            kind, index = type.type, type.index if index is None else index
        elif isinstance(type, int):
            kind, index = "cuda", type
        else:
            if not type:
                raise RuntimeError("Device string must not be empty")
            kind, separator, digits = type.partition(":")
            if separator:
                if index is not None:
                    raise RuntimeError(
                        f"type (string) must not include an index because index was passed explicitly: {type}"
                    )
                if not digits.isdigit():
                    raise RuntimeError(f"Invalid device string: '{type}'")
                index = int(digits)
        if kind not in KNOWN_TYPES:
            raise RuntimeError(
                f"Expected one of {', '.join(KNOWN_TYPES)} device type at start of device string: {kind}"
            )
        object.__setattr__(self, "type", kind)
        object.__setattr__(self, "index", index)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"attribute '{name}' of 'torch.device' objects is not writable")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return (
            f"device(type='{self.type}')" if self.index is None else f"device(type='{self.type}', index={self.index})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return (device, (self.type, self.index))

    def __enter__(self) -> device:
        """`with device("meta"):` makes it the default device of this thread."""
        _defaults.outer = (*_defaults.outer, _defaults.current)
        _defaults.current = canonical(self)
        return self

    def __exit__(self, *exception: object) -> None:
        *outer, _defaults.current = _defaults.outer
        _defaults.outer = tuple(outer)


CPU = device("cpu")
META = device("meta")


class _Defaults(threading.local):
    """The device of new tensors, per thread, and those of the `with device(...)` blocks around."""

    current: device = CPU
    outer: tuple[device, ...] = ()


_defaults = _Defaults()


def get_default_device() -> device:
    """Where new tensors are made. See torch.get_default_device."""
    return _defaults.current


def set_default_device(device: device | str | int | None) -> None:
    """Set where new tensors are made; None: back to the CPU. See torch.set_default_device."""
    _defaults.current = CPU if device is None else canonical(device)


_cuda: list[device] = []  # by number: tensors of one device have the same object


def cuda_device(index: int) -> device:
    """The one object that stands for a CUDA device by its number."""
    while len(_cuda) <= index:
        _cuda.append(device("cuda", len(_cuda)))
    return _cuda[index]


def canonical(value: device | str | int | None) -> device:
    """The device object for what an API accepts as `device=`; the same object for every spelling of a device.

    None is the default device; "cuda" the current CUDA device, where there is one.
    """
    if value is None:
        return _defaults.current
    found = value if isinstance(value, device) else device(value)
    if found.type == "cpu":
        return CPU
    if found.type == "meta":
        return META
    if found.type == "cuda":
        if found.index is not None:
            return cuda_device(found.index)
        from graphtorch.runtime.cuda import devices  # reached from below, where a program asks for a device

        return cuda_device(devices.current.index) if devices.count() else found
    return found
