"""Calls after the second go through written code with cheap checks: whatever changes between calls must still be seen.

Every case trains one model eagerly and one compiled, changes both in the same way after some steps, and goes on."""

import copy

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn

BACKENDS = ["cpu", "numpy", "interpreter"]


class World:
    """A small model, its optimizer, and a training step that also reads a closure variable and a global-like dict."""

    def __init__(self, momentum=0.0):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=momentum)
        self.settings = {"scale": 1.0}
        criterion = nn.CrossEntropyLoss()
        model, optimizer, settings = self.model, self.optimizer, self.settings

        def step(x, y):
            optimizer.zero_grad()
            loss = criterion(model(x) * settings["scale"], y)
            loss.backward()
            optimizer.step()
            return loss

        self.plain = self.step = step
        rng = np.random.default_rng(1)
        self.x = torch.from_numpy(rng.standard_normal((5, 6)).astype(np.float32))
        self.y = torch.from_numpy(rng.integers(0, 3, 5))

    def run(self, count):
        return [float(self.step(self.x, self.y).detach()) for _ in range(count)]

    def values(self):
        return [p.detach().numpy().copy() for p in self.model.parameters()]


def table_cleared(w):
    w.model[0].register_forward_hook(lambda m, i, o: o * 3)
    w.run(3)
    w.model[0]._forward_hooks.clear()


def table_replaced(w):
    w.model[0].register_forward_hook(lambda m, i, o: o * 3)
    w.run(3)
    w.model[0]._forward_hooks = type(w.model[0]._forward_hooks)()


def hook_removed(w):
    handle = w.model[3].weight.register_hook(lambda g: g * 0.5)
    w.run(3)
    handle.remove()


def data_swapped_back_and_forth(w):
    weight = w.model[0].weight
    other, own = torch.full_like(weight, 0.25), weight.data
    for data in (other, own, other):
        weight.data = data
        w.run(2)


def new_layer(w):
    layer = nn.Linear(6, 8)
    for p in layer.parameters():
        p.data = torch.full_like(p, 0.1)
    return layer


def wider(w):
    torch.manual_seed(5)
    w.model[0].weight.data = torch.randn(16, 6)
    w.model[0].bias.data = torch.randn(16)
    w.model[3].weight.data = torch.randn(3, 16)
    for p in w.model.parameters():
        p.grad = None


def loaded(w):
    state = copy.deepcopy(w.optimizer.state_dict())
    state["param_groups"][0]["lr"] = 0.5
    w.optimizer.load_state_dict(state)


def replaced_state(w):
    for own in w.optimizer.state.values():
        own["momentum_buffer"] = torch.ones_like(own["momentum_buffer"])


def smaller_group(w):
    w.optimizer.param_groups[0]["params"] = w.optimizer.param_groups[0]["params"][:2]


def other_batch(w):
    w.x, w.y = torch.cat([w.x, w.x]), torch.cat([w.y, w.y])


def transposed_batch(w):
    w.x = w.x.t().contiguous().t()


def another_dictionary(w):
    for module in w.model:
        module.__dict__ = dict(vars(module))
    w.run(3)
    w.model[2].p = 1.0


# What to change; whether a new capture is expected.
CHANGES = {
    "lr": (lambda w: w.optimizer.param_groups[0].update(lr=0.01), False),
    "lr by item": (lambda w: w.optimizer.param_groups[0].__setitem__("lr", 0.3), False),
    "lr an integer": (lambda w: w.optimizer.param_groups[0].__setitem__("lr", 1), True),
    "momentum": (lambda w: w.optimizer.param_groups[0].__setitem__("momentum", 0.9), True),
    "weight decay": (lambda w: w.optimizer.param_groups[0].update(weight_decay=0.1), True),
    "fewer parameters": (smaller_group, True),
    "parameter list cut": (lambda w: w.optimizer.param_groups[0]["params"].pop(), True),
    "optimizer loaded": (loaded, True),
    "momentum replaced": (replaced_state, True),
    "eval": (lambda w: w.model.eval(), True),
    "training through the dictionary": (lambda w: vars(w.model[2]).update(training=False), True),
    "dropout probability": (lambda w: setattr(w.model[2], "p", 1.0), True),
    "parameter frozen": (lambda w: w.model[0].weight.requires_grad_(False), True),
    "parameter replaced": (lambda w: setattr(w.model[0], "bias", nn.Parameter(torch.ones(8))), True),
    "parameter in the table": (lambda w: w.model[0]._parameters.update(bias=nn.Parameter(torch.ones(8))), True),
    "parameter dropped": (lambda w: w.model[0].register_parameter("bias", None), True),
    "module replaced": (lambda w: w.model.__setitem__(0, new_layer(w)), True),
    "module in the table": (lambda w: w.model._modules.update({"0": new_layer(w)}), True),
    "module appended": (lambda w: w.model.append(nn.Sigmoid()), True),
    "data": (lambda w: setattr(w.model[0].weight, "data", torch.full((8, 6), 0.2)), False),
    "data swapped": (data_swapped_back_and_forth, False),
    "data of other sizes": (wider, True),
    "data in place": (lambda w: w.model[0].weight.data.fill_(0.3), False),
    "forward hook": (lambda w: w.model[0].register_forward_hook(lambda m, i, o: o * 2), True),
    "forward pre-hook": (lambda w: w.model[3].register_forward_pre_hook(lambda m, i: (i[0] * 2,)), True),
    "backward hook": (lambda w: w.model[0].register_full_backward_pre_hook(lambda m, g: (g[0] * 2,)), True),
    "hooks cleared": (table_cleared, False),
    "hooks replaced": (table_replaced, False),
    "tensor hook": (lambda w: w.model[0].weight.register_hook(lambda g: g * 0.5), True),
    "tensor hook removed": (hook_removed, False),
    "forward of one module": (lambda w: setattr(w.model[1], "forward", lambda x: x * 0.5), True),
    "another dictionary": (lambda w: setattr(w.model[2], "__dict__", {**vars(w.model[2]), "training": False}), True),
    "dictionary of the same, then changed": (another_dictionary, True),
    "settings": (lambda w: w.settings.update(scale=2.0), True),
    "larger batch": (other_batch, True),
    "batch in another order": (transposed_batch, True),
    "batch of other values": (lambda w: setattr(w, "x", w.x * 2), False),
    "batch that is a view": (lambda w: setattr(w, "x", torch.cat([w.x, w.x])[:5]), False),
    "batch that requires grad": (lambda w: setattr(w, "x", w.x.clone().requires_grad_()), True),
    "float64": (lambda w: (w.model.double(), setattr(w, "x", w.x.double()), w.optimizer.zero_grad()), True),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CHANGES)
