"""Every operator record on CUDA tensors gives what it gives on the CPU: values, dtypes, shapes and strides."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest

from graphtorch.cli.graphs import load_records
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.runtime.cuda.simulated import SimulatedDriver
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

load_records()
LETTERS = {"f": dtypes.float32, "i": dtypes.int64, "b": dtypes.bool_, "c": dtypes.complex64}
RECORDS = sorted(
    name
    for name, op in REGISTRY.items()
    if op.samples is not None and op.type_rule.__module__.startswith("graphtorch.ops") and not op.random
)
SLOW = 60_000  # points of a result beyond which the interpreter takes too long for a test of every operator


def moved(value: Any) -> Any:
    """A sample's argument on the device."""
    if isinstance(value, Tensor):
        return value.cuda()
    if isinstance(value, tuple | list):
        return type(value)(map(moved, value))
    return copy.copy(value)


def close(name: str, found: Any, wanted: Any) -> None:
    assert found.device.type == "cuda" and found.dtype is wanted.dtype
    assert tuple(found.shape) == tuple(wanted.shape), (found.shape, wanted.shape)
    if wanted.numel() and not name.startswith(("empty", "new_empty")):
        assert found.stride() == wanted.stride(), (found.stride(), wanted.stride())
    a, b = np.asarray(found._data.host()), np.asarray(wanted._data)
    if a.dtype.kind in "fcV" or a.dtype.name == "bfloat16":
        np.testing.assert_allclose(a.astype(np.complex128), b.astype(np.complex128), 2e-5, 2e-5)
    else:
        np.testing.assert_array_equal(a, b)


def samples(op: Operator) -> list[Any]:
    letter = next(c for c in "fibc" if c in op.categories)
    assert op.samples is not None
    return list(op.samples(Sampler(LETTERS[letter])))[:4]


@pytest.mark.parametrize("name", RECORDS)
def test_operator_on_the_device(name: str, cuda: SimulatedDriver) -> None:
    op = REGISTRY[name]
    assert op.function is not None
    for sample in samples(op):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = op.function(*sample.args, **sample.kwargs)
            found = op.function(*moved(sample.args), **{k: moved(v) for k, v in sample.kwargs.items()})
        if name in ("to_device", "full", "arange", "empty"):
            continue  # they say their device themselves
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        found = found if isinstance(found, tuple) else (found,)
        for mine, theirs in zip(found, wanted, strict=True):
            close(name, mine, theirs)
