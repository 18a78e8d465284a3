"""Batches in parts and back: `scatter` and `gather`, whose parts may lie on one device.

See torch.nn.parallel.scatter_gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch import ops
from graphtorch.tensor.devices import device
from graphtorch.tensor.tensor import Tensor

__all__ = ["gather", "scatter", "scatter_kwargs"]


def _place(where: Any) -> Any:
    """A device; a number names a CUDA device, -1 the CPU."""
    if isinstance(where, int):
        return device("cpu") if where < 0 else device("cuda", where)
    return device(where)


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> Any:
    """The tensors of a nest of containers in parts, one a device, along `dim`; other values as they are, each time.

    Of a tensor, a tuple of parts; of anything else, a list."""
    if isinstance(inputs, Tensor):
        parts = inputs.chunk(len(target_gpus), dim)
        return tuple(part.to(_place(where)) for part, where in zip(parts, target_gpus, strict=False))
    if isinstance(inputs, tuple | list | dict) and inputs:
        items = inputs.items() if isinstance(inputs, dict) else inputs
        split = zip(*(scatter(item, target_gpus, dim) for item in items), strict=False)
        if _is_namedtuple(inputs):
            return [type(inputs)(*part) for part in split]
        return [part if isinstance(inputs, tuple) else type(inputs)(part) for part in split]
    return [inputs for _ in target_gpus]


def scatter_kwargs(
    inputs: Any, kwargs: dict[str, Any] | None, target_gpus: Sequence[Any], dim: int = 0
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """`scatter` of positional and named arguments, as many of the one as of the other."""
    parts = list(scatter(inputs, target_gpus, dim)) if inputs else []
    named = list(scatter(kwargs, target_gpus, dim)) if kwargs else []
    parts += [()] * (len(named) - len(parts))
    named += [{} for _ in range(len(parts) - len(named))]
    return tuple(parts), tuple(named)


def gather(outputs: Sequence[Any], target_device: Any, dim: int = 0) -> Any:
    """The parts of several results (tensors in equal nests of containers), joined along `dim` on a device.

    Numbers, as tensors without dimensions, become a vector. Raises ValueError for dictionaries of unequal sizes."""
    first = outputs[0]
    if isinstance(first, Tensor):
        where = _place(target_device)
        moved = [output.to(where) for output in outputs]
        return ops.stack(moved) if first.dim() == 0 else ops.cat(moved, dim)
    if first is None:
        return None
    if isinstance(first, dict):
        if not all(len(first) == len(other) for other in outputs):
            raise ValueError("All dicts must have the same number of keys")
        return type(first)((key, gather([o[key] for o in outputs], target_device, dim)) for key in first)
    joined = [gather(each, target_device, dim) for each in zip(*outputs, strict=True)]
    return type(first)(*joined) if _is_namedtuple(first) else type(first)(joined)
