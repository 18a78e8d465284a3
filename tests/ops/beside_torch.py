"""Running one function on this library and on PyTorch, and comparing all that a caller can observe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

Function = Callable[..., Any]


def on_both(function: Function, arrays: tuple[Any, ...], requires_grad: bool = False) -> tuple[Any, Any, Any, Any]:
    """(our result, our operands, PyTorch's result, PyTorch's operands) of `function(module, *tensors)`.

    An exception is a result too.
    """
    torch = pytest.importorskip("torch")
    found: list[Any] = []
    for module in (graphtorch, torch):
        operands = [module.from_numpy(np.array(a, copy=True)) if isinstance(a, np.ndarray) else a for a in arrays]
        for operand in operands:
            if requires_grad and hasattr(operand, "is_floating_point") and operand.is_floating_point():
                operand.requires_grad_()
        try:
            result = function(module, *operands)
        except Exception as error:
            result = error
        found += [result, operands]
    return found[0], found[1], found[2], found[3]


def assert_same(ours: Any, theirs: Any, rtol: float = 1e-6, atol: float = 1e-6, strides: bool = True) -> None:
    """Compare two results: nested tuples of tensors, or Python values."""
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        for result in (ours, theirs):
            if isinstance(result, Exception):
                raise AssertionError(f"raised {type(result).__name__}: {result}") from result
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b, rtol, atol, strides)
        return
    if not hasattr(theirs, "stride"):
        assert ours == theirs
        return
    assert tuple(ours.shape) == tuple(theirs.shape)
    assert str(ours.dtype) == str(theirs.dtype)
    if strides and theirs.numel():
        assert tuple(ours.stride()) == tuple(theirs.stride())
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=atol)


def shares_memory(result: Any, operand: Any) -> bool:
    """Whether a result of either library is a view of the operand."""
    return bool(result.untyped_storage().data_ptr() == operand.untyped_storage().data_ptr())


def check(function: Function, *arrays: Any, strides: bool = True, rtol: float = 1e-6, atol: float = 1e-6) -> None:
    """Values, shapes, dtypes, strides, aliasing of the first operand, and gradients are PyTorch's."""
    ours, our_operands, theirs, their_operands = on_both(function, arrays)
    assert_same(ours, theirs, rtol, atol, strides)
    tensors = list(zip(flat(ours), flat(theirs), strict=True))
    for a, b in tensors:
        if b.numel() and isinstance(arrays[0], np.ndarray):
            assert shares_memory(a, our_operands[0]) == shares_memory(b, their_operands[0]), "aliasing"
    if not any(b.is_floating_point() for _, b in tensors):
        return
    ours, our_operands, theirs, their_operands = on_both(function, arrays, requires_grad=True)
    random = np.random.default_rng(7)
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        if b.requires_grad:
            weight = random.uniform(-1, 1, b.shape).astype(b.detach().numpy().dtype)
            a.backward(graphtorch.from_numpy(weight), retain_graph=True)
            b.backward(type(b.detach()).new_tensor(b.detach(), weight), retain_graph=True)
    for a, b in zip(our_operands, their_operands, strict=True):
        if getattr(b, "grad", None) is not None:
            assert a.grad is not None
            assert_same(a.grad, b.grad, rtol, atol, strides=False)


def check_error(function: Function, *arrays: Any, message: bool = True) -> None:
    """The exception's class (and the first line of its message) is PyTorch's."""
    ours, _, theirs, _ = on_both(function, arrays)
    assert isinstance(theirs, Exception), "PyTorch accepts this"
    assert isinstance(ours, type(theirs)), f"{ours!r} instead of {theirs!r}"
    if message:
        assert str(ours).split("\n")[0] == str(theirs).split("\n")[0]


def flat(value: Any) -> list[Any]:
    """The tensors of a result."""
    if isinstance(value, tuple | list):
        return [t for item in value for t in flat(item)]
    return [value] if hasattr(value, "untyped_storage") else []


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Float32 numbers, the same in every run."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arange(*shape: int) -> np.ndarray[Any, Any]:
    """0, 1, 2, ... in float32."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
