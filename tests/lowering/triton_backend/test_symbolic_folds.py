"""Long folds over symbolic sizes, cut into a fixed number of parts whose length follows the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import close, trace

import graphtorch as torch
from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.kernel import Buffer
from graphtorch.lowering.triton import splitting
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_all, resources
from graphtorch.lowering.triton.groups import PartAxis
from graphtorch.lowering.triton.launch import make_plan
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=16, persistent=4, rows=8, looped=8)
LATER = (300, 1, 0, 3, 65, 1201)  # sizes of calls after the one that was captured, and itself


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of a hundred elements count as long ones."""
    monkeypatch.setattr(splitting, "LONG", 64)


def rows(kind: str = "float32", *others: int, hint: int = 300) -> TensorType:
    return TensorType(getattr(dtypes, kind), (symbol("n", hint=hint), *others))


def made(kind: str, shape: tuple[int, ...], special: bool = False) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(sum(shape))
    of = getattr(dtypes, kind)
    if not (of.is_floating_point or of.is_complex):
        return rng.integers(0, 2 if of is dtypes.bool_ else 9, shape).astype(of.numpy)
    x = rng.standard_normal(shape)
    if special:  # few different numbers, and some NaN
        x = np.round(x)
        x[rng.random(shape) < 2 / max(shape[0], 1)] = np.nan
    return np.asarray(x.astype(of.numpy))


def parts(executable: TritonExecutable) -> int:
    """How many kernels go through parts of a fold."""
    return sum(isinstance(a, PartAxis) for k in executable.schedule.kernels for a in k.axes)


def check(
    program: Any,
    of: TensorType,
    limits: Limits | None = None,
    special: bool = False,
    sizes: tuple[int, ...] = LATER,
    tolerance: float = 2e-5,
) -> TritonExecutable:
    graph = trace(program, of)
    executable = InterpretedBackend(limits).compile(graph)
    assert parts(executable)
    for n in sizes:
        x = made("bool_" if of.dtype is dtypes.bool_ else of.dtype.name, (n, *of.shape[1:]), special)
        with np.errstate(all="ignore"):
            expected = interpret(graph, [x.copy()])
        first = executable.run([x.copy()])
        for actual, wanted in zip(first, expected, strict=True):
            scale = max(float(np.max(np.abs(np.nan_to_num(wanted.astype(np.float64))), initial=1.0)), 1.0)
            close(actual, wanted, tolerance, tolerance * scale)
        for actual, again in zip(first, executable.run([x.copy()]), strict=True):
            np.testing.assert_array_equal(actual, again)
    return executable


