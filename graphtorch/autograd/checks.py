"""Checking derivatives against finite differences. See torch.autograd.gradcheck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.engine import grad
from graphtorch.tensor.remote import overwrite, readable
from graphtorch.tensor.tensor import Tensor


class GradcheckError(RuntimeError):
    """Analytical and numerical derivatives differ."""


def _outputs(value: Any) -> tuple[Tensor, ...]:
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(v for v in values if isinstance(v, Tensor) and v.dtype.is_differentiable)


def _numerical(
    function: Callable[..., Any], inputs: Sequence[Any], tensor: Tensor, output: int, eps: float
) -> np.ndarray[Any, Any]:
    """d output / d tensor by central differences: one row an element of the tensor."""
    array = np.array(readable(tensor._data))
    rows = []
    directions = (1.0, 1.0j) if tensor.dtype.is_complex else (1.0,)

    def at(index: tuple[int, ...], value: Any) -> np.ndarray[Any, Any]:
        """The output with another value of one element."""
        array[index] = value
        overwrite(tensor._data, array)
        return _outputs(function(*inputs))[output].numpy(force=True).copy()

    for index in np.ndindex(array.shape):
        old = array[index]
        row: Any = 0
        for direction in directions:
            above = at(index, old + eps * direction)
            below = at(index, old - eps * direction)
            array[index] = old
            overwrite(tensor._data, array)
            slope = (above - below) / (2 * eps)
            # For a real function of a complex number PyTorch's gradient is df/dx + i df/dy.
            row = row + (direction * slope if direction == 1.0 or not np.iscomplexobj(slope) else 0)
        rows.append(np.asarray(row).reshape(-1))
    return np.stack(rows) if rows else np.zeros((0, 0))


def _analytical(result: Tensor, tensor: Tensor) -> np.ndarray[Any, Any]:
    """The same by backward passes: one column an element of the output."""
    columns = []
    for index in range(result.numel()):
        seed = np.zeros(result.numel(), result.dtype.numpy)
        seed[index] = 1
        cotangent = result._beside(seed.reshape(tuple(result.shape)))
        (found,) = grad(result, tensor, cotangent, retain_graph=True, allow_unused=True)
        columns.append(
            np.zeros(tensor.numel(), tensor.dtype.numpy) if found is None else found.numpy(force=True).reshape(-1)
        )
    return np.stack(columns, axis=1) if columns else np.zeros((tensor.numel(), 0))


def _pushed(function: Callable[..., Any], inputs: Sequence[Any], tensor: Tensor, output: int) -> np.ndarray[Any, Any]:
    """The same by forward mode: one row an element of the tensor."""
    from graphtorch.autograd import forward_ad

    rows = []
    for index in range(tensor.numel()):
        unit = np.zeros(tensor.numel(), tensor.dtype.numpy)
        unit[index] = 1
        direction = tensor._beside(unit.reshape(tuple(tensor.shape)))
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(tensor, direction)
            made = _outputs(function(*(dual if t is tensor else t for t in inputs)))[output]
            tangent = forward_ad.unpack_dual(made).tangent
            rows.append((made * 0 if tangent is None else tangent).numpy(force=True).reshape(-1).copy())
    return np.stack(rows) if rows else np.zeros((0, 0))


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of `func` at `inputs` agree with central differences.

    Give float64 inputs that require grad: `eps` is too small for narrower types. A function of complex inputs must have
    real outputs. `check_forward_ad` checks forward mode, too, for real inputs; `check_backward_ad=False` only that. All
    elements are compared, in `fast_mode` too; the other options ask for nothing here. Raises GradcheckError (or returns
    False) where a derivative differs by more than `atol + rtol * |numerical|`, and ValueError if no input requires
    grad.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [t for t in given if isinstance(t, Tensor) and t.requires_grad]
    if not checked:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have "
            "requires_grad=True."
        )
    results = _outputs(func(*given))
    for output, result in enumerate(results):
        for position, tensor in enumerate(checked):
            numerical = _numerical(func, given, tensor, output, eps)
            found: list[tuple[str, np.ndarray[Any, Any]]] = []
            if check_backward_ad:
                backward = _analytical(result, tensor) if result.requires_grad else np.zeros_like(numerical)
                found.append(("Jacobian", backward))
            if check_forward_ad and not tensor.dtype.is_complex:
                found.append(("Jacobian computed with forward mode", _pushed(func, given, tensor, output)))
            for what, analytical in found:
                if np.allclose(analytical, numerical, rtol=rtol, atol=atol):
                    continue
                if not raise_exception:
                    return False
                raise GradcheckError(
                    f"{what} mismatch for output {output} with respect to input {position},\n"
                    f"numerical:{numerical}\nanalytical:{analytical}\n"
                )
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of the gradients agree with central differences: `gradcheck` of the backward pass, by
    reverse mode (`check_rev_over_rev`) and by forward mode (`check_fwd_over_rev`).

    The cotangents are drawn from a generator of fixed seed unless given. Raises as `gradcheck` does.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    results = [r for r in _outputs(func(*given)) if r.requires_grad]
    if grad_outputs is None:
        random = np.random.default_rng(0)
        cotangents = [
            r._beside(np.asarray(random.standard_normal(tuple(r.shape))).astype(r.dtype.numpy)).requires_grad_()
            for r in results
        ]
    else:
        cotangents = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def backward(*values: Any) -> Any:
        operands, seeds = values[: len(given)], values[len(given) :]
        outputs = [r for r in _outputs(func(*operands)) if r.requires_grad]
        wanted = [t for t in operands if isinstance(t, Tensor) and t.requires_grad]
        return tuple(g for g in grad(outputs, wanted, seeds, create_graph=True, allow_unused=True) if g is not None)

    return gradcheck(
        backward,
        (*given, *cotangents),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev,
    )
