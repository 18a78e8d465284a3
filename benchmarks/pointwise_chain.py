"""Fused chains: NumPy on whole arrays against the same instructions in cache-sized blocks (the "numpy" backend).

    python benchmarks/pointwise_chain.py [--rounds 5] [--scale 1.0] [--backend numpy]

The whole-array side runs the graph of primitives node by node, as hand-written NumPy would; both sides therefore
compute the same. A round times each once. Prints medians in milliseconds, the ratio, and the time to compile."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import graphtorch as torch
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.backend import get_backend
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.schedule import lower_to_primitives
from graphtorch.tensor.type import TensorType


def gelu_gate(x, a, b, c):
    y = x * a + b
    return 0.5 * y * (1 + torch.tanh(0.7978845608 * (y + 0.044715 * y * y * y))) * torch.sigmoid(c) + x


def softmax(x):
    return torch.softmax(x, -1)


def residual_layer_norm(x, r, w, b):
    y = x + r
    centred = y - y.mean(-1, keepdim=True)
    return centred * ((centred * centred).mean(-1, keepdim=True) + 1e-5).rsqrt() * w + b


def adamw(p, g, m, v):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return p * (1 - 1e-4) - 1e-3 * (m / 0.1) / ((v / 0.001).sqrt() + 1e-8), m, v


def cases(scale):
    """(name, function, input shapes)."""
    n, rows = int((1 << 24) * scale), max(1, int(4096 * scale))
    return [
        (f"gelu_tanh(x*a+b)*sigmoid(c)+x, {n:,} elements", gelu_gate, [(n,)] * 4),
        (f"softmax, {rows} rows of 1024", softmax, [(rows, 1024)]),
        (f"residual + layer norm, {rows} rows of 1024", residual_layer_norm, [(rows, 1024)] * 2 + [(1024,)] * 2),
        (f"AdamW, {int(10_000_000 * scale):,} parameters", adamw, [(int(10_000_000 * scale),)] * 4),
        ("gelu_tanh(x*a+b)*sigmoid(c)+x, 1,024 elements", gelu_gate, [(1024,)] * 4),
    ]


def build(function, shapes):
    graph = Graph(function.__name__)
    inputs = [graph.add_input(TensorType(torch.float32, shape)) for shape in shapes]
    builder = GraphBuilder(graph)
    with builder:
        results = function(*map(wrap, inputs))
        for result in results if isinstance(results, tuple) else (results,):
            graph.add_output(builder.value_of(result))
    return graph


def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return (time.perf_counter() - start) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the large cases")
    parser.add_argument("--backend", default="numpy")
    arguments = parser.parse_args()
    print(f"{'':48} {'whole arrays':>12} {arguments.backend:>10} {'ratio':>6} {'compile':>8}  (ms)")
    for name, function, shapes in cases(arguments.scale):
        graph = build(function, shapes)
        primitives = lower_to_primitives(graph)
        start = time.perf_counter()
        executable = get_backend(arguments.backend).compile(graph)
        compiling = (time.perf_counter() - start) * 1e3
        random = np.random.default_rng(0)
        inputs = [random.random(shape, np.float32) + 0.01 for shape in shapes]
        for actual, expected in zip(executable.run(inputs), interpret(primitives, inputs), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)
        whole, blocked = [], []
        for _ in range(arguments.rounds):
            whole.append(timed(interpret, primitives, inputs))
            blocked.append(timed(executable.run, inputs))
        a, b = statistics.median(whole), statistics.median(blocked)
        print(f"{name:48} {a:12.3f} {b:10.3f} {a / b:6.2f} {compiling:8.2f}")


if __name__ == "__main__":
    main()
