"""`autocast`: regions in which products run in bfloat16 or float16, and what needs more digits in float32. See
https://docs.pytorch.org/docs/stable/amp.html.

Settings are per thread and device type."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from graphtorch.ops.autocast import DEFAULTS as _DEFAULTS
from graphtorch.ops.autocast import settings as _settings
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype as dtype_class
from graphtorch.tensor.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def has_cuda() -> bool:
    """Whether there is a CUDA device."""
    from graphtorch.runtime.cuda import devices  # loaded where somebody asks for it

    return devices.count() > 0


def _device(device_type: str) -> str:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    name = device_type.partition(":")[0]
    if name not in _DEFAULTS:
        raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
    return name


def is_autocast_available(device_type: str) -> bool:
    """Whether a device type has an autocast."""
    return device_type in _DEFAULTS


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether operators of a device type are cast now, in this thread."""
    return _settings.enabled[_device(device_type)]


def set_autocast_enabled(device_type: str | bool, enabled: bool | None = None) -> None:
    """Switch autocast for a device type in this thread; `set_autocast_enabled(True)` is the older form, for cuda."""
    name, on = ("cuda", device_type) if isinstance(device_type, bool) else (_device(device_type), enabled)
    _settings.enabled[name] = bool(on)
    _settings.apply()


def get_autocast_dtype(device_type: str) -> dtype_class:
    """What operators of a device type are cast to where autocast is on."""
    return _settings.dtypes[_device(device_type)]


def set_autocast_dtype(device_type: str, dtype: dtype_class) -> None:
    """Choose what operators of a device type are cast to in this thread."""
    _settings.dtypes[_device(device_type)] = dtype
    _settings.apply()


def is_autocast_cache_enabled() -> bool:
    """Whether a region casts each parameter only once."""
    return _settings.cache_enabled


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Choose whether regions cast each parameter only once."""
    _settings.cache_enabled = bool(enabled)
    _settings.apply()


def clear_autocast_cache() -> None:
    """Forget the casts of parameters."""
    _settings.cache.clear()


def autocast_increment_nesting() -> int:
    """Enter a region; returns how many there are."""
    _settings.nesting += 1
    return _settings.nesting


def autocast_decrement_nesting() -> int:
    """Leave a region; returns how many there are."""
    _settings.nesting -= 1
    return _settings.nesting


def is_autocast_cpu_enabled() -> bool:
    """`is_autocast_enabled("cpu")`."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """`set_autocast_enabled("cpu", enabled)`."""
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> dtype_class:
    """`get_autocast_dtype("cpu")`."""
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: dtype_class) -> None:
    """`set_autocast_dtype("cpu", dtype)`."""
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> dtype_class:
    """`get_autocast_dtype("cuda")`."""
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: dtype_class) -> None:
    """`set_autocast_dtype("cuda", dtype)`."""
    set_autocast_dtype("cuda", dtype)


class autocast:
    """A region (context manager or decorator) of mixed precision. See torch.autocast.

    device_type    "cpu"; "cuda" warns and does nothing where there is no such device.
    dtype          bfloat16 (the default) or float16; another one warns and disables the region.
    enabled        False switches autocast off inside.
    cache_enabled  whether a parameter is cast once a region; it is cast again after a change.

    Inside a compiled function the casts are part of the graph; a region around a compiled function is one of its
    assumptions. Raises RuntimeError for an unknown device type.
    """

    def __init__(
        self,
        device_type: str,
        dtype: dtype_class | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        self.device = _device(device_type)
        self.fast_dtype = get_autocast_dtype(self.device) if dtype is None else dtype
        self._cache_enabled = is_autocast_cache_enabled() if cache_enabled is None else cache_enabled
        if enabled and self.device == "cuda" and not has_cuda():
            warnings.warn(
                "User provided device_type of 'cuda', but CUDA is not available. Disabling",
                UserWarning,
                stacklevel=2,
            )
            enabled = False
        elif enabled and self.fast_dtype not in (dtypes.bfloat16, dtypes.float16):
            warnings.warn(
                f"In {self.device.upper()} autocast, but the target dtype is not supported. Disabling autocast.\n"
                f"{self.device.upper()} Autocast only supports dtypes of torch.bfloat16, torch.float16 currently.",
                stacklevel=2,
            )
            enabled = False
        self._enabled = enabled
        self._previous: list[tuple[bool, dtype_class, bool]] = []

    def __enter__(self) -> autocast:
        held = _settings
        self._previous.append((held.enabled[self.device], held.dtypes[self.device], held.cache_enabled))
        held.enabled[self.device] = self._enabled
        held.dtypes[self.device] = self.fast_dtype
        held.cache_enabled = self._cache_enabled
        autocast_increment_nesting()
        held.apply()
        return self

    def __exit__(self, *exception: object) -> None:
        held = _settings
        if autocast_decrement_nesting() == 0:
            clear_autocast_cache()
        held.enabled[self.device], held.dtypes[self.device], held.cache_enabled = self._previous.pop()
        held.apply()

    def __call__(self, func: F) -> F:
        if not callable(func):
            raise TypeError(
                f"autocast()(func) requires a callable, but got {type(func).__name__}. Did you mean to use autocast as "
                "a context manager? For example:\n    with torch.autocast(device_type=...):\n        output = "
                "model(input)"
            )

        @functools.wraps(func)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return func(*args, **kwargs)

        return run  # type: ignore[return-value]


def _cast(value: Any, device_type: str, to: dtype_class) -> Any:
    if isinstance(value, Tensor):
        eligible = value.is_floating_point() and value.device.type == device_type and value.dtype is not dtypes.float64
        return value.to(to) if eligible else value
    if isinstance(value, dict):
        return {_cast(k, device_type, to): _cast(v, device_type, to) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cast(v, device_type, to) for v in value)
    return value


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: dtype_class | None = None) -> Any:
    """Decorate the forward of a custom `autograd.Function`. See torch.amp.custom_fwd.

    `cast_inputs`: inside an autocast region, floating-point arguments are cast to this dtype, and forward runs with
    autocast off.
    """
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        context = args[0]
        context._dtype = get_autocast_dtype(device_type)
        if cast_inputs is None:
            context._fwd_used_autocast = is_autocast_enabled(device_type)
            return fwd(*args, **kwargs)
        context._fwd_used_autocast = False
        if not is_autocast_enabled(device_type):
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*_cast(args, device_type, cast_inputs), **_cast(kwargs, device_type, cast_inputs))

    return decorated


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorate the backward of a custom `autograd.Function`: it runs with the autocast of its forward. See
    torch.amp.custom_bwd."""
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, enabled=args[0]._fwd_used_autocast, dtype=args[0]._dtype):
            return bwd(*args, **kwargs)

    return decorated
