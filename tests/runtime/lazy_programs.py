"""Programs on the real cuda.core over `lazy_driver`'s stand-in, each run by `test_lazy_driver.py` in a process of its
own: the name of the program is the argument."""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import lazy_driver
import numpy as np

DRIVER = lazy_driver.install(2)

import graphtorch as torch  # noqa: E402
from graphtorch import nn  # noqa: E402
from graphtorch.lowering.triton import kernels, strided  # noqa: E402
from graphtorch.lowering.triton.interpreter import interpret  # noqa: E402
from graphtorch.nn import functional as F  # noqa: E402
from graphtorch.runtime.cuda import devices, transfer  # noqa: E402
from graphtorch.runtime.cuda.driver import driver, unavailable  # noqa: E402

WIDTH = {"i32": 4, "i64": 8}
SCRATCHED: list[str] = []  # kernels that were launched with scratch memory
load = kernels.load


def known(function: Any, compiled: Any, device: Any) -> Any:
    """`kernels.load`, and the interpreter as what runs the machine code; what that was promised must hold."""
    names = [n for n, t in function.signature().items() if t != "constexpr"]
    types = [t for t in function.signature().values() if t != "constexpr"]

    def run(grid: tuple[int, int, int], given: Sequence[bytes]) -> None:
        assert [len(v) for v in given] == [*(WIDTH.get(t, 8) for t in types), 8, 8], (function.name, types)
        values = [int.from_bytes(v, "little", signed=t[0] == "i") for v, t in zip(given, types, strict=False)]
        odd = [n for n, v in zip(names, values, strict=False) if n in function.hints() and v % 16]
        assert not odd, (function.name, "no multiples of 16", odd)
        scratch = int.from_bytes(given[-2], "little")
        needed = compiled.global_scratch * math.prod(grid)
        if needed:  # of each program; Triton's launcher asks for 128 bytes of alignment at most
            assert scratch % 128 == 0 and DRIVER.inside(DRIVER.memory, scratch, needed), (function.name, needed)
            SCRATCHED.append(function.name)
        interpret(function.source, function.name, function.signature(), values, function.constants, grid)

    DRIVER.kernels[bytes(compiled.binary), compiled.name] = run
    return load(function, compiled, device)


kernels.load = known


def training(device: str, wrap: Callable[..., Any], steps: int = 5) -> list[float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4)).to(device)
    made = torch.optim.AdamW(model.parameters(), 1e-2)
    inputs = [torch.randn(6, 8) for _ in range(steps)]
    y = (torch.arange(6) % 4).to(device)

    def step(x: Any) -> Any:
        made.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        made.step()
        return loss.detach()

    run = wrap(step)
    return [float(loss) for loss in [run(x.to(device)) for x in inputs]]


def steps(mode: str) -> None:
    wanted = training("cpu", lambda f: f)
    found = training("cuda", (lambda f: f) if mode == "eager" else lambda f: torch.compile(f, mode=mode))
    np.testing.assert_allclose(found, wanted, 1e-5)
    assert DRIVER.run_late > 20
    assert bool(DRIVER.calls["cuGraphLaunch"]) == (mode in ("reduce-overhead", "max-autotune"))


def eager() -> None:
    steps("eager")


def compiled() -> None:
    steps("default")


def replayed() -> None:
    steps("reduce-overhead")
    assert DRIVER.calls["cuGraphLaunch"] == 5


def recorded() -> None:
    """A graph of eager code, on the user's own stream: warm-up, recording, replays on the default stream."""

    def step(model: Any, optimizer: Any, x: Any) -> Any:
        loss = (model(x) * torch.rand(4, 3, device=x.device)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    def run(graphed: bool) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Dropout(0.3)).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, capturable=True)
        inputs = [torch.randn(4, 5, device="cuda") for _ in range(4)]
        static, s = inputs[0].clone(), torch.cuda.Stream()
        s.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(s):
            step(model, optimizer, static)
        torch.cuda.current_stream().wait_stream(s)
        optimizer.zero_grad()
        losses = []
        if graphed:
            g = torch.cuda.CUDAGraph()
            with torch.cuda.graph(g, stream=s):
                loss = step(model, optimizer, static)
        for x in inputs:
            if graphed:
                static.copy_(x)
                g.replay()
            else:
                loss = step(model, optimizer, x)
                optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    assert run(True) == run(False)
    assert DRIVER.calls["cuGraphLaunch"] == 4


def garbage_while_recording() -> None:
    """What the collector finds during a recording goes back to the driver without spoiling the recording."""
    capture = driver().capture
    from contextlib import contextmanager

    @contextmanager
    def collecting(index: int, stream: Any) -> Any:
        pinned = torch.ones(3).pin_memory()
        side = torch.cuda.Stream()
        used = [torch.ones(3, device="cuda") for _ in range(100)]
        for x in used:
            x.record_stream(side)
        with capture(index, stream) as inside:
            del pinned, used, side, x
            gc.collect()
            yield inside

    driver().capture = collecting  # type: ignore[method-assign]
    f = torch.compile(lambda x: x * 2 + 1, mode="reduce-overhead")
    x = torch.arange(5.0, device="cuda")
    for _ in range(3):
        assert f(x).tolist() == [1, 3, 5, 7, 9]
    assert DRIVER.calls["cuGraphLaunch"] == 3 and DRIVER.calls["cuMemFreeHost"] == 1


