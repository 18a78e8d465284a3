"""Attention and timed launches on a simulated device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.nn import functional as F
from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.simulated import SimulatedDriver

pytest.importorskip("triton")

from graphtorch.lowering.triton.launch import make_plan
from graphtorch.lowering.triton.measuring import DeviceClock
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.schedule import build_schedule


def attention(q: Any, k: Any, v: Any) -> Any:
    result = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    (result * result).sum().backward()
    return result


def run(function: Any, place: str) -> list[Any]:
    torch.manual_seed(0)
    given = [torch.randn(*s) for s in ((2, 4, 18, 16), (2, 2, 18, 16), (2, 2, 18, 16))]
    moved = [t.to(place).requires_grad_() for t in given]
    result = function(*moved)
    return [x.detach().cpu().numpy() for x in (result, *(t.grad for t in moved))]


@pytest.mark.parametrize("compiled", [False, True])
def test_attention_on_the_device_agrees_with_the_host(cuda: SimulatedDriver, compiled: bool) -> None:
    mine = run(torch.compile(attention) if compiled else attention, "cuda")
    for actual, expected in zip(mine, run(attention, "cpu"), strict=True):
        np.testing.assert_allclose(actual, expected, 2e-5, 2e-5)


@pytest.mark.parametrize("mask", [None, (4, 3, 6), (3, 6), (1, 1, 6)])
def test_attention_without_heads_lies_in_rows(cuda: SimulatedDriver, mask: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    given = [torch.randn(4, n, 8) for n in (3, 6, 6)]
    added = None if mask is None else torch.randn(mask)
    expected = F.scaled_dot_product_attention(*given, added)
    found = F.scaled_dot_product_attention(*(t.cuda() for t in given), None if added is None else added.cuda())
    assert found.is_contiguous()
    torch.testing.assert_close(found.cpu(), expected)
    shared = [t.cuda() for t in (given[0], given[1][:2], given[2][:2])]
    torch.testing.assert_close(
        F.scaled_dot_product_attention(*shared, enable_gqa=True).cpu(),
        F.scaled_dot_product_attention(*(t.cpu() for t in shared), enable_gqa=True),
    )


def test_compiled_attention_on_the_device_is_one_operator(cuda: SimulatedDriver) -> None:
    step = torch.compile(attention)
    run(step, "cuda")
    assert "fused_attention" in str(step.explain()) and "softmax" not in str(step.explain())


def test_multi_head_attention_without_weights_is_one_operator(cuda: SimulatedDriver) -> None:
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(32, 2, batch_first=True).eval()
    x = torch.randn(2, 9, 32)
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[1, 6:] = True
    expected, _ = layer(x, x, x, key_padding_mask=hidden, need_weights=False)
    layer = layer.to("cuda")
    step = torch.compile(lambda y, m: layer(y, y, y, key_padding_mask=m, need_weights=False)[0])
    made = step(x.cuda(), hidden.cuda())
    np.testing.assert_allclose(made.detach().cpu().numpy(), expected.detach().numpy(), 2e-5, 2e-5)
    assert "fused_attention" in str(step.explain())


def test_launches_are_timed_on_memory_of_their_own(cuda: SimulatedDriver) -> None:
    from graphtorch.ir.builder import GraphBuilder, wrap
    from graphtorch.ir.graph import Graph
    from graphtorch.tensor.type import TensorType

    graph = Graph()
    x = graph.add_input(TensorType(torch.float32, (8, 8)), "x")
    builder = GraphBuilder(graph)
    with builder:
        graph.add_output(builder.value_of((wrap(x) @ wrap(x)).softmax(-1)))
    device = devices.device(0)
    launches = make_plan(prepare_schedule(build_schedule(graph)), {}).launches
    before = torch.cuda.memory_allocated()
    seconds = DeviceClock(device)(launches, {}).seconds
    assert 0 <= seconds < 10
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float64", "int64", "bool_"])
@pytest.mark.parametrize("count", [1, 1000, 3_000_001])
def test_launches_are_timed_on_random_numbers(cuda: SimulatedDriver, kind: str, count: int) -> None:
    from graphtorch.ir.graph import Value
    from graphtorch.lowering.kernel import Buffer
    from graphtorch.tensor import dtypes
    from graphtorch.tensor.type import TensorType

    of = getattr(dtypes, kind)
    device = devices.device(0)
    stream = devices.stream_of(device)
    size = count * of.itemsize
    memory = device.allocator.allocate(size, stream, False)
    buffer = Buffer("x", of, (count,), "input", Value(TensorType(of, (count,)), "x"))
    DeviceClock(device).fill(buffer, memory.address, size, stream)
    found = np.empty(count, of.numpy)
    device.driver.copy_out(found.ctypes.data, memory.address, size, stream)
    if kind == "bool_":
        assert count == 1 or 0.4 < found.mean() < 0.6
    elif not of.is_floating_point:
        assert not found.any()
    else:
        wide = found.astype(np.float64)
        assert np.isfinite(wide).all() and wide.any() and np.abs(wide).max() < 4
        assert count < 1000 or (abs(wide.mean()) < 0.1 and 0.4 < wide.std() < 0.6)


def test_what_the_driver_refuses_is_no_candidate(cuda: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphtorch.lowering.triton import measuring
    from graphtorch.lowering.triton.errors import ResourceError

    clock = DeviceClock(devices.device(0))

    def refuse(message: str, kind: type[RuntimeError] = RuntimeError) -> None:
        def fail(launches: Any, bindings: Any, results: Any) -> Any:
            raise kind(message)

        monkeypatch.setattr(clock, "_measure", fail)

    refuse("CUDA error: too many resources requested for launch")
    with pytest.raises(ResourceError, match="too many resources"):
        clock([], {})
    refuse("CUDA out of memory", measuring.OutOfMemoryError)
    with pytest.raises(ResourceError, match="out of memory"):
        clock([], {})
    refuse("CUDA error: invalid device function")
    with pytest.raises(ResourceError, match="invalid device function"):
        clock([], {})
    # After this one the device refuses everything.
    refuse("CUDA error: an illegal memory access was encountered")

    def wait(stream: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(cuda, "wait_stream", wait)
    with pytest.raises(RuntimeError, match="illegal memory access") as caught:
        clock([], {})
    assert not isinstance(caught.value, ResourceError)


def test_a_candidate_that_hangs_is_not_waited_for(cuda: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphtorch.lowering.triton import measuring
    from graphtorch.lowering.triton.errors import LostDeviceError

    def wait(stream: Any) -> None:
        raise AssertionError("this would never return")

    monkeypatch.setattr(measuring, "_PATIENCE", 0.01)
    monkeypatch.setattr(cuda, "event_done", lambda event: False)
    monkeypatch.setattr(cuda, "wait_stream", wait)
    with pytest.raises(LostDeviceError, match=r"did not end within .* is left out from now on"):
        DeviceClock(devices.device(0))([], {})
