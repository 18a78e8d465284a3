"""Learning-rate schedules and options of param groups inside of compiled steps: `scheduler.step()` is done at the end
of each call, and what is asked of schedulers and groups, in whatever way, is what each call finds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch.optim import lr_scheduler

X = torch.tensor([0.5, 1.0, -1.5])

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.95**epoch),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=20),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
    "chain": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


class Run:
    """A model of one parameter, its optimizer and its schedule; the same step eagerly and compiled."""

    def __init__(self, make: Callable[[Any], Any], body: Callable[[Run, Any], Any], **options: Any) -> None:
        self.w = torch.ones(3, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.w], lr=0.1, momentum=0.9)
        self.scheduler = make(self.optimizer)

        def step(x: Any) -> Any:
            return body(self, x)

        self.step = torch.compile(step, **options) if options else step

    def train(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = (self.w * x).square().sum()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state(self) -> Any:
        group = self.optimizer.param_groups[0]
        epoch = getattr(self.scheduler, "last_epoch", 0)  # a chain has none
        return self.w.tolist(), group["lr"], group["momentum"], epoch, self.scheduler.get_last_lr()


def compare(make: Callable[[Any], Any], body: Callable[[Run, Any], Any], calls: int = 12, **options: Any) -> Any:
    eager, compiled = Run(make, body), Run(make, body, **{"backend": "numpy", **options})
    for _ in range(calls):
        wanted, found = eager.step(X), compiled.step(X)
        for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (wanted, found)), strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-5)
        for a, b in zip(eager.state(), compiled.state(), strict=True):
            assert a == pytest.approx(b, rel=1e-5)
    return compiled.step


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_stepped_by_each_call(name: str) -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        run.scheduler.step()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        step = compare(SCHEDULES[name], body)
    assert step.eager_calls == 0 and len(step.specializations) <= 2  # cycled momentum is found to change


def test_rates_before_the_step_are_read() -> None:
    def body(run: Run, x: Any) -> Any:
        rate, epoch = run.scheduler.get_last_lr()[0], run.scheduler.last_epoch
        loss = run.train(x) * rate
        run.scheduler.step()
        return loss, rate, epoch, run.w.sum()

    step = compare(SCHEDULES["exponential"], body)
    assert step.eager_calls == 0 and len(step.specializations) == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda run: run.scheduler.get_last_lr()[0],
        lambda run: run.scheduler.last_epoch,
        lambda run: run.optimizer.param_groups[0]["lr"],
        lambda run: run.optimizer.param_groups[0].get("lr"),
        lambda run: dict(run.optimizer.param_groups[0])["lr"],
        lambda run: run.scheduler.state_dict()["last_epoch"],
        lambda run: run.train(X),
    ],
)
def test_what_asks_after_the_step_runs_eagerly(ask: Callable[[Run], Any]) -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        run.scheduler.step()
        return loss, ask(run)

    with pytest.warns(UserWarning, match="learning-rate scheduler"):
        compare(SCHEDULES["exponential"], body, calls=4)


def test_two_steps_in_one_call() -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        run.scheduler.step()
        run.scheduler.step()
        return loss

    assert compare(SCHEDULES["exponential"], body).eager_calls == 0


def test_a_branch_that_steps() -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        if loss > 0.5:
            run.scheduler.step()
        return loss

    step = compare(SCHEDULES["exponential"], body, calls=20)
    assert len(step.specializations) == 2 and step.eager_calls == 0


def test_a_step_too_many_is_counted_once() -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        run.scheduler.step()
        return loss

    run = Run(lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=4), body, backend="numpy")
    for _ in range(4):
        run.step(X)
    for count in (5, 6):
        with pytest.raises(ValueError, match=f"Tried to step {count} times"):
            run.step(X)


def test_checking_steps_once() -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        run.scheduler.step()
        return loss

    compare(SCHEDULES["exponential"], body, calls=4, check=True)


def test_a_metric_is_for_python() -> None:
    def body(run: Run, x: Any) -> Any:
        loss = run.train(x)
        run.scheduler.step(loss)
        return loss

    with pytest.warns(UserWarning, match="learning-rate scheduler"):
        compare(lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5), body)


READS: dict[str, Callable[[Any], Any]] = {
    "entry": lambda group: group["lr"],
    "get": lambda group: group.get("lr"),
    "items": lambda group: dict(group.items())["lr"],
    "values": lambda group: next(v for v in group.values() if isinstance(v, float)),
    "copy": lambda group: group.copy()["lr"],
    "dict": lambda group: dict(group)["lr"],
    "unpacked": lambda group: {**group}["lr"],
    "merged": lambda group: (group | {"x": 1})["lr"],
}


@pytest.mark.parametrize("name", READS)
def test_options_of_groups(name: str) -> None:
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    compiled = torch.compile(lambda x: x * READS[name](optimizer.param_groups[0]))
    for i in range(4):
        optimizer.param_groups[0]["lr"] = 0.5 * i
        assert compiled(X).equal(X * (0.5 * i))
    assert len(compiled.specializations) == 1 and compiled.eager_calls == 0


def test_an_option_that_comes_later() -> None:
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    compiled = torch.compile(lambda x: x * optimizer.param_groups[0].get("scale", 2.0))
    counted = torch.compile(lambda x: x * len(list(optimizer.param_groups[0])))
    asked = torch.compile(lambda x: x * (3 if "scale" in optimizer.param_groups[0] else 2))
    count = len(optimizer.param_groups[0])
    assert compiled(X).equal(X * 2) and counted(X).equal(X * count) and asked(X).equal(X * 2)
    optimizer.param_groups[0]["scale"] = 5.0
    assert compiled(X).equal(X * 5) and counted(X).equal(X * (count + 1)) and asked(X).equal(X * 3)


def test_a_schedule_is_not_changed_by_a_graph() -> None:
    w = torch.ones(3, requires_grad=True)
    scheduler = lr_scheduler.ExponentialLR(torch.optim.SGD([w], lr=0.1), 0.9)

    def function(x: Any) -> Any:
        scheduler.last_epoch += 1
        return x * scheduler.last_epoch

    compiled = torch.compile(function)
    with pytest.warns(UserWarning, match="changes a learning-rate scheduler"):
        assert [compiled(X).tolist() for _ in range(3)] == [(X * n).tolist() for n in (1, 2, 3)]
