"""Optimizers: PyTorch's numbers over 20 steps, state dicts, groups, hooks and errors."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn, optim
from graphtorch.autograd.state import state

VARIANTS = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.001, "momentum": 0.5, "maximize": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("Adam", {"lr": 0.005, "maximize": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.2, "amsgrad": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1, "momentum": 0.5, "centered": True}),
    ("RMSprop", {"lr": 0.001, "maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-5}),
    ("Adagrad", {"lr": 0.01, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1}),
    ("Adadelta", {"lr": 0.5, "maximize": True}),
    ("Adamax", {"lr": 0.05}),
    ("Adamax", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.005, "maximize": True}),
    ("NAdam", {"lr": 0.05}),
    ("NAdam", {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1, "momentum_decay": 0.01}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.1, "etas": (0.3, 1.4), "step_sizes": (1e-3, 0.2)}),
    ("Rprop", {"maximize": True}),
    ("ASGD", {"lr": 0.05}),
    ("ASGD", {"lr": 0.05, "lambd": 0.01, "alpha": 0.5, "t0": 5, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.001, "maximize": True}),
    ("Adafactor", {}),
    ("Adafactor", {"lr": 0.02, "beta2_decay": -0.5, "eps": (1e-4, 1e-2), "d": 1.5, "weight_decay": 0.1}),
    ("Adafactor", {"maximize": True}),
]


def train(library, name, options, steps=20, dtype="float32", optimizer_state=None):
    """Fit a small network; returns the losses, the network and the optimizer."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((8, 4)) * 0.4, rng.standard_normal((3, 8)) * 0.4]
    kind = getattr(library, dtype)
    parameters = [library.nn.Parameter(library.tensor(w, dtype=kind)) for w in weights]
    x = library.tensor(rng.standard_normal((16, 4)), dtype=kind)
    y = library.tensor(rng.standard_normal((16, 3)), dtype=kind)
    optimizer = getattr(library.optim, name)(parameters, **options)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((x @ parameters[0].t()).tanh() @ parameters[1].t() - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, parameters, optimizer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_numbers_are_pytorchs(name, options, dtype):
    torch = pytest.importorskip("torch")
    losses, parameters, optimizer = train(gt, name, options, dtype=dtype)
    expected, theirs, their_optimizer = train(torch, name, {**options, "foreach": False}, dtype=dtype)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    for a, b in zip(parameters, theirs, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=10 * tolerance, atol=tolerance)
    ours_state, theirs_state = optimizer.state_dict(), their_optimizer.state_dict()
    theirs_state["param_groups"][0]["foreach"] = None
    assert ours_state["param_groups"] == theirs_state["param_groups"]
    assert ours_state["state"].keys() == theirs_state["state"].keys()
    for key, value in theirs_state["state"].items():
        assert list(ours_state["state"][key]) == list(value)
        for entry, tensor in value.items():
            mine = ours_state["state"][key][entry]
            assert str(mine.dtype) == str(tensor.dtype) and tuple(mine.shape) == tuple(tensor.shape)
            np.testing.assert_allclose(mine.numpy(), tensor.numpy(), rtol=100 * tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_resuming_continues_the_same_run(name, options):
    whole, _, _ = train(gt, name, options, steps=12)
    _, parameters, optimizer = train(gt, name, options, steps=6)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    resumed = [nn.Parameter(p.detach().clone()) for p in parameters]
    second = getattr(optim, name)(resumed, lr=1.0)
    second.load_state_dict(saved)
    rng = np.random.default_rng(0)
    rng.standard_normal((8, 4)), rng.standard_normal((3, 8))
    x = gt.tensor(rng.standard_normal((16, 4)), dtype=gt.float32)
    y = gt.tensor(rng.standard_normal((16, 3)), dtype=gt.float32)
    losses = []
    for _ in range(6):
        second.zero_grad()
        loss = ((x @ resumed[0].t()).tanh() @ resumed[1].t() - y).square().mean()
        loss.backward()
        second.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, whole[6:], rtol=1e-6)


def test_text_is_pytorchs():
    torch = pytest.importorskip("torch")
    for name, options in VARIANTS:
        ours = getattr(optim, name)([nn.Parameter(gt.ones(1))], **options)
        theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))], **options)
        assert repr(ours) == repr(theirs)


def test_momentum_by_hand():
    p = nn.Parameter(gt.tensor([1.0]))
    optimizer = optim.SGD([p], lr=0.1, momentum=0.5, dampening=0.2)
    expected, buffer = 1.0, None
    for grad in (1.0, 2.0, 3.0):
        p.grad = gt.tensor([grad])
        optimizer.step()
        buffer = grad if buffer is None else 0.5 * buffer + 0.8 * grad
        expected -= 0.1 * buffer
        assert p.item() == pytest.approx(expected, rel=1e-6)


def test_adam_first_step_is_the_learning_rate():
    p = nn.Parameter(gt.tensor([1.0, -2.0]))
    optimizer = optim.Adam([p], lr=0.1)
    p.grad = gt.tensor([5.0, -0.01])
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), [0.9, -1.9], rtol=1e-5)
    assert optimizer.state[p]["step"].item() == 1


def test_groups():
    a, b = nn.Parameter(gt.ones(1)), nn.Parameter(gt.ones(1))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]
    c = nn.Parameter(gt.ones(1))
    optimizer.add_param_group({"params": c, "lr": 1.0})
    for p in (a, b, c):
        p.grad = gt.ones(1)
    optimizer.step()
    np.testing.assert_allclose([a.item(), b.item(), c.item()], [0.9, 0.5, 0.0], atol=1e-7)
    assert [g["params"] for g in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]
    named = optim.SGD(nn.Linear(1, 1).named_parameters(), lr=0.1)
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    assert isinstance(optimizer.param_groups[0], dict)


