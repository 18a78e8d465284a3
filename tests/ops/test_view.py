"""Views and their public spellings: values, strides, aliasing, gradients and errors beside PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from beside_torch import arange, check, check_error, normal

import graphtorch as gt

CUBE = normal(2, 3, 4)

FORMS: dict[str, Any] = {
    "permute varargs": lambda t, x: x.permute(2, 0, 1),
    "permute tuple": lambda t, x: t.permute(x, (-1, 0, 1)),
    "permute keyword": lambda t, x: x.permute(dims=(1, 0, 2)),
    "transpose": lambda t, x: x.transpose(0, -1),
    "transpose of transpose": lambda t, x: x.transpose(0, 2).transpose(1, 2),
    "swapaxes": lambda t, x: t.swapaxes(x, 0, 1),
    "T": lambda t, x: x[0].T,
    "mT": lambda t, x: x.mT,
    "t": lambda t, x: x[0].t(),
    "t of vector": lambda t, x: x[0, 0].t(),
    "adjoint": lambda t, x: x.adjoint(),
    "movedim": lambda t, x: t.movedim(x, 0, -1),
    "movedim several": lambda t, x: x.movedim((0, 1), (2, 0)),
    "moveaxis": lambda t, x: t.moveaxis(x, 1, 0),
    "view": lambda t, x: x.view(6, 4),
    "view inferred": lambda t, x: x.view(-1, 2),
    "view of size": lambda t, x: x.view(t.Size([4, 6])),
    "view with ones": lambda t, x: x.view(1, 2, 1, 12, 1),
    "view of strided": lambda t, x: x.transpose(0, 1).view(3, 2, 2, 2),
    "view of slice": lambda t, x: x[:, 1:, :].view(2, 8),
    "view_as": lambda t, x: x.view_as(t.zeros(12, 2)),
    "reshape alias": lambda t, x: x.reshape(3, 8),
    "reshape copy": lambda t, x: x.transpose(0, 1).reshape(6, 4),
    "reshape of expanded": lambda t, x: x[:, :, :1].expand(2, 3, 4).reshape(6, 4),
    "reshape tuple": lambda t, x: t.reshape(x, (4, -1)),
    "reshape_as": lambda t, x: x.reshape_as(t.zeros(24)),
    "flatten": lambda t, x: x.flatten(),
    "flatten some": lambda t, x: t.flatten(x, 1),
    "flatten nothing": lambda t, x: x.flatten(1, 1),
    "flatten scalar": lambda t, x: x[0, 0, 0].flatten(),
    "ravel": lambda t, x: x.mT.ravel(),
    "unflatten": lambda t, x: x.unflatten(-1, (2, -1)),
    "expand": lambda t, x: x[:, :1].expand(-1, 5, -1),
    "expand new": lambda t, x: x.expand(3, 1, 2, 3, 4),
    "expand_as": lambda t, x: x[:, :1].expand_as(x),
    "expand strided": lambda t, x: x.transpose(0, 2).unsqueeze(1).expand(4, 2, 3, 2),
    "broadcast_to": lambda t, x: t.broadcast_to(x[0, 0], (2, 4)),
    "squeeze": lambda t, x: x[:1, :, :1].squeeze(),
    "squeeze dim": lambda t, x: x[:1, :, :1].squeeze(-1),
    "squeeze dims": lambda t, x: x[:1, :, :1].squeeze((0, 2)),
    "squeeze larger": lambda t, x: x.squeeze(0),
    "unsqueeze": lambda t, x: x.unsqueeze(1),
    "unsqueeze last": lambda t, x: x.mT.unsqueeze(-1),
    "unsqueeze strided": lambda t, x: x.transpose(0, 2).unsqueeze(1),
    "select": lambda t, x: x.select(1, -1),
    "select function": lambda t, x: t.select(x, 2, 3),
    "narrow": lambda t, x: x.narrow(2, 1, 2),
    "narrow negative": lambda t, x: t.narrow(x, 1, -2, 1),
    "split": lambda t, x: x.split(3, -1),
    "split sizes": lambda t, x: t.split(x, [1, 3], 2),
    "split_with_sizes": lambda t, x: x.split_with_sizes((2, 1), 1),
    "chunk": lambda t, x: x.chunk(3, -1),
    "tensor_split": lambda t, x: x.tensor_split(3, 2),
    "tensor_split indices": lambda t, x: t.tensor_split(x, (1, 5), -1),
    "hsplit": lambda t, x: t.hsplit(x, [1]),
    "vsplit": lambda t, x: x.vsplit(2),
    "dsplit": lambda t, x: x.dsplit(2),
    "unbind": lambda t, x: x.unbind(1),
    "iteration": lambda t, x: tuple(x),
    "diagonal": lambda t, x: x.diagonal(),
    "diagonal offset": lambda t, x: t.diagonal(x, 1, 1, 2),
    "diagonal below": lambda t, x: x.diagonal(-1, 0, 2),
    "unfold": lambda t, x: x.unfold(2, 2, 1),
    "unfold strided": lambda t, x: x.mT.unfold(1, 3, 2),
    "as_strided": lambda t, x: x.as_strided((2, 2), (3, 1), 4),
    "as_strided overlapping": lambda t, x: t.as_strided(x, (3, 4), (2, 2)),
    "as_strided of view": lambda t, x: x.select(1, 1).as_strided((2, 2), (12, 2), 4),
    "slice_scatter": lambda t, x: x.slice_scatter(t.ones(2, 3, 2), 2, 0, 4, 2),
    "select_scatter": lambda t, x: t.select_scatter(x, t.ones(2, 4), 1, -1),
    "diagonal_scatter": lambda t, x: x.diagonal_scatter(t.ones(4, 2), 0, 0, 1),
    "flip": lambda t, x: x.flip(0, 2),
    "flip function": lambda t, x: t.flip(x, [1]),
    "fliplr": lambda t, x: t.fliplr(x),
    "rot90": lambda t, x: t.rot90(x, 3, [1, 2]),
    "roll": lambda t, x: x.roll((1, -2), (0, 2)),
    "roll flat": lambda t, x: t.roll(x, 5),
    "repeat": lambda t, x: x.repeat(2, 1, 1, 3),
    "tile": lambda t, x: t.tile(x, (2,)),
    "tile method": lambda t, x: x.tile(2, 1, 1, 1),
    "repeat_interleave": lambda t, x: x.repeat_interleave(2, 1),
    "repeat_interleave flat": lambda t, x: t.repeat_interleave(x, 3),
    "repeat_interleave counts": lambda t, x: x.repeat_interleave(t.tensor([2, 0, 1]), 1),
    "tril": lambda t, x: x.tril(),
    "triu": lambda t, x: t.triu(x, 1),
    "stack": lambda t, x: t.stack([x, x * 2], 1),
    "cat": lambda t, x: t.cat((x, x[:, :1]), dim=1),
    "cat promotes": lambda t, x: t.cat([x, t.ones(1, 3, 4, dtype=t.int64)]),
    "cat empty": lambda t, x: t.cat([x, t.empty(0)]),
    "hstack": lambda t, x: t.hstack([x, x]),
    "vstack": lambda t, x: t.vstack([x[0, 0], x[0, 1]]),
    "dstack": lambda t, x: t.dstack([x[0], x[1]]),
    "column_stack": lambda t, x: t.column_stack([x[0, 0], x[0].T]),
    "diag": lambda t, x: t.diag(x[0, 0], 1),
    "diag of matrix": lambda t, x: t.diag(x[0], -1),
    "diag_embed": lambda t, x: t.diag_embed(x, 1, 0, 2),
    "block_diag": lambda t, x: t.block_diag(x[0], x[1, 0]),
    "meshgrid": lambda t, x: t.meshgrid(x[0, 0], x[0, 1, :2], indexing="xy"),
    "broadcast_tensors": lambda t, x: t.broadcast_tensors(x[0, :1], x[:, 0, :1]),
    "cartesian_prod": lambda t, x: t.cartesian_prod(x[0, 0], x[0, :, 0]),
    "atleast_3d": lambda t, x: t.atleast_3d(x[0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    check(FORMS[name], CUBE)


ERRORS: dict[str, Any] = {
    "view size": lambda t, x: x.view(5, -1),
    "view strides": lambda t, x: x.transpose(0, 1).view(6, 4),
    "view two unknown": lambda t, x: x.view(-1, -1),
    "view negative": lambda t, x: x.view(-2, 12),
    "permute count": lambda t, x: x.permute(0, 1),
    "permute repeated": lambda t, x: x.permute(0, 0, 1),
    "dim": lambda t, x: x.transpose(0, 3),
    "unsqueeze dim": lambda t, x: x.unsqueeze(5),
    "expand size": lambda t, x: x.expand(2, 2, 4),
    "expand rank": lambda t, x: x.expand(3),
    "expand leading": lambda t, x: x.expand(-1, 2, 3, 4),
    "select index": lambda t, x: x.select(0, 2),
    "select scalar": lambda t, x: x[0, 0, 0].select(0, 0),
    "split sum": lambda t, x: x.split([1, 2], 0),
    "split negative": lambda t, x: x.split(-1),
    "chunk zero": lambda t, x: x.chunk(0),
    "narrow": lambda t, x: x.narrow(0, 1, 2),
    "t of cube": lambda t, x: x.t(),
    "mT of vector": lambda t, x: x[0, 0].mT,
    "flatten order": lambda t, x: x.flatten(2, 0),
    "diagonal dims": lambda t, x: x.diagonal(0, 1, 1),
    "as_strided bounds": lambda t, x: x.as_strided((5, 5), (5, 1)),
    "unfold size": lambda t, x: x.unfold(0, 3, 1),
    "cat empty list": lambda t, x: t.cat([]),
    "cat sizes": lambda t, x: t.cat([x, x[:, :2]]),
    "cat rank": lambda t, x: t.cat([x, x[0]]),
    "cat scalar": lambda t, x: t.cat([x[0, 0, 0]]),
    "stack sizes": lambda t, x: t.stack([x, x[0]]),
    "repeat rank": lambda t, x: x.repeat(2, 2),
    "flip repeated": lambda t, x: x.flip(0, 0),
    "roll": lambda t, x: x.roll((1, 2), 0),
    "tril vector": lambda t, x: x[0, 0].tril(),
    "pad": lambda t, x: t.nn.functional.pad(x, (1, 2, 3)),
    "stack nothing": lambda t, x: t.stack([]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    check_error(ERRORS[name], CUBE)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(mode: str) -> None:
    check(lambda t, x: t.nn.functional.pad(x, (1, 2), mode), normal(2, 3, 4))
    check(lambda t, x: t.nn.functional.pad(x, (1, 0, 2, 1), mode), normal(2, 3, 4, 5))


def test_padding_may_not_crop_more_than_there_is() -> None:
    check_error(lambda t, x: t.nn.functional.pad(x, (-3, -2)), CUBE, message=False)


def test_a_view_shares_memory_and_a_change_shows_in_both() -> None:
    x = gt.zeros(2, 3)
    x.t()[1] = 5
    assert x.tolist() == [[0, 5, 0], [0, 5, 0]]
    x.reshape(-1)[0] = 7
    assert x[0, 0].item() == 7
    x.expand(4, 2, 3)[3, 1, 2] = 9
    assert x[1, 2].item() == 9


def test_gradient_through_a_change_of_a_view() -> None:
    def change(t: Any, x: Any) -> Any:
        y = x * 2
        y.transpose(0, 1)[1] = 3
        y.view(-1)[2:4].mul_(5)
        y.diagonal().add_(1)
        return y

    check(change, normal(3, 3))


@pytest.mark.parametrize("base", itertools.product((1, 2), repeat=3))
def test_copies_of_expanded_tensors(base: tuple[int, ...]) -> None:
    """One element stands for many, in any order of dimensions, some of which have one element."""
    values = np.arange(1.0, 1 + np.prod(base), dtype=np.float32).reshape(base)
    for sizes in itertools.product((1, 2), (1, 3), (1, 2), (1, 2)):
        shape = tuple(n if m == 1 else m for n, m in zip(sizes, (1, *base), strict=True))
        wanted = np.broadcast_to(values, shape)
        for order in itertools.permutations(range(4)):
            x = gt.from_numpy(values).expand(shape).permute(order)
            for copy in (x.clone(), x.contiguous(), x * 1.0, x.clone().mul_(1.0)):
                np.testing.assert_array_equal(copy.numpy(), wanted.transpose(order))
            x = x.clone()
            x.view(-1).add_(1) if x.is_contiguous() else x.add_(1)
            np.testing.assert_array_equal(x.numpy(), wanted.transpose(order) + 1)


def test_an_empty_tensor_leaves_nothing_to_infer_a_size_from() -> None:
    assert tuple(gt.zeros(0, 3).view(3, 0).shape) == (3, 0)
    with pytest.raises(RuntimeError, match="ambiguous"):
        gt.zeros(0, 3).view(0, -1)


def test_view_of_dtype_reinterprets_bytes() -> None:
    x = gt.from_numpy(np.array([1.0, -2.0], np.float32))
    assert x.view(gt.int32).tolist() == np.array([1.0, -2.0], np.float32).view(np.int32).tolist()
    assert tuple(x.view(gt.uint8).shape) == (8,)
    check(lambda t, x: x.view(t.int16), arange(3, 4))
    x.view(gt.int32)[0] = 0
    assert x[0].item() == 0.0
