"""Random numbers drawn natively are eager's, and leave the generator in eager's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.lowering.cpu.compiler import host

needs_fma = pytest.mark.skipif(not host().fma, reason="hosts without fused multiply-add draw through NumPy")

# Those of float64 normals and exponentials are equal up to rounding: their logarithm is not NumPy's.
DRAWS: dict[str, Callable[[], Any]] = {
    "rand": lambda: gt.rand(1000),
    "rand_float64": lambda: gt.rand(7, 143, dtype=gt.float64),
    "rand_float16": lambda: gt.rand(3000, dtype=gt.float16),
    "rand_bfloat16": lambda: gt.rand(3000, dtype=gt.bfloat16),
    "randn": lambda: gt.randn(37, 41),
    "randn_small": lambda: gt.randn(16),
    "randn_few": lambda: gt.randn(7),
    "randn_one": lambda: gt.randn(()),
    "randn_none": lambda: gt.randn(0),
    "normal_few": lambda: gt.empty(3, dtype=gt.float16).normal_(1.0, 2.0),
    "randn_float64": lambda: gt.randn(1603, dtype=gt.float64),
    "randn_float16": lambda: gt.randn(1003, dtype=gt.float16),
    "normal": lambda: gt.empty(4001).normal_(1.0, 2.0),
    "uniform": lambda: gt.empty(4000).uniform_(-3.0, 2.0),
    "exponential": lambda: gt.empty(999, dtype=gt.float64).exponential_(2.0),
    "randint": lambda: gt.randint(-5, 12, (777,)),
    "randint_float": lambda: gt.randint(-5, 12, (777,), dtype=gt.float32),
    "randint_28_bits": lambda: gt.randint(0, 1 << 28, (77,)),
    "randint_40_bits": lambda: gt.randint(-(1 << 40), 3, (77,)),
    "random_int8": lambda: gt.empty(401, dtype=gt.int8).random_(3, 99),
    "random_int32": lambda: gt.empty(401, dtype=gt.int32).random_(),
    "random_int64": lambda: gt.empty(401, dtype=gt.int64).random_(),
    "random_float": lambda: gt.empty(401).random_(),
    "randperm": lambda: gt.randperm(3000),
    "randperm_one": lambda: gt.randperm(1),
    "bernoulli_number": lambda: gt.empty(1003, dtype=gt.bool).bernoulli_(0.3),
    "bernoulli": lambda: gt.bernoulli(gt.linspace(0, 1, 5001)),
    "bernoulli_float64": lambda: gt.bernoulli(gt.linspace(0, 1, 501, dtype=gt.float64)),
    "multinomial_one": lambda: gt.multinomial(gt.linspace(0, 1, 40).reshape(5, 8), 1),
    "multinomial": lambda: gt.multinomial(gt.linspace(0.1, 1, 40).reshape(5, 8), 5),
    "multinomial_vector": lambda: gt.multinomial(gt.linspace(0, 1, 300, dtype=gt.float64), 1, True),
    "dropout": lambda: gt.nn.functional.dropout(gt.ones(100, 37), 0.3),
}


def executable_of(step: Any) -> Any:
    return step.specializations[0].compiled.executable


def array(x: Any) -> Any:
    return x.float().numpy() if x.dtype is gt.bfloat16 else x.numpy()


@needs_fma
@pytest.mark.parametrize("name", sorted(DRAWS))
def test_the_stream_is_eagers(name: str) -> None:
    draw = DRAWS[name]
    step = gt.compile(draw, backend="cpu")
    for seed in (0, 12345):
        gt.manual_seed(seed)
        expected = [array(draw()) for _ in range(3)]
        state = gt.get_rng_state().numpy()
        gt.manual_seed(seed)
        actual = [array(step()) for _ in range(3)]
        assert not executable_of(step).fallbacks
        np.testing.assert_array_equal(gt.get_rng_state().numpy(), state)
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == e.dtype
            if name in ("randn_float64", "exponential"):
                np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)
            else:
                np.testing.assert_array_equal(a, e)


@needs_fma
def test_eager_and_native_draws_take_turns() -> None:
    step = gt.compile(lambda: gt.randn(100), backend="cpu")
    step()
    gt.manual_seed(3)
    expected = [gt.randn(100), gt.rand(7), gt.randn(100), gt.randn(3)]
    gt.manual_seed(3)
    actual = [step(), gt.rand(7), step(), gt.randn(3)]
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), e.numpy())


@needs_fma
def test_a_generator_of_its_own() -> None:
    own, other = gt.Generator(), gt.Generator()
    own.manual_seed(5)
    other.manual_seed(5)
    step = gt.compile(lambda: gt.rand(50, generator=own) + gt.rand(50), backend="cpu")
    gt.manual_seed(1)
    first = step()
    gt.manual_seed(1)
    np.testing.assert_array_equal(first.numpy(), (gt.rand(50, generator=other) + gt.rand(50)).numpy())
    np.testing.assert_array_equal(own.get_state().numpy(), other.get_state().numpy())


@needs_fma
def test_dropout_over_several_batch_sizes() -> None:
    def run(x: Any) -> Any:
        return gt.nn.functional.dropout(x, 0.5) * 2

    step = gt.compile(run, backend="cpu")
    for n in (3, 5, 1000, 7000, 64):
        x = gt.ones(n, 9)
        gt.manual_seed(n)
        expected = run(x)
        gt.manual_seed(n)
        np.testing.assert_array_equal(step(x).numpy(), expected.numpy())
    assert len(step.specializations) == 2
    assert not step.specializations[-1].compiled.executable.fallbacks


@needs_fma
def test_normal_numbers_of_several_sizes() -> None:
    def run(x: Any) -> Any:
        return gt.randn_like(x), gt.rand(2), gt.randn_like(x)

    step = gt.compile(run, backend="cpu")
    for n in (3, 5, 1000, 15, 16, 17, 7000, 2):
        x = gt.ones(n)
        gt.manual_seed(n)
        expected = run(x)
        gt.manual_seed(n)
        for a, e in zip(step(x), expected, strict=True):
            np.testing.assert_array_equal(a.numpy(), e.numpy())
        assert not step.specializations[-1].compiled.executable.fallbacks
    assert len(step.specializations) == 2


@needs_fma
@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_a_bad_probability_raises_and_draws_nothing(bad: float) -> None:
    step = gt.compile(lambda p: gt.bernoulli(p), backend="cpu")
    p = gt.full((1000,), 0.5)
    step(p)
    p[777] = bad
    before = gt.get_rng_state().numpy()
    with pytest.raises(RuntimeError, match="Expected p_in >= 0 && p_in <= 1 to be true, but got false"):
        step(p)
    np.testing.assert_array_equal(gt.get_rng_state().numpy(), before)


@needs_fma
@pytest.mark.parametrize("bits", [128, 256, 512])
def test_registers_of_other_widths_draw_the_same(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = replace(host(), register_bits=bits)
    monkeypatch.setattr("graphtorch.lowering.cpu.translation.host", lambda: narrow)
    for name in ("rand", "randn", "rand_float64", "dropout", "bernoulli", "randint_40_bits"):
        gt.manual_seed(9)
        expected = [DRAWS[name]().numpy() for _ in range(2)]
        gt.manual_seed(9)
        step = gt.compile(DRAWS[name], backend="cpu")
        for e in expected:
            np.testing.assert_array_equal(step().numpy(), e)
        assert not executable_of(step).fallbacks


def test_a_store_does_not_overwrite_what_is_read_after_it() -> None:
    """Temporaries take over each other's memory at the same element: all reads of a point come first."""
    q, b = gt.ones(2, dtype=gt.float64), gt.tensor([[[-2]]])

    def run(a: Any, b: Any) -> Any:
        b[1::2] = b[1::2]
        q.mul_(a)
        b[b > 0] = 3
        return b * 1

    step = gt.compile(run, backend="cpu")
    assert step(gt.full((1,), -1.5), b.clone()).tolist() == [[[-2]]]
    assert step(gt.full((1,), -1.5), b.clone()).tolist() == [[[-2]]]


