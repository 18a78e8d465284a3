"""Eager operators and their gradients by native code, beside the records' NumPy functions and formulas.

Large operands get native code; here all do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.ops import native
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import Tensor, dtypes

pytest.importorskip("llvmlite")

NATIVE = sorted(n for n, op in REGISTRY.items() if op.native and op.samples is not None)
DTYPES = ("float32", "bfloat16")
# What differs: NumPy's forms in 16-bit floats round in between, native code rounds once.
TOLERANCE = {"float32": 3e-6, "bfloat16": 3e-2}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every operand counts as large. The names of the operators that ran natively, and of gradients."""
    from graphtorch.lowering.cpu import eager

    found: list[str] = []

    def noting(name: str) -> Any:
        whole = getattr(eager, name)

        def run(op: Operator, *rest: Any) -> Any:
            made = whole(op, *rest)
            if made is not None and made is not False:
                found.append(op.name if name == "run" else f"{name} of {op.name}")
            return made

        return run

    monkeypatch.setattr(native.switch, "on", True)
    for name in ("run", "update", "gradients"):
        monkeypatch.setattr(eager, name, noting(name))
    monkeypatch.setattr(native, "LARGE", 1)
    for op in REGISTRY.values():
        monkeypatch.setattr(op, "least", 1)
    yield found


def samples(op: Operator, d: str, requires_grad: bool = False) -> list[Any]:
    if op.samples is None or not {"f", "c"} & set(op.categories):
        return []
    try:
        return list(op.samples(Sampler(getattr(dtypes, d), requires_grad)))
    except NotImplementedError:
        return []


def results_of(op: Operator, sample: Any) -> tuple[Any, ...]:
    assert op.function is not None
    made = op.function(*sample.args, **sample.kwargs)
    return tuple(made) if isinstance(made, tuple) else (made,)


def compare(ours: Any, expected: Any, tolerance: float, what: str) -> None:
    assert ours.dtype is expected.dtype and tuple(ours.shape) == tuple(expected.shape), what
    assert ours.stride() == expected.stride(), what
    a, b = ours._data, expected._data
    if a.dtype.kind in "fV":
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.abs(b[np.isfinite(b)])
        scale = max(float(finite.max()) if finite.size else 1.0, 1.0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=what)
    else:
        np.testing.assert_array_equal(a, b, err_msg=what)


