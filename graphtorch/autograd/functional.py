"""Derivatives of functions as functions. See https://docs.pytorch.org/docs/stable/autograd.html#functional-higher-
level-api.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.autograd.engine import grad
from graphtorch.autograd.grad_mode import enable_grad
from graphtorch.tensor.tensor import Tensor


def _inputs(inputs: Any, create_graph: bool) -> tuple[tuple[Tensor, ...], bool]:
    """Differentiable copies of the inputs, and whether they came as a tuple."""
    several = isinstance(inputs, tuple)
    given = inputs if several else (inputs,)
    for value in given:
        if not isinstance(value, Tensor):
            raise TypeError(f"The inputs given to the function must be tensors, but got {type(value).__name__}")
    if create_graph:
        return tuple(t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in given), several
    return tuple(t.detach().requires_grad_() for t in given), several


def _call(func: Callable[..., Any], inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], bool]:
    with enable_grad():
        outputs = func(*inputs)
    several = isinstance(outputs, tuple)
    found = outputs if several else (outputs,)
    for value in found:
        if not isinstance(value, Tensor):
            raise TypeError(f"The outputs of the function must be tensors, but got {type(value).__name__}")
    return found, several


def _pack(values: tuple[Any, ...], several: bool) -> Any:
    return values if several else values[0]


def _gradients(
    outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...], create_graph: bool
) -> tuple[Tensor, ...]:
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not pairs:
        return tuple(t.new_zeros(tuple(t.shape)) for t in inputs)
    found = grad(
        [o for o, _ in pairs],
        inputs,
        [c for _, c in pairs],
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return tuple(g for g in found if g is not None)


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs, and the product of the vector(s) `v` with the Jacobian. See torch.autograd.functional.vjp.

    Raises RuntimeError if `v` is left out and the output is no single number.
    """
    given, several = _inputs(inputs, create_graph)
    outputs, several_outputs = _call(func, given)
    if v is None:
        if len(outputs) != 1 or outputs[0].numel() != 1:
            raise RuntimeError(
                "The vector v can only be None if the user-provided function returns a single Tensor with a single "
                "element."
            )
        vectors: tuple[Tensor, ...] = (outputs[0].new_ones(tuple(outputs[0].shape)),)
    else:
        vectors = v if isinstance(v, tuple) else (v,)
    gradients = _gradients(outputs, given, vectors, create_graph)
    if not create_graph:
        outputs = tuple(o.detach() for o in outputs)
    return _pack(outputs, several_outputs), _pack(gradients, several)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs, and the product of the Jacobian with the vector(s) `v`, by differentiating a vjp in its vector.

    See torch.autograd.functional.jvp. Raises RuntimeError if `v` is left out and the input is no single number.
    """
    given, _ = _inputs(inputs, create_graph)
    if v is None:
        if len(given) != 1 or given[0].numel() != 1:
            raise RuntimeError(
                "The vector v can only be None if the input to the user-provided function is a single Tensor with a "
                "single element."
            )
        vectors: tuple[Tensor, ...] = (given[0].new_ones(tuple(given[0].shape)),)
    else:
        vectors = v if isinstance(v, tuple) else (v,)
    outputs, several_outputs = _call(func, given)
    seeds = tuple(o.new_ones(tuple(o.shape)).requires_grad_() for o in outputs)  # any cotangent: the vjp is linear
    gradients = _gradients(outputs, given, seeds, True)
    products = _gradients(gradients, seeds, vectors, create_graph)
    if not create_graph:
        outputs, products = tuple(o.detach() for o in outputs), tuple(p.detach() for p in products)
    return _pack(outputs, several_outputs), _pack(products, several_outputs)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: for each output and input a tensor of the output's shape followed by the input's.

    See torch.autograd.functional.jacobian. One backward pass an output element; `vectorize` is accepted.
    """
    from graphtorch.ops.build import FUNCTIONS

    given, several = _inputs(inputs, create_graph)
    outputs, several_outputs = _call(func, given)
    table: list[tuple[Tensor, ...]] = []
    for output in outputs:
        rows: list[tuple[Tensor, ...]] = []
        for place in range(output.numel()):
            seed = FUNCTIONS["zeros"](output.numel(), dtype=output.dtype, device=output.device)
            seed[place] = 1
            rows.append(_gradients((output,), given, (seed.reshape(tuple(output.shape)),), create_graph))
        table.append(
            tuple(
                FUNCTIONS["stack"]([row[i] for row in rows]).reshape((*output.shape, *tensor.shape))
                if rows
                else tensor.new_zeros((*output.shape, *tensor.shape))
                for i, tensor in enumerate(given)
            )
        )
    packed = tuple(_pack(row, several) for row in table)
    return _pack(packed, several_outputs)


def _scalar(func: Callable[..., Any]) -> Callable[..., Tensor]:
    def single(*values: Any) -> Tensor:
        result = func(*values)
        if not isinstance(result, Tensor) or result.numel() != 1:
            raise RuntimeError(
                "The function given to hessian, hvp or vhp must return a single Tensor with a single element."
            )
        return result.reshape(())  # type: ignore[no-any-return]

    return single


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function of one number as result: the Jacobian of its gradient. See
    torch.autograd.functional.hessian.
    """
    several = isinstance(inputs, tuple)

    def gradient(*values: Any) -> Any:
        return _pack(_gradients((_scalar(func)(*values),), values, (_one(values),), True), several)

    def _one(values: Any) -> Tensor:
        return values[0].new_ones(())  # type: ignore[no-any-return]

    return jacobian(gradient, inputs, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value, and the product of the Hessian with the vector(s) `v`. See torch.autograd.functional.hvp."""
    return vhp(func, inputs, v, create_graph, strict)


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value, and the product of the vector(s) `v` with the Hessian, which is symmetric.

    See torch.autograd.functional.vhp.
    """
    given, several = _inputs(inputs, create_graph)
    (value,), _ = _call(_scalar(func), given)
    gradients = _gradients((value,), given, (value.new_ones(()),), True)
    vectors: tuple[Tensor, ...] = v if isinstance(v, tuple) else (given[0].new_ones(()) if v is None else v,)
    products = _gradients(gradients, given, vectors, create_graph)
    return (value if create_graph else value.detach()), _pack(products, several)
