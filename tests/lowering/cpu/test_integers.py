"""Integer division by a divisor that is known at run time only, and integer powers, as eager execution has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as gt

DTYPES = ["int64", "int32", "int16", "int8", "uint8"]


def native(run: Any) -> Any:
    step = gt.compile(run, backend="cpu")

    def checked(*given: Any) -> Any:
        result = step(*given)
        assert not step.specializations[-1].compiled.executable.fallbacks
        return result

    return checked


def operands(dtype: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    x, y = rng.integers(info.min, info.max, shape, dtype, True), rng.integers(info.min, info.max, shape, dtype, True)
    y = np.where(rng.random(shape) < 0.7, rng.integers(-5 if info.min else 1, 6, shape), y).astype(dtype)
    x.reshape(-1)[:3] = info.min
    y.reshape(-1)[:1] = -1 if info.min else 1
    return gt.from_numpy(x), gt.from_numpy(np.where(y == 0, 1, y).astype(dtype))


def forms(x: Any, y: Any) -> tuple[Any, ...]:
    return x // y, x % y, x.fmod(y), gt.div(x, y, rounding_mode="trunc"), gt.div(x, y, rounding_mode="floor")


@pytest.mark.parametrize("dtype", DTYPES)
def test_quotients_and_remainders(dtype: str) -> None:
    step = native(forms)
    for shape in ((37,), (5, 64), (1003,)):
        x, y = operands(dtype, shape)
        for a, e in zip(step(x, y), forms(x, y), strict=True):
            assert a.dtype is e.dtype
            np.testing.assert_array_equal(a.numpy(), e.numpy())


def test_a_divisor_that_is_broadcast() -> None:
    step = native(lambda x, y: (x // y[:, None], x % y[0]))
    x, y = operands("int64", (9, 9))
    y = y[0].clone()
    a, b = step(x, y)
    np.testing.assert_array_equal(a.numpy(), (x // y[:, None]).numpy())
    np.testing.assert_array_equal(b.numpy(), (x % y[0]).numpy())


@pytest.mark.parametrize("place", [0, 15, 16, 700, 1002])
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_division_by_zero_raises(name: str, place: int) -> None:
    step = native(getattr(gt, name))
    x, y = operands("int32", (1003,))
    expected = step(x, y).numpy()
    bad = y.clone()
    bad[place] = 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        step(x, bad)
    np.testing.assert_array_equal(step(x, y).numpy(), expected)


def test_lanes_behind_the_end_do_not_count() -> None:
    """Elements that a masked load leaves out read as zero, and divide nothing."""
    step = native(lambda x, y: x // y)
    for n in range(1, 70):
        x, y = gt.full((n,), 7), gt.full((n,), 2)
        assert step(x, y).tolist() == [3] * n


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers(dtype: str) -> None:
    x, _ = operands(dtype, (300,))
    low = -3 if dtype != "uint8" else 0
    y = gt.from_numpy(np.random.default_rng(1).integers(low, 9, 300).astype(dtype))
    x = gt.where(gt.arange(300) % 3 == 0, x, x % 4 - (1 if dtype != "uint8" else 0)).to(x.dtype)
    step = native(lambda x, y: (x**y, x**3, x**11))
    for a, e in zip(step(x, y), (x**y, x**3, x**11), strict=True):
        assert a.dtype is e.dtype
        np.testing.assert_array_equal(a.numpy(), e.numpy())


@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_nothing_divided_by_zero_is_nothing(name: str) -> None:
    divide = getattr(gt, name)
    empty = gt.zeros(0, 3, dtype=gt.int64)
    for divisor in (0, gt.zeros(3, dtype=gt.int64)):
        assert divide(empty, divisor).shape == (0, 3)
        assert gt.compile(lambda x, divisor=divisor: divide(x, divisor) + 1)(empty).shape == (0, 3)


@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_quotients_that_are_the_same_everywhere_are_not_computed_for_nothing(name: str) -> None:
    divide = getattr(gt, name)

    def step(x: Any) -> Any:
        return divide(gt.full_like(x, 3), x.shape[0]) + x

    compiled = gt.compile(step, dynamic=True, fullgraph=True)
    for n in (3, 2, 0):
        x = gt.ones(n, 4, dtype=gt.int64)
        assert gt.equal(compiled(x), step(x))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        gt.compile(lambda x: divide(gt.full_like(x, 3), x.shape[0] - 2), dynamic=True)(gt.ones(2, 4, dtype=gt.int64))
