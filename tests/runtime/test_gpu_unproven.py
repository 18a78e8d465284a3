"""On a GPU (`pytest -m gpu`): what no machine without one shows (docs/triton-backend.md, "What is unproven").

With GRAPHTORCH_CUDA=simulated the same tests run on small sizes, which checks the tests."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.nn import functional as F
from graphtorch.runtime.cuda import devices
from graphtorch.runtime.cuda.driver import driver, unavailable
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(unavailable() is not None, reason="there is no CUDA device")]

TOY = unavailable() is None and driver().interprets
PATIENCE = 20.0  # seconds after which a kernel of these tests hangs
BROKEN = 86  # the exit status of a process whose device answers no more


def size(real: Any, toy: Any) -> Any:
    return toy if TOY else real


def program(function: Callable[..., Any], *types: tuple[str, tuple[int, ...]]) -> Graph:
    """The graph of a function of CUDA tensors."""
    graph = Graph("program")
    device = torch.device("cuda", 0)
    inputs = [
        graph.add_input(TensorType(getattr(dtypes, of), shape, device), f"x{i}") for i, (of, shape) in enumerate(types)
    ]
    builder = GraphBuilder(graph)
    with builder:
        made = function(*map(wrap, inputs))
        for result in made if isinstance(made, tuple) else (made,):
            graph.add_output(builder.value_of(result))
    return graph


def drawn(graph: Graph) -> list[Any]:
    random = np.random.default_rng(0)
    return [random.standard_normal(v.type.shape).astype(v.type.dtype.numpy) for v in graph.inputs]


def error(found: Any, wanted: Any) -> float:
    """The relative error in the norm; NaN never passes."""
    a, b = np.asarray(found).astype(np.float64), np.asarray(wanted).astype(np.float64)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0))


def host(x: Any) -> Any:
    return x.host() if hasattr(x, "host") else x


def finish(doing: Callable[[str], None], what: str) -> None:
    """Wait for the device. A kernel that hangs ends the process, which would otherwise wait for it for ever."""
    event = torch.cuda.Event()
    event.record()
    begin = time.monotonic()
    while not event.query():
        if time.monotonic() - begin > PATIENCE:
            doing(f"{what}: a kernel hangs")
            os._exit(BROKEN)
        time.sleep(1e-3)


def run_all_candidates(graph: Graph, wanted: list[Any], tolerance: float, doing: Callable[[str], None]) -> None:
    """Every way to run each step that autotuning would try; the wrong ones are named. `doing` as in conftest.py."""
    from graphtorch.lowering.triton.autotune import candidates
    from graphtorch.lowering.triton.errors import UnsupportedError
    from graphtorch.lowering.triton.execution import DeviceExecutable

    schedule, inputs, device = build_schedule(graph), drawn(graph), devices.device()
    wrong: list[str] = []
    for number in itertools.count():
        labels: list[str] = []

        def choose(steps: Any, bindings: Any, number: int = number, labels: list[str] = labels) -> Any:
            chosen: list[Any] = []
            for step in steps:
                try:
                    found = candidates(step, bindings)
                except UnsupportedError as error:
                    chosen.append(error)
                    continue
                tried = number < len(found)
                labels.append(found[number].label if tried else "")
                chosen.append(list(found[number if tried else 0].functions))
            return chosen

        doing(f"compiles candidate {number}")
        try:
            executable = DeviceExecutable(schedule, device, choose=choose)
        except RuntimeError:  # what does not compile or fit, autotuning leaves out
            if number and any(labels):
                continue
            raise
        if not any(labels) or (TOY and number > 3):
            break
        what = ", ".join(filter(None, labels))
        doing(what)
        results = executable.run([np.copy(x) for x in inputs])
        finish(doing, what)
        for found, expected in zip(results, wanted, strict=True):
            if not (off := error(host(found), expected)) < tolerance:
                wrong.append(f"{what}: off by {off:.2g}")
    assert not wrong, "; ".join(wrong)


# -- launches ---------------------------------------------------------------------------------------------------------


def test_arguments_of_a_launch() -> None:
    """Pointers, sizes of 32 and 64 bits, and the two pointers to scratch memory behind them."""
    x = torch.arange(1000, device="cuda").float()
    assert torch.equal((x * 2 + 1).cpu(), torch.arange(1000).float() * 2 + 1)
    f = torch.compile(lambda y: (y * 2).sum(1), dynamic=True)
    for rows, columns in ((3, 7), (5, 1000), (17, 4096)):
        y = torch.randn(rows, columns)
        np.testing.assert_allclose(f(y.cuda()).cpu().numpy(), (y.double() * 2).sum(1).numpy(), 1e-4, 1e-3)
    turned = torch.arange(30).reshape(5, 6).cuda().t()
    assert torch.equal(turned.contiguous().cpu(), torch.arange(30).reshape(5, 6).t().contiguous())


def test_views_on_odd_addresses() -> None:
    """What is compiled for addresses at multiples of 16 bytes gets copies of other arrays."""
    x = torch.arange(4099).float().cuda()
    f = torch.compile(lambda y: y * 2 + y.sum())
    for start in (0, 1, 3, 4):
        wanted = torch.arange(4099).double()[start:]
        np.testing.assert_allclose(f(x[start:]).cpu().numpy(), (wanted * 2 + wanted.sum()).numpy(), 1e-5)
        np.testing.assert_allclose((x[start:] + 1).cpu().numpy(), (wanted + 1).numpy())


# -- products and attention -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("turned", ["nn", "nt", "tn"])
def test_products_in_every_form(of: str, turned: str, doing: Callable[[str], None]) -> None:
    """Blocks, stages, more than 48 KB of shared memory, tensor descriptors, persistent programs, specialised warps."""
    m, n, k = size((1920, 2560, 1344), (48, 32, 64))

    def product(x: Any, y: Any) -> Any:
        return (x.t() if turned[0] == "t" else x) @ (y.t() if turned[1] == "t" else y)

    left, right = (k, m) if turned[0] == "t" else (m, k), (n, k) if turned[1] == "t" else (k, n)
    graph = program(product, (of, left), (of, right))
    a, b = (x.astype(np.float64) for x in drawn(graph))
    wanted = (a.T if turned[0] == "t" else a) @ (b.T if turned[1] == "t" else b)
    run_all_candidates(graph, [wanted], 2e-6 if of == "float32" else 5e-3, doing)


@pytest.mark.parametrize("shape", [(16, 2048, 4096), (2048, 16, 4096), (768, 768, 16384), (1000, 1001, 999)])
def test_products_with_few_blocks(shape: tuple[int, int, int], doing: Callable[[str], None]) -> None:
    """Sums in parts, and blocks that reach beyond the ends."""
    m, n, k = size(shape, (5, 6, 1100))
    graph = program(lambda x, y: x @ y, ("bfloat16", (m, k)), ("bfloat16", (k, n)))
    a, b = (x.astype(np.float64) for x in drawn(graph))
    run_all_candidates(graph, [a @ b], 5e-3, doing)


def test_products_with_what_follows_them(doing: Callable[[str], None]) -> None:
    m, n, k = size((1024, 768, 768), (32, 16, 32))

    def layer(x: Any, w: Any, b: Any, r: Any) -> Any:
        return F.gelu(F.linear(x, w, b)).float() + r

    shapes = [("bfloat16", (m, k)), ("bfloat16", (n, k)), ("bfloat16", (n,)), ("float32", (m, n))]
    graph = program(layer, *shapes)
    given = [torch.tensor(x.astype(np.float64)) for x in drawn(graph)]
    run_all_candidates(graph, [(F.gelu(F.linear(*given[:3])) + given[3]).numpy()], 5e-3, doing)


@pytest.mark.parametrize("of", ["bfloat16", "float32"])
@pytest.mark.parametrize("head", [64, 128])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradients(of: str, head: int, causal: bool) -> None:
    tokens = size(600, 20)
    torch.manual_seed(0)
    drawn_ = [torch.randn(2, 3, tokens, size(head, 16)) for _ in range(4)]

    def step(q: Any, k: Any, v: Any, g: Any) -> Any:
        result = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return (result, *torch.autograd.grad(result, (q, k, v), g))

    rounded = [x.to(getattr(torch, of)) for x in drawn_]
    wanted = step(*(x.double().requires_grad_(i < 3) for i, x in enumerate(rounded)))
    for how in (lambda f: f, torch.compile, *(() if TOY else (lambda f: torch.compile(f, mode="max-autotune"),))):
        found = how(step)(*(x.cuda().requires_grad_(i < 3) for i, x in enumerate(rounded)))
        for mine, theirs in zip(found, wanted, strict=True):
            assert error(mine.detach().float().cpu().numpy(), theirs.detach().numpy()) < (
                1e-5 if of == "float32" else 1e-2
            )


@pytest.mark.parametrize("head", [64, 128])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_every_form(head: int, causal: bool, doing: Callable[[str], None]) -> None:
    """Blocks, warps, stages, tensor descriptors; deltas that one launch makes and the next one reads."""
    from graphtorch.ops.attention import fused_attention, fused_attention_backward

    tokens, head = size((600, head), (20, 16))

    def passes(q: Any, k: Any, v: Any, g: Any) -> Any:
        result, logsumexp = fused_attention(q, k, v, None, None, causal, 0.2)
        delta = (g.float() * result.float()).sum(-1).transpose(1, 2)
        return (result, *fused_attention_backward(g, q, k, v, logsumexp, delta, None, None, causal, 0.2))

    graph = program(passes, *[("bfloat16", (2, tokens, 3, head))] * 4)
    q, k, v, g = (torch.tensor(x.astype(np.float64)).transpose(1, 2) for x in drawn(graph))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    result = F.scaled_dot_product_attention(*leaves, is_causal=causal, scale=0.2)
    wanted = [result, *torch.autograd.grad(result, leaves, g)]
    run_all_candidates(graph, [x.detach().transpose(1, 2).numpy() for x in wanted], 1e-2, doing)


def test_convolutions_in_every_form(doing: Callable[[str], None]) -> None:
    """Images with channels side by side, weights and gradients through tensor descriptors."""
    from graphtorch.ops.convolution import conv2d_input_grad, conv2d_weight_grad

    count, side, channels, more = size((32, 14, 64, 256), (1, 6, 16, 16))

    def layers(x: Any, w: Any, v: Any, u: Any) -> Any:
        y = F.conv2d(x, w, None, 1, 1)
        z = F.conv2d(y, v, None, 1, 1) * 0.1
        how = ((1, 1), (1, 1), (1, 1), 1)
        return conv2d_weight_grad(y, z, v.shape, *how), F.conv2d(conv2d_input_grad(z, v, y.shape, *how), u)

    weights = [(channels, 8, 3, 3), (more, channels, 3, 3), (8, channels, 1, 1)]
    graph = program(layers, *(("bfloat16", s) for s in [(count, 8, side, side), *weights]))
    wanted = layers(*(torch.tensor(x.astype(np.float64)) for x in drawn(graph)))
    run_all_candidates(graph, [x.numpy() for x in wanted], 2e-2, doing)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_with_norms(stride: int) -> None:
    """Channels side by side, batch norms without float32 copies, maxima gathered backwards."""
    count, side = size((8, 32), (2, 8))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, stride, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1)
    )
    x = torch.randn(count, 8, side, side)

    def step(model: Any, x: Any) -> list[Any]:
        model.zero_grad()
        result = model(x)
        result.square().mean().backward()
        return [result.detach(), *(p.grad for p in model.parameters())]

    wanted = [y.detach().clone() for y in step(model.double(), x.double())]
    on = model.float().cuda()
    torch.backends.cudnn.allow_tf32 = False
    try:
        for run in (step, torch.compile(step)):
            for mine, theirs in zip(run(on, x.cuda()), wanted, strict=True):
                bound = max(float(theirs.abs().max()), 1e-6)
                assert float((mine.double().cpu() - theirs).abs().max()) < 2e-4 * bound + 1e-6
    finally:
        torch.backends.cudnn.allow_tf32 = True


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [50, 1000, 4096, 8192, 32768, 50304])
@pytest.mark.parametrize("of", ["bfloat16", "float32"])
def test_rows_of_every_length(columns: int, of: str) -> None:
    """Held in registers, or looped over with sums that are rescaled as larger numbers come."""
    rows, columns = size((300, columns), (3, min(columns, 300)))
    torch.manual_seed(0)
    x = (torch.randn(rows, columns) * 5).to(getattr(torch, of))
    y = torch.randint(0, columns, (rows,))

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(x.float(), y)
        (slope,) = torch.autograd.grad(loss, x)
        return loss, slope, F.softmax(x, -1), F.layer_norm(x, (columns,))

    found = torch.compile(step)(x.cuda().requires_grad_(), y.cuda())
    wide = x.double().requires_grad_()
    loss = F.cross_entropy(wide, y)
    wanted = loss, *torch.autograd.grad(loss, wide), F.softmax(wide, -1), F.layer_norm(wide, (columns,))
    for mine, theirs in zip(found, wanted, strict=True):
        tolerance = 5e-3 if mine.dtype == torch.bfloat16 else 1e-5
        assert error(mine.detach().float().cpu().numpy(), theirs.detach().numpy()) < tolerance


# -- memory, streams, graphs ------------------------------------------------------------------------------------------


def test_long_folds_of_symbolic_sizes() -> None:
    """Parts of a fixed number whose length follows the size, some of them empty."""

    def f(x: Any) -> Any:
        return x.sum(), x.double().var(), x.argmax(), x.amin(), torch.logsumexp(x, 0)

    compiled = torch.compile(f, fullgraph=True)
    for i, n in enumerate(size((1 << 24, 1000003, 17, 1 << 25, 9000), (20000, 33, 9001))):
        torch.manual_seed(i)
        x = torch.randn(n)
        on = x.cuda()
        if not i:
            torch.compiler.mark_dynamic(on, 0)
        for found, wanted in zip(compiled(on), f(x.double()), strict=True):
            assert error(found.cpu().numpy(), wanted.numpy()) < 1e-4, n
    assert len(compiled.specializations) == 1
    folded = torch.compile(lambda x: (x.sum(0), x.var(0)), fullgraph=True)
    for i, n in enumerate(size((1 << 18, 70001, 5), (3000, 5))):
        rows = torch.randn(n, 48).cuda()
        if not i:
            torch.compiler.mark_dynamic(rows, 0)
        for found, wanted in zip(folded(rows), (rows.cpu().double().sum(0), rows.cpu().double().var(0)), strict=True):
            assert error(found.cpu().numpy(), wanted.numpy()) < 1e-4, n


@pytest.mark.skipif(TOY, reason="takes gigabytes")
def test_more_elements_than_32_bits_count() -> None:
    count = (1 << 31) + (1 << 15)
    x = torch.zeros(count, dtype=torch.int8, device="cuda")
    x[-1], x[1 << 31] = 3, 2
    y = torch.compile(lambda x: x + 1)(x)
    assert (int(y[-1]), int(y[1 << 31]), int(y[(1 << 31) - 1]), int(y[0])) == (4, 3, 1, 1)
    assert int(y.view(-1, 4096).sum(1, dtype=torch.int64).sum()) == count + 5
    rows = x.view(-1, 1 << 15)
    assert int(torch.compile(lambda x: x.amax(1).sum(dtype=torch.int64))(rows)) == 3  # both lie in the last row


def test_atomic_sums_and_tables() -> None:
    """An embedding's gradient, by atomic additions and in order; AdamW for tensors that a table names."""
    torch.manual_seed(0)
    table, places, g = torch.randn(50, 24), torch.randint(0, 50, (size(4000, 100),)), torch.randn(size(4000, 100), 24)
    wanted = torch.zeros(50, 24, dtype=torch.float64).index_add(0, places, g.double())
    for exact in (False, True):
        torch.use_deterministic_algorithms(exact)
        try:
            leaf = table.cuda().requires_grad_()
            F.embedding(places.cuda(), leaf).backward(g.cuda())
        finally:
            torch.use_deterministic_algorithms(False)
        np.testing.assert_allclose(leaf.grad.cpu().numpy(), wanted.numpy(), 1e-4, 1e-4)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_replays(mode: str) -> None:
    """Results belong to the caller, inputs move, parameters get other memory, every replay draws new numbers."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 64, device="cuda"))

    def step(x: Any) -> Any:
        return F.dropout(x @ weight, 0.5), x @ weight

    run = torch.compile(step, mode=mode)
    kept = []
    for i in range(6):
        x = torch.randn(32, 64, device="cuda")
        if i == 4:
            weight.data = torch.randn(64, 64, device="cuda")
        kept.append((x, weight.detach().clone(), *run(x)))
    for x, w, dropped, product in kept:
        wanted = x.double().cpu() @ w.double().cpu()
        np.testing.assert_allclose(product.detach().cpu().numpy(), wanted.numpy(), 1e-4, 1e-4)
        mask = dropped != 0
        np.testing.assert_allclose(
            dropped.detach().cpu()[mask.cpu()].numpy(), 2 * wanted[mask.cpu()].numpy(), 1e-4, 1e-4
        )
    masks = [(dropped != 0).cpu().numpy() for _, _, dropped, _ in kept]
    assert all((a != b).mean() > 0.3 for a, b in itertools.combinations(masks, 2))


def test_graphs_of_eager_code() -> None:
    """A step that the program records itself: losses and random numbers of eager steps, memory that is not given away,
    and an error where a recording would wait."""

    def run(recorded: bool) -> list[float]:
        torch.manual_seed(0)
        width = size(256, 8)
        model = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.2), nn.GELU(), nn.Linear(width, 4)).cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, capturable=True)
        inputs = [torch.randn(16, width, device="cuda") for _ in range(4)]
        static = inputs[0].clone()

        def step(x: Any) -> Any:
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                optimizer.zero_grad()
                step(static)
        torch.cuda.current_stream().wait_stream(side)
        optimizer.zero_grad()
        g = torch.cuda.CUDAGraph()
        if recorded:
            with torch.cuda.graph(g):
                loss = step(static)
        losses, kept = [], []
        for x in inputs:
            if recorded:
                static.copy_(x)
                g.replay()
            else:
                optimizer.zero_grad()
                loss = step(x)
            kept.append(torch.full((100000,), float("nan"), device="cuda"))  # would spoil memory of the graph
            losses.append(float(loss))
        return losses

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5)
    x = torch.ones(4, device="cuda")
    with pytest.raises(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        (x + 1).sum().item()
    assert (x + 1).sum().item() == 8


def test_streams_wait_for_each_other() -> None:
    count = size(1 << 24, 1 << 10)
    side = torch.cuda.Stream()
    x = torch.zeros(count, device="cuda")
    for i in range(size(50, 3)):
        x.add_(1)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x * 2
        torch.cuda.current_stream().wait_stream(side)
        assert float(y[-1]) == 2 * (i + 1)
        y.record_stream(torch.cuda.current_stream())
        del y
    # Memory that another stream still reads is not given out again.
    for _ in range(size(20, 2)):
        a = torch.full((count,), 7.0, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            b = a + 1
            a.record_stream(side)
        del a
        torch.full((count,), -1.0, device="cuda")
        torch.cuda.current_stream().wait_stream(side)
        assert float(b.sum()) == 8.0 * count


def test_memory_shared_with_pytorch() -> None:
    """DLPack both ways, in one process and context, on the default stream and on another."""
    pytorch = pytest.importorskip("torch")
    if TOY or not pytorch.cuda.is_available():
        pytest.skip("needs PyTorch for CUDA")
    count = 1 << 22
    for i in range(20):
        x = torch.full((count,), 3.0, device="cuda") + i
        y = pytorch.from_dlpack(x)
        assert y.is_cuda and y.data_ptr() == x.data_ptr() and float(y.sum()) == (3 + i) * count
        back = torch.from_dlpack(y * 2)
        assert back.is_cuda and float(back.sum()) == 2 * (3 + i) * count
        side = pytorch.cuda.Stream()
        with pytorch.cuda.stream(side):
            shared = pytorch.from_dlpack(x * 2 + 1)
            assert float(shared.sum()) == (2 * (3 + i) + 1) * count
            made = pytorch.ones(count, device="cuda") * i
            assert float(torch.from_dlpack(made).sum()) == i * count


def test_a_long_training_run() -> None:
    """Steps one after another without waiting: losses as in float64."""

    def losses(device: str, of: Any, wrap: Any) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 8))
        x, y = torch.randn(48, 32), torch.arange(48) % 8
        model, x, y = model.to(device=device, dtype=of), x.to(device=device, dtype=of), y.to(device)
        made = torch.optim.AdamW(model.parameters(), 1e-3)

        def step() -> Any:
            made.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            made.step()
            return loss

        run = wrap(step)
        return [float(loss) for loss in [run().detach() for _ in range(size(200, 4))]]

    wanted = losses("cpu", torch.float64, lambda f: f)
    for mode in ("default", "reduce-overhead"):
        found = losses("cuda", torch.float32, lambda f, mode=mode: torch.compile(f, mode=mode))
        np.testing.assert_allclose(found, wanted, 1e-3)


# -- speed ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(TOY, reason="there is nothing to time")
@pytest.mark.parametrize("name", ["pointwise", "softmax", "layer norm", "cross-entropy", "AdamW"])
def test_share_of_the_copy_bandwidth(name: str) -> None:
    """Kernels that wait for memory reach 70 % of what a copy moves in the same process (90 % are wanted)."""
    torch.manual_seed(0)

    def seconds(run: Any) -> float:
        times = []
        for _ in range(12):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return sorted(times)[len(times) // 2]

    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * 4 * (1 << 28) / seconds(lambda: target.copy_(source))
    x = torch.randn(8192, 16384, device="cuda").bfloat16()
    if name == "AdamW":
        held = [nn.Parameter(torch.randn(1_000_000, device="cuda")) for _ in range(100)]
        for p in held:
            p.grad = torch.randn_like(p)
        made = torch.optim.AdamW(held, 1e-3)
        run, moved = torch.compile(made.step, mode="reduce-overhead"), 7 * 4e8
    elif name == "cross-entropy":
        y = torch.randint(0, 16384, (8192,), device="cuda")
        leaf = x.requires_grad_()

        def loss(x: Any, y: Any) -> Any:
            return torch.autograd.grad(F.cross_entropy(x.float(), y), x)

        compiled = torch.compile(loss)
        # Rows this long are read once for the sums and once for the gradient.
        run, moved = (lambda: compiled(leaf, y)), 3.0 * 2 * x.numel()
    else:
        function = {
            "pointwise": lambda x: torch.sigmoid(x * 1.5) - x,
            "softmax": lambda x: F.softmax(x.view(-1, 4096), -1),
            "layer norm": lambda x: F.layer_norm(x.view(-1, 4096), (4096,)),
        }[name]
        compiled = torch.compile(function)
        run, moved = (lambda: compiled(x)), 2.0 * 2 * x.numel()
    for _ in range(3):
        run()
    share = moved / seconds(run) / copied
    print(f"{name}: {100 * share:.0f} % of {copied / 1e12:.2f} TB/s")
    assert share > 0.7
