"""Random numbers in generated kernels, in Triton's interpreter: bit for bit those of the NumPy Philox."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import f32, trace

import graphtorch
from graphtorch.ops.record import lookup
from graphtorch.tensor import dtypes, philox
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton import random as draws
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.tiling import Limits
from graphtorch.ops.dispatch import call

FLOATS = ("float16", "bfloat16", "float32", "float64")


def seeded(seed: int = 0, offset: int = 0) -> Generator:
    generator = Generator().manual_seed(seed)
    generator.advance_philox(offset)
    return generator


def executable(program: Any, *types: TensorType) -> TritonExecutable:
    made = InterpretedBackend().compile(trace(program, *types))
    (only,) = made._programs.values()
    assert not only.launches.unsupported
    return made


def drawn(name: str, d: Any, n: int, *parameters: Any, seed: int = 3) -> Any:
    """What a sampler fills a vector with."""
    generator = seeded(seed)
    run = executable(lambda x: call(lookup(name), (x, *parameters, generator)), TensorType(d, (n,)))
    (result,) = run.run([np.zeros(n, d.numpy)])
    return result


def test_philox_known_answers() -> None:
    """The vectors published with Random123."""
    ones = 2**64 - 1
    for counter, stream, seed, wanted in (
        (0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (ones, ones, ones, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ):
        assert tuple(int(w) for w in philox.philox(seed, counter, stream)) == wanted


def test_streams_are_those_of_pytorch_on_cuda() -> None:
    """`torch.manual_seed(0); torch.rand(10, device="cuda")`, and `torch.randn(6, device="cuda")`."""
    uniform = [0.3990, 0.5167, 0.0249, 0.9401, 0.9459, 0.7967, 0.4150, 0.8203, 0.2290, 0.9096]
    normal = [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797]
    np.testing.assert_allclose(drawn("uniform", dtypes.float32, 10, 0.0, 1.0, seed=0), uniform, atol=5e-5)
    np.testing.assert_allclose(drawn("normal", dtypes.float32, 6, 0.0, 1.0, seed=0), normal, atol=5e-5)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
def test_uniform(kind: str, bounds: tuple[float, float]) -> None:
    d = getattr(dtypes, kind)
    low, high = bounds
    unit = philox.unit64(*philox.pairs(300, 3, 0)) if kind == "float64" else philox.unit(philox.words(300, 3, 0))
    wanted = (unit * unit.dtype.type(high - low) + unit.dtype.type(low)).astype(d.numpy)
    wanted = np.where(wanted == np.asarray(high, d.numpy), np.asarray(low, d.numpy), wanted)
    actual = drawn("uniform", d, 300, low, high)
    np.testing.assert_array_equal(actual, wanted)
    assert (actual.astype(np.float64) < high).all() and (actual.astype(np.float64) >= low).all()


@pytest.mark.parametrize("kind", FLOATS)
def test_normal(kind: str) -> None:
    d = getattr(dtypes, kind)
    made = philox.normal64(300, 3, 0) if kind == "float64" else philox.normal(300, 3, 0)
    tolerance = {"float16": 1e-2, "bfloat16": 6e-2, "float32": 1e-5, "float64": 1e-13}[kind]
    np.testing.assert_allclose(
        drawn("normal", d, 300, 1.5, 2.0).astype(np.float64), made * 2.0 + 1.5, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("kind", [*FLOATS, "bool_", "uint8", "int64"])
def test_bernoulli_fill(kind: str) -> None:
    d = getattr(dtypes, kind)
    for n, words in ((300, philox.quads(300, 3, 0)), (301, philox.words(301, 3, 0))):
        wanted = (philox.unit(words) < np.float32(0.3)).astype(d.numpy)
        np.testing.assert_array_equal(drawn("bernoulli_fill", d, n, 0.3), wanted)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "int64", "float32", "bfloat16"])
def test_integers(kind: str) -> None:
    d = getattr(dtypes, kind)
    word = philox.words(200, 3, 0).astype(np.int64)
    np.testing.assert_array_equal(drawn("random_range", d, 200, 3, 17), (word % 14 + 3).astype(d.numpy))
    if kind == "int64":
        high, low = (w.astype(np.uint64) for w in philox.pairs(200, 3, 0))
        both = (high << np.uint64(32)) | low
        wanted = (both % np.uint64(2**40)).astype(np.int64) - 5
        np.testing.assert_array_equal(drawn("random_range", d, 200, -5, 2**40 - 5), wanted)
        np.testing.assert_array_equal(drawn("random_full", d, 200), (both % np.uint64(2**63)).astype(np.int64))
    elif kind != "uint8":
        limit = {"int16": 2**15, "int32": 2**31, "float32": 2**24 + 1, "bfloat16": 2**8 + 1}[kind]
        single = (
            (word % limit).astype(np.float32).astype(d.numpy) if "float" in kind else (word % limit).astype(d.numpy)
        )
        np.testing.assert_array_equal(drawn("random_full", d, 200), single)


def test_other_distributions() -> None:
    unit = philox.unit(philox.words(200, 3, 0)).astype(np.float64)
    near = {"rtol": 1e-4, "atol": 1e-5}
    f = dtypes.float32
    np.testing.assert_allclose(drawn("exponential", f, 200, 1.5), -np.log(unit) / 1.5, **near)
    np.testing.assert_allclose(drawn("cauchy", f, 200, 1.0, 2.0), 1 + 2 * np.tan(np.pi * (unit - 0.5)), rtol=1e-3)
    np.testing.assert_allclose(drawn("geometric", f, 200, 0.3), np.ceil(np.log(unit) / np.log1p(-0.3)))
    normal = philox.normal(200, 3, 0)
    np.testing.assert_allclose(drawn("log_normal", f, 200, 0.5, 0.25), np.exp(normal * 0.25 + 0.5), **near)
    wide = philox.unit64(*philox.pairs(200, 3, 0))
    np.testing.assert_allclose(drawn("exponential", dtypes.float64, 200, 1.0), -np.log(wide), rtol=1e-12)


@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
def test_bernoulli_with_probabilities(kind: str) -> None:
    d = getattr(dtypes, kind)
    generator = seeded(3)
    run = executable(lambda p: graphtorch.bernoulli(p.t(), generator=generator), TensorType(d, (9, 7)))
    p = np.random.default_rng(0).random((9, 7)).astype(d.numpy)
    (result,) = run.run([p])
    unit = philox.unit(philox.neighbours(63, 3, 0)).reshape(7, 9)
    np.testing.assert_array_equal(result, (unit <= p.T.astype(np.float64)).astype(d.numpy))


def test_more_elements_than_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread draws for several elements: four a call, then the next call."""
    few_threads(monkeypatch)
    generator = seeded(7)

    def program(x: Any) -> Any:
        first = call(lookup("uniform"), (x, 0.0, 1.0, generator))
        return (
            first,
            call(lookup("normal"), (x, 0.0, 1.0, generator)),
            call(lookup("rand"), ((5,), dtypes.float64, None, generator)),
        )

    run = executable(program, f32(1500))
    for offset in (0, 20):
        first, second, third = run.run([np.zeros(1500, np.float32)])
        np.testing.assert_array_equal(first, philox.unit(philox.words(1500, 7, offset, 256)) % 1)
        np.testing.assert_allclose(second, philox.normal(1500, 7, offset + 8, 256), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(third, philox.unit64(*philox.pairs(5, 7, offset + 16)))


def few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "THREADS", 256)
    monkeypatch.setattr(draws, "threads_of", lambda n: philox.threads_of(n, 256))
    monkeypatch.setattr(draws, "advance_of", lambda n, per_call: philox.advance_of(n, per_call, 256))


