"""Random numbers equal PyTorch's: stored sequences, and direct comparison where torch is there.

The samplers without logarithms or sines, and the float32 and 16-bit normals, are compared bit for bit. The others go
through the mathematics library of NumPy here and of C++ there, so they get a few units in the last place.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
import random
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphtorch.tensor import generator as module
from graphtorch.tensor.box_muller import fma
from graphtorch.tensor.generator import Generator, default_generator
from graphtorch.tensor.shuffling import shuffle_forward, shuffle_inside_out

Array = np.ndarray[Any, Any]
GOLDENS = json.loads((Path(__file__).parent.parent / "goldens" / "generator.json").read_text(encoding="utf-8"))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = ("float32", "float64", "float16", "bfloat16")
REAL = (*FLOATS, "int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32", "uint64")
# Samplers that call the mathematics library, and the dtypes in which that can show.
ROUNDED = {"normal": ("float64",), "log_normal": FLOATS, "cauchy": FLOATS, "exponential": FLOATS}


def numpy_dtype(name: str) -> np.dtype[Any]:
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def assert_equal(sampler: str, actual: Array, expected: Array, scale: float = 1.0) -> None:
    """Same shape, dtype and bits; where the mathematics library takes part, same numbers to a few roundings.

    scale: the size of the terms that the numbers are sums of, since cancellation leaves their rounding errors.
    """
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if actual.dtype.name not in ROUNDED.get(sampler, ()):
        assert actual.tobytes() == expected.tobytes()
        return
    epsilon = float(ml_dtypes.finfo(actual.dtype).eps)
    np.testing.assert_allclose(
        actual.astype(np.float64), expected.astype(np.float64), rtol=4 * epsilon, atol=scale * 4 * 2.0**-52
    )


def draw(generator: Generator, call: dict[str, Any]) -> Array:
    """Makes one call of the golden file on `generator`."""
    names = {"low", "high", "mean", "std", "median", "sigma", "lambd", "p", "n", "shape"} & call.keys()
    arguments = {name: call[name] for name in names}
    if "dtype" in call:
        arguments["dtype"] = numpy_dtype(call["dtype"])
    probs = np.array(call["probs"]).astype(numpy_dtype(call["probs_dtype"])) if "probs" in call else None
    if call["sampler"] == "bernoulli_array":
        return generator.bernoulli(probs, **arguments)
    if call["sampler"] == "multinomial":
        return generator.multinomial(probs, call["num_samples"], call["replacement"])
    result: Array = getattr(generator, call["sampler"])(**arguments)
    return result


@pytest.mark.parametrize("index", range(len(GOLDENS["sequences"])))
def test_golden(index: int) -> None:
    sequence = GOLDENS["sequences"][index]
    generator = Generator().manual_seed(sequence["seed"])
    for call in sequence["calls"]:
        dtype = numpy_dtype(call["result_dtype"])
        expected = np.frombuffer(base64.b64decode(call["result"]), dtype).reshape(call["result_shape"])
        assert_equal(call["sampler"], draw(generator, call), expected, scale=10)
    if not generator._kept[1]:  # a kept float64 normal is subject to the mathematics library, the rest is not
        assert hashlib.sha256(generator.state_array().tobytes()).hexdigest() == sequence["state"]


def test_known_numbers() -> None:
    values = Generator().manual_seed(8).uniform((3, 4))
    np.testing.assert_allclose(values[0], [0.5979, 0.8453, 0.9464, 0.2965], atol=5e-5)


# ----------------------------------------------------------------------------------------------------- seed and state


def test_a_new_generator_has_pytorchs_default_seed() -> None:
    assert Generator().initial_seed() == 67280421310721


def test_negative_seeds_count_from_the_top() -> None:
    assert Generator().manual_seed(-1).initial_seed() == 2**64 - 1
    assert Generator().manual_seed(-(2**63)).initial_seed() == 2**63
    assert Generator().manual_seed(np.int64(5)).initial_seed() == 5


@pytest.mark.parametrize(
    ("seed", "error"), [(2**64, ValueError), (-(2**63) - 1, ValueError), (1.0, RuntimeError), (True, RuntimeError)]
)
def test_bad_seeds_change_nothing(seed: Any, error: type[Exception]) -> None:
    generator = Generator().manual_seed(3)
    before = generator.get_state()
    with pytest.raises(error):
        generator.manual_seed(seed)
    assert (generator.get_state() == before).all()


def test_seed_reseeds_at_random() -> None:
    generator = Generator()
    seeds = {generator.seed() for _ in range(4)}
    assert len(seeds) == 4
    assert generator.initial_seed() in seeds
    assert default_generator.initial_seed() != 67280421310721, "the default generator starts from a random seed"


def test_device() -> None:
    assert Generator("cpu").device.type == "cpu"
    with pytest.raises(RuntimeError, match="META"):
        Generator("meta")


@pytest.mark.parametrize("drawn", [0, 1, 5, 623, 624, 625, 1248])
@pytest.mark.parametrize("normals", [0, 1])
def test_state_round_trip(drawn: int, normals: int) -> None:
    generator = Generator().manual_seed(4)
    generator.uniform(drawn)
    generator.normal(normals)
    other = Generator()
    other.set_state(generator.get_state())
    assert other.state_array().tobytes() == generator.state_array().tobytes()
    assert other.initial_seed() == 4
    assert (other.normal(7) == generator.normal(7)).all()
    assert (other.uniform(700) == generator.uniform(700)).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda g: g.clone_state(), lambda g: pickle.loads(pickle.dumps(g))])
def test_copies_go_on_alone(copied: Callable[[Generator], Generator]) -> None:
    generator = Generator().manual_seed(4)
    generator.normal(3)
    other = copied(generator)
    expected = other.normal(20)
    assert (generator.normal(20) == expected).all()
    other.uniform(5)
    assert (generator.get_state() != other.get_state()).any()


def test_bad_states() -> None:
    generator = Generator().manual_seed(4)
    before = generator.get_state()
    unseeded = np.zeros(5056, np.uint8)
    inconsistent = generator.state_array()
    inconsistent[16] = 7
    for state, error, message in (
        (np.zeros(10, np.uint8), RuntimeError, "size 5056 but found the input RNG state size to be 10"),
        (np.zeros(5056), TypeError, "ByteTensor"),
        ([1, 2], TypeError, "ByteTensor"),
        (unseeded, RuntimeError, "Invalid mt19937 state"),
        (inconsistent, RuntimeError, "Invalid mt19937 state"),
    ):
        with pytest.raises(error, match=message):
            generator.set_state(state)  # type: ignore[arg-type]
    assert (generator.get_state() == before).all()


def test_threads_share_one_stream() -> None:
    generator = Generator().manual_seed(1)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: generator.randint(0, 2**27, 1000), range(40)))
    expected = Generator().manual_seed(1).randint(0, 2**27, 40000).reshape(40, 1000)
    assert sorted(map(tuple, parts)) == sorted(map(tuple, expected))


# ---------------------------------------------------------------------------------------------------- building blocks


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 200])
@pytest.mark.parametrize("seed", range(5))
def test_shuffles_equal_their_loops(n: int, seed: int) -> None:
    choose = random.Random(seed)
    targets = [choose.randrange(i, n) for i in range(n - 1)]
    places = list(range(n))
    for i, j in enumerate(targets):
        places[i], places[j] = places[j], places[i]
    assert shuffle_forward(np.array(targets, np.int64), n).tolist() == places

    targets = [choose.randrange(i + 1) for i in range(n)]
    places = [0] * n
    for i, j in enumerate(targets):
        places[i] = places[j]
        places[j] = i
    assert shuffle_inside_out(np.array(targets, np.int64)).tolist() == places


def test_randperm_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDE_RANDPERM", 5)
    words = Generator().manual_seed(2)._random64(30)
    places = [0] * 30
    for i in range(30):
        j = int(words[i]) % (i + 1)
        places[i] = places[j]
        places[j] = i
    assert Generator().manual_seed(2).randperm(30).tolist() == places
    assert sorted(places) == list(range(30))


FLOAT64 = st.floats(-1e30, 1e30, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-30)
FLOAT32 = st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-12)


@given(FLOAT64, FLOAT64, FLOAT64)
@settings(max_examples=300, deadline=None)
def test_fma_of_float64_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert fma(np.array([a]), b, c)[0] == float(exact)


@given(FLOAT64, FLOAT64, st.integers(-3, 3), st.integers(50, 110))
@settings(max_examples=300, deadline=None)
def test_fma_of_float64_near_a_tie(a: float, b: float, steps: int, below: int) -> None:
    # A shift near half a unit in the last place of the product, or far below: what two roundings get wrong.
    c = a * b * 2.0**-below * (1 + steps * 2.0**-52)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert fma(np.array([a]), b, c)[0] == float(exact)


@given(FLOAT32, FLOAT32, FLOAT32)
@settings(max_examples=300, deadline=None)
def test_fma_of_float32_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    # The float32 neighbours of the result: it has to be the closest one.
    result = fma(np.array([a], np.float32), b, c)[0]
    error = abs(Fraction(float(result)) - exact)
    for side in (np.float32(np.inf), np.float32(-np.inf)):
        assert error <= abs(Fraction(float(np.nextafter(result, side))) - exact)


def test_fma_of_float32_is_not_rounded_twice() -> None:
    # The product is 2**-24 + 2**-60: with 1 just above a tie of float32, but on it once rounded to float64.
    a, b = 4097 * 2.0**-30, 16773121 * 2.0**-30
    assert Fraction(a) * Fraction(b) == Fraction(2) ** -24 + Fraction(2) ** -60
    assert fma(np.array([a], np.float32), b, 1.0)[0] == np.float32(1 + 2.0**-23)
    assert np.float32(a * b + 1) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_gives_no_negative_zero(dtype: Any) -> None:
    assert fma(np.array([-0.0], dtype), 1.0, 0.0).tobytes() == dtype(0).tobytes()


# ---------------------------------------------------------------------------------------------------- beside PyTorch


@pytest.fixture
def torch() -> Any:
    torch = pytest.importorskip("torch")
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("PyTorch's numbers are those of its AVX2 kernels")
    return torch


def uses_mkl_engine(torch: Any) -> bool:
    """Whether this PyTorch draws Bernoulli numbers from MKL: it does so on Intel CPUs, from a single word as seed."""
    generator = torch.Generator()
    torch.empty(10).bernoulli_(0.5, generator=generator)
    used: int = generator.get_state().numpy()[16:24].view(np.uint64)[0]
    return used == 1


def to_numpy(torch: Any, tensor: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


class Pair:
    """The same stream here and in PyTorch, and a comparison of what the two give."""

    def __init__(self, torch: Any, seed: int = 11) -> None:
        self.torch = torch
        self.ours = Generator().manual_seed(seed)
        self.theirs = torch.Generator().manual_seed(seed)

    def check(self, sampler: str, ours: Callable[[], Array], theirs: Callable[[], Any], scale: float = 1.0) -> None:
        assert_equal(sampler, ours(), to_numpy(self.torch, theirs()), scale)
        self.check_state()

    def check_state(self) -> None:
        ours, theirs = self.ours.state_array(), self.theirs.get_state().numpy()
        kept = slice(5024, 5032)  # the kept normal, which the mathematics library decides the last bits of
        assert (np.delete(ours, kept) == np.delete(theirs, kept)).all()
        np.testing.assert_allclose(ours[kept].view(np.float64), theirs[kept].view(np.float64), rtol=1e-15)

    def check_errors(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
        """Both raise the same, or both give the same bits; the same warnings in either case."""
        results: list[Any] = []
        for function in (ours, theirs):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result: Any
                try:
                    result = function()
                    array = result if isinstance(result, np.ndarray) else to_numpy(self.torch, result)
                    result = (array.dtype, array.shape, array.tobytes())
                except Exception as error:
                    result = (type(error), str(error).split("  (")[0])
            results.append((result, [str(w.message).split(" (Triggered")[0] for w in caught]))
        assert results[0] == results[1]
        self.check_state()


SIZES = [0, 1, 2, 3, 15, 16, 17, 31, 32, 100, 1000]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 3.7), (-0.3, 12.1), (5, 5), (1000, 1000.001)])
def test_uniform(torch: Any, dtype: str, low: float, high: float) -> None:
    pair, kind = Pair(torch), getattr(torch, dtype)
    for size in (*SIZES, 2**15 + 3):
        pair.check(
            "uniform",
            lambda size=size: pair.ours.uniform(size, numpy_dtype(dtype), low, high),
            lambda size=size: torch.empty(size, dtype=kind).uniform_(low, high, generator=pair.theirs),
        )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (1.3, 0.7), (0, 2.3), (5, 1), (3, 0)])
def test_normal(torch: Any, dtype: str, mean: float, std: float) -> None:
    pair, kind = Pair(torch), getattr(torch, dtype)
    for size in (*SIZES, *SIZES, 2**16 + 21):
        pair.check(
            "normal",
            lambda size=size: pair.ours.normal(size, numpy_dtype(dtype), mean, std),
            lambda size=size: torch.empty(size, dtype=kind).normal_(mean, std, generator=pair.theirs),
            scale=abs(mean) + 10 * std,
        )


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers(torch: Any, dtype: str) -> None:
    pair, kind = Pair(torch), getattr(torch, dtype)
    for shape in ((), (3,), (4, 7)):
        ours, theirs = pair.ours.normal(shape, dtype), torch.randn(shape, dtype=kind, generator=pair.theirs).numpy()
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-15, atol=1e-15)
        pair.check(
            "uniform",
            lambda shape=shape: pair.ours.uniform(shape, dtype),
            lambda shape=shape: torch.rand(shape, dtype=kind, generator=pair.theirs),
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_continuous_samplers(torch: Any, dtype: str) -> None:
    pair, kind, ours_kind = Pair(torch), getattr(torch, dtype), numpy_dtype(dtype)
    for size in (1, 7, 40001):
        pair.check(
            "cauchy",
            lambda size=size: pair.ours.cauchy(size, ours_kind, 1.7, 0.3),
            lambda size=size: torch.empty(size, dtype=kind).cauchy_(1.7, 0.3, generator=pair.theirs),
            # The tangent of pi (u - 1/2) takes over the rounding error of its argument, however large it is.
            scale=1e6,
        )
        pair.check(
            "log_normal",
            lambda size=size: pair.ours.log_normal(size, ours_kind, 0.7, 0.3),
            lambda size=size: torch.empty(size, dtype=kind).log_normal_(0.7, 0.3, generator=pair.theirs),
            scale=10,
        )
        pair.check(
            "geometric",
            lambda size=size: pair.ours.geometric(size, ours_kind, 0.3),
            lambda size=size: torch.empty(size, dtype=kind).geometric_(0.3, generator=pair.theirs),
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_exponential(torch: Any, dtype: str) -> None:
    if uses_mkl_engine(torch):
        pytest.skip("PyTorch uses MKL's engine on this CPU")
    pair = Pair(torch)
    for size in (1, 7, 40001):
        pair.check(
            "exponential",
            lambda size=size: pair.ours.exponential(size, numpy_dtype(dtype), 1.7),
            lambda size=size: torch.empty(size, dtype=getattr(torch, dtype)).exponential_(1.7, generator=pair.theirs),
        )


@pytest.mark.parametrize("dtype", REAL[:-3])
def test_bernoulli(torch: Any, dtype: str) -> None:
    pair, kind = Pair(torch), getattr(torch, dtype)
    if not uses_mkl_engine(torch):
        for p in (0.0, 0.3, 1.0):
            pair.check(
                "bernoulli",
                lambda p=p: pair.ours.bernoulli(p, (5, 7), numpy_dtype(dtype)),
                lambda p=p: torch.empty(5, 7, dtype=kind).bernoulli_(p, generator=pair.theirs),
            )
    for name in FLOATS:
        probs = torch.linspace(0, 1, 7).to(getattr(torch, name))
        pair.check(
            "bernoulli",
            lambda probs=probs: pair.ours.bernoulli(to_numpy(torch, probs), (5, 7), numpy_dtype(dtype)),
            lambda probs=probs: torch.empty(5, 7, dtype=kind).bernoulli_(probs, generator=pair.theirs),
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_draws_its_mask_with_bernoulli(torch: Any, dtype: str) -> None:
    if uses_mkl_engine(torch):
        pytest.skip("PyTorch uses MKL's engine on this CPU")
    torch.manual_seed(5)
    kept = torch.nn.functional.dropout(torch.ones(6, 50, dtype=getattr(torch, dtype)), 0.3) != 0
    ours = Generator().manual_seed(5).bernoulli(1 - 0.3, (6, 50), numpy_dtype(dtype))
    assert (kept.numpy() == (ours != 0)).all()


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_bernoulli_refuses_what_is_no_probability(p: float) -> None:
    generator = Generator().manual_seed(0)
    before = generator.get_state()
    with pytest.raises(RuntimeError, match="Expected p_in >= 0 && p_in <= 1 to be true"):
        generator.bernoulli(np.array([0.5, p, 0.5]), 3)
    with pytest.raises(RuntimeError, match="bernoulli_ expects p to be in \\[0, 1\\], but got p="):
        generator.bernoulli(p, 3)
    assert (generator.get_state() == before).all()


BOUNDS = [0, 1, -1, 2, -128, 128, 255, 256, 257, 2049, 32767, -32768, 65505, 2**24 + 1, -(2**24) - 3, 2**28 - 1, 2**28]
BOUNDS += [2**28 + 5, 2**31, 2**32, 2**40 + 12345, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("dtype", (*REAL, "complex64"))
def test_randint_of_all_ranges(torch: Any, dtype: str) -> None:
    pair, kind = Pair(torch), getattr(torch, dtype)
    for low in BOUNDS[:-2] + BOUNDS[-1:]:
        for high in (*BOUNDS, None):
            if dtype == "float16" and low == 65505:
                continue  # PyTorch converts the infinity that this rounds to into an integer, which is undefined
            pair.check_errors(
                lambda low=low, high=high: pair.ours.randint(low, high, 9, numpy_dtype(dtype)),
                lambda low=low, high=high: torch.empty(9, dtype=kind).random_(low, high, generator=pair.theirs),
            )


@pytest.mark.parametrize("dtype", (*REAL, "complex64"))
def test_integers_and_errors_of_all_dtypes(torch: Any, dtype: str) -> None:
    pair, kind, ours = Pair(torch), getattr(torch, dtype), numpy_dtype(dtype)

    def empty() -> Any:
        return torch.empty(3, dtype=kind)

    pair.check_errors(lambda: pair.ours.random(3, ours), lambda: empty().random_(generator=pair.theirs))
    for n in (-1, 0, 1, 2, 30, 128, 129, 256, 257, 258, 2049, 2050, 3000):
        pair.check_errors(
            lambda n=n: pair.ours.randperm(n, ours), lambda n=n: torch.randperm(n, dtype=kind, generator=pair.theirs)
        )
    for p in (-0.1, 1.5, float("nan")):
        pair.check_errors(
            lambda p=p: pair.ours.bernoulli(p, 3, ours), lambda p=p: empty().bernoulli_(p, generator=pair.theirs)
        )
    pair.check_errors(
        lambda: pair.ours.bernoulli(np.array([0, 1, 1]), 3, ours),
        lambda: empty().bernoulli_(torch.tensor([0, 1, 1]), generator=pair.theirs),
    )
    for low, high in ((2, 1), (-1e39, 3), (0, 1e39), (-6e4, 6e4), (-3e38, 3e38), (0, float("nan"))):
        if ours.kind != "c":
            pair.check_errors(
                lambda low=low, high=high: pair.ours.uniform(3, ours, low, high),
                lambda low=low, high=high: empty().uniform_(low, high, generator=pair.theirs),
            )
    for std in (-1.0, float("nan")):
        pair.check_errors(
            lambda std=std: pair.ours.normal(3, ours, 0, std),
            lambda std=std: empty().normal_(0, std, generator=pair.theirs),
        )
        pair.check_errors(
            lambda std=std: pair.ours.log_normal(3, ours, 0, std),
            lambda std=std: empty().log_normal_(0, std, generator=pair.theirs),
        )
        pair.check_errors(
            lambda std=std: pair.ours.cauchy(3, ours, 0, std),
            lambda std=std: empty().cauchy_(0, std, generator=pair.theirs),
        )
        pair.check_errors(
            lambda std=std: pair.ours.exponential(3, ours, std),
            lambda std=std: empty().exponential_(std, generator=pair.theirs),
        )
        pair.check_errors(
            lambda std=std: pair.ours.geometric(3, ours, std),
            lambda std=std: empty().geometric_(std, generator=pair.theirs),
        )
    if dtype not in FLOATS:
        pair.check_errors(lambda: pair.ours.cauchy(3, ours, 0, 1), lambda: empty().cauchy_(0, 1, generator=pair.theirs))
        pair.check_errors(
            lambda: pair.ours.exponential(3, ours, 1), lambda: empty().exponential_(1, generator=pair.theirs)
        )
        pair.check_errors(
            lambda: pair.ours.log_normal(3, ours, 0, 1), lambda: empty().log_normal_(0, 1, generator=pair.theirs)
        )


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 624, 1000, 70001])
def test_randperm(torch: Any, n: int) -> None:
    pair = Pair(torch)
    for _ in range(3):
        pair.check("randperm", lambda: pair.ours.randperm(n), lambda: torch.randperm(n, generator=pair.theirs))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (6,), (500,), (1, 9), (7, 9), (0, 4)])
@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial(torch: Any, dtype: str, shape: tuple[int, ...], replacement: bool) -> None:
    if uses_mkl_engine(torch) and not replacement:
        pytest.skip("PyTorch uses MKL's engine on this CPU")
    torch.manual_seed(3)
    probs = torch.rand(shape).to(getattr(torch, dtype))
    pair = Pair(torch)
    # Equal quotients are common in the 16-bit dtypes, and their order is left to C++'s unstable sort: few draws there.
    counts = [1, min(shape[-1], 3)] if dtype in ("float16", "bfloat16") else [1, 2, shape[-1]]
    if replacement:
        counts = [2, 3, 40]
    for count in counts:
        if count > shape[-1] and not replacement:
            continue
        pair.check(
            "multinomial",
            lambda count=count: pair.ours.multinomial(to_numpy(torch, probs), count, replacement),
            lambda count=count: torch.multinomial(probs, count, replacement, generator=pair.theirs),
        )


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize(
    ("probs", "count"),
    [
        ([1.0, 2.0, 3.0], 0),
        ([1.0, 2.0, 3.0], -1),
        ([-1.0, 2.0], 2),
        ([NAN, 2.0], 2),
        ([INF, 2.0], 2),
        ([0.0, 0.0], 2),
        ([[1.0, 1.0], [0.0, 0.0]], 2),
        (1.0, 1),
        ([[[1.0]]], 1),
    ],
)
def test_multinomial_errors(torch: Any, probs: Any, count: int, replacement: bool) -> None:
    generator = Generator().manual_seed(0)
    before = generator.get_state()
    with pytest.raises(RuntimeError) as ours:
        generator.multinomial(np.array(probs, np.float32), count, replacement)
    assert (generator.get_state() == before).all(), "a refused call draws nothing"
    with pytest.raises(RuntimeError) as theirs:
        torch.multinomial(torch.tensor(probs), count, replacement)
    assert str(ours.value) == str(theirs.value)


def test_multinomial_refuses_integers_and_too_many(torch: Any) -> None:
    generator = Generator()
    for probs, count in ((np.ones(3, np.int64), 1), (np.ones(3, np.float32), 4)):
        with pytest.raises(RuntimeError) as ours:
            generator.multinomial(probs, count)
        with pytest.raises(RuntimeError) as theirs:
            torch.multinomial(torch.from_numpy(probs), count)
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**63, -7])
def test_states_move_between_the_two(torch: Any, seed: int) -> None:
    ours, theirs = Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    assert ours.initial_seed() == theirs.initial_seed()
    for size in (0, 1, 20, 623, 2, 1300):
        assert ours.state_array().tobytes() == theirs.get_state().numpy().tobytes()
        theirs.set_state(torch.from_numpy(ours.state_array()))
        assert (torch.rand(size, generator=theirs).numpy() == ours.uniform(size)).all()
    theirs = torch.Generator()
    torch.randn(3, generator=theirs)
    ours.set_state(theirs.get_state().numpy())
    assert ours.state_array().tobytes() == theirs.get_state().numpy().tobytes()
    assert (torch.randn(5, generator=theirs).numpy() == ours.normal(5)).all()
