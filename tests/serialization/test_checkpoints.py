"""Checkpoints: what `save` writes and `load` reads, by itself and through PyTorch in both directions."""

from __future__ import annotations

import io
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from pickle import PicklingError
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch import nn, optim
from graphtorch.tensor.dtypes import ALL_DTYPES


def saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    graphtorch.save(value, file)
    file.seek(0)
    return file


def loaded(value: Any, **how: Any) -> Any:
    return graphtorch.load(saved(value), **how)


def same(a: Any, b: Any) -> None:
    assert a.dtype is b.dtype and a.shape == b.shape and a.stride() == b.stride()
    assert type(a) is type(b) and a.requires_grad == b.requires_grad
    np.testing.assert_array_equal(a.detach()._data, b.detach()._data)


@pytest.mark.parametrize("d", ALL_DTYPES, ids=str)
def test_every_dtype_and_layout(d: Any) -> None:
    base = graphtorch.arange(24).reshape(2, 3, 4).to(d)
    for tensor in (
        base,
        base.transpose(0, 2),
        base[1, 1:],
        base[:, ::2],
        base[0, 0, 0],
        base[:0],
        base.expand(2, 2, 3, 4),
    ):
        same(loaded(tensor), tensor)


def test_views_share_their_storage() -> None:
    base = graphtorch.arange(6.0).reshape(2, 3)
    back = loaded({"base": base, "row": base[1], "turned": base.t(), "parameter": nn.Parameter(base)})
    assert {t.untyped_storage().data_ptr() for t in back.values()} == {back["base"].data_ptr()}
    back["row"].fill_(9)
    assert back["base"].tolist() == [[0, 1, 2], [9, 9, 9]] and back["turned"][2, 1].item() == 9


def test_a_view_brings_its_whole_storage() -> None:
    base = graphtorch.arange(6.0)
    back = loaded(base[2:4])
    assert back.storage_offset() == 2 and back.untyped_storage().nbytes() == 24


def test_plain_containers() -> None:
    shared = [1, (2, None)]
    value = {
        "numbers": [0, 255, 256, -1, 2**31, -(2**31), 2**70, 1.5, float("inf"), 1 - 2j, True, False],
        "text": ["", "é\ud800\U0001f600", b"\x00\xff", bytearray(b"ab")],
        "containers": [(), (1,), {}, set(), {1, "a"}, OrderedDict(b=1, a=2), Counter("aab"), defaultdict(list, k=[1])],
        "types": [graphtorch.Size([2, 3]), graphtorch.float16, graphtorch.device("cuda", 1), graphtorch.strided],
        "twice": [shared, shared],
        3: (1, 2),
        (1, "key"): None,
    }
    back = loaded(value)
    assert back == value
    assert back["twice"][0] is back["twice"][1]
    for a, b in zip(back["containers"], value["containers"], strict=True):
        assert type(a) is type(b)
    assert back["containers"][-1].default_factory is list
    cycle: list[Any] = []
    cycle.append(cycle)
    again = loaded(cycle)
    assert again[0] is again


def test_many_objects_need_long_memo_slots() -> None:
    value = [f"name{i}" for i in range(1000)] * 2
    assert loaded(value) == value


def test_requires_grad_and_attributes() -> None:
    leaf = graphtorch.ones(2, requires_grad=True)
    back = loaded(leaf * 2)
    assert back.requires_grad and back.is_leaf
    parameter = nn.Parameter(graphtorch.ones(2), requires_grad=False)
    parameter.note = "mine"  # type: ignore[attr-defined]
    back = loaded(parameter)
    assert isinstance(back, nn.Parameter) and not back.requires_grad and back.note == "mine"
    tensor = graphtorch.ones(2)
    tensor.note = {"a": 1}  # type: ignore[attr-defined]
    assert loaded(tensor).note == {"a": 1}


def test_meta_tensors_have_no_data() -> None:
    back = loaded(graphtorch.empty(3, 4, device="meta").t())
    assert back.is_meta and back.shape == (4, 3) and back.stride() == (1, 4)


def test_storages() -> None:
    tensor = graphtorch.arange(3, dtype=graphtorch.int16)
    back = loaded([tensor, tensor.untyped_storage()])
    assert back[1] is back[0].untyped_storage()