def test_steps_of_no_element_do_not_shift_the_others() -> None:
    def run(x: Any, p: Any) -> Any:
        x = x[:, ::2] * x[:, ::2]
        drawn = gt.multinomial(p, 2, True)  # with replacement it runs on NumPy
        return x, drawn * 2

    step = gt.compile(run, backend="cpu")
    for n in (3, 0, 0, 2):
        x, p = gt.ones(n, 4), gt.ones(5)
        gt.manual_seed(n)
        expected = run(x, p)
        gt.manual_seed(n)
        for a, e in zip(step(x, p), expected, strict=True):
            np.testing.assert_array_equal(a.numpy(), e.numpy())
    assert any("multinomial" in line for s in step.specializations for line in s.compiled.executable.fallbacks)


@needs_fma
def test_rates_that_are_no_distribution() -> None:
    step = gt.compile(lambda p: gt.multinomial(p, 1), backend="cpu")
    p = gt.ones(7, 40)
    step(p)
    for value, message in ((-1.0, "element < 0"), (float("nan"), "nan"), (float("inf"), "inf")):
        bad = p.clone()
        bad[3, 17] = value
        before = gt.get_rng_state().numpy()
        with pytest.raises(RuntimeError, match=message):
            step(bad)
        np.testing.assert_array_equal(gt.get_rng_state().numpy(), before)
    p[6] = 0
    with pytest.raises(RuntimeError, match="sum of probabilities <= 0"):
        step(p)
    assert not executable_of(step).fallbacks
