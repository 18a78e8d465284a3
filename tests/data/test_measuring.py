"""`torch.utils.benchmark`, and paths to the leaves of trees, beside PyTorch's."""

from __future__ import annotations

import importlib
from collections import OrderedDict, namedtuple
from typing import Any

import pytest

import graphtorch
from graphtorch.utils import benchmark

torch = pytest.importorskip("torch")
theirs = importlib.import_module("torch.utils.benchmark")
Pair = namedtuple("Pair", "a b")


def measurements(b: Any) -> list[Any]:
    times = {"one": 1e-5, "two": 2e-5, "a long one": 1.2345e-4}
    return [
        b.Measurement(1, [seconds * (1 if row == "a" else 3)] * 3 + [seconds * noise],
                      b.TaskSpec("stmt", "", label="mm", sub_label=row, description=column, num_threads=threads))
        for row in ("a", "bb")
        for column, seconds in times.items()
        for threads in (1, 2)
        for noise in (1.5,)
        if (row, column, threads) != ("bb", "two", 2)
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "trim", "color", "rows", "highlight"])
def test_tables_are_pytorch_s(how: str) -> None:
    found = []
    for b in (benchmark, theirs):
        table = b.Compare(measurements(b))
        if how == "trim":
            table.trim_significant_figures()
        elif how == "highlight":
            table.highlight_warnings()
        elif how != "plain":
            table.colorize(rowwise=how == "rows")
        found.append(str(table))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "number, times, spec",
    [
        (1, [1e-3], {"stmt": "f(x)", "setup": "setup code"}),
        (10, [1.0, 1.5, 3.0, 1.2, 2.2], {"stmt": "f(x)", "setup": "", "num_threads": 4, "env": "e"}),
        (10, [1.0, 1.11, 1.2, 1.2], {"stmt": "f(x)", "setup": "", "label": "L", "sub_label": "s", "description": "d"}),
        (3, [2e-7, 2e-7], {"stmt": "f(x)\ng(x)", "setup": "a\nb", "sub_label": "s"}),
    ],
)
def test_reports_are_pytorch_s(number: int, times: list[float], spec: dict[str, Any]) -> None:
    found = []
    for b in (benchmark, theirs):
        m = b.Measurement(number, times, b.TaskSpec(**spec))
        figures = (m.median, m.mean, m.iqr, m.significant_figures, m.has_warnings, m.title, m.as_row_name, m.env)
        found.append((repr(m).splitlines()[1:], figures, m.times))
    assert found[0] == found[1]


def test_small_functions() -> None:
    for t in (3.2, 1e-2, 5e-5, 7e-8):
        assert benchmark.select_unit(t) == theirs.select_unit(t)
    for x, n in ((123.456, 2), (0.00123, 1), (99.9, 2)):
        assert abs(benchmark.trim_sigfig(x, n) - theirs.trim_sigfig(x, n)) < 1e-6
    merged = [b.Measurement.merge(measurements(b) * 2) for b in (benchmark, theirs)]
    assert [len(m.raw_times) for m in merged[0]] == [len(m.raw_times) for m in merged[1]]


def test_timers() -> None:
    x = graphtorch.ones(3)
    t = benchmark.Timer("seen.append(1); x + 1", globals={"x": x, "seen": (seen := [])}, num_threads=1, label="L")
    m = t.timeit(50)
    assert m.number_per_run == 50 and len(m.times) == 1 and len(seen) == 52 and m.mean > 0
    m = t.blocked_autorange(min_run_time=0.02)
    assert sum(m.raw_times) >= 0.02 and m.number_per_run % 10 == 0 and m.label == "L"
    m = t.adaptive_autorange(max_run_time=0.2)
    assert len(m.raw_times) > 3
    assert "torch" in benchmark.Timer("torch.ones(1)").timeit(1).task_spec.stmt
    before = graphtorch.get_num_threads()
    with benchmark.set_torch_threads(before + 1):
        assert graphtorch.get_num_threads() == before + 1
    assert graphtorch.get_num_threads() == before
    for call, error in (
        (lambda: t.repeat(), NotImplementedError),
        (lambda: t.collect_callgrind(), NotImplementedError),
        (lambda: benchmark.Timer("x", language="c++"), ValueError),
        (lambda: benchmark.Timer(lambda: 1), ValueError),  # type: ignore[arg-type]
        (lambda: benchmark.Compare([1]), ValueError),  # type: ignore[list-item]
        (lambda: benchmark.Measurement(1, [], benchmark.TaskSpec("", "")).median, ValueError),
    ):
        with pytest.raises(error):
            call()


def test_paths() -> None:
    tree = {"x": [1, (2,)], "p": Pair(3, 4), "o": OrderedDict(k=5), "n": None}
    found = []
    for name in ("graphtorch", "torch"):
        p = importlib.import_module(f"{name}.utils._pytree")
        leaves = p.tree_leaves_with_path(tree)
        assert [leaf for _, leaf in leaves] == p.tree_leaves(tree)
        assert all(p.key_get(tree, path) == leaf for path, leaf in leaves)
        mapped = p.tree_map_with_path(lambda path, a, b, p=p: (p.keystr(path), a, b), tree, tree)
        short = p.tree_leaves_with_path(tree, is_leaf=lambda t: isinstance(t, list))
        found.append(([repr(path) for path, _ in leaves], mapped, [p.keystr(path) for path, _ in short]))
    assert found[0] == found[1]
