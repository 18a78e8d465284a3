"""Python control flow on tensor data under `@compile`: every way through a function is a program of its own, and a call
takes the way that eager execution takes."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import warnings

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn, optim
from graphtorch.frontend import CaptureError

BACKENDS = ("numpy", "cpu", "interpreter")


def seen(value):
    if isinstance(value, torch.Tensor):
        return [tuple(value.shape), str(value.dtype), value.requires_grad, np.array(value.detach().tolist())]
    if isinstance(value, (list, tuple)):
        return [seen(v) for v in value]
    return value


def assert_same(actual, expected):
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            assert_same(a, e)
    elif isinstance(expected, (np.ndarray, float)):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    else:
        assert actual == expected


def check(scenario, backend="numpy", eager=False):
    """Run a scenario, given a decorator, eagerly and compiled; returns the compiled functions. Without `eager`, no call
    of the compiled one may have run eagerly."""
    made = []

    def compiled(function):
        made.append(torch.compile(function, backend=backend))
        return made[-1]

    results = []
    for decorate in (lambda f: f, compiled):
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append((seen(scenario(decorate)), torch.rand(2).tolist()))
    assert_same(results[1][0], results[0][0])
    assert results[1][1] == results[0][1], "the generator is where eager execution leaves it"
    if not eager:
        assert all(f.eager_calls == 0 for f in made)
    return made


def values(*numbers):
    return [torch.full((3,), number) for number in numbers]


def branch(decorate):
    def f(x):
        y = x * 2
        if y.sum() > 3:
            return y.exp()
        return y - 1

    f = decorate(f)
    return [f(x) for x in values(1.0, -1.0, 2.0, -3.0, 5.0)]


def nested_branches(decorate):
    def f(x, y):
        if x.sum() > 0 and y.sum() > 0:
            return x + y
        if not (x * y).sum() < 0 or x[0] == 1:
            return x - y
        return (x / y, "other") if y.min() < -2 else x

    f = decorate(f)
    return [f(x, y) for x in values(1.0, -1.0, 2.0) for y in values(1.0, -1.0, -3.0)]


def loop(decorate):
    def f(x):
        count = 0
        while x.norm() < 100:
            x = x * 2
            count += 1
        return x, count

    f = decorate(f)
    return [f(x) for x in values(1.0, -1.0, 2.0, -3.0, 5.0, 99.0, 0.01, 2.0)]


def gradients_inside(decorate):
    w = torch.ones(3, requires_grad=True)

    def f(x):
        loss = (w * x).exp().sum()
        if loss > 5:
            loss = loss.log()
        else:
            loss = loss * 3
        loss.backward()
        if w.grad.norm() > 1:
            w.grad.mul_(1 / w.grad.norm())
        with torch.no_grad():
            w.sub_(w.grad)
        grad, w.grad = w.grad, None
        return loss.detach(), grad, w.sum().item()

    f = decorate(f)
    return [(f(x), w) for x in values(1.0, -1.0, 0.1, 2.0, -0.5, 0.01)]


def gradients_outside(decorate):
    w = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)

    def f(x):
        h = (w * x).tanh()
        if h.sum() > 0:
            return (h * h).sum(), h
        return h.exp().sum(), h.detach()

    f = decorate(f)
    found = []
    for x in values(1.0, -1.0, 2.0, -3.0):
        loss, h = f(x)
        loss.backward()
        found += [loss, h, w.grad.clone()]
    return found


def random_numbers_around(decorate):
    def f(x):
        noise = torch.rand(3)
        x = nn.functional.dropout(x + noise, 0.5)
        if x.sum() > 2:
            x = x + torch.randn(3)
        unused = torch.rand(5)  # noqa: F841
        if x[0] > 1:
            return x * torch.rand(3)
        return x

    f = decorate(f)
    return [f(x) for x in values(*[0.1 * i for i in range(12)])]


def writes_before_and_after(decorate):
    state = torch.zeros(3)

    def f(x):
        state.add_(x)
        x.mul_(2)
        if state.sum() > 4:
            state.zero_()
            x[0] = 7
        view = x[1:]
        if view.sum() > 5:
            view.neg_()
        return view, state.clone()

    f = decorate(f)
    found = []
    for x in values(1.0, 0.1, 1.0, 3.0, -1.0, 0.2):
        found += [f(x), x, state.clone()]
    return found


def written_flag(decorate):
    count = torch.zeros((), dtype=torch.int64)

    def f(x):
        count.add_(1)
        if count % 3 == 0:
            return x * 10, count
        return x, count.clone()

    f = decorate(f)
    return [f(x) for x in values(*map(float, range(7)))]


def numbers(decorate):
    def f(x):
        n = int(x[0])
        y = torch.zeros(4)
        for i in range(x[1].long()):
            y[i] += n
        return y[: x[2].int()], float(x[0]), f"{x.sum():.2f}", x.tolist(), [10, 20, 30][x[1].long()]

    f = decorate(f)
    return [f(torch.tensor(v)) for v in ([1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 2.0, 3.0])]


def boolean_masks(decorate):
    w = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)

    def f(x):
        kept = (w * x)[x > 0]
        kept.sum().backward()
        return kept.detach(), torch.nonzero(x > 1), torch.where(x > 0), x.masked_select(x < 1), w.grad.clone()

    f = decorate(f)
    data = ([1.0, -1.0, 2.0, 3.0], [-1.0, 1.0, 2.0, 3.0], [-1.0, -1.0, 2.0, 3.0], [3.0, -1.0, 3.0, 0.5])
    return [f(torch.tensor(x)) for x in data]


def sizes_that_change(decorate):
    def f(x):
        if x.mean() > 0:
            return x * 2 + x.shape[0]
        return x.flip(0)

    f = decorate(f)
    return [f(sign * torch.arange(1, n + 1)) for n in (3, 4, 5, 6, 4) for sign in (1.0, -1.0)]


def comparisons(decorate):
    def f(x, y):
        return torch.equal(x, y), torch.allclose(x, y), 2.0 in x, max(x), x.sum().item() > y.sum().item()

    f = decorate(f)
    return [f(x, y) for x in values(1.0, 2.0) for y in values(1.0, 3.0)]


def error_in_a_branch(decorate):
    total = torch.zeros(3)

    def f(x):
        if not torch.isfinite(x).all():
            raise ValueError("not finite")
        total.add_(x)
        return total.clone()

    f = decorate(f)
    found = []
    for x in values(1.0, float("nan"), 2.0, float("inf"), 3.0):
        try:
            found.append(f(x))
        except ValueError as error:
            found.append(str(error))
    return found


def training_with_clipping(decorate):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    best = torch.full((), float("inf"))

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        if norm > 0.5:
            for p in model.parameters():
                p.grad.mul_(0.5 / norm)
        if loss.detach() < best:
            best.copy_(loss.detach())
            optimizer.step()
        return loss.detach()

    step = decorate(step)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(12):
        x = torch.tensor(generator.standard_normal((6, 4)).astype("float32"))
        found.append(step(x, torch.tensor(generator.integers(0, 2, 6))))
    return [*found, *model.parameters(), best]


SCENARIOS = [
    branch, nested_branches, loop, gradients_inside, gradients_outside, random_numbers_around, writes_before_and_after,
    written_flag, numbers, boolean_masks, sizes_that_change, comparisons, error_in_a_branch, training_with_clipping,
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_same_as_eager(scenario, backend):
    check(scenario, backend)


def test_a_path_for_each_way():
    (f,) = check(branch)
    assert [s.calls for s in f.specializations] == [3, 2]
    first, second = f.specializations
    assert first.compiled.executable.stages == second.compiled.executable.stages, "what decides runs once"
    assert "bool() was False" in second.reason and "if y.sum() > 3" in second.reason
    assert "bool() was True at" in str(f.explain())


def test_loop_continues_from_what_has_run():
    (f,) = check(loop)
    longest = max(f.specializations, key=lambda s: len(s.answers))
    shortest = min(f.specializations, key=lambda s: len(s.answers))
    assert longest.compiled.executable.stages[0] is shortest.compiled.executable.stages[0]
    assert len({id(stage) for s in f.specializations for stage in s.compiled.executable.stages}) == len(longest.answers)


def test_known_ways_need_no_capture():
    def f(x):
        if x.sum() > 0:
            return x
        return -x

    f = torch.compile(f, recompile_limit=1)
    for number in (1.0, -1.0, 2.0, -2.0):
        assert f(torch.full((3,), number))[0].item() == abs(number)
    assert len(f.specializations) == 2 and f.eager_calls == 0


def test_too_many_values_run_eagerly_with_one_warning():
    @torch.compile
    def f(x):
        return x * int(x[0])

    with pytest.warns(UserWarning, match=r"(?s)int\(\).*test_decisions.py:\d+: return x \* int") as caught:
        for number in range(20):
            assert f(torch.full((2,), float(number)))[0].item() == number * number
    assert len(caught) == 1
    assert f.eager_calls == 12


def test_ways_that_are_used_stay():
    @torch.compile
    def f(x):
        return x * int(x[0])

    with pytest.warns(UserWarning):
        for number in (1, 1, 1, *range(20)):
            f(torch.full((2,), float(number)))
    before = f.eager_calls
    assert f(torch.ones(2))[0].item() == 1
    assert f.eager_calls == before and len(f.specializations) == 1


def test_a_loop_without_bound_runs_eagerly():
    @torch.compile
    def f(x):
        while x.sum() < 1000:
            x = x + 1
        return x

    with pytest.warns(UserWarning, match="more than 64 decisions.*while x.sum"):
        assert f(torch.zeros(2))[0].item() == 500


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: int(x[0]),
        lambda x: float(x[0]),
        lambda x: x[x > 0],
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: print(x),
        lambda x: f"{x}",
        lambda x: time.time() * x,
    ],
)
def test_fullgraph_raises_at_the_line(ask):
    with pytest.raises(CaptureError, match=r"test_decisions.py:\d+: lambda x"):
        torch.compile(ask, fullgraph=True)(torch.ones(3))


def test_printing_is_not_lost(capsys):
    def f(x):
        print("sum", x.sum())
        return x + 1

    compiled = torch.compile(f)
    texts = []
    for function in (f, compiled):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                function(torch.ones(2))
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == "sum tensor(2.)\n" * 3
    assert len(caught) == 1 and "prints at" in str(caught[0].message)
    assert print is __builtins__["print"] if isinstance(__builtins__, dict) else print


@pytest.mark.parametrize("draw", [lambda: random.random(), lambda: float(np.random.rand())])
def test_random_numbers_of_python(draw):
    def f(x):
        return x * draw()

    results = []
    for function in (f, torch.compile(f)):
        random.seed(0)
        np.random.seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append([function(torch.ones(1)).item() for _ in range(3)])
    assert results[0] == results[1] and len(set(results[0])) == 3


def test_the_clock_goes_on():
    @torch.compile
    def f(x):
        return x, time.perf_counter()

    with pytest.warns(UserWarning, match="reads the clock"):
        assert f(torch.ones(1))[1] < f(torch.ones(1))[1]


def test_data_as_an_array_is_eager():
    def f(x):
        array = (x * 2).numpy()
        array[0] = 9
        return array

    with pytest.warns(UserWarning, match="needs the data"):
        g = torch.compile(f)
        first, second = g(torch.ones(2)), g(torch.ones(2))
    assert first is not second and first.tolist() == [9, 2]


def test_a_generator_of_ones_own():
    generator = torch.Generator().manual_seed(5)

    @torch.compile
    def f(x):
        x = x + torch.rand(3, generator=generator)
        if x.sum() > 1.5:
            return x + torch.rand(3, generator=generator)
        return x

    found = [f(torch.zeros(3)).tolist() for _ in range(8)]
    generator.manual_seed(5)
    with torch.no_grad():
        expected = [f.function(torch.zeros(3)).tolist() for _ in range(8)]
    assert found == expected and f.eager_calls == 0


def test_threads():
    f = torch.compile(lambda x: x * 2 if x.sum() > 0 else x - 1)
    wrong = []

    def work(sign):
        for i in range(50):
            number = sign * (i + 1.0) * (-1) ** i
            got = f(torch.full((2,), number))[0].item()
            if got != (number * 2 if number > 0 else number - 1):
                wrong.append((number, got))

    threads = [threading.Thread(target=work, args=(sign,)) for sign in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def draws_in_memory_order(decorate):
    def f(x):
        return torch.rand_like(x), x.clone().normal_(), x.mul_(2).uniform_()

    f = decorate(f)
    return [f(x) for x in (torch.zeros(2, 3), torch.zeros(3, 2).t(), torch.zeros(2, 6)[:, ::2])]


def test_draws_into_other_memory_orders():
    with pytest.warns(UserWarning, match="not contiguous"):
        check_with_warnings(draws_in_memory_order)


def check_with_warnings(scenario):
    found = []
    for decorate in (lambda f: f, torch.compile):
        torch.manual_seed(3)
        found.append(seen(scenario(decorate)))
    assert_same(found[1], found[0])


def test_the_warning_is_at_the_callers_line():
    f = torch.compile(lambda x: print(end="") or x)
    with pytest.warns(UserWarning) as caught:
        f(torch.ones(1))
    assert caught[0].filename == __file__
    g = torch.compile(lambda x: x * int(x))
    with pytest.warns(UserWarning) as caught:
        for i in range(12):
            g(torch.tensor(float(i)))
    assert [w.filename for w in caught] == [__file__]


def test_log_records_are_not_lost(caplog):
    log = logging.getLogger("a users program")

    @torch.compile
    def f(x):
        log.debug("quiet")
        log.warning("loss %s", x.sum())
        return x

    with pytest.warns(UserWarning, match=r"test_decisions.py:\d+: log.warning"):
        for _ in range(3):
            f(torch.ones(2))
    assert [r.getMessage() for r in caplog.records if r.name == log.name] == ["loss tensor(2.)"] * 3


# -- sizes that depend on data ----------------------------------------------------------------------------------------


def rows_in_use(x):
    return x.view(4, 2)[x.view(4, 2).sum(1) > 0].tanh().sum(0)


def write_through_a_mask(x):
    y = x.clone()
    y[y > 0.3] *= 2
    return y


def positions_and_values(x):
    return torch.nonzero(x.view(2, 4) > 0), x[x > 0].cumsum(0), x[x > 0].shape[0]


def product_of_selections(x):
    return (x[x > 0].unsqueeze(1) @ x[x > 0].unsqueeze(0)).softmax(-1)


@pytest.mark.parametrize("backend", ["numpy", "cpu", "interpreter"])
@pytest.mark.parametrize("f", [rows_in_use, write_through_a_mask, positions_and_values, product_of_selections])
def test_counts_are_symbols(f, backend):
    """One program for every number of elements from two on, forward and backward."""
    compiled = torch.compile(f, backend=backend)
    seen = set()
    for seed in range(24):
        torch.manual_seed(seed)
        data, found = torch.rand(8) * 2 - 1, []
        for function in (f, compiled):
            x = data.clone().requires_grad_()
            result = function(x)
            results = result if isinstance(result, tuple) else (result,)
            loss = sum(t.sum() for t in results if isinstance(t, torch.Tensor) and t.requires_grad)
            loss.backward()
            seen.add(int((data > 0).sum()))
            found.append([*results, x.grad])
        for e, a in zip(*found, strict=True):
            assert type(e) is type(a)
            if isinstance(e, torch.Tensor):
                assert e.shape == a.shape and e.requires_grad == a.requires_grad
                assert torch.allclose(e, a, atol=1e-5)
            else:
                assert e == a
    assert len(seen) > 4 and compiled.eager_calls == 0
    assert len(compiled.specializations) <= 3  # none, one, or more


def test_a_count_that_python_looks_at_is_a_number():
    """What is decided by the count has a program for each one, up to a limit."""

    @torch.compile
    def f(x):
        y = x[x > 0]
        return y * 2 if y.shape[0] > 3 else y + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in (5, 2, 4, 3, 5, 6, 7, 8, 9, 10, 11, 12):
            x = torch.cat([torch.ones(n), -torch.ones(12 - n)])
            assert f(x).tolist() == [2.0] * n
    assert len(f.specializations) <= 8 and f.eager_calls > 0


def test_distinct_values_are_a_decision_on_how_many_there_are():
    def step(ids, weight):
        values, inverse, counts = ids.unique(return_inverse=True, return_counts=True)
        runs = torch.unique_consecutive(ids)
        loss = (weight[values] * counts).square().sum() + inverse.sum() + runs.sum()
        return loss, torch.autograd.grad(loss, [weight])[0], values

    generator = torch.Generator().manual_seed(0)
    weight = torch.arange(10.0).requires_grad_()
    compiled = torch.compile(step, backend="numpy")
    for n in (8, 8, 8, 8, 1, 0, 6, 7):
        ids = torch.randint(0, 10, (n,), generator=generator)
        for mine, wanted in zip(compiled(ids, weight), step(ids, weight), strict=True):
            assert mine.tolist() == wanted.tolist()
    assert compiled.eager_calls == 0
    assert torch.tensor([math.nan, math.nan, 1.0]).unique().tolist()[0] == 1  # and each NaN is another
    assert torch.compile(torch.unique)(torch.tensor([math.nan, math.nan])).shape == (2,)
