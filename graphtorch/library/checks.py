"""`opcheck`: whether an operator of one's own keeps what it promises, on a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.library.custom import CustomOpDef, definition_of, leaves
from graphtorch.tensor.tensor import Tensor

_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def opcheck(
    op: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    test_utils: str | Sequence[str] = _CHECKS,
    raise_exception: bool = True,
    atol: float | None = None,
    rtol: float | None = None,
) -> dict[str, Any]:
    """Check an operator on a call: that it changes only what it says, has a gradient where one is wanted, that its fake
    function is right, and that it does the same compiled, with sizes symbolic, as eagerly.

    Returns "SUCCESS" or the error for each check; by default the first error is raised.
    See https://docs.pytorch.org/docs/stable/library.html#torch.library.opcheck.
    """
    op = definition_of(op)
    found: dict[str, Any] = {}
    for name in [test_utils] if isinstance(test_utils, str) else test_utils:
        if name not in _CHECKS:
            raise ValueError(f"unknown check {name!r}; known are {', '.join(_CHECKS)}")
        try:
            globals()[f"_{name}"](op, args, kwargs or {}, {"atol": atol, "rtol": rtol})
        except Exception as error:
            if raise_exception:
                raise
            found[name] = error
        else:
            found[name] = "SUCCESS"
    return found


def _copied(args: Any) -> Any:
    """Arguments that share nothing with the given ones."""
    if isinstance(args, Tensor):
        return args.detach().clone().requires_grad_(args.requires_grad)
    if isinstance(args, dict):
        return {key: _copied(value) for key, value in args.items()}
    return type(args)(map(_copied, args)) if isinstance(args, list | tuple) else args


def _test_schema(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    args, kwargs = _copied(args), _copied(kwargs)
    bound = op.signature.bind(*args, **kwargs).arguments
    before = {name: [leaf.detach().clone() for leaf in leaves(value)] for name, value in bound.items()}
    op(*args, **kwargs)
    for name, value in bound.items():
        for old, new in zip(before[name], leaves(value), strict=True):
            if name not in op.mutated and not np.array_equal(old.numpy(), new.detach().numpy(), equal_nan=True):
                raise RuntimeError(f"{op.name}: argument {name} was changed, but is not in mutates_args")


def _test_autograd_registration(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    if any(leaf.requires_grad for leaf in leaves((args, kwargs))) and op._backward is None:
        raise RuntimeError(f"{op.name}: an argument requires a gradient, but no autograd formula was registered")


def _test_faketensor(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    op._require_fake()
    args, kwargs = _copied(args), _copied(kwargs)
    bound = op.signature.bind(*args, **kwargs)
    bound.apply_defaults()
    values = [tuple(v) if isinstance(v, list) else v for v in bound.arguments.values()]
    expected = op.record.infer(tuple(values))
    for said, made in zip(expected, leaves(op(*args, **kwargs)), strict=False):
        if said.dtype != made.dtype or tuple(said.shape) != tuple(made.shape):
            raise RuntimeError(
                f"{op.name}: the fake function says {said.dtype}{list(said.shape)}, the operator returned "
                f"{made.dtype}{list(made.shape)}"
            )


def _test_aot_dispatch_dynamic(op: CustomOpDef, args: Any, kwargs: Any, tolerance: Any) -> None:
    from graphtorch.frontend import compile

    rtol = 1e-5 if tolerance["rtol"] is None else tolerance["rtol"]
    atol = 1e-6 if tolerance["atol"] is None else tolerance["atol"]

    def run(function: Callable[..., Any]) -> list[np.ndarray]:
        given, named = _copied(args), _copied(kwargs)
        results = leaves(function(*given, **named))
        sources = [leaf for leaf in leaves((given, named)) if leaf.requires_grad]
        if sources and op._backward is not None:
            total: Any = sum(r.sum() for r in results if r.requires_grad)
            total.backward()
        gradients = [leaf.grad for leaf in sources if leaf.grad is not None]
        return [t.detach().numpy() for t in (*results, *leaves((given, named)), *gradients)]

    eager = run(lambda *a, **k: op(*a, **k))
    compiled = run(compile(lambda *a, **k: op(*a, **k), fullgraph=True, dynamic=True))
    for expected, got in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
