"""Programs as users write them, whose results depend on what a capture easily misses: each is run eagerly and compiled,
and has to give the same."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import itertools
import os
import pickle
import random
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn, optim

ONE = torch.ones(2)
PROGRAMS: dict[str, Any] = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def plain(value: Any) -> Any:
    """A result as Python data."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.requires_grad, value.detach().double().numpy().round(4).tolist()
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(plain, value)]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return type(value).__name__, [plain(getattr(value, f.name)) for f in dataclasses.fields(value)]
    return round(value, 4) if isinstance(value, float) else repr(value)


def constant(model: nn.Module, value: float = 0.5) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    return model


# -- arguments and results --------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    scale: float = 1.0


@program
def a_dataclass_that_the_function_changes(wrap):
    def f(batch):
        batch.scale += 1
        batch.x = batch.x * 2
        return batch.x.sum() * batch.scale

    f, batch = wrap(f), Batch(torch.ones(3))
    return [f(batch), f(batch), batch]


@program
def a_list_argument_that_grows(wrap):
    def f(x, seen):
        seen.append(x * 2)
        return sum(seen)

    f, seen = wrap(f), []
    return [f(ONE, seen), f(ONE, seen), seen]


@program
def containers_that_are_no_results(wrap):
    f = wrap(lambda d: (collections.OrderedDict(d), collections.defaultdict(list, {k: v * 2 for k, v in d.items()})))
    return [f({"a": ONE}), f(collections.OrderedDict(a=ONE, b=ONE * 3))]


@program
def a_generator_function(wrap):
    def f(x):
        for i in range(3):
            yield x * i

    return list(wrap(f)(ONE))


@program
def enums_strings_and_types(wrap):
    kind = enum.Enum("kind", "ADD MUL")
    f = wrap(lambda x, k, s, d: (x + 1 if k is kind.ADD else x * 3).to(d) if s else x)
    return [f(ONE, k, s, d) for k in kind for s in ("", "u") for d in (torch.float64, torch.int64)]


@program
def numbers_that_are_equal_and_not_the_same(wrap):
    f = wrap(lambda x, k: (x * k, torch.copysign(x, torch.tensor(float(k)))))
    return [f(torch.ones(2, dtype=torch.int64), k) for k in (1, True, 1.0, 0.0, -0.0, 0)]


@program
def text_with_sizes(wrap):
    f = wrap(lambda x: (x * 2, f"{x.shape} {x.ndim}"))
    return [f(torch.ones(n)) for n in (2, 3, 4)]


# -- Python state -----------------------------------------------------------------------------------------------------


@program
def sets_deques_and_counters(wrap):
    members, queue, count = {1}, collections.deque([1.0]), collections.Counter(a=1)
    f = wrap(lambda x: x * len(members) + queue[-1] + count["a"])
    found = [f(ONE)]
    members.add(2)
    found.append(f(ONE))
    queue.append(5.0)
    found.append(f(ONE))
    count["a"] += 7
    return [*found, f(ONE)]


@program
def classes_slots_and_missing_attributes(wrap):
    class Base:
        rate = 2.0

    class Config(Base):
        def apply(self, x):
            return x * self.rate

    class Slotted:
        __slots__ = ("scale",)

    config, slotted = Config(), Slotted()
    slotted.scale = 3.0
    f = wrap(
        lambda x: config.apply(x) * slotted.scale + (1 if hasattr(config, "flag") else 0) + getattr(config, "k", 0)
    )
    found = [f(ONE)]
    Base.rate = 5.0
    found.append(f(ONE))
    slotted.scale = 7.0
    found.append(f(ONE))
    config.flag = True
    found.append(f(ONE))
    config.k = 100
    found.append(f(ONE))
    del config.k
    found.append(f(ONE))
    Config.apply = lambda self, x: x - 1
    found.append(f(ONE))
    config.apply = lambda x: x + 1
    return [*found, f(ONE)]


@program
def arrays_that_change(wrap):
    held = np.ones(2, np.float32)
    f = wrap(lambda x: x + torch.tensor(held) + float(held.sum()) + np.sqrt(2.0))
    g = wrap(lambda x, a: x * torch.from_numpy(a))
    found = [f(ONE), g(ONE, held)]
    held[:] = 5
    return [*found, f(ONE), g(ONE, held)]


@program
def iterators_and_generators_of_numbers(wrap):
    numbers, source, python = itertools.count(), np.random.default_rng(3), random.Random(3)
    f = wrap(lambda x: x * next(numbers))
    g = wrap(lambda x: x * source.random() + python.random())
    return [f(ONE), f(ONE), g(ONE), g(ONE)]


@program
def environment_variables(wrap):
    os.environ["GRAPHTORCH_TEST_FACTOR"] = "2"
    f = wrap(lambda x: x * int(os.environ["GRAPHTORCH_TEST_FACTOR"]))
    found = [f(ONE)]
    os.environ["GRAPHTORCH_TEST_FACTOR"] = "5"
    return [*found, f(ONE)]


@program
def a_memoizing_function(wrap):
    table = functools.lru_cache(lambda n: torch.arange(n) * 2.0)
    f = wrap(lambda x: x + table(x.shape[0]))
    found = [f(ONE)]
    table(2).add_(1)
    return [*found, f(ONE), table(2)]


