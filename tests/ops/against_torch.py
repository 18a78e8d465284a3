"""One expression in this package and in PyTorch: values, dtypes, and gradients of first and second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")


def results(value: Any) -> list[Any]:
    return [r for v in value for r in results(v)] if isinstance(value, tuple | list) else [value]


def array(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value.detach().resolve_conj().numpy())


def _real_sum(parts: Sequence[Any]) -> Any:
    """A real number that depends on every element in its own way."""
    total: Any = 0.0
    for part in parts:
        count = part.numel()
        ramp = (graphtorch if isinstance(part, graphtorch.Tensor) else torch).arange(1, count + 1)
        real = (part * part.conj()).real if part.is_complex() else part
        total = total + (real.reshape(-1) * ramp.to(real.dtype)).sum()
    return total


def compare(
    function: Callable[..., Any],
    *arrays: Any,
    tolerance: float = 1e-9,
    order: int = 2,
    values: bool = True,
) -> None:
    """`function(namespace, *tensors)` in both libraries.

    `order`: how many derivatives to compare (of all floating operands); `values=False` leaves the values out, where
    they are unique only up to a sign.
    """
    found = []
    for library in (graphtorch, torch):
        tensors = [library.from_numpy(np.array(a)) if isinstance(a, np.ndarray) else a for a in arrays]
        leaves = [
            t.requires_grad_(True)
            for t, a in zip(tensors, arrays, strict=True)
            if isinstance(a, np.ndarray) and a.dtype.kind in "fc" and order
        ]
        out = results(function(library, *tensors))
        derivatives: list[Any] = []
        if leaves:
            smooth = [o for o in out if o.requires_grad]
            first = library.autograd.grad(_real_sum(smooth), leaves, create_graph=order > 1, allow_unused=True)
            derivatives += first
            if order > 1:
                value = _real_sum([g for g in first if g is not None])
                derivatives += (
                    library.autograd.grad(value, leaves, allow_unused=True)
                    if value.requires_grad
                    else [None] * len(leaves)
                )
        found.append((out, derivatives))
    (ours, our_slopes), (theirs, their_slopes) = found
    assert len(ours) == len(theirs)
    for a, e in zip(ours, theirs, strict=True):
        if not isinstance(e, torch.Tensor):
            assert a == e
            continue
        assert str(a.dtype) == str(e.dtype)
        assert tuple(a.shape) == tuple(e.shape)
        if values:
            np.testing.assert_allclose(array(a), array(e), rtol=tolerance, atol=tolerance)
    for a, e in zip(our_slopes, their_slopes, strict=True):
        if a is None or e is None:
            known = e if a is None else a
            assert known is None or not array(known).any()
        else:
            scale = max(1.0, float(np.abs(array(e)).max(initial=0.0)))
            np.testing.assert_allclose(array(a), array(e), rtol=1e-6, atol=1e-8 * scale)


def same_error(function: Callable[..., Any], *arrays: Any, message: bool = True) -> None:
    """Both libraries refuse, with the same class (up to subclasses of RuntimeError) and the same first line."""
    errors = []
    for library in (graphtorch, torch):
        tensors = [library.from_numpy(np.array(a)) if isinstance(a, np.ndarray) else a for a in arrays]
        with pytest.raises(Exception) as caught:
            function(library, *tensors)
        errors.append(caught.value)
    ours, theirs = errors
    assert isinstance(ours, RuntimeError) == isinstance(theirs, RuntimeError), (ours, theirs)
    if message:
        assert str(ours).splitlines()[0] == str(theirs).splitlines()[0]
