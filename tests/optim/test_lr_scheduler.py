"""Learning rate schedules: the same rates as PyTorch, exactly."""

import warnings

import pytest

import graphtorch as gt
from graphtorch import nn, optim
from graphtorch.optim import lr_scheduler

SCHEDULES = [
    ("StepLR", lambda s, o: s.StepLR(o, 3, gamma=0.5)),
    ("MultiStepLR", lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9])),
    ("ConstantLR", lambda s, o: s.ConstantLR(o, 0.3, 4)),
    ("LinearLR", lambda s, o: s.LinearLR(o, 0.2, 0.9, 7)),
    ("ExponentialLR", lambda s, o: s.ExponentialLR(o, 0.9)),
    ("PolynomialLR", lambda s, o: s.PolynomialLR(o, 8, 2.0)),
    ("CosineAnnealingLR", lambda s, o: s.CosineAnnealingLR(o, 6, eta_min=0.01)),
    ("CosineAnnealingWarmRestarts", lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, eta_min=0.01)),
    ("LambdaLR", lambda s, o: s.LambdaLR(o, lambda epoch: 0.95**epoch)),
    ("LambdaLR list", lambda s, o: s.LambdaLR(o, [lambda e: 1 / (e + 1), lambda e: 0.5**e])),
    ("MultiplicativeLR", lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.95 + 0.001 * epoch)),
    ("OneCycleLR", lambda s, o: s.OneCycleLR(o, 0.5, total_steps=25)),
    (
        "OneCycleLR three phases",
        lambda s, o: s.OneCycleLR(o, [0.5, 0.2], epochs=5, steps_per_epoch=5, three_phase=True),
    ),
    ("OneCycleLR linear", lambda s, o: s.OneCycleLR(o, 0.5, total_steps=25, anneal_strategy="linear", pct_start=0.4)),
    (
        "SequentialLR",
        lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 2), s.StepLR(o, 2), s.ExponentialLR(o, 0.9)], [3, 9]),
    ),
    ("CyclicLR", lambda s, o: s.CyclicLR(o, 0.1, 0.5, step_size_up=4)),
    ("CyclicLR down", lambda s, o: s.CyclicLR(o, [0.1, 0.2], [0.5, 0.3], 3, 5, mode="triangular2")),
    ("CyclicLR range", lambda s, o: s.CyclicLR(o, 0.1, 0.5, 3, mode="exp_range", gamma=0.9)),
    ("CyclicLR function", lambda s, o: s.CyclicLR(o, 0.1, 0.5, 3, scale_fn=lambda x: 0.8**x, scale_mode="iterations")),
    ("ChainedScheduler", lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 6), s.ExponentialLR(o, 0.9)])),
    ("two at once", lambda s, o: [s.StepLR(o, 4, 0.5), s.ExponentialLR(o, 0.9)]),
]


