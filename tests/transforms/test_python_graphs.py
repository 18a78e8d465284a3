"""`torch.fx`: traced modules, their code and rewriting beside PyTorch's."""

from __future__ import annotations

import copy
import importlib
import io
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch import fx
from graphtorch.fx.proxy import TraceError

torch = pytest.importorskip("torch")
BOTH = (graphtorch, torch)


def of(package: Any) -> Any:
    return importlib.import_module(f"{package.__name__}.fx")


def model_of(package: Any) -> Any:
    nn = package.nn

    class Inner(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(package.full((3,), 0.5))

        def forward(self, x: Any, scale: float = 2.0) -> Any:
            return x * self.weight * scale

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.seq = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
            self.inner = Inner()
            self.p = nn.Parameter(package.ones(3))
            self.register_buffer("b", package.arange(3.0))

        def forward(self, x, y=None):  # type: ignore[no-untyped-def]
            x = self.conv(x).relu()
            n = x.size(0)
            x = x.view(n, -1)[:, :4]
            rows, _columns = x.shape
            z = self.inner(self.seq(x) + self.p * 2 - self.b)
            z = package.cat([z, z], dim=1).reshape(rows, 2 * 3)
            z = package.softmax(z, 1)
            h = z.chunk(2, 1)[0]
            return {"o": h @ h.t(), "k": (z, -z, 1 - z, z.dtype)}

    model = Model().eval()
    for i, p in enumerate(model.parameters()):
        p.data = package.linspace(-1, 1 + i, p.numel()).reshape(p.shape)
    return model


def values(made: Any) -> list[Any]:
    return [made["o"].detach().numpy(), *(t.detach().numpy() for t in made["k"][:3])]


def test_code_and_text_are_pytorch_s() -> None:
    found = []
    for package in BOTH:
        module = of(package).symbolic_trace(model_of(package))
        module.graph.lint()
        found.append((module.code, str(module.graph), [n.name for n in module.graph.nodes], type(module).__name__))
    assert found[0] == found[1]


def test_what_is_traced_computes_the_same() -> None:
    model = model_of(graphtorch)
    module = fx.symbolic_trace(model)
    x = graphtorch.linspace(-1, 1, 50).reshape(2, 1, 5, 5)
    compiled = graphtorch.compile(fx.symbolic_trace(model), fullgraph=True)
    again = copy.deepcopy(module)
    buffer = io.BytesIO()
    graphtorch.save(module.state_dict(), buffer)
    for run in (module, fx.Interpreter(module).run, fx.Transformer(module).transform(), compiled, again):
        for a, b in zip(values(run(x)), values(model(x))):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    assert module.state_dict().keys() == model.state_dict().keys() and again.p is not module.p
    module(x)["o"].sum().backward()
    assert model.p.grad is not None and model.inner.weight.grad is not None
    assert "def forward(self, x, y = None):" in module.print_readable(print_output=False)


def nodes_of(package: Any, function: Any) -> list[tuple[Any, ...]]:
    graph = of(package).symbolic_trace(function).graph
    return [
        (n.name, n.op, n.target if isinstance(n.target, str) else n.target.__name__, str(n.args), str(n.kwargs))
        for n in graph.nodes
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda t: lambda x, y: x + y * 2 - 1 / x,
        lambda t: lambda x: t.relu(x) + t.relu(x),
        lambda t: lambda x: x[0, 1:, ...] ** 2 // 3 % 2,
        lambda t: lambda x: (x > 0) & (x < 3) | ~(x == 1),
        lambda t: lambda x: x.sum(dim=1, keepdim=True).to(t.float64),
        lambda t: lambda x, n=3, *, k=None: t.add(x, n, alpha=2),
        lambda t: lambda x: [x, {"a": x.t()}, (x.mT,)],
        lambda t: lambda relu, relu_1: t.relu(relu) + relu_1.relu(),
        lambda t: lambda x: t.stack([x, x + 1], 0),
        lambda t: lambda x: t.matmul(x, x).abs_(),
        lambda t: lambda x: x @ t.eye(2),
        lambda t: lambda x: t.flatten(x, 1).size(),
    ],
)
def test_nodes_of_functions(function: Any) -> None:
    assert nodes_of(graphtorch, function(graphtorch)) == nodes_of(torch, function(torch))


def test_arguments_that_are_known_and_own_leaves() -> None:
    for package in BOTH:
        traced = of(package).symbolic_trace(lambda x, flag: x + 1 if flag else x - 1, concrete_args={"flag": True})
        assert traced(package.ones(1), True).item() == 2

        class Shallow(of(package).Tracer):  # type: ignore[misc]
            def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
                return module_qualified_name in ("seq", "inner") or super().is_leaf_module(m, module_qualified_name)

        graph = Shallow().trace(model_of(package))
        called = [n.target for n in graph.nodes if n.op == "call_module"]
        assert called == ["conv", "seq", "inner"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: [y for y in x],
        lambda x: len(x),
        lambda x: x + object(),
    ],
)
def test_what_no_trace_can_record(function: Any) -> None:
    with pytest.raises(Exception) as theirs:
        of(torch).symbolic_trace(function)
    with pytest.raises(Exception) as ours:
        fx.symbolic_trace(function)
    assert type(ours.value).__name__ == type(theirs.value).__name__
    assert str(ours.value)[:60] == str(theirs.value)[:60]
    if type(theirs.value).__name__ == "TraceError":
        assert isinstance(ours.value, TraceError)
    assert (graphtorch.relu(graphtorch.ones(1)) + 1).item() == 2, "the functions are themselves again"


