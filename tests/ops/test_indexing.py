"""Indexing, gathering, scattering, sorting and searching beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beside_torch import check, check_error, normal

import graphtorch as gt

CUBE = normal(3, 4, 5)


def _mask(t: Any, *shape: int) -> Any:
    return t.from_numpy(np.random.default_rng(3).random(shape) < 0.5)


READS: dict[str, Any] = {
    "int": lambda t, x: x[1],
    "negative int": lambda t, x: x[-1],
    "ints": lambda t, x: x[1, 2],
    "all ints": lambda t, x: x[1, 2, 3],
    "numpy int": lambda t, x: x[np.int64(2)],
    "slice": lambda t, x: x[1:],
    "slice clipped": lambda t, x: x[-100:100],
    "slice empty": lambda t, x: x[2:1],
    "slice step": lambda t, x: x[::2, 1::2],
    "whole": lambda t, x: x[:],
    "ellipsis": lambda t, x: x[..., 1],
    "only ellipsis": lambda t, x: x[...],
    "ellipsis in the middle": lambda t, x: x[1, ..., 2:4],
    "none": lambda t, x: x[None],
    "nones": lambda t, x: x[:, None, 1, None],
    "true": lambda t, x: x[True],
    "false": lambda t, x: x[False],
    "int and true": lambda t, x: x[0, True],
    "list": lambda t, x: x[[0, 2, 0]],
    "list after slice": lambda t, x: x[:, [0, 2]],
    "nested list": lambda t, x: x[:, [[0, 1], [2, 3]]],
    "range": lambda t, x: x[range(2)],
    "numpy array": lambda t, x: x[np.array([2, 0])],
    "zero-dimensional tensor": lambda t, x: x[t.tensor(1)],
    "zero-dimensional tensors": lambda t, x: x[t.tensor(1), :, t.tensor(-2)],
    "tensor": lambda t, x: x[t.tensor([2, -1])],
    "tensors broadcast": lambda t, x: x[t.tensor([[0], [2]]), t.tensor([1, 3, 0])],
    "tensors apart": lambda t, x: x[t.tensor([0, 1]), :, t.tensor([4, 2])],
    "tensor, int": lambda t, x: x[t.tensor([0, 1]), 2],
    "int, tensor": lambda t, x: x[1, t.tensor([0, 3])],
    "tensor and none": lambda t, x: x[t.tensor([0, 1]), None, :, t.tensor([4, 2])],
    "empty tensor": lambda t, x: x[t.tensor([], dtype=t.int64)],
    "int32": lambda t, x: x[t.tensor([1], dtype=t.int32)],
    "mask": lambda t, x: x[_mask(t, 3, 4, 5)],
    "mask of rows": lambda t, x: x[_mask(t, 3)],
    "mask then slice": lambda t, x: x[_mask(t, 3, 4), 1:3],
    "mask then int": lambda t, x: x[_mask(t, 3, 4), 2],
    "mask after slice": lambda t, x: x[:, _mask(t, 4)],
    "numpy mask": lambda t, x: x[np.array([True, False, True])],
    "mask of comparison": lambda t, x: x[x > 0],
    "index_select": lambda t, x: x.index_select(1, t.tensor([3, 0, 0])),
    "gather": lambda t, x: x.gather(1, t.tensor([[[0, 3, 2]], [[1, 1, 0]]])),
    "take": lambda t, x: t.take(x, t.tensor([[0, 59], [-1, 7]])),
    "take_along_dim": lambda t, x: t.take_along_dim(x, t.tensor([[[0], [3]]]), 1),
    "take_along_dim flat": lambda t, x: x.take_along_dim(t.tensor([0, 59])),
    "masked_select": lambda t, x: t.masked_select(x, _mask(t, 4, 1)),
    "nonzero": lambda t, x: t.nonzero(x > 0.5),
    "nonzero as tuple": lambda t, x: (x > 0.5).nonzero(as_tuple=True),
    "nonzero of scalar": lambda t, x: (x[0, 0, 0] != 99).nonzero(),
    "argwhere": lambda t, x: t.argwhere(x > 1),
    "scatter value": lambda t, x: x.scatter(1, t.tensor([[[0, 3, 2]]]), 1.5),
    "scatter": lambda t, x: x.scatter(0, t.tensor([[[0, 1, 2, 0, 1]]]), x[1:2, 1:2]),
    "scatter keyword": lambda t, x: t.scatter(x, 2, t.tensor([[[4]]]), value=7),
    "scatter multiply": lambda t, x: x.detach().scatter(0, t.tensor([[[0, 0]]]), 3.0, reduce="multiply"),
    "scatter_add": lambda t, x: x.scatter_add(1, t.tensor([[[0, 0, 0, 1, 1]], [[2, 2, 3, 3, 3]]]), x[1:, :1]),
    "scatter_reduce": lambda t, x: x.scatter_reduce(0, t.tensor([[[0, 1, 1]]]), x[:1, :1, :3] * 3, "amax"),
    "scatter_reduce mean": lambda t, x: x.scatter_reduce(
        0, t.tensor([[[0, 1, 1]]]), x[:1, :1, :3], "mean", include_self=False
    ),
    "scatter_reduce product": lambda t, x: x.scatter_reduce(1, t.tensor([[[0], [0]]]), t.relu(x[2:, :2, 2:3]), "prod"),
    "index_add": lambda t, x: x.index_add(2, t.tensor([1, 1, 4]), x[..., :3], alpha=0.5),
    "index_copy": lambda t, x: x.index_copy(0, t.tensor([2, 0]), x[:2] * 2),
    "index_fill": lambda t, x: x.index_fill(1, t.tensor([0, -1]), 2.5),
    "index_put": lambda t, x: x.index_put((t.tensor([0, 2]), t.tensor([1, 1])), t.ones(5)),
    "index_put accumulate": lambda t, x: x.index_put((t.tensor([0, 0]),), x[1:], accumulate=True),
    "index_put mask": lambda t, x: x.index_put((_mask(t, 3),), t.tensor(2.0)),
    "one_hot": lambda t, x: t.nn.functional.one_hot(t.tensor([[0, 2], [1, 1]])),
    "one_hot classes": lambda t, x: t.nn.functional.one_hot(t.tensor([0, 2]), 5),
    "sort": lambda t, x: t.sort(x, 1, descending=True),
    "sort method": lambda t, x: x.sort(),
    "sort stable": lambda t, x: t.round(x).sort(stable=True, dim=0),
    "argsort": lambda t, x: x.argsort(0, True),
    "msort": lambda t, x: t.msort(x),
    "topk": lambda t, x: x.topk(2),
    "topk smallest": lambda t, x: t.topk(x, 3, 1, largest=False),
    "topk of many": lambda t, x: t.topk(x.reshape(-1), 5),
    "unique": lambda t, x: t.unique(x.round().long(), return_inverse=True, return_counts=True),
    "unique of rows": lambda t, x: t.unique(x.detach()[0].round(), dim=0),
    "unique_consecutive": lambda t, x: t.unique_consecutive(x.detach().round().reshape(-1), return_counts=True),
    "searchsorted": lambda t, x: t.searchsorted(t.tensor([-1.0, 0.0, 1.0]), x),
    "searchsorted rows": lambda t, x: t.searchsorted(x[0].sort().values, x[1], right=True),
    "searchsorted number": lambda t, x: t.searchsorted(t.tensor([1, 3, 5]), 4),
    "bucketize": lambda t, x: t.bucketize(x, t.tensor([-1.0, 0.0, 1.0]), out_int32=True),
}


@pytest.mark.parametrize("name", READS)
def test_read(name: str) -> None:
    # An `index` with gaps keeps PyTorch's values; its memory order is an accident of PyTorch's kernel.
    gaps = ("tensor", "int, tensor", "nested", "list after", "mask after")
    check(READS[name], CUBE, strides=not name.startswith(gaps))


READ_ERRORS: dict[str, Any] = {
    "int": lambda t, x: x[3],
    "negative int": lambda t, x: x[-4],
    "second int": lambda t, x: x[0, 7],
    "too many": lambda t, x: x[0, 0, 0, 0],
    "scalar": lambda t, x: t.tensor(1.0)[0],
    "negative step": lambda t, x: x[::-1],
    "tensor": lambda t, x: x[t.tensor([0, 7])],
    "second tensor": lambda t, x: x[:, t.tensor([0, -5])],
    "float tensor": lambda t, x: x[t.tensor([1.0])],
    "float": lambda t, x: x[1.5],
    "mask shape": lambda t, x: x[t.ones(3, 3, dtype=t.bool)],
    "tensors don't broadcast": lambda t, x: x[t.tensor([0, 1]), t.tensor([0, 1, 2])],
    "index_select": lambda t, x: x.index_select(0, t.tensor([3])),
    "index_select matrix": lambda t, x: x.index_select(0, t.tensor([[0]])),
    "gather": lambda t, x: x.gather(0, t.tensor([[[3]]])),
    "gather rank": lambda t, x: x.gather(0, t.tensor([0])),
    "gather size": lambda t, x: x.gather(0, t.zeros(1, 5, 1, dtype=t.int64)),
    "gather dtype": lambda t, x: x.gather(0, t.zeros(1, 1, 1)),
    "scatter": lambda t, x: x.scatter(1, t.tensor([[[4]]]), 1.0),
    "scatter dtype": lambda t, x: x.scatter(1, t.tensor([[[0]]]), t.ones(1, 1, 1, dtype=t.float64)),
    "scatter size": lambda t, x: x.scatter(1, t.tensor([[[0, 0]]]), t.ones(1, 1, 1)),
    "index_add count": lambda t, x: x.index_add(0, t.tensor([0, 0]), x[:1]),
    "index_add bounds": lambda t, x: x.index_add(0, t.tensor([5]), x[:1]),
    "index_copy bounds": lambda t, x: x.index_copy(0, t.tensor([5]), x[:1]),
    "index_fill bounds": lambda t, x: x.index_fill(0, t.tensor([5]), 0),
    "take": lambda t, x: x.take(t.tensor([99])),
    "masked_select dtype": lambda t, x: x.masked_select(x),
    "one_hot": lambda t, x: t.nn.functional.one_hot(t.tensor([3]), 3),
    "topk": lambda t, x: x.topk(6),
    "sort dim": lambda t, x: x.sort(3),
    "searchsorted": lambda t, x: t.searchsorted(x[0], x[:, 0]),
    "bucketize": lambda t, x: t.bucketize(x, x[0]),
}


@pytest.mark.parametrize("name", READ_ERRORS)
def test_read_error(name: str) -> None:
    # PyTorch counts a tensor index's dimension from the first one that has an index.
    check_error(READ_ERRORS[name], CUBE, message=name != "second tensor")


def _write(key: Any, value: Any) -> Any:
    """A function that writes into a tensor made from the operand."""

    def run(t: Any, x: Any) -> Any:
        y = x * 1
        y[key(t) if callable(key) else key] = value(t, x) if callable(value) else value
        return y

    return run


WRITES: dict[str, Any] = {
    "number at int": _write(0, 3.0),
    "number at element": _write((0, 1, -1), 3),
    "number in slice": _write((slice(None), slice(1, None, 2)), -1.0),
    "tensor in slice": _write((slice(None), 1), lambda t, x: x[:, 2] * 2),
    "broadcast row": _write((..., slice(0, 2)), lambda t, x: x[0, 0, :2]),
    "scalar tensor": _write(1, lambda t, x: x[0, 0, 0]),
    "other dtype": _write(1, lambda t, x: t.ones(4, 5, dtype=t.int64)),
    "surplus ones": _write((0, 0), lambda t, x: t.ones(1, 1, 5)),
    "everything": _write(slice(None), 0.0),
    "ellipsis": _write(..., lambda t, x: x * x),
    "list": _write([0, 2], 5.0),
    "tensor": _write(lambda t: t.tensor([2, 0]), lambda t, x: x[1:] * 3),
    "tensors": _write(lambda t: (t.tensor([0, 1]), t.tensor([2, 3])), lambda t, x: x[0, :2]),
    "slice and tensor": _write(lambda t: (slice(1, None), t.tensor([2, 0])), lambda t, x: x[1:, :2]),
    "zero-dimensional tensor": _write(lambda t: t.tensor(2), 1.0),
    "mask, number": _write(lambda t: _mask(t, 3, 4, 5), 9.0),
    "mask of rows, number": _write(lambda t: _mask(t, 3), 9.0),
    "mask, tensor": _write(lambda t: _mask(t, 3), lambda t, x: x[0] * 2),
    "mask after slice": _write(lambda t: (slice(None), _mask(t, 4)), 4.0),
    "none": _write((None, 1), 2.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_write(name: str) -> None:
    check(WRITES[name], CUBE)


WRITE_ERRORS: dict[str, Any] = {
    "value shape": _write(0, lambda t, x: t.ones(3)),
    "index value shape": _write(lambda t: t.tensor([0, 1]), lambda t, x: t.ones(3)),
    "index": _write(lambda t: t.tensor([0, 9]), 1.0),
    "dtype": _write(lambda t: t.tensor([0, 1]), lambda t, x: t.ones(5, dtype=t.float64)),
    "text": _write(0, "a"),
    "list": _write(0, [1, 2]),
    "int": _write(3, 1.0),
    "step": _write(slice(None, None, -1), 1.0),
}


@pytest.mark.parametrize("name", WRITE_ERRORS)
def test_write_error(name: str) -> None:
    check_error(WRITE_ERRORS[name], CUBE)


def test_a_refused_write_changes_nothing() -> None:
    x = gt.zeros(3, 4)
    with pytest.raises(IndexError):
        x[gt.tensor([0, 9])] = 1.0
    with pytest.raises(RuntimeError):
        x[0] = gt.ones(3)
    assert x.sum().item() == 0 and x._version == 0


def test_in_place_forms_beside_torch() -> None:
    def run(t: Any, x: Any) -> Any:
        y = x * 1
        y.scatter_(0, t.tensor([[[1]]]), 4.0)
        y.scatter_add_(1, t.tensor([[[0, 0]]]), t.ones(1, 1, 2))
        y.index_add_(0, t.tensor([2]), x[:1])
        y.index_fill_(2, t.tensor([4]), -1)
        y.index_put_((t.tensor([0]),), t.tensor(0.5), accumulate=True)
        y.index_copy_(1, t.tensor([3]), x[:, :1])
        return y

    check(run, CUBE)


def test_writing_many_rows_accumulates_in_order() -> None:
    rows = np.random.default_rng(0).integers(0, 7, 500)
    values = normal(500, 3)

    def run(t: Any, v: Any) -> Any:
        return t.zeros(7, 3).index_put((t.from_numpy(rows),), v, accumulate=True)

    check(run, values, rtol=1e-5, atol=1e-5)


def test_nan_sorts_last_and_is_the_largest() -> None:
    values = np.array([1.0, np.nan, -3.0, np.inf], np.float32)
    check(lambda t, x: t.sort(x)[1], values)
    check(lambda t, x: t.sort(x, descending=True)[1], values)
    check(lambda t, x: t.topk(x, 2)[1], values)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "bool"])
def test_narrow_types(dtype: str) -> None:
    def run(t: Any, x: Any) -> Any:
        y = x.to(getattr(t, dtype))
        z = y[t.tensor([0, 2])].gather(1, t.tensor([[[1, 0]]]))
        return z.float(), y.sort(stable=True)[1]

    check(run, CUBE)