def optimizers(library, kind="SGD", **options):
    a, b = (library.nn.Parameter(library.ones(1)) for _ in range(2))
    return getattr(library.optim, kind)([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1, **options)


def rates(library, make, kind="SGD", steps=20, **options):
    optimizer = optimizers(library, kind, **options)
    made = make(library.optim.lr_scheduler, optimizer)
    schedulers = made if isinstance(made, list) else [made]
    seen = []
    for _ in range(steps):
        seen.append([{k: v for k, v in g.items() if k in ("lr", "momentum", "betas")} for g in optimizer.param_groups])
        seen.append([s.get_last_lr() for s in schedulers])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen, schedulers, optimizer


@pytest.mark.parametrize(("name", "make"), SCHEDULES)
def test_rates_are_pytorchs(name, make):
    torch = pytest.importorskip("torch")
    for kind, options in (("SGD", {"momentum": 0.9}), ("Adam", {})):
        ours, schedulers, _ = rates(gt, make, kind, **options)
        theirs, their_schedulers, _ = rates(torch, make, kind, **options)
        assert ours == theirs
        for mine, expected in zip(schedulers, their_schedulers, strict=True):
            ignored = {"lr_lambdas", "_schedulers", "_promised"}
            own = {k: v for k, v in mine.state_dict().items() if k not in ignored}
            assert own == {k: v for k, v in expected.state_dict().items() if k not in ignored}


@pytest.mark.parametrize(("name", "make"), SCHEDULES)
def test_state_dict_resumes(name, make):
    whole, _, _ = rates(gt, make, steps=12, momentum=0.9)
    _, schedulers, optimizer = rates(gt, make, steps=6, momentum=0.9)
    fresh = optimizers(gt, momentum=0.9)
    made = make(lr_scheduler, fresh)
    again = made if isinstance(made, list) else [made]
    fresh.load_state_dict(optimizer.state_dict())
    for scheduler, saved in zip(again, schedulers, strict=True):
        scheduler.load_state_dict(saved.state_dict())
    for expected in whole[12::2]:
        found = [{k: v for k, v in g.items() if k in ("lr", "momentum")} for g in fresh.param_groups]
        assert found == expected
        fresh.step()
        for scheduler in again:
            scheduler.step()


@pytest.mark.parametrize(("name", "make"), [s for s in SCHEDULES[:9] if "Restarts" not in s[0]])
def test_closed_form(name, make):
    torch = pytest.importorskip("torch")
    results = []
    for library in (gt, torch):
        optimizer = optimizers(library)
        scheduler = make(library.optim.lr_scheduler, optimizer)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step(5)
        results.append(scheduler.get_last_lr())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "threshold_mode": "abs", "threshold": 0.05},
        {"patience": 1, "cooldown": 2, "min_lr": [0.05, 0.01]},
        {"patience": 0, "factor": 0.5, "threshold_mode": "abs", "threshold": 0.1},
    ],
)
def test_plateau(options):
    torch = pytest.importorskip("torch")
    metrics = [1.0, 0.9, 0.91, 0.9, 0.92, 0.95, 0.9, 0.89, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.7]
    results = []
    for library in (gt, torch):
        optimizer = optimizers(library)
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **{"patience": 2, **options})
        seen = []
        for metric in metrics:
            scheduler.step(library.tensor(metric))
            seen.append(scheduler.get_last_lr())
        state = {k: v for k, v in scheduler.state_dict().items()}
        results.append((seen, state))
    assert results[0] == results[1]


def test_step_schedule_by_hand():
    optimizer = optim.SGD([nn.Parameter(gt.ones(1))], lr=1.0)
    scheduler = lr_scheduler.StepLR(optimizer, 2, 0.5)
    seen = []
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        seen.append(scheduler.get_last_lr()[0])
    assert seen == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_tensor_rate_keeps_its_identity():
    rate = gt.tensor(1.0)
    optimizer = optim.SGD([nn.Parameter(gt.ones(1))], lr=rate)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.5


def test_warnings():
    optimizer = optim.SGD([nn.Parameter(gt.ones(1))], lr=1.0)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step\\(\\)`"):
        scheduler.step()
    with pytest.warns(UserWarning, match="please use `get_last_lr\\(\\)`"):
        scheduler.get_lr()
    with pytest.warns(UserWarning, match="The epoch parameter in `scheduler.step\\(\\)`"):
        scheduler.step(3)
    other = optim.SGD([nn.Parameter(gt.ones(1))], lr=1.0)
    scheduler = lr_scheduler.StepLR(other, 2)
    other.step = lambda: None
    with pytest.warns(UserWarning, match="has been overridden after"):
        scheduler.step()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: lr_scheduler.StepLR(3, 2), TypeError, "int is not an Optimizer"),
        (lambda o: lr_scheduler.StepLR(o, 2, last_epoch=3), KeyError, "param 'initial_lr' is not specified"),
        (lambda o: lr_scheduler.LambdaLR(o, [abs, abs]), ValueError, "Expected 1 lr_lambdas, but got 2"),
        (lambda o: lr_scheduler.LinearLR(o, 0.0), ValueError, "Starting multiplicative factor"),
        (lambda o: lr_scheduler.ConstantLR(o, 2.0), ValueError, "Constant multiplicative factor"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1), ValueError, "You must define either total_steps"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=0), ValueError, "Expected positive integer total_steps"),
        (lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], total_steps=5), ValueError, "max_lr must have the same"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), ValueError, "Factor should be < 1.0."),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="best"), ValueError, "mode best is unknown!"),
        (lambda o: lr_scheduler.ChainedScheduler([]), ValueError, "expects at least one scheduler to be chained"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, mode="square"), ValueError, "mode is invalid and scale_fn is"),
        (lambda o: lr_scheduler.CyclicLR(o, [0.1, 0.2], 0.2), ValueError, "base_lr has 2 values, param_groups has 1."),
        (lambda o: lr_scheduler.SequentialLR(o, [], []), ValueError, "expects at least one scheduler"),
    ],
)
def test_errors(make, error, message):
    optimizer = optim.SGD([nn.Parameter(gt.ones(1))], lr=1.0, momentum=0.9)
    with pytest.raises(error) as caught:
        make(optimizer)
    assert message in str(caught.value)