@program
def seeds_inside(wrap):
    def f(x):
        torch.manual_seed(7)
        return x * torch.rand(2)

    def g(x):
        with torch.random.fork_rng():
            torch.manual_seed(9)
            noise = torch.rand(2)
        return x + noise, torch.rand(2)

    f, g = wrap(f), wrap(g)
    return [f(ONE), f(ONE), torch.rand(1), g(ONE), g(ONE)]


@program
def files(wrap):
    read, write = os.pipe()

    def f(x):
        with open(write, "w", closefd=False) as file:
            file.write("x")
        return x * 2

    f = wrap(f)
    f(ONE), f(ONE)
    return os.read(read, 9).decode()


# -- modules and optimizers -------------------------------------------------------------------------------------------


@program
def a_module_compiled_in_place(wrap):
    model = constant(nn.Linear(2, 2))
    call = wrap(model) if wrap(len) is not len else model
    x = torch.ones(1, 2)
    hook = model.register_forward_hook(lambda module, args, out: out * 2)
    found = [call(x)]
    hook.remove()
    found.append(call(x))
    model.weight = nn.Parameter(torch.zeros(2, 2))
    found.append(call(x))
    twin = pickle.loads(pickle.dumps(model))
    return [*found, twin(x), copy.deepcopy(model)(x), isinstance(call, nn.Linear), sorted(call.state_dict())]


@program
def a_list_of_modules_that_grows(wrap):
    layers = nn.ModuleList([constant(nn.Linear(2, 2))])
    f = wrap(lambda x: functools.reduce(lambda h, layer: layer(h), layers, x))
    found = [f(torch.ones(1, 2))]
    layers.append(constant(nn.Linear(2, 2), 0.25))
    found.append(f(torch.ones(1, 2)))
    layers.pop(0)
    return [*found, f(torch.ones(1, 2))]


class Caching(nn.Module):
    """Keeps a tensor in an attribute and replaces a buffer."""

    def __init__(self):
        super().__init__()
        self.cache = None
        self.register_buffer("total", torch.zeros(2))

    def forward(self, x):
        if self.cache is None:
            self.cache = x.sum()
        self.total = self.total + x
        return x * self.cache


@program
def attributes_that_forward_assigns(wrap):
    model = Caching()
    f = wrap(model.forward)
    return [f(ONE), f(ONE * 2), model.cache, model.total]


class Remembering(nn.Module):
    """Makes an attribute in forward."""

    def forward(self, x):
        self.last = x.sum()
        return x * 2


@program
def attributes_that_are_made(wrap):
    model, plain = Remembering(), type("Holder", (), {})()

    def f(x):
        plain.last = x * 3
        return nn.Sequential(model)(x)

    f, g = wrap(f), wrap(model.forward)
    return [f(ONE), model.last, plain.last, g(ONE * 2), model.last, f(ONE * 5), model.last, plain.last]


@program
def a_method_that_is_not_forward(wrap):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = constant(nn.Linear(2, 2))

        def encode(self, x):
            return self.encoder(x)

    model = Model()
    f = wrap(lambda x: model.encode(x))
    found = [f(torch.ones(1, 2))]
    model.encoder = constant(nn.Linear(2, 2), 0.25)
    return [*found, f(torch.ones(1, 2))]


@program
def optimizers_in_hooks(wrap):
    model = constant(nn.Linear(2, 1))
    own = {p: optim.SGD([p], lr=0.1) for p in model.parameters()}

    def update(p):
        own[p].step()
        own[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(update)
    f = wrap(lambda x: model(x).sum().backward())
    f(torch.ones(2, 2)), f(torch.ones(2, 2))
    return [*model.parameters(), [p.grad for p in model.parameters()]]


@program
def groups_and_options_that_change(wrap):
    first, second = constant(nn.Linear(2, 2)), constant(nn.Linear(2, 1))
    optimizer = optim.SGD(first.parameters(), lr=0.01, momentum=0.9)

    def step(x):
        optimizer.zero_grad()
        loss = second(first(x)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step = wrap(step)
    x = torch.ones(3, 2)
    losses = [step(x), step(x)]
    optimizer.add_param_group({"params": second.parameters(), "lr": 0.001})
    losses += [step(x), step(x)]
    optimizer.param_groups[0]["momentum"] = 0.5
    losses.append(step(x))
    first.requires_grad_(False)
    losses.append(step(x))
    optimizer.param_groups[1]["nesterov"] = True
    return [[round(v.item(), 3) for v in (*losses, step(x))], first.weight.grad is None]


@program
def a_scheduler_inside(wrap):
    model = constant(nn.Linear(2, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    step = wrap(step)
    return [[step(torch.ones(3, 2)) for _ in range(5)], optimizer.param_groups[0]["lr"]]


@program
def threads(wrap):
    model = constant(nn.Linear(4, 4), 0.1)
    f = wrap(lambda x, k: (model(x) * k).tanh().sum(0) if x.sum() > 0 else model(x) - k)
    found: dict[Any, Any] = {}

    def run(i):
        for j in range(12):
            x = torch.full((2 + (i + j) % 3, 4), float((-1) ** j * (i + 1)), requires_grad=True)
            y = f(x, i)
            y.sum().backward()
            found[str((i, j))] = y, x.grad

    workers = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return dict(sorted(found.items()))


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_like_eager(name, backend):
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrap = (lambda f, **options: torch.compile(f, backend=backend, **options)) if compiled else lambda f, **o: f
            found.append(plain(PROGRAMS[name](wrap)))
    assert found[1] == found[0]
