"""`@compile` against eager execution: results, side effects, state, errors.

Each program runs twice from the same state, once eagerly and once compiled, call by call; everything that a user can
observe must agree."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn, optim
from graphtorch.frontend import CaptureError

BACKENDS = ("numpy", "interpreter")


def arrays(value):
    """The tensors of a nested result as arrays, with their requires_grad."""
    if isinstance(value, torch.Tensor):
        return (value.detach().numpy().copy(), value.requires_grad)
    if isinstance(value, (list, tuple)):
        return [arrays(v) for v in value]
    if isinstance(value, dict):
        return {k: arrays(v) for k, v in value.items()}
    return value


def assert_same(actual, expected, rtol=1e-5, atol=1e-6):
    if isinstance(expected, tuple) and len(expected) == 2 and isinstance(expected[0], np.ndarray):
        np.testing.assert_allclose(actual[0], expected[0], rtol=rtol, atol=atol)
        assert actual[0].dtype == expected[0].dtype
        assert actual[1] == expected[1]
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            assert_same(a, e, rtol, atol)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same(actual[key], expected[key], rtol, atol)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=rtol, abs=atol)
    else:
        assert actual == expected


def mlp(seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    return model


def batch(n=6, seed=1):
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.standard_normal((n, 8)).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 4, n)),
    )


def training_step(model, optimizer):
    criterion = nn.CrossEntropyLoss()

    def step(x, y):
        optimizer.zero_grad()
        output = model(x)
        loss = criterion(output, y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def model_state(model, optimizer=None):
    found = {k: arrays(v) for k, v in model.state_dict().items()}
    found["grads"] = [None if p.grad is None else arrays(p.grad) for p in model.parameters()]
    if optimizer is not None:
        found["state"] = arrays(optimizer.state_dict()["state"])
    return found


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_step_equals_eager(name, backend):
    runs = []
    for compiled in (False, True):
        model = mlp()
        optimizer = OPTIMIZERS[name](model.parameters())
        step = training_step(model, optimizer)
        if compiled:
            step = torch.compile(step, backend=backend)
        losses = [step(*batch(seed=i)).item() for i in range(6)]
        runs.append((losses, model_state(model, optimizer)))
    assert_same(runs[1][0], runs[0][0])
    assert_same(runs[1][1], runs[0][1], rtol=1e-4, atol=1e-5)
    assert len(step.explain().specializations) == 1


def test_one_graph_without_break():
    model = mlp()
    step = torch.compile(training_step(model, optim.SGD(model.parameters(), lr=0.1)))
    step(*batch())
    (specialization,) = step.specializations
    names = [n.op.name for n in specialization.compiled.stages.captured.nodes]
    assert names.count("gradient") == 1
    assert specialization.captured.written, "the parameters are updated by the graph"


def test_learning_rate_change_takes_effect_without_recompilation():
    runs = []
    for compiled in (False, True):
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = training_step(model, optimizer)
        if compiled:
            step = torch.compile(step)
        losses = []
        for i in range(5):
            optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
            losses.append(step(*batch(seed=i)).item())
        runs.append(losses)
    assert_same(runs[1], runs[0])
    assert len(step.specializations) == 1


def test_momentum_change_takes_effect_and_is_explained():
    runs = []
    for compiled in (False, True):
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = training_step(model, optimizer)
        if compiled:
            step = torch.compile(step)
        losses = []
        for i in range(4):
            if i == 2:
                optimizer.param_groups[0]["momentum"] = 0.5
            losses.append(step(*batch(seed=i)).item())
        runs.append(losses)
    assert_same(runs[1], runs[0])
    _, second = step.explain().specializations
    assert "momentum" in second.reason


def test_partial_batch_and_symbolic_sizes():
    runs = []
    for compiled in (False, True):
        model = mlp()
        step = training_step(model, optim.SGD(model.parameters(), lr=0.1))
        if compiled:
            step = torch.compile(step)
        runs.append([step(*batch(n, seed=n)).item() for n in (6, 6, 5, 6, 4, 9, 2)])
    assert_same(runs[1], runs[0])
    assert len(step.specializations) == 2, "the second size is compiled symbolically and serves all others"
    assert "shape" in step.explain().specializations[1].reason


def test_size_one_is_specialised():
    runs = []
    for compiled in (False, True):
        model = mlp()
        step = training_step(model, optim.SGD(model.parameters(), lr=0.1))
        if compiled:
            step = torch.compile(step)
        runs.append([step(*batch(n, seed=n)).item() for n in (6, 5, 1, 7)])
    assert_same(runs[1], runs[0])
    assert len(step.specializations) == 3


def test_train_and_eval():
    runs = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 4))
        forward = (lambda x: model(x).sum()) if not compiled else torch.compile(lambda x: model(x).sum())
        x, _ = batch()
        torch.manual_seed(3)
        values = []
        with torch.no_grad():
            for i in range(6):
                model.train(i % 3 != 2)
                values.append(forward(x).item())
        runs.append(values)
    assert_same(runs[1], runs[0])
    assert runs[0][0] != runs[0][1], "dropout draws new masks"
    reasons = [s.reason for s in forward.explain().specializations]
    assert len(reasons) == 2 and "training" in reasons[1]


def test_zero_grad_forms_and_accumulation():
    for set_to_none in (True, False):
        runs = []
        for compiled in (False, True):
            model = mlp()
            optimizer = optim.SGD(model.parameters(), lr=0.1)

            def micro(x, y):
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss.detach()

            def update():
                optimizer.step()
                optimizer.zero_grad(set_to_none=set_to_none)

            if compiled:
                micro, update = torch.compile(micro), torch.compile(update)
            states = []
            for i in range(3):
                for j in range(2):
                    micro(*batch(seed=10 * i + j))
                    states.append(model_state(model))
                update()
                states.append(model_state(model))
            runs.append(states)
        assert_same(runs[1], runs[0], rtol=1e-4, atol=1e-5)


def test_backward_outside():
    runs = []
    for compiled in (False, True):
        model = mlp()
        forward = torch.compile(lambda x: model(x)) if compiled else model
        grads = []
        for i in range(3):
            x, y = batch(seed=i)
            x.requires_grad_()
            model.zero_grad()
            loss = nn.functional.cross_entropy(forward(x), y)
            loss.backward()
            grads.append([arrays(p.grad) for p in (*model.parameters(), x)])
        runs.append(grads)
    assert_same(runs[1], runs[0])


def test_backward_outside_with_dropout_uses_the_same_mask():
    runs = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), nn.Linear(32, 4))
        forward = torch.compile(lambda x: model(x)) if compiled else model
        torch.manual_seed(5)
        x, _ = batch()
        out = forward(x)
        out.square().sum().backward()
        runs.append([arrays(p.grad) for p in model.parameters()])
    assert_same(runs[1], runs[0], rtol=1e-4, atol=1e-5)


def test_backward_twice_outside_needs_retain_graph():
    model = mlp()
    forward = torch.compile(lambda x: model(x).sum())
    loss = forward(batch()[0])
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_second_derivative_inside():
    def penalty(x):
        y = (x**3).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        z = g.square().sum()
        (h,) = torch.autograd.grad(z, x)
        return g.detach(), h

    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    expected = arrays(penalty(x))
    for backend in BACKENDS:
        assert_same(arrays(torch.compile(penalty, backend=backend)(x)), expected)


def run_both(function, make, calls=3, backend="numpy"):
    """Call a function on fresh state, eagerly and compiled; compare results and what became of the arguments."""
    seen = []
    for compiled in (False, True):
        torch.manual_seed(0)
        args = make()
        called = torch.compile(function, backend=backend) if compiled else function
        results = []
        for _ in range(calls):
            results.append(arrays(called(*args)))
        seen.append((results, arrays(list(args))))
    assert_same(seen[1], seen[0])


def vector():
    return torch.arange(6, dtype=torch.float32)


def inplace_on_view(x):
    x[1:3] += 10
    x.view(2, 3)[0].mul_(2)
    return x.sum()


def masked_write(x):
    x[x > 3] = 0
    return x + 1


def view_sees_write(x):
    row = x.view(2, 3)[1]
    x.add_(1)
    return row * 1


def temporary_mutation(x):
    y = x * 2
    z = y.view(2, 3)
    z[0, 0] = 5
    y.clamp_(max=7)
    return y, z.sum()


def swap(x):
    y = x.clone()
    x.copy_(y.flip(0))
    return y


def out_form(x):
    y = torch.empty_like(x)
    torch.mul(x, 3, out=y)
    return y


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "function",
    [inplace_on_view, masked_write, view_sees_write, temporary_mutation, swap, out_form],
    ids=lambda f: f.__name__,
)
def test_mutation(function, backend):
    run_both(function, lambda: (vector(),), backend=backend)


def test_results_alias_as_in_eager():
    @torch.compile
    def f(x):
        y = x * 2
        return x, x.view(2, 3), y, y.view(3, 2)

    x = vector()
    for _ in range(2):
        same, view, y, w = f(x)
        assert same is x
        view[0, 0] = 100
        assert x[0].item() == 100
        w[0, 1] = -1
        assert y[1].item() == -1


def test_results_own_their_memory():
    @torch.compile
    def f(x):
        return x + 1, x + 1, x.t() if x.ndim == 2 else x * 1

    x = vector()
    first = f(x)
    kept = arrays(list(first))
    first[0].zero_()
    assert_same(arrays(first[1]), kept[1])
    second = f(x + 5)
    assert_same(arrays(first[2]), kept[2])
    second[2].zero_()
    assert x.sum().item() == 15


def test_a_call_leaves_no_cycle_behind():
    """Results that only the collector frees can't hand their memory to the next call."""

    @torch.compile
    def f(x):
        y = x * 2
        return y, y.view(2, 3), x.t() if x.ndim == 2 else x[1:]

    x = vector()
    for _ in range(3):
        f(x)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            f(x)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_identity_result_is_a_copy():
    @torch.compile
    def f(x):
        return x * 1, x.clone()

    x = vector()
    for result in f(x):
        result.zero_()
    assert x.sum().item() == 15


