"""Dispatch modes, counts of operations and selective checkpointing beside PyTorch's."""

from __future__ import annotations

import functools
import importlib
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from graphtorch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from graphtorch.utils.flop_counter import FlopCounterMode, register_flop_formula
from graphtorch.utils.module_tracker import ModuleTracker

torch = pytest.importorskip("torch")
BOTH = (graphtorch, torch)


def of(package: Any, name: str) -> Any:
    return importlib.import_module(f"{package.__name__}.utils.{name}")


class Names(TorchDispatchMode):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        assert not any(isinstance(a, graphtorch.Tensor) and a.requires_grad for a in args)
        return func(*args, **(kwargs or {}))


# -- modes ------------------------------------------------------------------------------------------------------------


def test_a_mode_sees_operators_and_changes_nothing() -> None:
    x = graphtorch.arange(6.0).reshape(2, 3).requires_grad_()
    layer = graphtorch.nn.Linear(3, 2)

    def run() -> Any:
        y = layer(x)
        y = y[0] * 2 + y.t().sum()
        y.square().sum().backward()
        found = x.grad, layer.weight.grad
        x.grad = layer.weight.grad = layer.bias.grad = None
        return found

    plain = run()
    with Names() as names:
        watched = run()
    assert all(graphtorch.equal(a, b) for a, b in zip(plain, watched))
    assert "aten.addmm.default" in names.seen and "aten.mm.default" in names.seen and "aten.mul.Tensor" in names.seen
    count = len(names.seen)
    run()
    assert len(names.seen) == count


def test_a_mode_s_answer_is_the_result() -> None:
    class Zeros(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            return graphtorch.zeros_like(made) if func is graphtorch.ops.aten.mul.Tensor else made

    x = graphtorch.ones(3, requires_grad=True)
    with Zeros():
        y = x * 2
        z = graphtorch.ones(3)
        z.mul_(3)
    assert y.tolist() == [0, 0, 0] and y.requires_grad
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]


def test_in_place_views_and_nesting() -> None:
    x = graphtorch.zeros(4)
    with Names() as outer, Names() as inner:
        x[1:3].add_(1)
        x.view(2, 2)[0].mul_(2)
    assert x.tolist() == [0, 2, 1, 0]
    assert [name.split(".")[1] for name in inner.seen] == ["slice", "add_", "view", "select", "mul_"]
    assert "aten.add_.Tensor" in inner.seen and inner.seen.count("aten.mul_.Tensor") == 1 and outer.seen
    with Names() as names, _disable_current_modes():
        graphtorch.ones(2) + 1
    assert not names.seen


def test_other_threads_and_compiled_functions() -> None:
    f = graphtorch.compile(lambda x: (x @ x).sin())
    x = graphtorch.ones(3, 3)
    expected = f(x)
    with Names() as names:
        made: list[Any] = []
        thread = threading.Thread(target=lambda: made.append(graphtorch.ones(2) + 1))
        thread.start()
        thread.join()
        assert not names.seen and made[0].tolist() == [2, 2]
        np.testing.assert_allclose(f(x).numpy(), expected.numpy(), rtol=1e-6)
    assert names.seen == ["aten.mm.default", "aten.sin.default"]


def test_a_mode_inside_of_a_compiled_function_runs_eagerly() -> None:
    names = Names()

    @graphtorch.compile
    def f(x: Any) -> Any:
        with names:
            return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            f(graphtorch.ones(2))
    assert names.seen == ["aten.add.Tensor"] * 2


def test_refusals() -> None:
    class Refusing(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

    with pytest.raises(TypeError, match="all __torch_dispatch__ handlers returned NotImplemented"), Refusing():
        graphtorch.ones(2) + 1
    assert (graphtorch.ones(2) + 1).tolist() == [2, 2]


def test_operators_by_their_names() -> None:
    a = graphtorch.ones(2, 3)
    aten = graphtorch.ops.aten
    assert aten.mm.default is aten.mm.default and aten.mm.default != aten.bmm.default
    assert str(aten.add.Tensor) == str(torch.ops.aten.add.Tensor) and repr(aten.mm) == repr(torch.ops.aten.mm)
    assert repr(aten.mm.default) == repr(torch.ops.aten.mm.default)
    assert aten.add.Tensor.name() == torch.ops.aten.add.Tensor.name()
    assert aten.mm.default.name() == torch.ops.aten.mm.default.name()
    assert aten.mm(a, a.t()).tolist() == aten.mm.default(a, a.t()).tolist() == (a @ a.t()).tolist()
    assert aten.relu(a - 2).sum().item() == 0
    with pytest.raises(NotImplementedError, match="can't be called by this name"):
        aten._scaled_dot_product_flash_attention(a, a, a)
    with pytest.raises(AttributeError):
        graphtorch.ops.nothing  # noqa: B018


# -- counts -----------------------------------------------------------------------------------------------------------


def network(package: Any) -> Any:
    nn = package.nn

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, padding=1, stride=2, groups=2)
            self.norm = nn.BatchNorm2d(8)
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.mlp = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 5, bias=False))
            self.rnn = nn.GRU(5, 6, batch_first=True)
            self.last = nn.Conv1d(6, 4, 3)

        def forward(self, x: Any) -> Any:
            y = self.up(self.norm(self.conv(x)).relu())
            y, _ = self.rnn(self.mlp(y.mean(-1).transpose(1, 2)))
            return self.last(y.transpose(1, 2)).sum()

    return Network()


