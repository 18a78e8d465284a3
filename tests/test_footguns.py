"""The classic traps of tracing compilers: whatever a compiled function reads or changes, it does as eager execution
does, or raises an error that says what to do."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import gc
import pickle
import threading
import warnings
import weakref

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn, optim
from graphtorch.frontend import CaptureError
from graphtorch.nn import functional as F

BACKENDS = ("numpy", "interpreter")


def vector(n=6, **options):
    return torch.arange(1, n + 1, dtype=torch.float32).requires_grad_(options.get("requires_grad", False))


def plain(value):
    """A result as Python data, with what a user can see of its tensors."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.requires_grad, value.is_leaf, value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def both(scenario, backend="numpy"):
    """Run a scenario, given a decorator, eagerly and compiled; all that it returns must agree."""
    seen = []
    for decorate in (lambda f: f, functools.partial(torch.compile, backend=backend)):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seen.append(plain(scenario(decorate)))
    assert_close(seen[1], seen[0])


def assert_close(actual, expected):
    if isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            assert_close(a, e)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_close(actual[key], expected[key])
    else:
        assert actual == expected


# -- values from Python -----------------------------------------------------------------------------------------------

SCALE = 1.0
TABLE = {"gain": 2.0, "terms": [1.0, 2.0]}


@dataclasses.dataclass
class Settings:
    gain: float = 1.0
    shape: tuple = (2, 3)


class Holder:
    factor = 3.0

    def __init__(self):
        self.gain = 2.0
        self.nested = Settings()
        self.weights = [vector(), vector() * 2]

    def scaled(self, x):
        return x * self.gain * self.factor * self.nested.gain + self.weights[0]


def global_value(decorate):
    global SCALE
    f = decorate(lambda x: x * SCALE)
    found = []
    for SCALE in (1.0, 2.0, 2, True, 2.0):  # noqa: B007
        found.append(f(vector()))
    return found


def global_containers(decorate):
    def read(x):
        return x * TABLE["gain"] + sum(TABLE["terms"]), len(TABLE["terms"])

    f = decorate(read)
    found = [f(vector())]
    TABLE["gain"] = 5.0
    found.append(f(vector()))
    TABLE["terms"].append(7.0)
    found.append(f(vector()))
    TABLE["terms"][0] = -1.0
    found.append(f(vector()))
    TABLE.update(gain=2.0, terms=[1.0, 2.0])
    found.append(f(vector()))
    return found


def attributes(decorate):
    holder = Holder()
    f = decorate(lambda x: holder.scaled(x))
    found = [f(vector())]
    holder.gain = 7.0
    found.append(f(vector()))
    holder.nested.gain = 0.5
    found.append(f(vector()))
    holder.nested = Settings(gain=4.0)
    found.append(f(vector()))
    holder.weights[0] = vector() * 10
    found.append(f(vector()))
    return found


def bound_method(decorate):
    first, second = Holder(), Holder()
    second.gain = 9.0
    f, g = decorate(first.scaled), decorate(second.scaled)
    found = [f(vector()), g(vector())]
    first.gain = 5.0
    return [*found, f(vector()), g(vector())]


def object_argument(decorate):
    def use(settings, x):
        return x.view(settings.shape) * settings.gain

    f = decorate(use)
    settings = Settings()
    found = [f(settings, vector())]
    settings.gain = 3.0
    found.append(f(settings, vector()))
    return [*found, f(Settings(2.0, (3, 2)), vector()), f(Settings(3.0, (2, 3)), vector())]


def closure_rebound(decorate):
    gain, offset = 1.0, vector()

    def use(x):
        return x * gain + offset

    f = decorate(use)
    found = [f(vector())]
    gain = 4.0
    found.append(f(vector()))
    offset = vector() * 100
    return [*found, f(vector())]


def default_arguments(decorate):
    def use(x, terms=[1.0], *, gain=2.0):  # noqa: B006
        return x * gain + len(terms) + terms[0]

    f = decorate(use)
    found = [f(vector()), f(vector(), gain=3.0), f(vector(), [5.0, 6.0])]
    use.__defaults__[0].append(2.0)
    found.append(f(vector()))
    use.__kwdefaults__["gain"] = 10.0
    return [*found, f(vector())]


def called_function_replaced(decorate):
    def helper(x):
        return x + 1

    def use(x):
        return helper(x)

    f = decorate(use)
    found = [f(vector())]

    def helper(x):  # noqa: F811
        return x * 3

    return [*found, f(vector())]


