"""CUDA graphs that programs record themselves, on a simulated device: as in PyTorch's notes on CUDA graphs."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.runtime.cuda import devices, graphs
from graphtorch.runtime.cuda import driver as drivers
from graphtorch.runtime.cuda.simulated import SimulatedDriver

pytestmark = pytest.mark.usefixtures("cuda")
PERMITTED = "operation not permitted when stream is capturing"
SIZE = 300_000  # elements that are no small block
FAILED = "CUDA error: operation failed due to a previous error during capture"


def side_stream(work: Any, times: int = 3) -> None:
    """Warm-up on a stream of its own."""
    s = torch.cuda.Stream()
    s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s):
        for _ in range(times):
            work()
    torch.cuda.current_stream().wait_stream(s)


def test_inputs_are_read_where_they_are_and_results_overwritten(cuda: SimulatedDriver) -> None:
    x = torch.zeros(5, device="cuda")
    g = torch.cuda.CUDAGraph()
    before = cuda.launches
    with torch.cuda.graph(g):
        y = (x * 2.5 + 1).mul_(3)
        assert torch.cuda.is_current_stream_capturing()
        z = x.t().contiguous().sum() + y[1:4].clone().sum()
    assert cuda.launches == before and not torch.cuda.is_current_stream_capturing()
    for i in range(3):
        given = torch.arange(5.0) + i
        x.copy_(given)
        g.replay()
        wanted = (given * 2.5 + 1) * 3
        np.testing.assert_allclose(y.cpu().numpy(), wanted.numpy(), rtol=1e-6)
        assert z.item() == pytest.approx(float(given.sum() + wanted[1:4].sum()))


def test_random_numbers_are_new_ones_in_each_replay() -> None:
    torch.manual_seed(3)
    wanted = [(torch.rand(7, device="cuda"), torch.randn(7, device="cuda")) for _ in range(3)]
    torch.manual_seed(3)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        found = torch.rand(7, device="cuda"), torch.randn(7, device="cuda")
    for pair in wanted:
        g.replay()
        for a, b in zip(found, pair, strict=True):
            assert a.tolist() == b.tolist()


def training(steps: int, recorded: bool, optimizer: str, scaled: bool = False, **options: Any) -> list[Any]:
    """The "whole-network capture" of PyTorch's notes: losses of each step, and the parameters."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(p=0.2), nn.Linear(5, 4), nn.Dropout(p=0.1)).cuda()
    loss_fn = nn.MSELoss()
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **options)
    static_input, static_target = torch.randn(8, 6, device="cuda"), torch.randn(8, 4, device="cuda")
    inputs = [torch.rand_like(static_input) for _ in range(steps)]
    targets = [torch.randn_like(static_target) for _ in range(steps)]

    def step(x: Any, y: Any) -> Any:
        with torch.autocast("cuda", torch.bfloat16, enabled=scaled):
            loss = loss_fn(model(x), y)
        loss.backward()
        made.step()
        return loss

    def warm_up() -> None:
        made.zero_grad(set_to_none=True)
        step(static_input, static_target)

    side_stream(warm_up)
    losses = []
    if recorded:
        g = torch.cuda.CUDAGraph()
        made.zero_grad(set_to_none=True)
        with torch.cuda.graph(g):
            static_loss = step(static_input, static_target)
        for x, y in zip(inputs, targets, strict=True):
            static_input.copy_(x)
            static_target.copy_(y)
            g.replay()
            losses.append(static_loss.item())
    else:
        for x, y in zip(inputs, targets, strict=True):
            made.zero_grad(set_to_none=True)
            losses.append(step(x, y).item())
    return [losses, *(p.tolist() for p in model.parameters())]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("SGD", {"momentum": 0.9}),
        ("Adam", {"capturable": True, "amsgrad": True, "weight_decay": 0.1}),
        ("AdamW", {"capturable": True}),
        ("RMSprop", {"capturable": True}),
    ],
)
def test_whole_network_capture(optimizer: str, options: dict[str, Any]) -> None:
    assert training(3, True, optimizer, **options) == training(3, False, optimizer, **options)


def test_whole_network_capture_with_amp() -> None:
    assert training(3, True, "SGD", scaled=True) == training(3, False, "SGD", scaled=True)


