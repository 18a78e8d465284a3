"""Row-major copies of large arrays that lie in another order: every element arrives, in blocks or not."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.ops.strides import copied_by_rows

CASES = [
    ((1024, 1024), (1, 0)),
    ((1000, 77), (1, 0)),
    ((1024, 70), (1, 0)),
    ((2, 48, 1024), (0, 2, 1)),
    ((2, 48, 1024), (2, 0, 1)),
    ((2, 64, 32, 32), (0, 2, 3, 1)),
]


@pytest.mark.parametrize(("shape", "order"), CASES)
@pytest.mark.parametrize("d", [np.float32, np.int8, np.complex128])
def test_every_element_arrives(shape: tuple[int, ...], order: tuple[int, ...], d: type) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(d).transpose(order)
    for given in (array, array[::-1], array[1:]):
        made = copied_by_rows(given)
        assert made.flags.c_contiguous and made.dtype == given.dtype and not np.shares_memory(made, given)
        assert np.array_equal(made, given)


@pytest.mark.parametrize(("shape", "order"), CASES)
def test_contiguous(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    x = torch.arange(float(np.prod(shape))).reshape(shape).permute(order)
    assert x.contiguous().is_contiguous() and torch.equal(x.contiguous(), x)
    assert torch.equal(x.clone(), x) and x.clone().stride() == x.stride()