def tensor_kept_in_a_list(decorate):
    kept = [vector()]
    f = decorate(lambda x: x + kept[0])
    found = [f(vector())]
    kept[0] = vector() * 5
    found.append(f(vector()))
    kept[0].mul_(2)
    return [*found, f(vector())]


def python_side_effects(decorate):
    history, counts = [], {"calls": 0}

    def use(x):
        counts["calls"] += 1
        history.append(x.shape[0])
        return x * counts["calls"]

    f = decorate(use)
    return [[f(vector()), f(vector()), f(vector(3))], history, counts]


def python_numbers_as_results(decorate):
    f = decorate(lambda x: (x.shape[0], x.shape, x.numel(), x.sum().item(), x.sum().item() * 2, "text", None, x.dtype))
    return [f(vector()), f(vector(4)), f(vector(9))]


def loop_over_a_size(decorate):
    def use(x):
        total = x[0]
        for i in range(1, x.shape[0]):
            total = total + x[i] * i
        return total

    f = decorate(use)
    return [f(vector(n)) for n in (3, 4, 5, 1)]


def branches_on_python(decorate):
    def use(x, mode=None):
        if mode == "double":
            x = x * 2
        if x.shape[0] > 4:
            x = x[:4]
        return x if isinstance(mode, str) else x.sum()

    f = decorate(use)
    return [f(vector(n), m) for n in (3, 6, 8) for m in (None, "double", "other")]


def nested_compiled(decorate):
    inner = decorate(lambda x: x * 2 + 1)
    outer = decorate(lambda x: inner(x).sum() + inner(x + 1))
    return [inner(vector()), outer(vector()), inner(vector(3)), outer(vector(3))]


def dtype_and_mode_changes(decorate):
    f = decorate(lambda x: x / 2 + 1)
    found = [f(vector().to(d)) for d in (torch.float32, torch.float64, torch.int64, torch.float16, torch.bool)]
    x = vector(requires_grad=True)
    found.append(f(x))
    with torch.no_grad():
        found.append(f(x))
    found.append(f(x.detach()))
    torch.set_default_dtype(torch.float64)
    try:
        found.append(decorate(lambda x: x + torch.ones(6))(vector()))
        found.append(f(vector().long()))
    finally:
        torch.set_default_dtype(torch.float32)
    return [*found, f(vector().long())]


# -- memory -----------------------------------------------------------------------------------------------------------


def results_of_earlier_calls(decorate):
    f = decorate(lambda x: (x * 2, x.sum(), (x + 1).view(2, 3)[0]))
    calls = [f(vector() * i) for i in range(4)]
    calls[1][0].zero_()
    return calls


def same_tensor_twice(decorate):
    def use(x, y):
        x.add_(1)
        return x * y

    f = decorate(use)
    a, b = vector(), vector()
    return [f(a, b), f(a, a), f(b, a), f(b, b), a, b]


def views_as_arguments(decorate):
    def use(x):
        x.mul_(2)
        return x.sum(), x.reshape(-1), x.t() if x.ndim == 2 else x

    f = decorate(use)
    base = torch.arange(24, dtype=torch.float32).view(4, 6)
    found = [f(base[1:3]), f(base[:, ::2]), f(base.t()), f(base[0]), f(base[:0]), f(base[0, 0]), f(base)]
    found[0][1].fill_(-1)
    return [found, base]


def odd_layouts(decorate):
    f = decorate(lambda x: ((x * 2).sum(0), x.flip(0), x.reshape(-1), x.max(), x + x.t()))
    square = torch.arange(9, dtype=torch.float32).view(3, 3)
    return [f(x) for x in (square, square.t(), square[:1].expand(3, 3), square.flip(0), square.double(), square.long())]


def zero_and_scalar_sizes(decorate):
    f = decorate(lambda x: (x * 2, x.sum(), (x > 0).any(), torch.cat([x.view(-1), x.view(-1)])))
    return [f(torch.ones(shape)) for shape in ((0,), (3, 0), (), (1,), (1, 1), (2, 3), (0, 3), (4, 3))]


def reshape_copies_or_views(decorate):
    def use(x):
        y = x.t() * 1
        y.reshape(-1).add_(1)  # a copy, as y is not contiguous: y stays
        z = x * 1
        z.reshape(-1).add_(1)
        return y, z

    f = decorate(use)
    return [f(torch.arange(6, dtype=torch.float32).view(2, 3)) for _ in range(2)]