def test_parameters_without_gradient_are_left_alone():
    a, b = nn.Parameter(gt.ones(1)), nn.Parameter(gt.ones(1))
    optimizer = optim.Adam([a, b])
    a.grad = gt.ones(1)
    optimizer.step()
    assert b.item() == 1 and b not in optimizer.state


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda p: optim.SGD(p, lr=0.1), TypeError, "should be an iterable of Tensors or dicts, but got torch.Float"),
        (lambda p: optim.SGD([], lr=0.1), ValueError, "optimizer got an empty parameter list"),
        (lambda p: optim.SGD([3], lr=0.1), TypeError, "one of the params is int"),
        (lambda p: optim.SGD([p * 2], lr=0.1), ValueError, "can't optimize a non-leaf Tensor"),
        (lambda p: optim.SGD([{"params": {p}}], lr=0.1), TypeError, "ordered collections"),
        (lambda p: optim.SGD([{"params": p}, {"params": p}], lr=0.1), ValueError, "more than one parameter group"),
        (lambda p: optim.SGD([("a", p), nn.Parameter(gt.ones(1))], lr=0.1), ValueError, "Some param names are missing"),
        (lambda p: optim.SGD([p], lr=-1), ValueError, "Invalid learning rate: -1"),
        (lambda p: optim.SGD([p], momentum=-1), ValueError, "Invalid momentum value: -1"),
        (lambda p: optim.SGD([p], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "Nesterov momentum requires"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
        (lambda p: optim.Adam([p], eps=-1), ValueError, "Invalid epsilon value: -1"),
        (lambda p: optim.Adam([p]).add_param_group(3), TypeError, "param_group must be a dict"),
        (
            lambda p: optim.Adam([p]).load_state_dict({"state": {}, "param_groups": []}),
            ValueError,
            "different number of parameter groups",
        ),
        (
            lambda p: optim.Adam([p]).load_state_dict({"state": {}, "param_groups": [{"params": []}]}),
            ValueError,
            "doesn't match the size of optimizer's group",
        ),
    ],
)
def test_errors(action, error, message):
    with pytest.raises(error) as caught:
        action(nn.Parameter(gt.ones(1)))
    assert message in str(caught.value)


def test_duplicate_parameters_warn():
    p = nn.Parameter(gt.ones(1))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([p, p], lr=0.1)


def test_zero_grad_and_closure():
    p = nn.Parameter(gt.ones(1))
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1
    assert p.item() == 0
    grad = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and grad.item() == 0
    optimizer.zero_grad()
    assert p.grad is None


def test_hooks():
    p = nn.Parameter(gt.ones(1))
    optimizer, calls = optim.SGD([p], lr=0.5), []
    before = optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("before"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("after"))
    optimizer.step()
    before.remove()
    optimizer.step()
    assert calls == ["before", "after", "after"]
    optimizer.register_state_dict_post_hook(lambda o, d: {**d, "more": 1})
    assert optimizer.state_dict()["more"] == 1
    optimizer.register_load_state_dict_pre_hook(lambda o, d: {**d, "param_groups": o.state_dict()["param_groups"]})
    optimizer.load_state_dict({"state": {}})


def test_own_optimizer_and_copies():
    class Plain(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @gt.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=-group["lr"])

    p = nn.Parameter(gt.ones(1))
    optimizer = Plain([p], 0.25)
    p.grad = gt.ones(1)
    optimizer.step()
    assert p.item() == 0.75
    twin = copy.deepcopy(optimizer)
    assert twin.param_groups[0]["params"][0] is not p
    assert pickle.loads(pickle.dumps(optim.SGD([p], lr=0.1))).param_groups[0]["lr"] == 0.1


def test_loading_an_older_checkpoint_fills_in_options():
    p = nn.Parameter(gt.ones(1))
    optimizer = optim.Adam([p])
    saved = {
        "state": {0: {"step": 3, "exp_avg": gt.ones(1), "exp_avg_sq": gt.ones(1)}},
        "param_groups": [{"params": [0], "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0}],
    }
    optimizer.load_state_dict(saved)
    assert optimizer.state[p]["step"].item() == 3 and optimizer.param_groups[0]["amsgrad"] is False


def test_tensor_learning_rate():
    p = nn.Parameter(gt.ones(1))
    for make in (optim.SGD, optim.Adam):
        optimizer = make([p], lr=gt.tensor(0.1))
        p.grad = gt.ones(1)
        optimizer.step()
        optimizer.param_groups[0]["lr"].fill_(0.0)
        before = p.item()
        optimizer.step()
        assert p.item() == before


def test_what_a_capture_sees_of_a_group():
    class Recorder:
        def __init__(self):
            self.guarded = []

        def number_input(self, group, key):
            return ("input", dict.__getitem__(group, key))

        def guard_item(self, group, key):
            self.guarded.append(key)

    group = optim.SGD([nn.Parameter(gt.ones(1))], lr=0.1, momentum=0.9).param_groups[0]
    recorder = Recorder()
    state.recorder = recorder
    try:
        assert group["lr"] == ("input", 0.1)
        assert group["momentum"] == 0.9
    finally:
        state.recorder = None
    assert recorder.guarded == ["momentum"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert group["lr"] == 0.1