FOLDS: dict[str, Any] = {
    "sum": lambda x: (x * x).sum(),
    "sums of two kinds": lambda x: (x.sum(), (x * 2).amax(), x.amin()),
    "means and variances": lambda x: (x.mean(), x.var(), x.std(correction=0)),
    "norms": lambda x: (x.norm(), x.abs().amax(), x.norm(1)),
    "product": lambda x: (x.abs() * 0.1 + 0.95).prod(),
    "conditions": lambda x: ((x > 3).any(), (x > -9).all()),
    "normalised": lambda x: (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt(),
    "softmax": lambda x: (x * 3).softmax(0),
    "logarithms of sums": lambda x: (x.logsumexp(0), x.log_softmax(0)),
    "numbers of elements": lambda x: (torch.arange(x.shape[0]) * 2.0).sum() + x.sum(),
}  # fmt: skip


@pytest.mark.parametrize("limits", [None, SMALL])
@pytest.mark.parametrize("name", FOLDS)
def test_all_elements(name: str, limits: Limits | None, short: None) -> None:
    sizes = tuple(n for n in LATER if n) if name not in ("sum", "normalised", "softmax", "conditions") else LATER
    check(FOLDS[name], rows(), limits, sizes=sizes if limits is None else (300, 77))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", "int32", "int64", "bool_"])
def test_dtypes(kind: str, short: None) -> None:
    executable = check(lambda x: x.sum(), rows(kind), tolerance={"float16": 1e-3, "bfloat16": 1e-2}.get(kind, 1e-6))
    assert any("part_mask" in source for source in executable.sources().values())


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("program", [
    lambda x: (x.argmax(), x.argmin()),
    lambda x: (x.argmax(0), x.amax()),
    lambda x: x.max(0),
    lambda x: x.min(0),
], ids=["both", "argmax", "max", "min"])  # fmt: skip
def test_positions(program: Any, special: bool, short: None) -> None:
    """The first of equals; that of the first NaN, if there is one."""
    check(program, rows(), special=special, sizes=(300, 2, 17, 1201))


@pytest.mark.parametrize(("others", "limits"), [((5,), None), ((5,), SMALL), ((3, 4), None), ((37,), None)])
def test_columns(others: tuple[int, ...], limits: Limits | None, short: None) -> None:
    def program(x: Any) -> Any:
        return x.sum(0), x.var(0, correction=0), x.amax(0)

    check(program, rows("float32", *others, hint=40), limits, sizes=(40, 1, 77))


@pytest.mark.parametrize("hint", [2, 100])
def test_pixels_of_a_batch(hint: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel's mean and variance, over a batch that is cut into parts, or whose images are parts already."""
    monkeypatch.setattr(splitting, "LONG", 64)

    def program(x: Any) -> Any:
        return F.batch_norm(x, None, None, None, None, True), x.mean((0, 2, 3)), x.var((0, 2, 3))

    of = rows("float32", 3, 7, 5, hint=hint)
    graph = trace(program, of)
    executable = InterpretedBackend().compile(graph)
    assert len(executable.schedule.steps) > 2 and bool(parts(executable)) == (hint == 100)
    for n in (2, 23):
        x = made("float32", (n, 3, 7, 5))
        for actual, wanted in zip(executable.run([x]), interpret(graph, [x]), strict=True):
            close(actual, wanted, 2e-4, 2e-5)


def test_rows_with_a_symbolic_length(short: None) -> None:
    """Few rows, long in the captured call; sizes that a product of symbols gives."""
    n, m = symbol("n", hint=300), symbol("m", hint=3)
    graph = trace(lambda x: (x.sum(1), x.argmax(1), x.sum()), TensorType(dtypes.float32, (m, n)))
    executable = InterpretedBackend().compile(graph)
    assert parts(executable)
    for shape in ((3, 300), (2, 3), (7, 299)):
        x = made("float32", shape)
        for actual, wanted in zip(executable.run([x]), interpret(graph, [x]), strict=True):
            close(actual, wanted, 2e-5, 2e-4)


def test_a_known_size_without_divisors(short: None) -> None:
    graph = trace(lambda x: (x.sum(), x.argmin()), TensorType(dtypes.float32, (307,)))
    executable = InterpretedBackend().compile(graph)
    assert parts(executable)
    x = made("float32", (307,))
    for actual, wanted in zip(executable.run([x]), interpret(graph, [x]), strict=True):
        close(actual, wanted, 2e-5, 2e-4)


def test_what_has_no_kernel_is_not_cut(short: None) -> None:
    """Complex numbers are added up on the host, in one piece."""
    graph = trace(lambda x: x.sum(), rows("complex64"))
    executable = InterpretedBackend().compile(graph)
    assert not parts(executable)
    x = (made("float32", (999,)) + 1j).astype(np.complex64)
    close(executable.run([x])[0], interpret(graph, [x])[0], 1e-4, 1e-4)


def test_one_kernel_serves_every_size(short: None) -> None:
    executable = check(lambda x: x.sum(), rows())
    programs = executable._programs.values()
    assert len(programs) > 3
    assert len({program.launches.launches[0].function.source for program in programs}) == 1


def plan_of(graph: Graph, n: int) -> Any:
    return make_plan(prepare_schedule(build_schedule(graph)), {"n": n})


def test_as_many_programs_as_for_known_sizes() -> None:
    def program(x: Any) -> Any:
        return (x * x).sum(), x.argmax()

    known = plan_of(trace(program, TensorType(dtypes.float32, (1 << 20,))), 0)
    later = plan_of(trace(program, rows(hint=1 << 20)), 1 << 20)
    assert [launch.grid for launch in later.launches] == [launch.grid for launch in known.launches]
    assert max(launch.grid[0] for launch in later.launches) >= 256

    def moved(plan: Any) -> int:
        return sum(b.shape[0] if b.shape else 1 for x in plan.launches for b in x.arguments
                   if isinstance(b, Buffer) and b.kind == "temporary")  # fmt: skip

    assert moved(later) == moved(known)


@pytest.mark.parametrize("to", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_machine_code(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No spills, and wide loads from where parts begin."""
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))

    def program(x: Any) -> Any:
        return x.sum(), x.float().var(), x.argmax(), (x - x.float().mean()) * 2

    launches = plan_of(trace(program, rows("bfloat16", hint=1 << 20)), 1 << 20).launches
    compiled = compile_all([x.function for x in launches], to)
    if to == "gfx942":
        return
    for launch, made_of in zip(launches, compiled, strict=True):
        assert resources(made_of).stack == 0
        if "part_mask" in launch.function.source and "tl.load(in0 + (16*" in launch.function.source:
            assert "ld.global.v4.b32" in made_of.assembly or "ld.global.v2.b64" in made_of.assembly, launch.step


@pytest.mark.parametrize("kind", ["mean", "amax", "argmax", "logsumexp"])
def test_a_fold_of_positions_beside_folds_of_elements(kind: str) -> None:
    """What is folded of positions is the same for every column, and is stored at one place."""

    def program(x: Any) -> Any:
        places = torch.arange(x.shape[0]).float().sin()
        folded = torch.logsumexp(places, 0) if kind == "logsumexp" else getattr(places, kind)()
        return (x.abs() * x).sum() * folded, x.amax(0), folded + 1

    for columns in (4, 300):
        graph = trace(program, rows("float32", columns, hint=10))
        executable = InterpretedBackend().compile(graph)
        for n in (10, 2, 2000):
            x = made("float32", (n, columns))
            for actual, wanted in zip(executable.run([x]), interpret(graph, [x]), strict=True):
                close(actual, wanted, 1e-4, 1e-4 * float(np.abs(wanted).max() + 1))
