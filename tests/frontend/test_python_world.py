"""What a compiled function reads of the Python world, and does to it beside computing: what changes between calls is
seen, and what a graph can't repeat happens at each call. Each scenario runs eagerly and compiled, and must agree."""

from __future__ import annotations

import array
import builtins
import collections
import contextvars
import copy
import datetime
import enum
import functools
import io
import itertools
import operator
import os
import pathlib
import queue
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import types
import uuid
import warnings
import weakref
from typing import Any

import numpy as np
import pytest

import graphtorch as torch

SCALE = 2.0


class Letter(enum.Enum):
    A = 1
    B = 2


def plain(value: Any) -> Any:
    """A result as Python data."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.requires_grad, value.is_leaf, value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def scenario_result(scenario: Any, decorate: Any) -> Any:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain(scenario(decorate))


def in_a_module_of_its_own(source: str) -> tuple[dict[str, Any], Any]:
    """A function `f` and its globals."""
    space: dict[str, Any] = {}
    exec(source, space)
    return space, space["f"]


def global_that_appears_later(decorate: Any) -> Any:
    source = "def f(x):\n  try:\n    return x * LATE\n  except NameError:\n    return x"
    space, function = in_a_module_of_its_own(source)
    f = decorate(function)
    found = [f(torch.ones(3)), f(torch.ones(3))]
    space["LATE"] = 3.0
    found += [f(torch.ones(3)), f(torch.ones(3))]
    del space["LATE"]
    return [*found, f(torch.ones(3))]


def global_that_hides_a_builtin(decorate: Any) -> Any:
    space, function = in_a_module_of_its_own("def f(x): return x * max(2, 3) + sum([1, 2])")
    f = decorate(function)
    found = [f(torch.ones(3)), f(torch.ones(3))]
    space["max"] = min
    found += [f(torch.ones(3)), f(torch.ones(3))]
    space["sum"] = lambda values: 100
    return [*found, f(torch.ones(3))]


def builtin_that_is_replaced(decorate: Any) -> Any:
    f = decorate(lambda x: x * max(2, 3))
    x = torch.ones(3)
    found = [f(x), f(x)]
    o = builtins.max
    builtins.max = min
    try:
        found += [f(x)]
    finally:
        builtins.max = o
    return [*found, f(x)]


def name_among_globals(decorate: Any) -> Any:
    space, function = in_a_module_of_its_own("def f(x): return x * 2 if 'FLAG' in globals() else x")
    f = decorate(function)
    found = [f(torch.ones(3)), f(torch.ones(3))]
    space["FLAG"] = 1
    return [*found, f(torch.ones(3))]


def class_attribute_that_appears(decorate: Any) -> Any:
    class A:
        pass

    a = A()
    f = decorate(lambda x: x * (a.k if hasattr(a, "k") else 1.0))
    x = torch.ones(3)
    found = [f(x), f(x)]
    a.k = 5.0
    found += [f(x)]
    del a.k
    A.k = 7.0
    found += [f(x)]
    return found


def argument_that_is_a_parameter(decorate: Any) -> Any:
    f = decorate(lambda x: x * 2 if isinstance(x, torch.nn.Parameter) else x * 3)
    return [
        f(torch.ones(2)),
        f(torch.nn.Parameter(torch.ones(2))),
        f(torch.ones(2)).detach(),
        f(torch.nn.Parameter(torch.ones(2))),
        f(torch.ones(2, requires_grad=True)),
    ]


def type_of_an_argument(decorate: Any) -> Any:
    f = decorate(lambda x: x * 2 if type(x) is torch.nn.Parameter else x * 3)
    return [
        f(torch.ones(2)),
        f(torch.nn.Parameter(torch.ones(2))),
        f(torch.ones(2)).detach(),
        f(torch.nn.Parameter(torch.ones(2))),
        f(torch.ones(2, requires_grad=True)),
    ]


def attributes_of_an_argument(decorate: Any) -> Any:
    f = decorate(lambda x: x * getattr(x, "mark", 1.0))
    x = torch.ones(2)
    x.mark = 4.0
    found = [f(x), f(torch.ones(2))]
    x.mark = 5.0
    return [*found, f(x)]


def attributes_of_a_parameter(decorate: Any) -> Any:
    p = torch.nn.Parameter(torch.ones(2))
    p.mark = 3.0
    f = decorate(lambda x: x * p.mark)
    found = [f(torch.ones(2))]
    p.mark = 5.0
    found += [f(torch.ones(2))]
    return found


def tensor_in_a_cache_that_fills(decorate: Any) -> Any:
    @functools.lru_cache
    def buf(n):
        return torch.zeros(n)

    def f(x):
        b = buf(3)
        b.add_(x)
        return b * 1

    f = decorate(f)
    x = torch.ones(3)
    return [f(x), f(x), f(x), buf(3)]


def tensor_in_a_full_cache(decorate: Any) -> Any:
    @functools.lru_cache
    def buf(n):
        return torch.zeros(n)

    buf(3)

    def f(x):
        b = buf(3)
        b.add_(x)
        return b * 1

    f = decorate(f)
    x = torch.ones(3)
    found = [f(x), f(x), f(x), buf(3)]
    buf.cache_clear()
    return [*found, f(x), f(x), buf(3)]


def cached_methods_and_properties(decorate: Any) -> Any:
    class M:
        def __init__(self):
            self.s = 2.0

        @functools.cache  # noqa: B019
        def table(self, n):
            return torch.arange(n).float() * self.s

        @functools.cached_property
        def prop(self):
            return torch.ones(3) * self.s

    m = M()
    f = decorate(lambda x: x + m.table(3) + m.prop)
    x = torch.ones(3)
    found = [f(x), f(x)]
    m.prop.mul_(2)
    m.table(3).mul_(2)
    found += [f(x), f(x)]
    M.table.cache_clear()
    m.s = 10.0
    del m.prop
    return [*found, f(x), f(x)]


def large_arrays_changed_in_place(decorate: Any) -> Any:
    a = np.ones(20000, np.float64)
    f = decorate(lambda x: x * torch.from_numpy(a).sum())
    found = [f(torch.ones(2).double())]
    a[0] = 100
    found += [f(torch.ones(2).double())]
    f2 = decorate(lambda x: x * float(a.sum()))
    found += [f2(torch.ones(2))]
    a[0] = 1000
    found += [f2(torch.ones(2))]
    f3 = decorate(lambda x: x * torch.tensor(a).sum())
    found += [f3(torch.ones(2))]
    a[0] = 1e4
    return [*found, f3(torch.ones(2))]


def global_in_a_method(decorate: Any) -> Any:
    global SCALE
    SCALE = 2.0

    class M:
        def run(self, x):
            return self.inner(x)

        def inner(self, x):
            return x * SCALE

    m = M()
    f = decorate(lambda x: m.run(x))
    found = [f(torch.ones(2)), f(torch.ones(2))]
    SCALE = 3.0
    found += [f(torch.ones(2))]
    g = decorate(m.run)
    found += [g(torch.ones(2))]
    SCALE = 4.0
    return [*found, f(torch.ones(2)), g(torch.ones(2))]


def global_in_properties_and_special_methods(decorate: Any) -> Any:
    global SCALE
    SCALE = 2.0

    class M:
        @property
        def s(self):
            return SCALE * self.k

        @staticmethod
        def st(x):
            return x * SCALE

        @classmethod
        def cl(cls, x):
            return x * SCALE * cls.q

        q = 1.0

        def __init__(self):
            self.k = 1.0

        def __call__(self, x):
            return x + self.s

        def __getattr__(self, n):
            if n == "dyn":
                return SCALE
            raise AttributeError(n)

    m = M()
    f1 = decorate(lambda x: x * m.s)
    f2 = decorate(lambda x: m.st(x))
    f3 = decorate(lambda x: m.cl(x))
    f4 = decorate(lambda x: m(x))
    f5 = decorate(lambda x: x * m.dyn)
    x = torch.ones(2)

    def all():
        return [g(x) for g in (f1, f2, f3, f4, f5)]

    found = [all(), all()]
    SCALE = 3.0
    found += [all()]
    m.k = 5.0
    found += [all()]
    M.q = 7.0
    found += [all()]
    M.s = property(lambda self: 100.0)
    return [*found, all()]


def entry_of_a_long_list(decorate: Any) -> Any:
    terms = [1.0] * 1000
    f = decorate(lambda x: x * sum(terms))
    found = [f(torch.ones(2))]
    terms[5] = 100.0
    return [*found, f(torch.ones(2))]


def entry_of_a_long_dictionary(decorate: Any) -> Any:
    terms = {i: 1.0 for i in range(1000)}
    f = decorate(lambda x: x * sum(terms.values()))
    found = [f(torch.ones(2))]
    terms[5] = 100.0
    return [*found, f(torch.ones(2))]


def attribute_eight_objects_down(decorate: Any) -> Any:
    class N:
        pass

    root = N()
    n = root
    for _ in range(8):
        n.c = N()
        n = n.c
    n.v = 1.0
    f = decorate(lambda x: x * root.c.c.c.c.c.c.c.c.v)
    found = [f(torch.ones(2))]
    n.v = 5.0
    return [*found, f(torch.ones(2))]


def entry_eight_containers_down(decorate: Any) -> Any:
    d = {"a": [{"b": [{"c": [{"d": [1.0]}]}]}]}
    f = decorate(lambda x: x * d["a"][0]["b"][0]["c"][0]["d"][0])
    found = [f(torch.ones(2))]
    d["a"][0]["b"][0]["c"][0]["d"][0] = 9.0
    return [*found, f(torch.ones(2))]


def keys_of_any_kind(decorate: Any) -> Any:
    k = object()
    d = {("a", 1): 1.0, Letter.A: 2.0, None: 3.0, 1.5: 4.0, k: 5.0, b"x": 6.0}
    f = decorate(lambda x: x * sum(d.values()))
    found = [f(torch.ones(2))]
    for key in list(d):
        d[key] *= 3
        found += [f(torch.ones(2))]
    return found


def order_of_keys(decorate: Any) -> Any:
    d = {"a": 1.0, "b": 2.0}
    f = decorate(lambda x: x * float("".join(str(int(v)) for v in d.values())))
    found = [f(torch.ones(2))]
    v = d.pop("a")
    d["a"] = v
    return [*found, f(torch.ones(2))]


def members_of_a_set(decorate: Any) -> Any:
    s = {1, 2}
    f = decorate(lambda x: x * sum(s))
    found = [f(torch.ones(2))]
    s.add(10)
    found += [f(torch.ones(2))]
    s.remove(1)
    found += [f(torch.ones(2))]
    s.add(True)
    s.add(1.0)
    return [*found, f(torch.ones(2))]


def containers_of_own_classes(decorate: Any) -> Any:
    class C(dict):
        __getattr__ = dict.__getitem__

    class L(list):
        pass

    c = C(a=1.0)
    terms = L([1.0])
    f = decorate(lambda x: x * c.a * c["a"] + terms[0])
    found = [f(torch.ones(2))]
    c["a"] = 5.0
    found += [f(torch.ones(2))]
    terms[0] = 50.0
    found += [f(torch.ones(2))]
    terms.append(1)
    return [*found, f(torch.ones(2))]


def containers_of_the_library(decorate: Any) -> Any:
    c = collections.UserDict(a=1.0)
    n = types.SimpleNamespace(a=1.0, b=types.SimpleNamespace(c=1.0))
    ch = collections.ChainMap({"a": 1.0}, {"b": 2.0})
    f = decorate(lambda x: x * c["a"] * n.a * n.b.c * ch["a"] * ch["b"])
    found = [f(torch.ones(2))]
    c["a"] = 5.0
    found += [f(torch.ones(2))]
    n.b.c = 2.0
    found += [f(torch.ones(2))]
    ch["b"] = 8
    return [*found, f(torch.ones(2))]


def bytes_changed_in_place(decorate: Any) -> Any:
    b = bytearray(b"\x01\x02")
    a = array.array("d", [1.0, 2.0])
    m = memoryview(bytearray(b"\x05"))
    f = decorate(lambda x: x * b[0] * a[0] * m[0])
    found = [f(torch.ones(2))]
    b[0] = 3
    found += [f(torch.ones(2))]
    a[0] = 9
    found += [f(torch.ones(2))]
    m[0] = 2
    return [*found, f(torch.ones(2))]


def context_variable(decorate: Any) -> Any:
    v = contextvars.ContextVar("v", default=1.0)
    tl = threading.local()
    tl.a = 1.0
    f = decorate(lambda x: x * v.get() * tl.a)
    found = [f(torch.ones(2))]
    v.set(3.0)
    found += [f(torch.ones(2))]
    tl.a = 2.0
    return [*found, f(torch.ones(2))]


def weak_reference(decorate: Any) -> Any:
    class N:
        pass

    n = N()
    n.v = 1.0
    w = weakref.ref(n)
    f = decorate(lambda x: x * w().v)
    found = [f(torch.ones(2))]
    n.v = 3.0
    return [*found, f(torch.ones(2))]


def arguments_of_a_partial(decorate: Any) -> Any:
    terms = [1.0]

    def g(a, x, b):
        return x * a[0] * b

    p = functools.partial(g, terms, b=2.0)
    f = decorate(p)
    h = decorate(lambda x: p(x))
    found = [f(torch.ones(2)), h(torch.ones(2))]
    terms[0] = 5.0
    found += [f(torch.ones(2)), h(torch.ones(2))]
    p.keywords["b"] = 7.0
    return [*found, f(torch.ones(2)), h(torch.ones(2))]


def attribute_of_a_function(decorate: Any) -> Any:
    def g(x):
        return x * g.scale

    g.scale = 1.0
    f = decorate(g)
    found = [f(torch.ones(2))]
    g.scale = 5.0
    return [*found, f(torch.ones(2))]


def code_reloaded_in_place(decorate: Any) -> Any:
    def g(x):
        return x * 2

    def h(x):
        return g(x)

    f = decorate(h)
    found = [f(torch.ones(2))]
    g.__code__ = (lambda x: x * 10).__code__
    return [*found, f(torch.ones(2))]


def methods_replaced_in_a_class(decorate: Any) -> Any:
    class M(torch.nn.Module):
        def forward(self, x):
            return self.h(x)

        def h(self, x):
            return x * 2

    m = M()
    f = decorate(lambda x: m(x))
    found = [f(torch.ones(2))]
    M.h = lambda self, x: x * 7
    found += [f(torch.ones(2))]
    M.forward = lambda self, x: x * 9
    found += [f(torch.ones(2))]
    m.forward = lambda x: x * 11
    return [*found, f(torch.ones(2))]


def module_imported_inside(decorate: Any) -> Any:
    mod = types.ModuleType("mymod_aud")
    mod.S = 1.0
    sys.modules["mymod_aud"] = mod

    def g(x):
        import mymod_aud
        from mymod_aud import S

        return x * mymod_aud.S * S

    f = decorate(g)
    found = [f(torch.ones(2))]
    mod.S = 5.0
    return [*found, f(torch.ones(2))]


def object_that_is_called(decorate: Any) -> Any:
    class C:
        def __init__(self):
            self.a = 1.0
            self.terms = [1.0]

        def __call__(self, x):
            return x * self.a * self.terms[0] * SCALE

    c = C()
    f = decorate(c)
    found = [f(torch.ones(2))]
    c.a = 2.0
    found += [f(torch.ones(2))]
    c.terms[0] = 5.0
    return [*found, f(torch.ones(2))]


def globals_of_functions_in_containers(decorate: Any) -> Any:
    global SCALE
    SCALE = 1.0
    table = {"a": lambda x: x * SCALE, "b": [lambda x: x + SCALE]}
    f = decorate(lambda x: table["a"](x) + table["b"][0](x))
    found = [f(torch.ones(2))]
    SCALE = 4.0
    return [*found, f(torch.ones(2))]


def globals_of_a_function_argument(decorate: Any) -> Any:
    global SCALE
    SCALE = 1.0
    k = [1.0]

    def act(x):
        return x * SCALE * k[0]

    f = decorate(lambda x, a: a(x))
    found = [f(torch.ones(2), act)]
    SCALE = 4.0
    found += [f(torch.ones(2), act)]
    k[0] = 3.0
    return [*found, f(torch.ones(2), act)]


def global_in_a_hook(decorate: Any) -> Any:
    global SCALE
    SCALE = 1.0
    linear = torch.nn.Linear(2, 2)
    linear.register_forward_hook(lambda m, i, o: o * SCALE)
    f = decorate(lambda x: linear(x))
    found = [f(torch.ones(2))]
    SCALE = 4.0
    found += [f(torch.ones(2))]
    f2 = decorate(linear.forward)
    f3 = decorate(lambda x: linear.forward(x))
    return [*found, f2(torch.ones(2)), f3(torch.ones(2))]


def attributes_of_base_classes(decorate: Any) -> Any:
    global SCALE
    SCALE = 1.0

    class A:
        k = 1.0

        def go(self, x):
            return x * self.k * SCALE

    class B(A):
        def go(self, x):
            return super().go(x) + 1

    b = B()
    f = decorate(b.go)
    g = decorate(lambda x: b.go(x))
    found = [f(torch.ones(2)), g(torch.ones(2))]
    SCALE = 3.0
    found += [f(torch.ones(2)), g(torch.ones(2))]
    A.k = 5.0
    found += [f(torch.ones(2)), g(torch.ones(2))]
    B.k = 6.0
    found += [f(torch.ones(2)), g(torch.ones(2))]
    b.k = 7.0
    return [*found, f(torch.ones(2)), g(torch.ones(2))]


def class_of_an_object(decorate: Any) -> Any:
    class A:
        pass

    class B:
        pass

    a = A()
    f = decorate(lambda x: x * (1.0 if isinstance(a, A) else 2.0))
    found = [f(torch.ones(2))]
    a.__class__ = B
    return [*found, f(torch.ones(2))]


def object_made_inside(decorate: Any) -> Any:
    global SCALE
    SCALE = 1.0

    class A:
        def __init__(self, k):
            self.k = k * SCALE

        def go(self, x):
            return x * self.k

    f = decorate(lambda x: A(2.0).go(x))
    found = [f(torch.ones(2))]
    SCALE = 3.0
    found += [f(torch.ones(2))]
    A.go = lambda self, x: x * 100
    return [*found, f(torch.ones(2))]


def standard_output(decorate: Any) -> Any:
    b = io.StringIO()

    def g(x):
        sys.stdout.write("hello")
        return x * 2

    f = decorate(g)
    o = sys.stdout
    sys.stdout = b
    try:
        for _ in range(3):
            f(torch.ones(2))
    finally:
        sys.stdout = o
    return b.getvalue().count("hello")


def text_stream(decorate: Any) -> Any:
    b = io.StringIO()

    def g(x):
        b.write("hello")
        return x * 2

    f = decorate(g)
    for _ in range(3):
        f(torch.ones(2))
    return b.getvalue().count("hello")


def system_randomness(decorate: Any) -> Any:
    f = decorate(lambda x: (uuid.uuid4().hex, secrets.token_hex(4), os.urandom(3), x * 2))
    x = torch.ones(1)
    return len({f(x)[0] for _ in range(3)}), len({f(x)[1] for _ in range(3)}), len({f(x)[2] for _ in range(3)})


def generators_without_a_seed(decorate: Any) -> Any:
    f = decorate(lambda x: (np.random.default_rng().random(), random.Random().random()))
    x = torch.ones(1)
    return len({f(x)[0] for _ in range(3)}), len({f(x)[1] for _ in range(3)})


def clocks_under_other_names(decorate: Any) -> Any:
    from time import perf_counter_ns
    from time import time as t2

    f = decorate(
        lambda x: (
            t2(),
            perf_counter_ns(),
            time.time_ns(),
            time.process_time(),
            datetime.datetime.now(),
            time.monotonic_ns(),
            x * 2,
        )
    )
    x = torch.ones(1)
    rs = [f(x) for _ in range(3)]
    return [len({r[i] for r in rs}) > 1 for i in range(6)]


def date_of_now(decorate: Any) -> Any:
    f = decorate(lambda x: (datetime.datetime.now(), x * 2))
    x = torch.ones(1)
    rs = [f(x) for _ in range(3)]
    return len({r[0] for r in rs})


def standard_input(decorate: Any) -> Any:
    o = sys.stdin
    sys.stdin = io.StringIO("1\n2\n3\n4\n")
    f = decorate(lambda x: x * float(sys.stdin.readline()))
    try:
        return [f(torch.ones(1)) for _ in range(3)]
    finally:
        sys.stdin = o


def files_written(decorate: Any) -> Any:
    p = tempfile.mktemp()

    def g(x):
        with open(p, "a") as h:
            h.write("a")
        return x * 2

    f = decorate(g)
    for _ in range(3):
        f(torch.ones(1))
    q = pathlib.Path(tempfile.mktemp())

    def g2(x):
        q.write_text((q.read_text() if q.exists() else "") + "a")
        return x * 2

    f2 = decorate(g2)
    for _ in range(3):
        f2(torch.ones(1))
    h = open(p, "a")  # noqa: SIM115
    f3 = decorate(lambda x: (h.write("b"), x * 2)[1])
    for _ in range(3):
        f3(torch.ones(1))
    h.close()
    fd = os.open(p, os.O_WRONLY | os.O_APPEND)
    f4 = decorate(lambda x: (os.write(fd, b"c"), x * 2)[1])
    for _ in range(3):
        f4(torch.ones(1))
    return open(p).read(), q.read_text()


def processes_started(decorate: Any) -> Any:
    p = tempfile.mktemp()
    f = decorate(lambda x: (os.system(f"echo x >> {p}"), x * 2)[1])
    for _ in range(3):
        f(torch.ones(1))
    f = decorate(lambda x: (subprocess.run(["sh", "-c", f"echo x >> {p}"]), x * 2)[1])
    for _ in range(3):
        f(torch.ones(1))
    f = decorate(lambda x: (os.mkdir(p + str(len(os.listdir("/")))) if not os.path.exists(p + "q") else None, x * 2)[1])
    return open(p).read()


def file_that_appears(decorate: Any) -> Any:
    p = tempfile.mktemp()
    f = decorate(lambda x: x * (2 if os.path.exists(p) else 1))
    found = [f(torch.ones(1))]
    open(p, "w").close()
    return [*found, f(torch.ones(1))]


def queue_and_deque(decorate: Any) -> Any:
    q = queue.Queue()
    d = collections.deque()
    f = decorate(lambda x: (q.put(1), d.append(2), x * 2)[2])
    for _ in range(3):
        f(torch.ones(1))
    return q.qsize(), len(d)


def environment_variable(decorate: Any) -> Any:
    f = decorate(lambda x: x * float(os.environ.get("AUD_K", "1")))
    found = [f(torch.ones(1))]
    os.environ["AUD_K"] = "5"
    found += [f(torch.ones(1))]
    del os.environ["AUD_K"]
    return [*found, f(torch.ones(1))]


def environment_variable_by_a_made_up_name(decorate: Any) -> Any:
    key = "aud" + "_kk"
    f = decorate(lambda x: x * float(os.environ.get(key, "1")))
    found = [f(torch.ones(1))]
    os.environ["AUD_KK"] = "5"
    found += [f(torch.ones(1))]
    del os.environ["AUD_KK"]
    return [*found, f(torch.ones(1))]


def environment_variable_written(decorate: Any) -> Any:
    def g(x):
        os.environ["AUD_W"] = str(int(os.environ.get("AUD_W", "0")) + 1)
        return x * 2

    os.environ.pop("AUD_W", None)
    f = decorate(g)
    for _ in range(3):
        f(torch.ones(1))
    return os.environ["AUD_W"]


def iterators(decorate: Any) -> Any:
    c = itertools.count()

    def gg():
        i = 0
        while True:
            yield i
            i += 1

    g = gg()
    f = decorate(lambda x: x * next(c))
    f2 = decorate(lambda x: x + next(g))
    it = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    f3 = decorate(lambda x: x * next(it))
    nx = functools.partial(next, it)
    f4 = decorate(lambda x: x * nx())
    return (
        [f(torch.ones(1)) for _ in range(3)],
        [f2(torch.ones(1)) for _ in range(3)],
        f3(torch.ones(1)),
        f3(torch.ones(1)),
        f4(torch.ones(1)),
        f4(torch.ones(1)),
    )


def bound_next(decorate: Any) -> Any:
    nx = itertools.count().__next__
    f = decorate(lambda x: x * nx())
    return [f(torch.ones(1)) for _ in range(3)]


def parameters_of_a_distribution(decorate: Any) -> Any:
    d = torch.distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))
    f = decorate(lambda x: d.log_prob(x))
    found = [f(torch.ones(2))]
    d.loc = torch.tensor(5.0)
    found += [f(torch.ones(2))]
    d.loc.fill_(7.0)
    found += [f(torch.ones(2))]
    d.scale = torch.tensor(3.0)
    return [*found, f(torch.ones(2))]


def result_that_is_a_list_from_outside(decorate: Any) -> Any:
    terms = [torch.ones(2)]
    f = decorate(lambda x: terms)
    found = f(torch.ones(1))
    return found is terms


def results_that_are_objects_from_outside(decorate: Any) -> Any:
    class R:
        pass

    o = R()
    d = {"a": 1}
    f = decorate(lambda x: (o, d, x, x))
    x = torch.ones(1)
    f(x)
    a = f(x)
    return a[0] is o, a[1] is d, a[2] is x, a[3] is a[2]


def containers_made_inside(decorate: Any) -> Any:
    f = decorate(lambda x: [x * 2, [1, 2], {"a": []}, set([1])])
    a = f(torch.ones(1))
    a[1].append(3)
    a[2]["a"].append(1)
    a[3].add(5)
    b = f(torch.ones(1))
    b[1].append(4)
    c = f(torch.ones(1))
    return b, c


def arrays_made_inside(decorate: Any) -> Any:
    f = decorate(lambda x: (x * 2, np.zeros(3)))
    a = f(torch.ones(1))
    a[1][0] = 5
    b = f(torch.ones(1))
    b[1][1] = 7
    return b, f(torch.ones(1))


def bytes_made_inside(decorate: Any) -> Any:
    f = decorate(lambda x: (bytearray(b"a"), x))
    a = f(torch.ones(1))
    a[0].append(1)
    b = f(torch.ones(1))
    b[0].append(2)
    return list(f(torch.ones(1))[0])


def attributes_by_names_that_are_made_up(decorate: Any) -> Any:
    space = types.SimpleNamespace(w_0=1.0, w_1=2.0)

    class Own:
        pass

    own = Own()
    own.w_0, own.w_1 = 1.0, [2.0]
    f = decorate(lambda x: x * sum(getattr(space, f"w_{i}") for i in range(2)))
    g = decorate(lambda x: x * getattr(own, f"w_{1}")[0] + getattr(own, f"w_{2}", 0))
    found = [f(torch.ones(1)), g(torch.ones(1))]
    space.w_1 = 10.0
    own.w_1[0] = 20.0
    found += [f(torch.ones(1)), g(torch.ones(1))]
    own.w_2 = 5.0
    return [*found, g(torch.ones(1))]


def parameters_made_at_the_first_call(decorate: Any) -> Any:
    model = torch.nn.LazyLinear(2)
    f = decorate(lambda x: model(x).sum().detach())
    return [f(torch.ones(1, 5)).shape for _ in range(3)], model.weight.shape, type(model).__name__


def memory_of_a_dictionary(decorate: Any) -> Any:
    cache: dict[int, Any] = {}

    def mask(n: int) -> Any:
        if n not in cache:
            cache[n] = torch.tril(torch.ones(n, n))
        return cache[n]

    f = decorate(lambda x: x @ mask(x.shape[1]))
    return [f(torch.ones(2, n)) for n in (3, 3, 4, 3, 4)], len(cache)


def dictionary_of_an_object(decorate: Any) -> Any:
    class S:
        pass

    s = S()
    s.k = 1.0
    functions = [
        decorate(lambda x: x * s.__dict__["k"]),
        decorate(lambda x: x * sum(vars(s).values())),
        decorate(lambda x: x * object.__getattribute__(s, "k")),
        decorate(lambda x: x * operator.attrgetter("k")(s)),
        decorate(lambda x: x * copy.copy(s).k),
    ]
    found = [f(torch.ones(1)) for f in functions]
    s.k = 5.0
    found += [f(torch.ones(1)) for f in functions]
    s.j = 7.0
    return [*found, *(f(torch.ones(1)) for f in functions)]


def class_that_counts(decorate: Any) -> Any:
    class C:
        n = 0

        def __enter__(self):
            C.n += 1

        def __exit__(self, *exception):
            return False

    def use(x):
        with C():
            return x * C.n

    f = decorate(use)
    return [f(torch.ones(1)) for _ in range(3)], C.n


def attribute_that_hides_the_classes(decorate: Any) -> Any:
    class Mode(enum.Enum):
        A = 1
        B = 2

    class S:
        mode = Mode.A

        def go(self, x):
            return x * 2

    s = S()
    f = decorate(lambda x: s.go(x) if s.mode is Mode.A else -s.go(x))
    found = [f(torch.ones(1))]
    s.mode = Mode.B
    found.append(f(torch.ones(1)))
    s.go = lambda x: x * 100
    return [*found, f(torch.ones(1))]


def modes_set_for_a_while(decorate: Any) -> Any:
    layer, leaky = torch.nn.Dropout(0.5), torch.nn.LeakyReLU(0.5)

    def use(x):
        layer.eval()
        leaky.negative_slope = 0.25
        y = leaky(layer(-x))
        layer.train()
        leaky.negative_slope = 0.5
        return y

    f = decorate(use)
    found = [f(torch.ones(2)) for _ in range(3)]
    layer.eval()
    return [*found, f(torch.ones(2)), layer.training, leaky.negative_slope]


def settings_of_the_package(decorate: Any) -> Any:
    f = decorate(lambda x: x.sum() if torch.are_deterministic_algorithms_enabled() else x)
    found = [f(torch.ones(2))]
    torch.use_deterministic_algorithms(True)
    try:
        found.append(f(torch.ones(2)))
    finally:
        torch.use_deterministic_algorithms(False)
    return found


SCENARIOS = [
    value
    for value in list(globals().values())
    if callable(value) and getattr(value, "__code__", None) and value.__code__.co_varnames[:1] == ("decorate",)
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_scenario(scenario: Any) -> None:
    expected = scenario_result(scenario, lambda f: f)
    assert scenario_result(scenario, functools.partial(torch.compile, backend="numpy")) == expected


class Trainer:
    """Counts its steps in an attribute that is called as the optimizer's method is, and keeps a log."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.step, self.loss, self.log, self.best = 0, 0.0, {"step": 0}, None
        self.history: list[float] = []

    def train_step(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.model(x).sum()
        loss.backward()
        self.optimizer.step()
        return loss


class TrainingModule(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.step, self.loss, self.log, self.best = 0, 0.0, {"step": 0}, None
        self.history: list[float] = []

    train_step = Trainer.train_step


@pytest.mark.parametrize("kind", [Trainer, TrainingModule])
def test_what_a_step_does_not_read_is_not_assumed(kind: Any) -> None:
    trainer = kind()
    step = torch.compile(trainer.train_step, backend="numpy", on_recompile="error", recompile_limit=1)
    for _ in range(5):
        loss = step(torch.ones(1, 2))
        trainer.step += 1
        trainer.loss = loss.item()
        trainer.log["step"] = trainer.step
        trainer.history.append(trainer.loss)
        trainer.best = loss
    assert len(step.specializations) == 1
    assert "__getattribute__" not in vars(kind)  # the capture's notes are gone


def test_threads_that_capture_methods_of_one_class() -> None:
    class Scaled:
        def __init__(self, by: float) -> None:
            self.by = by

        def go(self, x: Any) -> Any:
            return x * self.by

    made = [Scaled(float(i)) for i in range(8)]
    functions = [torch.compile(s.go, backend="numpy") for s in made]
    found: dict[int, list[float]] = {}

    def run(i: int) -> None:
        first = functions[i](torch.ones(1)).item()
        made[i].by += 10
        found[i] = [first, functions[i](torch.ones(1)).item()]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [i, i + 10.0] for i in range(8)}
    assert "__getattribute__" not in vars(Scaled)


def test_modes_that_are_set_for_a_while_compile_once() -> None:
    teacher = torch.nn.Dropout(0.5)

    @torch.compile(backend="numpy", on_recompile="error", recompile_limit=1)
    def step(x: Any) -> Any:
        teacher.eval()
        y = teacher(x)
        teacher.train()
        return y

    for _ in range(4):
        assert step(torch.ones(3)).tolist() == [1, 1, 1]
    assert teacher.training


# -- what a call sets to what it was, the next finds to be something else ----------------------------------------------


class Box:
    def __init__(self) -> None:
        self.k: Any = 1
        self.j: Any = 2
        self.t = torch.ones(2)


class Setting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k = 1

    def forward(self, x: Any) -> Any:
        self.k = 1
        return x + 1


def settings() -> dict[str, Any]:
    box, module, layer, kept = Box(), Setting(), torch.nn.Sequential(torch.nn.Dropout(), torch.nn.ReLU()), torch.ones(2)
    box.t = kept
    names, bare = {"k": 1, "j": 2}, torch.nn.ReLU()

    def attribute(x: Any) -> Any:
        box.k = 1
        return x + 1

    def by_size(x: Any) -> Any:
        box.k = (-(x.shape[0] >> 1)) ** 2
        return x + 1

    def by_name(x: Any) -> Any:
        for name, value in names.items():
            setattr(box, name, value)
        return x + 1

    def tensor(x: Any) -> Any:
        box.t = kept
        return x + 1

    def toggled(x: Any) -> Any:
        box.k = 2
        x = x * box.k
        box.k = 1
        return x

    def mode(x: Any) -> Any:
        layer.train()
        module.training = bare.training = True
        return x + 1

    def spoil(value: Any) -> None:
        box.k = box.j = module.k = value
        box.t = torch.zeros(2)
        layer.eval()
        module.training = bare.training = False

    def seen() -> Any:
        return box.k, box.j, module.k, box.t.tolist(), layer.training, layer[1].training, module.training, bare.training

    functions = {"attribute": attribute, "by_size": by_size, "by_name": by_name, "tensor": tensor, "toggled": toggled}
    return {**functions, "mode": mode, "module": module, "spoil": spoil, "seen": seen}


@pytest.mark.parametrize("case", ["attribute", "by_size", "by_name", "tensor", "toggled", "mode", "module"])
def test_what_a_call_sets_although_it_finds_it_so(case):
    def run(compiled: bool) -> list[Any]:
        made = settings()
        step = torch.compile(made[case], backend="numpy") if compiled else made[case]
        found = []
        for value in (None, None, "b", 5, None, 2.5, 1):
            if value is not None:
                made["spoil"](value)
            for rows in (3, 3, 4):
                found.append((step(torch.ones(rows, 2)).tolist(), made["seen"]()))
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(True) == run(False)
    assert "__setattr__" not in vars(Box) and "__setattr__" not in vars(Setting)


@pytest.mark.parametrize("size", [1, 3])
def test_keys_that_are_tensors(size):
    """They are told apart as dictionaries do it, whatever their elements are."""

    def run(compiled: bool) -> list[Any]:
        a, b, c = (torch.ones(size) for _ in range(3))
        box = Box()
        box.table = {a: 2.0}

        def step(x: Any) -> Any:
            for key, factor in box.table.items():
                x = x + (key if isinstance(key, torch.Tensor) else 4) * factor
            return x

        step = torch.compile(step, backend="numpy") if compiled else step
        found = [step(torch.ones(size)).tolist() for _ in range(3)]
        for table in ({b: 2.0}, {c: 2.0}, {1: 2.0}, {a: 2.0}):
            box.table = table
            a.add_(1), b.add_(3), c.add_(5)
            found += [step(torch.ones(size)).tolist() for _ in range(2)]
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(True) == run(False)


def test_an_optimizer_of_ones_own_that_takes_the_place_of_another():
    class Counted(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                self.state[p]["step"] = self.state[p].get("step", 0) + 1
                p.data.add_(p.grad, alpha=-0.1 / self.state[p]["step"])

    def run(compiled: bool) -> list[Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        box = Box()
        box.optimizer = Counted(reversed(list(model.parameters())))

        def step(x: Any) -> Any:
            loss = model(x).square().sum()
            model.zero_grad()
            loss.backward()
            box.optimizer.step()
            return loss.detach()

        step = torch.compile(step, backend="numpy") if compiled else step
        found = [step(torch.ones(4, 3)).item() for _ in range(3)]
        box.optimizer = Counted(model.parameters())
        return found + [step(torch.ones(4, 3)).item() for _ in range(3)]

    assert run(True) == pytest.approx(run(False))
