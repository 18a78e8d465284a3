"""Tensors in Python objects that each call replaces: features that hooks keep, states that are rebound, averages."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

X = torch.tensor([0.3, -1.2, 2.0])


class Box:
    def __init__(self) -> None:
        self.h, self.other, self.n = torch.zeros(3), torch.ones(3), 0
        self.kept = {"a": torch.zeros(3), "b": {"c": torch.ones(3)}}
        self.table = [torch.zeros(3), torch.zeros(3)]
        self.none = None


def hidden_state(box: Any, x: Any) -> Any:
    box.h = torch.tanh(box.h * 0.5 + x)
    return box.h.sum()


def written_only(box: Any, x: Any) -> Any:
    box.kept["a"] = x * 2
    box.kept["b"]["c"] = (x + 1).detach()
    return x.sum()


def also_a_result(box: Any, x: Any) -> Any:
    box.h = x * 2
    box.kept["a"] = box.h
    return box.h, box.h[:2]


def averages(box: Any, x: Any) -> Any:
    for key in ("a",):
        box.kept[key] = 0.9 * box.kept[key] + 0.1 * x
    box.table[0] = box.table[0] + x
    box.table[1] = torch.maximum(box.table[1], box.table[0])
    return box.table[1] - box.kept["a"]


def written_then_read(box: Any, x: Any) -> Any:
    box.h = x + 1
    box.other = box.h * 2
    return box.other + box.h


def now_and_then(box: Any, x: Any) -> Any:
    box.n += 1
    if box.n % 3 == 0:
        box.h = x * box.n
    return box.h + x


def becomes_a_tensor(box: Any, x: Any) -> Any:
    box.none = x if box.none is None else box.none + x
    return box.none * 2


def comes_and_goes(box: Any, x: Any) -> Any:
    if box.none is None:
        box.none = x * 2
        return x + 1
    y = box.none + x
    box.none = None
    return y


def by_its_shape(box: Any, x: Any) -> Any:
    if box.h.shape != x.shape or not box.h.is_floating_point():
        box.h = torch.zeros_like(x)
    box.h = box.h + x
    return box.h.mean()


def swaps(box: Any, x: Any) -> Any:
    box.h, box.other = box.other, box.h + x
    return box.h * x


def a_view_of_an_argument(box: Any, x: Any) -> Any:
    y = box.h + x
    box.h = x[:2].sum() + x
    box.kept["a"] = x
    return y


def in_place_and_rebound(box: Any, x: Any) -> Any:
    box.h.add_(x)
    y = box.h * 2
    box.h = y + 1
    return y


def two_names_of_one(box: Any, x: Any) -> Any:
    y = box.h + box.other
    box.h = box.other = x + box.n
    return y


PROGRAMS = [
    (hidden_state, True),
    (written_only, True),
    (also_a_result, True),
    (averages, True),
    (written_then_read, True),
    (now_and_then, True),
    (becomes_a_tensor, False),
    (comes_and_goes, False),
    (by_its_shape, True),
    (swaps, False),
    (a_view_of_an_argument, True),
    (in_place_and_rebound, False),
    (two_names_of_one, False),
]


def content(box: Any) -> list[Any]:
    return [box.h, box.other, box.kept["a"], box.kept["b"]["c"], *box.table, box.n, box.none]


def run(function: Callable[[Any, Any], Any], backend: str | None, between: bool) -> tuple[list[Any], Any]:
    box = Box()
    step: Any = lambda x: function(box, x)  # noqa: E731
    if backend is not None:
        step = torch.compile(step, backend=backend)
    found: list[Any] = []
    for i in range(8):
        if between and i == 3:
            box.h, box.table[0] = torch.full((3,), 5.0), torch.full((3,), -1.0)
        if between and i == 5:
            box.kept["a"], box.other = box.h, box.table[1]
        if between and i == 6:
            box.h = box.h.double()
            box.table[0] = box.table[0][None].expand(2, 3)
        result = step(X + i)
        found += [result, *content(box)]
        found = [v.clone() if isinstance(v, torch.Tensor) else v for v in found]
    return found, step


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize(("function", "compiles"), PROGRAMS, ids=lambda v: getattr(v, "__name__", ""))
def test_beside_eager(function: Callable[[Any, Any], Any], compiles: bool, backend: str, between: bool) -> None:
    wanted, _ = run(function, None, between)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if compiles and not between else "ignore", UserWarning)
        found, step = run(function, backend, between)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    if compiles and not between:
        assert step.eager_calls <= 1
        assert len({id(s.compiled) for s in step.specializations}) <= 2


def test_features_of_hooks() -> None:
    """What forward hooks keep in a dictionary outside is that of the last call."""

    def train(decorate: Any) -> tuple[list[Any], Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        features: dict[str, Any] = {}
        for name, layer in model.named_children():
            layer.register_forward_hook(lambda m, i, o, name=name: features.__setitem__(name, o.detach()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        f, found = decorate(step), []
        for i in range(6):
            x = torch.randn(5 if i == 4 else 3, 3)
            found += [f(x).detach(), *(features[k].clone() for k in sorted(features))]
        return found, f

    wanted, _ = train(lambda f: f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, step = train(lambda f: torch.compile(f, backend="numpy"))
    torch.testing.assert_close(found, wanted)
    assert step.eager_calls == 1


def test_an_optimizer_that_rebinds_its_state() -> None:
    class Functional(torch.optim.Optimizer):
        def __init__(self, params: Any, lr: float = 0.1) -> None:
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state["step"] = state.get("step", 0) + 1
                    state["m"] = 0.9 * state.get("m", torch.zeros_like(p)) + 0.1 * p.grad
                    p -= group["lr"] / (1 - 0.9 ** state["step"]) * state["m"]

    def train(decorate: Any) -> tuple[list[Any], Any]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = Functional(model.parameters())

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        f, found = decorate(step), []
        for i in range(9):
            if i == 5:
                optimizer.load_state_dict(optimizer.state_dict())
            if i == 7:
                for own in optimizer.state.values():
                    own["m"] = own["m"] * 0.5
            found.append(f(torch.randn(4, 3)).item())
        return [*found, *(s["m"] for s in optimizer.state.values()), *(s["step"] for s in optimizer.state.values())], f

    wanted, _ = train(lambda f: f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, step = train(lambda f: torch.compile(f, backend="numpy"))
    torch.testing.assert_close(found, wanted)
    assert step.eager_calls == 1 and len({id(s.compiled) for s in step.specializations}) == 1


def test_errors_leave_tensors() -> None:
    box = Box()

    @torch.compile(backend="cpu")
    def step(x: Any, at: Any) -> Any:
        box.h = box.h + x[at].sum()
        return box.h

    for _ in range(3):
        step(X, torch.tensor([0, 1]))
    kept = box.h
    with pytest.raises(IndexError):
        step(X, torch.tensor([9]))
    assert box.h is kept and type(kept) is torch.Tensor


def test_gradients_outside() -> None:
    """What a call keeps may have a history."""
    box, weight = Box(), torch.ones(3, requires_grad=True)
    step = torch.compile(lambda x: setattr(box, "h", x * weight) or (box.h * 2).sum(), backend="numpy")
    for i in range(4):
        weight.grad = None
        loss = step(X + i)
        (loss + box.h.sum()).backward()
        torch.testing.assert_close(weight.grad, 3 * (X + i))


def test_a_kept_tensor_as_an_argument() -> None:
    def go(decorate: Any) -> list[Any]:
        box = Box()

        def f(x: Any) -> Any:
            x.mul_(2)
            box.h = box.h + x
            return box.h

        step, found = decorate(f), []
        for i in range(6):
            found.append(step(box.h if i == 4 else X + i).clone())
        return found

    torch.testing.assert_close(go(lambda f: torch.compile(f, backend="numpy")), go(lambda f: f))


def known_elsewhere(decorate: Any) -> list[Any]:
    """The argument, a view, a gradient or another name is the tensor that lies in the place."""
    weight = torch.ones(3, requires_grad=True)
    found: list[Any] = []
    for way in range(4):
        box, other = Box(), Box()

        def f(x: Any, way: int = way, box: Any = box, other: Any = other) -> Any:
            y = box.h * 2 + x
            if way == 1:
                y = y + other.h.sum()
            if way == 2:
                weight.grad = None
                (weight * x).sum().backward()
                box.h = weight.grad
                return y
            if way == 3:
                y = y + other.h
            box.h = x + 1
            return y

        step = decorate(f)
        for i in range(6):
            given = box.h if way == 0 and i % 2 else X + i
            if way == 1 and i == 2:
                other.h = box.h[:2]
            if way == 3 and i == 2:
                other.h = box.h
            found.append(step(given).clone())
        old = box.h
        found += [step(old).clone(), step(old).clone(), step(old).clone()]
    return found


def test_tensors_that_are_known_elsewhere() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = known_elsewhere(lambda f: torch.compile(f, backend="numpy"))
    torch.testing.assert_close(found, known_elsewhere(lambda f: f))


class Recurrent(nn.Module):
    """A module that keeps what it computed for its next call."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.hidden, self.calls, self.last = torch.zeros(3), 0, None
        self.kind = kind

    def forward(self, x: Any) -> Any:
        self.calls += 1
        if self.kind == "hidden":
            y = self.layer(x) + self.hidden
            self.hidden = y.detach()
        elif self.kind == "average":
            self.hidden = 0.9 * self.hidden + 0.1 * x
            y = x - self.hidden
        else:
            y = self.layer(x) if self.calls % 2 else self.layer(x) * self.hidden
            self.hidden = x * self.calls
        self.last = y.detach() * 2
        return y


@pytest.mark.parametrize("kind", ["hidden", "average", "now and then"])
@pytest.mark.parametrize("change", ["nothing", "reset", "kept", "in place"])
def test_a_state_in_attributes_of_a_module(kind: str, change: str) -> None:
    runs = []
    for wrap in (lambda m: m, torch.compile):
        torch.manual_seed(0)
        module = Recurrent(kind)
        step, found, kept = wrap(module), [], []
        for i in range(8):
            if change == "reset" and i % 3 == 2:
                module.hidden = torch.zeros(3)
            elif change == "kept":
                kept.append(module.hidden)
            elif change == "in place":
                module.hidden.add_(1.0)
            y = step(X * i)
            module.zero_grad()
            if y.requires_grad:
                y.sum().backward()
                kept.append(module.layer.weight.grad)
            found.append((y.detach(), module.hidden, module.last, torch.tensor(module.calls)))
        runs.append([*(t for each in found for t in each), *kept])
        if module._compiled_call_impl is not None:
            assert module._compiled_call_impl.eager_calls <= 1  # the first, which makes `last`
    for mine, wanted in zip(runs[1], runs[0], strict=True):
        torch.testing.assert_close(mine, wanted)
