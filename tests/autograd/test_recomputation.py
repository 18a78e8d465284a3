"""Computing again instead of keeping: the minimum cut between forward and backward, its memory budget, activation
checkpointing, and hooks on what the tape saves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.autodiff.recompute import kept_bytes, values_to_keep
from graphtorch.autograd.graph import saved_tensors_hooks
from graphtorch.ir.parser import parse_graph
from graphtorch.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential

# -- the cut ----------------------------------------------------------------------------------------------------------


def size(value):
    total = value.dtype.itemsize
    for n in value.shape:
        total *= n
    return total


def cheapest(nodes, read, free, allowed):
    """The fewest bytes from which `read` can be computed, by trying every set of values."""
    made = {r: n for n in nodes for r in n.results}
    values = [*dict.fromkeys([*made, *(v for v in read if v.node is None)])]
    best = None
    for count in range(len(values) + 1):
        for kept in itertools.combinations(values, count):
            known = {*kept, *free}

            def available(value, known=known):
                if value in known:
                    return True
                node = made.get(value)
                return node is not None and allowed(node) and all(available(v) for v in node.operands())

            total = sum(map(size, kept))
            if (best is None or total < best) and all(available(v) for v in read):
                best = total
    return best


GRAPHS = [
    """graph a(%x: f32[8] argument, %w: f32[8] argument) {
      %0 = mul(%x, %w) %1 = exp(%0) %2 = mul(%1, %w) %3 = sum(%2, dim=(0,)) %4 = mul(%2, %3)
      return a=%4 b=%1 }""",
    """graph b(%x: f32[4, 8] argument) {
      %0 = exp(%x) %1 = sum(%0, dim=(1,)) %2 = exp(%1) %3 = mul(%2, %2) %4 = cast(%0, dtype=f64)
      return a=%4 b=%3 }""",
    """graph c(%x: f32[6] argument) {
      %0 = sin(%x) %1 = cast(%0, dtype=f64) %2 = mul(%1, 2.0) %3 = add(%2, %1) %4 = cast(%3, dtype=f32)
      return a=%2 b=%3 c=%4 }""",
]


@pytest.mark.parametrize("text", GRAPHS)
@pytest.mark.parametrize("free", [True, False])
def test_cut_is_the_cheapest(text, free):
    graph = parse_graph(text.replace(" b=", ", b=").replace(" c=", ", c="))
    inputs = set(graph.inputs) if free else set()
    kept, again = values_to_keep(graph.nodes, graph.outputs, inputs, 1.0)
    expected = cheapest(graph.nodes, graph.outputs, inputs, lambda n: n.op.name in ("mul", "add", "cast"))
    assert sum(map(size, kept)) == expected
    known = {*kept, *inputs}
    for node in again:
        assert all(v in known for v in node.operands())
        known.update(node.results)
    assert all(v in known for v in graph.outputs)


def test_less_budget_keeps_fewer_bytes():
    graph = parse_graph(GRAPHS[1].replace(" b=", ", b="))
    sizes = [
        sum(map(size, values_to_keep(graph.nodes, graph.outputs, set(graph.inputs), b)[0])) for b in (1, 0.5, 0.1, 0)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 0 < sizes[0]


# -- the budget -------------------------------------------------------------------------------------------------------


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3)
    )


def gradients(net, run):
    x = torch.tensor(np.random.default_rng(0).standard_normal((5, 6)).astype("float32"), requires_grad=True)
    torch.manual_seed(1)
    run(x).square().sum().backward()
    after = torch.rand(1).item()
    return [x.grad.tolist(), *(p.grad.tolist() for p in net.parameters())], after


def same(actual, expected):
    assert actual[1] == expected[1], "the generator is where a plain call leaves it"
    for a, e in zip(actual[0], expected[0], strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "cpu", "interpreter"])
def test_gradients_at_every_budget(backend):
    net = model()
    expected = gradients(net, net)
    saved = []
    for budget in (1.0, 0.6, 0.3, 0.0):
        net = model()
        compiled = torch.compile(net.forward, backend=backend, memory_budget=budget)
        same(gradients(net, compiled), expected)
        parts = compiled.specializations[0].joint.parts
        saved.append(kept_bytes(parts.forward, parts.residual_count))
    assert saved == sorted(saved, reverse=True) and saved[0] > 2 * saved[-1] > 0, "the dropout mask is always kept"
    assert saved[2] <= 0.3 * saved[0]


def test_budget_with_overwritten_inputs_and_decisions():
    def f(x, w):
        y = (x.clone() * w).exp()
        x.add_(1)
        if y.sum() > 0:
            y = y.tanh() * w
        return y.sum()

    for budget in (1.0, 0.0):
        grads = []
        for function in (f, torch.compile(f, memory_budget=budget)):
            x, w = torch.arange(4.0), torch.full((4,), 0.5, requires_grad=True)
            function(x, w).backward()
            grads.append((w.grad.tolist(), x.tolist()))
        np.testing.assert_allclose(grads[1][0], grads[0][0], rtol=1e-5)
        assert grads[1][1] == grads[0][1]


def test_budget_is_checked():
    with pytest.raises(ValueError, match="memory_budget"):
        torch.compile(lambda x: x, memory_budget=2)


# -- checkpoint -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(compiled, reentrant):
    net = model()
    expected = gradients(net, net)
    net = model()

    def run(x):
        for part in (net[:3], net[3:6]):
            x = checkpoint(part, x, use_reentrant=reentrant)
        return net[6](x)

    same(gradients(net, torch.compile(run) if compiled else run), expected)


@pytest.mark.parametrize("segments", [1, 2, 3, 7])
def test_checkpoint_sequential(segments):
    net = model()
    expected = gradients(net, net)
    net = model()
    same(gradients(net, lambda x: checkpoint_sequential(net, segments, x, use_reentrant=False)), expected)


def test_checkpoint_keeps_less():
    kept = []

    def function(x):
        for _ in range(10):
            x = x.sin().exp()
        return x

    for run in (function, lambda x: checkpoint(function, x, use_reentrant=False)):
        compiled = torch.compile(run)
        compiled(torch.ones(100, requires_grad=True)).sum().backward()
        parts = compiled.specializations[0].joint.parts
        kept.append(kept_bytes(parts.forward, parts.residual_count))
    assert kept[1] == 0 < kept[0]


def test_checkpoint_saves_nothing_until_it_is_needed():
    runs = []

    def function(x, scale):
        runs.append(torch.is_grad_enabled())
        return (x * scale).exp().sin()

    x = torch.ones(3, requires_grad=True)
    y = checkpoint(function, x, scale=2.0, use_reentrant=False)
    assert len(runs) == 1
    y.sum().backward()
    assert runs == [True, True]
    z = torch.ones(3, requires_grad=True)
    (z * 2.0).exp().sin().sum().backward()
    assert x.grad.tolist() == z.grad.tolist()
    with torch.no_grad():
        assert not checkpoint(function, x, scale=1.0, use_reentrant=False).requires_grad
    assert len(runs) == 3


def test_checkpoint_second_derivative_and_twice():
    def function(x):
        return (x * x).exp()

    found = []
    for run in (function, lambda x: checkpoint(function, x, use_reentrant=False)):
        x = torch.tensor([0.5, -1.0], requires_grad=True)
        y = run(x).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), x, retain_graph=True)
        (again,) = torch.autograd.grad(y, x)
        found.append([t.tolist() for t in (g, h, again)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_checkpoint_inside_a_checkpoint():
    def inner(x):
        return x.sin() * x

    def outer(x):
        return checkpoint(inner, x.exp(), use_reentrant=False).cos()

    found = []
    for run in (lambda x: inner(x.exp()).cos(), lambda x: checkpoint(outer, x, use_reentrant=False)):
        x = torch.tensor([0.5, -1.0], requires_grad=True)
        run(x).sum().backward()
        found.append(x.grad.tolist())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


def test_another_second_run_is_an_error():
    calls = itertools.count()

    def function(x):
        return x.exp().sin() if next(calls) == 0 else x.exp()

    y = checkpoint(function, torch.ones(2, requires_grad=True), use_reentrant=False)
    with pytest.raises(CheckpointError, match="different number of tensors"):
        y.sum().backward()


def test_generator_without_preserving():
    torch.manual_seed(0)
    x = torch.ones(4, requires_grad=True)
    y = checkpoint(lambda x: x * torch.rand(4), x, use_reentrant=False, preserve_rng_state=False)
    y.sum().backward()
    assert x.grad.tolist() != y.tolist()


# -- hooks on saved tensors -------------------------------------------------------------------------------------------


def test_saved_tensors_hooks():
    packed = []

    def pack(tensor):
        assert not tensor.requires_grad
        packed.append(tensor.tolist())
        return tensor.numpy().copy()

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with saved_tensors_hooks(pack, lambda array: torch.tensor(array * 10)):
        y = x * x
    z = y.exp()
    y.sum().backward(retain_graph=True)
    assert packed == [[1.0, 2.0]] * 2
    assert x.grad.tolist() == [20.0, 40.0], "the unpacked values count"
    assert z.requires_grad


def test_saved_tensors_hooks_keep_history():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        y = (x * x).exp().sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    expected = [(2 + 4 * v * v) * np.exp(v * v) for v in (1.0, 2.0)]
    np.testing.assert_allclose(h.tolist(), expected, rtol=1e-5)


def test_unpack_must_give_a_tensor():
    x = torch.ones(2, requires_grad=True)
    with saved_tensors_hooks(lambda t: t, lambda t: "text"):
        y = x.exp()
    with pytest.raises(TypeError, match="got result of type str"):
        y.sum().backward()


def test_what_is_not_kept_may_change():
    w = torch.ones(3, requires_grad=True)
    y = torch.compile(lambda: torch.where(2 * w > 0, 3 * w, w))()
    with torch.no_grad():
        w.mul_(2)
    y.sum().backward()
    assert w.grad.tolist() == [3, 3, 3]


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_checkpoint_where_the_backward_pass_is_inside(backend):
    """The planned memory of a captured step shrinks, and its results stay, dropout and all."""
    losses, planned = [], []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        layers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16), nn.Tanh(), nn.Dropout(0.1)) for _ in range(8)
        )
        optimizer = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.9)

        @torch.compile(backend=backend, fullgraph=True)
        def step(x, layers=layers, optimizer=optimizer, checkpointed=checkpointed):
            optimizer.zero_grad()
            h = x
            for layer in layers:
                h = h + (checkpoint(layer, h, use_reentrant=False) if checkpointed else layer(h))
            loss = h.square().mean()
            loss.backward()
            optimizer.step()
            return loss

        x = torch.randn(128, 16)
        losses.append([step(x).item() for _ in range(4)] + [float(p.sum()) for p in layers.parameters()])
        planned.append(step.explain().specializations[-1].planned_bytes)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4, atol=1e-5)
    assert planned[1] < 0.5 * planned[0]


def test_checkpoint_keeps_what_it_gives():
    """Of checkpointed blocks in a row, the backward pass outside gets the blocks' results and nothing between."""
    blocks = [nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16)) for _ in range(4)]

    def run(x):
        for block in blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return x.square().mean()

    compiled = torch.compile(run)
    x = torch.randn(32, 16, requires_grad=True)
    compiled(x).backward()
    parts = compiled.specializations[0].joint.parts
    assert all(v.shape[-1] != 64 for v in parts.residuals)
    assert 3 * 32 * 16 * 4 <= kept_bytes(parts.forward, parts.residual_count) <= 9 * 32 * 16 * 4
    expected = torch.autograd.grad(run(x), x)[0]
    assert torch.allclose(x.grad, expected, atol=1e-6)


def test_checkpoint_inside_of_a_transform():
    f = lambda x: checkpoint(lambda t: t.sin().exp(), x, use_reentrant=False).sum()  # noqa: E731
    x = torch.randn(4)
    expected = torch.func.grad(lambda t: t.sin().exp().sum())(x)
    assert torch.allclose(torch.func.grad(f)(x), expected)
    assert torch.allclose(torch.compile(torch.func.grad(f))(x), expected)
