"""Averaged models, their learning rate schedule and BatchNorm statistics beside PyTorch."""

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn, optim
from graphtorch.optim import swa_utils


def averaged(library, **kwargs):
    rng = np.random.default_rng(0)
    net = library.nn.Sequential(library.nn.Linear(3, 4), library.nn.BatchNorm1d(4))
    utils = library.optim.swa_utils
    options = {key: value(utils) if callable(value) else value for key, value in kwargs.items()}
    average = utils.AveragedModel(net, **options)
    for _ in range(4):
        with library.no_grad():
            for p in net.parameters():
                p.copy_(library.tensor(rng.standard_normal(tuple(p.shape))))
        net(library.tensor(rng.standard_normal((5, 3)), dtype=library.float32))
        average.update_parameters(net)
    return average


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_buffers": True},
        {"avg_fn": lambda u: u.get_ema_avg_fn(0.9)},
        {"multi_avg_fn": lambda u: u.get_ema_multi_avg_fn(0.8), "use_buffers": True},
        {"multi_avg_fn": lambda u: u.get_swa_multi_avg_fn()},
    ],
)
def test_averages_are_pytorchs(options):
    torch = pytest.importorskip("torch")
    ours, theirs = averaged(gt, **options).state_dict(), averaged(torch, **options).state_dict()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key].numpy(), value.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)


def test_averaged_model_computes_and_refuses_two_functions():
    net = nn.Linear(2, 2)
    average = swa_utils.AveragedModel(net)
    x = gt.randn(3, 2)
    assert gt.equal(average(x), net(x)) and average.n_averaged.dtype is gt.int64
    with pytest.raises(AssertionError, match="Only one of avg_fn and multi_avg_fn"):
        swa_utils.AveragedModel(net, avg_fn=lambda a, b, n: a, multi_avg_fn=lambda a, b, n: None)
    with pytest.raises(ValueError, match="Invalid decay value 2"):
        swa_utils.get_ema_avg_fn(2)


def test_update_bn_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((6, 4)).astype(np.float32) for _ in range(3)]
    results = []
    for library in (gt, torch):
        net = library.nn.Sequential(library.nn.BatchNorm1d(4), library.nn.ReLU()).eval()
        library.optim.swa_utils.update_bn([(library.tensor(b), 0) for b in batches], net)
        assert net[0].momentum == 0.1 and not net.training
        results.append([net[0].running_mean.numpy(), net[0].running_var.numpy()])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
    swa_utils.update_bn([], nn.Linear(1, 1))


@pytest.mark.parametrize(
    "options", [{"swa_lr": 0.05}, {"swa_lr": [0.05, 0.5], "anneal_epochs": 4, "anneal_strategy": "linear"},
                {"swa_lr": 0.05, "anneal_epochs": 0}],
)  # fmt: skip
def test_schedule_is_pytorchs(options):
    torch = pytest.importorskip("torch")
    seen = []
    for library in (gt, torch):
        a, b = (library.nn.Parameter(library.ones(1)) for _ in range(2))
        optimizer = library.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1)
        scheduler = library.optim.swa_utils.SWALR(optimizer, **options)
        rates = []
        for _ in range(14):
            rates.append(scheduler.get_last_lr())
            optimizer.step()
            scheduler.step()
        seen.append((rates, scheduler.state_dict()))
    assert seen[0] == seen[1]


def test_schedule_errors_and_resuming():
    optimizer = optim.SGD([nn.Parameter(gt.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match="anneal_strategy must be one of"):
        swa_utils.SWALR(optimizer, 0.1, anneal_strategy="square")
    with pytest.raises(ValueError, match="anneal_epochs must be equal or greater than 0"):
        swa_utils.SWALR(optimizer, 0.1, anneal_epochs=-1)
    scheduler = swa_utils.SWALR(optimizer, 0.05, anneal_epochs=3)
    optimizer.step()
    scheduler.step()
    other = swa_utils.SWALR(optim.SGD([nn.Parameter(gt.ones(1))], lr=0.1), 0.05, anneal_epochs=3)
    other.load_state_dict(scheduler.state_dict())
    assert other.last_epoch == 1 and other.get_last_lr() == scheduler.get_last_lr()
