"""Joining samples into a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.tensor.creation import as_tensor, tensor
from graphtorch.tensor.dtypes import float64
from graphtorch.tensor.tensor import Tensor

__all__ = ["collate", "default_collate", "default_convert"]

Rule = Callable[..., Any]
Rules = dict[type | tuple[type, ...], Rule]


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays in a nest of containers into tensors; everything else stays as it is."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray | np.generic):
        return data if data.dtype.kind in "SUOV" else as_tensor(data)
    if isinstance(data, Mapping):
        return _same_mapping(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        converted = [default_convert(value) for value in data]
        return converted if isinstance(data, tuple) else _same_sequence(data, converted)
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """Join a list of samples: tensors and arrays are stacked, numbers become a tensor, containers are joined within.

    Floats become float64, as a Python float is. Strings and bytes stay a list.

    Raises:
        TypeError: a sample is of a type that has no rule.
        RuntimeError: sequences in the batch have different lengths.
    """
    return collate(batch, collate_fn_map=_DEFAULT_RULES)


def collate(batch: Sequence[Any], *, collate_fn_map: Rules | None = None) -> Any:
    """Join samples by the rules given for their types, ``rule(batch, collate_fn_map=...)``; containers recursively."""
    first = batch[0]
    rules = collate_fn_map or {}
    rule = rules.get(type(first))
    if rule is None:
        rule = next((found for kind, found in rules.items() if isinstance(first, kind)), None)
    if rule is not None:
        return rule(batch, collate_fn_map=collate_fn_map)

    def within(values: Sequence[Any]) -> Any:
        return collate(values, collate_fn_map=collate_fn_map)

    if isinstance(first, Mapping):
        return _same_mapping(first, {key: within([sample[key] for sample in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(within(values) for values in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        joined = [within(values) for values in zip(*batch, strict=True)]
        # A tuple becomes a list: kept for compatibility.
        return joined if isinstance(first, tuple) else _same_sequence(first, joined)
    raise TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}"
    )


def _same_mapping(like: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """``values`` in the class of ``like`` where that can be made."""
    try:
        if hasattr(like, "update"):
            result = copy.copy(like)
            result.update(values)
            return result
        return type(like)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _same_sequence(like: Sequence[Any], values: list[Any]) -> Any:
    """``values`` in the class of ``like`` where that can be made."""
    try:
        if hasattr(like, "__setitem__"):
            result = copy.copy(like)
            for index, value in enumerate(values):
                result[index] = value
            return result
        return type(like)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _stack_tensors(batch: Sequence[Tensor], *, collate_fn_map: Rules | None = None) -> Tensor:
    return ops.stack(list(batch), 0)


def _stack_arrays(batch: Sequence[Any], *, collate_fn_map: Rules | None = None) -> Any:
    if batch[0].dtype.kind in "SUOV":
        raise TypeError(
            "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
            f"found {batch[0].dtype}"
        )
    return collate([as_tensor(array) for array in batch], collate_fn_map=collate_fn_map)


def _stack_scalars(batch: Sequence[Any], *, collate_fn_map: Rules | None = None) -> Tensor:
    return as_tensor(np.asarray(batch))


def _floats(batch: Sequence[float], *, collate_fn_map: Rules | None = None) -> Tensor:
    return tensor(list(batch), dtype=float64)


def _integers(batch: Sequence[int], *, collate_fn_map: Rules | None = None) -> Tensor:
    return tensor(list(batch))


def _keep(batch: Sequence[Any], *, collate_fn_map: Rules | None = None) -> Sequence[Any]:
    return batch


_DEFAULT_RULES: Rules = {
    Tensor: _stack_tensors,
    np.ndarray: _stack_arrays,
    (np.bool_, np.number, np.object_): _stack_scalars,
    float: _floats,
    int: _integers,
    str: _keep,
    bytes: _keep,
}
