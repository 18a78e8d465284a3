"""Graphs for the tests of scheduling and lowering: traced from Python functions, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphtorch
from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Location
from graphtorch.tensor import dtypes
from graphtorch.tensor.type import TensorType

HERE = Location("train.py", 12, "y = f(x)")


def trace(function: Callable[..., Any], *types: TensorType, kinds: Sequence[str] = ()) -> Graph:
    """The graph of `function` on inputs of these types; outputs are what it returns."""
    graph = Graph()
    inputs = [
        graph.add_input(t, f"x{i}", kinds[i] if i < len(kinds) else "number" if t.is_number else "argument")
        for i, t in enumerate(types)
    ]
    builder = GraphBuilder(graph, HERE)
    with builder:
        results = function(*map(wrap, inputs))
        for result in results if isinstance(results, tuple | list) else (results,):
            graph.add_output(builder.value_of(result))
    return graph


def f32(*shape: Any) -> TensorType:
    return TensorType(dtypes.float32, shape)


def i64(*shape: Any) -> TensorType:
    return TensorType(dtypes.int64, shape)


NUMBER = TensorType(dtypes.float64, (), is_number=True)


def arrays(graph: Graph, seed: int = 0, bindings: dict[str, int] | None = None) -> list[Any]:
    """Random inputs for a graph."""
    from graphtorch.tensor.symint import evaluate

    random = np.random.default_rng(seed)
    made: list[Any] = []
    for value in graph.inputs:
        shape = tuple(evaluate(s, bindings or {}) for s in value.type.shape)
        d = value.type.dtype
        if value.type.is_number:
            made.append(0.25)
        elif d is dtypes.bool_:
            made.append(random.random(shape) < 0.5)
        elif d.category == dtypes.INTEGRAL:
            made.append(random.integers(0, 4, shape).astype(d.numpy))
        else:
            made.append(np.asarray(random.uniform(-2, 2, shape)).astype(d.numpy))
    return made


def mlp_step(batch: Any = 64, inside: int = 784, hidden: int = 128, classes: int = 10) -> tuple[Graph, dict[int, int]]:
    """Forward, backward and SGD of a two-layer classifier; outputs are the loss and the new parameters."""
    graph = Graph("mlp_step")
    x, y = graph.add_input(f32(batch, inside), "x"), graph.add_input(i64(batch), "y")
    shapes = [(hidden, inside), (hidden,), (classes, hidden), (classes,)]
    parameters = [graph.add_input(f32(*s), f"p{i}", "parameter") for i, s in enumerate(shapes)]
    rate = graph.add_input(NUMBER, "lr", "number")
    builder = GraphBuilder(graph, HERE)
    with builder:
        w1, b1, w2, b2 = map(wrap, parameters)
        logits = graphtorch.relu(wrap(x) @ w1.t() + b1) @ w2.t() + b2
        picked = graphtorch.log_softmax(logits, -1) * graphtorch.one_hot(wrap(y), classes)
        loss = builder.value_of(-picked.sum() / batch)
    gradients = append_gradients(graph, (loss,), (None,), tuple(parameters), builder)
    graph.add_output(loss, "loss")
    with builder:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            new = wrap(parameter) - wrap(rate) * wrap(gradient)
            graph.add_output(builder.value_of(new), f"new {parameter.name}")
    return graph, {i + 1: i + 2 for i in range(4)}


# -- random programs --------------------------------------------------------------------------------------------------

UNARY = ("neg", "abs", "exp", "sigmoid", "tanh", "relu", "sin", "isnan", "logical_not", "clone", "square")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "lt", "eq", "logical_and")
REDUCTIONS = ("sum", "amax", "amin", "mean", "any", "argmax", "softmax", "var")
# Comparisons of rounded values may come out either way: their operands are exact.
SHARP = ("logical_not", "lt", "eq", "logical_and", "any", "argmax")
PRESERVING = ("neg", "abs", "relu", "clone", "isnan", "maximum", "minimum", "amax", "amin")
VIEWS = ("permute", "view", "expand", "slice", "select", "unsqueeze", "flip", "diagonal", "slice_step")


def random_program(choose: Callable[[int], int], length: int = 12) -> Graph:
    """A graph of pointwise operators, reductions and views; `choose(n)` draws from range(n).

    Floating values are kept small by tanh, so that a rounding error stays one.
    """
    sizes = (1, 2, 3, 4, 6)
    rank = 1 + choose(3)
    shape = tuple(sizes[choose(len(sizes))] for _ in range(rank))
    types = [f32(*shape), f32(*shape[-1:]), i64(*shape), f32()]

    def program(*inputs: Any) -> list[Any]:
        values = list(inputs)

        def pick(wanted: Callable[[Any], bool] = lambda v: True) -> Any:
            # Recent values first: deep programs fuse in more interesting ways than wide ones.
            fitting = [v for v in values if wanted(v)]
            recent = fitting[-6:]
            return recent[choose(len(recent))]

        rounded: set[int] = set()  # ids of values that carry a rounding error

        def exact(v: Any) -> bool:
            return id(v) not in rounded

        for _ in range(length):
            kind = choose(10)
            names = UNARY if kind < 3 else BINARY if kind < 6 else REDUCTIONS if kind < 8 else VIEWS
            name = names[choose(len(names))]
            sharp = name in SHARP
            x = pick(exact) if sharp else pick()
            operands = [x]
            if kind < 3:
                made = _unary(name, x)
            elif kind < 6:
                y = pick(lambda v, x=x, sharp=sharp: _broadcast(v, x) and (exact(v) or not sharp))
                operands.append(y)
                made = _binary(name, x, y)
            elif kind < 8:
                made = _reduced(name, x, choose) if x.ndim else x * 2
            else:
                made = _viewed(name, x, choose)
            if made.numel() <= 5000:
                values.append(made)
                if not all(map(exact, operands)) or not (sharp or name in PRESERVING or kind >= 8):
                    rounded.add(id(made))
        made = values[len(inputs) :]
        return [*made[-4:], made[choose(len(made))]]

    return trace(program, *types)


def _broadcast(a: Any, b: Any) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a.shape), reversed(b.shape), strict=False))


def _unary(name: str, x: Any) -> Any:
    if x.dtype == graphtorch.bool and name in ("neg", "abs", "square", "relu"):
        x = x.float()
    made = getattr(graphtorch, name)(x)
    return made.tanh() if name in ("exp", "square") else made


def _binary(name: str, x: Any, y: Any) -> Any:
    if name == "sub" and graphtorch.bool in (x.dtype, y.dtype):
        name = "add"
    made = getattr(graphtorch, name)(x, y)
    return made.tanh() if made.is_floating_point() and name in ("mul", "add", "sub") else made


def _reduced(name: str, x: Any, choose: Callable[[int], int]) -> Any:
    dim, keepdim = choose(x.ndim), bool(choose(2))
    if x.dtype == graphtorch.bool or (name in ("mean", "softmax", "var") and not x.is_floating_point()):
        x = x.float()
    if name == "softmax":
        return graphtorch.softmax(x, dim)
    if name == "var":
        return x.var(dim, correction=0, keepdim=keepdim)
    if name == "argmax":
        return graphtorch.argmax(x, dim, keepdim=keepdim)
    dims = tuple(range(x.ndim)) if choose(3) == 0 else (dim,)
    made = getattr(x, name)(dims, keepdim=keepdim)
    if choose(2) and keepdim and made.dtype == x.dtype and x.dtype != graphtorch.bool:
        return x - made
    return made.tanh() if name == "sum" and made.is_floating_point() else made


def _viewed(name: str, x: Any, choose: Callable[[int], int]) -> Any:
    rank = x.ndim
    if name == "unsqueeze" or not rank:
        return x.unsqueeze(choose(rank + 1)) if rank < 4 else x * 1
    dim = choose(rank)
    size = x.shape[dim]
    if name == "permute":
        return x.permute(*sorted(range(rank), key=lambda _: choose(100)))
    if name == "view":
        flat = x.reshape(-1)
        n = flat.shape[0]
        factors = [k for k in range(1, n + 1) if n % k == 0]
        k = factors[choose(len(factors))]
        return flat.reshape(k, n // k)
    if name == "expand":
        if rank < 4:
            return x.expand(2, *x.shape)
        return x * 1
    if name == "slice":
        start = choose(size)
        return x.narrow(dim, start, max(1, size - start - choose(2)))
    if name == "slice_step":
        return x[(slice(None),) * dim + (slice(None, None, 2),)]
    if name == "select":
        return x.select(dim, choose(size))
    if name == "flip":
        return x.flip(dim)
    if rank >= 2:
        return x.diagonal(0, dim, (dim + 1) % rank)
    return x


def close(actual: Any, expected: Any, rtol: float = 2e-5, atol: float = 2e-5) -> None:
    """Equal types and shapes, and values up to rounding."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if actual.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected)
    else:
        wide = np.complex128 if actual.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(actual.astype(wide), expected.astype(wide), rtol=rtol, atol=atol)