def copies() -> None:
    """Memory of the host may be changed as soon as a copy from it returns, page-locked memory when it was read."""
    for count in (5, 1 << 15, 5 << 20):
        x = torch.arange(float(count))
        y = x.cuda()
        x.zero_()
        assert float(y[-1]) == count - 1 and np.array_equal(y.cpu().numpy(), np.arange(count, dtype=np.float32))
    pinned = torch.arange(1000.0).pin_memory()
    assert pinned.is_pinned()
    on = pinned.cuda(non_blocking=True)
    del pinned
    gc.collect()
    other = torch.zeros(1000).pin_memory()
    torch.cuda.synchronize()
    assert float(on.sum()) == 499500 and float(other.sum()) == 0
    back = torch.empty(1000).pin_memory()
    back.copy_(on, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    assert float(back.sum()) == 499500


def streams() -> None:
    side = torch.cuda.Stream()
    x = torch.zeros(64, device="cuda")
    for i in range(4):
        x.add_(1)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x * 2
        torch.cuda.current_stream().wait_stream(side)
        assert float(y[-1]) == 2 * (i + 1)
        a = torch.full((64,), 7.0, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            b = a + 1
            a.record_stream(side)
        del a
        torch.full((64,), -1.0, device="cuda")
        torch.cuda.current_stream().wait_stream(side)
        assert float(b.sum()) == 8 * 64
    event, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    event.record()
    x.add_(1)
    end.record()
    assert not end.query()
    end.synchronize()
    assert event.elapsed_time(end) == 1.25


def threads() -> None:
    """Each thread makes the device current for itself, and what another thread made can be used."""
    x = torch.arange(6.0, device="cuda")
    f = torch.compile(lambda x: (x * 2).sum(), mode="reduce-overhead")
    found: list[Any] = []

    def work(i: int) -> None:
        try:
            for _ in range(3):
                found.append(float(f(x + i)) == float((x.cpu() + i).sum()) * 2)
            pinned = torch.ones(4).pin_memory()
            found.append(float(pinned.cuda(non_blocking=True).sum()) == 4)
        except BaseException:
            traceback.print_exc()
            found.append(False)

    made = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    assert len(found) == 24 and all(found), found


def two_devices() -> None:
    a = torch.arange(4.0, device="cuda:0")
    b = torch.arange(4.0, device="cuda:1")
    c = a.to("cuda:1") + b
    assert c.tolist() == [0, 2, 4, 6]
    # The context of the thread is that of the device that work goes to, whatever was asked in between.
    for index in (0, 1, 0, 1):
        here, there = torch.device("cuda", index), torch.device("cuda", 1 - index)
        for ask in (
            lambda: torch.ones(3, device=here).to(there),
            lambda: torch.ones(3, device=there),
            lambda: torch.cuda.get_device_properties(there),
            lambda: torch.cuda.mem_get_info(there),
            torch.cuda.empty_cache,
        ):
            ask()
            for at in (1 - index, index):
                devices.stream_of(devices.device(at))
                assert DRIVER.here.context == lazy_driver.CONTEXT + at, "the context is that of another device"


def after_fork() -> None:
    torch.ones(3, device="cuda")
    child = os.fork()
    if not child:
        try:
            torch.ones(3, device="cuda")
        except RuntimeError as error:
            os._exit(17 if "Cannot re-initialize CUDA in forked subprocess" in str(error) else 2)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


def memory() -> None:
    torch.cuda.empty_cache()
    x = torch.ones(1 << 20, device="cuda")
    assert torch.cuda.memory_allocated() == 4 << 20
    try:
        torch.empty(3 << 30, device="cuda")
    except torch.cuda.OutOfMemoryError as error:
        assert "Tried to allocate 12.00 GiB" in str(error)
    else:
        raise AssertionError
    assert float(x.sum()) == 1 << 20
    del x
    torch.cuda.empty_cache()
    assert DRIVER.calls["cuMemFree"] >= 1 or DRIVER.calls["cuMemFree_v2"] >= 1


def products() -> None:
    """More than 48 KB of shared memory."""
    torch.manual_seed(0)
    a, b = torch.randn(64, 96).bfloat16(), torch.randn(96, 80).bfloat16()
    found = (a.cuda() @ b.cuda()).float().cpu()
    np.testing.assert_allclose(found.numpy(), (a.double() @ b.double()).numpy(), 2e-2, 2e-2)
    big = [k for k in DRIVER.things.values() if isinstance(k, lazy_driver.Kernel) and k.shared > 48 << 10]
    assert big, "no kernel asked for more shared memory"


def descriptors() -> None:
    """Products through tensor descriptors, which each program makes in scratch memory of its own."""
    from graphtorch.ir.builder import GraphBuilder, wrap
    from graphtorch.ir.graph import Graph
    from graphtorch.lowering.triton.autotune import candidates
    from graphtorch.lowering.triton.execution import DeviceExecutable
    from graphtorch.schedule import build_schedule
    from graphtorch.tensor.type import TensorType

    graph = Graph("product")
    place = torch.device("cuda", 0)
    a, b = (graph.add_input(TensorType(torch.bfloat16, s, place), n) for s, n in (((256, 64), "a"), ((64, 384), "b")))
    builder = GraphBuilder(graph)
    with builder:
        graph.add_output(builder.value_of(wrap(a) @ wrap(b)))

    def choose(steps: Any, bindings: Any) -> Any:
        return [next(list(c.functions) for c in candidates(s, bindings) if "descriptors" in c.label) for s in steps]

    torch.manual_seed(0)
    x, y = torch.randn(256, 64).bfloat16(), torch.randn(64, 384).bfloat16()
    for graphs in (False, True):
        executable = DeviceExecutable(build_schedule(graph), devices.device(), choose=choose, graphs=graphs)
        (found,) = executable.run([x.cuda()._data, y.cuda()._data])
        np.testing.assert_allclose(found.host().astype(np.float64), (x.double() @ y.double()).numpy(), 2e-2, 5e-2)
    assert len(SCRATCHED) == 2, SCRATCHED


def errors() -> None:
    """What the driver refuses is a RuntimeError with its words, whoever called it."""
    x = torch.ones(1000, device="cuda")
    where = devices.device()
    (kernel,) = kernels.load_all([strided._function(1, 4)], where)
    for block, grid in ((kernel.block, (1, 70000, 1)), (kernel.block * 2, (1, 1, 1))):
        launch = where.driver.launcher(kernel.handle, grid, block, 0)
        try:
            launch(where.stream, kernel.arguments([x.data_ptr(), x.data_ptr(), 1, 1, 1, 1]))
        except RuntimeError as error:
            assert str(error).startswith("CUDA error: invalid argument")
        else:
            raise AssertionError
    try:
        where.driver.copy(12345, x.data_ptr(), 4, where.stream)
    except RuntimeError as error:
        assert str(error) == "CUDA error: invalid argument"
    else:
        raise AssertionError


# -- mistakes that the stand-in must find -----------------------------------------------------------------------------


def reads_too_early() -> None:
    x = torch.arange(5.0, device="cuda")
    out = torch.zeros(5).pin_memory()
    transfer.to_host(x._data, out._data, non_blocking=True)
    assert out.sum() == 10, "read too early"


def forgets_to_wait() -> None:
    x = torch.full((8,), 3.0, device="cuda")
    y = torch.empty(8, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        y.copy_(x)
        assert y.sum().item() == 24, "other stream"


def reuses_pinned_memory() -> None:
    x = torch.ones(5).pin_memory()
    y = x.cuda(non_blocking=True)
    x.zero_()
    assert y.sum().item() == 5, "changed before it was read"


def times_what_is_not_timed() -> None:
    where = devices.device()
    start, end = (where.driver.create_event(0, False, False) for _ in range(2))
    for event in (start, end):
        where.driver.record_event(event, where.stream)
    where.driver.wait_stream(where.stream)
    where.driver.elapsed(start, end)


def breaks_a_promise() -> None:
    x = torch.zeros(64, device="cuda")
    torch.compile(lambda x: x + 1)(x)
    frame = next(f for f in gc.get_objects() if type(f).__name__ == "Frame" and len(f.program.inputs) == 1)
    frame._place(frame.program.inputs[0].buffer, x.data_ptr() + 4)
    for launch, arguments in frame.steps:
        launch(devices.device().stream, arguments)


def waits_while_recording() -> None:
    where = devices.device()
    with where.driver.capture(0, where.stream) as inside:
        where.driver.wait_stream(inside.stream)


def asks_for_no_shared_memory() -> None:
    core = driver()
    core._check = lambda result: result[1] if len(result) == 2 else result[1:]  # type: ignore[attr-defined]
    core.bindings.cuKernelSetAttribute = lambda *args: (0,)  # type: ignore[attr-defined]
    products()


def passes_arguments_of_another_size() -> None:
    WIDTH["i64"] = 4
    x = torch.ones(4, 4, device="cuda").t()
    x.contiguous().cpu()


def main(name: str) -> None:
    assert unavailable() is None, unavailable()
    globals()[name]()
    torch.cuda.synchronize()
    assert DRIVER.broken is None, DRIVER.broken
    assert not DRIVER.missing & NEEDED, DRIVER.missing & NEEDED


NEEDED = {"cuFuncLoad", "cuGraphUpload", "cuStreamBeginCapture", "cuMemcpyHtoDAsync", "cuLaunchKernelEx"}

if __name__ == "__main__":
    code = 0
    try:
        main(sys.argv[1])
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # cuda.core's destructors would call functions of an interpreter that is gone
