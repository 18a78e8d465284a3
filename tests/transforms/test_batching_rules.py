"""`vmap` of every operator against one call an element, on the sample calls of its record."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.cli.graphs import load_records
from graphtorch.ops import dispatch
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor.dtypes import bool_, complex128, dtype, float64, int64

load_records()

SIZE = 3
DTYPES: dict[str, dtype] = {"f": float64, "i": int64, "c": complex128, "b": bool_}


def sampled(op: Operator) -> bool:
    return op.samples is not None and not op.random and any(p.is_operand for p in op.parameters)


NAMES = sorted(name for name, op in REGISTRY.items() if sampled(op))


def calls(op: Operator, seed: int) -> list[tuple[Any, ...]]:
    """The record's sample calls, as arguments in the order of the signature."""
    assert op.samples is not None
    letter = "f" if "f" in op.categories else op.categories[0]
    found = []
    for example in op.samples(Sampler(DTYPES[letter], seed=seed)):
        given = dict(zip([p.name for p in op.parameters], example.args, strict=False)) | example.kwargs
        found.append(tuple(given.get(p.name, p.default) for p in op.parameters))
    return found


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def same_kind(columns: tuple[Any, ...]) -> bool:
    """Whether the samples of several seeds differ in their tensors alone."""
    first = columns[0]
    if isinstance(first, torch.Tensor):
        return all(tuple(c.shape) == tuple(first.shape) and c.dtype is first.dtype for c in columns)
    if isinstance(first, tuple | list):
        return all(len(c) == len(first) for c in columns) and all(
            same_kind(items) for items in zip(*columns, strict=True)
        )
    return all(c == first or c is first for c in columns)


def stacked(columns: tuple[Any, ...], batched: bool) -> Any:
    first = columns[0]
    if isinstance(first, torch.Tensor):
        return torch.stack(list(columns)) if batched else first
    if isinstance(first, tuple | list):
        return tuple(stacked(items, batched) for items in zip(*columns, strict=True))
    return first


def dims(value: Any, batched: bool) -> Any:
    if isinstance(value, torch.Tensor):
        return 0 if batched else None
    if isinstance(value, tuple | list):
        return tuple(dims(v, batched) for v in value)
    return None


def element(value: Any, index: int, batched: bool) -> Any:
    if isinstance(value, torch.Tensor):
        return value[index] if batched else value
    if isinstance(value, tuple):
        return tuple(element(v, index, batched) for v in value)
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_its_elements_give(name: str) -> None:
    op = REGISTRY[name]
    checked = 0
    for columns in zip(*(calls(op, seed) for seed in range(SIZE)), strict=True):
        per_argument = list(zip(*columns, strict=True))
        if not all(same_kind(c) for c in per_argument):
            continue
        tensors = [i for i, c in enumerate(per_argument) if dims(c[0], True) not in (None, ()) and _any(c[0])]
        choices = [tuple(tensors), *((t,) for t in tensors)] if len(tensors) > 1 else [tuple(tensors)]
        for batched in choices:
            flags = [i in batched for i in range(len(per_argument))]
            args = tuple(stacked(c, f) for c, f in zip(per_argument, flags, strict=True))
            places = tuple(dims(c[0], f) for c, f in zip(per_argument, flags, strict=True))
            if not any(_has_batch(p) for p in places):
                continue
            try:
                wanted = [
                    as_tuple(dispatch.call(op, tuple(element(a, i, f) for a, f in zip(args, flags, strict=True))))
                    for i in range(SIZE)
                ]
            except (RuntimeError, ValueError, IndexError, TypeError):
                continue  # a sample whose first tensors don't go with the others' data
            got = as_tuple(torch.vmap(lambda *given: _plain(dispatch.call(op, given)), in_dims=places)(*args))
            for result, column in zip(got, zip(*wanted, strict=True), strict=True):
                expected = np.stack([array(c) for c in column])
                assert result.dtype is column[0].dtype
                np.testing.assert_allclose(
                    array(result), expected, rtol=1e-9, atol=1e-10, err_msg=f"{name}, batched {batched}"
                )
            checked += 1
    if not checked:
        pytest.skip("the samples of several seeds differ in shape")


def array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The elements; bfloat16 as float32, which holds it all."""
    return tensor.float().numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, tuple) else value


def _any(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_any(v) for v in value)
    return isinstance(value, torch.Tensor)


def _has_batch(place: Any) -> bool:
    return any(_has_batch(p) for p in place) if isinstance(place, tuple) else place is not None


def test_nearly_every_operator_is_checked() -> None:
    """The comparison above is no empty promise: almost all records have samples that go with it."""
    usable = sum(
        any(
            all(same_kind(c) for c in zip(*columns, strict=True))
            for columns in itertools.islice(zip(*(calls(REGISTRY[n], s) for s in range(2)), strict=True), 8)
        )
        for n in NAMES
    )
    assert usable > 0.9 * len(NAMES)