def state_changed_between_calls(decorate):
    buffer = torch.zeros(6)

    def use(x):
        buffer.add_(x)
        return buffer * 1, buffer[:2]

    f = decorate(use)
    found = [f(vector()), f(vector())]
    buffer.zero_()
    found.append(f(vector()))
    found[0][1].fill_(50)
    return [*found, f(vector()), buffer]


def kept_views_of_state(decorate):
    whole = torch.zeros(6)
    part = whole[2:4]

    def use(x):
        part.add_(x[:2])
        whole.mul_(2)
        return part * 1

    f = decorate(use)
    return [f(vector()), f(vector()), whole, part]


def position_as_a_tensor(decorate):
    cache = torch.zeros(4, 3)

    def use(step, row):
        cache[step] = row
        cache[step] += 1
        cache[step].mul_(2)
        return cache[step] * 1, cache.sum()

    f = decorate(use)
    return [f(torch.tensor(i), vector(3)) for i in (0, 2, 3, 2)], cache


def swapped_through_a_temporary(decorate):
    a, b = vector(), vector() * 10

    def use():
        t = a.clone()
        a.copy_(b)
        b.copy_(t)

    f = decorate(use)
    f()
    f()
    f()
    return a, b


# -- training ---------------------------------------------------------------------------------------------------------


def model_and_data():
    torch.manual_seed(1)
    # No bias before the normalization: its gradient is nothing but rounding, which Adam would make large.
    first = nn.Linear(4, 8, bias=False)
    model = nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.25), nn.Linear(8, 3))
    rng = np.random.default_rng(0)
    batches = [
        (torch.tensor(rng.standard_normal((n, 4)).astype(np.float32)), torch.tensor(rng.integers(0, 3, n)))
        for n in (8, 8, 5, 8, 6)
    ]
    return model, batches