def test_capturable_steps_are_those_of_plain_ones() -> None:
    for one, other in zip(training(3, True, "Adam", capturable=True), training(3, False, "Adam"), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("optimizer", "options", "message"), [
    ("Adam", {}, "capture of step() for an instance of Adam but param_groups' capturable is False"),
    ("NAdam", {}, "capture of step() for an instance of NAdam but param_groups' capturable is False"),
    ("NAdam", {"capturable": True}, "counts steps on the host"),
])  # fmt: skip
def test_counts_of_steps_are_no_constants(optimizer: str, options: dict[str, Any], message: str) -> None:
    p = nn.Parameter(torch.ones(3, device="cuda"))
    made = getattr(torch.optim, optimizer)([p], lr=0.1, **options)
    p.grad = torch.ones(3, device="cuda")
    made.step()
    with pytest.raises(RuntimeError) as error, torch.cuda.graph(torch.cuda.CUDAGraph()):
        made.step()
    assert message in str(error.value)


class Module1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Any) -> Any:
        return self.layer(x).relu()


def partial(graphed: bool, amp: bool) -> list[Any]:
    """The "partial-network capture": three modules, of which data chooses."""
    torch.manual_seed(2)
    module1, module2, module3 = Module1().cuda(), nn.Linear(5, 4).cuda(), nn.Linear(5, 4).cuda()
    loss_fn = nn.MSELoss()
    modules = (module1, module2, module3)
    optimizer = torch.optim.SGD([p for m in modules for p in m.parameters()], lr=0.1)
    scaler = torch.amp.GradScaler("cuda", enabled=amp)
    x = torch.randn(8, 6, device="cuda")
    h = torch.randn(8, 5, device="cuda", requires_grad=True)
    if graphed:
        with torch.autocast("cuda", torch.float16, enabled=amp, cache_enabled=False):
            module1 = torch.cuda.make_graphed_callables(module1, (x,))
            module2, module3 = torch.cuda.make_graphed_callables((module2, module3), ((h,), (h,)))
    torch.manual_seed(5)
    real_inputs = [torch.rand_like(x) for _ in range(4)]
    real_targets = [torch.randn(8, 4, device="cuda") for _ in range(4)]
    losses = []
    for i, (data, target) in enumerate(zip(real_inputs, real_targets, strict=True)):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.float16, enabled=amp, cache_enabled=False):
            tmp = module1(data)
            tmp = module2(tmp) if tmp.sum().item() > 0 and i % 2 else module3(tmp)
            loss = loss_fn(tmp.float(), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return [losses, *(p.tolist() for m in modules for p in m.parameters())]


@pytest.mark.parametrize("amp", [False, True])
def test_partial_network_capture(amp: bool) -> None:
    for one, other in zip(partial(True, amp), partial(False, amp), strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-5, atol=1e-6)


def test_graphed_modules_know_their_mode() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).cuda()
    x = torch.randn(4, 3, device="cuda")
    module = torch.cuda.make_graphed_callables(module, (x,))
    first = module(x).clone()
    assert module(x).tolist() != first.tolist()
    module.eval()
    assert module(x).tolist() == module[0](x).tolist()


def test_graphed_functions() -> None:
    def function(x: Any, y: Any) -> tuple[Any, dict[str, Any]]:
        return x * y, {"sum": x.sum(), "integers": (y > 0).long()}

    x, y = torch.randn(3, device="cuda", requires_grad=True), torch.randn(3, device="cuda")
    graphed = torch.cuda.make_graphed_callables(function, (x, y))
    a, b = torch.randn(3, device="cuda", requires_grad=True), torch.randn(3, device="cuda")
    product, others = graphed(a, b)
    (product.sum() + 2 * others["sum"]).backward()
    assert torch.equal(product, a * b) and torch.equal(others["integers"], (b > 0).long())
    np.testing.assert_allclose(a.grad.cpu().numpy(), (b + 2).cpu().numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError, match="structure"):
        graphed(a)
    with pytest.raises(RuntimeError, match="must contain only Tensors"):
        torch.cuda.make_graphed_callables(function, (x, 3.0))
    with torch.autocast("cuda"), pytest.raises(RuntimeError, match="does not support the autocast caching"):
        torch.cuda.make_graphed_callables(function, (x, y))