def test_changed_closure_value_and_global_are_seen():
    scale = 2.0

    @torch.compile
    def f(x):
        return x * scale

    assert f(vector())[1].item() == 2.0
    scale = 5.0
    assert f(vector())[1].item() == 5.0
    assert "scale" in f.explain().specializations[1].reason


def test_nested_containers():
    @torch.compile
    def f(data, *, flip=False):
        a, b = data["pair"]
        return {"sum": a + b, "list": [a - b, (a * b, "text", 3)], "flag": flip}

    for flip in (False, True, False):
        result = f({"pair": (vector(), vector() + 1)}, flip=flip)
        assert result["flag"] is flip
        assert result["list"][1][1:] == ("text", 3)
        assert result["sum"][2].item() == 5.0
    assert len(f.specializations) == 2


def test_replaced_parameter_and_frozen_layer_are_seen():
    model = mlp()
    step = torch.compile(lambda x: model(x).sum())
    x, _ = batch()
    with torch.no_grad():
        before = step(x).item()
        model[0] = nn.Linear(8, 16)
        after = step(x).item()
        assert after == pytest.approx(model(x).sum().item(), rel=1e-5)
        assert after != before
        model[2].weight.data = torch.zeros(4, 16)
        assert step(x).item() == pytest.approx(model(x).sum().item(), rel=1e-5)


