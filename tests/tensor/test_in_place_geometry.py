"""In-place forms of view operators and of compositions: memory, versions, histories, errors that leave no trace."""

from __future__ import annotations

import pytest

import graphtorch as torch


def test_geometry_changes_and_memory_stays() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    place = x.data_ptr()
    assert x.t_() is x and x.shape == (3, 2) and x.stride() == (1, 3) and x.data_ptr() == place
    assert x.unsqueeze_(0).shape == (1, 3, 2) and x.squeeze_().shape == (3, 2)
    assert x.swapaxes_(0, 1).is_contiguous() and x.as_strided_((2, 2), (1, 2)).tolist() == [[0.0, 2.0], [1.0, 3.0]]
    assert x._version == 5


def test_gradients_flow_through() -> None:
    w = torch.ones(2, 3, requires_grad=True)
    y = w * torch.arange(6.0).reshape(2, 3)
    y.t_()
    y[0].mul_(3)  # of the transposed one: the first column
    y.sum().backward()
    assert w.grad.tolist() == [[0.0, 1.0, 2.0], [9.0, 4.0, 5.0]]


@pytest.mark.parametrize(("name", "args"), [("t_", ()), ("unsqueeze_", (0,)), ("transpose_", (0, 1)), ("squeeze_", ())])
def test_leaves_are_refused(name: str, args: tuple[int, ...]) -> None:
    w = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        getattr(w, name)(*args)
    assert w.shape == (2, 3) and w._version == 0


def test_an_earlier_view_says_that_it_is_out_of_date() -> None:
    base = torch.ones(2, 2, requires_grad=True) * 1
    view = base[0]
    base.t_()
    with pytest.raises(RuntimeError, match="changed its geometry"):
        _ = view.grad_fn


def test_compiled_functions_run_them_eagerly() -> None:
    @torch.compile
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y.t_()
        return y

    with pytest.warns(UserWarning, match="changes the geometry"):
        assert f(torch.ones(2, 3)).shape == (3, 2)


def test_python_functions_on_elements() -> None:
    x = torch.arange(3.0)
    assert x.apply_(lambda v: v * 2).tolist() == [0, 2, 4]
    assert x.map_(torch.ones(3), lambda a, b: a - b).tolist() == [-1, 1, 3]
    with pytest.raises(TypeError):
        x.apply_(lambda v: "text")
    assert x.tolist() == [-1, 1, 3]
    with pytest.raises(RuntimeError, match="requires grad"):
        torch.ones(1, requires_grad=True).apply_(lambda v: v)


def test_diagonals() -> None:
    assert torch.zeros(5, 2).fill_diagonal_(1, wrap=True).tolist() == [[1, 0], [0, 1], [0, 0], [1, 0], [0, 1]]
    with pytest.raises(RuntimeError, match="larger than 1"):
        torch.zeros(3).fill_diagonal_(1)


def test_out_of_compositions() -> None:
    out = torch.zeros(2, 2)
    assert torch.matmul(torch.ones(2, 2), torch.ones(2, 2), out=out) is out and out.tolist() == [[2, 2], [2, 2]]
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        torch.matmul(torch.ones(2, 2, requires_grad=True), torch.ones(2, 2), out=out)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.view_as(3),
        lambda x: torch.matmul(x, 3),
        lambda x: x.flatten("a"),
        lambda x: x.chunk("a"),
        lambda x: torch.kron(x, None),
        lambda x: x.sum(0, 1),
    ],
)
def test_wrong_types_are_type_errors(call: object) -> None:
    with pytest.raises(TypeError):
        call(torch.ones(2, 2))  # type: ignore[operator]


def test_channels_last_goes_through_a_network() -> None:
    F = torch.nn.functional
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(4, 6, 3, padding=1).to(memory_format=torch.channels_last)
    for y in (
        conv(x),
        F.max_pool2d(conv(x), 2),
        F.avg_pool2d(x, 2),
        F.interpolate(x, scale_factor=2),
        F.pad(x, (1, 1)),
    ):
        assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    conv(x).sum().backward()
    assert conv.weight.grad.is_contiguous(memory_format=torch.channels_last)
