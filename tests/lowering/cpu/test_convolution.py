"""Convolutions and pooling as native kernels, against the operators' own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import arrays, close, f32, trace

import graphtorch
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder
from graphtorch.ir.graph import Graph
from graphtorch.lowering.cpu import CpuExecutable
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.schedule import build_schedule


def check(function: Any, *types: Any, native: bool = True) -> None:
    """The function and the gradients of its sum of squares, natively and by the interpreter."""
    graph = trace(lambda *xs: (function(*xs) * function(*xs)).sum(), *types)
    gradients = append_gradients(graph, (graph.outputs[0],), (None,), tuple(graph.inputs), GraphBuilder(graph))
    for gradient in gradients:
        graph.add_output(gradient)
    inputs = arrays(graph)
    executable = CpuExecutable(build_schedule(graph))
    for _ in range(2):
        for actual, wanted in zip(executable.run(inputs), interpret(graph, inputs), strict=True):
            close(actual, wanted, 2e-4, 2e-3)
    if native:
        assert executable.fallbacks == []


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 3])
def test_convolution(stride: int, padding: int, dilation: int, groups: int) -> None:
    def f(x: Any, w: Any, b: Any) -> Any:
        return graphtorch.nn.functional.conv2d(x, w, b, stride, padding, dilation, groups)

    check(f, f32(2, 6, 12, 13), f32(9, 6 // groups, 3, 2), f32(9))


def test_wide_convolution_has_the_same_values() -> None:
    check(lambda x, w: graphtorch.nn.functional.conv2d(x, w, padding=1), f32(1, 80, 6, 6), f32(96, 80, 3, 3), native=False)


@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 3, 0), (2, 2, 1), (3, 1, 1), (3, 2, 1)])
def test_max_pool(kernel: int, stride: int, padding: int) -> None:
    def f(x: Any) -> Any:
        return graphtorch.nn.functional.max_pool2d(x, kernel, stride, padding)

    check(f, f32(3, 4, 11, 14), native=(kernel, padding) in ((2, 0), (3, 0)) and kernel == stride)


def test_max_pool_picks_the_first_of_equal_values() -> None:
    graph: Graph = trace(lambda x: graphtorch.nn.functional.max_pool2d(x, 2, return_indices=True), f32(1, 1, 4, 4))
    for x in (np.zeros((1, 1, 4, 4), np.float32), np.full((1, 1, 4, 4), -np.inf, np.float32)):
        for actual, wanted in zip(CpuExecutable(build_schedule(graph)).run([x]), interpret(graph, [x]), strict=True):
            close(actual, wanted)
