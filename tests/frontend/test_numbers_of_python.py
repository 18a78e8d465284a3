"""Numbers in Python objects that change at each call: counters, sums, coefficients, as run-time inputs that are written
back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from math import exp
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn

X = torch.tensor([0.3, -1.2, 2.0])
COUNT = 0


class Box:
    """Something with numbers in it."""

    total = 0

    def __init__(self) -> None:
        self.n, self.x, self.flag, self.last = 0, 0.5, False, None
        self.table = [0, 0.0, 3]
        self.nested = {"a": {"b": 1}, "c": 2.0}


class Slotted:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


def adds_up(box: Any, x: Any) -> Any:
    box.n += 1
    return x * box.n


def powers(box: Any, x: Any) -> Any:
    box.n += 1
    return x * (1 - 0.9**box.n) / math.sqrt(1 - 0.99**box.n)


def own_name_of_a_function(box: Any, x: Any) -> Any:
    box.x *= 1.5
    return x * exp(-box.x) + math.log1p(box.x)


def numpy_functions(box: Any, x: Any) -> Any:
    box.n += 1
    box.x = np.sqrt(box.n) + np.float64(0.5)
    return x * box.x * float(np.maximum(box.n, 3) >= 3)


def integers(box: Any, x: Any) -> Any:
    box.n = (box.n * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    return x + (box.n >> 40) % 1000


def big_integers(box: Any, x: Any) -> Any:
    box.n = (box.n + 3) ** 5
    return x * (box.n % 7 + 1)


def branches(box: Any, x: Any) -> Any:
    box.n += 1
    if box.n % 3 == 0:
        return x * 2
    return x * (3 if box.n > 4 else 5)


def chained_comparisons(box: Any, x: Any) -> Any:
    box.n += 1
    return x + (1 if 2 < box.n <= 5 else 0) + min(box.n, 4) + max(2.5, box.n / 2) + abs(-box.n) + round(box.n / 3, 1)


def into_an_index(box: Any, x: Any) -> Any:
    box.n = (box.n + 1) % 3
    return x[box.n] + [1.0, 2.0, 3.0][box.n] + x.reshape(-1, box.n + 1 if box.n == 2 else 1).sum()


def lists_and_dicts(box: Any, x: Any) -> Any:
    box.table[0] += 1
    box.table[1] = box.table[0] / 2
    box.nested["a"]["b"] *= 2
    box.nested["c"] -= box.table[2]
    return x * box.table[1] + box.nested["a"]["b"] + box.nested["c"]


def sums_of_losses(box: Any, x: Any) -> Any:
    loss = (x * x).sum()
    box.x += loss.item()
    box.n += (x > 0).sum().item()
    return loss * 2


def moving_average(box: Any, x: Any) -> Any:
    loss = x.abs().mean()
    box.x = 0.9 * box.x + 0.1 * loss.item()
    return loss - box.x


def of_a_class(box: Any, x: Any) -> Any:
    Box.total += 1
    return x * Box.total


def of_a_module(box: Any, x: Any) -> Any:
    global COUNT
    COUNT += 2
    return x + COUNT


def becomes_a_number(box: Any, x: Any) -> Any:
    box.n += 1
    if box.last is None:
        box.last = box.n * 1.5
    else:
        box.last = box.last + box.n
    return x * box.last


def changes_its_type(box: Any, x: Any) -> Any:
    box.n = box.n + 1 if box.n < 3 else box.n + 0.5
    return x * box.n


def toggles(box: Any, x: Any) -> Any:
    box.flag = not box.flag
    return x * 2 if box.flag else x + 1


def resets(box: Any, x: Any) -> Any:
    box.n += 1
    if box.n >= 3:
        box.n = 0
    return x + box.n


def returns_the_number(box: Any, x: Any) -> Any:
    box.n += 1
    return {"x": x * box.n, "n": box.n, "half": [box.n / 2], "same": box.n}


def only_counts(box: Any, x: Any) -> Any:
    box.n += 1
    return x * 2


def divides(box: Any, x: Any) -> Any:
    q, r = divmod(box.n * 7 + 3, 4)
    box.n += 1
    return x * q + r + math.floor(box.n / 2) + math.ceil(box.n / 2) + int(box.n // 8)


def augments_tensors(box: Any, x: Any) -> Any:
    box.n += 1
    y = x.clone()
    y += box.n
    y *= 0.5 * box.n
    y[box.n % 2 :] -= 1 / box.n
    return torch.where(y > box.n, y, box.n).clamp(max=10 * box.n), torch.full((2,), box.n * 1.0)


def reads_the_text(box: Any, x: Any) -> Any:
    box.n = (box.n + 1) % 4
    return x * len(f"{10**box.n}")


def keys(box: Any, x: Any) -> Any:
    box.n = (box.n + 1) % 3
    return x * {0: 1.0, 1: 2.0, 2: 4.0}[box.n]


PROGRAMS: list[tuple[Callable[[Any, Any], Any], int]] = [
    (adds_up, 1),
    (powers, 1),
    (own_name_of_a_function, 1),
    (numpy_functions, 2),
    (integers, 1),
    (big_integers, 1),
    (branches, 3),
    (chained_comparisons, 5),
    (into_an_index, 3),
    (lists_and_dicts, 1),
    (sums_of_losses, 1),
    (moving_average, 1),
    (of_a_class, 1),
    (of_a_module, 1),
    (becomes_a_number, 2),
    (changes_its_type, 2),
    (toggles, 2),
    (resets, 2),
    (returns_the_number, 1),
    (only_counts, 1),
    (divides, 2),
    (augments_tensors, 2),
    (reads_the_text, 4),
    (keys, 3),
]


def content(box: Any) -> Any:
    own = {**vars(box), "total": Box.total, "COUNT": COUNT}
    return {k: (type(v), v) for k, v in own.items()}


def run(function: Callable[[Any, Any], Any], backend: str | None, calls: int = 10) -> tuple[list[Any], Any]:
    global COUNT
    COUNT, Box.total = 0, 0
    box = Box()
    step: Any = lambda x: function(box, x)  # noqa: E731
    if backend is not None:
        step = torch.compile(step, backend=backend)
    found: list[Any] = []
    for i in range(calls):
        found += [step(X + i), content(box)]
        found[-1]["table"] = list(map(repr, box.table))
    return found, step


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize(("function", "programs"), PROGRAMS, ids=lambda v: getattr(v, "__name__", ""))
def test_beside_eager(function: Callable[[Any, Any], Any], programs: int, backend: str) -> None:
    wanted, _ = run(function, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found, step = run(function, backend)
    torch.testing.assert_close(found[0::2], wanted[0::2], rtol=1e-6, atol=1e-6)
    for mine, other in zip(found[1::2], wanted[1::2]):
        if function in (sums_of_losses, moving_average):  # what tensors give
            assert mine["x"][1] == pytest.approx(other["x"][1], rel=1e-6)
            mine["x"] = other["x"]
        assert mine == other
    assert step.eager_calls <= 1
    assert len({id(s.compiled) for s in step.specializations}) <= programs


def test_counters_of_modules() -> None:
    class Warm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.calls = nn.Linear(3, 3), 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.linear(x) * min(1.0, self.calls / 4)

    torch.manual_seed(0)
    mine, wanted = Warm(), Warm()
    wanted.load_state_dict(mine.state_dict())
    compiled = torch.compile(mine, backend="numpy")
    for i in range(8):
        found, expected = compiled(X + i), wanted(X + i)
        torch.testing.assert_close(found, expected)
        found.sum().backward()
        expected.sum().backward()
    torch.testing.assert_close(mine.linear.weight.grad, wanted.linear.weight.grad)
    assert mine.calls == wanted.calls == 8 and type(mine.calls) is int


def test_slots_and_closures() -> None:
    def make(decorate: Any) -> tuple[Any, Any, Callable[[], Any]]:
        slotted, n = Slotted(), 0

        def f(x: Any) -> Any:
            nonlocal n
            n += 1
            slotted.n += n
            return x * slotted.n + n

        return decorate(f), slotted, lambda: n

    (eager, own, count), (step, mine, counted) = make(lambda f: f), make(lambda f: torch.compile(f, backend="numpy"))
    for _ in range(6):
        assert torch.equal(eager(X), step(X))
    assert (own.n, count()) == (mine.n, counted())
    assert len(step.specializations) == 1 and step.eager_calls == 0


def test_numbers_that_others_change() -> None:
    box = Box()
    step = torch.compile(lambda x: x * box.x if box.n < 3 else x - box.x, backend="numpy")
    for i in range(6):
        box.n, box.x = i, i / 8
        assert torch.equal(step(X), X * box.x if i < 3 else X - box.x)
    assert len({id(s.compiled) for s in step.specializations}) <= 3 and step.eager_calls == 0


def test_a_number_in_a_new_object() -> None:
    box = Box()
    step = torch.compile(lambda x: adds_up(box, x) + box.nested["c"], backend="numpy")
    for i in range(6):
        if i == 3:
            box.nested = {"a": {"b": 1}, "c": 5.0}
        if i == 4:
            box.__dict__ = dict(vars(box))
        assert torch.equal(step(X), X * (i + 1) + box.nested["c"])
    assert box.n == 6 and step.eager_calls == 0


def test_a_value_that_is_another_each_time() -> None:
    """Code that takes no other number than a real one is compiled for some values, and then runs eagerly."""
    box = Box()

    @torch.compile(backend="numpy")
    def step(x: Any) -> Any:
        box.n += 1
        return x * int(str(box.n))

    with pytest.warns(UserWarning, match="runs eagerly"):
        for i in range(30):
            assert torch.equal(step(X), X * (i + 1))
    assert box.n == 30 and len(step.specializations) <= 16


def test_the_class_of_a_number() -> None:
    """`type()` says of a number that changes what it says of any."""
    box = Box()

    @torch.compile(backend="numpy")
    def step(x: Any) -> Any:
        box.n += 1
        return x * 2 if type(box.n) is int else x * 3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            assert torch.equal(step(X), X * 2)
    assert box.n == 4 and type(box.n) is int and step.eager_calls == 0
    assert isinstance(box.n, int) and "type" not in globals()


CLASSES: list[Any] = [
    lambda x, n, m: x * 2 if isinstance(n, int) else x * 3,
    lambda x, n, m: x * 2 if isinstance(n, bool) else x * 3,
    lambda x, n, m: x * 2 if isinstance(2**n, int) else x * 3,
    lambda x, n, m: x * 2 if type(n) is int else x * 3,
    lambda x, n, m: (x * n, type(n) is int, type(n + 1)(2), n.__class__(1)),
    lambda x, n, m: (x, type(x.shape[0]) is int, list(map(type, (n, x, "")))),
    lambda x, n, m: x * 2 if type(m) is int else x * 3,
    lambda x, n, m: (x * m, isinstance(m, bool), type(m).__name__),
    lambda x, n, m: (x, type(Box) is type, isinstance(Box, type), type("C", (), {"k": n})().k),
]


@pytest.mark.parametrize("function", CLASSES)
def test_a_class_is_assumed(function: Any) -> None:
    """Of a number in an object (n), and of an argument (m)."""
    box = Box()
    compiled = torch.compile(lambda x, m: function(x, box.n, m), backend="numpy", recompile_limit=20)
    for i, value in enumerate((0, 3, 3, 0.5, 0.5, 5, 2.5, True, 1, 1.0, -1, 4)):
        box.n = value
        x = torch.ones(2 + i % 3)
        assert repr(compiled(x, value)) == repr(function(x, value, value))


def test_errors_leave_numbers() -> None:
    box = Box()

    @torch.compile(backend="numpy")
    def step(x: Any, at: Any) -> Any:
        box.n += 1
        return x[at] * (1 / (4 - box.n))

    for _ in range(3):
        step(X, torch.tensor([0]))
    assert box.n == 3
    with pytest.raises(ZeroDivisionError):
        step(X, torch.tensor([0]))
    assert type(box.n) is int
    box.n = 5
    with pytest.raises(IndexError):
        step(X, torch.tensor([9]))
    assert type(box.n) is int
    box.n = 7
    assert torch.equal(step(X, torch.tensor([1])), X[1:2] * (1 / (4 - 8)))
    assert box.n == 8


def test_decisions_on_data_and_numbers() -> None:
    def make(decorate: Any) -> Any:
        box = Box()

        def f(x: Any) -> Any:
            box.n += 1
            if (x * box.n).sum() > 4:
                box.x *= 2
                return x / box.x
            return x + box.n

        return decorate(f), box

    (eager, own), (step, box) = make(lambda f: f), make(lambda f: torch.compile(f, backend="numpy"))
    for i in range(12):
        x = X * (-1) ** i
        torch.testing.assert_close(step(x), eager(x))
        assert (box.n, box.x) == (own.n, own.x)
    assert step.eager_calls <= 1


def test_check_runs_both_once() -> None:
    box = Box()
    step = torch.compile(lambda x: adds_up(box, x), backend="numpy", check=True)
    for i in range(5):
        assert torch.equal(step(X), X * (i + 1))
    assert box.n == 5


def test_fullgraph() -> None:
    box = Box()
    step = torch.compile(lambda x: powers(box, x), backend="numpy", fullgraph=True)
    for i in range(1, 6):
        torch.testing.assert_close(step(X), X * (1 - 0.9**i) / math.sqrt(1 - 0.99**i))
    assert box.n == 5 and len(step.specializations) == 1


def test_random_numbers_and_gradients_outside() -> None:
    box = Box()

    def f(x: Any) -> Any:
        box.n += 1
        return nn.functional.dropout(x * box.n, 0.5).sum() / box.n

    step = torch.compile(f, backend="numpy")
    for i in range(5):
        x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
        torch.manual_seed(i)
        found = step(x)
        found.backward()
        box.n -= 1
        torch.manual_seed(i)
        wanted = f(y)
        wanted.backward()
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(x.grad, y.grad)
    assert box.n == 5


def test_a_rate_that_the_step_sets() -> None:
    """What the function gives an optimizer counts, whatever others have set before the call."""

    def losses(decorate: Any) -> list[Any]:
        torch.manual_seed(0)
        model, box = nn.Linear(3, 1), Box()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            box.n += 1
            for group in optimizer.param_groups:
                group["lr"] = 0.1 if box.n < 4 else 0.01 * box.n
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        f, found = decorate(step), []
        for i in range(8):
            if i % 2:
                optimizer.param_groups[0]["lr"] = 5.0
            found += [f(X).item(), optimizer.param_groups[0]["lr"]]
        return found

    assert losses(lambda f: torch.compile(f, backend="numpy")) == losses(lambda f: f)


def test_numbers_in_a_backward_pass_outside() -> None:
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, alpha: float) -> Any:
            ctx.alpha = alpha
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -ctx.alpha * g, None

    box = Box()
    step = torch.compile(lambda x: Reverse.apply(x, box.x).sum(), backend="numpy")
    for i in range(5):
        box.x = i / 4
        x = X.clone().requires_grad_()
        step(x).backward()
        assert torch.equal(x.grad, torch.full((3,), -i / 4))