def rewrites(package: Any) -> Iterator[Any]:
    f = of(package)
    module = f.symbolic_trace(lambda x, y: package.add(x, y).relu() + package.add(y, x))
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target is package.add:
            node.target = package.mul
        if node.op == "call_method":
            with module.graph.inserting_after(node):
                new = module.graph.call_function(package.sigmoid, (node.args[0],))
            node.replace_all_uses_with(new)
            module.graph.erase_node(node)
    with module.graph.inserting_before(module.graph.output_node()):
        module.graph.call_method("neg", (module.graph.output_node().args[0],))
    module.graph.lint()
    yield str(module.graph)
    yield module.graph.eliminate_dead_code()
    module.recompile()
    yield module.code
    yield module(package.ones(2), package.full((2,), 3.0)).tolist()


def test_rewriting() -> None:
    for ours, theirs in zip(rewrites(graphtorch), rewrites(torch), strict=True):
        if isinstance(ours, list):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        else:
            assert ours == theirs


def test_patterns() -> None:
    found = []
    for package in BOTH:
        f = of(package)

        t = package

        def target(x, y):  # type: ignore[no-untyped-def]
            a = t.add(x, y).relu() * 2
            b = t.add(a, x).relu()
            return a + b, t.add(x, x)

        module = f.symbolic_trace(target)
        matches = f.replace_pattern(module, lambda a, b: t.add(a, b).relu(), lambda a, b: t.maximum(a, b) - 1)
        made = module(package.tensor([1.0, -2.0]), package.tensor([3.0, 1.0]))
        calls = sorted(getattr(n.target, "__name__", str(n.target)) for n in module.graph.nodes)
        found.append((len(matches), [m.tolist() for m in made], calls))
    assert found[0] == found[1] and found[0][0] == 2


def test_graphs_made_by_hand() -> None:
    for package in BOTH:
        f = of(package)
        graph = f.Graph()
        x = graph.placeholder("x")
        w = graph.get_attr("w")
        y = graph.call_function(operator.add, (x, w))
        z = graph.call_module("act", (y,))
        graph.output(z)
        graph.lint()
        module = f.GraphModule({"w": package.nn.Parameter(package.ones(2)), "act": package.nn.Tanh()}, graph)
        assert module(package.zeros(2)).tolist() == package.ones(2).tanh().tolist()
        assert len(list(module.parameters())) == 1 and y.all_input_nodes == [x, w] and list(x.users) == [y]
        with pytest.raises(RuntimeError, match="Tried to erase Node add but it still had 1 users in the graph"):
            graph.erase_node(y)
        z.args = (x,)
        graph.eliminate_dead_code()
        module.recompile()
        assert [n.name for n in module.graph.nodes] == ["x", "act", "output"]
        with pytest.raises(RuntimeError, match="but that target was not provided"):
            f.GraphModule({}, copy.deepcopy(graph))
        with graph.inserting_before(x):
            graph.call_function(operator.neg, (z,))
        with pytest.raises(RuntimeError, match="was used before it has been defined"):
            graph.lint()


def test_interpreters_that_change_nodes() -> None:
    for package in BOTH:
        f = of(package)

        class Doubling(f.Interpreter):  # type: ignore[misc, name-defined]
            def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
                return super().call_function(target, args, kwargs) * 2

        class Swapping(f.Transformer):  # type: ignore[misc, name-defined]
            def call_function(self, target: Any, args: Any, kwargs: Any, p: Any = package) -> Any:
                return super().call_function(p.cos if target is p.sin else target, args, kwargs)

        module = f.symbolic_trace(lambda x: package.sin(x) + 1)
        x = package.zeros(1)
        assert Doubling(module).run(x).item() == 2
        assert Swapping(module).transform()(x).item() == 2
        with pytest.raises(RuntimeError, match="Expected positional argument for parameter x"):
            f.Interpreter(module).run()


def opaque(x: Any) -> Any:
    return x + 1


fx.wrap("opaque")


def test_functions_that_stay_calls() -> None:
    module = fx.symbolic_trace(lambda x: opaque(x) * 2)
    assert [n.name for n in module.graph.nodes] == ["x", "opaque", "mul", "output"]
    assert module(graphtorch.ones(1)).item() == 4
    with pytest.raises(NotImplementedError, match="top level"):
        fx.wrap("opaque")
    with pytest.raises(RuntimeError, match="Unsupported type for global function"):
        fx.wrap(3)
