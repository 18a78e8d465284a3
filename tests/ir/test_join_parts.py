"""The `join` pass: sums of cotangents of parts become concatenations, where the parts do not overlap."""

import numpy as np
import pytest
from ir_support import example_arrays, graph_of, run_graph

import graphtorch
from graphtorch.ir.passes import JoinParts
from graphtorch.ir.verifier import verify


def operators(graph):
    return [node.op.name for node in graph.nodes]


def joined(graph):
    """The graph after the pass, with equal results."""
    log = []
    after = JoinParts().run(graph, log)
    verify(after)
    given = example_arrays(graph)
    for a, b in zip(run_graph(graph, given), run_graph(after, given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    return after, log


PARTS = "(%a: f32[2, 4] argument, %b: f32[2, 4] argument, %c: f32[2, 4] argument, %x: f32[2, 3, 4] argument)"


def part(name, of, index):
    return f"%{name} = select_backward(%{of}, input_sizes=(2, 3, 4), dim=1, index={index})"


def test_all_parts_in_any_order():
    graph = graph_of(
        PARTS, part("p", "a", 2), part("q", "b", 0), part("r", "c", 1), "%s = add(%p, %q)", "%t = add(%s, %r)",
        returns="y=%t",
    )  # fmt: skip
    after, log = joined(graph)
    assert "cat" in operators(after)
    assert "full" not in operators(after)
    assert "add" not in operators(after)[-1:]
    assert [f.row for f in log] == ["sum-of-parts"]


def test_missing_parts_are_zeros_and_other_terms_are_added():
    lines = [part("p", "a", 2), part("q", "b", 0), "%s = add(%p, %x)", "%t = add(%s, %q)"]
    graph = graph_of(PARTS, *lines, returns="y=%t")
    after, _ = joined(graph)
    assert operators(after)[-2:] == ["cat", "add"]
    assert operators(after).count("full") == 1


@pytest.mark.parametrize(
    ("lines", "returns"),
    [
        ([part("p", "a", 1), part("q", "b", 1), "%t = add(%p, %q)"], "y=%t"),
        ([part("p", "a", 0), part("q", "b", 1), "%s = add(%p, %q, alpha=2)"], "y=%s"),
        ([part("p", "a", 0), "%s = add(%p, %x)"], "y=%s"),
    ],
)
def test_overlaps_and_single_parts_stay(lines, returns):
    graph = graph_of(PARTS, *lines, returns=returns)
    assert JoinParts().run(graph) is graph


def test_a_sum_that_is_read_elsewhere_is_a_sum_of_its_own():
    graph = graph_of(
        PARTS, part("p", "a", 2), part("q", "b", 0), part("r", "c", 1), "%s = add(%p, %q)", "%t = add(%s, %r)",
        returns="y=%t, z=%s",
    )  # fmt: skip
    after, _ = joined(graph)
    assert operators(after).count("cat") == 1


def test_slices_of_unequal_lengths():
    graph = graph_of(
        "(%a: f32[2, 3] argument, %b: f32[5, 3] argument)",
        "%p = slice_backward(%a, input_sizes=(8, 3), dim=0, start=6, end=8, step=1)",
        "%q = slice_backward(%b, input_sizes=(8, 3), dim=0, start=0, end=5, step=1)",
        "%s = add(%p, %q)",
        returns="y=%s",
    )
    after, _ = joined(graph)
    assert next(n.args[0] for n in after.nodes if n.op.name == "cat")[1].type.shape == (1, 3)


def test_other_sizes_may_be_symbolic():
    graph = graph_of(
        "[s0 >= 2](%a: f32[s0, 3] argument, %b: f32[s0, 5] argument)",
        "%p = slice_backward(%a, input_sizes=(s0, 8), dim=1, start=5, end=8, step=1)",
        "%q = slice_backward(%b, input_sizes=(s0, 8), dim=1, start=0, end=5, step=1)",
        "%s = add(%p, %q)",
        returns="y=%s",
    )
    after = operators(JoinParts().run(graph))
    assert "cat" in after and "add" not in after


def test_the_gradient_of_unbind_is_one_concatenation():
    @graphtorch.compile(backend="numpy")
    def step(x):
        q, k, v = x.unbind(1)
        return graphtorch.autograd.grad((q * k - v * v * q).sum(), x)[0]

    x = graphtorch.randn(4, 3, 5, requires_grad=True)
    q, k, v = x.detach().unbind(1)
    expected = graphtorch.stack([k - v * v, q, -2 * v * q], 1)
    assert graphtorch.allclose(step(x), expected, atol=1e-6)
    optimized = step.specializations[0].compiled.stages.optimized
    assert "cat" in operators(optimized)
    assert "select_backward" not in operators(optimized)
