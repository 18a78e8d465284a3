"""`cond`, `while_loop`, `scan` and `associative_scan`: eagerly Python's own control flow, compiled one node of one
graph, with derivatives of any order."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.frontend import CaptureError
from graphtorch.ir.equality import graph_equal
from graphtorch.ir.export import from_json, to_json
from graphtorch.ir.parser import parse_graph
from graphtorch.ir.printer import print_graph
from graphtorch.ir.verifier import VerificationError, verify

BACKENDS = ("numpy", "cpu", "interpreter")


def data(*shape, seed=0, requires_grad=False):
    values = np.random.default_rng(seed).standard_normal(shape).astype("float32")
    return torch.tensor(values).requires_grad_(requires_grad)


def close(actual, expected):
    assert type(actual) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype and actual.requires_grad == expected.requires_grad
        np.testing.assert_allclose(actual.tolist(), expected.tolist(), rtol=2e-5, atol=1e-5)
    elif isinstance(expected, (list, tuple)):
        for a, e in zip(actual, expected, strict=True):
            close(a, e)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        close(list(actual.values()), list(expected.values()))
    else:
        assert actual == expected


def check(function, calls, backend="numpy", fullgraph=True):
    """`function` compiled gives what it gives eagerly, for each of the calls' arguments."""
    compiled = torch.compile(function, backend=backend, fullgraph=fullgraph)
    for make in calls:
        close(compiled(*make()), function(*make()))
    return compiled


def nodes(compiled, name):
    return [n for n in compiled.specializations[-1].captured.graph.nodes if n.op.name == name]


# -- cond -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_cond(backend):
    w = data(3, seed=5, requires_grad=True)

    def f(x):
        scaled = x * 2
        found = torch.cond(
            x.sum() > 0, lambda x: {"a": (x * w).sin(), "b": scaled}, lambda x: {"a": x, "b": w + 1}, (x,)
        )
        (grad,) = torch.autograd.grad((found["a"] * found["b"]).sum(), w)
        return found["a"].detach(), found["b"].detach(), grad

    compiled = check(f, [lambda s=s: (torch.full((3,), s),) for s in (1.0, -1.0, 2.0)], backend)
    assert len(nodes(compiled, "cond")) == 1 and len(compiled.specializations) == 1


def test_cond_backward_outside_and_again():
    def f(x, w):
        return torch.cond(x.sum() > 0, lambda: (x * w).exp(), lambda: (x - w) ** 3)

    for sign in (1.0, -1.0):
        found = []
        for function in (f, torch.compile(f, fullgraph=True)):
            x, w = torch.full((3,), sign * 0.5).requires_grad_(), data(3, requires_grad=True)
            function(x, w).sum().backward()
            found.append((x.grad, w.grad))
        close(*found)

    def second(x, w):
        (g,) = torch.autograd.grad(f(x, w).sum(), w, create_graph=True)
        return torch.autograd.grad(g.sum(), (x, w))

    calls = [lambda s=s: (torch.full((3,), s * 0.5).requires_grad_(), data(3, requires_grad=True)) for s in (1.0, -1.0)]
    check(second, calls)


def test_cond_python_predicate_and_numbers():
    assert torch.cond(True, lambda x: x + 1, lambda x: x, (torch.zeros(1),)).item() == 1
    with pytest.raises(RuntimeError, match="Expected pred to be bool or tensor"):
        torch.cond("yes", lambda: 1, lambda: 2)
    with pytest.raises(RuntimeError, match="single-element"):
        torch.cond(torch.ones(2) > 0, lambda: 1, lambda: 2)
    with pytest.raises(RuntimeError, match="callable"):
        torch.cond(True, 1, lambda: 2)


def test_nested_cond_in_scan():
    def step(c, x):
        c = torch.cond(c.sum() > 0, lambda c: c - x, lambda c: torch.cond(x[0] > 0, lambda: c + x, lambda: c * 2), (c,))
        return c, c.exp()

    def f(x):
        return torch.scan(step, torch.ones(3), x)

    check(f, [lambda s=s: (data(6, 3, seed=s),) for s in range(4)])

    def g(x):
        carry, ys = f(x)
        return torch.autograd.grad(carry.sum() + ys.sum(), x)

    check(g, [lambda s=s: (data(6, 3, seed=s, requires_grad=True),) for s in range(4)])


