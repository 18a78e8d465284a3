"""Every operator record against NumPy's result, PyTorch, finite differences, its own decomposition and meta evaluation.

The tests are generated: a record that is added is covered. A sample's values are the same in every run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch.autograd import grad
from graphtorch.ops.dispatch import call, quiet, tensors_of
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import Tensor, dtypes
from graphtorch.tensor.devices import META
from graphtorch.tensor.tensor import meta_array
from graphtorch.tensor.type import type_of

# Half of a record's categories is enough in the narrow types: they share the code paths of the wide ones.
CATEGORY_DTYPES = {
    "b": (dtypes.bool_,),
    "i": (dtypes.int64, dtypes.uint8),
    "f": (dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16),
    "c": (dtypes.complex64, dtypes.complex128),
}
# Relative tolerance: a few units in the last place of a result that went through several roundings.
TOLERANCE = {
    dtypes.float16: 4e-3,
    dtypes.bfloat16: 3e-2,
    dtypes.float32: 2e-5,
    dtypes.complex64: 2e-5,
    dtypes.float64: 1e-11,
    dtypes.complex128: 1e-11,
}

SAMPLED = sorted(name for name, op in REGISTRY.items() if op.samples is not None)
DIFFERENTIABLE = [name for name in SAMPLED if REGISTRY[name].derivative]
DECOMPOSED = [name for name in SAMPLED if REGISTRY[name].decompose is not None]


@functools.cache
def torch() -> Any:
    return pytest.importorskip("torch")


def cases(
    op: Operator, dtype_filter: Callable[[dtypes.dtype], bool] = lambda d: True
) -> list[tuple[dtypes.dtype, Any]]:
    """(dtype, normalised arguments) of every sample. Dtypes that the operator refuses are left out."""
    found = []
    for letter in op.categories:
        for d in filter(dtype_filter, CATEGORY_DTYPES[letter]):
            assert op.samples is not None
            try:
                samples = list(op.samples(Sampler(d)))
            except NotImplementedError:
                continue
            for index, sample in enumerate(samples):
                found.append((d, index, bind(op, sample.args, sample.kwargs)))
    return [(d, args) for d, _, args in found]


def bind(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments in signature order with defaults, normalised as a call does."""
    captured: list[tuple[Any, ...]] = []

    class Stop(Exception):
        pass

    class Catcher:
        def call(self, operator: Operator, bound: tuple[Any, ...]) -> Any:
            captured.append(bound)
            raise Stop

    from graphtorch.autograd.state import recording

    assert op.function is not None
    with recording(Catcher()), pytest.raises(Stop):  # type: ignore[arg-type]
        op.function(*args, **kwargs)
    return captured[0]


def arrays_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        a._data
        if isinstance(a, Tensor)
        else tuple(i._data if isinstance(i, Tensor) else i for i in a)
        if isinstance(a, tuple)
        else a
        for a in args
    )


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def wide(array: Any) -> Any:
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def assert_close(actual: Any, expected: Any, tolerance: float, what: str) -> None:
    actual, expected = wide(np.asarray(actual)), wide(np.asarray(expected))
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if actual.dtype.kind in "fc":
        finite = np.abs(expected[np.isfinite(expected)])
        scale = max(float(finite.max()) if finite.size else 1.0, 1.0)
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=what)


def describe(op: Operator, args: tuple[Any, ...]) -> str:
    parts = [str(type_of(a)) if isinstance(a, Tensor) else repr(a) for a in args]
    return f"{op.name}({', '.join(parts)})"


@pytest.mark.parametrize("name", SAMPLED)
def test_type_rule_agrees_with_numpy_result(name: str) -> None:
    op = REGISTRY[name]
    for _, args in cases(op):
        expected = op.infer(args)
        results = as_tuple(quiet.run(op.numpy, *arrays_of(args)))
        assert len(results) == len(expected) == len(op.results)
        for result, rule in zip(results, expected, strict=True):
            array = np.asarray(result)
            assert array.shape == tuple(rule.shape), describe(op, args)
            assert array.dtype == rule.dtype.numpy, describe(op, args)
            if not op.is_view:
                shared = [o for o in tensors_of(args) if np.may_share_memory(array, o._data)]
                assert not shared, f"{describe(op, args)} returns an operand's memory"


