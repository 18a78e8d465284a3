"""Tensors on CUDA devices, eagerly: where they live, how they get there and back, and that all else is as ever."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.runtime.cuda.simulated import SimulatedDriver
from graphtorch.tensor.remote import DeviceArray

pytestmark = pytest.mark.usefixtures("cuda")


def test_factories_put_tensors_on_the_device() -> None:
    for made in (
        torch.zeros(2, 3, device="cuda"),
        torch.ones(2, 3, device="cuda:0"),
        torch.full((2, 3), 2.5, device=torch.device("cuda")),
        torch.empty(2, 3, device="cuda"),
        torch.arange(6.0, device="cuda").reshape(2, 3),
        torch.rand(2, 3, device="cuda"),
        torch.tensor([[1.0, 2.0, 3.0]] * 2, device="cuda"),
        torch.zeros_like(torch.ones(2, 3, device="cuda")),
        torch.ones(2, 3, device="cuda").new_full((2, 3), 7.0),
        torch.ones(2, 3).cuda(),
        torch.ones(2, 3).to("cuda"),
        torch.ones(2, 3).to(torch.ones(1, device="cuda")),
    ):
        assert made.is_cuda and made.device == torch.device("cuda", 0) and made.get_device() == 0
        assert tuple(made.shape) == (2, 3) and made.is_contiguous()
    assert torch.full((3,), 2.5, device="cuda").tolist() == [2.5, 2.5, 2.5]
    assert torch.eye(2, device="cuda").tolist() == [[1, 0], [0, 1]]
    assert torch.tril_indices(2, 2, device="cuda").tolist() == [[0, 1, 1], [0, 0, 1]]
    assert torch.linspace(0, 1, 5, device="cuda").tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_default_device() -> None:
    with torch.device("cuda"):
        assert torch.zeros(2).is_cuda and torch.tensor([1]).is_cuda and nn.Linear(2, 2).weight.is_cuda
    torch.set_default_device("cuda:1")
    try:
        assert torch.ones(2).device == torch.device("cuda:1")
    finally:
        torch.set_default_device(None)
    assert not torch.zeros(2).is_cuda


def test_the_current_device_is_where_tensors_go() -> None:
    with torch.cuda.device(1):
        assert torch.cuda.current_device() == 1
        assert torch.ones(2, device="cuda").device.index == 1
        with torch.cuda.device_of(torch.ones(2, device="cuda:0")):
            assert torch.cuda.current_device() == 0
    assert torch.cuda.current_device() == 0
    x = torch.arange(4.0, device="cuda:0")
    assert x.to("cuda:1").device.index == 1 and x.to("cuda:1").tolist() == x.tolist()


def test_the_host_cannot_touch_the_memory() -> None:
    x = torch.ones(3, device="cuda")
    assert type(x._data) is DeviceArray
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        np.asarray(x)
    assert x.numpy(force=True).tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="can't be read by the host"):
        np.add(x._data, 1)


def test_python_reads_values() -> None:
    x = torch.tensor([[1.5, -2.0], [0.0, 4.0]], device="cuda")
    assert (
        x[0, 1].item() == -2 and float(x[1, 1]) == 4 and int(x[1, 1]) == 4 and bool(x[0, 0]) and x.tolist()[1] == [0, 4]
    )
    assert [row.tolist() for row in x] == x.tolist() and len(x) == 2 and -2.0 in x
    assert f"{x[0, 0]:.2f}" == "1.50"
    assert repr(x) == "tensor([[ 1.5000, -2.0000],\n        [ 0.0000,  4.0000]], device='cuda:0')"
    assert repr(x.t()[1]) == "tensor([-2.,  4.], device='cuda:0')"
    assert "device='cuda:0', requires_grad=True" in repr(x.requires_grad_())
    assert torch.tensor([1.0, 2.5], dtype=torch.bfloat16, device="cuda").tolist() == [1.0, 2.5]


def test_views_share_memory() -> None:
    x = torch.zeros(3, 4, device="cuda")
    row, flat = x[1], x.view(-1)
    row.fill_(2.0)
    flat[0] = 5.0
    x[:, 3] += 1
    x.t()[2].copy_(torch.tensor([7.0, 8.0, 9.0]))
    assert x.cpu().tolist() == [[5, 0, 7, 1], [2, 2, 8, 3], [0, 0, 9, 1]]
    assert row.data_ptr() == x.data_ptr() + 16 and row.storage_offset() == 4
    assert row.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert row._version == x._version > 0
    y = x.clone()
    y[torch.tensor([0, 2], device="cuda")] = 0
    assert y.sum().item() == 15 and x[0, 0].item() == 5
    assert torch.equal(x.flip(0).cpu(), x.cpu().flip(0)) and x.unfold(1, 2, 2).shape == (3, 2, 2)


@pytest.mark.parametrize("layout", ["rows", "columns", "channels_last", "slices", "expanded"])
def test_strides_are_those_of_the_cpu(layout: str) -> None:
    base = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    x = {
        "rows": base,
        "columns": base.transpose(2, 3),
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "slices": base[:, 1:, ::2],
        "expanded": base[:, :1].expand(2, 3, 4, 5),
    }[layout]
    on = x.cuda()
    assert on.stride() == (x.stride() if layout not in ("slices", "expanded") else x.contiguous().stride())
    strided = torch.empty(0, device="cuda")
    if layout in ("slices", "expanded"):
        strided = base.cuda()[:, 1:, ::2] if layout == "slices" else base.cuda()[:, :1].expand(2, 3, 4, 5)
        on = strided
        assert on.stride() == x.stride()
    for function in (
        lambda t: t * 2 + 1,
        lambda t: t.clone(),
        lambda t: t + torch.ones(t.shape[-1], device=t.device),
        lambda t: t.sum(1),
        lambda t: t.softmax(-1),
        lambda t: t.contiguous(),
        lambda t: torch.zeros_like(t),
        lambda t: t.to(torch.float64),
        lambda t: t.contiguous(memory_format=torch.channels_last).relu(),
    ):
        wanted, found = function(x), function(on)
        assert found.stride() == wanted.stride()
        np.testing.assert_allclose(found.cpu().numpy(), wanted.numpy(), 1e-6, 1e-6)
    changed, plain = on.clone(), x.clone()
    changed.mul_(3).add_(1)
    plain.mul_(3).add_(1)
    np.testing.assert_allclose(changed.cpu().numpy(), plain.numpy(), 1e-6)


def test_shapes_after_the_first_are_not_compiled_each(cuda: SimulatedDriver) -> None:
    from graphtorch.lowering.triton.eager import _variants

    def compiled() -> int:
        return sum(len(v.shapes) + len(v.symbolic) for v in _variants.values())

    def work(n: int, m: int) -> None:
        x = torch.full((n, m), 0.5, device="cuda")
        y = (x * 2 - x.sum(1, keepdim=True)).sin()
        expected = np.sin(np.full((n, m), 1 - 0.5 * m, np.float32))
        np.testing.assert_allclose(y.cpu().numpy(), expected, 1e-4, 1e-4)

    for n, m in ((3, 5), (4, 7), (6, 2), (9, 11)):
        work(n, m)
    before = compiled()
    for n, m in ((13, 4), (2, 17), (5, 3), (21, 22)):
        work(n, m)
    assert compiled() == before


def test_numbers_that_change_are_arguments() -> None:
    from graphtorch.lowering.triton.kernels import _loaded

    x = torch.ones(8, device="cuda")
    x.mul_(0.5).add_(x, alpha=0.25)
    before = len(_loaded)
    for i in range(4):
        x.mul_(0.5 + i / 7).add_(x, alpha=0.25 / (i + 1))
    assert len(_loaded) == before


def test_devices_do_not_mix() -> None:
    here, there, on_host = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1"), torch.ones(2)
    for a, b, pair in ((here, on_host, "cuda:0 and cpu!"), (here, there, "cuda:0 and cuda:1!")):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device, but found.*" + pair):
            a + b
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            a.add_(b)
    assert (here * torch.tensor(3.0)).tolist() == [3, 3]  # numbers on the host mix
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        on_host.add_(here)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(2, device="cuda:7")
    with pytest.raises(RuntimeError, match="size of tensor a"):
        here + torch.ones(3, device="cuda")
    assert here.tolist() == [1, 1]


def test_gradients() -> None:
    torch.manual_seed(0)
    w, x = torch.randn(4, 3), torch.randn(5, 4)

    def loss_of(w: Any, x: Any) -> Any:
        y = (x @ w).tanh()
        y = y[:, 1:] * y[:, :-1]
        return y.exp().mean() + (w * w).sum()

    mine, theirs = w.cuda().requires_grad_(), w.clone().requires_grad_()
    loss_of(mine, x.cuda()).backward()
    loss_of(theirs, x).backward()
    assert mine.grad.is_cuda
    np.testing.assert_allclose(mine.grad.cpu().numpy(), theirs.grad.numpy(), 1e-5, 1e-6)
    loss_of(mine, x.cuda()).backward()
    np.testing.assert_allclose(mine.grad.cpu().numpy(), 2 * theirs.grad.numpy(), 1e-5, 1e-6)
    leaf = torch.ones(3, requires_grad=True)
    (leaf.cuda() * 3).cpu().sum().backward()  # through the copies as well
    assert leaf.grad.tolist() == [3, 3, 3] and not leaf.grad.is_cuda
    (first,) = torch.autograd.grad((mine**3).sum(), mine, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), mine)
    np.testing.assert_allclose(second.cpu().numpy(), 6 * w.numpy(), 1e-5)


def test_a_changed_operand_is_noticed() -> None:
    x = torch.ones(3, device="cuda", requires_grad=True)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        x.add_(1)


def test_modules_train_as_on_the_cpu() -> None:
    def train(device: str) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = torch.randn(7, 6).to(device), torch.arange(7, device=device) % 3
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(p.device.type == device and p.grad.device.type == device for p in model.parameters())
        return losses

    np.testing.assert_allclose(train("cuda"), train("cpu"), 1e-5)


def test_copies_between_devices() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    on = torch.empty(2, 3, device="cuda")
    assert on.copy_(x) is on and on.tolist() == x.tolist()
    back = torch.empty(2, 3, dtype=torch.float64)
    back.copy_(on, non_blocking=True)
    assert back.tolist() == x.tolist()
    assert on.to("cuda") is on and on.cuda() is on and x.cpu() is x
    assert on.to("cuda", copy=True) is not on
    assert on.to("cpu", torch.int32).dtype is torch.int32 and on.to("cuda", torch.float16).dtype is torch.float16
    large = torch.arange(3_000_000)
    assert torch.equal(large.cuda().cpu(), large)
    pinned = x.pin_memory()
    assert pinned.is_pinned() and not x.is_pinned() and pinned.pin_memory() is pinned
    assert pinned.to("cuda", non_blocking=True).tolist() == x.tolist()
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        torch.ones(2, device="meta").cuda()
    assert on.to("meta").is_meta


def test_pickles_and_copies_stay_on_the_device() -> None:
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    pair = pickle.loads(pickle.dumps((x, x[1])))
    pair[0][1, 1] = 40
    assert pair[0].is_cuda and pair[1].tolist() == [3, 40, 5]
    again = copy.deepcopy([x, x.t()])
    again[0][0, 0] = -1
    assert again[1].is_cuda and again[1][0, 0].item() == -1 and x[0, 0].item() == 0
    layer = copy.deepcopy(nn.Linear(2, 2).cuda())
    assert layer.weight.is_cuda and isinstance(layer.weight, nn.Parameter)


def test_checkpoints() -> None:
    model = nn.Linear(3, 2).cuda()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    for location, device in (
        (None, "cuda:0"),
        ("cpu", "cpu"),
        ("cuda:1", "cuda:1"),
        (torch.device("cuda"), "cuda:0"),
        ({"cuda:0": "cuda:1"}, "cuda:1"),
        (lambda storage, where: storage.cuda(1) if where == "cuda:0" else None, "cuda:1"),
    ):
        file.seek(0)
        loaded = torch.load(file, map_location=location)
        assert str(loaded["weight"].device) == device
        assert loaded["weight"].tolist() == model.weight.tolist()
    file.seek(0)
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on CUDA device 5"):
        torch.load(file, map_location="cuda:5")
    other = nn.Linear(3, 2).cuda()
    other.load_state_dict(loaded)
    assert other.weight.device.index == 0 and other.weight.tolist() == model.weight.tolist()


def test_operators_without_a_kernel_run_on_the_host_and_say_so_once() -> None:
    from graphtorch.lowering.triton import strided

    strided._told.discard("linalg_cholesky_factor")
    a = torch.tensor([[4.0, 2.0], [2.0, 3.0]], device="cuda")
    with pytest.warns(UserWarning, match="no CUDA kernel here: it runs on the host"):
        factor = torch.linalg.cholesky(a)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factor = torch.linalg.cholesky(a)
    assert factor.is_cuda
    np.testing.assert_allclose((factor @ factor.t()).cpu().numpy(), a.cpu().numpy(), 1e-5)


def test_results_whose_shape_depends_on_data() -> None:
    x = torch.tensor([3.0, 0.0, 4.0], device="cuda")
    assert x.nonzero().tolist() == [[0], [2]] and x.nonzero().is_cuda
    assert x[x > 1].tolist() == [3, 4] and x.unique().tolist() == [0, 3, 4]


def test_random_numbers_come_from_the_devices_generator() -> None:
    torch.manual_seed(5)
    host = torch.rand(3)
    torch.manual_seed(5)
    a, b = torch.rand(4, device="cuda"), torch.randn(4, device="cuda")
    assert torch.rand(3).tolist() == host.tolist()  # the host's stream has not moved
    torch.cuda.manual_seed(5)
    assert torch.rand(4, device="cuda").tolist() == a.tolist()
    state = torch.cuda.get_rng_state()
    assert torch.randn(4, device="cuda").tolist() == b.tolist()
    torch.cuda.set_rng_state(state)
    assert torch.randn(4, device="cuda").tolist() == b.tolist()
    generator = torch.Generator(device="cuda").manual_seed(5)
    assert generator.device.type == "cuda" and generator.get_state().numel() == 16
    assert torch.rand(4, device="cuda", generator=generator).tolist() == a.tolist()
    dropped = torch.nn.functional.dropout(torch.ones(1000, device="cuda"), 0.25)
    assert 650 < (dropped != 0).sum().item() < 850
    assert sorted(torch.randperm(9, device="cuda").tolist()) == list(range(9))
    x = torch.empty(500, device="cuda").normal_(3.0, 0.5)
    assert abs(x.mean().item() - 3) < 0.2


def test_dlpack_shares_memory() -> None:
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    y = torch.from_dlpack(Exporter(x.t()))
    assert y.is_cuda and y.stride() == (1, 3) and y.data_ptr() == x.data_ptr()
    y[2, 1] = 50
    assert x[1, 2].item() == 50
    assert x.__dlpack_device__() == (2, 0)
    capsule = x.__dlpack__()
    versioned = x.__dlpack__(max_version=(1, 0))
    assert '"dltensor"' in repr(capsule) and '"dltensor_versioned"' in repr(versioned)
    z = torch.utils.dlpack.from_dlpack(Exporter(x.to(torch.bfloat16)))
    assert z.dtype is torch.bfloat16 and z.tolist() == x.tolist()
    on_host = x.__dlpack__(dl_device=(1, 0), max_version=(1, 0))
    assert torch.from_dlpack(on_host).tolist() == x.tolist()
    with pytest.raises(BufferError, match="require gradient"):
        torch.ones(2, device="cuda", requires_grad=True).__dlpack__()
    with pytest.raises(RuntimeError, match="used already"):
        torch.from_dlpack(Exporter(x, capsule=used(x)))


def test_dlpack_memory_lives_as_long_as_it_is_used() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    capsule = torch.ones(1000, device="cuda").__dlpack__()
    assert torch.cuda.memory_allocated() > before
    y = torch.from_dlpack(Exporter(torch.ones(1, device="cuda"), capsule))
    del capsule
    assert y.sum().item() == 1000
    del y
    assert torch.cuda.memory_allocated() == before
    capsule = torch.ones(1000, device="cuda").__dlpack__()
    del capsule  # nobody read it
    assert torch.cuda.memory_allocated() == before


class Exporter:
    """Another library's tensor."""

    def __init__(self, tensor: Any, capsule: Any = None) -> None:
        self.tensor, self.capsule = tensor, capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options) if self.capsule is None else self.capsule

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def used(x: Any) -> Any:
    capsule = x.__dlpack__()
    torch.from_dlpack(Exporter(x, capsule))
    return capsule