def test_load_state_dict_is_seen():
    model, other = mlp(0), mlp(1)
    step = torch.compile(lambda x: model(x).sum())
    x, _ = batch()
    with torch.no_grad():
        step(x)
        model.load_state_dict(other.state_dict())
        assert step(x).item() == pytest.approx(other(x).sum().item(), rel=1e-5)
    assert len(step.specializations) == 1


def test_random_numbers_are_those_of_eager():
    def f(x):
        return x + torch.rand(6), torch.randn(6) * x, torch.nn.functional.dropout(x, 0.5)

    run_both(f, lambda: (vector(),), calls=4)


def test_decorator_forms():
    @torch.compile
    def plain(x):
        return x + 1

    @torch.compile(backend="interpreter", dynamic=False)
    def options(x):
        return x + 1

    class Model:
        def __init__(self, scale):
            self.scale = scale

        @torch.compile
        def forward(self, x):
            return x * 2

    assert plain(vector())[0].item() == 1
    assert options(vector())[0].item() == 1
    assert Model(1).forward(vector())[1].item() == 2
    assert plain.__name__ == "plain"


def test_recompile_limit_runs_eagerly_with_one_warning():
    @torch.compile(recompile_limit=2)
    def f(x, k):
        return x * len(k)

    f(vector(), "a")
    f(vector(), "ab")
    with pytest.warns(UserWarning, match="recompile_limit"):
        assert f(vector(), "abc")[1].item() == 3
    assert f(vector(), "abcd")[1].item() == 4
    assert f.explain().eager_calls == 2


class TestErrors:
    def test_decision_on_data(self):
        @torch.compile(fullgraph=True)
        def f(x):
            if x.sum() > 0:
                return x
            return -x

        with pytest.raises(CaptureError, match=r"compiled_functions.py:\d+: if x.sum\(\) > 0(.|\n)*torch.where"):
            f(vector())

    def test_reading_data(self):
        @torch.compile(fullgraph=True)
        def f(x):
            return x.tolist()

        with pytest.raises(CaptureError, match="tolist"):
            f(vector())

    def test_shape_mismatch_names_operator_and_line(self):
        @torch.compile
        def f(x, y):
            return x + y

        with pytest.raises(RuntimeError, match=r"(?s)must match.*in add\(.*test_compiled_functions.py:\d+: return x"):
            f(vector(), torch.ones(5))

    def test_saved_value_changed_in_place(self):
        def f(w):
            y = w.exp()
            y.add_(1)
            y.sum().backward()

        w = torch.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            f(w)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.compile(f)(w)
        assert w.grad is None

    def test_backward_twice(self):
        def f(w):
            loss = w.exp().sum()
            loss.backward()
            loss.backward()

        w = torch.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="second time"):
            torch.compile(f, fullgraph=True)(w)
        assert w.grad is None, "a failed capture changes nothing"
        with pytest.raises(RuntimeError, match="second time"):
            torch.compile(f)(w)
        assert w.grad.tolist() == pytest.approx([math.e] * 3), "the first pass was none of it"

    def test_leaf_changed_in_place(self):
        def f(w):
            w.add_(1)

        w = torch.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            torch.compile(f)(w)
        assert w.sum().item() == 3

    def test_index_out_of_range_leaves_parameters_alone(self):
        torch.manual_seed(0)
        table = nn.Embedding(5, 3)
        optimizer = optim.SGD(table.parameters(), lr=0.1)

        @torch.compile
        def step(i):
            optimizer.zero_grad()
            loss = table(i).sum()
            loss.backward()
            optimizer.step()
            return loss

        step(torch.tensor([0, 1]))
        before = table.weight.detach().clone()
        with pytest.raises(IndexError):
            step(torch.tensor([0, 9]))
        assert torch.equal(table.weight, before)
