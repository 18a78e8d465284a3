"""The `products` pass: sums of products of small matrices become one product."""

import numpy as np
import pytest
from ir_support import example_arrays, graph_of, run_graph

import graphtorch as torch
from graphtorch.ir.passes import DeadCodeElimination, SumsOfProducts
from graphtorch.ir.verifier import verify


def operators(graph):
    return [node.op.name for node in graph.nodes]


def together(graph):
    """The graph after the pass and `dce`, with equal results."""
    log = []
    after = SumsOfProducts().run(graph, log)
    verify(after)
    given = example_arrays(graph, special=False)
    for a, b in zip(run_graph(graph, given), run_graph(after, given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return DeadCodeElimination().run(after), log


GIVEN = "(" + ", ".join(f"%a{i}: f32[2, 16] argument, %b{i}: f32[2, 16] argument" for i in range(4))
GIVEN += ", %x: f32[16, 16] argument)"


def product(i):
    return [f"%t{i} = permute(%a{i}, dims=(1, 0))", f"%p{i} = mm(%t{i}, %b{i})"]


def test_products_are_one():
    lines = [line for i in range(4) for line in product(i)]
    lines += ["%s = add(%p3, %p2)", "%t = add(%s, %x)", "%u = add(%t, %p1)", "%v = add(%u, %p0)"]
    after, log = together(graph_of(GIVEN, *lines, returns="y=%v"))
    assert operators(after).count("mm") == 1
    assert operators(after).count("add") == 1  # of what is no product
    assert [f.row for f in log] == ["sum-of-products"]
    assert SumsOfProducts().run(after) is after


def test_sums_are_one():
    lines = [f"%p{i} = sum(%a{i}, dim=(0,))" for i in range(4)]
    lines += ["%s = add(%p3, %p2)", "%t = add(%s, %p1)", "%u = add(%t, %p0)"]
    after, _ = together(graph_of(GIVEN, *lines, returns="y=%u"))
    assert operators(after).count("sum") == 1
    assert "add" not in operators(after)


@pytest.mark.parametrize(
    ("lines", "returns"),
    [
        ([*product(0), *product(1), "%s = add(%p0, %p1)"], "y=%s"),  # two: an addition costs no more
        ([*product(0), *product(1), *product(2), "%s = add(%p0, %p1)", "%t = add(%s, %p2)"], "y=%t, z=%s"),
        ([f"%p{i} = mm(%a{i}, %x)" for i in range(3)] + ["%s = add(%p0, %p1)", "%t = add(%s, %p2)"], "y=%t"),
    ],
)
def test_what_stays(lines, returns):
    graph = graph_of(GIVEN, *lines, returns=returns)
    assert SumsOfProducts().run(graph) is graph


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_a_recurrent_layer(backend):
    torch.manual_seed(0)
    layer, x = torch.nn.LSTM(8, 16), torch.randn(6, 3, 8)

    def gradients(x):
        return torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))

    compiled = torch.compile(gradients, backend=backend)
    for a, b in zip(compiled(x), gradients(x), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-5)
    optimized = compiled.specializations[0].compiled.stages.optimized
    # A product a step forward and, but for the first, backward; the input's and three gradients of weights.
    assert operators(optimized).count("mm") <= 6 + 5 + 4