def state_of(model, *optimizers):
    return [
        {k: v.detach().clone() for k, v in model.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [[list(s.values()) for s in o.state.values()] for o in optimizers],
    ]


def training_with_everything(decorate):
    """Clipping, moving average of the weights, two optimizers, groups, a schedule, train and eval."""
    model, batches = model_and_data()
    average = copy.deepcopy(model)
    first = optim.AdamW([{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.001}], lr=0.01)
    second = optim.SGD(model[4].parameters(), lr=0.1, momentum=0.9, nesterov=True)
    schedule = optim.lr_scheduler.StepLR(second, 2, gamma=0.5)

    def step(x, y):
        first.zero_grad()
        second.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        first.step()
        second.step()
        with torch.no_grad():
            for p, kept in zip(model.parameters(), average.parameters()):
                kept.lerp_(p, 0.1)
        return loss, norm

    def evaluate(x):
        with torch.no_grad():
            return model(x).argmax(1), average(x)

    step, evaluate = decorate(step), decorate(evaluate)
    found = []
    for x, y in batches:
        found.append(step(x, y))
        schedule.step()
        model.eval()
        found.append(evaluate(x))
        model.train()
    return found, state_of(model, first, second), state_of(average)


def frozen_and_thawed(decorate):
    model, batches = model_and_data()
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step = decorate(step)
    found = []
    for i, (x, y) in enumerate(batches):
        model[0].requires_grad_(i % 2 == 0)
        found.append(step(x, y))
    return found, state_of(model)


def tied_weights(decorate):
    torch.manual_seed(1)
    table, out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    out.weight = table.weight
    optimizer = optim.Adam([table.weight], lr=0.1)

    def step(i):
        optimizer.zero_grad()
        loss = F.cross_entropy(out(table(i)), i)
        loss.backward()
        optimizer.step()
        return loss

    step = decorate(step)
    return [step(torch.tensor([0, 3, 3])) for _ in range(4)], table.weight, out.weight.grad


def two_losses_of_one_call(decorate):
    """Each loss's backward pass frees its own history and leaves the other's parameters alone."""
    a, b = nn.Linear(3, 1), nn.Linear(3, 1)
    f = decorate(lambda x: (a(x).sum(), b(x).square().sum()))
    found = []
    for _ in range(3):
        first, second = f(torch.ones(2, 3))
        first.backward()
        found.append([None if p.grad is None else p.grad.clone() for p in (*a.parameters(), *b.parameters())])
        second.backward()
        found.append([p.grad.clone() for p in (*a.parameters(), *b.parameters())])
    return found


def history_of_state(decorate):
    """A buffer that collects what carries a gradient: backward goes through all calls."""
    w = vector(requires_grad=True)
    total = torch.zeros(6)
    f = decorate(lambda k: total.add_(w * k))
    for k in (1.0, 2.0, 3.0):
        f(torch.tensor(k))
    total.sum().backward()
    return total, w.grad


def leaf_made_inside(decorate):
    def use(x):
        y = x.detach().clone().requires_grad_()
        z = (y * y).sum()
        return y, z

    f = decorate(use)
    found = []
    for _ in range(2):
        y, z = f(vector())
        z.backward()
        found.append([y, y.grad, z])
    return found


def requires_grad_set_inside(decorate):
    f = decorate(lambda x: (x.requires_grad_() * 2).sum())
    x = vector()
    found = []
    for _ in range(2):
        f(x).backward()
        found.append([x.requires_grad, x.grad.clone()])
    return found


def overwritten_under_no_grad(decorate):
    def use(w):
        y = w * 3
        with torch.no_grad():
            y.mul_(10)  # the history of y is that of w * 3 all the same
        y.sum().backward()
        return y

    f = decorate(use)
    w = vector(requires_grad=True)
    return [f(w).detach(), w.grad, f(w).detach(), w.grad]


def update_inside_then_more_gradients(decorate):
    w = vector(requires_grad=True)

    def use(x):
        (w * x).sum().backward()
        with torch.no_grad():
            w.sub_(w.grad)
            w.grad = None
        (w * w).sum().backward()
        return (w * 2).sum()

    f = decorate(use)
    found = [f(vector()), f(vector())]
    found[1].backward()
    return found, w, w.grad


def hooks_inside(decorate):
    w = vector(requires_grad=True)

    def use():
        y = w * 2
        y.register_hook(lambda g: g * 10)
        return y.sum()

    f = decorate(use)
    found = []
    for _ in range(2):
        f().backward()
        found.append(w.grad.clone())
    return found


def gradient_penalty(decorate):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.05)

    def step(x):
        optimizer.zero_grad()
        x = x.detach().requires_grad_()
        out = model(x).sum()
        (g,) = torch.autograd.grad(out, x, create_graph=True)
        loss = out + ((g.norm(dim=1) - 1) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    step = decorate(step)
    return [step(torch.ones(n, 3) * n) for n in (2, 2, 5, 3)], state_of(model)


def optimizer_with_a_closure(decorate):
    w = vector(requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)

    def use(x):
        def closure():
            optimizer.zero_grad()
            loss = (w * x).square().sum()
            loss.backward()
            return loss

        return optimizer.step(closure)

    f = decorate(use)
    return [f(vector()) for _ in range(3)], w


def hooks_that_count(decorate):
    """What hooks do to Python happens at each backward pass."""
    model, seen = nn.Linear(2, 1), []
    model.weight.register_hook(lambda g: seen.append("gradient"))
    model.bias.register_post_accumulate_grad_hook(lambda p: seen.append("accumulated"))
    model.register_forward_hook(lambda m, i, o: seen.append("forward"))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda o, a, k: seen.append("step"))

    def step(x):
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    step = decorate(step)
    return [step(torch.ones(1, 2)) for _ in range(3)], seen


def arithmetic_of_run_time_numbers(decorate):
    functions = [
        lambda n: 1.0 / n, lambda n: n**-1, lambda n: n**0.5, lambda n: 2**n, lambda n: 2**-n, lambda n: n // 2,
        lambda n: round(n / 3, 1), lambda n: round(n), lambda n: min(n, 2), lambda n: int(n / 2), lambda n: 7 // n,
    ]  # fmt: skip
    found = []
    for number in (torch.tensor(3), torch.tensor(3.0), torch.tensor(5, dtype=torch.int32)):
        for function in functions:
            used = decorate(lambda t, f=function: f(t.item()) * torch.ones(1, dtype=torch.float64))
            found += [used(number), used(number + 1)]
    return found


def averages_of_a_normalization(decorate):
    """Two calls of one layer; the weight of each is one by their number."""
    norm = nn.BatchNorm1d(2, momentum=None)
    f = decorate(lambda x: norm(x) + norm(x * 2 + 1))
    found = []
    for i in range(2):
        found += [f(torch.arange(8.0).view(4, 2) + i), norm.running_mean.clone(), norm.num_batches_tracked.clone()]
    return found


