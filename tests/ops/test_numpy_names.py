"""`axis` and `keepdims`, NumPy's names for `dim` and `keepdim`, which PyTorch takes as well."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch

# (function, arguments after the tensor, named arguments)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *(
        (name, (), {"axis": 1})
        for name in ("sum", "mean", "prod", "amax", "argmax", "max", "median", "std", "logsumexp")
    ),
    *(
        (name, (), {"axis": 0, "keepdims": True})
        for name in ("sum", "mean", "all", "any", "min", "argmin", "var", "amin")
    ),
    *((name, (), {"dim": 1, "keepdims": True}) for name in ("sum", "max", "std")),
    *(
        (name, (), {"axis": -1})
        for name in ("softmax", "log_softmax", "cumsum", "cumprod", "unsqueeze", "sort", "diff")
    ),
    *((name, (), {"axis": -1}) for name in ("argsort", "unbind", "squeeze", "cummax", "logcumsumexp", "nansum")),
    *((name, (2,), {"axis": 1}) for name in ("chunk", "topk", "kthvalue", "tensor_split", "repeat_interleave")),
    ("sum", (), {"axis": (0, 1), "keepdims": True}),
    ("quantile", (0.5,), {"axis": 0}),
    ("count_nonzero", (), {"axis": 0}),
]
OWN = {"axis": "dim", "keepdims": "keepdim"}


def flat(result: Any) -> list[Any]:
    return result.tolist() if isinstance(result, torch.Tensor) else [part.tolist() for part in result]


@pytest.mark.parametrize(("name", "args", "named"), CALLS, ids=lambda x: str(x))
def test_both_names_mean_the_same(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    x = torch.tensor([[3.0, 1.0, 2.0], [6.0, 5.0, 4.0]])
    expected = flat(getattr(torch, name)(x, *args, **{OWN.get(n, n): v for n, v in named.items()}))
    assert flat(getattr(torch, name)(x, *args, **named)) == expected
    assert flat(getattr(x, name)(*args, **named)) == expected
    compiled = torch.compile(lambda x: getattr(torch, name)(x, *args, **named), backend="numpy", fullgraph=True)
    assert flat(compiled(x)) == expected


def test_gradients_and_lists() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    torch.cat([x, x], axis=1).mean(axis=(0, 1), keepdims=True).backward()
    torch.stack([x, x], axis=-1).softmax(axis=-1).sum().backward()
    assert x.grad is not None and x.grad.shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.sum(0, axis=0), "sum() got multiple values for argument 'dim'"),
        (lambda x: x.softmax(0, axis=0), "softmax() got multiple values for argument 'dim'"),
        (lambda x: x.max(dim=0, axis=0), "max() got multiple values for argument 'dim'"),
        (lambda x: x.squeeze(0, axis=0), "squeeze() got multiple values for argument 'dim'"),
        (lambda x: x.sum(axes=0), "sum() got an unexpected keyword argument 'axes'"),
        (lambda x: x.cumsum(keepdims=True), "cumsum() got an unexpected keyword argument 'keepdims'"),
        (lambda x: x.cumsum(), "cumsum() missing 1 required positional argument: 'dim'"),
        (lambda x: x.exp(axis=0), "exp() got an unexpected keyword argument 'axis'"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(TypeError) as error:
        call(torch.ones(2, 3))
    assert str(error.value).startswith(message)
