"""Optimizer steps inside a compiled function: the numbers of eager execution, with schedules and clipping."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn, optim

VARIANTS = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.001, "momentum": 0.5, "maximize": True}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "amsgrad": True}),
    ("AdamW", {"lr": 0.05}),
    ("RMSprop", {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    # The sixth step is the first that RAdam rectifies.
    ("RAdam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Rprop", {}),
    ("ASGD", {"lr": 0.05, "lambd": 0.01, "t0": 2, "weight_decay": 0.1}),
    ("Adafactor", {"lr": 0.1, "weight_decay": 0.1}),
]


def make_step(name, options):
    gt.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = getattr(optim, name)(net.parameters(), **options)
    x, y = gt.randn(16, 4), gt.randn(16, 3)

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss

    return net, optimizer, step, (x, y)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_compiled_equals_eager(name, options):
    results = []
    for compiled in (False, True):
        net, optimizer, step, data = make_step(name, options)
        run = gt.compile(step, fullgraph=True) if compiled else step
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        losses = []
        for _ in range(6):
            losses.append(run(*data).item())
            scheduler.step()
        tensors = [p.detach().numpy() for p in net.parameters()]
        for own in optimizer.state_dict()["state"].values():
            tensors += [value.numpy() for value in own.values()]
        results.append((losses, tensors))
        if compiled:
            assert len(run.specializations) == 1  # a changed learning rate is no reason to compile again
    (expected, expected_tensors), (losses, tensors) = results
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(tensors) == len(expected_tensors)
    for ours, theirs in zip(tensors, expected_tensors, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_loaded_state_and_added_groups_are_seen():
    net, optimizer, step, data = make_step("Adam", {"lr": 0.05})
    saved_net = {k: v.clone() for k, v in net.state_dict().items()}
    run = gt.compile(step, fullgraph=True)
    first = [run(*data).item() for _ in range(3)]
    # Back to the start: the optimizer gets new state tensors, which the compiled step must use.
    net.load_state_dict(saved_net)
    fresh = optim.Adam(net.parameters(), lr=0.05)
    optimizer.load_state_dict(fresh.state_dict())
    assert [run(*data).item() for _ in range(3)] == pytest.approx(first, rel=1e-5)
    assert optimizer.state[net[0].weight]["step"].item() == 3

    extra = nn.Parameter(gt.ones(1))
    extra.grad = gt.ones(1)
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    gradient = extra.grad

    def keep_gradient(*_):
        extra.grad = gradient

    optimizer.register_step_pre_hook(keep_gradient)
    run(*data)
    assert extra.item() != 1


def test_schedule_inside_a_compiled_function_is_an_error_where_it_can_t_wait():
    _, optimizer, _, _ = make_step("SGD", {"lr": 0.1})
    scheduler = optim.lr_scheduler.StepLR(optimizer, 2)

    def step(x):
        scheduler.step()
        return x * scheduler.last_epoch

    with pytest.raises(RuntimeError, match="asks for what a learning-rate scheduler has set"):
        gt.compile(step, fullgraph=True)(gt.ones(1))