def an_epoch_inside(decorate):
    """The loader's order is drawn anew in each epoch."""
    data = torch.utils.data.TensorDataset(torch.arange(6.0).view(6, 1))
    loader = torch.utils.data.DataLoader(data, 2, shuffle=True)
    weight = torch.ones(1, requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.01)

    def epoch():
        losses = []
        for (x,) in loader:
            optimizer.zero_grad()
            loss = (weight * x).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses

    epoch = decorate(epoch)
    return [epoch() for _ in range(3)], weight


def random_state_between_calls(decorate):
    f = decorate(lambda x: F.dropout(x, 0.5) + torch.rand(6))
    found = [f(vector()), torch.rand(2), f(vector())]
    torch.manual_seed(7)
    return [*found, f(vector()), torch.rand(2)]


SCENARIOS = [
    value
    for value in list(globals().values())
    if callable(value) and getattr(value, "__code__", None) and value.__code__.co_varnames[:1] == ("decorate",)
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_scenario(scenario, backend):
    both(scenario, backend)


# -- errors -----------------------------------------------------------------------------------------------------------


def test_overlapping_arguments_when_one_changes():
    def use(x, y):
        x.add_(1)
        return y * 2

    base = vector()
    with pytest.raises(CaptureError, match=r"x and y share memory(.|\n)*clone"):
        torch.compile(use, fullgraph=True)(base, base[1:])
    assert base.tolist() == [1, 2, 3, 4, 5, 6]
    compiled = torch.compile(use)
    with pytest.warns(UserWarning, match="eagerly: the inputs x and y share memory"):
        assert compiled(base, base[1:]).tolist() == [6, 8, 10, 12, 14]
    assert base.tolist() == [2, 3, 4, 5, 6, 7]
    assert compiled(vector(), vector()).tolist() == [2, 4, 6, 8, 10, 12]
    assert compiled(base, base.detach()).tolist() == [6, 8, 10, 12, 14, 16]
    for _ in range(20):  # no capture each time
        assert compiled(base, base.detach())[0] == 2 * base[0]
    assert len(compiled.specializations) == 1 and compiled.eager_calls == 22


def test_a_refusal_is_not_swallowed_by_the_users_handler():
    def use(x):
        try:
            x.detach_()
        except RuntimeError:
            return x * 100
        return x * 2

    assert use(vector()).tolist() == [2, 4, 6, 8, 10, 12]
    with pytest.warns(UserWarning, match=r"detach_\(\) inside"):
        assert torch.compile(use)(vector()).tolist() == [2, 4, 6, 8, 10, 12]
    with pytest.raises(CaptureError, match="detach_"):
        torch.compile(use, fullgraph=True)(vector())


def test_argument_that_is_the_state_which_changes():
    state = vector()

    @torch.compile
    def use(x):
        state.add_(1)
        return x * 1

    assert use(vector()).tolist() == [1, 2, 3, 4, 5, 6]
    assert use(state).tolist() == [3, 4, 5, 6, 7, 8]
    assert use(vector()).tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.warns(UserWarning, match="share memory"):
        assert use(state[1:]).tolist() == [6, 7, 8, 9, 10]


def test_argument_that_is_a_parameter():
    w = vector(requires_grad=True)

    @torch.compile
    def use(x):
        (w * x).sum().backward()

    use(vector())
    assert w.grad.tolist() == [1, 2, 3, 4, 5, 6]
    w.grad = None
    use(w)
    assert w.grad.tolist() == [2, 4, 6, 8, 10, 12]


def test_exception_in_the_middle_leaves_what_was_done_until_then():
    w = vector(requires_grad=True)
    buffer = torch.zeros(6)

    @torch.compile
    def use(x, fail):
        buffer.add_(1)
        (w * x).sum().backward()
        if fail:
            raise KeyError("stop")
        return w * 1

    with pytest.raises(KeyError, match="stop"):
        use(vector(), True)
    assert buffer.sum().item() == 6
    assert w.grad.tolist() == [1, 2, 3, 4, 5, 6]
    use(vector(), False)
    assert buffer.sum().item() == 12
    assert torch.is_grad_enabled()


def test_recorded_tensor_kept_by_a_failed_capture():
    kept = []

    @torch.compile
    def leak(x):
        kept.append(x * 2)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        leak(vector())
    assert [t.tolist() for t in kept] == [(vector() * 2).tolist()]  # of the eager run alone


def test_hooks_on_tensors_from_outside():
    w = vector(requires_grad=True)

    def use():
        w.register_hook(lambda g: g * 2)
        return w * 1

    with pytest.raises(CaptureError, match="register the hook outside"):
        torch.compile(use, fullgraph=True)()
    compiled = torch.compile(use)
    with pytest.warns(UserWarning, match="one more hook at each call"):
        for factor in (2, 4, 8):  # as in eager execution
            w.grad = None
            compiled().sum().backward()
            assert w.grad.tolist() == [factor] * 6


def test_expanded_argument_is_not_written_row_by_row():
    @torch.compile
    def use(x):
        x[0] += 1

    x = torch.zeros(1, 3).expand(4, 3)
    with pytest.raises(CaptureError, match="expanded"):
        torch.compile(use.function, fullgraph=True)(x)
    with pytest.warns(UserWarning, match="expanded"):
        use(x)
    assert x.tolist() == [[1, 1, 1]] * 4


def test_backward_twice_through_one_call():
    w = vector(requires_grad=True)
    f = torch.compile(lambda: (w.exp().sum(), w.exp().sum()))
    first, second = f()
    first.backward()
    second.backward()
    with pytest.raises(RuntimeError, match="second time"):
        first.backward()


def test_history_that_needs_what_was_overwritten():
    def use(w):
        y = w.exp()
        z = y.sum()
        y.mul_(2)
        return z

    for f in (use, torch.compile(use)):
        w = vector(requires_grad=True)
        z = f(w)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.backward()


# -- the machinery ----------------------------------------------------------------------------------------------------


def test_threads():
    """Two threads capture and replay at the same time, each with what is its own."""
    f = torch.compile(lambda x, k: (x * k).cumsum(0) + k)
    inputs = [(vector(n), k) for n in (3, 4, 5, 6) for k in (1.0, 2.0)]
    expected = [((x * k).cumsum(0) + k).tolist() for x, k in inputs]
    failures = []

    def work(shift):
        try:
            for i in range(60):
                at = (i + shift) % len(inputs)
                found = f(*inputs[at]).tolist()
                assert found == expected[at], (found, expected[at])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not failures


def test_results_do_not_keep_their_inputs_alive():
    f = torch.compile(lambda x: x * 2)
    x = vector()
    result = f(x)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None
    assert result.tolist() == [2, 4, 6, 8, 10, 12]


def test_row_by_a_tensor_is_a_view():
    def f(table, i, local):
        table.mul_(2)
        made = local * 1
        return table[i], table[i, i], made, made[i]

    for decorate in (lambda f: f, torch.compile):
        g = decorate(f)
        for place in (1, 0, -1):
            table = torch.arange(6.0).view(2, 3)
            row, element, made, part = g(table, torch.tensor(place), torch.ones(2, 3))
            row.add_(100)
            element.zero_()
            part.fill_(7)
            assert row._base is table or row._base is not None
            expected = np.arange(6.0).reshape(2, 3) * 2
            expected[place] += 100
            expected[place, place] = 0
            assert table.tolist() == expected.tolist()
            assert made[place].tolist() == [7] * 3
    assert len(g.specializations) == 1


def test_writes_through_data_are_not_counted():
    def f(x, y, z):
        x.data.add_(1)
        y.data = x * 2
        z.data[0] = 1
        z.mul_(2)

    for g in (f, torch.compile(f)):
        for _ in range(3):
            tensors = [torch.zeros(2) for _ in range(3)]
            g(*tensors)
            assert [t._version for t in tensors] == [0, 0, 1]
            assert [t.tolist() for t in tensors] == [[1, 1], [2, 2], [2, 0]]


def test_view_whose_base_got_other_memory():
    for decorate in (lambda f: f, torch.compile):
        p = torch.ones(2, 2, requires_grad=True)
        q = p.view(-1)
        f = decorate(lambda: q.detach() * 2)
        found = [f()]
        p.data = p.data * 3
        found.append(f())
        assert [t[0].item() for t in found] == [2, 2]


def test_view_of_no_grad_is_not_changed_with_grad():
    def f(x):
        with torch.no_grad():
            view = x.unsqueeze(-1)
        view.add_(1)

    for g in (f, torch.compile(f)):
        with pytest.raises(RuntimeError, match="A view was created in no_grad mode"):
            g(torch.ones(3, requires_grad=True) * 1)


@pytest.mark.parametrize("dynamic", [None, True])
def test_results_that_nothing_flows_to(dynamic):
    """Zero times an infinite derivative is NaN: what no gradient reaches must take no part in a backward pass."""

    def f(x, w):
        y = (x * w).exp()
        return y.sum(), (x - x).sqrt().sum(), {"aux": (y * w).log(), "mask": F.dropout(x, 0.5)}

    picks = [
        lambda a, b, c: a,
        lambda a, b, c: a + c["aux"].sum(),
        lambda a, b, c: c["mask"].sum(),
        lambda a, b, c: a + b,
        lambda a, b, c: a + b + c["aux"].sum() + c["mask"].sum(),
    ]
    compiled = torch.compile(f, dynamic=dynamic)
    for pick in picks:
        found = []
        for g in (f, compiled):
            torch.manual_seed(0)
            x, w = torch.arange(4.0).requires_grad_(), torch.full((4,), 0.5, requires_grad=True)
            pick(*g(x, w)).backward()
            found.append((x.grad, w.grad))
        for actual, expected in zip(found[1], found[0]):
            assert (actual is None) == (expected is None)
            if expected is not None:
                np.testing.assert_allclose(actual.tolist(), expected.tolist(), rtol=1e-5)
    assert len(compiled.specializations) == 1


def test_kept_view_after_its_base_got_a_history():
    for decorate in (lambda f: f, torch.compile):
        base = torch.ones(2, 3)
        row = base[0]

        @decorate
        def f(x):
            base.mul_(x)
            row.exp().sum().backward(retain_graph=True)
            row.add_(1)
            return row * 1

        x = torch.full((2, 3), 2.0, requires_grad=True)
        y = f(x)
        assert y.requires_grad
        np.testing.assert_allclose(x.grad.tolist(), [[np.exp(2)] * 3, [0] * 3], rtol=1e-6)
        assert base.tolist() == [[3] * 3, [2] * 3]


def test_view_of_a_leaf_changed_under_no_grad():
    for decorate in (lambda f: f, torch.compile):
        for power in (1, 2):

            @decorate
            def f(w):
                base = w if power == 1 else w * 1
                view = base.view(-1)
                with torch.no_grad():
                    view.abs_()
                    view[0] = 7
                (view * view).sum().backward()
                return view.detach() * 1

            w = torch.tensor([[-1.0, 2.0], [-3.0, 4.0]], requires_grad=True)
            assert f(w).tolist() == [7, 2, 3, 4]
            assert w.grad.tolist() == [[14, 4], [6, 8]]


def test_size_that_is_divided():
    f = torch.compile(lambda x: (x.reshape(2, -1) < 0.5).all())
    for n in (4, 2, 6, 8):
        assert f(torch.zeros(n, 1)).item() is True


def test_detached_memory_with_two_histories():
    def f(x, w):
        h = x * 2
        d = h.detach()
        d[::2] = w
        return d, h, d.chunk(2)[0]

    found = []
    for g in (f, torch.compile(f)):
        x, w = torch.ones(4, requires_grad=True), torch.tensor(3.0, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            d, h, part = g(x, w)
        (part.sum() + h.sum()).backward()
        found.append((plain(d), plain(h), x.grad.tolist(), w.grad.tolist()))
    assert found[0] == found[1]
    with pytest.raises(CaptureError, match="detached memory"):
        torch.compile(f, fullgraph=True)(x, w)


def test_hook_on_a_view_among_results():
    def f(x):
        y = x * 2
        view = y.view(-1)
        view.register_hook(lambda g: g * 2)
        return view, y

    with pytest.raises(CaptureError, match="register the hook on the result"):
        torch.compile(f, fullgraph=True)(torch.ones(2, 2, requires_grad=True))
    found = []
    for g in (f, torch.compile(f)):
        x = torch.ones(2, 2, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            view, y = g(x)
        (view.sum() + y.sum()).backward()
        found.append(x.grad.tolist())
    assert found[0] == found[1]


def test_memory_of_a_history_changed_through_detach():
    """What is written through `detach()` shows, and the gradient still flows."""
    for change in (lambda y: y.detach().zero_(), lambda y: y.detach()[1:].add_(1), lambda y: y.data.mul_(3)):
        found = []

        def f(x, change=change):
            y = x * 2
            change(y)
            return y

        for g in (f, torch.compile(f)):
            x = vector(requires_grad=True)
            y = g(x)
            y.sum().backward()
            found.append((y.tolist(), x.grad.tolist()))
        assert found[0] == found[1] and found[0][1] == [2] * 6


def test_a_bad_index_is_an_error_even_if_nothing_uses_what_it_gives():
    def f(x, i):
        x[i]
        return x * 2

    for backend in ("numpy", "cpu", "interpreter"):
        compiled = torch.compile(f, backend=backend)
        assert compiled(vector(), torch.tensor([1, 5])).tolist() == [2, 4, 6, 8, 10, 12]
        with pytest.raises(IndexError):
            compiled(vector(), torch.tensor([1, 6]))


def test_a_result_changed_before_its_backward_pass():
    """Eager execution saves the result of exp; so a change of it is an error there, and must not go unnoticed here."""
    for change in (lambda y: y.add_(1), lambda y: y.detach().zero_()):
        for f in (torch.exp, torch.compile(lambda x: x.exp())):
            y = f(vector(requires_grad=True))
            change(y)
            with pytest.raises(RuntimeError, match="modified by an inplace"):
                y.sum().backward()


def test_an_expanded_gradient_is_not_written():
    def f(x, write):
        (g,) = torch.autograd.grad(x.sum(), x)
        if write:
            g.add_(1)
        return g

    compiled = torch.compile(f)
    assert compiled(vector(requires_grad=True), False).stride() == (0,)
    with pytest.raises(RuntimeError, match="single memory location"):
        compiled(vector(requires_grad=True), True)


def test_a_view_that_becomes_a_leaf():
    def f(x):
        y = x * 1
        v = y[1:]
        v.requires_grad_()
        z = v * 2
        y.mul_(3)
        return y, v, z

    found = []
    for g in (f, torch.compile(f)):
        y, v, z = g(vector())
        z.sum().backward()
        found.append((y.tolist(), v.tolist(), v.requires_grad, v.grad.tolist(), y.requires_grad))
    assert found[0] == found[1]


def test_a_hook_on_an_argument_stays_on_it():
    def f(x):
        x.register_hook(lambda g: g * 2)
        return x * 1

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for g in (f, torch.compile(f)):
            x = vector(requires_grad=True)
            g(x)
            x.sum().backward()
            found.append(x.grad.tolist())
    assert found[0] == found[1] == [2] * 6


def test_a_base_that_becomes_a_leaf_after_its_view():
    def use(x):
        base = x * 1
        view = base.view(-1)
        view.sub_(view)
        base.requires_grad_()
        return view

    compiled = torch.compile(use, backend="numpy")
    with pytest.warns(UserWarning, match="requires_grad_\\(\\) of a tensor of which there are views"):
        assert plain(compiled(torch.ones(2, 2))) == plain(use(torch.ones(2, 2)))


class Holder3:
    factor = 3.0

    @classmethod
    def scaled(cls, x):
        return x * cls.factor


def test_attribute_of_the_class_of_a_compiled_classmethod(monkeypatch):
    compiled = torch.compile(Holder3.scaled, backend="numpy")
    assert compiled(torch.ones(1)).item() == 3
    monkeypatch.setattr(Holder3, "factor", 10.0)
    assert compiled(torch.ones(1)).item() == 10


@torch.compile(backend="numpy")
def decorated(x):
    return x * 3


def tripled(x):
    return x * 3


def test_compiled_functions_are_pickled_and_copied():
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    compiled = torch.compile(tripled, backend="numpy", recompile_limit=3)
    compiled(torch.ones(1))
    for made in (pickle.loads(pickle.dumps(compiled)), copy.copy(compiled)):
        assert made is not compiled
        assert (made.backend, made.recompile_limit) == ("numpy", 3)
        assert not made.specializations
        assert made(torch.ones(1)).item() == 3
    assert copy.deepcopy(compiled) is compiled  # as functions are


def test_generators_and_coroutines_run_eagerly_or_are_refused():
    def numbers(x):
        yield x
        yield x * 2

    async def later(x):
        return x * 2

    for function, run in ((numbers, list), (later, lambda c: [asyncio.run(c)])):
        compiled = torch.compile(function, backend="numpy")
        with pytest.warns(UserWarning, match="it is a generator or a coroutine"):
            assert plain(run(compiled(torch.ones(1)))) == plain(run(function(torch.ones(1))))
        with pytest.raises(CaptureError, match="is a generator or a coroutine"):
            torch.compile(function, backend="numpy", fullgraph=True)(torch.ones(1))
    made = torch.compile(lambda x: iter([x * 2, x * 3]), backend="numpy")
    with pytest.warns(UserWarning, match="which can be used once"):
        assert [t.item() for t in made(torch.ones(1))] == [2, 3]
    assert [t.item() for t in made(torch.ones(1))] == [2, 3]
