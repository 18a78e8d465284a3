"""safetensors files: written and read as safetensors.torch does."""

import json
import struct

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn
from graphtorch.utils import safetensors

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]


def example(torch, dtype):
    values = torch.arange(6).reshape(2, 3)
    return (values % 2 == 1) if dtype == "bool" else values.to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_travel_both_ways(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"x": example(gt, dtype)}, tmp_path / "ours", metadata={"made": "here"})
    read = theirs.load_file(tmp_path / "ours")["x"]
    assert read.dtype == getattr(torch, dtype) and torch.equal(read, example(torch, dtype))
    theirs.save_file({"x": example(torch, dtype)}, tmp_path / "theirs", metadata={"made": "here"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    loaded = safetensors.load_file(tmp_path / "theirs")["x"]
    assert loaded.dtype is getattr(gt, dtype) and loaded.equal(example(gt, dtype))


def test_the_writers_order_is_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")

    def many(library):
        return {f"{place} ü {dtype}": example(library, dtype) for place, dtype in zip("kjihgfedcba", DTYPES)}

    assert safetensors.save(many(gt)) == theirs.save(many(torch))
    assert safetensors.save({}) == theirs.save({})


def test_bytes_and_odd_shapes():
    tensors = {"scalar": gt.tensor(3.5), "empty": gt.zeros(0, 4), "": gt.ones(1)}
    found = safetensors.load(safetensors.save(tensors))
    assert {name: t.shape for name, t in found.items()} == {name: t.shape for name, t in tensors.items()}
    found["scalar"].add_(1)
    assert found["scalar"].item() == 4.5


def test_what_a_file_can_not_hold():
    x = gt.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="non contiguous tensor: `x`"):
        safetensors.save({"x": x.t()})
    with pytest.raises(RuntimeError, match="Some tensors share memory"):
        safetensors.save({"x": x, "y": x.view(6)})
    with pytest.raises(ValueError, match=r"expected torch\.Tensor but received"):
        safetensors.save({"x": 3})
    with pytest.raises(ValueError, match=r"Expected a dict of \[str, torch.Tensor\]"):
        safetensors.save([x])
    with pytest.raises(ValueError, match="has no dtype complex128"):
        safetensors.save({"x": x.to(gt.complex128)})


def file(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 20,
        struct.pack("<Q", 1 << 40) + b"{}",
        file(b"{"),
        file(b"[" * 100_000),
        file([1]),
        file({"x": ENTRY}, bytes(7)),
        file({"x": ENTRY}, bytes(9)),
        file({"x": ENTRY, "y": ENTRY}, bytes(8)),
        file({"x": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
        file({"x": {**ENTRY, "data_offsets": [0, 4]}}, bytes(4)),
        file({"x": {**ENTRY, "shape": [-2]}}, bytes(8)),
        file({"x": {**ENTRY, "shape": [2.0]}}, bytes(8)),
        file({"x": {**ENTRY, "shape": "2"}}, bytes(8)),
        file({"x": {**ENTRY, "dtype": "object"}}, bytes(8)),
        file({"x": 3}),
    ],
)
def test_damaged_files(data):
    with pytest.raises(safetensors.SafetensorError):
        safetensors.load(data)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_models_with_tied_weights(tmp_path):
    model = Tied()
    safetensors.save_model(model, tmp_path / "model")
    assert list(safetensors.load_file(tmp_path / "model")) == ["embed.weight"]
    other = Tied()
    assert safetensors.load_model(other, tmp_path / "model") == ([], [])
    np.testing.assert_array_equal(other.head.weight.detach().numpy(), model.head.weight.detach().numpy())
    with pytest.raises(RuntimeError, match="Missing key"):
        safetensors.load_model(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model")
    missing, unexpected = safetensors.load_model(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model", strict=False)
    assert sorted(missing) == ["0.bias", "0.weight"] and unexpected == ["embed.weight"]


def test_optimizers_state_has_tensors_of_its_own(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = gt.optim.Adam(model.parameters())
    model(gt.ones(1, 2)).sum().backward()
    optimizer.step()
    flat = {f"{i}.{k}": v for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}
    safetensors.save_file(flat, tmp_path / "optimizer")
    for name, value in safetensors.load_file(tmp_path / "optimizer").items():
        assert value.equal(flat[name])