@pytest.mark.parametrize("name", SAMPLED)
def test_meta_tensors_give_the_same_types(name: str) -> None:
    op = REGISTRY[name]

    def to_meta(value: Any) -> Any:
        if isinstance(value, Tensor):
            made = Tensor._wrap(meta_array(tuple(value.shape), value.dtype), value.dtype)
            made._device = META
            return made
        return tuple(map(to_meta, value)) if isinstance(value, tuple) else value

    for _, args in cases(op):
        if not tensors_of(args):
            continue  # no operands: nothing chooses the device
        metas = tuple(map(to_meta, args))
        for result, rule in zip(as_tuple(call(op, metas)), op.infer(args), strict=True):
            assert tuple(result.shape) == tuple(rule.shape) and result.dtype is rule.dtype, describe(op, args)
            assert result.device.type == "meta"


# -- PyTorch ----------------------------------------------------------------------------------------------------------


def to_torch(value: Any) -> Any:
    t = torch()
    if isinstance(value, Tensor):
        if value.dtype is dtypes.bfloat16:
            return t.from_numpy(value._data.astype(np.float32)).to(t.bfloat16)
        return t.from_numpy(np.array(value._data, copy=True))
    if isinstance(value, tuple):
        converted = [to_torch(v) for v in value]
        return converted if any(isinstance(v, t.Tensor) for v in converted) else tuple(converted)
    if isinstance(value, dtypes.dtype):
        return getattr(t, value.name)
    return value


def from_torch(value: Any) -> Any:
    return (value.float() if value.dtype is torch().bfloat16 else value).resolve_conj().numpy()


def torch_function(name: str) -> Any:
    t = torch()
    if name.startswith("linalg_"):
        return getattr(t.linalg, name[7:], None)
    for home in (t, t.Tensor, t.nn.functional, t.special):
        if callable(getattr(home, name, None)):
            return getattr(home, name)
    return None


def public_function(name: str) -> Any:
    return graphtorch.ops.FUNCTIONS.get(name)


@pytest.mark.parametrize("name", [n for n in SAMPLED if n in graphtorch.ops.FUNCTIONS and not REGISTRY[n].random])
def test_values_agree_with_torch(name: str) -> None:
    op = REGISTRY[name]
    theirs, ours = torch_function(name), public_function(name)
    if theirs is None:
        pytest.skip(f"PyTorch has no function of the name {name}")
    compared = 0
    for letter in op.categories:
        for d in CATEGORY_DTYPES[letter]:
            assert op.samples is not None
            try:
                samples = list(op.samples(Sampler(d)))
            except NotImplementedError:
                continue
            for sample in samples:
                arguments = tuple(to_torch(tuple(a) if isinstance(a, list) else a) for a in sample.args)
                keywords = {k: to_torch(v) for k, v in sample.kwargs.items()}
                if theirs is getattr(torch().nn.functional, name, None):
                    # Its signatures have deprecated parameters in between: go by name.
                    names = [p.name for p in op.parameters]
                    keywords |= dict(zip(names[2:], arguments[2:], strict=False))
                    arguments = arguments[:2]
                try:
                    expected = theirs(*arguments, **keywords)
                except (TypeError, NotImplementedError):
                    continue  # the record takes more than PyTorch's function (a number first, say)
                except RuntimeError as error:
                    if "not implemented for" in str(error) or "not supported" in str(error):
                        continue
                    raise
                actual = ours(*sample.args, **sample.kwargs)
                what = describe(op, (*sample.args, *sample.kwargs.items()))
                for a, e in zip(as_tuple(actual), as_tuple(expected), strict=True):
                    if not isinstance(e, torch().Tensor):
                        assert a == e, what
                        continue
                    assert str(a.dtype) == str(e.dtype), what
                    assert_close(a._data, from_torch(e), TOLERANCE.get(a.dtype, TOLERANCE.get(d, 0.0)), what)
                compared += 1
    if not compared:
        pytest.skip(f"PyTorch's {name} takes none of the samples")


# -- decomposition ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECOMPOSED)
def test_decomposition_is_the_operator(name: str) -> None:
    op = REGISTRY[name]
    assert op.decompose is not None
    if op.random:
        pytest.skip("draws from a generator")
    for d, args in cases(op):
        decomposed = op.decompose(*args)
        if decomposed is None:
            continue
        results = as_tuple(quiet.run(op.numpy, *arrays_of(args)))
        for part, result, rule in zip(as_tuple(decomposed), results, op.infer(args), strict=True):
            what = describe(op, args)
            assert part.dtype is rule.dtype, f"{what}: decomposes to {part.dtype}, not {rule.dtype}"
            assert_close(part._data, result, 4 * TOLERANCE.get(part.dtype, TOLERANCE.get(d, 0.0)), what)