def test_paths_and_positions(tmp_path: Path) -> None:
    value = {"a": graphtorch.ones(3)}
    graphtorch.save(value, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert archive.namelist()[0] == "model/data.pkl"
        assert archive.testzip() is None
    same(graphtorch.load(str(tmp_path / "model.pt"), mmap=True)["a"], value["a"])
    file = io.BytesIO(b"before")
    file.seek(6)
    graphtorch.save(value, file)
    file.seek(6)
    same(graphtorch.load(file)["a"], value["a"])


def test_records_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    graphtorch.save([graphtorch.ones(n) for n in (1, 5, 100)], path)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name, extra = (int.from_bytes(raw[info.header_offset + at :][:2], "little") for at in (26, 28))
            assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_equal_objects_make_equal_files() -> None:
    assert saved({"a": graphtorch.ones(3)}).getvalue() == saved({"a": graphtorch.ones(3)}).getvalue()


class Custom:
    pass


@pytest.mark.parametrize("value", [lambda: 0, defaultdict(lambda: 0), (i for i in "ab")])
def test_what_cannot_be_pickled_is_not_saved(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    with pytest.raises((PicklingError, AttributeError, TypeError), match="pickle"):
        graphtorch.save({"deep": [value]}, path)
    assert path.read_bytes() == b"old"
    with pytest.raises(PicklingError, match="too long"):
        graphtorch.save([2 ** (8 * 300)], path)
    assert path.read_bytes() == b"old"


def test_refusals_of_save() -> None:
    x = graphtorch.ones(2)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        saved([x, x.view(graphtorch.int32)])
    with pytest.raises(RuntimeError, match="zip format only"):
        graphtorch.save(x, io.BytesIO(), _use_new_zipfile_serialization=False)
    with pytest.raises(AttributeError, match="write"):
        graphtorch.save(x, 3)  # type: ignore[arg-type]


# -- map_location -----------------------------------------------------------------------------------------------------


def on_cuda() -> io.BytesIO:
    """A checkpoint whose storage says that it was saved on a GPU."""
    file = saved(graphtorch.ones(2))
    changed = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(changed, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info.filename, data.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0"))
    changed.seek(0)
    return changed


def test_map_location() -> None:
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        graphtorch.load(on_cuda())
    for where in ("cpu", graphtorch.device("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage):
        same(graphtorch.load(on_cuda(), map_location=where), graphtorch.ones(2))
    asked: list[str] = []
    graphtorch.load(on_cuda(), map_location=lambda storage, location: asked.append(location))
    assert asked == ["cuda:0"]
    assert graphtorch.load(on_cuda(), map_location="meta").is_meta


# -- modules and optimizers -------------------------------------------------------------------------------------------


def trained() -> tuple[Any, Any]:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    model(graphtorch.ones(2, 3) * graphtorch.arange(2.0).reshape(2, 1)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_training_continues_from_a_checkpoint() -> None:
    model, optimizer = trained()
    back = loaded({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    assert list(back["model"]) == list(model.state_dict()) and type(back["model"]) is OrderedDict
    assert back["model"]._metadata == model.state_dict()._metadata
    other, other_optimizer = trained()
    other.load_state_dict(back["model"])
    other_optimizer.load_state_dict(back["optimizer"])
    for m, o in ((model, optimizer), (other, other_optimizer)):
        o.zero_grad()
        m(graphtorch.ones(2, 3)).sum().backward()
        o.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        same(a, b)


# -- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("d", ALL_DTYPES, ids=str)
def test_tensors_travel_both_ways(torch: Any, d: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    base = graphtorch.arange(24).reshape(2, 3, 4).to(d)
    tensors = [base, base.transpose(0, 2), base[1, 1:], base[:, ::2], base[0, 0, 0], base[:0], base.expand(2, 2, 3, 4)]
    graphtorch.save(tensors, path)
    theirs = torch.load(path, weights_only=True)
    assert len({t.untyped_storage().data_ptr() for t in theirs if t.numel()}) == 1
    for a, b in zip(tensors, theirs, strict=True):
        assert (str(a.dtype), a.shape, a.stride(), a.tolist()) == (str(b.dtype), tuple(b.shape), b.stride(), b.tolist())
    assert torch.load(path, mmap=True)[0].tolist() == base.tolist()
    torch.save(theirs, path)
    back = graphtorch.load(path)
    assert len({t.untyped_storage().data_ptr() for t in back if t.numel()}) == 1
    for a, b in zip(back, tensors, strict=True):
        same(a, b)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_travel_both_ways(torch: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    value = {
        "numbers": [0, 255, 256, -1, 2**31, -(2**31), 2**70, 1.5, 1 - 2j, True],
        "text": ["", "é", b"\x00\xff", bytearray(b"ab")],
        "containers": [(), (1,), (1, 2, 3, 4), {1, "a"}, OrderedDict(b=1, a=2), Counter("aab")],
        (1, "key"): None,
    }

    def with_types(module: Any) -> dict[Any, Any]:
        types = [module.Size([2, 3]), module.float16, module.device("cuda", 1), module.device("cpu"), module.strided]
        tensors = [module.nn.Parameter(module.ones(2)), module.empty(2, 3, device="meta")]
        tensors[0].note = "mine"
        return {**value, "types": types, "tensors": tensors}

    def check(found: Any, module: Any) -> None:
        expected = with_types(module)
        parameter, meta = found.pop("tensors")
        assert isinstance(parameter, module.nn.Parameter) and parameter.note == "mine" and parameter.requires_grad
        assert meta.device == module.device("meta") and tuple(meta.shape) == (2, 3)
        expected.pop("tensors")
        assert found == expected

    if protocol == 2:
        graphtorch.save(with_types(graphtorch), path)
        check(torch.load(path, weights_only=True), torch)
    torch.save(with_types(torch), path, pickle_protocol=protocol)
    check(graphtorch.load(path), graphtorch)


def test_what_only_pytorch_has(torch: Any) -> None:
    def through(value: Any) -> Any:
        file = io.BytesIO()
        torch.save(value, file)
        file.seek(0)
        return graphtorch.load(file)

    z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert through(z.conj()).tolist() == z.conj().tolist()
    assert through(z.conj().imag).tolist() == z.conj().imag.tolist()
    assert through(torch.ones(2).untyped_storage()).tolist() == torch.ones(2).untyped_storage().tolist()
    for unknown in (torch.zeros(2, dtype=torch.uint16), torch.eye(2).to_sparse(), np.ones(2), np.float64(2)):
        with pytest.raises(Exception, match="Weights only load failed"):
            through(unknown)
    with pytest.raises(Exception, match="Linear"):
        through(torch.nn.Linear(1, 1))
    legacy = io.BytesIO()
    torch.save(torch.ones(2), legacy, _use_new_zipfile_serialization=False)
    legacy.seek(0)
    with pytest.raises(RuntimeError, match="legacy format"):
        graphtorch.load(legacy)
    big = io.BytesIO()
    torch.save(torch.arange(3), big)
    changed = io.BytesIO()
    with zipfile.ZipFile(big) as source, zipfile.ZipFile(changed, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("byteorder"):
                data = b"big"
            if info.filename.endswith("data/0"):
                data = np.arange(3, dtype=">i8").tobytes()
            target.writestr(info.filename, data)
    changed.seek(0)
    assert graphtorch.load(changed).tolist() == [0, 1, 2]


def test_state_dicts_travel_both_ways(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    model, optimizer = trained()
    graphtorch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    read = torch.load(path)
    theirs = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    their_optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    theirs.load_state_dict(read["model"])
    their_optimizer.load_state_dict(read["optimizer"])
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)

    def step(module: Any, model: Any, optimizer: Any) -> list[Any]:
        optimizer.zero_grad()
        model(module.from_numpy(x)).square().mean().backward()
        optimizer.step()
        return [p.detach().numpy().copy() for p in model.parameters()]

    for a, b in zip(step(graphtorch, model, optimizer), step(torch, theirs, their_optimizer), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    torch.save({"model": theirs.state_dict(), "optimizer": their_optimizer.state_dict()}, path)
    back = graphtorch.load(path)
    other, other_optimizer = trained()
    other.load_state_dict(back["model"])
    other_optimizer.load_state_dict(back["optimizer"])
    for a, b in zip(step(graphtorch, other, other_optimizer), step(torch, theirs, their_optimizer), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