def test_operations_of_a_network() -> None:
    totals = []
    for package in BOTH:
        model, x = network(package), package.ones(2, 4, 64, 64)
        with of(package, "flop_counter").FlopCounterMode(display=False) as forward:
            model(x)
        with of(package, "flop_counter").FlopCounterMode(display=False) as both:
            model(x).backward()
        counts = both.get_flop_counts()
        modules = {name: sum(counts[name].values()) for name in counts if name.count(".") > 0}
        totals.append((forward.get_total_flops(), both.get_total_flops(), modules))
    ours, theirs = totals
    assert ours[:2] == theirs[:2]
    # A GRU's products with its state are counted for the module, too, while it goes back.
    for counts in (ours[2], theirs[2]):
        counts.pop("Network.rnn")
    assert ours[2] == theirs[2]


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.baddbmm(t.ones(2, 3, 4), t.ones(2, 3, 5), t.ones(2, 5, 4), beta=2),
        lambda t: t.addmm(t.ones(3), t.ones(2, 4), t.ones(4, 3)),
        lambda t: t.ones(3, 4) @ t.ones(4),
        lambda t: t.einsum("bij,bjk->bik", t.ones(2, 3, 4), t.ones(2, 4, 5)),
        lambda t: t.ones(2, 2, 3, 4) @ t.ones(4, 5),
        lambda t: t.nn.functional.linear(t.ones(2, 3, 4), t.ones(5, 4)),
        lambda t: t.nn.functional.linear(t.ones(2, 3, 4), t.ones(5, 4), t.ones(5)),
        lambda t: t.nn.functional.conv2d(t.ones(1, 2, 8, 8, device="meta"), t.ones(4, 2, 3, 3, device="meta")),
        lambda t: t.ones(2, 3).sin().sum(),
    ],
)
def test_operations_of_single_calls(call: Any) -> None:
    found = []
    for package in BOTH:
        with of(package, "flop_counter").FlopCounterMode(display=False) as counter:
            call(package)
        found.append({str(k): v for k, v in counter.get_flop_counts().get("Global", {}).items()})
    assert found[0] == found[1]


def test_attention_is_its_two_products() -> None:
    q = graphtorch.ones(2, 3, 8, 4)
    with FlopCounterMode(display=False) as counter:
        graphtorch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * (2 * 6 * 8 * 8 * 4)


def test_formulas_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    aten = graphtorch.ops.aten
    x = graphtorch.ones(10)
    mapping = {aten.sin: lambda shape, out_shape=None: shape[0] * out_shape[0]}
    with FlopCounterMode(custom_mapping=mapping) as counter:
        x.sin()
    assert counter.get_flop_counts() == {"Global": {aten.sin: 100}}
    assert capsys.readouterr().out.splitlines() == [
        "Module          FLOP    % Total",
        "-----------  -------  ---------",
        "Global       100.000    100.00%",
        " - aten.sin  100.000    100.00%",
    ]
    with pytest.raises(RuntimeError, match=r"duplicate registrations for aten\.mm"):
        register_flop_formula(aten.mm)(lambda *a, **k: 0)
    with pytest.raises(ValueError, match="expected each target to be"):
        register_flop_formula(aten.mm.default)(lambda *a, **k: 0)
    with pytest.warns(UserWarning, match="mods argument is not needed"):
        FlopCounterMode(graphtorch.nn.ReLU())


def test_modules_that_run() -> None:
    seen: list[tuple[bool, list[str]]] = []

    class Inner(graphtorch.nn.Module):
        def forward(self, x: Any) -> Any:
            seen.append((tracker.is_bw, sorted(tracker.parents)))
            x = x * 1
            x.register_hook(lambda g: seen.append((tracker.is_bw, sorted(tracker.parents))))
            return x * 2

    with ModuleTracker() as tracker:
        model = graphtorch.nn.Sequential(Inner())
        model(graphtorch.ones(2, requires_grad=True)).sum().backward()
        assert tracker.parents == {"Global"} and not tracker.is_bw
    assert seen[0] == (False, ["Global", "Sequential", "Sequential.0"])
    assert seen[1] == (True, ["Global", "Sequential", "Sequential.0"])
    done: list[int] = []
    x = graphtorch.ones(2, requires_grad=True)
    engine = graphtorch.autograd.Variable._execution_engine
    x.register_hook(lambda g: engine.queue_callback(lambda: done.append(1)))
    x.sum().backward()
    assert done == [1]
    with pytest.raises(RuntimeError, match="during backward pass"):
        engine.queue_callback(lambda: None)


