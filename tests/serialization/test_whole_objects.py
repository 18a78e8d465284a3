"""Checkpoints of whole objects: modules, classes of the user's, NumPy arrays. Reading them is asked for."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch import nn


class Net(nn.Module):
    """Tied weights, a buffer, a hook and state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(3, 4, bias=False)
        self.b.weight = self.a.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("counts", graphtorch.arange(4.0))
        self.settings = {"array": np.arange(3), "shape": graphtorch.Size([1, 2]), "dtype": graphtorch.float16}

    def forward(self, x: Any) -> Any:
        return self.norm(self.a(x) + self.b(x)) * self.counts


class Tagged(graphtorch.Tensor):
    """A subclass."""


def saved(obj: Any) -> io.BytesIO:
    file = io.BytesIO()
    graphtorch.save(obj, file)
    file.seek(0)
    return file


def test_a_module_comes_back() -> None:
    net = Net().eval()
    back = graphtorch.load(saved(net), weights_only=False)
    x = graphtorch.randn(5, 3)
    assert graphtorch.equal(back(x), net(x))
    assert back.a.weight is back.b.weight and isinstance(back.a.weight, nn.Parameter)
    assert not back.training and back.settings["shape"] == (1, 2) and back.settings["dtype"] is graphtorch.float16
    np.testing.assert_array_equal(back.settings["array"], np.arange(3))
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in net.named_parameters()]


def test_it_must_be_asked_for() -> None:
    for given in ({}, {"weights_only": True}, {"weights_only": None}):
        with pytest.raises(pickle.UnpicklingError, match=r"Net was not an allowed global.*weights_only=False"):
            graphtorch.load(saved(Net()), **given)


def test_tensors_share_their_storage() -> None:
    x = graphtorch.randn(4, 6, requires_grad=True)
    held = {"x": x.detach(), "part": x.detach()[1:, ::2], "storage": x.detach().untyped_storage(), "array": np.ones(2)}
    back = graphtorch.load(saved(held), weights_only=False)
    assert back["part"].untyped_storage().data_ptr() == back["x"].untyped_storage().data_ptr()
    assert back["part"].stride() == (6, 2) and back["storage"].data_ptr() == back["x"].untyped_storage().data_ptr()
    back["x"].zero_()
    assert not back["part"].any()


def test_subclasses_and_attributes() -> None:
    tagged = graphtorch.ones(2).as_subclass(Tagged)
    tagged.note = "here"  # type: ignore[attr-defined]
    leaf = graphtorch.ones(3, requires_grad=True)
    leaf.note = 3
    back = graphtorch.load(saved([tagged, leaf, graphtorch.ones(2, device="meta"), np.ones(1)]), weights_only=False)
    assert type(back[0]) is Tagged and back[0].note == "here"
    assert back[1].requires_grad and back[1].is_leaf and back[1].note == 3
    assert back[2].is_meta and back[2].shape == (2,)


def test_plain_checkpoints_read_the_same_both_ways(tmp_path: Path) -> None:
    held = {"state": Net().state_dict(), "epoch": 3, "flags": {1, 2}, "device": graphtorch.device("cpu")}
    path = tmp_path / "a.pt"
    graphtorch.save(held, path)
    for weights_only in (True, False):
        back = graphtorch.load(path, weights_only=weights_only)
        assert back["epoch"] == 3 and back["flags"] == {1, 2} and back["device"] == graphtorch.device("cpu")
        for name, value in held["state"].items():
            assert graphtorch.equal(back["state"][name], value)


def test_optimizers_and_schedulers() -> None:
    net = nn.Linear(2, 2)
    optimizer = graphtorch.optim.AdamW(net.parameters(), lr=0.1)
    net(graphtorch.ones(1, 2)).sum().backward()
    optimizer.step()
    back = graphtorch.load(saved({"net": net, "optimizer": optimizer}), weights_only=False)
    assert back["optimizer"].param_groups[0]["params"][0] is back["net"].weight
    net(graphtorch.ones(1, 2)).sum().backward()
    back["net"](graphtorch.ones(1, 2)).sum().backward()
    back["net"].weight.grad += 1 * (net.weight.grad - back["net"].weight.grad)
    back["net"].bias.grad += 1 * (net.bias.grad - back["net"].bias.grad)
    optimizer.step()
    back["optimizer"].step()
    assert graphtorch.equal(net.weight, back["net"].weight)


def test_whole_modules_of_pytorch(tmp_path: Path) -> None:
    """A module that PyTorch saved: its classes are looked up under their names here."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.ModuleList(
        [
            torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Dropout(0.1)),
            torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.MaxPool2d(2)),
            torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            torch.nn.LSTM(8, 3),
        ]
    ).eval()
    torch.save(theirs, tmp_path / "theirs.pt")
    mine = graphtorch.load(tmp_path / "theirs.pt", weights_only=False)
    given = [(5, 4), (2, 3, 8, 8), (2, 5, 8), (6, 2, 8)]
    for a, b, shape in zip(mine, theirs, given, strict=True):
        x = torch.randn(shape)
        x_mine, x_theirs = a(graphtorch.from_numpy(x.numpy())), b(x)
        if isinstance(x_theirs, tuple):
            x_mine, x_theirs = x_mine[0], x_theirs[0]
        np.testing.assert_allclose(x_mine.detach().numpy(), x_theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(pickle.UnpicklingError, match="allowed global"):
        graphtorch.load(tmp_path / "theirs.pt")


def test_names_that_are_not_here(tmp_path: Path) -> None:
    file = io.BytesIO()
    graphtorch.save([Net()], file)
    data = file.getvalue()
    changed = data.replace(b"graphtorch.nn.modules.linear", b"torch.nn.modules.nonexistent")
    assert changed != data
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):  # the record's checksum, or the name
        graphtorch.load(io.BytesIO(changed), weights_only=False)
