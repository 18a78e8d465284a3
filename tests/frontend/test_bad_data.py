"""Numbers that an operator does not accept are an error of the same class when it is compiled, whatever it fuses with
and whether or not anybody uses what it gives."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

CASES: dict[str, tuple[Any, int]] = {
    "mean of losses": (lambda x, i: F.cross_entropy(x.view(1, 3), i), 7),
    "each loss": (lambda x, i: F.cross_entropy(x.view(1, 3), i, reduction="none") * 2, 7),
    "negative class": (lambda x, i: F.cross_entropy(x.view(1, 3), i), -2),
    "class to ignore is another": (lambda x, i: F.nll_loss(x.view(1, 3), i, ignore_index=-1), 7),
    "gradient alone": (lambda x, i: torch.autograd.grad(F.cross_entropy(x.view(1, 3), i), x)[0], 7),
    "loss of no use": (lambda x, i: (F.cross_entropy(x.view(1, 3), i), x * 2)[1], 7),
    "one hot": (lambda x, i: F.one_hot(i, 3) + 1, 7),
    "one hot of no use": (lambda x, i: (F.one_hot(i, 3), x * 2)[1], -1),
    "probability": (lambda x, i: F.binary_cross_entropy(x * i, x), 7),
    "probability of no use": (lambda x, i: (F.binary_cross_entropy(x * i, x), x * 2)[1], 7),
    "quotient of no use": (lambda x, i: (i // (i - 7), x * 2)[1], 7),
    "remainder": (lambda x, i: i % (i - 7), 7),
    "index": (lambda x, i: (x[i], x * 2)[1], 7),
    "index, zeroed": (lambda x, i: (x[i].zero_(), x * 2)[1], 7),
    "index, overwritten": (lambda x, i: x[i].copy_(x[:1]) + 1, 7),
    "gather": (lambda x, i: (x.gather(0, i), x * 2)[1], 7),
    "embedding": (lambda x, i: (F.embedding(i, x.view(3, 1)), x * 2)[1], 7),
    "margin": (lambda x, i: (F.multi_margin_loss(x.view(1, 3), i), x * 2)[1], 7),
    "singular matrix": (lambda x, i: (torch.linalg.inv(torch.eye(2) * (i - 7)), x * 2)[1], 7),
}


@pytest.mark.parametrize("backend", ["cpu", "numpy", "interpreter"])
@pytest.mark.parametrize("case", CASES)
def test_the_error_of_eager_execution(case: str, backend: str) -> None:
    function, bad = CASES[case]
    x, i = torch.ones(3, requires_grad=True), torch.tensor([bad])
    with pytest.raises(Exception) as eager:
        function(x, i)
    compiled = torch.compile(function, backend=backend)
    for _ in range(2):
        with pytest.raises(eager.type):
            compiled(x, i)
    if "probability" not in case:
        fine = torch.tensor([1])
        assert torch.allclose(compiled(x, fine) * 1.0, function(x, fine) * 1.0)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_training_step_with_a_bad_class_changes_nothing(backend: str) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @torch.compile(backend=backend)
    def step(x: Any, y: Any) -> None:  # the loss itself is not computed
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, -100])
    step(x, y)
    step(x, y)
    before = [p.detach().clone() for p in model.parameters()]
    for bad in (3, -1, 1 << 40):
        with pytest.raises(IndexError, match=rf"Target {bad} is out of bounds"):
            step(x, torch.tensor([0, 1, 2, bad, -100]))
    for p, kept in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, kept)
    step(x, y)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_the_users_handler_gets_the_error(backend: str) -> None:
    def function(x: Any, i: Any) -> Any:
        try:
            return x[i]
        except IndexError:
            return x.sum()

    compiled = torch.compile(function, backend=backend)
    x = torch.arange(3.0)
    assert compiled(x, torch.tensor(1)).item() == 1
    with pytest.warns(UserWarning, match="compiled code raised IndexError"):
        assert compiled(x, torch.tensor(5)).item() == 3
    assert compiled(x, torch.tensor(2)).item() == 2
    assert compiled(x, torch.tensor(7)).item() == 3


@pytest.mark.parametrize("backend", ["cpu", "numpy", "interpreter"])
def test_errors_of_compiled_code_name_the_users_line(backend: str) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @torch.compile(backend=backend)
    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.dropout(model(x), 0.5), y)
        loss.backward()
        optimizer.step()

    @torch.compile(backend=backend)
    def pick(x: Any, i: Any) -> Any:
        return x[i].sum()

    lines = (
        (step, (torch.ones(2, 3),), torch.tensor([0, 1]), torch.tensor([0, 9]), r"loss = F\.cross_entropy", "GT025"),
        (pick, (torch.ones(3),), torch.tensor([1]), torch.tensor([7]), r"return x\[i\]\.sum\(\)", "GT007"),
    )
    for function, rest, good, bad, line, code in lines:
        for _ in range(3):
            function(*rest, good)
            torch.manual_seed(0)
            with pytest.raises(IndexError, match=rf"(?s)out of bounds.*  at .*test_bad_data\.py:\d+: {line}.*{code}"):
                function(*rest, bad)


# -- what the function raises itself -----------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("late", [False, True])
def test_a_call_that_raises_leaves_what_eager_execution_leaves(late):
    def run(compiled: bool) -> list[Any]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        seen = {"calls": 0}

        def step(x: Any, stop: bool) -> Any:
            seen["calls"] += 1
            optimizer.zero_grad()
            loss = model(x).square().sum()
            if stop and not late:
                raise Stop("early")
            loss.backward()
            optimizer.step()
            if stop or loss < 0:
                raise Stop("late")
            return loss

        if compiled:
            step = torch.compile(step, backend="numpy")
        found: list[Any] = []
        for stop in (False, True, False, True, False):
            try:
                result = step(torch.arange(12.0).reshape(4, 3).sin(), stop).item()
            except Stop as error:
                result = str(error), error.__context__
            grads = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
            found.append([result, seen["calls"], grads, {k: v.tolist() for k, v in model.state_dict().items()}])
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mine, wanted in zip(run(True), run(False), strict=True):
            assert mine[:2] == [pytest.approx(wanted[0]) if isinstance(wanted[0], float) else wanted[0], wanted[1]]
            assert mine[3].keys() == wanted[3].keys()
            for name in mine[3]:
                np.testing.assert_allclose(mine[3][name], wanted[3][name], rtol=1e-5, atol=1e-6)
            for a, b in zip(mine[2], wanted[2], strict=True):
                assert (a is None) == (b is None)


def test_validation_that_raises_is_no_reason_to_run_eagerly():
    def f(x: Any) -> Any:
        if x.shape[0] > 5:
            raise ValueError(f"{x.shape[0]} rows")
        return x * 2

    step = torch.compile(f, backend="numpy", dynamic=False)
    for n in range(6, 20):
        with pytest.raises(ValueError, match=f"{n} rows"):
            step(torch.ones(n))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert step(torch.ones(2)).tolist() == [2, 2]
    assert step.explain().eager_calls == 0