# -- derivatives ------------------------------------------------------------------------------------------------------


def operands(args: tuple[Any, ...], op: Operator) -> list[Tensor]:
    """The float64 and complex128 operands that the record differentiates, each once."""
    found: list[Tensor] = []
    for parameter, arg in zip(op.parameters, args, strict=True):
        if parameter.name in op.derivative:
            for item in arg if isinstance(arg, tuple) else (arg,):
                if isinstance(item, Tensor) and item.dtype.is_differentiable and all(item is not f for f in found):
                    found.append(item)
    return found


def finite_difference(function: Callable[[], float], array: np.ndarray[Any, Any], step: float = 1e-5) -> Any:
    """The gradient of a real function of `array` by central differences, in PyTorch's convention for complex arrays."""
    gradient = np.zeros_like(array)
    directions = (1.0, 1.0j) if np.iscomplexobj(array) else (1.0,)
    for index in np.ndindex(array.shape):
        old = array[index]
        for direction in directions:
            array[index] = old + step * direction
            above = function()
            array[index] = old - step * direction
            below = function()
            array[index] = old
            gradient[index] += direction * (above - below) / (2 * step)
    return gradient


def check_gradient(name: str, kind: dtypes.dtype, second_order: bool) -> None:
    op = REGISTRY[name]
    for _, args in cases(op, lambda d: d is kind):
        inputs = operands(args, op)
        if not inputs or sum(t.numel() for t in inputs) > 400:
            continue
        random = np.random.default_rng(1)
        for tensor in inputs:
            tensor.requires_grad_(True)
        results = [r for r in as_tuple(call(op, args)) if r.requires_grad]
        if not results or any(r.dtype not in (dtypes.float64, dtypes.complex128) for r in results):
            continue  # nothing to differentiate, or too coarse for finite differences
        weights = [draw(random, r) for r in results]
        seeds = [draw(random, t) for t in inputs]

        def product(op: Operator = op, args: Any = args, weights: Any = weights) -> Tensor:
            """<results, weights>: a real number."""
            parts = [r for r in as_tuple(call(op, args)) if r.requires_grad]
            return total([inner(p, w) for p, w in zip(parts, weights, strict=True)])

        def slope(inputs: Any = inputs, seeds: Any = seeds, product: Any = product) -> Tensor:
            """<gradient of product, seeds>: what the second order differentiates."""
            gradients = grad(product(), inputs, create_graph=True, allow_unused=True)
            return total([inner(g, s) for g, s in zip(gradients, seeds, strict=True) if g is not None])

        function = slope if second_order else product
        value = function()
        if value.requires_grad:
            actual = grad(value, inputs, allow_unused=True)
        else:
            actual = (None,) * len(inputs)
        for tensor, gradient in zip(inputs, actual, strict=True):
            numeric = finite_difference(lambda function=function: float(function().item()), tensor._data)
            got = np.zeros_like(tensor._data) if gradient is None else gradient._data
            if gradient is not None:
                assert gradient.shape == tensor.shape and gradient.dtype is tensor.dtype
            assert_close(
                got, numeric, 2e-5, f"{'second' if second_order else 'first'} derivative of {describe(op, args)}"
            )


def draw(random: np.random.Generator, like: Tensor) -> Tensor:
    values = random.uniform(-1, 1, tuple(like.shape))
    if like.dtype.is_complex:
        values = values + 1j * random.uniform(-1, 1, tuple(like.shape))
    return Tensor._wrap(np.asarray(values).astype(like.dtype.numpy))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The real inner product."""
    product = a * b.conj() if a.dtype.is_complex else a * b
    return (product.real if product.dtype.is_complex else product).sum()


def total(parts: list[Tensor]) -> Tensor:
    value = parts[0]
    for part in parts[1:]:
        value = value + part
    return value


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("kind", [dtypes.float64, dtypes.complex128], ids=str)
def test_gradient_against_finite_differences(name: str, kind: dtypes.dtype) -> None:
    if ("c" if kind.is_complex else "f") not in REGISTRY[name].categories:
        pytest.skip("not for this category")
    if REGISTRY[name].random:
        pytest.skip("draws from a generator")
    check_gradient(name, kind, second_order=False)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_derivative_against_finite_differences(name: str) -> None:
    if "f" not in REGISTRY[name].categories or REGISTRY[name].random:
        pytest.skip("not for floating types, or random")
    check_gradient(name, dtypes.float64, second_order=True)
