"""Explanation and checking: recompile limits, check=True, logs, NaN tracing, sizes marked as dynamic."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.frontend.check import CheckError
from graphtorch.lowering.backend import Backend, register
from graphtorch.lowering.numpy.interpreter import Interpreted

HERE = r"test_checking\.py:\d+: "


def test_over_the_limit_runs_eagerly_with_a_warning_or_raises() -> None:
    f = torch.compile(lambda x, n: x * len(n), recompile_limit=2)
    for n in ("", "1"):
        f(torch.ones(2), n)
    with pytest.warns(UserWarning, match=r"its recompile_limit.*it no longer holds that n was '1'"):
        assert f(torch.ones(2), "1234567").tolist() == [7.0, 7.0]
    g = torch.compile(lambda x, n: x * n, recompile_limit=1, on_recompile="error")
    g(torch.ones(2), 1)
    with pytest.raises(RuntimeError, match=r"would be compiled again.*it no longer holds that n was 1"):
        g(torch.ones(2), 2)
    assert g(torch.ones(2), 1).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="on_recompile"):
        torch.compile(lambda x: x, on_recompile="never")


def training_step(**options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, torch.compile(step, **options) if options else step


def test_a_checked_training_step_is_the_eager_one() -> None:
    x = torch.randn(16, 4)
    plain, eager = training_step()
    torch.manual_seed(3)
    wanted = [eager(x).item() for _ in range(4)]
    model, step = training_step(check=True, fullgraph=True)
    torch.manual_seed(3)
    assert [step(x).item() for _ in range(4)] == wanted
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_environment_switches_checking_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CHECK", "1")
    assert torch.compile(lambda x: x).check and not torch.compile(lambda x: x, check=False).check


def test_what_the_capture_could_not_see_is_found_at_its_line() -> None:
    database = sqlite3.connect(":memory:")  # nobody looks into one
    database.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY)")

    def number() -> Any:
        return database.execute("INSERT INTO calls DEFAULT VALUES").lastrowid

    @torch.compile(check=True)
    def f(x: Any) -> Any:
        y = x.sin()
        z = y * number()
        return z + 1

    message = rf"(?s)result 0 is .*first operation that differs: mul: .*{HERE}z = y \* number\(\).*GT061"
    with pytest.raises(CheckError, match=message):
        f(torch.ones(3))


class _Wrong(Backend):
    """The interpreter, except that it takes tanh for sin."""

    name = "wrong"

    def compile(self, graph: Any, donations: Any = None) -> Any:
        from graphtorch.ir.graph import Graph, Node
        from graphtorch.ops.record import lookup

        changed = Graph(graph.name)
        changed.inputs, changed.nodes = list(graph.inputs), []
        mapping = {v: v for v in graph.inputs}
        for node in graph.nodes:
            args = tuple(mapping.get(a, a) if not isinstance(a, tuple) else a for a in node.args)
            op = lookup("tanh") if node.op.name == "sin" else node.op
            made = Node(op, args, [r.type for r in node.results], node.location, node.origin)
            changed.nodes.append(made)
            mapping.update(zip(node.results, made.results, strict=True))
        changed.outputs = [mapping[v] for v in graph.outputs]
        changed.output_names = list(graph.output_names)
        return Interpreted(changed, donations or {})


def test_a_wrong_backend_is_found_at_the_users_line() -> None:
    register(_Wrong())
    w = torch.nn.Parameter(torch.ones(3))

    def f(x: Any) -> Any:
        y = x * w
        z = y.sin()
        with torch.no_grad():
            w.add_(1)
        return z.sum()

    with pytest.raises(
        CheckError, match=rf"(?s)first operation that differs: sin: .*{HERE}z = y.sin\(\).*wrong backend"
    ):
        torch.compile(f, check=True, backend="wrong")(torch.ones(3))
    assert w.tolist() == [2.0, 2.0, 2.0], "the state is that of one eager call"


def test_differences_are_measured_against_the_largest_element() -> None:
    from graphtorch.frontend.check import differs

    a = np.array([1.0, 1e6], np.float32)
    assert not differs(a, a + np.array([0.01, 0.1], np.float32))
    assert "compiled" in differs(a, a * 1.01) and "elements differ" in differs(a, a * 1.01)
    assert differs(a, a.astype(np.float64)) and differs(1, 2) and not differs("x", "x")
    assert not differs(2.0, 1.9999999) and "compiled" in differs(2.0, 2.1) and differs(2.0, 2)
    nan = np.array([np.nan, np.inf])
    assert not differs(nan, nan) and differs(nan, np.array([0.0, np.inf]))


def test_logs_by_topic() -> None:
    script = "import graphtorch as t\nt.compile(lambda x: (x * 2).sum())(t.ones(3))"
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "GRAPHTORCH_LOG": "guards,graph,memory,recompiles"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for text in ("[graphtorch.guards]", "the shape of x was [3]", "[graphtorch.graph]", "mul(", "it is the first call"):
        assert text in done.stderr, text
    assert "bytes for temporaries" in done.stderr and "[graphtorch.fusion]" not in done.stderr
    environment["GRAPHTORCH_LOG"] = "guard"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert "no topic guard; there are" in done.stderr


def test_every_topic_has_something_to_say(caplog: pytest.LogCaptureFixture) -> None:
    from graphtorch.frontend.logs import TOPICS

    with caplog.at_level(logging.INFO):
        torch.compile(lambda x: (x * 2).sum(), backend="numpy")(torch.ones(3))
    seen = {r.name.removeprefix("graphtorch.") for r in caplog.records if r.getMessage()}
    assert seen >= TOPICS.keys()


def anomalous(x: Any) -> Any:
    y = x.sqrt()
    return (y * 0).sum()


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize("place", ["around the call", "around backward", "inside", "eager"])
def test_nan_is_traced_to_the_users_line(place: str) -> None:
    x = torch.zeros(3, requires_grad=True)
    message = rf"(?s)Function 'SqrtBackward0' returned nan values.*{HERE}y = x.sqrt\(\)"
    f = anomalous if place == "eager" else torch.compile(anomalous)
    f(x)
    if place == "inside":

        @torch.compile
        def step() -> None:
            with torch.autograd.detect_anomaly():
                anomalous(x).backward()

        with pytest.raises(RuntimeError, match=message):
            step()
    elif place == "around backward":
        loss = f(x)
        with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match=message):
            loss.backward()
    else:
        with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match=message):
            f(x).backward()
    loss = f(x)
    loss.backward()  # without it, NaN goes through
    assert x.grad is not None and x.grad.isnan().all()


def test_marked_sizes_are_symbolic_from_the_start() -> None:
    for mark in (torch.compiler.mark_dynamic, torch._dynamo.mark_dynamic):
        f = torch.compile(lambda x: x * 2, fullgraph=True)
        x = torch.ones(4, 3)
        mark(x, 0)
        f(x)
        for n in (5, 9, 2):
            assert f(torch.ones(n, 3)).shape == (n, 3)
        assert len(f.specializations) == 1
    with pytest.raises(IndexError):
        torch.compiler.mark_dynamic(torch.ones(2), 3)


def test_static_sizes_are_compiled_one_by_one() -> None:
    f = torch.compile(lambda x: x * 2, fullgraph=True)
    for n in (4, 5, 6):
        x = torch.ones(n)
        torch.compiler.mark_static(x)
        f(x)
    assert len(f.specializations) == 3


def test_the_compiler_module() -> None:
    f = torch.compile(lambda x: x + 1 if torch.compiler.is_compiling() else x - 1)
    assert f(torch.zeros(1)).item() == 1 and not torch.compiler.is_compiling()
    torch.compiler.reset()
    assert not f.specializations
    assert "1 specialization" in str(torch._dynamo.explain(lambda x: x * 2)(torch.ones(2)))
    assert "cpu" in torch.compiler.list_backends()


def test_the_reason_names_argument_and_dimension() -> None:
    f = torch.compile(lambda x, y: (x * 2, y), fullgraph=True)
    f(torch.ones(4, 3), torch.ones(2))
    f(torch.ones(4, 5), torch.ones(2))
    assert f.specializations[1].reason.endswith("(x.shape[1] is 5, was 3)")


def test_a_function_kept_out_of_graphs() -> None:
    seen: list[bool] = []

    @torch.compiler.disable(reason="it talks to a server")
    def ask(x: Any) -> Any:
        seen.append(torch.compiler.is_compiling())
        return x + 1

    with pytest.warns(UserWarning, match=r"calls ask, which is kept out of graphs \(it talks to a server\)"):
        assert torch.compile(lambda x: ask(x) * 2)(torch.ones(1)).item() == 4
    with pytest.raises(RuntimeError, match="calls ask"):
        torch.compile(lambda x: ask(x) * 2, fullgraph=True)(torch.ones(1))
    assert seen == [False]