@pytest.mark.parametrize("work", [
    lambda x, s: x.sum().item(),
    lambda x, s: x.cpu(),
    lambda x, s: x.tolist(),
    lambda x, s: bool(x[0] > 0),
    lambda x, s: torch.cuda.synchronize(),
    lambda x, s: s.synchronize(),
    lambda x, s: torch.cuda.current_stream().synchronize(),
    lambda x, s: s.query(),
    lambda x, s: torch.cuda.Event().synchronize(),
    lambda x, s: x[x > 0],
    lambda x, s: torch.ones(3).cuda(),
    lambda x, s: torch.tensor([1.0, 2.0], device="cuda"),
    lambda x, s: torch.linalg.inv(x[None] + torch.eye(4, device="cuda")),
    lambda x, s: torch.cuda.graph(torch.cuda.CUDAGraph(), stream=s).__enter__(),
    lambda x, s: torch.cuda.current_stream().wait_stream(s),
], ids=str)  # fmt: skip
def test_what_a_recording_cannot_hold(work: Any) -> None:
    x, s = torch.ones(4, device="cuda"), torch.cuda.Stream()
    g = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError) as error, torch.cuda.graph(g):
        y = x + 1
        work(x, s)
    known = (PERMITTED, "Cannot copy between CPU and CUDA tensors during CUDA graph capture", "uncaptured work")
    if str(error.value) == FAILED:
        assert any(text in str(error.value.__context__) for text in known)
    else:
        assert any(text in str(error.value) for text in known)
    assert graphs.current() is None and not graphs.underway
    assert (x + 1).tolist() == [2.0] * 4 and y.shape == (4,)
    with pytest.raises(RuntimeError, match="without a preceding successful capture") if str(error.value) == FAILED \
            else pytest.MonkeyPatch.context():  # fmt: skip
        g.replay()


def test_an_error_of_the_program_is_its_own() -> None:
    with pytest.raises(ValueError, match="mine"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        raise ValueError("mine")
    assert torch.ones(2, device="cuda").sum().item() == 2


def test_page_locked_memory_is_copied_in_each_replay() -> None:
    source, target = torch.arange(4.0).pin_memory(), torch.zeros(4, device="cuda")
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        x = source.to("cuda", non_blocking=True) * 2
        target.copy_(source, non_blocking=True)
    source.add_(1)
    g.replay()
    assert x.tolist() == [2.0, 4.0, 6.0, 8.0] and target.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_relaxed_recordings_let_other_streams_be_waited_for() -> None:
    s = torch.cuda.Stream()
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="relaxed"):
        s.synchronize()
    wrong = torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="loose")
    with pytest.raises(RuntimeError, match="Unknown capture error mode"), wrong:
        pass
    assert not graphs.underway


def test_other_streams_join() -> None:
    x, other = torch.zeros(4, device="cuda"), torch.cuda.Stream()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        y = x + 1
        other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(other):
            assert torch.cuda.is_current_stream_capturing()
            z = y * 2
        torch.cuda.current_stream().wait_stream(other)
        w = z + 1
    with torch.cuda.stream(other):
        assert not torch.cuda.is_current_stream_capturing()
    x.fill_(3)
    g.replay()
    assert w.tolist() == [9.0] * 4


def test_words_and_orders() -> None:
    g = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="Called CUDAGraph::replay without a preceding successful capture"):
        g.replay()
    with pytest.raises(RuntimeError, match="must be captured on a non-default stream"):
        g.capture_begin()
    with pytest.raises(RuntimeError):
        g.capture_end()
    x = torch.ones(2, device="cuda")
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        g.capture_begin()
        y = x * 4
        g.capture_end()
    with pytest.raises(RuntimeError, match="already owns a captured graph"), torch.cuda.stream(s):
        g.capture_begin()
    g.replay()
    assert y.tolist() == [4.0, 4.0]
    g.reset()
    with pytest.raises(RuntimeError, match="without a preceding"):
        g.pool()