@pytest.mark.parametrize("name", NATIVE)
def test_results_are_those_of_numpy(name: str, launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    op = REGISTRY[name]
    for d in DTYPES:
        for fast, plain in zip(samples(op, d), samples(op, d), strict=True):
            ours = results_of(op, fast)
            with monkeypatch.context() as patch:
                patch.setattr(native.switch, "on", False)
                expected = results_of(op, plain)
            for a, b in zip(ours, expected, strict=True):
                compare(a, b, TOLERANCE[d], f"{name} of {d}: {plain.args}")


@pytest.mark.parametrize("name", [n for n in NATIVE if REGISTRY[n].derivative])
def test_gradients_are_those_of_the_formulas(name: str, launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    op = REGISTRY[name]

    def gradients(sample: Any) -> list[Any]:
        results = [r for r in results_of(op, sample) if r.requires_grad]
        leaves = [a for a in sample.args if isinstance(a, Tensor) and a.requires_grad]
        if not results or not leaves:
            return []
        seeds = [torch.linspace(0.5, 1.5, r.numel()).reshape(r.shape).to(r.dtype) for r in results]
        return list(torch.autograd.grad(results, leaves, seeds, allow_unused=True))

    for d in DTYPES:
        for fast, plain in zip(samples(op, d, True), samples(op, d, True), strict=True):
            ours = gradients(fast)
            with monkeypatch.context() as patch:
                patch.setattr(native.switch, "on", False)
                expected = gradients(plain)
            for a, b in zip(ours, expected, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    compare(a, b, 4 * TOLERANCE[d], f"gradient of {name} of {d}: {plain.args}")


def plain(function: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What NumPy gives."""
    with monkeypatch.context() as patch:
        patch.setattr(native.switch, "on", False)
        return function()


@pytest.mark.parametrize("d", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + 0.3,
        lambda x, y: 0.3 - x,
        lambda x, y: x * 0.3,
        lambda x, y: x / 0.3,
        lambda x, y: torch.add(x, y, alpha=0.3),
        lambda x, y: torch.sub(x, y, alpha=0.7),
        lambda x, y: torch.addcdiv(x, x, y.abs() + 1, value=-0.3),
        lambda x, y: x > 0.3,
        lambda x, y: x.abs() ** 0.3,
        lambda x, y: x % 0.3,
        lambda x, y: torch.fmod(x, 0.3),
        lambda x, y: torch.where(x > y, x, 0.3),
        lambda x, y: x.clamp(-0.3, 0.7),
    ],
)
def test_numbers_beside_16_bit_floats_give_the_same_bits(
    function: Any, d: str, launches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Sampler(getattr(dtypes, d))
    x, y = make(50, 40), make(50, 40)
    ours = function(x, y)
    assert launches
    np.testing.assert_array_equal(ours._data, plain(lambda: function(x, y), monkeypatch)._data)


LAYOUTS = {
    "rows": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "column": lambda x: x[:, :1],
    "row": lambda x: x[:1],
    "expanded": lambda x: x[:1, :1].expand(x.shape),
    "expanded rows": lambda x: x[:1].expand(x.shape),
    "stepped": lambda x: torch.cat((x, x), 1)[:, ::2],
    "reversed": lambda x: x.flip(0),
}


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_any_layout(first: str, second: str, launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make = Sampler(dtypes.float32)
    x, y, seed = make(6, 40), make(6, 40), make(6, 40)

    def call() -> Any:
        a, b = LAYOUTS[first](x).detach().requires_grad_(), LAYOUTS[second](y).detach().requires_grad_()
        result = torch.addcmul(a, a, b, value=0.5)
        return result, *torch.autograd.grad(result, (a, b), seed[tuple(slice(n) for n in result.shape)])

    ours = call()
    assert "addcmul" in launches or first == second == "expanded"  # one element: NumPy computes it
    for a, b in zip(ours, plain(call, monkeypatch), strict=True):
        compare(a, b, 3e-6, f"{first}, {second}")


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: x.lerp_(y, 0.25),
        lambda x, y: x.clamp_(-0.5, 0.5),
        lambda x, y: x.addcdiv_(y, y + 3.0, value=0.1),
        lambda x, y: x.sigmoid_(),
        lambda x, y: x.masked_fill_(y > 0, 7.0),
        lambda x, y: x.lerp_(x, 0.5),
        lambda x, y: x[:20].lerp_(x[20:], 0.5),
        lambda x, y: x[1:].lerp_(x[:-1], 0.5),  # memory in common: no element may be read after it was written
        lambda x, y: x.t().lerp_(y.t(), 0.5),
    ],
)
def test_in_place_forms(change: Any, launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> tuple[Any, int]:
        make = Sampler(dtypes.float32)
        x, y = make(40, 40), make(40, 40)
        before = x._version
        change(x, y)
        return x, x._version - before

    (ours, changes), (expected, expected_changes) = call(), plain(call, monkeypatch)
    assert launches and changes == expected_changes == 1
    compare(ours, expected, 3e-6, "in place")


def test_one_program_serves_all_sizes(launches: list[str]) -> None:
    from graphtorch.lowering.cpu import eager

    torch.nn.functional.softplus(torch.rand(3, 5))
    operands = [torch.rand(shape) for shape in ((3, 6), (7,), (2, 3, 4), (40_000,))]
    known = len(eager._programs)
    for x in operands:
        np.testing.assert_allclose(torch.nn.functional.softplus(x)._data, np.log1p(np.exp(x._data)), rtol=1e-6)
    assert len(eager._programs) == known
    assert launches == ["softplus"] * 5


def test_numbers_are_arguments_of_a_program(launches: list[str]) -> None:
    from graphtorch.lowering.cpu import eager

    def check(weight: float) -> None:
        np.testing.assert_allclose(torch.lerp(x, x + 1, weight)._data, x._data + weight, rtol=1e-6)
        np.testing.assert_allclose(torch.addcdiv(x, y, y, value=weight)._data, x._data + weight, rtol=1e-6)
        np.testing.assert_allclose(x.clone().addcmul_(y, y, value=weight)._data, x._data + 4 * weight, rtol=1e-6)
        half = torch.ones(50, dtype=torch.bfloat16)
        np.testing.assert_allclose(half.add(half, alpha=weight).double()._data, 1 + weight, rtol=1e-2)

    x, y = torch.rand(50), torch.full((50,), 2.0)
    check(0.5)
    known = len(eager._programs)
    for weight in (0.25, 0.75, float("inf")):
        check(weight)
    assert len(eager._programs) == known


def test_attributes_that_compare_equal_are_told_apart(launches: list[str]) -> None:
    x = torch.tensor([-0.5] * 30)
    for bound in (0.0, -0.0):
        made = torch.nn.functional.leaky_relu(x, bound)._data
        assert (np.signbit(made) == np.signbit(-0.5 * bound)).all()
    for _ in range(3):
        assert np.isnan(torch.nn.functional.elu(x, float("nan"))._data).all()


def test_small_operands_and_other_dtypes_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.switch, "module", lambda: pytest.fail("native code was asked for"))
    torch.nn.functional.silu(torch.ones(native.LARGE - 1))
    torch.nn.functional.gelu(torch.ones(native.SMALL - 1))
    torch.nn.functional.glu(torch.ones(native.SMALL - 2))
    torch.ones(native.LARGE) * 2.0
    torch.nn.functional.relu(torch.arange(2 * native.LARGE))
    torch.ones(native.LARGE).to(torch.complex64).sigmoid()
    torch.rand(native.SMALL - 1)


def test_errors_are_those_of_the_record(launches: list[str]) -> None:
    x = torch.rand(300, 200)
    with pytest.raises(RuntimeError, match="must match the size"):
        torch.lerp(x, torch.rand(300, 201), 0.5)
    with pytest.raises(IndexError, match="Dimension out of range"):
        x.softmax(2)
    with pytest.raises(RuntimeError, match="all elements of input should be between 0 and 1"):
        torch.nn.functional.binary_cross_entropy(x + 1.0, x)


def test_higher_derivatives_are_recorded(launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> list[Any]:
        x = Sampler(dtypes.float64)(40, 30).requires_grad_()
        (slope,) = torch.autograd.grad(torch.nn.functional.silu(x).sum(), x, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), x))

    for a, b in zip(call(), plain(call, monkeypatch), strict=True):
        compare(a, b, 1e-12, "second derivative")


def test_threads_may_call_at_the_same_time(launches: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def call(i: int) -> float:
        x = torch.full((20_000,), float(i))
        return float(torch.nn.functional.layer_norm(torch.stack((x, -x), 1), (2,)).abs().mean())

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, range(1, 33)))
    np.testing.assert_allclose(found, 1.0, rtol=1e-4)


@pytest.mark.parametrize("d", ["float16", "bfloat16"])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_products_of_16_bit_floats(left: bool, right: bool, d: str, launches: list[str]) -> None:
    from graphtorch.lowering.cpu import eager

    make = Sampler(getattr(dtypes, d))
    b = make(80, 70).t() if right else make(70, 80)
    for rows in (100, 64, 130, 3):
        a = make(70, rows).t() if left else make(rows, 70)
        exact = a._data.astype(np.float64) @ b._data.astype(np.float64)
        ours = a @ b
        assert ours.dtype is a.dtype and ours.is_contiguous()
        np.testing.assert_allclose(ours.double()._data, exact, rtol=TOLERANCE["bfloat16"], atol=0.05)
        known = len(eager._programs)
    assert launches.count("mm") == 4
    torch.mm(make(70, 200).t() if left else make(200, 70), b)
    assert len(eager._programs) == known  # any number of rows