def test_what_a_branch_reads_of_changed_memory():
    def f(x):
        view = x[1:]
        x.mul_(2)
        found = torch.cond(x.sum() > 0, lambda: view + 1, lambda: view.neg())
        return found, view * 1, x

    check(f, [lambda s=s: (torch.full((3,), s),) for s in (1.0, -1.0)])


@pytest.mark.parametrize(
    "branch",
    [
        lambda x: x.add_(1),
        lambda x: torch.rand(3) + x,
        lambda x: x if x[0] > 0 else x * 3,
        lambda x: x[:2],
        lambda x: (x, x),
        lambda x: torch.autograd.grad((x * x).requires_grad_().sum(), x) if x.requires_grad else x,
        lambda x: float(x[0]),
    ],
)
def test_what_no_region_holds_becomes_a_decision(branch):
    def f(x):
        return torch.cond(x.sum() > 0, branch, lambda x: x * 5, (x,)), x

    for fullgraph in (False, True):
        compiled = torch.compile(f, fullgraph=fullgraph)
        for number in (1.0, -1.0, 2.0):
            results = []
            for function in (f, compiled):
                torch.manual_seed(0)
                try:
                    results.append(function(torch.full((3,), number)))
                except CaptureError as error:
                    assert fullgraph and "test_control_flow.py" in str(error)
            if len(results) == 2:
                close(results[1], results[0])
            else:
                assert fullgraph
        if not fullgraph:
            assert compiled.eager_calls == 0


# -- while_loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_while_loop(backend):
    limit = torch.tensor(100.0)

    def f(x):
        count, state = torch.while_loop(
            lambda i, s: s["x"].norm() < limit, lambda i, s: (i + 1, {"x": s["x"] * 2}), (torch.tensor(0), {"x": x})
        )
        return count, state["x"] + 1

    compiled = check(f, [lambda s=s: (torch.full((3,), s),) for s in (1.0, -3.0, 1000.0, 0.001)], backend)
    assert len(compiled.specializations) == 1 and len(nodes(compiled, "while_loop")) == 1


def test_while_loop_with_gradients_is_unrolled():
    def f(x):
        (y,) = torch.while_loop(lambda y: y.norm() < 10, lambda y: (y * x,), (x,))
        return torch.autograd.grad(y.sum(), x)

    calls = [lambda s=s: (torch.full((3,), s).requires_grad_(),) for s in (2.0, 3.0)]
    check(f, calls, fullgraph=False)
    with pytest.raises(CaptureError, match="requires grad"):
        torch.compile(f, fullgraph=True)(*calls[0]())


# -- scan -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(backend, reverse):
    w = data(4, 4, seed=1, requires_grad=True)

    def cell(carry, x):
        h, count = carry
        h = torch.tanh(h @ w + x["in"])
        return (h, count + 1), {"out": h * x["gate"], "count": count}

    def f(x, gate):
        return torch.scan(cell, (torch.zeros(2, 4), torch.tensor(0)), {"in": x, "gate": gate}, dim=1, reverse=reverse)

    def gradients(x, gate):
        (h, _), ys = f(x, gate)
        return torch.autograd.grad(h.sum() + (ys["out"] ** 2).sum(), (x, gate, w))

    def make():
        return data(2, 5, 4, requires_grad=True), data(2, 5, 1, seed=2, requires_grad=True)

    with torch.no_grad():
        compiled = check(f, [make], backend)
    assert len(nodes(compiled, "scan")) == 1
    check(gradients, [make], backend)


def test_scan_of_any_length():
    def f(x):
        carry, ys = torch.scan(lambda c, x: (c * 0.5 + x, c.exp()), torch.zeros(3), x)
        (grad,) = torch.autograd.grad(carry.sum() + ys.sum(), x)
        return ys.detach(), grad

    compiled = check(f, [lambda n=n: (data(n, 3, requires_grad=True),) for n in (4, 6, 9, 2)])
    assert len(compiled.specializations) == 2


def test_scan_second_derivative():
    def f(x, w):
        carry, ys = torch.scan(lambda c, x: ((c * w + x).sin(), c * c), torch.ones(3), x)
        return carry.sum() + ys.sum()

    def second(x, w):
        (g,) = torch.autograd.grad(f(x, w), w, create_graph=True)
        return torch.autograd.grad((g * g).sum(), (x, w))

    check(second, [lambda: (data(4, 3, requires_grad=True), data(3, seed=1, requires_grad=True))])


