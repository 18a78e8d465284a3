"""Running graphs node by node, and arrays to run them on; for the tests of the IR."""

import numpy as np

from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph, Value
from graphtorch.ir.parser import parse_graph
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.symint import SymInt, evaluate
from graphtorch.tensor.type import type_of

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 1e30, -1e-30, 7.0)


def graph_of(signature, *lines, returns):
    """A graph from its inputs, nodes and outputs; types of nodes are inferred."""
    body = "\n  ".join(lines)
    return parse_graph(f"graph g{signature} {{\n  {body}\n  return {returns}\n}}")


def example_arrays(graph, bindings=None, special=True, seed=0):
    """One array an input; floats include infinities, NaN and signed zeros."""
    random = np.random.default_rng(seed)
    arrays = []
    for value in graph.inputs:
        shape = tuple(concrete(d, bindings or {}) for d in value.shape)
        d = value.dtype
        if d.category == 0:
            data = random.random(shape) < 0.5
        elif d.category == 1:
            data = random.integers(0 if not d.is_signed else -100, 100, shape)
        elif d.is_complex:
            data = random.normal(size=shape) + 1j * random.normal(size=shape)
        else:
            data = random.normal(size=shape)
            if special:
                chosen = random.choice(SPECIAL, size=shape)
                data = np.where(random.random(shape) < 0.7, chosen, data)
        with np.errstate(over="ignore"):
            arrays.append(np.asarray(data).astype(d.numpy))
    return arrays


def concrete(size, bindings):
    """A size for values of its symbols."""
    return evaluate(size, bindings) if type(size) is SymInt else size


def run_graph(graph, arrays, bindings=None):
    """The outputs of a graph on ndarrays, by the operators' NumPy functions."""
    bindings = bindings or {}
    values = dict(zip(graph.inputs, arrays, strict=True))

    def argument(arg):
        if type(arg) is Value:
            return values[arg]
        if type(arg) is tuple:
            return tuple(argument(a) for a in arg)
        return concrete(arg, bindings)

    with np.errstate(all="ignore"):
        for node in graph.nodes:
            args = [argument(a) for a in node.args]
            # In the IR a view is of values, which have no strides.
            results = args[0].reshape(args[1]) if node.op.name == "view" else node.op.numpy(*args)
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(node.results, results, strict=True))
    return [np.asarray(values[v]) for v in graph.outputs]


def assert_same_bits(a, b):
    """Equal arrays, signs of zeros included; any NaN equals any other."""
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.kind in "biu":
        np.testing.assert_array_equal(a, b)
        return
    a, b = (np.asarray(x, np.complex128) for x in (a, b))
    for x, y in ((a.real, b.real), (a.imag, b.imag)):
        np.testing.assert_array_equal(x, y)
        known = ~np.isnan(x)
        np.testing.assert_array_equal(np.signbit(x[known]), np.signbit(y[known]))


def graph_from_samples(operators, random=None):
    """A graph of the operators' sample calls; with `random`, one call each, on values of the graph where types fit."""
    graph = Graph("samples")
    builder = GraphBuilder(graph)
    known = {}

    def recorded(arg):
        if isinstance(arg, Tensor):
            t = type_of(arg)
            values = known.setdefault(t, [])
            if not values or random is None or random.random() < 0.3:
                values.append(graph.add_input(t, f"in{len(graph.inputs)}"))
            return wrap(values[-1] if random is None else values[random.integers(len(values))])
        if isinstance(arg, list | tuple):
            return type(arg)(recorded(a) for a in arg)
        return arg

    for op in operators:
        of = {"f": dtypes.float32, "i": dtypes.int64, "b": dtypes.bool_, "c": dtypes.complex64}
        category = next(c for c in "fibc" if c in op.categories)
        samples = list(op.samples(Sampler(of[category])))
        for sample in samples if random is None else [samples[random.integers(len(samples))]]:
            args = [recorded(a) for a in sample.args]
            kwargs = {name: recorded(a) for name, a in sample.kwargs.items()}
            before = len(graph.nodes)
            with builder:
                op.function(*args, **kwargs)
            for result in (r for node in graph.nodes[before:] for r in node.results):
                known.setdefault(result.type, []).append(result)
    for i, value in enumerate({r: None for node in graph.nodes for r in node.results}):
        graph.add_output(value, f"result {i}")
    return graph