def test_memory_stays_reserved_while_there_is_a_graph() -> None:
    """Neither other tensors nor the device get it, although no tensor lies in it; replays write there."""
    gc.collect()
    torch.cuda.empty_cache()
    x = torch.ones(SIZE, device="cuda")
    reserved = torch.cuda.memory_reserved()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        y = ((x + 1) * 2 + 3).sum()
    taken = torch.cuda.memory_reserved()
    assert taken >= reserved + (4 << 20)
    others = [torch.full((SIZE,), float(i), device="cuda") for i in range(4)]
    g.replay()
    assert y.item() == 7 * SIZE
    assert [o.sum().item() for o in others] == [float(i * SIZE) for i in range(4)]
    del others
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() >= taken
    g.replay()
    assert y.item() == 7 * SIZE
    del g, y
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= reserved


def test_graphs_share_a_pool() -> None:
    x = torch.ones(SIZE, device="cuda")
    handle = torch.cuda.graph_pool_handle()
    first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(first, pool=handle):
        a = ((x + 1) * 2).sum()
    taken = torch.cuda.memory_reserved()
    with torch.cuda.graph(second, pool=first.pool()):
        b = ((x + 2) * 3).sum() + a
    assert first.pool() == second.pool() == handle and torch.cuda.memory_reserved() == taken
    x.fill_(2)
    first.replay()
    second.replay()
    assert a.item() == 6 * SIZE and b.item() == 18 * SIZE


def test_compiled_steps_are_recorded() -> None:
    step = torch.compile(lambda x, w: ((x @ w).relu() + torch.rand(4, 3, device="cuda")).sum(0), mode="reduce-overhead")
    x, w = torch.randn(4, 5, device="cuda"), torch.randn(5, 3, device="cuda")
    torch.manual_seed(0)
    wanted = step(x, w).tolist(), step(x * 2, w).tolist()
    side_stream(lambda: step(x, w), 2)
    g = torch.cuda.CUDAGraph()
    static = x.clone()
    with torch.cuda.graph(g):
        y = step(static, w)
    torch.manual_seed(0)
    g.replay()
    assert y.tolist() == wanted[0]
    static.copy_(x * 2)
    g.replay()
    assert y.tolist() == wanted[1]


def test_numbers_are_those_of_the_recording() -> None:
    """A later eager call of the same operator with another number is no matter of the graph's."""
    x = torch.ones(3, device="cuda")
    g = torch.cuda.CUDAGraph()
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        (x * 0.25).tolist()
    with torch.cuda.graph(g, stream=s):
        y = x * 0.5
        z = x * 0.75
    with torch.cuda.stream(s):
        assert (x * 8.0).tolist() == [8.0] * 3
    g.replay()
    assert y.tolist() == [0.5] * 3 and z.tolist() == [0.75] * 3


def test_memory_pools() -> None:
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        x = torch.ones(300, device="cuda")
    y = torch.ones(300, device="cuda")
    segments = pool.snapshot()
    assert len(segments) == 1 and segments[0]["segment_pool_id"] == pool.id and pool.use_count() == 1
    inside = range(segments[0]["address"], segments[0]["address"] + segments[0]["total_size"])
    assert x.data_ptr() in inside and y.data_ptr() not in inside
    assert (x + y).tolist() == [2.0] * 300
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g, pool=pool.id):
        z = x + y
    assert g.pool() == pool.id and pool.use_count() == 2
    g.replay()
    assert z.tolist() == [2.0] * 300
    assert devices.device().allocator.route is None


def test_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("torch")
    if theirs.cuda.is_available():
        pytest.skip("PyTorch has a device")

    def absent() -> Any:
        raise drivers.CudaUnavailable("there is none")

    drivers.use_driver(None)
    monkeypatch.setattr(drivers, "find_driver", absent)
    for work in (
        lambda t: t.cuda.CUDAGraph(),
        lambda t: t.cuda.graph_pool_handle(),
        lambda t: t.cuda.is_current_stream_capturing(),
        lambda t: t.cuda.graph(None),
        lambda t: t.cuda.MemPool(),
        lambda t: t.cuda.use_mem_pool(None).__enter__(),
        lambda t: t.cuda.make_graphed_callables(lambda x: x, (t.ones(2),)),
    ):
        with pytest.raises(Exception) as wanted:
            work(theirs)
        with pytest.raises(type(wanted.value)) as found:
            work(torch)
        assert str(found.value) == str(wanted.value)