@pytest.mark.parametrize("limits", [None, Limits(pointwise=16, persistent=4, rows=16, looped=16)])
@pytest.mark.parametrize("shape", [(40, 12), (37, 20), (6, 8, 24), (9, 6)])
def test_a_call_serves_four_neighbours(shape: Any, limits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout in kernels over elements and over rows: held in registers, looped over, of several axes, of rows that
    are no multiple of four; all of them draw the same numbers."""
    few_threads(monkeypatch)
    n = int(np.prod(shape))

    def program(x: Any, y: Any) -> Any:
        kept = call(lookup("bernoulli_fill"), (x, 0.6, seeded(7)))
        return x * kept, (y * kept).softmax(-1), (y + kept).sum((0, *range(2, len(shape))))

    run = InterpretedBackend(limits).compile(trace(program, f32(*shape), f32(*shape)))
    x, y = np.ones(shape, np.float32), np.random.default_rng(0).normal(size=shape).astype(np.float32)
    words = philox.quads(n, 7, 0, 256) if n % 4 == 0 else philox.words(n, 7, 0, 256)
    kept = (philox.unit(words) < 0.6).reshape(shape).astype(np.float32)
    dropped, soft, total = run.run([x, y])
    np.testing.assert_array_equal(dropped, kept)
    power = np.exp(y * kept - (y * kept).max(-1, keepdims=True))
    np.testing.assert_allclose(soft, power / power.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(total, (y + kept).sum((0, *range(2, len(shape)))), rtol=1e-4, atol=1e-4)
    if n % 4 == 0 and shape[-1] % 4 == 0 and limits is None:
        assert "tl.interleave" in "".join(run.sources().values())


@pytest.mark.parametrize("n", [300, 1024, 1500, 2600])
def test_a_call_of_philox_serves_four_elements(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    few_threads(monkeypatch)

    def program(x: Any, b: Any) -> Any:
        generator = seeded(7)
        kept = call(lookup("uniform"), (x, 0.0, 1.0, generator)) < 0.6
        noise = call(lookup("normal"), (x, 0.0, 1.0, generator))
        return x * kept + b, noise + x, call(lookup("random_range"), (x, 0, 100, generator))

    run = InterpretedBackend(Limits(pointwise=64)).compile(trace(program, f32(n // 4, 4), f32(4)))
    x, b = np.ones((n // 4, 4), np.float32), np.arange(4, dtype=np.float32)
    text = "".join(run.sources().values())
    assert "tl.static_range(4)" in text and "_unit(" not in text
    dropped, noise, whole = run.run([x, b])
    step = philox.advance_of(n, 4, 256)
    kept = (philox.unit(philox.words(n, 7, 0, 256)) < 0.6).reshape(x.shape)
    np.testing.assert_array_equal(dropped, kept + b)
    np.testing.assert_allclose(noise, philox.normal(n, 7, step, 256).reshape(x.shape) + 1, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(whole, (philox.words(n, 7, 2 * step, 256) % 100).reshape(x.shape))


def test_dropout_stores_no_mask() -> None:
    """Forward and backward draw the same numbers; what is in memory is the input and the results."""

    def program(x: Any, g: Any) -> Any:
        mask = call(lookup("bernoulli_fill"), (x, 0.75, seeded(5)))
        scaled = mask.div(0.75)
        return (x.exp() * scaled).sum(1), g.unsqueeze(1) * scaled

    run = executable(program, f32(20, 30), f32(20))
    assert run.plan is not None and run.plan.total_bytes == 0
    text = "".join(run.sources().values())
    assert "_of_quads(" in text
    x, g = np.ones((20, 30), np.float32), np.ones(20, np.float32)
    forward, backward = run.run([x, g])
    mask = (philox.unit(philox.quads(600, 5, 0)) < 0.75).reshape(20, 30) / np.float32(0.75)
    np.testing.assert_allclose(backward, mask, rtol=1e-6)
    np.testing.assert_allclose(forward, (np.e * mask).sum(1), rtol=1e-5)


def test_a_call_serves_elements_of_symbolic_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text for all sizes of more elements than threads."""
    few_threads(monkeypatch)
    n = symbol("n", hint=300)

    def program(x: Any) -> Any:
        generator = seeded(7)
        kept = call(lookup("uniform"), (x, 0.0, 1.0, generator))
        return x + kept, call(lookup("normal"), (x, 0.0, 1.0, generator))

    run = InterpretedBackend(Limits(pointwise=64)).compile(trace(program, f32(n, 4)))
    offset = 0
    sources = set()
    for size in (300, 75, 20, 301):
        first, second = run.run([np.zeros((size, 4), np.float32)])
        step = philox.advance_of(size * 4, 4, 256)
        np.testing.assert_array_equal(first.ravel(), philox.unit(philox.words(size * 4, 7, offset, 256)) % 1)
        wanted = philox.normal(size * 4, 7, offset + step, 256)
        np.testing.assert_allclose(second.ravel(), wanted, rtol=1e-4, atol=1e-4)
        offset += 2 * step
        text = "".join(run.sources().values())
        assert ("tl.static_range(4)" in text) == (size > 64)
        sources |= {text} if size > 64 else set()
    assert len(sources) == 1


@pytest.mark.parametrize("n", [300, 512, 1100])
def test_a_call_serves_two_elements_of_float64(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    few_threads(monkeypatch)

    def program(x: Any) -> Any:
        generator = seeded(7)
        uniform = call(lookup("uniform"), (x, 0.0, 1.0, generator))
        whole = call(lookup("random_range"), (x, 0, 2**40, generator))
        return uniform * 1, call(lookup("normal"), (x, 0.0, 1.0, generator)) + x, whole

    run = InterpretedBackend(Limits(pointwise=64)).compile(trace(program, TensorType(dtypes.float64, (n,))))
    text = "".join(run.sources().values())
    assert "tl.static_range(2)" in text and "_unit_wide(" not in text and "_word_wide(" not in text
    uniform, normal, whole = run.run([np.zeros(n)])
    step = philox.advance_of(n, 2, 256)
    np.testing.assert_array_equal(uniform, philox.unit64(*philox.pairs(n, 7, 0, 256)) % 1)
    high, low = philox.pairs(n, 7, step, 256)
    drawn = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    np.testing.assert_allclose(normal, philox.normal64(n, 7, 2 * step, 256), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(whole, (drawn % np.uint64(2**40)).astype(np.float64))


def test_every_run_draws_new_numbers_until_reseeded() -> None:
    graphtorch.manual_seed(11)
    run = executable(lambda x: x + graphtorch.rand(50), f32(50))
    x = np.zeros(50, np.float32)
    first, second = run.run([x])[0], run.run([x])[0]
    np.testing.assert_array_equal(first, philox.unit(philox.words(50, 11, 0)) % 1)
    np.testing.assert_array_equal(second, philox.unit(philox.words(50, 11, 4)) % 1)
    graphtorch.manual_seed(11)
    np.testing.assert_array_equal(run.run([x])[0], first)


def test_symbolic_sizes() -> None:
    n = symbol("n", hint=8)
    generator = seeded(2)
    run = InterpretedBackend().compile(
        trace(lambda x: x + call(lookup("rand"), ((n,), dtypes.float32, None, generator)), f32(n))
    )
    for i, size in enumerate((5, 700)):
        (result,) = run.run([np.zeros(size, np.float32)])
        np.testing.assert_array_equal(result, philox.unit(philox.words(size, 2, 4 * i)) % 1)


def test_unused_draws_advance_the_stream() -> None:
    generator = seeded(4)

    def program(x: Any) -> Any:
        call(lookup("normal"), (x, 0.0, 1.0, generator))
        return call(lookup("uniform"), (x, 0.0, 1.0, generator))

    (result,) = executable(program, f32(9)).run([np.zeros(9, np.float32)])
    np.testing.assert_array_equal(result, philox.unit(philox.words(9, 4, 4)) % 1)