# -- selective checkpointing ------------------------------------------------------------------------------------------


def chain(package: Any, x: Any, w: Any) -> Any:
    return package.sigmoid(package.matmul(package.matmul(x, w), w)).mul(2).add(x)


def operands(package: Any) -> tuple[Any, Any]:
    x = package.arange(12.0).reshape(3, 4) / 10
    return x.requires_grad_(), (package.arange(16.0).reshape(4, 4) / 20 - 0.3).requires_grad_()


def as_list(package: Any, log: list[str]) -> Any:
    return [package.ops.aten.mm.default]


def as_function(package: Any, log: list[str]) -> Any:
    policies = of(package, "checkpoint").CheckpointPolicy

    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
        log.append(f"{op} {list(ctx.op_output.shape)} {len(args)}")
        keeps = op == package.ops.aten.mm.default
        return policies.MUST_SAVE if keeps else policies.PREFER_RECOMPUTE

    return policy


def as_bools(package: Any, log: list[str]) -> Any:
    return lambda ctx, op, *args, **kwargs: "sigmoid" in str(op)


@pytest.mark.parametrize("policy", [as_list, as_function, as_bools])
def test_results_and_calls_are_pytorch_s(policy: Any) -> None:
    found = []
    for package in BOTH:
        x, w = operands(package)
        log: list[str] = []
        contexts = of(package, "checkpoint").create_selective_checkpoint_contexts
        with of(package, "flop_counter").FlopCounterMode(display=False) as counter:
            loss = of(package, "checkpoint").checkpoint(
                functools.partial(chain, package), x, w, use_reentrant=False,
                context_fn=functools.partial(contexts, policy(package, log)),
            )  # fmt: skip
            loss.square().sum().backward()
        found.append((loss.tolist(), x.grad.tolist(), w.grad.tolist(), log, counter.get_total_flops()))
    ours, theirs = found
    for mine, other in zip(ours[:3], theirs[:3]):
        np.testing.assert_allclose(mine, other, rtol=1e-5)
    assert ours[3:] == theirs[3:]


def test_compiled_steps_keep_what_the_policy_says() -> None:
    def products(policy: Any) -> tuple[int, list[Any]]:
        x, w = operands(graphtorch)
        contexts = functools.partial(create_selective_checkpoint_contexts, policy)

        @functools.partial(graphtorch.compile, fullgraph=True)
        def step(x: Any, w: Any) -> Any:
            call = functools.partial(chain, graphtorch)
            for _ in range(3):  # what the last one keeps is used at once
                x = checkpoint(call, x, w, use_reentrant=False, context_fn=contexts)
            loss = x.square().sum()
            loss.backward()
            return loss

        step(x, w)
        graph = step.specializations[0].compiled.stages.optimized
        return sum(n.op.name == "mm" for n in graph.nodes), [x.grad.tolist(), w.grad.tolist()]

    aten = graphtorch.ops.aten
    kept, first = products([aten.mm.default])
    again, second = products(lambda ctx, op, *args, **kwargs: CheckpointPolicy.PREFER_RECOMPUTE)
    np.testing.assert_allclose(first[0], second[0], rtol=1e-6)
    np.testing.assert_allclose(first[1], second[1], rtol=1e-6)
    assert kept < again


def test_misuse() -> None:
    aten = graphtorch.ops.aten
    with pytest.raises(ValueError, match=r"change it to `torch\.ops\.aten\.mm\.default`"):
        create_selective_checkpoint_contexts([aten.mm])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="must be either a function or a list of ops"):
        create_selective_checkpoint_contexts(3)  # type: ignore[arg-type]
    x, w = operands(graphtorch)
    contexts = functools.partial(create_selective_checkpoint_contexts, [aten.mm.default])
    loss = checkpoint(functools.partial(chain, graphtorch), x, w, use_reentrant=False, context_fn=contexts).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="Trying to backward an extra time"):
        loss.backward()

    def changes(x: Any, w: Any) -> Any:
        y = x @ w
        z = y.sin()
        y.add_(1)
        return (z * y).sum()

    loss = checkpoint(changes, x, w, use_reentrant=False, context_fn=contexts)
    with pytest.raises(RuntimeError, match="has been mutated"):
        loss.backward()
