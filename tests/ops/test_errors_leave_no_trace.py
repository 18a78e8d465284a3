"""Bad input never corrupts: after an error, operands, gradients, `out=` tensors and generators are as before.

Every operator record is called with its samples spoiled in many ways: shapes, dtypes, devices, numbers and things that
are no tensors, as a function, in place and with `out=`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor import Tensor, dtypes

DTYPES = {"b": dtypes.bool_, "i": dtypes.int64, "f": dtypes.float64, "c": dtypes.complex128}
# What users can call: a backward record checks nothing, its arguments come from a forward call.
PUBLIC = (n for n, op in REGISTRY.items() if op.samples and op.function is not None and not n.endswith("_backward"))
NAMES = sorted(PUBLIC)


def spoiled_tensor(value: Tensor) -> Iterator[Any]:
    """What a caller may pass by mistake instead of a tensor."""
    plain = value.detach()
    yield plain.new_zeros((7, *plain.shape))
    if plain.ndim:
        yield plain.new_zeros(tuple(n + 1 for n in plain.shape))
        yield plain.new_zeros(plain.shape[1:])
        yield plain[:0]
    yield plain.new_zeros(plain.shape, dtype=dtypes.complex64)
    yield plain.new_zeros(plain.shape, dtype=dtypes.bool_)
    yield plain.new_zeros(plain.shape, dtype=dtypes.int32)
    yield plain.new_full(plain.shape, float("nan"), dtype=dtypes.float32)
    yield plain.new_full(plain.shape, -9, dtype=dtypes.int64)
    yield graphtorch.empty(tuple(plain.shape), dtype=plain.dtype, device="meta")
    yield "a string"
    yield None


def spoiled_attribute(value: Any) -> Iterator[Any]:
    if isinstance(value, bool | str) or value is None:
        yield from ("nonsense", 99, [])
    elif isinstance(value, int):
        yield from (99, -99, 0.5, "nonsense", None)
    elif isinstance(value, float):
        yield from (-1e9, float("nan"), "nonsense")
    elif isinstance(value, list | tuple):
        yield from ((), (99,), (-99, 99), (0, 0, 0, 0, 0, 0, 0), "nonsense")


def spoilings(op: Operator) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Arguments of bad calls: the first samples of each category with one argument replaced."""
    assert op.samples is not None
    for category in op.categories:
        try:
            samples = list(op.samples(Sampler(DTYPES[category], seed=3)))[:2]
        except NotImplementedError:
            continue
        for chosen in samples:
            for i, argument in enumerate(chosen.args):
                for wrong in wrongs(argument):
                    args = list(chosen.args)
                    args[i] = wrong
                    yield args, chosen.kwargs
            for name, argument in chosen.kwargs.items():
                for wrong in wrongs(argument):
                    yield list(chosen.args), {**chosen.kwargs, name: wrong}


def wrongs(argument: Any) -> Iterator[Any]:
    if isinstance(argument, Tensor):
        yield from spoiled_tensor(argument)
    elif isinstance(argument, list | tuple) and argument and isinstance(argument[0], Tensor):
        for wrong in spoiled_tensor(argument[0]):
            yield [wrong, *argument[1:]]
        yield []
    else:
        yield from spoiled_attribute(argument)


def tensors_in(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def state_of(tensor: Tensor) -> tuple[Any, ...]:
    """Everything about a tensor that a failed call must leave alone."""
    content = b"" if tensor.is_meta else np.ascontiguousarray(tensor._data).tobytes()
    gradient = None if tensor._grad is None else tensor._grad.tolist()
    return (
        content,
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        tensor.requires_grad,
        tensor.grad_fn,
        gradient,
        tensor._version,
    )


def failures(call: Callable[[], Any], watched: list[Tensor]) -> str | None:
    """What a failed call changed; None for nothing, or for a call that did not fail."""
    before = [state_of(t) for t in watched]
    generator = graphtorch.get_rng_state().tolist()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except Exception as error:
        after = [state_of(t) for t in watched]
        if after != before:
            return f"a tensor changed by a call that raised {type(error).__name__}: {error}"
        if graphtorch.get_rng_state().tolist() != generator:
            return f"the generator moved by a call that raised {type(error).__name__}: {error}"
        if not isinstance(error, RuntimeError | TypeError | ValueError | IndexError):
            return f"raised {type(error).__name__}: {error}"
    return None


def with_gradients(tensors: list[Tensor]) -> None:
    """Leaves with a gradient, so that there is one to lose."""
    for tensor in tensors:
        if tensor.dtype.is_differentiable and tensor.is_leaf and not tensor.is_meta:
            tensor._requires_grad = True
            tensor._grad = graphtorch.ones_like(tensor.detach())


@pytest.mark.parametrize("name", NAMES)
def test_functions(name: str) -> None:
    op = REGISTRY[name]
    assert op.function is not None
    graphtorch.manual_seed(0)
    for args, kwargs in spoilings(op):
        watched = list(tensors_in([*args, *kwargs.values()]))
        with_gradients(watched)
        found = failures(lambda a=args, k=kwargs: op.function(*a, **k), watched)  # type: ignore[misc]
        assert found is None, f"{found}\n{name}{(args, kwargs)}"


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(Tensor, n + "_")])
def test_in_place_forms(name: str) -> None:
    change = getattr(Tensor, name + "_")
    graphtorch.manual_seed(0)
    for args, kwargs in spoilings(REGISTRY[name]):
        if not args or not isinstance(args[0], Tensor):
            continue
        watched = list(tensors_in([*args, *kwargs.values()]))
        with_gradients(watched[1:])
        found = failures(lambda a=args, k=kwargs: change(*a, **k), watched)  # type: ignore[misc]
        assert found is None, f"{found}\n{name}_{(args, kwargs)}"


def outs(op: Operator, results: Any) -> Iterator[Any]:
    """Tensors that can't take the results, or that can where the arguments are wrong."""
    firsts = results if isinstance(results, tuple) else (results,)
    several = len(firsts) > 1
    for change in (
        lambda r: r.new_zeros(r.shape, dtype=dtypes.bool_),
        lambda r: r.new_zeros(r.shape, dtype=dtypes.uint8),
        lambda r: r.new_zeros((1,)).expand(r.shape) if r.ndim else r.new_zeros((2,)),
        lambda r: r.detach().clone().requires_grad_(r.dtype.is_differentiable),
        lambda r: r.new_zeros(r.shape),
        lambda r: graphtorch.empty(tuple(r.shape), dtype=r.dtype, device="meta"),
    ):
        made = tuple(change(r.detach()) for r in firsts)
        yield made if several else made[0]
    if several:
        yield (firsts[0].detach().clone(),)


@pytest.mark.parametrize("name", [n for n in NAMES if "call_out" in REGISTRY[n].function.__code__.co_names])  # type: ignore[union-attr]
def test_out_forms(name: str) -> None:
    op = REGISTRY[name]
    assert op.function is not None and op.samples is not None
    graphtorch.manual_seed(0)
    for category in op.categories:
        good = next(iter(op.samples(Sampler(DTYPES[category], seed=3))), None)
        if good is None:
            continue
        results = op.function(*good.args, **good.kwargs)
        bad = [(a, k) for a, k in spoilings(op)][::7]
        for args, kwargs in ((list(good.args), good.kwargs), *bad):
            for out in outs(op, results):
                watched = list(tensors_in([*args, *kwargs.values(), out]))
                found = failures(lambda a=args, k=kwargs, o=out: op.function(*a, **k, out=o), watched)  # type: ignore[misc]
                assert found is None, f"{found}\n{name}{(args, kwargs)}, out={out}"