def test_scan_misuse():
    with pytest.raises(ValueError, match="callable"):
        torch.scan(None, torch.zeros(1), torch.zeros(2))
    with pytest.raises(RuntimeError, match="init leaves to be tensors"):
        torch.scan(lambda c, x: (c, x), 1.0, torch.zeros(2))
    with pytest.raises(ValueError, match="same number of elements"):
        torch.scan(lambda c, x: (c, c), torch.zeros(1), (torch.zeros(2), torch.zeros(3)))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan(length, reverse):
    def f(x):
        return torch.associative_scan(lambda a, b: a * 0.5 * b, x, 1, reverse=reverse)

    x = data(2, length)
    flat = np.array(x.tolist())
    if reverse:
        flat = flat[:, ::-1]
    expected = [flat[:, 0]]
    for i in range(1, length):
        expected.append(expected[-1] * 0.5 * flat[:, i])
    expected = np.stack(expected, 1)
    np.testing.assert_allclose(f(x).tolist(), expected[:, ::-1] if reverse else expected, rtol=1e-5)

    def g(x):
        return torch.autograd.grad(f(x).sum(), x)

    check(g, [lambda: (data(2, length, requires_grad=True),)])


# -- the IR -----------------------------------------------------------------------------------------------------------


def graph_with_regions():
    def f(x, w):
        return torch.scan(lambda c, x: (torch.cond(c.sum() > 0, lambda: c + x, lambda: c * w), c), w, x)

    compiled = torch.compile(f, fullgraph=True, dynamic=True)
    compiled(data(4, 3), data(3))
    return compiled.specializations[0].captured.graph


def test_text_and_json_round_trip():
    graph = graph_with_regions()
    verify(graph)
    text = print_graph(graph)
    assert "body=graph step[" in text and "then=graph then" in text
    assert graph_equal(parse_graph(text), graph)
    assert print_graph(parse_graph(text)) == text
    assert graph_equal(from_json(to_json(graph)), graph)


def test_verifier_checks_what_a_region_takes():
    text = """graph g(%p: bool[] argument, %x: f32[3] argument) {
  %0: f32[3] = cond(%p, (%x,), then=graph a(%in0: f32[4] argument) { return out=%in0 },
    otherwise=graph b(%in0: f32[3] argument) { return out=%in0 })
  return r=%0
}"""
    with pytest.raises(VerificationError, match=r"the region takes \(f32\[4\]\), the operands are \(f32\[3\]\)"):
        verify(parse_graph(text))


def test_equal_regions_are_merged():
    def f(x):
        p = x.sum() > 0
        a = torch.cond(p, lambda: x + 1, lambda: x)
        b = torch.cond(p, lambda: x + 1, lambda: x)
        return a * 2, b * 3

    compiled = check(f, [lambda: (torch.ones(3),)])
    optimized = compiled.specializations[0].compiled.stages.optimized
    assert sum(n.op.name == "cond" for n in optimized.nodes) == 1


# -- with functional transforms ---------------------------------------------------------------------------------------


def test_inside_of_transforms():
    def f(x):
        def g(y):
            return torch.cond(y.sum() > 0, lambda: (y * y).sum(), lambda: y.sum())

        return torch.func.grad(g)(x)

    check(f, [lambda s=s: (torch.full((3,), s),) for s in (1.0, -1.0)], fullgraph=False)
    for function in (f, torch.compile(f)):
        with pytest.raises(RuntimeError, match="data-dependent control flow"):
            torch.func.vmap(function)(torch.ones(2, 3))


def test_kept_view_reached_in_a_branch():
    table = torch.arange(6.0).view(2, 3)
    row, column = table[1], table.t()

    def f(x):
        y = torch.cond(x.sum() > 0, lambda: row + x, lambda: x - column[:, 0])
        row.mul_(2)
        return y + row, torch.cond(x.sum() > 0, lambda: row + 1, lambda: row - 1)

    saved = table.clone()
    found = []
    for function in (f, torch.compile(f, fullgraph=True)):
        table.copy_(saved)
        found.append([function(torch.full((3,), s)) for s in (1.0, -1.0)] + [table.clone()])
    close(found[1], found[0])


def test_branch_that_fails_where_it_is_not_taken():
    def f(x):
        return torch.cond(x.sum() > 0, lambda: x + torch.ones(7), lambda: x * 2)

    compiled = torch.compile(f)
    assert compiled(-torch.ones(3)).tolist() == [-2, -2, -2]
    with pytest.raises(RuntimeError, match="must match"):
        compiled(torch.ones(3))
    with pytest.raises(RuntimeError, match="must match"):
        torch.compile(f, fullgraph=True)(-torch.ones(3))
