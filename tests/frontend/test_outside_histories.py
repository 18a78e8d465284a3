"""Histories that go on outside of a compiled function, or that only one branch of a `cond` has: gradients, their flags
and errors are eager's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import graphtorch as torch


def shown(value: Any) -> Any:
    return None if value is None else (value.detach().tolist(), value.requires_grad)


def outcome(function: Any, make: Any, after: Any) -> list[Any]:
    """Results, flags and gradients of three calls, or the error's class."""
    arguments = make()
    found: list[Any] = []
    for _ in range(3):
        try:
            made = function(*arguments)
            after(made, arguments)
        except RuntimeError as error:
            return [*found, type(error).__name__, str(error)[:60]]
        made = made if isinstance(made, list | tuple) else [made]
        found.append([shown(t) for t in made] + [shown(t.grad) for t in arguments])
    return found


def check(function: Any, make: Any, after: Any = lambda made, arguments: None) -> None:
    wanted = outcome(function, make, after)
    for backend in ("numpy", "interpreter"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert outcome(torch.compile(function, backend=backend), make, after) == wanted


# -- what was saved and changed since ---------------------------------------------------------------------------------


def leaf_and_data() -> Any:
    return torch.ones(3, requires_grad=True), torch.arange(3.0)


def change_and_go_back(made: Any, arguments: Any) -> None:
    arguments[1].add_(1)
    made[0].sum().backward()


@pytest.mark.parametrize(
    "function",
    [
        lambda p, x: [p * x.relu(), (p * 2) * x],
        lambda p, x: [(p * 2).exp(), (p * 2) * x],
        lambda p, x: (lambda h: [h * 2, h * x])(p.exp()),
        lambda p, x: [p * x, p.exp()],
    ],
)
def test_changes_of_what_another_result_saved(function):
    check(function, leaf_and_data, change_and_go_back)


@pytest.mark.parametrize(
    "compute",
    [
        lambda p, x: torch.nn.functional.batch_norm(x, None, None, p, training=True),
        lambda p, x: torch.nn.functional.group_norm(x, 1, p),
    ],
)
@pytest.mark.parametrize("changes", ["x", "p", ""])
def test_changes_of_what_a_composition_saved(compute, changes):
    def make() -> Any:
        return torch.ones(3, requires_grad=True), torch.arange(12.0).reshape(4, 3)

    def inside(p: Any, x: Any) -> Any:
        made = compute(p, x).square().sum()
        with torch.no_grad():
            {"x": x, "p": p, "": torch.zeros(3)}[changes].add_(1)
        made.backward()
        return made.detach()

    def outside(made: Any, arguments: Any) -> None:
        if changes:
            with torch.no_grad():
                arguments["px".index(changes)].add_(1)
        made.square().sum().backward()

    assert ("RuntimeError" in outcome(inside, make, lambda made, arguments: None)) == bool(changes)
    check(inside, make)
    check(compute, make, outside)


def test_a_global_whose_history_goes_on_from_call_to_call():
    def results(compiled: bool) -> list[Any]:
        q = torch.ones(3, 3)

        def f(p):
            q[:, None] *= p
            kept = torch.nn.functional.silu(q)
            q.square().sum().backward(retain_graph=True)
            return kept

        p = torch.full((3,), 0.5, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step = torch.compile(f, backend="numpy") if compiled else f
            return [(shown(step(p)), shown(p.grad), shown(q)) for _ in range(3)]

    assert results(True) == results(False)


@pytest.mark.parametrize("first", [lambda q: q.mul_(2.0), lambda q: q.sigmoid_()])
def test_a_gradient_that_goes_on_through_an_earlier_call(first):
    """The second call's gradient flows through the history that the first gave to a global."""

    def results(compiled: bool) -> list[Any]:
        q, b = torch.ones(3), torch.tensor(2.0, requires_grad=True)

        def f():
            first(q)
            q[:2] *= b
            return torch.autograd.grad((q * q).mean(), [b], create_graph=True)[0]

        found: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step = torch.compile(f, backend="numpy") if compiled else f
            for _ in range(3):
                try:
                    found.append(shown(step()))
                except RuntimeError as error:
                    found.append(str(error)[:80])
        return found

    assert results(True) == results(False)


def test_an_argument_that_was_computed_from_what_is_asked_for():
    d, w = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)

    def f(x):
        return torch.autograd.grad((x * d).square().sum(), [d])[0]

    step = torch.compile(f, backend="numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for make in (lambda: w * 1, lambda: w * 2, lambda: w * d, lambda: w * 1):
            assert step(make()).tolist() == f(make()).tolist()
    assert len(step.specializations) == 1  # the one that is computed from d runs eagerly


# -- cond -------------------------------------------------------------------------------------------------------------

grad, cond = torch.autograd.grad, torch.cond
BRANCHES = {
    "either": (lambda x, y, c: cond(c, lambda: x * 2, lambda: y * 2), 0, False),
    "a linear branch": (
        lambda x, y, c: grad(cond(c, lambda: x * y, lambda: x + y).sum(), [x], create_graph=True)[0],
        -1,
        False,
    ),
    "a linear result": (
        lambda x, y, c: grad(cond(c, lambda: (x * y, x + 1), lambda: (x, x - 1))[1].sum(), [x], create_graph=True)[0],
        -1,
        False,
    ),
    "not used": (
        lambda x, y, c: grad(
            cond(c, lambda: (x * y, x + 1), lambda: (y * x, x - 1))[1].sum(), [x, y], allow_unused=True
        )[0],
        -1,
        False,
    ),
    "one of two": (lambda x, y, c: cond(c, lambda: (x * y, x + 1), lambda: (x * y * 2, x - 1)), 1, False),
    "one of two, twice": (lambda x, y, c: cond(c, lambda: (x * y, x + 1), lambda: (x * y * 2, x - 1)), 1, True),
    "products, twice": (lambda x, y, c: cond(c, lambda: (x * y, x + 1), lambda: (x + y * 2, x - 1)), 0, True),
    "a scan": (lambda x, y, c: torch.scan(lambda h, t: (h, t * 2), y[0], x), 1, False),
    "a scan, twice": (lambda x, y, c: torch.scan(lambda h, t: (h * t, t * h), y[0], x), 1, True),
}


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("name", BRANCHES)
def test_flags_of_gradients_through_control_flow(name, taken):
    function, place, create_graph = BRANCHES[name]

    def make() -> Any:
        return (
            torch.ones(2, requires_grad=True),
            torch.tensor([2.0, 3.0], requires_grad=True),
            torch.tensor(taken),
        )

    def after(made: Any, arguments: Any) -> None:
        if place >= 0:
            root = made if isinstance(made, torch.Tensor) else made[place]
            root.sum().backward(create_graph=create_graph)

    check(function, make, after)


def test_a_full_graph_has_zeros_for_a_branch_that_is_not_taken():
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    step = torch.compile(lambda c: cond(c, lambda: x * 2, lambda: y * 3), fullgraph=True, backend="numpy")
    step(torch.tensor(False)).sum().backward()
    assert y.grad.tolist() == [3, 3]
    assert x.grad.tolist() == [0, 0]
    assert len(step.specializations) == 1


# -- leaves that change inside ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["grad", "backward", "inputs"])
def test_a_leaf_that_is_changed_between_uses(way):
    """All that the leaf was contributes to its gradient."""

    def f(p, x):
        y = p.sum()
        with torch.no_grad():
            p.mul_(2)
        loss = y + (p * 3).sum() + x.sum()
        if way == "grad":
            return torch.autograd.grad(loss, [p])[0]
        loss.backward(inputs=[p] if way == "inputs" else None)
        return p.grad

    check(f, leaf_and_data)


def test_operators_of_numbers_and_tensors_of_sizes():
    def f(p, x):
        return [torch.add(x.shape[0], 1) * x, torch.tensor(x.shape) + torch.tensor(p.shape[0])]

    check(f, leaf_and_data)
    step = torch.compile(f, backend="numpy")
    for n in (2, 3, 4, 5):
        x = torch.ones(n)
        assert [t.tolist() for t in step(x, x)] == [t.tolist() for t in f(x, x)]


def test_a_grad_that_is_returned_is_that_of_each_call():
    p = torch.ones(4, requires_grad=True)
    step = torch.compile(lambda x: [p, p.grad], backend="numpy")
    for grad in (None, torch.ones(4), torch.zeros(4), torch.ones(4) * 2):
        p.grad = grad
        for _ in range(3):
            assert step(torch.ones(2))[1] is p.grad


def fill_a_row(a: Any, p: Any) -> Any:
    with torch.no_grad():
        v = p * 2
    v[0] = (a * 2)[0]
    return v


def fill_a_row_of_a_view(a: Any, p: Any) -> Any:
    with torch.no_grad():
        v = torch.where(a.detach() > 0, p, 2.0)
    part = v[:1]
    part[0] = (a * 2)[0]
    return part


@pytest.mark.parametrize("function", [fill_a_row, fill_a_row_of_a_view])
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("inside", [False, True])
def test_no_gradient_flows_to_what_memory_held_before(function: Any, backend: str, inside: bool) -> None:
    """Rows of memory that was made under no_grad get a history; the others have none."""

    def step(a: Any, p: Any) -> Any:
        y = function(a, p)
        if inside:
            y.sum().backward()
        return y

    for run in (step, torch.compile(step, backend=backend)):
        a, p = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
        y = run(a, p)
        if not inside:
            y.sum().backward()
        assert p.grad is None
        assert a.grad.tolist() == [[2.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_grad_of_a_view_that_is_kept_outside_is_its_own(backend: str) -> None:
    """Assigning `.grad` of a view leaves that of the leaf alone."""
    for compiled in (False, True):
        leaf = torch.ones(3, requires_grad=True)
        leaf.sum().backward()
        part = leaf[:1]

        def clear(part: Any = part) -> Any:
            kept.grad = None
            return kept * 2

        kept = part
        run = torch.compile(clear, backend=backend) if compiled else clear
        for _ in range(2):
            run()
            assert leaf.grad is not None
            assert leaf.grad.tolist() == [1.0] * 3


def change_after_a_checkpoint(x: Any) -> Any:
    v = x * 1
    y = torch.utils.checkpoint.checkpoint(lambda t: t.sin() * t, v, use_reentrant=False)
    v.mul_(2)
    return y


def test_a_checkpointed_function_reads_memory_as_it_is_in_the_backward_pass() -> None:
    grads = []
    for run in (change_after_a_checkpoint, torch.compile(change_after_a_checkpoint)):
        x = torch.tensor([0.5, 1.5], requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it runs eagerly, and says so
            run(x).sum().backward()
        grads.append(x.grad.tolist())
    assert grads[0] == grads[1]


def test_a_second_backward_pass_through_what_no_gradient_flows_to() -> None:
    """What is made of a view under no_grad requires grad, but a backward pass evaluates and frees nothing of it."""

    def step(a: Any) -> Any:
        with torch.no_grad():
            part = a[:1]
        return torch.cat([torch.ones(2), part * torch.tensor([3.0])])

    for run in (step, torch.compile(step)):
        a = torch.ones(3, requires_grad=True)
        made = run(a)
        made.sum().backward()
        (made * made).sum().backward()
        assert a.grad is None


class Double(torch.autograd.Function):
    """2 x, with a history of its own."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * 2


def test_a_custom_function_of_a_view_that_was_made_under_no_grad() -> None:
    base = torch.ones(2, 2, requires_grad=True) * 1
    with torch.no_grad():
        part = base.view(-1)

    def step() -> Any:
        return Double.apply(part)

    assert torch.compile(step)().requires_grad is step().requires_grad is True


def write_through_a_view(a: Any) -> Any:
    v = a * 2
    part = v.transpose(0, -1)
    part.copy_(torch.ones(2) * 0.5)
    return torch.autograd.grad(part.square().sum(), [v], create_graph=True)[0]


def add_through_a_view(a: Any) -> Any:
    v = a * 2
    part = v[1:]
    part.mul_(a[1:])
    return torch.autograd.grad(part.square().sum(), [v])[0], v, part


def change_what_only_a_still_view_would_need(a: Any) -> Any:
    b = a * 1
    flipped = torch.flip(b, (0,))
    with torch.no_grad():
        part = flipped[:1]
    scaled = part * b
    b.add_(1)
    return flipped * scaled


@pytest.mark.parametrize(
    "function", [write_through_a_view, add_through_a_view, change_what_only_a_still_view_would_need]
)
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_gradients_of_memory_that_is_written_in_place(function: Any, backend: str) -> None:
    found = []
    for run in (function, torch.compile(function, backend=backend)):
        a = torch.tensor([0.5, 1.5], requires_grad=True)
        made = run(a)
        made = made if isinstance(made, tuple) else (made,)
        sum(t.sum() for t in made if t.requires_grad).backward()
        found.append([[t.tolist() for t in made], None if a.grad is None else a.grad.tolist()])
    assert str(found[0]) == str(found[1])


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_factor_that_is_a_number_is_not_saved(backend: str) -> None:
    """A backward pass inside frees what operators saved: of a product with `item()`, nothing."""

    def step(a: Any, b: Any) -> Any:
        v = a * b.sum().item()
        v.sum().backward()
        return v * 2

    found = []
    for run in (step, torch.compile(step, backend=backend)):
        a = torch.ones(2, requires_grad=True)
        for n in (2, 3):
            run(a, torch.ones(n)).sum().backward()
        found.append(a.grad.tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_backward_pass_frees_nothing_of_calls_that_it_does_not_reach(backend: str) -> None:
    """`.grad` with a history: that of a later call leads to the call before, but a result of the later one does not."""

    def step(p: Any, b: Any) -> Any:
        (g,) = torch.autograd.grad((p * p * p).sum(), [p], create_graph=True)
        g = g * b
        g.sum().backward(create_graph=True)
        return g[::2]

    found = []
    for run in (step, torch.compile(step, backend=backend)):
        p = torch.tensor([[0.5, 1.5], [2.5, 3.5]], requires_grad=True)
        first, second = run(p, torch.tensor(2.0)), run(p, torch.tensor(2.0))
        second.sum().backward()
        first.sum().backward()
        found.append(p.grad.tolist())
    assert found[0] == found[1]


# -- histories that the function used up -------------------------------------------------------------------------------


def test_a_changed_argument_keeps_the_history_that_the_call_used_up():
    def function(b: Any, p: Any) -> Any:
        b.mul_(p)
        return torch.autograd.grad((b * b).mean(), [p])[0]

    def make() -> Any:
        return torch.full((2, 2), 0.5, requires_grad=True) * 1, torch.tensor([1.0, 2.0], requires_grad=True)

    check(function, make)


@pytest.mark.parametrize("allow_unused", [False, True])
def test_a_used_up_history_leads_where_it_did(allow_unused):
    p, q = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)

    def function(x: Any) -> Any:
        loss = (p * x).exp().sum()
        loss.backward()
        return loss

    def after(made: Any, arguments: Any) -> None:
        assert torch.autograd.grad(made + q.sum(), [q])[0].tolist() == [1, 1]  # never comes to what is used up
        torch.autograd.grad(made, [p], allow_unused=allow_unused)

    def run(step: Any) -> list[str]:
        found = []
        for _ in range(4):
            with pytest.raises(RuntimeError) as error:
                after(step(torch.ones(2)), ())
            found.append(str(error.value))
        return found

    wanted = run(function)
    assert "a second time" in wanted[0]
    assert run(torch.compile(function, backend="numpy")) == wanted
