"""Misuse gets PyTorch's exception class and a message that names operator, shapes, dtypes and the user's line; state
stays as it was."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.frontend import CaptureError

HERE = r"test_misuse\.py:\d+: "

MISTAKES = {
    "wrong shapes": (
        lambda: torch.ones(3, 4) + torch.ones(3, 5),
        RuntimeError,
        r"The size of tensor a \(4\) must match the size of tensor b \(5\) at non-singleton dimension 1",
        r"in add\(input=f32\[3, 4\], other=f32\[3, 5\]",
    ),
    "wrong matrix shapes": (
        lambda: torch.ones(3, 4) @ torch.ones(3, 5),
        RuntimeError,
        r"mat1 and mat2 shapes cannot be multiplied \(3x4 and 3x5\)",
        r"in mm\(input=f32\[3, 4\], mat2=f32\[3, 5\]\)",
    ),
    "mixed devices": (
        lambda: torch.ones(3) * torch.ones(3, device="meta"),
        RuntimeError,
        "Tensor on device meta is not on the expected device cpu!",
        r"in mul\(input=f32\[3\], other=f32\[3\]@meta\)",
    ),
    "mixed dtypes": (
        lambda: torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.float64),
        RuntimeError,
        "expected m1 and m2 to have the same dtype",
        r"in mm\(input=f32\[2, 2\], mat2=f64\[2, 2\]\)",
    ),
    "dimension out of range": (
        lambda: torch.ones(2, 3).sum(5),
        IndexError,
        r"Dimension out of range \(expected to be in range of \[-2, 1\], but got 5\)",
        r"in sum\(input=f32\[2, 3\]",
    ),
    "boolean subtraction": (
        lambda: torch.ones(2, dtype=torch.bool) - torch.ones(2, dtype=torch.bool),
        RuntimeError,
        "Subtraction, the `-` operator, with two bool tensors is not supported",
        r"in sub\(input=bool\[2\]",
    ),
    "impossible view": (
        lambda: torch.ones(2, 3).view(4, 2),
        RuntimeError,
        r"shape '\[4, 2\]' is invalid for input of size 6",
        "",
    ),
    "no tensor": (
        lambda: torch.exp(3.0),
        TypeError,
        r"exp\(\): argument 'input' \(position 1\) must be Tensor, not float",
        "",
    ),
    "integers of a wrong kind of index": (
        lambda: torch.ones(5)[torch.tensor([7])],
        IndexError,
        "index 7 is out of bounds for dimension 0 with size 5",
        "",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_message(name):
    mistake, error, message, call = MISTAKES[name]
    with pytest.raises(error, match=message) as caught:
        mistake()
    if call:
        assert caught.match(call)
        assert caught.match(HERE)


@pytest.mark.parametrize("name", MISTAKES)
def test_same_class_as_pytorch(name):
    peer = pytest.importorskip("torch")
    mistake, error, _, _ = MISTAKES[name]
    function = type(mistake)(mistake.__code__, {**globals(), "torch": peer})
    with pytest.raises(error) as caught:
        function()
    assert type(caught.value) is error


def test_backward_twice():
    x = torch.ones(3, requires_grad=True)
    loss = x.exp().sum()
    loss.backward()
    before = x.grad.clone()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        loss.backward()
    assert torch.equal(x.grad, before)


def test_saved_value_changed_in_place():
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation(.|\n)*output 0 of Exp"):
        y.sum().backward()
    assert x.grad is None


def test_in_place_on_a_leaf():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        x.add_(1)
    assert x.sum().item() == 3
    assert x._version == 0


def test_failed_in_place_changes_nothing():
    x = torch.arange(3)
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output type Long"):
        x.mul_(0.5)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        x.add_(torch.ones(2, 3, dtype=torch.int64))
    np.testing.assert_array_equal(x.numpy(), [0, 1, 2])
    assert x._version == 0


def test_backward_of_a_non_scalar():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        torch.ones(3).sum().backward()


def test_decision_on_data_inside_compile():
    model = nn.Linear(2, 1)

    @torch.compile(fullgraph=True)
    def step(x):
        loss = model(x).sum()
        if loss > 0:
            return loss
        return -loss

    with pytest.raises(CaptureError) as caught:
        step(torch.ones(3, 2))
    text = str(caught.value)
    assert "if loss > 0:" in text and "test_misuse.py" in text and "torch.where" in text and "bool[]" in text


def test_failed_sampler_leaves_the_generator():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        torch.ones(3).uniform_(2, 1)
    with pytest.raises(RuntimeError):
        torch.ones(3, dtype=torch.int64).normal_()
    assert torch.equal(torch.get_rng_state(), state)


def test_short_tracebacks_in_ipython(monkeypatch):
    """IPython prints errors itself: it is given what has no frames of the library, and the note."""
    from graphtorch.diagnostics import install_in_ipython
    from graphtorch.diagnostics.report import is_internal

    class Shell:
        handler, shown = None, None

        def set_custom_exc(self, kinds, handler):
            assert kinds == (Exception,)
            self.handler = handler

        def showtraceback(self, given, tb_offset=None):
            self.shown = given

    shell = Shell()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    install_in_ipython()
    try:
        torch.ones(2) @ torch.ones(3, 4)
    except RuntimeError as error:
        shell.handler(shell, type(error), error, error.__traceback__, tb_offset=None)
    kind, error, traceback = shell.shown
    assert kind is RuntimeError and "cause of GT" in "".join(error.__notes__)
    while traceback is not None:
        assert not is_internal(traceback.tb_frame)
        traceback = traceback.tb_next