def test_storages() -> None:
    x = torch.arange(4, dtype=torch.uint8, device="cuda")
    storage = x.untyped_storage()
    assert storage.is_cuda and storage.tolist() == [0, 1, 2, 3] and storage.nbytes() == 4
    storage[1] = 9
    assert x.tolist() == [0, 9, 2, 3]
    assert storage.cpu().tolist() == [0, 9, 2, 3] and not storage.cpu().is_cuda
    y = torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage)
    assert y.data_ptr() == x.data_ptr()
    z = torch.zeros(2, device="cuda")
    z.resize_(3, 2)
    assert z.shape == (3, 2) and z[0].tolist() == [0, 0]
    x.data = torch.ones(2, dtype=torch.uint8)
    assert not x.is_cuda


def test_loaders_pin_batches() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(8.0), torch.arange(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = list(torch.utils.data.DataLoader(data, batch_size=4, pin_memory=True))
    assert all(x.is_pinned() and y.is_pinned() for x, y in batches) and batches[1][0].tolist() == [4, 5, 6, 7]


def test_factories_of_other_sizes_are_not_compiled_each() -> None:
    from graphtorch.lowering.triton.eager import _variants

    def make(n: int) -> None:
        torch.rand(n, device="cuda")
        torch.randn(2, n, device="cuda")
        assert torch.arange(n, device="cuda").tolist() == list(range(n))
        assert torch.full((n, 2), 2.5, device="cuda").sum().item() == 5 * n

    for n in (3, 5, 7, 9):
        make(n)
    before = sum(len(v.shapes) + len(v.symbolic) for v in _variants.values())
    for n in (11, 13, 15):
        make(n)
    assert sum(len(v.shapes) + len(v.symbolic) for v in _variants.values()) == before
    torch.cuda.manual_seed(4)
    a = torch.rand(2, 3, device="cuda")
    torch.cuda.manual_seed(4)
    assert torch.rand(6, device="cuda").tolist() == a.flatten().tolist()


def test_calls_that_look_the_same_are_the_same() -> None:
    """Further calls take a shorter way: operands, memory, numbers and settings may differ between them."""
    x, y = torch.arange(6.0, device="cuda").reshape(2, 3), torch.ones(2, 3, device="cuda")
    for factor in (1.0, 2.0, 2.0, 3.5):
        made = torch.add(x * factor, y, alpha=0.5)
        np.testing.assert_allclose(made.cpu().numpy(), np.arange(6).reshape(2, 3) * factor + 0.5)
    base = torch.arange(9.0, device="cuda")
    for offset in (0, 1, 2, 4):  # not all of them on a boundary of 16 bytes
        assert (base[offset : offset + 4] * 2).tolist() == [2.0 * (offset + i) for i in range(4)]
    for _ in range(3):
        z = torch.arange(8.0, device="cuda")
        z[:4].add_(z[4:])
        z[1:].add_(z[:-1])  # overlapping memory
        assert z.tolist() == [4, 10, 14, 18, 14, 9, 11, 13]
    total = torch.zeros(3, device="cuda")
    for i in range(5):
        total.add_(torch.full((3,), float(i), device="cuda"), alpha=2.0)
        total.mul_(1.0)
    assert total.tolist() == [20, 20, 20]
    whole = torch.tensor([3, 4], device="cuda")
    for _ in range(2):
        assert (whole / 2).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert (whole / 2).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (whole / 2).dtype is torch.float32
    for _ in range(3):
        with pytest.raises(RuntimeError, match="size of tensor a"):
            x + torch.ones(4, device="cuda")


def test_indices_on_the_host() -> None:
    x, y = torch.arange(9.0, device="cuda").reshape(3, 3), torch.arange(9.0).reshape(3, 3)
    for key in ([0, 2], torch.tensor([1, 1]), np.array([2]), [True, False, True], torch.tensor([False, True, True])):
        assert x[key].is_cuda and x[key].tolist() == y[key].tolist()
    large = y > 4
    for t in (x, y):
        t[[0, 1]] = 5
        t[torch.tensor([False, False, True])] = torch.tensor([1.0, 2.0, 3.0], device=t.device)
        t[large] = -1.0
    assert x.tolist() == y.tolist()


def test_long_folds_are_split_although_short_ones_came_first(cuda: SimulatedDriver) -> None:
    from graphtorch.lowering.triton.eager import _variants

    def sums(n: int) -> float:
        return torch.ones(n, device="cuda").sum().item()

    def compiled() -> int:
        return sum(len(v.shapes) + len(v.symbolic) for v in _variants.values())

    assert [sums(n) for n in (3, 4, 5, 6, 7)] == [3, 4, 5, 6, 7]
    before, launches = compiled(), cuda.launches
    assert sums(8) == 8 and compiled() == before
    short = cuda.launches - launches
    launches = cuda.launches
    assert sums(40000) == 40000
    assert cuda.launches - launches == short + 1
    after = compiled()
    assert sums(50001) == 50001 and sums(9) == 9 and compiled() == after