def test_changes_between_calls(name, backend):
    change, recaptured = CHANGES[name]
    momentum = 0.5 if name in ("optimizer loaded", "momentum replaced") else 0.0
    eager, compiled = World(momentum), World(momentum)
    compiled.step = torch.compile(compiled.plain, backend=backend)
    expected, found = eager.run(4), compiled.run(4)
    assert compiled.step.specializations[0].replay is not None
    change(eager)
    change(compiled)
    before = len(compiled.step.specializations)
    expected += eager.run(4)
    found += compiled.run(4)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    for a, b in zip(compiled.values(), eager.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
    assert (len(compiled.step.specializations) > before) == recaptured
    assert compiled.step.eager_calls == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_shape_of_the_memory_changed_by_numpy(backend):
    """An array that is the same object but has another shape."""
    bias = torch.ones(3)
    f = torch.compile(lambda x: x * 2 + bias, backend=backend)
    x = torch.zeros(3, 3)
    for _ in range(3):
        f(x)
    bias.numpy().shape = (3, 1)
    bias.numpy()[:] = np.arange(3.0)[:, None]
    np.testing.assert_array_equal(f(x).numpy(), np.arange(3.0)[:, None] + np.zeros((3, 3)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_modes(backend):
    weight = torch.ones(3, requires_grad=True)
    f = torch.compile(lambda x: x * weight, backend=backend)
    x = torch.arange(3.0)
    for _ in range(3):
        assert f(x).requires_grad
    with torch.no_grad():
        for _ in range(3):
            assert not f(x).requires_grad
    assert f(x).requires_grad
    f = torch.compile(lambda x: x + torch.full((3,), 1.5), backend=backend)
    for _ in range(3):
        assert f(x).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        for _ in range(3):
            assert f(x).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_structures_of_arguments_and_results():
    @torch.compile
    def f(pair, *, table, flag=True):
        a, (b, c) = pair
        return {"sum": a + b, "list": [c * table["k"], 3, flag]}, table["k"]

    one = torch.arange(3.0)
    for i in range(4):
        k = one * i
        result, same = f((one, [one + 1, one + 2]), table={"k": k})
        assert same is k
        np.testing.assert_array_equal(result["sum"].numpy(), [1, 3, 5])
        np.testing.assert_array_equal(result["list"][0].numpy(), ((one + 2) * k).numpy())
        assert result["list"][1:] == [3, True]
    assert len(f.specializations) == 1
    # Another structure is another program.
    with pytest.raises(KeyError):
        f((one, [one, one]), table={"j": one})
    assert f((one, (one, one)), table={"k": one})[0]["list"][1] == 3
    assert f((one, [one, one]), table={"k": one}, flag=False)[0]["list"][2] is False
    assert len(f.specializations) == 3


def test_an_argument_that_shares_memory_with_a_parameter():
    """The function overwrites what the argument shows: that call runs eagerly."""
    weight = torch.ones(4)

    @torch.compile
    def f(x):
        weight.add_(1.0)
        return x * 1.0

    for _ in range(3):
        f(torch.zeros(4))
    with pytest.warns(UserWarning, match="share memory"):
        assert f(weight[:]).tolist() == [5.0] * 4
    other = torch.zeros(4)
    weight.data = other  # memory that was nobody's when the step was captured
    assert f(other).tolist() == [1.0] * 4
    assert float(f(torch.ones(4))[0]) == 1.0 and f.eager_calls == 2


def test_results_are_fresh():
    f = torch.compile(lambda x: (x + 1, x), backend="cpu")
    x = torch.zeros(5)
    kept = [f(x)[0] for _ in range(5)]
    assert len({r.data_ptr() for r in kept}) == 5
    assert f(x)[1] is x
